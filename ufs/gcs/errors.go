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

// failure makes the error of the contract of ufs/object from one of the client. An
// effect without a definite answer (none at all, or 5xx) is KindDeadline.
func (s *store) failure(err error, e object.Effect) error {
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
	case e == object.Changes && errors.Is(err, ufs.ErrNotSent): // nothing of it can land
	case e == object.Changes && (status == 0 || status >= http.StatusInternalServerError && status != http.StatusNotImplemented):
		kind, text = freshet.KindDeadline, "no definite answer, it may still take effect: "+text
	}
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		err = errors.Join(ufs.ErrNoRoot, err)
	case status == http.StatusRequestedRangeNotSatisfiable:
		err = errors.Join(object.ErrRange, err)
	}
	return &freshet.Error{Kind: kind, Err: &object.AnswerError{Text: text, Err: err}}
}

func (s *store) noBucket() string {
	return fmt.Sprintf("bucket %q does not exist: create it or correct the URI", s.bucket)
}

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
	if status == http.StatusNotFound {
		return freshet.KindNotExist, "no such object"
	}
	return object.ClassifyStatus(status, "Google Cloud Storage", text)
}

// brief is the short text of a client's error.
func brief(err error, status int) string {
	if api, ok := errors.AsType[*googleapi.Error](err); ok {
		return fmt.Sprintf("GCS answered %d: %.200s", status, api.Message)
	}
	return err.Error()
}
