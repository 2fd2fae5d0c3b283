package azblob

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// failure makes the error of the contract from one of the SDK. An effect without
// a definite answer (none at all, or 5xx) is KindDeadline, for it may still land;
// what was certainly never sent is not, and has ufs.ErrNotSent in its chain.
func (s *store) failure(ctx context.Context, err error, e object.Effect) error {
	if err == nil {
		return nil
	}
	kind, text := s.classify(err)
	status, unsent := statusOf(err), !sent(err)
	own, isOwn := errors.AsType[*freshet.Error](err)
	switch {
	case isOwn: // the endpoint policy, a redirect, a secret
		kind, text = own.Kind, own.Error()
	case errors.Is(err, httpclient.ErrLate):
		kind = freshet.KindDeadline
	case ctx.Err() != nil:
		kind, text = freshet.KindDeadline, ctx.Err().Error()
		err = errors.Join(ctx.Err(), err)
	case e == object.Changes && (status == 0 && !unsent || status >= 500 && status != http.StatusNotImplemented || status/100 == 2):
		kind, text = freshet.KindDeadline, "no definite answer, it may still take effect: "+text
	}
	switch {
	case codeOf(err) == string(bloberror.ContainerNotFound):
		err = errors.Join(ufs.ErrNoRoot, err)
	case e == object.Changes && status == 0 && unsent:
		err = errors.Join(ufs.ErrNotSent, err)
	}
	return &freshet.Error{Kind: kind, Err: &object.AnswerError{Text: text, Err: err}}
}

// sent reports whether a request that got no answer may have reached the server.
func sent(err error) bool {
	return !errors.Is(err, ufs.ErrNotSent) && !noIdentity(err)
}

// noIdentity reports whether there was no token: nothing was sent to the storage.
func noIdentity(err error) bool { return errors.As(err, new(*identityError)) }

func statusOf(err error) int {
	if resp, ok := errors.AsType[*azcore.ResponseError](err); ok && !noIdentity(err) {
		return resp.StatusCode
	}
	return 0
}

func codeOf(err error) string {
	if resp, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return resp.ErrorCode
	}
	return ""
}

// classify maps an answer to a Kind. KindNotExist is given only for a code that
// says it of the blob: a missing container or a server that is no blob service
// must not look like an absent file.
func (s *store) classify(err error) (freshet.Kind, string) {
	if own, ok := errors.AsType[*identityError](err); ok {
		return own.classify()
	}
	status := statusOf(err)
	text := describe(err, status)
	switch code := bloberror.Code(codeOf(err)); code { //nolint:exhaustive // the others go by their status
	case bloberror.BlobNotFound:
		return freshet.KindNotExist, "no such blob"
	case bloberror.ContainerNotFound:
		return freshet.KindUnavailable, fmt.Sprintf("container %q does not exist at %s: create it or correct the URI", s.cfg.container, s.cfg.endpoint)
	case bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return freshet.KindUnavailable, text
	case bloberror.ConditionNotMet, bloberror.SourceConditionNotMet, bloberror.TargetConditionNotMet, bloberror.CannotVerifyCopySource:
		return classifyCondition(code, status, text)
	case bloberror.BlobAlreadyExists:
		return freshet.KindExist, "something is there already"
	case bloberror.InvalidRange:
		return freshet.KindInvalid, text
	case bloberror.InvalidBlockList, bloberror.InvalidBlobOrBlock, bloberror.InvalidBlockID:
		return freshet.KindConflict, "another upload to the same blob ended meanwhile, and the storage then drops the blocks of all others: write it again: " + text
	case bloberror.LeaseIDMissing, bloberror.LeaseLost, bloberror.LeaseIDMismatchWithBlobOperation, bloberror.LeaseAlreadyPresent:
		return freshet.KindConflict, "somebody holds a lease on the blob: " + text
	case bloberror.SnapshotsPresent:
		return freshet.KindConflict, "the blob has snapshots: remove them first, or set option delete_snapshots=true: " + text
	case "DirectoryIsNotEmpty", bloberror.InvalidBlobType, "PathConflict", "ResourceTypeMismatch":
		return freshet.KindConflict, text
	case "BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold":
		return freshet.KindPermission, "a policy of the container keeps the blob as it is: " + text
	case bloberror.BlobArchived, bloberror.BlobBeingRehydrated:
		return freshet.KindUnsupported, "the blob is in the archive tier: rehydrate it first: " + text
	case bloberror.AuthenticationFailed:
		return freshet.KindPermission, "the storage does not accept the credentials: check account_key, the time that sas is valid for, and the clock of this machine: " + text
	case "AccountQuotaExceeded", bloberror.RequestBodyTooLarge, bloberror.BlockCountExceedsLimit, "FilesystemQuotaExceeded":
		return freshet.KindExhausted, text
	}
	return object.ClassifyStatus(status, "a blob service", text)
}

func classifyCondition(code bloberror.Code, status int, text string) (freshet.Kind, string) {
	if code == bloberror.CannotVerifyCopySource {
		if status == http.StatusNotFound {
			return freshet.KindStale, "the file to copy is gone: " + text
		}
		return object.ClassifyStatus(status, "a blob service", text)
	}
	return freshet.KindStale, "the storage holds another version"
}

// describe is the short text of an SDK error: what the server said, or why there
// was no answer. The SDK's own text is a page long and has the URL in it.
func describe(err error, status int) string {
	resp, ok := errors.AsType[*azcore.ResponseError](err)
	switch {
	case ok && status != 0:
		text := fmt.Sprintf("Azure answered %d %s", status, resp.ErrorCode)
		if resp.RawResponse != nil {
			if id := resp.RawResponse.Header.Get("x-ms-request-id"); id != "" {
				text += " (request " + id + ")"
			}
		}
		return text
	case errors.Is(err, httpclient.ErrSilent):
		return httpclient.ErrSilent.Error()
	}
	return firstLine(err)
}

func firstLine(err error) string {
	text := err.Error()
	for i, c := range text {
		if c == '\n' || i > 300 {
			return text[:i]
		}
	}
	return text
}

// isRange reports whether a read was refused for its offset.
func isRange(err error) bool {
	return codeOf(err) == string(bloberror.InvalidRange) || statusOf(err) == http.StatusRequestedRangeNotSatisfiable
}

var errRange = object.ErrRange
