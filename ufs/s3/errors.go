package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// effect says whether a request changes what others see.
type effect bool

const (
	reads   effect = false
	changes effect = true
)

// answerError is an error of the SDK with a text that is short and says what to
// do; the SDK's own stays in the chain.
type answerError struct {
	text string
	err  error
}

func (e *answerError) Error() string { return e.text }
func (e *answerError) Unwrap() error { return e.err }

// failure makes the error of the contract from one of the SDK. An effect without
// a definite answer (none at all, or 5xx) is KindDeadline, for it may still land;
// what was certainly never sent is not.
func (f *FS) failure(ctx context.Context, op, key string, err error, e effect) error {
	if err == nil {
		return nil
	}
	if own, ok := err.(*freshet.Error); ok { //nolint:errorlint // made by an inner call
		return own
	}
	kind, text := f.classify(err)
	if own, ok := errors.AsType[*freshet.Error](err); ok { // the endpoint policy, a redirect, a secret: nothing was sent
		return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: own.Kind, Err: &answerError{own.Error(), err}}
	}
	status := statusOf(err)
	switch {
	case errors.As(err, new(notSentError)):
		kind = freshet.KindDeadline
	case ctx.Err() != nil:
		kind, text = freshet.KindDeadline, ctx.Err().Error()
		err = errors.Join(ctx.Err(), err)
	case e == changes && status == 0 && sent(err), e == changes && status >= 500 && status != http.StatusNotImplemented,
		e == changes && status/100 == 2:
		kind, text = freshet.KindDeadline, "no definite answer, it may still take effect: "+text
	}
	return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: kind, Err: &answerError{text, err}}
}

// sent reports whether a request that got no answer may have reached the server.
func sent(err error) bool {
	if errors.As(err, new(notSentError)) {
		return false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true // the SDK's error then does not tell how far it came
	}
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); !ok {
		return false // it failed before: no credentials, not signed
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	var dns *net.DNSError
	return !errors.As(err, &dns)
}

func statusOf(err error) int {
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.Response != nil {
		return resp.HTTPStatusCode()
	}
	return 0
}

func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// hasCode reports whether the server answered with that error code.
func hasCode(err error, code string) bool { return err != nil && codeOf(err) == code }

// classify maps an answer to a Kind. KindNotExist is given only for a code that
// says it of the key: a missing bucket or a server that knows no S3 must not
// look like an absent file.
func (f *FS) classify(err error) (freshet.Kind, string) {
	status, code := statusOf(err), codeOf(err)
	text := describe(err, status, code)
	switch code {
	case "NoSuchKey":
		return freshet.KindNotExist, "no such object"
	case "NoSuchBucket":
		return freshet.KindUnavailable, fmt.Sprintf("bucket %q does not exist at %s: create it or correct the URI", f.bucket, f.cfg.where())
	case "NoSuchUpload":
		return freshet.KindConflict, "the upload was ended by somebody else"
	case "ExistingObjectIsDirectory", "ObjectParentIsFile":
		return freshet.KindConflict, text
	case "ConditionalRequestConflict", "OperationAborted":
		return freshet.KindUnavailable, text
	case "QuotaExceeded", "EntityTooLarge":
		return freshet.KindExhausted, text
	case "NotImplemented":
		return freshet.KindUnsupported, text
	}
	return classifyStatus(status, text)
}

func classifyStatus(status int, text string) (freshet.Kind, string) {
	switch status {
	case 0:
		return freshet.KindUnavailable, text
	case http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect:
		return freshet.KindPermission, "redirect refused: correct the options region and endpoint: " + text
	case http.StatusUnauthorized, http.StatusForbidden:
		return freshet.KindPermission, "the storage denies it: check the mount's credentials: " + text
	case http.StatusNotFound:
		return freshet.KindUnavailable, "the endpoint does not answer like an S3 server: " + text
	case http.StatusPreconditionFailed:
		return freshet.KindStale, text
	case http.StatusConflict:
		return freshet.KindConflict, text
	case http.StatusRequestedRangeNotSatisfiable:
		return freshet.KindInvalid, text
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return freshet.KindUnsupported, text
	case http.StatusInsufficientStorage:
		return freshet.KindExhausted, text
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return freshet.KindUnavailable, text
	}
	if status >= 400 && status < 500 {
		return freshet.KindInvalid, text
	}
	return freshet.KindUnavailable, text
}

// describe is the short text of an SDK error: what the server said, or why
// there was no answer.
func describe(err error, status int, code string) string {
	var api smithy.APIError
	switch {
	case status != 0 && errors.As(err, &api):
		text := fmt.Sprintf("S3 answered %d %s: %.200s", status, code, api.ErrorMessage())
		var resp *awshttp.ResponseError
		if errors.As(err, &resp) && resp.ServiceRequestID() != "" {
			text += " (request " + resp.ServiceRequestID() + ")"
		}
		return text
	case status/100 == 2:
		return "unreadable answer: " + innermost(err).Error()
	case status != 0:
		return fmt.Sprintf("S3 answered %d", status)
	}
	return innermost(err).Error()
}

// innermost skips the SDK's layers, each of which repeats the operation.
func innermost(err error) error {
	for {
		switch e := err.(type) { //nolint:errorlint // walks the chain itself
		case *smithy.OperationError:
			err = e.Err
		case *smithyhttp.RequestSendError:
			err = e.Err
		case *awshttp.ResponseError:
			err = e.ResponseError
		case *smithyhttp.ResponseError:
			err = e.Err
		case *smithy.DeserializationError:
			err = e.Err
		default:
			return err
		}
	}
}

func notExist(op, key string) error {
	return ufs.Errorf(freshet.KindNotExist, op, key, "no such file or directory")
}
