package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// failure makes the error of the contract of ufs/object from one of the SDK. An effect without
// a definite answer (none at all, or 5xx) is KindDeadline, for it may still land;
// what was certainly never sent is not, and has ufs.ErrNotSent in its chain.
func (s *store) failure(ctx context.Context, err error, e object.Effect) error {
	if err == nil {
		return nil
	}
	if own, ok := err.(*freshet.Error); ok { //nolint:errorlint // made by an inner call
		return own
	}
	kind, text := s.classify(err)
	status, lost := statusOf(err), sent(err)
	own, isOwn := errors.AsType[*freshet.Error](err)
	switch {
	case isOwn: // the endpoint policy, a redirect, a secret
		kind, text = own.Kind, own.Error()
	case errors.Is(err, httpclient.ErrLate):
		kind = freshet.KindDeadline
	case ctx.Err() != nil:
		kind, text = freshet.KindDeadline, ctx.Err().Error()
		err = errors.Join(ctx.Err(), err)
	case e == object.Changes && status == 0 && lost, e == object.Changes && status >= 500 && status != http.StatusNotImplemented,
		e == object.Changes && status/100 == 2:
		kind, text = freshet.KindDeadline, "no definite answer, it may still take effect: "+text
	}
	switch {
	case hasCode(err, "NoSuchBucket"):
		err = errors.Join(ufs.ErrNoRoot, err)
	case status == http.StatusRequestedRangeNotSatisfiable:
		err = errors.Join(object.ErrRange, err)
	case e == object.Changes && status == 0 && !lost:
		err = errors.Join(ufs.ErrNotSent, err)
	}
	return &freshet.Error{Kind: kind, Err: &object.AnswerError{Text: text, Err: err}}
}

// sent reports whether a request that got no answer may have reached the server.
func sent(err error) bool {
	if unsent(err) {
		return false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true // the SDK's error then does not tell how far it came
	}
	_, ok := errors.AsType[*smithyhttp.RequestSendError](err)
	return ok // else it failed before: no credentials, not signed
}

// unsent reports whether the server certainly saw nothing of the last attempt.
func unsent(err error) bool { return errors.Is(err, ufs.ErrNotSent) }

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
func (s *store) classify(err error) (freshet.Kind, string) {
	status, code := statusOf(err), codeOf(err)
	text := describe(err, status, code)
	switch code {
	case "NoSuchKey":
		return freshet.KindNotExist, "no such object"
	case "NoSuchBucket":
		return freshet.KindUnavailable, fmt.Sprintf("bucket %q does not exist at %s: create it or correct the URI", s.bucket, s.cfg.where())
	case "NoSuchUpload":
		return freshet.KindConflict, "the upload was ended by somebody else"
	case "ExistingObjectIsDirectory", "ObjectParentIsFile":
		return freshet.KindConflict, text
	case "RequestTimeTooSkewed":
		return freshet.KindPermission, "the clocks of this machine and of the storage differ by more than the storage allows: set them right: " + text
	case "SignatureDoesNotMatch", "InvalidAccessKeyId":
		return freshet.KindPermission, "the storage does not know these credentials: check access_key, secret_key and region: " + text
	case "ConditionalRequestConflict", "OperationAborted":
		return freshet.KindUnavailable, text
	case "QuotaExceeded", "EntityTooLarge":
		return freshet.KindExhausted, text
	case "NotImplemented":
		return freshet.KindUnsupported, text
	}
	if expired(err) {
		return freshet.KindPermission, "the mount's temporary credentials have expired: renew what access_key, secret_key and session_token refer to: " + text
	}
	if status/100 == 3 || code == "AuthorizationHeaderMalformed" || code == "IllegalLocationConstraintException" {
		if region := regionOf(err); region != "" {
			return freshet.KindPermission, fmt.Sprintf("redirect refused: bucket %q is in region %s: set option region=%s: %s", s.bucket, region, region, text)
		}
	}
	if host := redirection(err); status/100 == 3 && host != "" {
		return freshet.KindPermission, fmt.Sprintf("redirect refused: the endpoint sends to %s; give that endpoint or region in the options if it is right: %s", host, text)
	}
	return object.ClassifyStatus(status, "an S3 server", text)
}

// redirection returns scheme and host of where an answer sends.
func redirection(err error) string {
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &resp) || resp.Response == nil {
		return ""
	}
	to, perr := resp.Response.Location()
	if perr != nil {
		return ""
	}
	return to.Scheme + "://" + to.Host
}

// regionOf returns where the server says that the bucket is, if it does.
func regionOf(err error) string {
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &resp) || resp.Response == nil {
		return ""
	}
	region := resp.Response.Header.Get("X-Amz-Bucket-Region")
	if region == "" {
		// AWS has it in its sentence too: … is wrong; expecting 'eu-west-1'
		if api, ok := errors.AsType[smithy.APIError](err); ok {
			_, rest, _ := strings.Cut(api.ErrorMessage(), "expecting '")
			region, _, _ = strings.Cut(rest, "'")
		}
	}
	if len(region) > 64 || strings.ContainsFunc(region, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) {
		return ""
	}
	return region
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
		case interface{ ServiceHostID() string }: // S3's own, of an internal type
			var resp *smithyhttp.ResponseError
			if !errors.As(err, &resp) {
				return err
			}
			err = resp
		case *smithy.DeserializationError:
			err = e.Err
		case *retry.MaxAttemptsError:
			err = e.Err
		case *url.Error: // it repeats the address
			err = e.Err
		case interface{ Unwrap() []error }: // the SDK adds that its quota of retries is used up
			err = e.Unwrap()[0]
		default:
			return err
		}
	}
}
