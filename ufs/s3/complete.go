package s3

import (
	"context"
	"slices"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// complete publishes a multipart upload. It is the one effect that is sent again,
// for an upload can be completed only once.
func (w *writer) complete(ctx context.Context, op string) (ufs.Status, error) {
	slices.SortFunc(w.parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	again := &countingRetryer{resender: w.f.again}
	out, err := w.f.api.CompleteMultipartUpload(withPatience(ctx, w.f.cfg.longPatience()), &awss3.CompleteMultipartUploadInput{
		Bucket: &w.f.bucket, Key: w.f.object(w.key), UploadId: w.uploadID,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: w.parts},
		IfMatch:         w.match, IfNoneMatch: w.absent,
	}, func(o *awss3.Options) { o.Retryer = again })
	if err == nil {
		return w.status(out.ETag, out.ResultMetadata), nil
	}
	if !again.used && !hasCode(err, "NoSuchUpload") {
		return ufs.Status{}, w.refusal(ctx, op, err)
	}
	// An attempt before may have succeeded and its answer been lost: what the
	// last one was told then says nothing.
	if st, found, headErr := w.f.head(ctx, op, w.key); headErr == nil && found && !st.Op.IsZero() && st.Op == w.opts.Op && st.Length == w.total {
		return st, nil
	}
	return ufs.Status{}, &freshet.Error{
		Op: op, Path: freshet.Path(w.key), Kind: freshet.KindDeadline,
		Err: &answerError{"no definite answer, the upload may have been completed: " + describe(err, statusOf(err), codeOf(err)), err},
	}
}

// countingRetryer remembers whether a request is repeated that may have arrived.
type countingRetryer struct {
	*resender
	used bool
}

// RetryDelay is asked before each repetition.
func (r *countingRetryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	r.used = r.used || sent(err) || statusOf(err) != 0
	return r.resender.RetryDelay(attempt, err)
}
