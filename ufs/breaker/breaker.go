// Package breaker owns the circuit breaker of a mount: an ufs.FS that leaves the
// one below alone for a while after it was found down some times in a row. Then
// calls fail at once instead of each waiting for a timeout, with KindUnavailable
// and the last cause. One call at a time is let through to see whether the storage
// is back. It never answers in the storage's place, and never says "absent".
//
// Only an outage counts: KindUnavailable, and KindDeadline while the caller still
// waits. Every answer of the storage, be it "not there", "no such bucket" or
// "denied", shows that it is up; what the storage may never have seen (KindInvalid, KindUnsupported,
// KindExhausted, KindInternal, and whatever comes after the caller gave up) counts
// as neither.
//
// What has begun may end: Write, Commit and Abort of an upload, and Read of an
// open file, are not refused, but tell whether the storage is up.
package breaker

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Options change when the breaker opens. Zero fields have the defaults named.
type Options struct {
	// Failures is how many in a row open it. 10.
	Failures int
	// Pause is how long it then stays open. 5 s.
	Pause time.Duration
	// Mount is the number of the mount in Metrics.
	Mount freshet.MountID
	// Metrics, if not nil, show the state until Close.
	Metrics *Metrics
}

// FS leaves the FS below it alone while that is down. It is safe for concurrent
// use.
type FS struct {
	inner   ufs.FS
	opts    Options
	kind    string
	circuit *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu    sync.Mutex
	since time.Time // of the outage
	cause error
}

var _ ufs.FS = (*FS)(nil)

// New returns inner behind a closed breaker.
func New(inner ufs.FS, opts Options) *FS {
	if opts.Failures <= 0 {
		opts.Failures = 10
	}
	if opts.Pause <= 0 {
		opts.Pause = 5 * time.Second
	}
	f := &FS{inner: inner, opts: opts, kind: inner.Features().Kind}
	f.circuit = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      opts.Pause,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return int64(c.ConsecutiveFailures) >= int64(opts.Failures) },
		IsSuccessful: func(err error) bool { return !errors.Is(err, errDown) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNeither) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen && opts.Metrics != nil {
				opts.Metrics.opened.WithLabelValues(f.kind).Inc()
			}
		},
	})
	opts.Metrics.add(f)
	return f
}

// What an error means for the breaker.
var (
	errDown    = errors.New("the storage is down")
	errNeither = errors.New("says nothing of the storage")
)

func verdict(ctx context.Context, err error) error {
	switch k := freshet.KindOf(err); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errNeither
	case errors.Is(err, ufs.ErrNoRoot):
		return nil
	case k == freshet.KindUnavailable || k == freshet.KindDeadline:
		return errDown
	case k == freshet.KindInvalid || k == freshet.KindUnsupported || k == freshet.KindExhausted || k == freshet.KindInternal || k == freshet.KindCorrupt:
		return errNeither
	}
	return nil
}

// Unwrap returns the FS below.
func (f *FS) Unwrap() ufs.FS { return f.inner }

// begin asks whether a call may be made. Done must be told its outcome, once.
func (f *FS) begin(ctx context.Context, op, key string) (done func(error), err error) {
	if err := ufs.ContextError(ctx, op, key); err != nil {
		return nil, err
	}
	tell, err := f.circuit.Allow()
	if err != nil {
		if f.opts.Metrics != nil {
			f.opts.Metrics.refused.WithLabelValues(f.kind).Inc()
		}
		return nil, f.down(op, key)
	}
	return func(err error) {
		v := verdict(ctx, err)
		f.note(v, err)
		tell(v)
	}, nil
}

// down is the error of a call that is refused: of a change it is certain that it
// did not happen. The cause loses its own kind, so
// that nothing is decided on it.
func (f *FS) down(op, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ufs.Errorf(freshet.KindUnavailable, op, key, "%w: it is down since %s and is tried again every %v: %v", ufs.ErrNotSent,
		f.since.UTC().Format(time.RFC3339), f.opts.Pause, f.cause)
}

func (f *FS) note(verdict, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case verdict == nil:
		f.since = time.Time{}
	case errors.Is(verdict, errDown):
		if f.since.IsZero() {
			f.since = time.Now()
		}
		f.cause = err
	}
}

// observe tells of the outcome of what is never refused.
func (f *FS) observe(ctx context.Context, err error) {
	v := verdict(ctx, err)
	if v == nil || errors.Is(v, errNeither) && ctx.Err() != nil {
		return // a stream's success is no news: its opening was one
	}
	if tell, refused := f.circuit.Allow(); refused == nil {
		f.note(v, err)
		tell(v)
	}
}

// Features implements ufs.FS.
func (f *FS) Features() ufs.Features { return f.inner.Features() }

// Close implements ufs.FS.
func (f *FS) Close() error {
	f.opts.Metrics.remove(f)
	return f.inner.Close()
}

// status makes a call that returns a Status.
func (f *FS) status(ctx context.Context, op, key string, call func() (ufs.Status, error)) (ufs.Status, error) {
	done, err := f.begin(ctx, op, key)
	if err != nil {
		return ufs.Status{}, err
	}
	st, err := call()
	done(err)
	return st, err
}

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	return f.status(ctx, "stat", key, func() (ufs.Status, error) { return f.inner.Stat(ctx, key) })
}

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	return f.status(ctx, "mkdir", key, func() (ufs.Status, error) { return f.inner.Mkdir(ctx, key, opts) })
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	return f.status(ctx, "rename", from, func() (ufs.Status, error) { return f.inner.Rename(ctx, from, to) })
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	return f.status(ctx, "setattr", key, func() (ufs.Status, error) { return f.inner.SetAttr(ctx, key, attr) })
}

// Remove implements ufs.FS.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	done, err := f.begin(ctx, "remove", key)
	if err != nil {
		return err
	}
	err = f.inner.Remove(ctx, key, opts)
	done(err)
	return err
}

// AbortUpload implements ufs.FS.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	done, err := f.begin(ctx, "abort upload", key)
	if err != nil {
		return false, err
	}
	ended, err := f.inner.AbortUpload(ctx, key, op)
	done(err)
	return ended, err
}

// List implements ufs.FS. The first entry, or the end, shows that the storage is
// up: a consumer that takes its time with the rest keeps nobody waiting.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		done, err := f.begin(ctx, "list", dir)
		if err != nil {
			yield(ufs.Status{}, err)
			return
		}
		told := false
		for st, err := range f.inner.List(ctx, dir, opts) {
			switch {
			case !told:
				told = true
				done(err)
			case err != nil:
				f.observe(ctx, err)
			}
			if !yield(st, err) || err != nil {
				return
			}
		}
		if !told {
			done(nil)
		}
	}
}

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	done, err := f.begin(ctx, "open", key)
	if err != nil {
		return nil, ufs.Status{}, err
	}
	r, st, err := f.inner.Open(ctx, key, opts)
	done(err)
	if err != nil {
		return nil, st, err
	}
	return &reader{ReadCloser: r, ctx: ctx, fs: f}, st, nil
}

type reader struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // an open stream belongs to its call
	fs  *FS
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader returns it bare
		r.fs.observe(r.ctx, err)
	}
	return n, err
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	done, err := f.begin(ctx, "create", key)
	if err != nil {
		return nil, err
	}
	w, err := f.inner.Create(ctx, key, opts)
	done(err)
	if err != nil {
		return nil, err
	}
	return &writer{Writer: w, ctx: ctx, fs: f}, nil
}

type writer struct {
	ufs.Writer
	ctx context.Context //nolint:containedctx // Create's context governs the writes
	fs  *FS
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.fs.observe(w.ctx, err)
	}
	return n, err
}

func (w *writer) Seal(ctx context.Context) (fingerprint.Fingerprint, error) {
	f, err := w.Writer.Seal(ctx)
	if err != nil {
		w.fs.observe(ctx, err)
	}
	return f, err
}

func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	st, err := w.Writer.Commit(ctx)
	if err != nil {
		w.fs.observe(ctx, err)
	}
	return st, err
}
