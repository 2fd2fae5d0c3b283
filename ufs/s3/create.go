package s3

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// singlePut is the largest object that is written by one PUT. Beyond it an
	// upload is multipart, because only that can be aborted for certain.
	singlePut = 64 << 10
	// partsPerSize is after how many parts their size doubles when the length of
	// the file is not known.
	partsPerSize = 1000
)

// Create starts an upload. Nothing is sent before 64 KiB were written, except the
// question whether something is in the way: two or more listings of one key, in
// the background, unless the caller vouches.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	const op = "create"
	if err := ufs.CheckWrite(op, key); err != nil {
		return nil, err
	}
	if err := ufs.ContextError(ctx, op, key); err != nil {
		return nil, err
	}
	w := &writer{f: f, key: key, opts: opts, partSize: partSizeFor(f.cfg.partSize, opts.Size)}
	if opts.IfMatch.Known() {
		match, ok := parseWant(opts.IfMatch)
		if !ok {
			return nil, ufs.Errorf(freshet.KindStale, op, key, "%q is not the version of an S3 object", opts.IfMatch.Content)
		}
		w.match = aws.String(`"` + match.etag + `"`)
	}
	if opts.IfAbsent {
		w.absent = aws.String("*")
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.slots = make(chan struct{}, f.cfg.uploadConcurrency)
	f.live.add(w)
	if !opts.Vouched {
		w.run(func() error { return f.checkWay(w.ctx, op, key) })
	}
	return w, nil
}

// writer is one upload. Write, Commit and Abort are called one after the other.
type writer struct {
	f      *FS
	key    string
	opts   ufs.CreateOptions
	absent *string // If-None-Match
	match  *string // If-Match

	ctx      context.Context //nolint:containedctx // of the upload's own requests; ends with Create's
	cancel   context.CancelFunc
	partSize int
	buf      []byte
	pooled   *[]byte // what buf is part of
	total    int64
	uploadID *string
	sent     int32 // parts handed to run
	done     bool  // Commit or Abort came to a definite end

	slots  chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	parts  []types.CompletedPart
	err    error // of the first request that failed; nothing is started after it
	risked bool  // the effect was attempted
}

// run starts f and keeps its error; one failure ends the whole upload.
func (w *writer) run(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.wg.Go(func() {
		if err := f(); err != nil {
			w.fail(err)
		}
	})
}

// risk marks the upload as one that may take effect, unless it has failed.
func (w *writer) risk() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.risked = w.err == nil
	return w.err
}

// revoke ends the upload from outside and reports whether it is certain that it
// had not yet asked for its effect.
func (w *writer) revoke() bool {
	w.fail(ufs.Errorf(freshet.KindConflict, "write", w.key, "the upload was aborted by its operation ID"))
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.risked
}

func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.cancel()
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Write buffers at most one part and sends full ones in the background.
func (w *writer) Write(p []byte) (int, error) {
	const op = "write"
	if w.done {
		return 0, ufs.Errorf(freshet.KindInvalid, op, w.key, "write after the end of the upload")
	}
	n := 0
	for len(p) > 0 {
		if err := w.failed(); err != nil {
			return n, err
		}
		if err := ufs.ContextError(w.ctx, op, w.key); err != nil {
			return n, err
		}
		if w.uploadID == nil && len(w.buf)+len(p) > singlePut {
			if err := w.start(op); err != nil {
				return n, err
			}
		}
		room := singlePut - len(w.buf)
		if w.uploadID != nil {
			w.reserve()
			room = min(cap(w.buf), w.size()) - len(w.buf)
		}
		k := min(room, len(p))
		w.buf = append(w.buf, p[:k]...)
		p, n, w.total = p[k:], n+k, w.total+int64(k)
		if w.uploadID != nil && len(w.buf) == w.size() {
			if err := w.flush(op); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// partSizeFor doubles base until a file of size bytes has parts enough.
func partSizeFor(base int, size int64) int {
	for int64(base) < size/dataParts+1 {
		base *= 2
	}
	return base
}

// size is the length of the part that is being filled. It doubles now and then if
// the length of the file is unknown, so that dataParts are always enough.
func (w *writer) size() int {
	if w.opts.Size >= 0 {
		return w.partSize
	}
	return w.partSize << (w.sent / partsPerSize)
}

// reserve makes room for more of the current part.
func (w *writer) reserve() {
	size := w.size()
	if rest := w.opts.Size - w.total; rest > 0 {
		size = int(min(int64(size), int64(len(w.buf))+rest)) // the last part needs no more
	}
	if cap(w.buf) >= size && len(w.buf) < cap(w.buf) {
		return
	}
	var next []byte
	if size == w.f.cfg.partSize {
		w.pooled, _ = w.f.parts.Get().(*[]byte)
		if w.pooled == nil {
			b := make([]byte, 0, size)
			w.pooled = &b
		}
		next = (*w.pooled)[:0]
	} else {
		next = make([]byte, 0, max(size, len(w.buf)+1))
	}
	w.buf = append(next, w.buf...)
}

// start makes the upload a multipart one.
func (w *writer) start(op string) error {
	out, err := w.f.api.CreateMultipartUpload(w.ctx, &awss3.CreateMultipartUploadInput{
		Bucket: &w.f.bucket, Key: w.f.object(w.key), Metadata: w.metadata(), ChecksumAlgorithm: w.f.cfg.algorithm(),
	})
	if err != nil {
		err = w.f.failure(w.ctx, op, w.key, err, reads) // it changes nothing that others see
		w.fail(err)
		return w.failed() // which may be why this request ended
	}
	w.uploadID = out.UploadId
	w.f.live.named(*w.uploadID)
	w.run(func() error { return w.tag(w.ctx) })
	return nil
}

// flush hands the current part to the background, when a slot is free.
func (w *writer) flush(op string) error {
	w.sent++
	if w.sent > dataParts {
		err := ufs.Errorf(freshet.KindExhausted, op, w.key, "more than %d parts: raise the mount option part_size", dataParts)
		w.fail(err)
		return err
	}
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		if err := w.failed(); err != nil {
			return err
		}
		return ufs.ContextError(w.ctx, op, w.key)
	}
	number, data, pooled := w.sent, w.buf, w.pooled
	w.buf, w.pooled = nil, nil
	w.run(func() error {
		defer func() { <-w.slots }()
		part, err := w.put(w.ctx, number, data)
		if err != nil {
			return err // the transport may still hold the buffer: it is not used again
		}
		if pooled != nil {
			w.f.parts.Put(pooled)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.parts = append(w.parts, part)
		return nil
	})
	return nil
}

func (w *writer) put(ctx context.Context, number int32, data []byte) (types.CompletedPart, error) {
	ctx = withPatience(ctx, w.f.cfg.patience(int64(len(data))))
	out, err := w.f.api.UploadPart(ctx, &awss3.UploadPartInput{
		Bucket: &w.f.bucket, Key: w.f.object(w.key), UploadId: w.uploadID,
		PartNumber: &number, Body: bytes.NewReader(data),
	})
	if err != nil {
		return types.CompletedPart{}, w.f.failure(ctx, "write", w.key, err, reads)
	}
	part := types.CompletedPart{PartNumber: &number, ETag: out.ETag}
	if w.f.cfg.checksum == checksumSupported {
		part.ChecksumCRC32 = out.ChecksumCRC32 // an upload that has them wants them in its completion
	}
	return part, nil
}

func (w *writer) metadata() map[string]string {
	if w.opts.Op.IsZero() {
		return nil
	}
	return map[string]string{opMetadata: w.opts.Op.String()}
}

// Commit publishes the object. KindDeadline means that the storage gave no
// definite answer. A multipart upload is completed with retries, which can't do
// harm: the second completion of an upload is none.
func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	const op = "commit"
	if w.done || w.risked {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, w.key, "the upload has ended")
	}
	defer w.f.live.remove(w)
	st, err := w.commit(ctx, op)
	if err == nil {
		w.done = true
		w.cancel()
		return st, nil
	}
	w.cancel()
	w.wg.Wait()
	if definite(err) || w.neverSent(err) {
		w.mu.Lock()
		w.risked = false
		w.mu.Unlock()
	}
	if !w.risked {
		_ = w.drop(ctx) // the cleaner finds what this leaves behind
	}
	return ufs.Status{}, err
}

// definite reports whether err says that the effect was refused.
func definite(err error) bool {
	return !freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable)
}

// neverSent reports whether the only attempt ended before the storage could see
// it. A completion has several: nothing can be said of those.
func (w *writer) neverSent(err error) bool {
	return w.uploadID == nil && statusOf(err) == 0 && !sent(err)
}

func (w *writer) commit(ctx context.Context, op string) (ufs.Status, error) {
	if w.opts.Size >= 0 && w.total != w.opts.Size {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, w.key, "%d bytes were written, %d were announced", w.total, w.opts.Size)
	}
	if w.uploadID != nil && len(w.buf) > 0 {
		if err := w.flush(op); err != nil {
			return ufs.Status{}, err
		}
	}
	stop := context.AfterFunc(ctx, w.cancel)
	w.wg.Wait()
	stop()
	if err := ufs.ContextError(ctx, op, w.key); err != nil {
		return ufs.Status{}, err
	}
	if err := w.failed(); err != nil {
		return ufs.Status{}, err // rather than that the failure ended w.ctx
	}
	if err := ufs.ContextError(w.ctx, op, w.key); err != nil {
		return ufs.Status{}, err
	}
	if err := w.risk(); err != nil {
		return ufs.Status{}, err
	}
	if w.uploadID != nil {
		return w.complete(ctx, op)
	}
	out, err := w.f.api.PutObject(ctx, &awss3.PutObjectInput{
		Bucket: &w.f.bucket, Key: w.f.object(w.key), Body: bytes.NewReader(w.buf),
		Metadata: w.metadata(), IfMatch: w.match, IfNoneMatch: w.absent,
	}, w.f.sendOnce)
	if err != nil {
		return ufs.Status{}, w.refusal(ctx, op, err)
	}
	return w.status(out.ETag, out.ResultMetadata), nil
}

// refusal maps the answers to a conditional write.
func (w *writer) refusal(ctx context.Context, op string, err error) error {
	failed := statusOf(err) == http.StatusPreconditionFailed || w.match != nil && hasCode(err, "NoSuchKey")
	switch {
	case failed && w.absent != nil:
		return &freshet.Error{Op: op, Path: freshet.Path(w.key), Kind: freshet.KindExist, Err: &answerError{"something is there already", err}}
	case failed && w.match != nil:
		return &freshet.Error{Op: op, Path: freshet.Path(w.key), Kind: freshet.KindStale, Err: &answerError{"the storage holds another version", err}}
	}
	return w.f.failure(ctx, op, w.key, err, changes)
}

// status is what the answer to the write itself says. The modification time is
// that of the answer, which is not before the object's own and seldom a second
// after.
func (w *writer) status(etag *string, md middleware.Metadata) ufs.Status {
	st := ufs.Status{Key: w.key, Length: w.total, Fingerprint: fingerprint.S3(aws.ToString(etag), w.total), Op: w.opts.Op}
	if resp, ok := awsmiddleware.GetRawResponse(md).(*smithyhttp.Response); ok {
		if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			st.ModTime = t.UTC()
		}
	}
	return st
}

// Abort ends the upload. After a Commit without a definite answer it is
// KindDeadline if the object may have been, or may yet be, published.
func (w *writer) Abort(ctx context.Context) error {
	const op = "abort"
	if w.done {
		return nil
	}
	defer w.f.live.remove(w)
	w.cancel()
	w.wg.Wait()
	err := w.drop(ctx)
	if w.risked && !w.done {
		if err == nil {
			err = errors.New("its outcome is unknown")
		}
		return &freshet.Error{Op: op, Path: freshet.Path(w.key), Kind: freshet.KindDeadline, Err: err}
	}
	return err
}

// drop removes what the storage keeps of an upload whose requests have all
// ended; done is set if nothing of it can be published any more.
func (w *writer) drop(ctx context.Context) error {
	w.buf = nil
	if w.uploadID == nil {
		w.done = !w.risked
		return nil
	}
	err := w.f.abortUpload(ctx, "abort", w.key, *w.uploadID)
	switch {
	case err == nil:
		w.done = true
	case hasCode(err, "NoSuchUpload"):
		w.done = !w.risked
		err = nil
	}
	return err
}

func parseOp(text string) (freshet.OpID, bool) {
	var id freshet.OpID
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		return freshet.OpID{}, false
	}
	return freshet.OpID(b), true
}

// checkWay looks for what makes key unusable for a file or a new directory: a
// directory there, or a file in the place of one of its parents. If anything is
// below the parent, somebody was let through before, and its own parents are not
// asked again.
func (f *FS) checkWay(ctx context.Context, op, key string) error {
	first, err := f.first(ctx, op, key, 1)
	if err != nil {
		return err
	}
	if len(first) > 0 {
		return ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	}
	return f.checkParents(ctx, op, key)
}

func (f *FS) checkParents(ctx context.Context, op, key string) error {
	parent := ufs.ParentKey(key)
	if parent == "" {
		return nil
	}
	first, err := f.first(ctx, op, parent, 1)
	if err != nil || len(first) > 0 {
		return err
	}
	for ; parent != ""; parent = ufs.ParentKey(parent) {
		_, found, err := f.head(ctx, op, parent)
		if err != nil {
			return err
		}
		if found {
			return ufs.Errorf(freshet.KindConflict, op, key, "%q is not a directory", parent)
		}
	}
	return nil
}

// leave is how long cleaning up may take after the caller's time was up.
const leave = 5 * time.Second

// cleanup returns a context for what must be done although ctx may have ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), leave)
}
