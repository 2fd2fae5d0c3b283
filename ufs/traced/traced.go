// Package traced owns the spans of calls to under-storage: an ufs.FS that records
// one OpenTelemetry span for each call of the one below. It uses only the
// TracerProvider that it is given, never a global one, and records no key, no
// option and no text of an error: only the kinds, lengths and counts.
//
// A span is named "ufs." and the call. A file that is read has two: ufs.open, and
// ufs.read from there to Close; an upload ufs.create, then ufs.commit or ufs.abort.
package traced

import (
	"context"
	"io"
	"iter"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/version"
	"github.com/freshet-io/freshet/ufs"
)

// The attributes of spans.
const (
	attrStorage   = "freshet.ufs.kind"       // Features.Kind
	attrOp        = "freshet.ufs.op"         // the call
	attrKeyLength = "freshet.ufs.key_length" // in bytes
	attrResult    = "freshet.ufs.result"     // the name of the freshet.Kind, "ok" for a success
	attrEntries   = "freshet.ufs.entries"    // of a listing
	attrBytes     = "freshet.ufs.bytes"      // of content, read or written
	attrOffset    = "freshet.ufs.offset"     // of a read
	attrRecursive = "freshet.ufs.recursive"  // of a listing or a removal
)

// FS records the calls to the FS below it. It is safe for concurrent use.
type FS struct {
	inner  ufs.FS
	tracer trace.Tracer
	kind   attribute.KeyValue
}

var _ ufs.FS = (*FS)(nil)

// New returns inner with spans of tp.
func New(inner ufs.FS, tp trace.TracerProvider) *FS {
	return &FS{
		inner: inner, kind: attribute.String(attrStorage, inner.Features().Kind),
		tracer: tp.Tracer("github.com/freshet-io/freshet/ufs/traced", trace.WithInstrumentationVersion(version.Get().Version)),
	}
}

// Unwrap returns the FS below.
func (f *FS) Unwrap() ufs.FS { return f.inner }

// start begins the span of a call.
func (f *FS) start(ctx context.Context, op, key string, more ...attribute.KeyValue) (context.Context, trace.Span) {
	return f.tracer.Start(ctx, "ufs."+op, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		append(more, f.kind, attribute.String(attrOp, op), attribute.Int(attrKeyLength, len(key)))...))
}

// end ends a span by the outcome of its call. That something is not there, or
// there already, is an answer and no failure.
func end(span trace.Span, err error, more ...attribute.KeyValue) {
	k := freshet.KindOf(err)
	span.SetAttributes(append(more, attribute.String(attrResult, k.String()))...)
	switch k {
	case freshet.KindOK, freshet.KindNotExist, freshet.KindExist, freshet.KindStale:
	default:
		span.SetStatus(codes.Error, k.String())
	}
	span.End()
}

// Features implements ufs.FS.
func (f *FS) Features() ufs.Features { return f.inner.Features() }

// Close implements ufs.FS.
func (f *FS) Close() error { return f.inner.Close() }

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	ctx, span := f.start(ctx, "stat", key)
	st, err := f.inner.Stat(ctx, key)
	end(span, err)
	return st, err
}

// List implements ufs.FS.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		ctx, span := f.start(ctx, "list", dir, attribute.Bool(attrRecursive, opts.Recursive))
		n, last := 0, error(nil)
		defer func() { end(span, last, attribute.Int(attrEntries, n)) }()
		for st, err := range f.inner.List(ctx, dir, opts) {
			if last = err; err == nil {
				n++
			}
			if !yield(st, err) {
				return
			}
		}
	}
}

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	_, span := f.start(ctx, "open", key, attribute.Int64(attrOffset, opts.Offset))
	r, st, err := f.inner.Open(ctx, key, opts) // the reads, by the same context, belong to the caller's span
	end(span, err)
	if err != nil {
		return nil, st, err
	}
	_, span = f.start(ctx, "read", key, attribute.Int64(attrOffset, opts.Offset))
	return &reader{ReadCloser: r, span: span}, st, nil
}

type reader struct {
	io.ReadCloser
	span  trace.Span
	bytes int64
	err   error
	once  sync.Once
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bytes += int64(n)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader returns it bare
		r.err = err
	}
	return n, err
}

func (r *reader) Close() error {
	err := r.ReadCloser.Close()
	r.once.Do(func() {
		if r.err == nil {
			r.err = err
		}
		end(r.span, r.err, attribute.Int64(attrBytes, r.bytes))
	})
	return err
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	_, span := f.start(ctx, "create", key)
	w, err := f.inner.Create(ctx, key, opts) // the writes, by the same context, belong to the caller's span
	end(span, err)
	if err != nil {
		return nil, err
	}
	return &writer{Writer: w, fs: f, key: key}, nil
}

type writer struct {
	ufs.Writer
	fs    *FS
	key   string
	bytes int64
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	ctx, span := w.fs.start(ctx, "commit", w.key, attribute.Int64(attrBytes, w.bytes))
	st, err := w.Writer.Commit(ctx)
	end(span, err)
	return st, err
}

func (w *writer) Abort(ctx context.Context) error {
	ctx, span := w.fs.start(ctx, "abort", w.key, attribute.Int64(attrBytes, w.bytes))
	err := w.Writer.Abort(ctx)
	end(span, err)
	return err
}

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	ctx, span := f.start(ctx, "mkdir", key)
	st, err := f.inner.Mkdir(ctx, key, opts)
	end(span, err)
	return st, err
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	ctx, span := f.start(ctx, "rename", from)
	st, err := f.inner.Rename(ctx, from, to)
	end(span, err)
	return st, err
}

// Remove implements ufs.FS.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	ctx, span := f.start(ctx, "remove", key, attribute.Bool(attrRecursive, opts.Recursive))
	err := f.inner.Remove(ctx, key, opts)
	end(span, err)
	return err
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	ctx, span := f.start(ctx, "setattr", key)
	st, err := f.inner.SetAttr(ctx, key, attr)
	end(span, err)
	return st, err
}

// AbortUpload implements ufs.FS.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	ctx, span := f.start(ctx, "abort_upload", key)
	ended, err := f.inner.AbortUpload(ctx, key, op)
	end(span, err)
	return ended, err
}
