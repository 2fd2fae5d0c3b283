package rest

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// errorBody is the JSON form of every error.
type errorBody struct {
	Code      int    `json:"code"` // of HTTP
	Kind      string `json:"kind"`
	Message   string `json:"message"`
	Op        string `json:"op"`
	Path      string `json:"path"`
	RequestID string `json:"request_id"`
}

// writeError answers with the HTTP status that belongs to err's kind.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		writeStatus(w, r, http.StatusRequestEntityTooLarge, freshet.Errorf(freshet.KindInvalid, "read request", "", "the body is larger than %d bytes", e.Limit))
		return
	}
	writeStatus(w, r, freshet.KindOf(err).Info().HTTP, err)
}

func bodyOf(w http.ResponseWriter, status int, err error) errorBody {
	op, p := rpc.RemoteDetail(err)
	return errorBody{
		Code: status, Kind: freshet.KindOf(err).String(), Message: err.Error(), Op: op, Path: string(p), RequestID: requestID(w),
	}
}

func writeStatus(w http.ResponseWriter, r *http.Request, status int, err error) {
	body := bodyOf(w, status, err)
	h := w.Header()
	for _, name := range []string{"Content-Length", "ETag", "Last-Modified", "Accept-Ranges", HeaderFingerprint, HeaderSource} {
		h.Del(name) // of the entry, not of this answer
	}
	if status != http.StatusRequestedRangeNotSatisfiable {
		h.Del("Content-Range")
	}
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}

func writeRoutingError(w http.ResponseWriter, r *http.Request, status int) {
	kind, text := freshet.KindNotExist, "there is no such route; see /v1/openapi.json"
	switch status {
	case http.StatusMethodNotAllowed:
		kind, text = freshet.KindUnsupported, "this route does not have the method "+r.Method
	case http.StatusBadRequest:
		kind, text = freshet.KindInvalid, "the request can't be read"
	}
	writeStatus(w, r, status, freshet.Errorf(kind, r.Method, "", "%s", text))
}

// WithRequestID gives every request an identity that its answer, its error and
// the log carry.
func WithRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderRequestID, uuid.NewString())
		next.ServeHTTP(w, r)
	})
}

func requestID(w http.ResponseWriter) string { return w.Header().Get(HeaderRequestID) }

// Unavailable answers every route with err while there is nothing to serve yet.
func Unavailable(err error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeError(w, r, err) })
}

// NotFound answers routes that do not exist.
func NotFound() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeRoutingError(w, r, http.StatusNotFound) })
}
