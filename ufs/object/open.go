package object

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Open reads a range with one conditional request. The reader fails with
// KindUnavailable rather than end early.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	if err := ufs.CheckKey(op, key); err != nil {
		return nil, ufs.Status{}, err
	}
	switch {
	case key == "":
		return nil, ufs.Status{}, isDirectory(op, key)
	case ufs.IsTemp(key):
		return nil, ufs.Status{}, notExist(op, key)
	case opts.Offset < 0:
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, key, "negative offset %d", opts.Offset)
	case opts.Length == 0:
		return f.openNothing(ctx, key, opts)
	case opts.Length > math.MaxInt64-opts.Offset:
		opts.Length = -1 // to the end
	}
	a, err := f.store.Get(ctx, f.root+key, GetRequest{Want: opts.Want, Offset: opts.Offset, Length: opts.Length})
	switch {
	case err == nil:
	case errors.Is(err, ErrRange):
		return f.openNothing(ctx, key, opts)
	case freshet.IsKind(err, freshet.KindNotExist):
		return nil, ufs.Status{}, f.absent(ctx, op, key, err)
	default:
		return nil, ufs.Status{}, f.failure(ctx, op, key, err)
	}
	st, err := f.check(key, opts, a)
	if err != nil {
		_ = a.Body.Close()
		return nil, ufs.Status{}, err
	}
	return &exactReader{f: f, ctx: ctx, key: key, body: a.Body, left: a.Length}, st, nil
}

func isDirectory(op, key string) error {
	return ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
}

// absent tells a directory from nothing after a read that found no object.
func (f *FS) absent(ctx context.Context, op, key string, cause error) error {
	first, err := f.first(ctx, op, key, 1)
	switch {
	case err != nil:
		return err
	case len(first) > 0:
		return isDirectory(op, key)
	}
	return f.failure(ctx, op, key, cause)
}

// openNothing answers a read of no bytes: the object is still looked at.
func (f *FS) openNothing(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	st, err := f.Stat(ctx, key)
	switch {
	case err != nil:
		return nil, ufs.Status{}, err
	case st.IsDir():
		return nil, ufs.Status{}, isDirectory(op, key)
	case opts.Want.Known() && !opts.Want.SameContent(st.Fingerprint):
		return nil, ufs.Status{}, stale(op, key)
	case opts.Offset > st.Length:
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, key, "offset %d is past the end at %d", opts.Offset, st.Length)
	case opts.Length != 0 && opts.Offset < st.Length:
		return nil, ufs.Status{}, stale(op, key) // it grew since the refusal
	}
	return io.NopCloser(strings.NewReader("")), st, nil
}

func stale(op, key string) error {
	return ufs.Errorf(freshet.KindStale, op, key, "the storage holds another version")
}

// check compares the head of the answer with what was asked.
func (f *FS) check(key string, opts ufs.OpenOptions, a Answer) (ufs.Status, error) {
	const op = "open"
	a.Object.Name = f.root + key
	st := f.status(&a.Object)
	switch {
	case st.IsDir():
		return ufs.Status{}, isDirectory(op, key)
	case opts.Want.Known() && !opts.Want.SameContent(st.Fingerprint):
		return ufs.Status{}, stale(op, key) // servers exist that ignore the condition
	}
	expect := max(0, a.Object.Size-opts.Offset)
	if opts.Length > 0 {
		expect = min(expect, opts.Length)
	}
	if a.First != opts.Offset || a.Length != expect {
		return ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, key,
			"asked for %d bytes from %d, the storage answered with %d from %d", expect, opts.Offset, a.Length, a.First)
	}
	return st, nil
}

// exactReader yields exactly left bytes or an error.
type exactReader struct {
	f    *FS
	ctx  context.Context //nolint:containedctx // of Open, to tell its end from an outage
	key  string
	body io.ReadCloser
	left int64
}

func (r *exactReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.body.Read(p)
	if r.left -= int64(n); err == nil && r.left == 0 {
		err = r.end()
	}
	switch {
	case err == nil || errors.Is(err, io.EOF) && r.left == 0:
		return n, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = ufs.Errorf(freshet.KindUnavailable, "read", r.key, "the storage's answer ended %d bytes early", r.left)
	default:
		err = r.f.failure(r.ctx, "read", r.key, err)
	}
	return n, err
}

// end looks for the end of the body, at which a client that compares checksums says
// whether they are right.
func (r *exactReader) end() error {
	var more [1]byte
	n, err := io.ReadFull(r.body, more[:])
	if n > 0 {
		return ufs.Errorf(freshet.KindUnavailable, "read", r.key, "the storage's answer is longer than it said")
	}
	return err //nolint:wrapcheck // Read does
}

func (r *exactReader) Close() error {
	return r.f.failure(r.ctx, "read", r.key, r.body.Close())
}
