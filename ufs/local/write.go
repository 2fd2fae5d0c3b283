package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	defaultFileMode = 0o644
	defaultDirMode  = 0o755
)

// flushStep is after how many bytes the system is told to write what it has of a file
// to the disk: else all of it would wait for the sync at the end, when nothing else is
// left to be done meanwhile.
const flushStep = 8 << 20

// tempName is new for each attempt: an attempt that was given up for dead must
// never publish the half-written file of the next one. The file lies in the
// lowest directory above key that is there, so that a rename is enough and an
// upload that fails leaves no directories behind.
func tempName(dir, key string, op freshet.OpID) string {
	return ufs.JoinKey(dir, ufs.UploadName(key, op))
}

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	const op = "create"
	if err := beginWrite(ctx, op, key); err != nil {
		return nil, err
	}
	switch _, found, err := f.replaceable(op, key); {
	case err != nil:
		return nil, err
	case found && opts.IfAbsent:
		return nil, ufs.Errorf(freshet.KindExist, op, key, "exists")
	}
	to, err := heirOf(op, key, opts.Owner, opts.Group)
	if err != nil {
		return nil, err
	}
	dir, err := f.lowest(op, key)
	if err != nil {
		return nil, err
	}
	w := &writer{ctx: ctx, fs: f, key: key, temp: tempName(dir, key, opts.Op), opts: opts, to: to}
	w.file, err = f.root.OpenFile(w.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, f.fail(op, key, err)
	}
	return w, nil
}

// replaceable looks at what a write to key would replace: a regular file, or
// nothing. Whatever else is there stays. That holds for a link too: what is read
// under it is the file that it leads to, and a write would leave that one as it is.
func (f *FS) replaceable(op, key string) (old stat, found bool, err error) {
	info, err := f.root.Lstat(name(key))
	if err != nil {
		if err = f.fail(op, key, err); freshet.IsKind(err, freshet.KindNotExist) {
			err = nil
		}
		return stat{}, false, err
	}
	old = fromInfo(info)
	st := f.status(key, old)
	if old.isLink() {
		if st, err = f.followed(op, key, old); err != nil {
			return old, true, err
		}
	}
	switch kind, why := st.Unusable(); {
	case st.IsDir():
		return old, true, ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	case old.isLink() && kind != freshet.KindPermission:
		return old, true, ufs.Errorf(freshet.KindConflict, op, key, "is a symbolic link: write to the file that it leads to, or remove it")
	case kind != freshet.KindOK:
		return old, true, ufs.Errorf(kind, op, key, "%s", why)
	}
	return old, true, nil
}

// lowest returns the lowest directory above key that is there.
func (f *FS) lowest(op, key string) (dir string, err error) {
	dir = ufs.ParentKey(key)
	for dir != "" {
		st, err := f.stat(op, dir)
		if err == nil && st.IsDir() {
			break
		}
		if err == nil {
			return "", ufs.Errorf(freshet.KindConflict, op, key, "%q is not a directory", dir)
		}
		if !freshet.IsKind(err, freshet.KindNotExist) {
			return "", err
		}
		dir = ufs.ParentKey(dir)
	}
	return dir, nil
}

// makeParents makes the directories above key, all or none, gives them to whom they
// are for, and returns the lowest one that existed before.
func (f *FS) makeParents(op, key string, to heir) (existed string, err error) {
	if existed, err = f.lowest(op, key); err != nil {
		return "", err
	}
	if parent := ufs.ParentKey(key); parent != existed {
		if err := f.mkdirs(parent, existed, to); err != nil {
			f.removeEmpty(parent, existed)
			if errors.Is(err, syscall.ENOTDIR) {
				return "", ufs.Errorf(freshet.KindConflict, op, key, "%q is not a directory", parent)
			}
			return "", f.fail(op, key, err)
		}
	}
	return existed, nil
}

// mkdirs makes dir and the directories between it and top, which is there.
func (f *FS) mkdirs(dir, top string, to heir) error {
	if to.nobody() {
		return f.root.MkdirAll(dir, defaultDirMode)
	}
	if up := ufs.ParentKey(dir); up != top {
		if err := f.mkdirs(up, top, to); err != nil {
			return err
		}
	}
	err := f.root.Mkdir(dir, defaultDirMode)
	if errors.Is(err, fs.ErrExist) { // somebody else's, if it is a directory: who needs it sees
		return nil
	}
	if err == nil {
		err = f.root.Lchown(dir, to.uid, to.gid)
	}
	return err
}

// heir is whom something new is given to; a negative number leaves it to Freshet's
// own user or group.
type heir struct{ uid, gid int }

func (h heir) nobody() bool { return h.uid < 0 && h.gid < 0 }

// heirOf finds the numbers of a user and a group; "" is the one that it would be
// without.
func heirOf(op, key, owner, group string) (to heir, err error) {
	to = heir{-1, -1}
	if owner != "" {
		to.uid, err = userID(owner)
	}
	if group != "" && err == nil {
		to.gid, err = groupID(group)
	}
	return to, freshet.Wrap(op, freshet.Path(key), err)
}

// removeEmpty removes the directories from dir up to, and without, top, as far as
// nobody put anything into them.
func (f *FS) removeEmpty(dir, top string) {
	for ; dir != top; dir = ufs.ParentKey(dir) {
		_ = f.root.Remove(dir) // it may not have been made, or be in use
	}
}

// syncUp makes the entries from key's directory up to the directory top durable.
func (f *FS) syncUp(key, top string) error {
	for {
		key = ufs.ParentKey(key)
		d, err := f.root.Open(name(key))
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil && !errors.Is(err, syscall.EINVAL) { // some file systems can't sync a directory
			return err
		}
		if key == top || key == "" {
			return nil
		}
	}
}

// writer is one temporary file on its way. It is used by one goroutine.
type writer struct {
	ctx   context.Context //nolint:containedctx // Create's context governs the writes
	fs    *FS
	key   string
	temp  string
	opts  ufs.CreateOptions
	to    heir   // of the file, if it is new, and of the directories made for it
	made  string // lowest directory above key that was there before the commit
	file  *os.File
	size  int64
	begun int64 // of size, which the system writes to the disk already
	ended bool
	// sealed: no more bytes come.
	sealed bool
	// broken: a write failed, so that bytes are missing.
	broken bool
}

func (w *writer) Write(p []byte) (int, error) {
	const op = "write"
	if w.ended || w.sealed {
		return 0, ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended")
	}
	if err := ufs.ContextError(w.ctx, op, w.key); err != nil {
		w.broken = true
		return 0, err
	}
	n, err := w.file.Write(p)
	w.size += int64(n)
	if err != nil {
		w.broken = true
		return n, w.fs.fail(op, w.key, err)
	}
	if n := w.size - w.begun; n >= flushStep {
		// Only for speed: the sync of the commit tells what went wrong.
		_ = unix.SyncFileRange(int(w.file.Fd()), w.begun, n, unix.SYNC_FILE_RANGE_WRITE) //nolint:gosec,errcheck // a file descriptor; see above
		w.begun = w.size
	}
	return n, nil
}

// Seal implements ufs.Writer. A rename leaves the inode and the modification time as they
// are; a client of NFS has written all to the server before it tells them.
func (w *writer) Seal(ctx context.Context) (fingerprint.Fingerprint, error) {
	const op = "seal"
	if err := w.ready(ctx, op); err != nil {
		return fingerprint.Fingerprint{}, err
	}
	w.sealed = true
	s, err := fstat(w.file)
	if err != nil {
		return fingerprint.Fingerprint{}, w.fs.fail(op, w.key, err)
	}
	return w.fs.status(w.key, s).Fingerprint, nil
}

// ready returns why the upload can't be sealed or committed.
func (w *writer) ready(ctx context.Context, op string) error {
	if w.ended {
		return ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended")
	}
	if w.broken {
		return ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended: a write failed; abort it and begin anew")
	}
	return ufs.ContextError(ctx, op, w.key)
}

// Commit implements ufs.Writer. The status is that of the file as it was written,
// asked of its descriptor after the rename, which moves its change time.
func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	const op = "commit"
	if err := w.ready(ctx, op); err != nil {
		return ufs.Status{}, err
	}
	if w.opts.Size >= 0 && w.opts.Size != w.size {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, w.key, "%d bytes written, %d announced", w.size, w.opts.Size)
	}
	mode, err := w.mode(op)
	if err != nil {
		return ufs.Status{}, err
	}
	if err := errors.Join(w.file.Chmod(fileMode(mode)), w.file.Sync()); err != nil {
		return ufs.Status{}, w.fs.fail(op, w.key, err)
	}
	if err := ufs.ContextError(ctx, op, w.key); err != nil { // the sync may have taken its time
		return ufs.Status{}, err
	}
	if w.made, err = w.fs.makeParents(op, w.key, w.to); err != nil {
		return ufs.Status{}, err
	}
	if err := w.publish(op); err != nil {
		w.fs.removeEmpty(ufs.ParentKey(w.key), w.made)
		return ufs.Status{}, err
	}
	w.ended = true
	s, err := fstat(w.file)
	err = errors.Join(err, w.fs.syncUp(w.key, w.made), w.file.Close())
	if err != nil { // the file is visible, but may be lost in a crash: the outcome is not known
		return ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, w.key, "written, but not known to be durable: %w", err)
	}
	return w.fs.status(w.key, s), nil
}

// mode returns the mode of the new file. If that is the one of the file that it
// replaces, the new one gets its owner, group and access control list too. Who may
// not give it the group gives the group no right that others do not have.
func (w *writer) mode(op string) (uint32, error) {
	if w.opts.Mode != 0 {
		return w.opts.Mode, w.give(op)
	}
	old, found, err := w.fs.replaceable(op, w.key)
	if err != nil {
		return 0, err
	}
	if !found {
		return defaultFileMode, w.give(op)
	}
	mode := old.perm() & 0o777
	now, err := fstat(w.file)
	if err != nil {
		return 0, w.fs.fail(op, w.key, err)
	}
	same := (now.uid == old.uid && now.gid == old.gid) || w.file.Chown(int(old.uid), int(old.gid)) == nil ||
		now.gid == old.gid || w.file.Chown(-1, int(old.gid)) == nil
	listed, err := w.fs.copyACL(op, w.key, w.file, same)
	if err == nil && !listed && !same {
		mode = mode&^0o070 | mode&(mode<<3)&0o070
	}
	return mode, err
}

// give gives the file, which replaces none, to whom it is for.
func (w *writer) give(op string) error {
	if w.to.nobody() {
		return nil
	}
	if err := w.file.Chown(w.to.uid, w.to.gid); err != nil {
		return w.fs.fail(op, w.key, err)
	}
	return nil
}

// publish gives the temporary file its name.
func (w *writer) publish(op string) error {
	f := w.fs
	if w.opts.IfAbsent {
		if err := f.root.Link(w.temp, w.key); err != nil { // unlike a rename it never replaces
			return w.publishError(op, err)
		}
		if err := f.root.Remove(w.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ufs.Errorf(freshet.KindUnavailable, op, w.key, "written, but its temporary name stays: %w", err)
		}
		return nil
	}
	if w.opts.IfMatch.Known() {
		f.replace.Lock()
		defer f.replace.Unlock()
	}
	old, found, err := f.replaceable(op, w.key) // as late as can be
	switch {
	case err != nil:
		return err
	case w.opts.IfMatch.Known() && (!found || !f.status(w.key, old).Fingerprint.SameContent(w.opts.IfMatch)):
		return ufs.Errorf(freshet.KindStale, op, w.key, "the storage holds another version")
	}
	if err := f.root.Rename(w.temp, w.key); err != nil {
		return w.publishError(op, err)
	}
	return nil
}

// publishError tells why the temporary file did not get its name: if it is not
// there any more, somebody ended the upload or moved the directory.
func (w *writer) publishError(op string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !w.fs.gone() {
		return ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended: its temporary file is gone")
	}
	return w.fs.fail(op, w.key, err)
}

// Abort implements ufs.Writer.
func (w *writer) Abort(context.Context) error {
	if w.ended {
		return nil
	}
	w.ended = true
	_ = w.file.Close() // the file is dropped anyway
	if err := w.fs.root.Remove(w.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w.fs.fail("abort", w.key, err)
	}
	return nil
}

// AbortUpload implements ufs.FS. A writer whose temporary file is gone can't
// publish any more.
func (f *FS) AbortUpload(ctx context.Context, key string, id freshet.OpID) (bool, error) {
	const op = "abort"
	if err := beginWrite(ctx, op, key); err != nil {
		return false, err
	}
	ended := false
	for dir := key; dir != ""; {
		dir = ufs.ParentKey(dir)
		here, err := f.removeTemp(op, key, dir, ufs.UploadPrefix(key, id))
		ended = ended || here
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// removeTemp removes the files in dir whose names start with prefix and reports
// whether there was one.
func (f *FS) removeTemp(op, key, dir, prefix string) (found bool, err error) {
	d, err := f.root.Open(name(dir))
	if err != nil {
		if err = f.fail(op, key, err); freshet.IsKind(err, freshet.KindNotExist) {
			return false, nil
		}
		return false, err
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close() // nothing was written
	if err != nil {
		if errors.Is(err, syscall.ENOTDIR) { // a file has taken the place of the directory
			return false, nil
		}
		return false, f.fail(op, key, err)
	}
	for _, n := range names {
		if !strings.HasPrefix(n, prefix) {
			continue
		}
		switch err := f.root.Remove(ufs.JoinKey(dir, n)); {
		case err == nil:
			found = true
		case !errors.Is(err, fs.ErrNotExist):
			return found, f.fail(op, key, err)
		}
	}
	return found, nil
}

// fileMode turns permission bits of the system into those of package os.
func fileMode(bits uint32) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&bit != 0 {
			m |= flag
		}
	}
	return m
}
