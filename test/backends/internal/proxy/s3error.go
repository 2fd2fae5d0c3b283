package proxy

import (
	"encoding/xml"
	"net/http"
	"strconv"
)

// status is what ActionStatus answers.
func (r Rule) status() int {
	if r.Status == 0 {
		return http.StatusServiceUnavailable
	}
	return r.Status
}

// code is the S3 error code that goes with the status.
func (r Rule) code() string {
	if r.Code != "" {
		return r.Code
	}
	switch r.status() {
	case http.StatusForbidden:
		return "AccessDenied"
	case http.StatusNotFound:
		return "NoSuchKey"
	case http.StatusConflict:
		return "OperationAborted"
	case http.StatusPreconditionFailed:
		return "PreconditionFailed"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "SlowDown"
	default:
		return "InternalError"
	}
}

// s3Error is the body of an S3 error answer.
type s3Error struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
	Key     string `xml:",omitempty"`
}

func writeS3Error(w http.ResponseWriter, r *http.Request, x *exchange) {
	status := x.rule.status()
	if status == http.StatusNoContent || status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	body, err := xml.Marshal(s3Error{Code: x.rule.code(), Message: "injected fault", Key: x.key})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
