package hdfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// segment is how much is read before the file is looked at again: no byte is
	// handed out before. A reader holds one.
	segment = 4 << 20
	// attempts is how often a segment is read before the DataNodes have failed.
	attempts = 3
	// careful is a read short enough for the library to check the bytes before it
	// gives them away. Of a longer one that fails its checksum it hands out the
	// bytes and keeps the error for itself.
	careful = chunk - 1
)

// inode is the path of a file by its number, under whatever name it goes.
func inode(id uint64) string { return "/.reserved/.inodes/" + strconv.FormatUint(id, 10) }

// Open implements ufs.FS. It reads the inode that was there, not the name, so what
// replaces the file can't mix in.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	if err := begin(ctx, op, key); err != nil {
		return nil, ufs.Status{}, err
	}
	st, id, err := f.stat(ctx, op, key)
	if err != nil {
		return nil, st, err
	}
	switch kind, why := st.Unusable(); {
	case kind != freshet.KindOK:
		return nil, st, ufs.Errorf(kind, op, key, "%s", why)
	case st.IsDir():
		return nil, st, ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	case opts.Want.Known() && !st.Fingerprint.SameContent(opts.Want):
		return nil, st, ufs.Errorf(freshet.KindStale, op, key, "the storage holds another version")
	case opts.Offset < 0 || opts.Offset > st.Length:
		return nil, st, ufs.Errorf(freshet.KindInvalid, op, key, "offset %d is outside of the %d bytes", opts.Offset, st.Length)
	}
	end := st.Length
	if opts.Length >= 0 && opts.Length < end-opts.Offset {
		end = opts.Offset + opts.Length
	}
	r := &reader{ctx: ctx, fs: f, key: key, path: inode(id), status: st, next: opts.Offset, end: end}
	if opts.Offset == end {
		r.err = io.EOF
		return r, st, nil
	}
	// The first bytes are read now, so that what stops a read is known early.
	if err := r.buffer(); err != nil {
		_ = r.Close()
		return nil, st, err
	}
	return r, st, nil
}

// reader is one stream. It has a connection of its own from its first byte to its
// last. It is used by one goroutine.
type reader struct {
	ctx    context.Context //nolint:containedctx // an open stream belongs to its call
	fs     *FS
	key    string
	path   string
	status ufs.Status
	next   int64 // where the next segment starts
	end    int64
	buf    *[]byte // of a segment, from the pool; nil until it is needed
	ready  []byte  // what is left of it
	err    error   // the end of the stream, once it was reached

	client *client
	stop   func() bool // ends the watch over ctx
	file   *lib.FileReader
	block  int64 // length of a block
	fresh  bool  // nothing was read of file yet
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.next == r.end {
			r.err = io.EOF
			r.release(true)
			return 0, io.EOF
		}
		size := min(segment, r.end-r.next)
		if int64(len(p)) >= size { // no need to copy it
			if r.err = r.advance(p[:size]); r.err != nil {
				return 0, r.err
			}
			return int(size), nil
		}
		if r.err = r.buffer(); r.err != nil {
			return 0, r.err
		}
	}
	if err := ufs.ContextError(r.ctx, "read", r.key); err != nil {
		return 0, err
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = ufs.Errorf(freshet.KindInvalid, "read", r.key, "the stream is closed")
	}
	if r.buf != nil {
		r.fs.segments.Put(r.buf)
	}
	r.ready, r.buf = nil, nil
	r.release(true)
	return nil
}

// buffer makes the next segment ready.
func (r *reader) buffer() error {
	if r.buf == nil {
		r.buf, _ = r.fs.segments.Get().(*[]byte)
	}
	if r.buf == nil {
		b := make([]byte, segment)
		r.buf = &b
	}
	next := (*r.buf)[:min(segment, r.end-r.next)]
	err := r.advance(next)
	if err == nil {
		r.ready = next
	}
	return err
}

// advance reads the next len(buf) bytes, if the file is still the one that was
// opened.
func (r *reader) advance(buf []byte) error {
	if err := r.read(buf); err != nil {
		return err
	}
	return r.unchanged()
}

// read reads the next len(buf) bytes, on other connections if one fails.
func (r *reader) read(buf []byte) error {
	const op = "read"
	var last error
	for attempt := range attempts {
		err := r.open(attempt > 0)
		if err == nil {
			err = r.fill(buf, attempt > 0)
		}
		if err == nil {
			r.next += int64(len(buf))
			return nil
		}
		last = failure(r.ctx, op, r.key, r.client, err)
		r.release(false)
		if r.ctx.Err() != nil || isAny(err, errClosed, errLibrary) || !freshet.IsKind(last, freshet.KindUnavailable) {
			break
		}
	}
	if isNotDir(last) || freshet.IsKind(last, freshet.KindNotExist) {
		return r.stale() // removed since
	}
	return last
}

// open makes sure of a stream at the next byte.
func (r *reader) open(again bool) error {
	if r.file != nil {
		return nil
	}
	if again {
		r.fs.pool.flush()
	}
	c, err := r.fs.pool.get(r.ctx)
	if err != nil {
		return fail(r.ctx, "read", r.key, c, err)
	}
	r.client, r.stop = c, context.AfterFunc(r.ctx, c.kill)
	file, err := c.lib.Open(r.path)
	if err != nil {
		return err
	}
	r.file, r.fresh = file, true
	now, ok := file.Stat().Sys().(*lib.FileStatus)
	if !ok {
		return errLibrary
	}
	if !status(r.key, now).Fingerprint.SameContent(r.status.Fingerprint) {
		return r.stale()
	}
	r.block = max(int64(now.GetBlocksize()), 1)
	_, err = file.Seek(r.next, io.SeekStart)
	return err
}

// release gives the connection back, or up.
func (r *reader) release(healthy bool) {
	if r.client == nil {
		return
	}
	r.stop()
	if r.file != nil {
		_ = r.file.Close() // nothing was written
	}
	if !healthy {
		r.client.kill()
	}
	r.fs.pool.put(r.client, healthy)
	r.client, r.file = nil, nil
}

var errUnchecked = errors.New("a DataNode failed in the middle of a block")

// fill reads buf at the next byte. What it returns was checked against the
// checksums of HDFS: a failure of a read shows as a new connection in the next
// one, which therefore follows every long read in the same block. Slow makes all
// reads short, which needs no such care.
func (r *reader) fill(buf []byte, slow bool) error {
	for n := 0; n < len(buf); {
		at := r.next + int64(n)
		left := min(int64(len(buf)-n), r.block-at%r.block)
		size := left - careful
		if slow || size < chunk {
			size = min(left, careful)
		}
		dials := r.client.dials.Load()
		m, err := r.file.Read(buf[n : n+int(size)])
		expected := r.fresh || at%r.block == 0
		if dialled := r.client.dials.Load() != dials; dialled && !expected && !slow {
			return errUnchecked
		}
		r.fresh = false
		n += m
		switch {
		case err != nil && (n < len(buf) || !errors.Is(err, io.EOF)):
			return fmt.Errorf("after %d bytes: %w", at+int64(m), err)
		case m == 0 && err == nil:
			return io.ErrNoProgress
		}
	}
	return nil
}

// unchanged asks whether the inode still is what was opened.
func (r *reader) unchanged() error {
	now, err := r.fs.statPath(r.ctx, "read", r.key, r.path)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return r.stale()
	}
	if err != nil {
		return err
	}
	if !status(r.key, now).Fingerprint.SameContent(r.status.Fingerprint) {
		return r.stale()
	}
	return nil
}

func (r *reader) stale() error {
	return ufs.Errorf(freshet.KindStale, "read", r.key, "changed while reading")
}
