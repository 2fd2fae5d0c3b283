package cachenode

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// persistWorkers is how many files the node writes to the storage at a time
	// because the leader wants it.
	persistWorkers = 8
	opPersist      = "persist"
	persistPiece   = 1 << 20
)

// persists are the leader's orders to write files to the storage. Each is named in
// every answer until the node has reported it.
type persists struct {
	mu    sync.Mutex
	begun map[freshet.OpID]struct{} // those that are being carried out
	queue []freshet.PersistOrder    // the others of the last answer
	wake  chan struct{}
}

// take makes the orders of an answer those that wait. known reports whether the node
// runs an operation already, or has ended it.
func (p *persists) take(all []freshet.PersistOrder, known func(freshet.OpID) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = p.queue[:0]
	for _, o := range all {
		if _, ok := p.begun[o.Op]; !ok && !known(o.Op) {
			p.queue = append(p.queue, o)
		}
	}
	for range min(len(p.queue), persistWorkers) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

func (p *persists) next() (freshet.PersistOrder, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return freshet.PersistOrder{}, false
	}
	o := p.queue[0]
	p.queue = p.queue[1:]
	if p.begun == nil {
		p.begun = map[freshet.OpID]struct{}{}
	}
	p.begun[o.Op] = struct{}{}
	return o, true
}

func (p *persists) ended(op freshet.OpID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.begun, op)
}

// persistFiles carries out orders until ctx ends.
func (n *Node) persistFiles(ctx context.Context) error {
	var wg sync.WaitGroup
	for range persistWorkers {
		wg.Go(func() {
			for {
				select {
				case <-n.persists.wake:
				case <-ctx.Done():
					return
				}
				for ctx.Err() == nil {
					o, ok := n.persists.next()
					if !ok {
						break
					}
					n.persist(ctx, o)
					n.persists.ended(o.Op)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// persist writes one file to the storage, with the permit that every upload needs.
// What became of it the next heartbeat tells, if the leader is not told at once.
func (n *Node) persist(ctx context.Context, o freshet.PersistOrder) {
	log := n.deps.Log.With("op", o.Op.String(), "file_id", uint64(o.File))
	u, err := n.begin(ctx, freshet.Ticket{
		Op: o.Op, File: o.File, Path: o.Path, Node: n.opts.Node, Write: freshet.Through, Target: o.Target, BlockSize: o.BlockSize, Owner: o.Owner, Group: o.Group,
	})
	if err != nil {
		log.Debug("a file could not be persisted now", "error", err)
		return
	}
	defer u.end(nil)
	defer context.AfterFunc(ctx, func() { // the node stops; what has a permit goes on for a while
		n.update(func() { n.cancel(u, freshet.Errorf(freshet.KindUnavailable, opPersist, "", "the node stops")) })
	})()
	err = n.persistUpload(ctx, u, o)
	result := freshet.KindOf(err).String()
	if err == nil {
		result = "ok"
		log.Debug("a file was persisted", "bytes", o.Length)
	} else {
		log.Warn("a file could not be persisted", "error", err)
	}
	n.metrics.persisted.WithLabelValues(result).Inc()
	n.heartbeatNow()
}

func (n *Node) persistUpload(ctx context.Context, u *upload, o freshet.PersistOrder) error {
	fs, release, err := n.deps.Mounts.Get(o.Target.Mount)
	if err != nil {
		return u.failPersist(mountError(err))
	}
	defer release()
	u.writer, err = fs.Create(u.ctx, o.Target.Key, ufs.CreateOptions{
		Op: o.Op, Size: o.Length, Owner: o.Owner, Group: o.Group, Mode: o.Mode, IfAbsent: !o.Beneath.Known(), IfMatch: o.Beneath,
	})
	if err == nil {
		err = n.copyKept(u.ctx, o, u.writer)
	}
	if err == nil {
		err = u.seal()
	}
	if err == nil {
		err = u.permit()
	}
	if err != nil {
		return n.persistRefused(ctx, fs, u, o, u.causeOf(err))
	}
	n.opts.Hook("before-persist-commit")
	commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.opts.CommitTimeout)
	defer cancel()
	defer context.AfterFunc(n.kill, cancel)()
	st, err := u.writer.Commit(commit)
	switch {
	case err == nil:
		return n.persisted(ctx, u, st)
	case definite(err) || otherVersion(err):
		return n.persistRefused(ctx, fs, u, o, err)
	}
	n.finish(u, freshet.FinishedOp{Uncertain: true})
	_ = u.abortWriter() //nolint:errcheck // the leader finds out what is left and ends it
	return err
}

// persisted tells the leader that the file is in the storage.
func (n *Node) persisted(ctx context.Context, u *upload, st ufs.Status) error {
	n.opts.Hook("after-persist-commit")
	w := freshet.Written{
		Length: st.Length, ModTime: st.ModTime, Fingerprint: st.Fingerprint, Owner: st.Owner, Group: st.Group, Mode: st.Mode,
	}
	n.finish(u, freshet.FinishedOp{Written: &w})
	_, err := n.complete(ctx, u.ticket.Op, w)
	return err
}

// otherVersion reports whether the storage refused to replace what it holds.
func otherVersion(err error) bool { return freshet.IsKind(err, freshet.KindExist, freshet.KindStale) }

// persistRefused ends an upload that had no effect. If the storage holds another
// version than the one that may be replaced, that may be what an earlier attempt left,
// whose answer was lost: what it holds is compared byte by byte.
func (n *Node) persistRefused(ctx context.Context, fs ufs.FS, u *upload, o freshet.PersistOrder, why error) error {
	if !otherVersion(why) {
		return u.failPersist(why)
	}
	st, err := n.sameBytes(u.ctx, fs, o)
	if err != nil {
		return u.failPersist(why)
	}
	if u.writer != nil {
		_ = u.abortWriter() //nolint:errcheck // what could not be cleaned up is a temporary file
	}
	return n.persisted(ctx, u, st)
}

// failPersist ends an upload that had no effect and says why to the leader.
func (u *upload) failPersist(why error) error {
	n := u.node
	if u.writer != nil && u.abortWriter() != nil {
		n.leave(u)
	}
	n.finish(u, freshet.FinishedOp{Failure: reasonOf(why), Conflict: otherVersion(why)})
	return why
}

// eachKept calls fn for the file's bytes, piece by piece, verified.
func (n *Node) eachKept(ctx context.Context, o freshet.PersistOrder, fn func(p []byte) error) error {
	cluster, epoch, _ := n.identity()
	buf := make([]byte, min(persistPiece, max(o.Length, 1)))
	for at := int64(0); at < o.Length; at += o.BlockSize {
		id := freshet.BlockID{File: o.File, Index: uint32(at / o.BlockSize)} //nolint:gosec // blocks are numbered by 32 bits
		length := min(o.BlockSize, o.Length-at)
		r, err := n.deps.Blocks.Open(id, tier.Want{Cluster: cluster, Epoch: epoch, Fingerprint: fingerprint.Unpersisted(uint64(o.File)), Length: length})
		if err != nil {
			return freshet.Errorf(freshet.KindUnavailable, opPersist, "", "block %d of the file, which this node promised to keep, can't be read: %w", id.Index, err)
		}
		err = eachPiece(ctx, r, length, buf, fn)
		_ = r.Close() //nolint:errcheck // only read from
		if err != nil {
			return err
		}
	}
	return nil
}

func eachPiece(ctx context.Context, r io.ReaderAt, length int64, buf []byte, fn func(p []byte) error) error {
	for off := int64(0); off < length; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := buf[:min(int64(len(buf)), length-off)]
		if k, err := r.ReadAt(p, off); k < len(p) {
			return freshet.Errorf(freshet.KindUnavailable, opPersist, "", "a block that this node promised to keep can't be read: %w", err)
		}
		if err := fn(p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func (n *Node) copyKept(ctx context.Context, o freshet.PersistOrder, w io.Writer) error {
	return n.eachKept(ctx, o, func(p []byte) error {
		_, err := w.Write(p)
		return err
	})
}

var errOtherBytes = errors.New("the storage holds other bytes")

// sameBytes returns the status of the file in the storage if it holds the very bytes
// of the order.
func (n *Node) sameBytes(ctx context.Context, fs ufs.FS, o freshet.PersistOrder) (ufs.Status, error) {
	st, err := fs.Stat(ctx, o.Target.Key)
	if err != nil || st.IsDir() || st.Length != o.Length || !st.Fingerprint.Known() {
		return st, errors.Join(err, errOtherBytes)
	}
	if o.Length == 0 {
		return st, nil
	}
	rc, _, err := fs.Open(ctx, o.Target.Key, ufs.OpenOptions{Want: st.Fingerprint, Length: o.Length})
	if err != nil {
		return st, err
	}
	defer func() { _ = rc.Close() }() //nolint:errcheck // only read from
	have := make([]byte, persistPiece)
	err = n.eachKept(ctx, o, func(p []byte) error {
		if _, err := io.ReadFull(rc, have[:len(p)]); err != nil {
			return err
		}
		if string(have[:len(p)]) != string(p) {
			return errOtherBytes
		}
		return nil
	})
	return st, err
}
