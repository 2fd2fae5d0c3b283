package object

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// firstBuffer is the room for the first bytes of a file of unknown length: most
// are small.
const firstBuffer = 64 << 10

// Create starts an upload. Nothing is sent before Limits.SinglePut bytes were
// written, except the question whether something is in the way: two or more
// listings of one name, in the background, unless the caller vouches.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	const op = "create"
	if err := ufs.CheckWrite(op, key); err != nil {
		return nil, err
	}
	if err := ufs.ContextError(ctx, op, key); err != nil {
		return nil, err
	}
	w := &writer{f: f, key: key, opts: opts, partSize: f.limits.PartLength(opts.Size, 0)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.slots = make(chan struct{}, f.limits.Concurrency)
	f.live.add(w)
	if !opts.Vouched {
		w.run(func() error { return f.checkWay(w.ctx, op, key) })
	}
	return w, nil
}

// writer is one upload. Write, Commit and Abort are called one after the other.
type writer struct {
	f    *FS
	key  string
	opts ufs.CreateOptions

	ctx      context.Context //nolint:containedctx // of the upload's own requests; ends with Create's
	cancel   context.CancelFunc
	partSize int
	buf      []byte
	pooled   *[]byte // what buf is part of
	give     func()  // gives the memory of buf back, if it was taken
	total    int64
	begun    chan struct{} // of an upload in parts: closed when Begin has returned
	parts    Parts         // nil until then
	sent     int           // parts handed to run
	done     bool          // Commit or Abort came to a definite end

	slots  chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	err    error // of the first request that failed; nothing is started after it
	risked bool  // the effect was attempted
	sealed bool  // no more bytes come
}

// run starts f and keeps its error; one failure ends the whole upload, after which
// nothing is started.
func (w *writer) run(f func() error) (started bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false
	}
	w.wg.Go(func() {
		if err := f(); err != nil {
			w.fail(err)
		}
	})
	return true
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
	if w.done || w.sealed {
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
		if w.begun == nil && len(w.buf)+len(p) > w.f.limits.SinglePut {
			w.start()
		}
		size := w.f.limits.SinglePut
		if w.begun != nil {
			size = w.size()
		}
		if w.begun != nil && len(w.buf) >= size {
			if err := w.flush(op); err != nil {
				return n, err
			}
			continue
		}
		if err := w.reserve(op, size, len(p)); err != nil {
			return n, err
		}
		k := min(min(cap(w.buf), size)-len(w.buf), len(p))
		w.buf = append(w.buf, p[:k]...)
		p, n, w.total = p[k:], n+k, w.total+int64(k)
		if w.begun != nil && len(w.buf) == size {
			if err := w.flush(op); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// size is the length of the part that is being filled.
func (w *writer) size() int {
	if w.opts.Size >= 0 {
		return w.partSize
	}
	return w.f.limits.PartLength(w.opts.Size, w.sent)
}

// reserve makes room in a buffer that is to hold size bytes, for at least one of
// the next n.
func (w *writer) reserve(op string, size, n int) error {
	if w.begun == nil && w.opts.Size < 0 && len(w.buf)+n <= firstBuffer {
		size = min(size, firstBuffer)
	}
	if rest := w.opts.Size - w.total; rest > 0 {
		size = int(min(int64(size), int64(len(w.buf))+rest)) // the last part needs no more
	}
	if cap(w.buf) >= size && len(w.buf) < cap(w.buf) {
		return nil
	}
	if err := w.take(op, size); err != nil {
		return err
	}
	var next []byte
	if size == w.f.limits.PartSize {
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
	return nil
}

// take waits for the memory of a part, once for each. What is small does not count: it
// may grow into a part, and no more is waited for while some is held.
func (w *writer) take(op string, size int) error {
	if w.give != nil || size <= firstBuffer {
		return nil
	}
	give, err := w.f.memory.Take(w.ctx, int64(size))
	if err == nil {
		w.give = give
		return nil
	}
	if err := w.failed(); err != nil {
		return err // which ended the wait
	}
	return ufs.ContextError(w.ctx, op, w.key)
}

// release gives the memory of the buffer back, which is not used any more.
func (w *writer) release() {
	if w.give != nil {
		w.give()
	}
	w.buf, w.pooled, w.give = nil, nil, nil
}

func (w *writer) putOptions() PutOptions {
	return PutOptions{Op: w.opts.Op, IfAbsent: w.opts.IfAbsent, IfMatch: w.opts.IfMatch, Size: w.opts.Size}
}

// start makes the upload one in parts. The first part is filled meanwhile.
func (w *writer) start() {
	const op = "write"
	w.begun = make(chan struct{})
	w.run(func() error {
		parts, err := w.f.store.Begin(w.ctx, w.f.root+w.key, w.putOptions())
		if err != nil {
			err = w.f.failure(w.ctx, op, w.key, err) // it changes nothing that others see
			w.fail(err)                              // before the parts are let go
			close(w.begun)
			return err
		}
		w.parts = parts
		close(w.begun)
		if p, ok := parts.(Preparer); ok {
			return w.f.failure(w.ctx, op, w.key, p.Prepare(w.ctx))
		}
		return nil
	})
}

// flush hands the current part to the background, when a slot is free.
func (w *writer) flush(op string) error {
	w.sent++
	if limit := w.f.limits.MaxParts; limit > 0 && w.sent > limit {
		err := ufs.Errorf(freshet.KindExhausted, op, w.key, "more than %d parts: make them larger in the options of the mount", limit)
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
	number, data, pooled, give := w.sent, w.buf, w.pooled, w.give
	w.buf, w.pooled, w.give = nil, nil, nil
	done := func() {
		if give != nil {
			give()
		}
		<-w.slots
	}
	if !w.run(func() error {
		defer done()
		if <-w.begun; w.parts == nil {
			return nil // Begin has failed, which is known
		}
		if err := w.parts.Part(w.ctx, number, data); err != nil {
			return w.f.failure(w.ctx, "write", w.key, err) // the transport may still hold the buffer: it is not used again
		}
		if pooled != nil {
			w.f.parts.Put(pooled)
		}
		return nil
	}) {
		done()
	}
	return nil
}

// Seal ends the writing. What the object will be known by is the mark of its operation.
func (w *writer) Seal(context.Context) (fingerprint.Fingerprint, error) {
	if w.done || w.risked {
		return fingerprint.Fingerprint{}, ufs.Errorf(freshet.KindInvalid, "seal", w.key, "the upload has ended")
	}
	w.sealed = true
	return fingerprint.Fingerprint{}, w.failed()
}

// Commit publishes the object. KindDeadline means that the storage gave no
// definite answer.
func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	const op = "commit"
	if w.done || w.risked {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, w.key, "the upload has ended")
	}
	defer w.f.live.remove(w)
	defer w.release()
	o, err := w.commit(ctx, op)
	if err == nil {
		w.done = true
		w.cancel()
		o.Name, o.Op = w.f.root+w.key, w.opts.Op
		return w.f.status(&o), nil
	}
	w.cancel()
	w.wg.Wait()
	if !w.risked {
		_ = w.drop(ctx) // the storage's own cleaner finds what this leaves behind
		err = harmless(err)
	}
	return ufs.Status{}, err
}

// harmless says of the error of an upload that was not asked for its effect, or was
// refused it, that nothing of it can land.
func harmless(err error) error {
	own, ok := errors.AsType[*freshet.Error](err)
	if !ok || errors.Is(err, ufs.ErrNotSent) {
		return err
	}
	return &freshet.Error{Op: own.Op, Path: own.Path, Kind: own.Kind, Err: ufs.NotSent(own.Err)}
}

func (w *writer) commit(ctx context.Context, op string) (Object, error) {
	if w.opts.Size >= 0 && w.total != w.opts.Size {
		return Object{}, ufs.Errorf(freshet.KindInvalid, op, w.key, "%d bytes were written, %d were announced", w.total, w.opts.Size)
	}
	if w.begun != nil && len(w.buf) > 0 {
		if err := w.flush(op); err != nil {
			return Object{}, err
		}
	}
	stop := context.AfterFunc(ctx, w.cancel)
	w.wg.Wait()
	stop()
	if err := ufs.ContextError(ctx, op, w.key); err != nil {
		return Object{}, err
	}
	if err := w.failed(); err != nil {
		return Object{}, err // rather than that the failure ended w.ctx
	}
	if err := ufs.ContextError(w.ctx, op, w.key); err != nil {
		return Object{}, err
	}
	if err := w.risk(); err != nil {
		return Object{}, err
	}
	o, err := w.effect(ctx)
	if err != nil && !uncertain(err) {
		w.mu.Lock()
		w.risked = false
		w.mu.Unlock()
	}
	return o, w.f.failure(ctx, op, w.key, err)
}

func (w *writer) effect(ctx context.Context) (Object, error) {
	if w.parts != nil {
		return w.parts.Complete(ctx, w.sent, w.total)
	}
	return w.f.store.Put(ctx, w.f.root+w.key, w.buf, w.putOptions())
}

// uncertain reports whether the effect that failed with err may still happen.
func uncertain(err error) bool {
	return freshet.IsKind(err, freshet.KindDeadline) && !errors.Is(err, ufs.ErrNotSent)
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
	w.release()
	if w.parts == nil {
		w.done = !w.risked
		return nil
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), leave)
		defer cancel()
	}
	ended, err := w.parts.Abort(ctx)
	if err == nil {
		w.done = ended || !w.risked
	}
	return w.f.failure(ctx, "abort", w.key, err)
}

// leave is how long cleaning up may take after the caller's time was up.
const leave = 5 * time.Second

// AbortUpload ends the uploads of op at key in this process, and those that the
// store knows of. An operation must not have two writers at a time.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (ended bool, err error) {
	const what = "abort upload"
	if err := ufs.CheckWrite(what, key); err != nil {
		return false, err
	}
	if op.IsZero() {
		return false, ufs.Errorf(freshet.KindInvalid, what, key, "no operation ID")
	}
	ended = f.live.revoke(key, op)
	if a, ok := f.store.(Aborter); ok {
		gone, err := a.AbortUploads(ctx, f.root+key, op)
		if err != nil {
			return false, f.failure(ctx, what, key, err)
		}
		ended = ended || gone
	}
	return ended && f.limits.AbortEndsEffects, ufs.ContextError(ctx, what, key)
}

// liveUploads are the uploads of this process that have not ended.
type liveUploads struct {
	mu  sync.Mutex
	set map[*writer]struct{}
}

func (l *liveUploads) add(w *writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		l.set = map[*writer]struct{}{}
	}
	l.set[w] = struct{}{}
}

func (l *liveUploads) remove(w *writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.set, w)
}

// revoke ends the uploads of op at key, and reports whether there were any and
// none had asked for its effect.
func (l *liveUploads) revoke(key string, op freshet.OpID) bool {
	l.mu.Lock()
	var found []*writer
	for w := range l.set {
		if w.key == key && w.opts.Op == op {
			found = append(found, w)
		}
	}
	l.mu.Unlock()
	ended := len(found) > 0
	for _, w := range found {
		ended = w.revoke() && ended
	}
	return ended
}
