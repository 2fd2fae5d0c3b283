package local

import (
	"context"
	"io"
	"os"
	"syscall"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	if err := begin(ctx, op, key); err != nil {
		return nil, ufs.Status{}, err
	}
	st, err := f.stat(op, key) // before the open: to open a device may do something
	if err == nil {
		err = readable(key, st)
	}
	if err != nil {
		return nil, st, err
	}
	file, err := f.root.OpenFile(name(key), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a fifo must not block
	if err != nil {
		return nil, ufs.Status{}, f.fail(op, key, err)
	}
	r, st, err := f.reader(ctx, key, file, opts)
	if err != nil {
		_ = file.Close() // nothing was written; the first error counts
		return nil, st, err
	}
	return r, st, nil
}

func readable(key string, st ufs.Status) error {
	switch kind, why := st.Unusable(); {
	case st.Special == specialDangling:
		return ufs.Errorf(freshet.KindNotExist, "open", key, "is a link to nothing")
	case kind != freshet.KindOK:
		return ufs.Errorf(kind, "open", key, "%s", why)
	case st.IsDir():
		return ufs.Errorf(freshet.KindConflict, "open", key, "is a directory")
	}
	return nil
}

// reader checks what was really opened.
func (f *FS) reader(ctx context.Context, key string, file *os.File, opts ufs.OpenOptions) (*reader, ufs.Status, error) {
	const op = "open"
	s, err := fstat(file)
	if err != nil {
		return nil, ufs.Status{}, f.fail(op, key, err)
	}
	st := f.status(key, s)
	switch err := readable(key, st); {
	case err != nil:
		return nil, st, err
	case opts.Want.Known() && !st.Fingerprint.SameContent(opts.Want):
		return nil, st, ufs.Errorf(freshet.KindStale, op, key, "the storage holds another version")
	case opts.Offset < 0 || opts.Offset > s.size:
		return nil, st, ufs.Errorf(freshet.KindInvalid, op, key, "offset %d is outside of the %d bytes", opts.Offset, s.size)
	}
	n := s.size - opts.Offset
	if opts.Length >= 0 {
		n = min(n, opts.Length)
	}
	return &reader{ctx: ctx, fs: f, key: key, file: file, opened: s, status: st, offset: opts.Offset, left: n}, st, nil
}

// reader hands out bytes only after the file was found unchanged behind them.
type reader struct {
	ctx    context.Context //nolint:containedctx // an open stream belongs to its call
	fs     *FS
	key    string
	file   *os.File
	opened stat
	status ufs.Status
	offset int64
	left   int64
	err    error // the end of the stream, once it was reached
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := ufs.ContextError(r.ctx, "read", r.key); err != nil {
		return 0, err
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := 0, error(nil)
	if len(p) > 0 {
		n, err = r.file.ReadAt(p, r.offset)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // ReadAt returns it bare
		r.err = r.fs.fail("read", r.key, err)
		return 0, r.err
	}
	if err := r.unchanged(); err != nil || int64(n) < int64(len(p)) {
		if err == nil {
			err = r.stale()
		}
		r.err = err
		return 0, err
	}
	r.offset += int64(n)
	r.left -= int64(n)
	if r.left == 0 {
		r.err = io.EOF
		if n == 0 {
			return 0, io.EOF
		}
	}
	return n, nil
}

func (r *reader) unchanged() error {
	now, err := fstat(r.file)
	if err != nil {
		return r.fs.fail("read", r.key, err)
	}
	if now == r.opened || r.fs.status(r.key, now).Fingerprint.SameContent(r.status.Fingerprint) {
		return nil
	}
	return r.stale()
}

func (r *reader) stale() error {
	return ufs.Errorf(freshet.KindStale, "read", r.key, "changed while reading")
}

func (r *reader) Close() error {
	if err := r.file.Close(); err != nil {
		return r.fs.fail("close", r.key, err)
	}
	return nil
}
