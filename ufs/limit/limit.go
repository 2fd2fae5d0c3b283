// Package limit owns the bounds on what one process asks of one storage: an
// ufs.FS that lets only so many requests per second, and so many at a time, reach
// the one below. Waiting ends with the caller's context. It never drops a request
// that can wait, and never keeps one from cleaning up: Abort does not wait.
//
// What counts as a request is what a storage usually bills as one: a call, each
// page of a listing, the start and the commit of an upload. The parts of an
// upload, and the requests that a driver makes of one call (to move a directory
// file by file), are not counted.
//
// A slot of the bound on requests at a time is held by a call while it lasts, by
// a file from Open to Close and by an upload from Create to Commit or Abort. A
// listing holds one only while it waits for a page, so that its consumer may make
// calls of its own. Who holds a stream open and makes another call needs a second
// slot: a bound of 1 makes such a caller wait for itself until its context ends.
package limit

import (
	"context"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Options are the bounds. The zero value has none.
type Options struct {
	// PerSecond is how many requests may be sent per second, 0 for any number.
	PerSecond int
	// Burst is how many may be sent at once after a rest; 0 is PerSecond.
	Burst int
	// Concurrent is how many may be under way at a time, 0 for any number.
	Concurrent int
	// Metrics, if not nil, count the waiting.
	Metrics *Metrics
}

// Metrics are the metrics of all bounds of one process.
type Metrics struct{ seconds *prometheus.CounterVec }

// NewMetrics registers freshet_ufs_limit_wait_seconds_total{kind}.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{seconds: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_ufs_limit_wait_seconds_total",
		Help: "Time that calls to under-storage waited for the bounds of their mount, by kind of storage.",
	}, []string{"kind"})}
	if err := reg.Register(m.seconds); err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "register metrics", "", "%w", err)
	}
	return m, nil
}

// FS bounds the calls to the FS below it. It is safe for concurrent use.
type FS struct {
	inner  ufs.FS
	rate   atomic.Pointer[pace]
	slots  gate
	waited prometheus.Counter
	page   int
}

var (
	_ ufs.FS       = (*FS)(nil)
	_ ufs.Adjuster = (*FS)(nil)
)

// pace is the bound on requests per second that holds at a time.
type pace struct {
	perSecond, burst int
	limiter          *rate.Limiter // nil: any number
	over             chan struct{} // closed when another one holds
}

func newPace(perSecond, burst int) *pace {
	if burst <= 0 {
		burst = perSecond
	}
	p := &pace{perSecond: perSecond, burst: burst, over: make(chan struct{})}
	if perSecond > 0 {
		p.limiter = rate.NewLimiter(rate.Limit(perSecond), burst)
	}
	return p
}

// New returns inner under the bounds of opts.
func New(inner ufs.FS, opts Options) *FS {
	feat := inner.Features()
	f := &FS{inner: inner, page: feat.ListPage}
	f.rate.Store(newPace(opts.PerSecond, opts.Burst))
	f.slots.set(opts.Concurrent)
	if opts.Metrics != nil {
		f.waited = opts.Metrics.seconds.WithLabelValues(feat.Kind)
	}
	return f
}

// Unwrap returns the FS below.
func (f *FS) Unwrap() ufs.FS { return f.inner }

// Adjust implements ufs.Adjuster. What waits is let go as soon as the new bounds
// allow it; what was under way without a bound is not counted under the new one.
func (f *FS) Adjust(g ufs.Guards) {
	f.slots.set(g.ConcurrentRequests)
	if old := f.rate.Load(); old.perSecond != g.RequestsPerSecond {
		if f.rate.CompareAndSwap(old, newPace(g.RequestsPerSecond, 0)) {
			close(old.over)
		}
	}
}

// begin waits until the call may be made. Leave gives its slot back and may be
// called more than once; it is not nil.
func (f *FS) begin(ctx context.Context, op, key string) (leave func(), err error) {
	leave = func() {}
	if taken, mine := f.slots.take(); taken != nil {
		start := time.Now()
		select {
		case <-taken:
			f.count(start)
		case <-ctx.Done():
			f.count(start)
			f.slots.forget(taken)
			return leave, gaveUp(ctx, op, key)
		}
		leave = sync.OnceFunc(f.slots.leave)
	} else if mine {
		leave = sync.OnceFunc(f.slots.leave)
	}
	if err := f.token(ctx, op, key); err != nil {
		leave()
		return leave, err
	}
	return leave, nil
}

// token waits for the right to send one request.
func (f *FS) token(ctx context.Context, op, key string) error {
	if ctx.Err() != nil {
		return gaveUp(ctx, op, key)
	}
	var start time.Time
	for {
		p := f.rate.Load()
		if p.limiter == nil {
			break
		}
		r := p.limiter.Reserve()
		wait := r.Delay()
		if wait == 0 {
			break
		}
		if start.IsZero() {
			start = time.Now()
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			r.Cancel()
			f.count(start)
			return ufs.Errorf(freshet.KindExhausted, op, key,
				"%w: more than %d requests per second wait for it, longer than the call may take; raise the option %s of the mount",
				ufs.ErrNotSent, p.perSecond, ufs.OptionMaxRequestsPerSecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			f.count(start)
			return nil
		case <-p.over:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			r.Cancel()
			f.count(start)
			return gaveUp(ctx, op, key)
		}
	}
	if !start.IsZero() {
		f.count(start)
	}
	return nil
}

// gaveUp is the error of a caller that waited in vain.
func gaveUp(ctx context.Context, op, key string) error {
	return ufs.Errorf(freshet.KindDeadline, op, key, "%w: %w", ufs.ErrNotSent, ctx.Err())
}

func (f *FS) count(start time.Time) {
	if f.waited != nil {
		f.waited.Add(time.Since(start).Seconds())
	}
}

// Features implements ufs.FS.
func (f *FS) Features() ufs.Features { return f.inner.Features() }

// Close implements ufs.FS.
func (f *FS) Close() error { return f.inner.Close() }

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	leave, err := f.begin(ctx, "stat", key)
	if err != nil {
		return ufs.Status{}, err
	}
	defer leave()
	return f.inner.Stat(ctx, key)
}

// List implements ufs.FS.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	page := f.page
	if opts.PageSize > 0 && page > 0 {
		page = min(page, opts.PageSize)
	}
	return func(yield func(ufs.Status, error) bool) {
		leave, err := f.begin(ctx, "list", dir)
		if err != nil {
			yield(ufs.Status{}, err)
			return
		}
		defer func() { leave() }()
		n := 0
		for st, err := range f.inner.List(ctx, dir, opts) {
			leave()
			if !yield(st, err) || err != nil {
				return
			}
			if n++; page > 0 && n%page == 0 { // the driver asks for the next page now
				if leave, err = f.begin(ctx, "list", dir); err != nil {
					yield(ufs.Status{}, err)
					return
				}
			}
		}
	}
}

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	leave, err := f.begin(ctx, "open", key)
	if err != nil {
		return nil, ufs.Status{}, err
	}
	r, st, err := f.inner.Open(ctx, key, opts)
	if err != nil {
		leave()
		return nil, st, err
	}
	return &reader{ReadCloser: r, leave: leave}, st, nil
}

type reader struct {
	io.ReadCloser
	leave func()
}

func (r *reader) Close() error {
	defer r.leave()
	return r.ReadCloser.Close()
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	leave, err := f.begin(ctx, "create", key)
	if err != nil {
		return nil, err
	}
	w, err := f.inner.Create(ctx, key, opts)
	if err != nil {
		leave()
		return nil, err
	}
	return &writer{Writer: w, fs: f, key: key, leave: leave}, nil
}

type writer struct {
	ufs.Writer
	fs    *FS
	key   string
	leave func()
}

// Commit gives the slot back whatever comes of it: what may follow is an Abort,
// which needs none.
func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	defer w.leave()
	if err := w.fs.token(ctx, "commit", w.key); err != nil {
		return ufs.Status{}, err
	}
	return w.Writer.Commit(ctx)
}

func (w *writer) Abort(ctx context.Context) error {
	defer w.leave()
	return w.Writer.Abort(ctx)
}

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	leave, err := f.begin(ctx, "mkdir", key)
	if err != nil {
		return ufs.Status{}, err
	}
	defer leave()
	return f.inner.Mkdir(ctx, key, opts)
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	leave, err := f.begin(ctx, "rename", from)
	if err != nil {
		return ufs.Status{}, err
	}
	defer leave()
	return f.inner.Rename(ctx, from, to)
}

// Remove implements ufs.FS.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	leave, err := f.begin(ctx, "remove", key)
	if err != nil {
		return err
	}
	defer leave()
	return f.inner.Remove(ctx, key, opts)
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	leave, err := f.begin(ctx, "setattr", key)
	if err != nil {
		return ufs.Status{}, err
	}
	defer leave()
	return f.inner.SetAttr(ctx, key, attr)
}

// AbortUpload implements ufs.FS.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	leave, err := f.begin(ctx, "abort upload", key)
	if err != nil {
		return false, err
	}
	defer leave()
	return f.inner.AbortUpload(ctx, key, op)
}
