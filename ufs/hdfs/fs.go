package hdfs

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// FS is one directory of an HDFS.
type FS struct {
	cfg     *config
	log     *slog.Logger
	pool    *pool
	calls   chan struct{} // a place for each call on its way
	replace sync.Mutex    // held over check and rename of a conditional commit

	segments sync.Pool // *[]byte, buffers of readers

	end     context.Context //nolint:containedctx // ends what was left to be done, at Close
	endNow  context.CancelFunc
	pending sync.WaitGroup
}

var _ ufs.FS = (*FS)(nil)

func newFS(cfg *config, log *slog.Logger) *FS {
	f := &FS{cfg: cfg, log: log, pool: newPool(cfg), calls: make(chan struct{}, cfg.poolSize)}
	f.end, f.endNow = context.WithCancel(context.Background()) //nolint:gosec // Close calls it
	return f
}

// Features of HDFS. IfMatch is checked right before the rename, which other
// programs may slip in between: ReplaceIf is false.
func (f *FS) Features() ufs.Features {
	return ufs.Features{
		Kind: kind, AtomicRename: true, RealDirectories: true, OwnerAndMode: true, CreateIfAbsent: true, AbortEndsEffects: true,
		ModTimeResolution: time.Millisecond, MaxOpLifetime: f.cfg.maxOpLifetime, ListPage: listPage, DirectoryListsSelf: true,
	}
}

// listPage is how much the NameNode gives at once unless it is configured
// otherwise; nobody can ask for less.
const listPage = 1000

// Close ends all that is under way.
func (f *FS) Close() error {
	f.endNow()
	f.pending.Wait()
	f.pool.close()
	if k := f.cfg.lib.KerberosClient; k != nil {
		k.Destroy()
	}
	return nil
}

// path is where key lies in HDFS.
func (f *FS) path(key string) string {
	if key == "" && f.cfg.root == "" {
		return "/"
	}
	if key == "" {
		return f.cfg.root
	}
	return f.cfg.root + "/" + key
}

// again says whether a call may be sent once more when its answer is lost.
type again bool

const (
	once       again = false // a second effect could undo what came between
	idempotent again = true
)

// call runs fn with a connection of its own. Where the connection breaks and mode
// allows it, or before anything was sent, it tries once more with a new one: the
// first call after a NameNode restarted always meets a dead connection.
func (f *FS) call(ctx context.Context, op, key string, mode again, fn func(c *client, second bool) error) error {
	select {
	case f.calls <- struct{}{}:
		defer func() { <-f.calls }()
	case <-ctx.Done():
		return ufs.ContextError(ctx, op, key)
	}
	sent := false
	for second := false; ; second = true {
		c, err := f.pool.get(ctx)
		if err == nil {
			maybe := sent
			sent = true
			err = c.run(ctx, func() error { return fn(c, maybe) })
			f.pool.put(c, answered(err))
		}
		if second || answered(err) || silent(err) || ctx.Err() != nil || (sent && mode == once) || isAny(err, errClosed, errLibrary) {
			return failure(ctx, op, key, c, err)
		}
		f.pool.flush()
	}
}

// silent reports whether err is that of a server that did not answer in time: to
// ask it again at once would only double the wait.
func silent(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func failure(ctx context.Context, op, key string, c *client, err error) error {
	if err == nil {
		return nil
	}
	return fail(ctx, op, key, c, err)
}

// background runs fn after its caller has gone, no longer than a call may take.
func (f *FS) background(fn func(ctx context.Context)) {
	if f.end.Err() != nil {
		return
	}
	f.pending.Go(func() {
		ctx, cancel := context.WithTimeout(f.end, f.cfg.requestTimeout)
		defer cancel()
		fn(ctx)
	})
}

func begin(ctx context.Context, op, key string) error {
	if err := ufs.CheckKey(op, key); err != nil {
		return err
	}
	if err := checkPath(op, key); err != nil {
		return err
	}
	return ufs.ContextError(ctx, op, key)
}

func beginWrite(ctx context.Context, op, key string) error {
	if err := ufs.CheckWrite(op, key); err != nil {
		return err
	}
	return begin(ctx, op, key)
}

// Types of entries, as the NameNode numbers them.
const (
	typeDirectory = 1
	typeSymlink   = 3
)

// permBits are the bits of a mode that HDFS keeps; above them it marks entries
// with access lists, encryption and erasure coding.
const permBits = 0o1777

// status describes what the NameNode says of key.
func status(key string, s *lib.FileStatus) ufs.Status {
	st := ufs.Status{
		Key: key, ModTime: time.UnixMilli(int64(s.GetModificationTime())),
		Owner: s.GetOwner(), Group: s.GetGroup(), Mode: s.GetPermission().GetPerm() & permBits,
	}
	switch s.GetFileType() {
	case typeDirectory:
		st.Type = freshet.TypeDirectory
	case typeSymlink:
		st.Special = "symbolic link"
	default:
		st.Length = int64(s.GetLength())
		st.Fingerprint = fingerprint.HDFS(s.GetFileId(), st.Length, st.ModTime, fingerprint.PosixMeta(st.Owner, st.Group, st.Mode))
	}
	return st
}

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	const op = "stat"
	if err := begin(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	st, _, err := f.stat(ctx, op, key)
	return st, err
}

// stat returns the status of key with the number of its inode.
func (f *FS) stat(ctx context.Context, op, key string) (ufs.Status, uint64, error) {
	if ufs.IsTemp(key) {
		return ufs.Status{}, 0, ufs.Errorf(freshet.KindNotExist, op, key, "does not exist")
	}
	s, err := f.statPath(ctx, op, key, f.path(key))
	if err != nil {
		return ufs.Status{}, 0, err
	}
	return status(key, s), s.GetFileId(), nil
}

// statPath asks about a path; key is for messages.
func (f *FS) statPath(ctx context.Context, op, key, path string) (*lib.FileStatus, error) {
	var s *lib.FileStatus
	err := f.call(ctx, op, key, idempotent, func(c *client, _ bool) (err error) {
		s, err = c.fileInfo(path)
		return err
	})
	switch {
	case isNotDir(err):
		return nil, absent(op, key)
	case err != nil:
		return nil, err
	case s == nil:
		return nil, absent(op, key)
	}
	return s, nil
}

func absent(op, key string) error {
	return ufs.Errorf(freshet.KindNotExist, op, key, "does not exist")
}

// find is stat where nothing at the key is an answer.
func (f *FS) find(ctx context.Context, op, key string) (st ufs.Status, id uint64, found bool, err error) {
	st, id, err = f.stat(ctx, op, key)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return st, 0, false, nil
	}
	return st, id, err == nil, err
}
