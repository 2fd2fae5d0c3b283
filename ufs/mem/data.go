package mem

import (
	"bytes"
	"context"
	"io"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Open implements ufs.FS.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	if err := f.begin(ctx, "open", key); err != nil {
		return nil, ufs.Status{}, err
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := f.stat("open", key)
	switch {
	case err != nil:
		return nil, st, err
	case st.IsDir():
		return nil, st, ufs.Errorf(freshet.KindConflict, "open", key, "is a directory")
	case opts.Want.Known() && !st.Fingerprint.SameContent(opts.Want):
		return nil, st, ufs.Errorf(freshet.KindStale, "open", key, "the storage holds another version")
	case opts.Offset < 0 || opts.Offset > st.Length:
		return nil, st, ufs.Errorf(freshet.KindInvalid, "open", key, "offset %d is outside of the %d bytes", opts.Offset, st.Length)
	}
	o, _ := s.tree.Get(f.root + key)
	data := o.data[opts.Offset:]
	if opts.Length >= 0 && opts.Length < int64(len(data)) {
		data = data[:opts.Length]
	}
	return &reader{ctx: ctx, fs: f, key: key, object: o, version: o.version, data: data}, st, nil
}

// reader gives the bytes of one version; when a file is rewritten in place it
// says so, as a local file system's driver has to.
type reader struct {
	ctx     context.Context //nolint:containedctx // an open stream belongs to its call
	fs      *FS
	key     string
	object  *object
	version int64
	data    []byte
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.fs.act(r.ctx, "read", r.key); err != nil {
		return 0, err
	}
	r.fs.store.mu.Lock()
	changed := r.object.version != r.version
	r.fs.store.mu.Unlock()
	if changed {
		return 0, ufs.Errorf(freshet.KindStale, "read", r.key, "changed while reading")
	}
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *reader) Close() error { return nil }

// upload is a Writer.
type upload struct {
	ctx  context.Context //nolint:containedctx // Create's context governs the writes
	fs   *FS
	key  string
	opts ufs.CreateOptions

	mu     sync.Mutex
	buf    bytes.Buffer
	broken bool    // a write failed, so that bytes are missing
	sealed *object // the file that is to appear, once no more bytes come
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	if err := f.beginWrite(ctx, "create", key); err != nil {
		return nil, err
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := f.checkTarget("create", key, ufs.CreateOptions{}); err != nil {
		return nil, err
	}
	u := &upload{ctx: ctx, fs: f, key: key, opts: opts}
	s.uploads[u] = struct{}{}
	return u, nil
}

// checkTarget checks whether a file may appear at key. The lock is held.
func (f *FS) checkTarget(op, key string, opts ufs.CreateOptions) error {
	st, err := f.stat(op, key)
	switch {
	case err != nil && opts.IfMatch.Known():
		return ufs.Errorf(freshet.KindStale, op, key, "the version to replace is gone")
	case err != nil:
		return f.checkParents(op, key)
	case st.IsDir():
		return ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	case opts.IfAbsent:
		return ufs.Errorf(freshet.KindExist, op, key, "exists")
	case opts.IfMatch.Known() && !st.Fingerprint.SameContent(opts.IfMatch):
		return ufs.Errorf(freshet.KindStale, op, key, "the storage holds another version")
	}
	return nil
}

func (u *upload) Write(p []byte) (int, error) {
	err := u.fs.act(u.ctx, "write", u.key)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.broken = true
		return 0, err
	}
	if u.sealed != nil {
		return 0, ufs.Errorf(freshet.KindConflict, "write", u.key, "the upload has ended")
	}
	return u.buf.Write(p)
}

// Seal implements ufs.Writer.
func (u *upload) Seal(ctx context.Context) (fingerprint.Fingerprint, error) {
	if err := u.fs.act(ctx, "seal", u.key); err != nil {
		return fingerprint.Fingerprint{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.fs.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := u.ready("seal"); err != nil {
		return fingerprint.Fingerprint{}, err
	}
	o := u.seal()
	if s.opts.Mode == Object { // it has a mark, and the fingerprint of any object with the same bytes
		return fingerprint.Fingerprint{}, nil
	}
	return s.status(u.key, o).Fingerprint, nil
}

// ready returns why the upload can't be sealed or committed. The locks are held.
func (u *upload) ready(op string) error {
	if _, ok := u.fs.store.uploads[u]; !ok {
		return ufs.Errorf(freshet.KindConflict, op, u.key, "the upload has ended")
	}
	if u.broken {
		return ufs.Errorf(freshet.KindConflict, op, u.key, "the upload has ended: a write failed; abort it and begin anew")
	}
	return nil
}

// seal returns the object that is to appear. The locks are held.
func (u *upload) seal() *object {
	if u.sealed == nil {
		u.sealed = u.fs.store.newObject(u.buf.Bytes(), u.opts.Op, u.opts.Mode)
	}
	return u.sealed
}

// Commit implements ufs.Writer.
func (u *upload) Commit(ctx context.Context) (ufs.Status, error) {
	if err := u.fs.act(ctx, "commit", u.key); err != nil {
		return ufs.Status{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	f, s := u.fs, u.fs.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := u.ready("commit"); err != nil {
		return ufs.Status{}, err
	}
	if err := f.checkTarget("commit", u.key, u.opts); err != nil {
		return ufs.Status{}, err
	}
	if u.opts.Size >= 0 && u.opts.Size != int64(u.buf.Len()) {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, "commit", u.key, "%d bytes written, %d announced", u.buf.Len(), u.opts.Size)
	}
	delete(s.uploads, u)
	if s.opts.Mode == Local {
		s.makeParents(f.root+u.key, u.opts.Owner, u.opts.Group)
	}
	now := u.seal()
	if s.opts.Mode == Local {
		now.change = s.tick()
		now.give(u.opts.Owner, u.opts.Group)
	}
	if old, ok := s.tree.Get(f.root + u.key); ok && u.opts.Mode == 0 {
		now.owner, now.group, now.mode = old.owner, old.group, old.mode
	}
	s.tree.Set(f.root+u.key, now)
	return f.stat("commit", u.key)
}

// Abort implements ufs.Writer.
func (u *upload) Abort(ctx context.Context) error {
	if err := u.fs.act(ctx, "abort", u.key); err != nil {
		return err
	}
	u.fs.store.mu.Lock()
	defer u.fs.store.mu.Unlock()
	delete(u.fs.store.uploads, u)
	return nil
}

// AbortUpload implements ufs.FS.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (bool, error) {
	if err := f.beginWrite(ctx, "abort", key); err != nil {
		return false, err
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := false
	for u := range s.uploads {
		if u.opts.Op == op && u.fs.root+u.key == f.root+key {
			delete(s.uploads, u)
			ended = true
		}
	}
	if o, ok := s.tree.Get(f.root + key); ok && !op.IsZero() && o.op == op {
		ended = true
	}
	return ended, nil
}
