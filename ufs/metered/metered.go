// Package metered owns the metrics of under file systems: an ufs.FS that counts
// and times the calls of the one below. It never changes a result.
package metered

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Metrics are the metrics of all storages of one process.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	inFlight *prometheus.GaugeVec
}

// NewMetrics registers freshet_ufs_requests_total{kind,op,code},
// freshet_ufs_request_seconds{kind,op}, freshet_ufs_bytes_total{kind,direction} and
// freshet_ufs_in_flight{kind}: calls under way, files open and uploads not ended.
// Code is the name of the freshet.Kind, "ok" for a success.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_ufs_requests_total", Help: "Calls to under-storage by kind of storage, call and outcome.",
		}, []string{"kind", "op", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_ufs_request_seconds", Help: "Duration of calls to under-storage; of a list from its first to its last entry.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}, []string{"kind", "op"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_ufs_bytes_total", Help: "Bytes of file content read from and written to under-storage.",
		}, []string{"kind", "direction"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "freshet_ufs_in_flight", Help: "Calls to under-storage under way, files open there and uploads that have not ended, by kind of storage.",
		}, []string{"kind"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.bytes, m.inFlight} {
		if err := reg.Register(c); err != nil {
			return nil, freshet.Errorf(freshet.KindInternal, "register metrics", "", "%w", err)
		}
	}
	return m, nil
}

// FS measures the FS below it.
type FS struct {
	inner       ufs.FS
	metrics     *Metrics
	kind        string
	read, wrote prometheus.Counter
	inFlight    prometheus.Gauge
}

var _ ufs.FS = (*FS)(nil)

// New returns inner with m around it.
func New(inner ufs.FS, m *Metrics) *FS {
	kind := inner.Features().Kind
	return &FS{
		inner: inner, metrics: m, kind: kind, inFlight: m.inFlight.WithLabelValues(kind),
		read: m.bytes.WithLabelValues(kind, "read"), wrote: m.bytes.WithLabelValues(kind, "write"),
	}
}

// Unwrap returns the FS below.
func (f *FS) Unwrap() ufs.FS { return f.inner }

// begin counts a call in and tells when it began.
func (f *FS) begin() time.Time {
	f.inFlight.Inc()
	return time.Now()
}

// done counts a call out.
func (f *FS) done(op string, start time.Time, err error) {
	f.inFlight.Dec()
	f.metrics.requests.WithLabelValues(f.kind, op, freshet.KindOf(err).String()).Inc()
	f.metrics.seconds.WithLabelValues(f.kind, op).Observe(time.Since(start).Seconds())
}

// Features implements ufs.FS.
func (f *FS) Features() ufs.Features { return f.inner.Features() }

// Close implements ufs.FS.
func (f *FS) Close() error { return f.inner.Close() }

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	start := f.begin()
	st, err := f.inner.Stat(ctx, key)
	f.done("stat", start, err)
	return st, err
}

// List implements ufs.FS.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		start, last := f.begin(), error(nil)
		for st, err := range f.inner.List(ctx, dir, opts) {
			last = err
			if !yield(st, err) {
				break
			}
		}
		f.done("list", start, last)
	}
}

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	start := f.begin()
	r, st, err := f.inner.Open(ctx, key, opts)
	f.done("open", start, err)
	if err != nil {
		return nil, st, err
	}
	f.inFlight.Inc() // until Close
	return &reader{ReadCloser: r, fs: f}, st, nil
}

type reader struct {
	io.ReadCloser
	fs   *FS
	left sync.Once
}

func (r *reader) Close() error {
	r.left.Do(r.fs.inFlight.Dec)
	return r.ReadCloser.Close()
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.fs.read.Add(float64(n))
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader returns it bare
		r.fs.metrics.requests.WithLabelValues(r.fs.kind, "read", freshet.KindOf(err).String()).Inc()
	}
	return n, err
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	start := f.begin()
	w, err := f.inner.Create(ctx, key, opts)
	f.done("create", start, err)
	if err != nil {
		return nil, err
	}
	f.inFlight.Inc() // until Commit or Abort
	return &writer{Writer: w, fs: f}, nil
}

type writer struct {
	ufs.Writer
	fs   *FS
	left sync.Once
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.fs.wrote.Add(float64(n))
	w.failed(err)
	return n, err
}

func (w *writer) failed(err error) {
	if err != nil {
		w.fs.metrics.requests.WithLabelValues(w.fs.kind, "write", freshet.KindOf(err).String()).Inc()
	}
}

func (w *writer) Seal(ctx context.Context) (fingerprint.Fingerprint, error) {
	f, err := w.Writer.Seal(ctx)
	w.failed(err)
	return f, err
}

func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	start := w.fs.begin()
	st, err := w.Writer.Commit(ctx)
	w.fs.done("commit", start, err)
	w.left.Do(w.fs.inFlight.Dec)
	return st, err
}

func (w *writer) Abort(ctx context.Context) error {
	start := w.fs.begin()
	err := w.Writer.Abort(ctx)
	w.fs.done("abort", start, err)
	w.left.Do(w.fs.inFlight.Dec)
	return err
}

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	start := f.begin()
	st, err := f.inner.Mkdir(ctx, key, opts)
	f.done("mkdir", start, err)
	return st, err
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	start := f.begin()
	st, err := f.inner.Rename(ctx, from, to)
	f.done("rename", start, err)
	return st, err
}

// Remove implements ufs.FS.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	start := f.begin()
	err := f.inner.Remove(ctx, key, opts)
	f.done("remove", start, err)
	return err
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	start := f.begin()
	st, err := f.inner.SetAttr(ctx, key, attr)
	f.done("setattr", start, err)
	return st, err
}

// AbortUpload implements ufs.FS.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	start := f.begin()
	ended, err := f.inner.AbortUpload(ctx, key, op)
	f.done("abort_upload", start, err)
	return ended, err
}
