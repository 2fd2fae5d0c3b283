package s3

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// parts is one multipart upload.
type parts struct {
	s    *store
	name string
	op   freshet.OpID
	cond conditions
	id   string

	mu   sync.Mutex
	done []types.CompletedPart
	lost bool // a part got no answer
}

const (
	// lostTries is how often an upload is ended of which a part got no answer, and
	// lostPause half of the wait before the second time; it doubles.
	lostTries = 5
	lostPause = 10 * time.Millisecond
)

var _ object.Preparer = (*parts)(nil)

// Begin implements object.Store.
func (s *store) Begin(ctx context.Context, name string, o object.PutOptions) (object.Parts, error) {
	c, err := conditionsOf(o)
	if err != nil {
		return nil, err
	}
	p, err := s.begin(ctx, &awss3.CreateMultipartUploadInput{Key: &name, Metadata: metadata(o.Op)}, o.Op)
	if err != nil {
		return nil, err
	}
	p.cond = c
	return p, nil
}

func (s *store) begin(ctx context.Context, in *awss3.CreateMultipartUploadInput, op freshet.OpID) (*parts, error) {
	in.Bucket, in.ChecksumAlgorithm = &s.bucket, s.cfg.algorithm()
	out, err := s.create(ctx, in)
	if err != nil {
		return nil, s.failure(ctx, err, object.Reads)
	}
	if aws.ToString(out.UploadId) == "" {
		return nil, object.Errorf(freshet.KindUnavailable, "the endpoint does not answer like an S3 server: no ID of an upload")
	}
	p := &parts{s: s, name: *in.Key, op: op, id: *out.UploadId}
	s.live.add(p.id)
	return p, nil
}

// createGrace is how long the answer about a new upload is waited for once its
// caller has left: only who has its ID can tell it from those of other programs.
const createGrace = 2 * time.Second

// create makes an upload, and ends it if ctx ends meanwhile.
func (s *store) create(ctx context.Context, in *awss3.CreateMultipartUploadInput) (*awss3.CreateMultipartUploadOutput, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(createGrace, cancel) })()
	out, err := s.api.CreateMultipartUpload(own, in)
	if err == nil && ctx.Err() != nil {
		_ = s.abortUpload(own, *in.Key, aws.ToString(out.UploadId)) // else the cleaner finds it
		return nil, ctx.Err()
	}
	return out, err
}

// Part implements object.Parts.
func (p *parts) Part(ctx context.Context, number int, data []byte) error {
	part, err := p.put(ctx, number, data)
	if err == nil {
		p.keep(part)
	}
	return err
}

func (p *parts) keep(part types.CompletedPart) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, part)
}

func (p *parts) put(ctx context.Context, number int, data []byte) (types.CompletedPart, error) {
	n := aws.Int32(int32(number)) //nolint:gosec // at most 10,000
	out, err := p.s.api.UploadPart(httpclient.WithPatience(ctx, p.s.cfg.patience(int64(len(data)))), &awss3.UploadPartInput{
		Bucket: &p.s.bucket, Key: &p.name, UploadId: &p.id, PartNumber: n, Body: bytes.NewReader(data),
	})
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lost = p.lost || sent(err)
		return types.CompletedPart{}, p.s.failure(ctx, err, object.Reads) // it changes nothing that others see
	}
	part := types.CompletedPart{PartNumber: n, ETag: out.ETag}
	if p.s.cfg.checksum == checksumSupported {
		part.ChecksumCRC32 = out.ChecksumCRC32 // an upload that has them wants them in its completion
	}
	return part, nil
}

// Complete implements object.Parts. It is the one effect that is sent again, for an
// upload can be completed only once.
func (p *parts) Complete(ctx context.Context, _ int, size int64) (object.Object, error) {
	defer p.s.live.remove(p.id)
	slices.SortFunc(p.done, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	again := &countingRetryer{resender: p.s.again}
	out, err := p.s.api.CompleteMultipartUpload(httpclient.WithPatience(ctx, p.s.cfg.longPatience()), &awss3.CompleteMultipartUploadInput{
		Bucket: &p.s.bucket, Key: &p.name, UploadId: &p.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: p.done},
		IfMatch:         p.cond.match, IfNoneMatch: p.cond.absent,
	}, func(o *awss3.Options) { o.Retryer = again })
	if err == nil {
		return written(p.name, size, p.op, out.ETag, out.ResultMetadata)
	}
	if !again.used && !hasCode(err, "NoSuchUpload") {
		return object.Object{}, p.s.refusal(ctx, err, p.cond)
	}
	// An attempt before may have succeeded and its answer been lost: what the
	// last one was told, or that it was not sent, then says nothing.
	if o, headErr := p.s.Head(ctx, p.name); headErr == nil && !o.Op.IsZero() && o.Op == p.op && o.Size == size {
		return o, nil
	}
	return object.Object{}, object.Errorf(freshet.KindDeadline,
		"no definite answer, the upload may have been completed: %s", describe(err, statusOf(err), codeOf(err)))
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

// Abort implements object.Parts. The storage knows no upload that was completed: it
// confirms the end of others only. A part that got no answer may still be stored
// after the end, so that it is ended until the storage knows nothing of it.
func (p *parts) Abort(ctx context.Context) (ended bool, err error) {
	defer p.s.live.remove(p.id)
	tries := 1
	if p.lost {
		tries = lostTries
	}
	for i := range tries {
		if i > 0 && !pause(ctx, lostPause<<i) {
			break
		}
		err = p.s.abortUpload(ctx, p.name, p.id)
		if hasCode(err, "NoSuchUpload") {
			return ended, nil
		}
		ended = ended || err == nil
	}
	return ended, err
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
