package hdfs

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"
	"time"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// writePiece is what is given to the library at once: it copies it.
	writePiece = 256 << 10
	// firstWait and lastWait bound the wait between two attempts to go on with, or to
	// close, a file of which a block has not been reported yet.
	firstWait = 3 * time.Millisecond
	lastWait  = time.Second
	// firstLook and lastLook bound the wait between two looks for a file that may yet
	// be made.
	firstLook = 100 * time.Millisecond
	lastLook  = 4 * time.Second
)

// Create implements ufs.FS.
func (f *FS) Create(ctx context.Context, key string, opts ufs.CreateOptions) (ufs.Writer, error) {
	const op = "create"
	if err := beginWrite(ctx, op, key); err != nil {
		return nil, err
	}
	w := &writer{ctx: ctx, fs: f, key: key, opts: opts, mode: opts.Mode & permBits}
	if !opts.Vouched || opts.IfAbsent {
		st, _, found, err := f.find(ctx, op, key)
		switch {
		case err != nil:
			return nil, err
		case found && opts.IfAbsent && !st.IsDir():
			return nil, ufs.Errorf(freshet.KindExist, op, key, "exists")
		case found:
			if err := f.replaceable(ctx, op, key, false); err != nil {
				return nil, err
			}
			if w.mode == 0 {
				w.mode = st.Mode
			}
		case w.mode == 0:
			w.mode = defaultFileMode
		}
	}
	if w.mode == 0 {
		w.mode = 0o600 // until it is known what is replaced
	}
	if err := w.start(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

// writer is one temporary file on its way. It is used by one goroutine.
type writer struct {
	ctx    context.Context //nolint:containedctx // Create's context governs the writes
	fs     *FS
	key    string
	opts   ufs.CreateOptions
	mode   uint32 // of the temporary file
	dir    string // the lowest directory above key that was there
	temp   string // path of the temporary file, in dir
	size   int64
	client *client
	stop   func() bool // ends the watch over ctx
	file   *lib.FileWriter
	failed error // of a Write: what is there is not what was meant
	sealed bool  // the file is complete, and the connection given back
	// found is what Seal found the temporary file to be, nil if it was not asked.
	found *lib.FileStatus
	ended bool
}

// start makes the temporary file, beside the key or, where directories are missing,
// in the lowest one that is there: what is not committed makes none.
func (w *writer) start(ctx context.Context) error {
	const op = "create"
	w.dir = ufs.ParentKey(w.key)
	err := w.create(ctx)
	if freshet.IsKind(err, freshet.KindUnavailable) && ctx.Err() == nil && !errors.Is(err, errClosed) {
		w.fs.pool.flush() // the first call after a NameNode restarted meets a dead connection
		err = w.create(ctx)
	}
	for freshet.IsKind(err, freshet.KindNotExist) && w.dir != "" {
		w.dir = ufs.ParentKey(w.dir)
		err = w.create(ctx)
	}
	if freshet.IsKind(err, freshet.KindPermission) {
		if dir, _, found, ferr := w.fs.find(ctx, op, w.dir); ferr == nil && found && !dir.IsDir() {
			err = ufs.Errorf(freshet.KindConflict, op, w.key, "%q is not a directory", dir.Key)
		}
	}
	return err
}

// create makes a temporary file of a new name. It may have been made although the
// call failed: it is removed then.
func (w *writer) create(ctx context.Context) error {
	const op = "create"
	c, err := w.fs.pool.get(ctx)
	if err != nil {
		return fail(ctx, op, w.key, c, err)
	}
	w.temp = w.fs.path(ufs.JoinKey(w.dir, ufs.UploadName(w.key, w.opts.Op)))
	err = c.run(ctx, func() (err error) {
		w.file, err = w.fs.newFile(c, w.temp, w.mode)
		return err
	})
	if err != nil {
		if !answered(err) {
			c.kill()
			w.fs.discard(w.temp)
		}
		w.fs.pool.put(c, answered(err))
		return fail(ctx, op, w.key, c, err)
	}
	w.client, w.stop = c, context.AfterFunc(w.ctx, c.kill)
	return nil
}

func (f *FS) newFile(c *client, path string, mode uint32) (*lib.FileWriter, error) {
	replication, block := f.cfg.replication, f.cfg.blockSize
	if replication == 0 || block == 0 {
		d, err := c.lib.ServerDefaults()
		if err != nil {
			return nil, err
		}
		if replication == 0 {
			replication = d.Replication
		}
		if block == 0 {
			block = d.BlockSize
		}
	}
	return c.lib.CreateFile(path, replication, block, os.FileMode(mode))
}

// discard removes a temporary file that may be there, later: its caller has gone. The
// NameNode may make it after it was asked to remove it, on another connection: where
// there is none, it looks again for a while.
func (f *FS) discard(path string) {
	f.background(func(ctx context.Context) {
		for wait := firstLook; wait <= lastLook; wait *= 2 {
			found, err := f.removeTemp(ctx, "", path)
			if err != nil {
				f.log.Warn("temporary file may be left behind", "error", err)
			}
			if found || err != nil {
				return
			}
			select {
			case <-f.cfg.clock.After(wait):
			case <-ctx.Done():
				return
			}
		}
	})
}

// removeTemp removes a temporary file, whose name nobody uses twice.
func (f *FS) removeTemp(ctx context.Context, key, path string) (found bool, err error) {
	err = f.call(ctx, "abort", key, idempotent, func(c *client, second bool) (err error) {
		found, err = c.remove(path, false)
		found = found || second
		return err
	})
	if isNotDir(err) || freshet.IsKind(err, freshet.KindNotExist) {
		return false, nil
	}
	return found, err
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	const op = "write"
	switch {
	case w.ended || w.sealed:
		return 0, w.over(op)
	case w.failed != nil:
		return 0, w.failed
	}
	for n := 0; n < len(p); {
		if w.failed = ufs.ContextError(w.ctx, op, w.key); w.failed != nil {
			return n, w.failed
		}
		m, err := w.give(p[n:min(len(p), n+writePiece)])
		n += m
		w.size += int64(m)
		if err == nil {
			err = w.client.failure()
		}
		if err != nil {
			w.failed = w.fail(w.ctx, op, err)
			return n, w.failed
		}
	}
	return len(p), nil
}

// give hands p to the library. The NameNode refuses a further block as long as it has
// not heard from the DataNodes that they stored the last but one, which on a busy
// machine takes a while: it is asked again then.
func (w *writer) give(p []byte) (n int, err error) {
	wait := w.patience()
	for {
		before := *w.file
		m, err := w.file.Write(p[n:])
		n += m
		if !isException(err, "NotReplicatedYetException") {
			return n, err
		}
		*w.file = before // with the full block, which the next one is to follow, and which it forgets
		if again, werr := wait(w.ctx); !again {
			return n, cmp.Or(werr, err)
		}
	}
}

// patience returns what waits, a little longer each time, before the NameNode is
// asked again, or not: its error is that of an ended context, and in the end nil.
func (w *writer) patience() func(ctx context.Context) (again bool, err error) {
	clock := w.fs.cfg.clock
	next, deadline := firstWait, clock.Now().Add(w.fs.cfg.requestTimeout)
	return func(ctx context.Context) (bool, error) {
		if clock.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-clock.After(next):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		next = min(2*next, lastWait)
		return true, nil
	}
}

func (w *writer) over(op string) error {
	return ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended")
}

// fail turns the error of a call about the temporary file into that of the
// contract.
func (w *writer) fail(ctx context.Context, op string, err error) error {
	err = fail(ctx, op, w.key, w.client, err)
	if freshet.IsKind(err, freshet.KindNotExist) { // the temporary file, not the key
		return ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended: its temporary file is gone")
	}
	return err
}

// Seal implements ufs.Writer.
func (w *writer) Seal(ctx context.Context) (fingerprint.Fingerprint, error) {
	const op = "seal"
	if err := w.ready(ctx, op); err != nil {
		return fingerprint.Fingerprint{}, err
	}
	if err := w.seal(ctx, op); err != nil {
		return fingerprint.Fingerprint{}, err
	}
	s, err := w.fs.statPath(ctx, op, w.key, w.temp)
	if err != nil {
		return fingerprint.Fingerprint{}, w.fail(ctx, op, err)
	}
	w.found = s
	return status(w.key, s).Fingerprint, nil
}

// ready returns why the upload can't be sealed or committed.
func (w *writer) ready(ctx context.Context, op string) error {
	if w.ended {
		return w.over(op)
	}
	if err := ufs.ContextError(ctx, op, w.key); err != nil {
		return err
	}
	if w.failed != nil {
		return freshet.Wrap(op, freshet.Path(w.key), w.failed)
	}
	if w.opts.Size >= 0 && w.opts.Size != w.size {
		return ufs.Errorf(freshet.KindInvalid, op, w.key, "%d bytes written, %d announced", w.size, w.opts.Size)
	}
	return nil
}

// Commit implements ufs.Writer.
func (w *writer) Commit(ctx context.Context) (ufs.Status, error) {
	const op = "commit"
	if err := w.ready(ctx, op); err != nil {
		return ufs.Status{}, err
	}
	if err := w.seal(ctx, op); err != nil {
		return ufs.Status{}, err
	}
	st, id, err := w.dress(ctx, op)
	if err != nil {
		return ufs.Status{}, err
	}
	if err := w.publish(ctx, op, id); err != nil {
		return ufs.Status{}, err
	}
	w.ended = true
	return st, nil
}

// seal completes the temporary file. Its blocks are with the DataNodes when the
// NameNode says so; until it has heard of the last one, it asks to try again.
func (w *writer) seal(ctx context.Context, op string) error {
	if w.sealed {
		return nil
	}
	stop := context.AfterFunc(ctx, w.client.kill)
	defer stop()
	wait, full := w.patience(), *w.file
	err := w.file.Close()
	for bare := *w.file; err != nil; err = w.closeAgain(full, bare) {
		if !lib.IsErrReplicating(err) {
			return w.fail(ctx, op, err)
		}
		switch again, err := wait(ctx); {
		case err != nil:
			return ufs.ContextError(ctx, op, w.key)
		case !again:
			return ufs.Errorf(freshet.KindUnavailable, op, w.key, "the DataNodes have not stored the last block in time; try again")
		}
	}
	w.sealed = true
	w.letGo()
	return nil
}

// closeAgain closes the file, which the NameNode refused before: full is how the
// library had it then, bare what it left of it. The NameNode takes note of the last
// block only when it knows that the one before is stored, and will not be told of it
// again after that; the library tells it in its first attempt.
func (w *writer) closeAgain(full, bare lib.FileWriter) error {
	*w.file = full
	err := w.file.Close()
	if isRemote(err) {
		*w.file = bare
		err = w.file.Close()
	}
	return err
}

// letGo gives the connection back.
func (w *writer) letGo() {
	if w.client != nil {
		w.stop()
		w.fs.pool.put(w.client, true)
		w.client, w.file = nil, nil
	}
}

// dress checks the complete temporary file, gives it the mode that it is to have,
// and says what it is: a rename changes nothing of that but the name.
func (w *writer) dress(ctx context.Context, op string) (ufs.Status, uint64, error) {
	s, err := w.found, error(nil)
	if s == nil {
		s, err = w.fs.statPath(ctx, op, w.key, w.temp)
	}
	if err != nil {
		return ufs.Status{}, 0, w.fail(ctx, op, err)
	}
	st := status(w.key, s)
	if st.Length != w.size {
		return st, 0, ufs.Errorf(freshet.KindUnavailable, op, w.key, "HDFS has %d of %d bytes", st.Length, w.size)
	}
	changed, err := w.attributes(ctx, op, st, hasACL(s))
	if err != nil {
		return st, 0, w.fail(ctx, op, err)
	}
	if !changed {
		return st, s.GetFileId(), nil
	}
	if s, err = w.fs.statPath(ctx, op, w.key, w.temp); err != nil {
		return st, 0, w.fail(ctx, op, err)
	}
	return status(w.key, s), s.GetFileId(), nil
}

// attributes gives the temporary file, which is as now says, the mode that it is to
// have, and reports whether anything changed. If that is the mode of the file that
// it replaces, it gets its owner, its group and its access control list too. Who may
// not give it the group gives the group no right that others do not have.
func (w *writer) attributes(ctx context.Context, op string, now ufs.Status, extended bool) (changed bool, err error) {
	mode := w.opts.Mode & permBits
	if mode == 0 {
		s, err := w.fs.statPath(ctx, op, w.key, w.fs.path(w.key))
		if err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
			return false, err
		}
		if err == nil {
			if old := status(w.key, s); !old.IsDir() { // a directory is refused by the rename
				return w.asBefore(ctx, op, old, hasACL(s), now, extended)
			}
		}
		mode = defaultFileMode
	}
	attr := heirs(w.opts.Owner, w.opts.Group)
	if mode != now.Mode {
		attr.Mode = &mode
	}
	if attr == (ufs.Attr{}) {
		return false, nil
	}
	return true, w.fs.setAttr(ctx, op, w.key, w.temp, attr)
}

// asBefore gives the temporary file what old has of owner, group, mode and access
// control list; each of the two may have a list that says more than its mode.
func (w *writer) asBefore(ctx context.Context, op string, old ufs.Status, listed bool, now ufs.Status, extended bool) (changed bool, err error) {
	mode, same := old.Mode&0o777, true
	if changed = old.Owner != now.Owner || old.Group != now.Group; changed {
		same = w.inherit(ctx, op, old, now)
	}
	if listed {
		return true, w.fs.copyACL(ctx, op, w.key, w.temp, same)
	}
	if extended { // by the directory that it lies in
		if err := w.fs.removeACL(ctx, op, w.key, w.temp); err != nil {
			return false, err
		}
	}
	if !same {
		mode = mode&^0o070 | mode&(mode<<3)&0o070
	}
	if mode == now.Mode && !extended {
		return changed, nil
	}
	return true, w.fs.setAttr(ctx, op, w.key, w.temp, ufs.Attr{Mode: &mode})
}

// inherit gives the temporary file the owner and the group of old as far as HDFS
// lets it, and reports whether it has the group.
func (w *writer) inherit(ctx context.Context, op string, old, now ufs.Status) bool {
	if w.fs.setAttr(ctx, op, w.key, w.temp, ufs.Attr{Owner: &old.Owner, Group: &old.Group}) == nil {
		return true
	}
	return old.Group == now.Group || w.fs.setAttr(ctx, op, w.key, w.temp, ufs.Attr{Group: &old.Group}) == nil
}

// publish gives the temporary file, inode id, its name.
func (w *writer) publish(ctx context.Context, op string, id uint64) error {
	f := w.fs
	if w.opts.IfMatch.Known() {
		f.replace.Lock()
		defer f.replace.Unlock()
		st, _, found, err := f.find(ctx, op, w.key)
		if err != nil {
			return err
		}
		if !found || !st.Fingerprint.SameContent(w.opts.IfMatch) {
			return ufs.Errorf(freshet.KindStale, op, w.key, "the storage holds another version")
		}
	}
	if w.dir != ufs.ParentKey(w.key) {
		if err := f.makeParents(ctx, op, w.key, w.opts.Owner, w.opts.Group); err != nil {
			return err
		}
	}
	lost := false
	err := f.call(ctx, op, w.key, idempotent, func(c *client, second bool) error {
		lost = second
		return c.rename(w.temp, f.path(w.key), !w.opts.IfAbsent)
	})
	if err == nil {
		return nil
	}
	if freshet.IsKind(err, freshet.KindDeadline) || !freshet.IsKind(err, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict) && !isRemote(err) {
		return err
	}
	return w.explain(ctx, op, id, lost, err)
}

func isRemote(err error) bool { _, ok := remote(err); return ok }

// explain looks at what is at the key after HDFS refused the rename. If an earlier
// answer was lost, the rename may be done.
func (w *writer) explain(ctx context.Context, op string, id uint64, lost bool, err error) error {
	st, now, found, ferr := w.fs.find(ctx, op, w.key)
	switch {
	case ferr != nil:
		return err
	case lost && found && now == id:
		return nil
	case found && st.IsDir():
		return ufs.Errorf(freshet.KindConflict, op, w.key, "is a directory")
	case found && w.opts.IfAbsent && freshet.IsKind(err, freshet.KindExist):
		return ufs.Errorf(freshet.KindExist, op, w.key, "exists")
	case lost && freshet.IsKind(err, freshet.KindNotExist):
		return ufs.Errorf(freshet.KindDeadline, op, w.key, "not known whether it was written: the connection broke, and somebody wrote or removed it since")
	case freshet.IsKind(err, freshet.KindNotExist):
		return ufs.Errorf(freshet.KindConflict, op, w.key, "the upload has ended: its temporary file is gone")
	}
	return err
}

// Abort implements ufs.Writer.
func (w *writer) Abort(ctx context.Context) error {
	if w.ended {
		return nil
	}
	w.ended = true
	if !w.sealed {
		w.client.kill()
		_ = w.file.Close() // fails, and ends the goroutines of the library
		w.letGo()
	}
	_, err := w.fs.removeTemp(ctx, w.key, w.temp)
	return err
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
		found, err := f.abortIn(ctx, key, dir, ufs.UploadPrefix(key, id))
		ended = ended || found
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// abortIn removes the temporary files in dir whose names start with prefix.
func (f *FS) abortIn(ctx context.Context, key, dir, prefix string) (ended bool, err error) {
	w := walk{ctx: ctx, fs: f}
	for after := prefix; ; { // a name that starts with the prefix goes after it
		page, left, err := w.page(dir, after, false)
		if err != nil {
			return ended, err
		}
		for _, s := range page {
			name := string(s.GetPath())
			if !strings.HasPrefix(name, prefix) {
				return ended, nil
			}
			found, err := f.removeTemp(ctx, key, f.path(ufs.JoinKey(dir, name)))
			if err != nil {
				return ended, err
			}
			ended, after = ended || found, name
		}
		if left == 0 || len(page) == 0 {
			return ended, nil
		}
	}
}
