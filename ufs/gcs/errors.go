package gcs

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// effect says whether a request changes what others see.
type effect bool

const (
	reads   effect = false
	changes effect = true
)

// failure makes the error of the contract of ufs/object from one of the client. An
// effect without a definite answer (none at all, or 5xx) is KindDeadline.
func (s *store) failure(err error, e effect) error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*freshet.Error](err); ok { // the endpoint policy, a redirect
		return &freshet.Error{Kind: own.Kind, Err: err}
	}
	status := 0
	if api, ok := errors.AsType[*googleapi.Error](err); ok {
		status = api.Code
	}
	kind, text := s.classify(err, status)
	switch {
	case e == changes && errors.Is(err, ufs.ErrNotSent): // nothing of it can land
	case e == changes && (status == 0 || status >= http.StatusInternalServerError && status != http.StatusNotImplemented):
		kind, text = freshet.KindDeadline, "no definite answer, it may still take effect: "+text
	}
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		err = errors.Join(ufs.ErrNoRoot, err)
	case status == http.StatusRequestedRangeNotSatisfiable:
		err = errors.Join(object.ErrRange, err)
	}
	return &freshet.Error{Kind: kind, Err: &answerError{text, err}}
}

func (s *store) noBucket() string {
	return fmt.Sprintf("bucket %q does not exist: create it or correct the URI", s.bucket)
}

// answerError is an error of the client with a text that is short and says what to
// do; the client's own stays in the chain.
type answerError struct {
	text string
	err  error
}

func (e *answerError) Error() string { return e.text }
func (e *answerError) Unwrap() error { return e.err }

// classify maps an answer to a Kind. KindNotExist is given only for what says it of
// the object: a missing bucket must not look like an absent file.
func (s *store) classify(err error, status int) (freshet.Kind, string) {
	text := brief(err, status)
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return freshet.KindUnavailable, s.noBucket()
	case errors.Is(err, storage.ErrObjectNotExist):
		return freshet.KindNotExist, "no such object"
	case status == 0:
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, httpclient.ErrLate) {
			return freshet.KindDeadline, text
		}
		return freshet.KindUnavailable, text
	}
	switch status {
	case http.StatusNotFound:
		return freshet.KindNotExist, "no such object"
	case http.StatusUnauthorized, http.StatusForbidden:
		return freshet.KindPermission, "the storage denies it: check the mount's credentials: " + text
	case http.StatusPreconditionFailed:
		return freshet.KindStale, text
	case http.StatusConflict:
		return freshet.KindConflict, text
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return freshet.KindUnavailable, text
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return freshet.KindUnsupported, text
	case http.StatusInsufficientStorage:
		return freshet.KindExhausted, text
	}
	if status >= 400 && status < 500 {
		return freshet.KindInvalid, text
	}
	return freshet.KindUnavailable, text
}

// brief is the short text of a client's error.
func brief(err error, status int) string {
	if api, ok := errors.AsType[*googleapi.Error](err); ok {
		return fmt.Sprintf("GCS answered %d: %.200s", status, api.Message)
	}
	return err.Error()
}
