package cachenode

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
)

// roomPause is the time between two looks for room.
const roomPause = 50 * time.Millisecond

// keep takes an upload that goes to the node's own tiers alone. Each block is durable
// when it is full, if the tier is a disk, and leaves the node for nobody until the
// cluster says so.
type keep struct {
	blocks  *store.Store
	ticket  freshet.Ticket
	total   int64 // bytes of the file, < 0 if not known
	room    time.Duration
	meta    tier.Meta
	current *tier.Writer
	written int64
	done    []freshet.BlockID // committed
	copies  *copier           // nil: no other node keeps them too
}

// write takes the next bytes of the file.
func (k *keep) write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		if err := k.copies.failure(); err != nil {
			return err
		}
		if k.current == nil {
			if err := k.next(ctx); err != nil {
				return err
			}
		}
		w := k.current
		n := min(int64(len(p)), k.ticket.BlockSize-w.Written())
		if err := k.await(ctx, func() error { return w.Reserve(w.Written() + n) }); err != nil {
			return err
		}
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		k.written += n
		p = p[n:]
		if w.Written() == k.ticket.BlockSize {
			if err := k.commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// next begins a block, and waits for the room for it.
func (k *keep) next(ctx context.Context) error {
	length := int64(-1)
	if k.total >= 0 {
		length = min(k.ticket.BlockSize, k.total-k.written)
	}
	id := freshet.BlockID{File: k.ticket.File, Index: uint32(k.written / k.ticket.BlockSize)} //nolint:gosec // bounded by longest
	return k.await(ctx, func() (err error) {
		k.current, err = k.blocks.CreateKept(id, length)
		return err
	})
}

// await repeats fn until there is room, for a while: files get to the storage, and
// then their blocks may go.
func (k *keep) await(ctx context.Context, fn func() error) error {
	timer := time.NewTimer(k.room)
	defer timer.Stop()
	for {
		err := fn()
		if err == nil || !freshet.IsKind(err, freshet.KindExhausted) {
			return err
		}
		select {
		case <-time.After(roomPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return freshet.Errorf(freshet.KindExhausted, opWrite, "",
				"the cache of this node is full: %s of %s are blocks of files that are not in the storage yet, and the rest is in use or pinned; nothing was written: wait until files are persisted, see \"freshet persist status\", or write with cache_through or through: %w",
				freshet.FormatSize(k.blocks.KeptBytes()), freshet.FormatSize(k.blocks.Capacity()), err)
		}
	}
}

func (k *keep) commit() error {
	w := k.current
	id := freshet.BlockID{File: k.ticket.File, Index: uint32(len(k.done))} //nolint:gosec // as above
	err := w.Commit(k.meta)
	w.Close()
	k.current = nil
	if err == nil {
		k.done = append(k.done, id)
		k.copies.add(freshet.Block{ID: id, Offset: int64(id.Index) * k.ticket.BlockSize, Length: w.Written()})
	}
	return err
}

// finish ends the last block.
func (k *keep) finish() error {
	if k.current == nil {
		return nil
	}
	return k.commit()
}

// drop forgets the file.
func (k *keep) drop() {
	if k == nil {
		return
	}
	if k.current != nil {
		k.current.Close()
		k.current = nil
	}
	k.blocks.Drop(k.ticket.File, k.done...)
	k.done = nil
}

// writeKept takes a file whose bytes stay on this node at first.
func (n *Node) writeKept(ctx context.Context, u *upload, receive func() error) (freshet.Completed, error) {
	t := u.ticket
	cluster, _, _ := n.identity()
	u.keep.meta = tier.Meta{Cluster: cluster, Epoch: u.epoch, Fingerprint: fingerprint.Unpersisted(uint64(t.File))}
	u.keep.copies = n.newCopier(u)
	defer u.keep.copies.stop()
	err := receive()
	if err == nil {
		err = u.keep.finish()
	}
	var others []freshet.NodeID
	if err == nil {
		others, err = u.keep.copies.wait(u.ctx)
	}
	if err != nil {
		return freshet.Completed{}, u.abandon(u.causeOf(notTaken(err)))
	}
	n.opts.Hook("after-keep")
	over := false
	n.update(func() {
		over = u.ctx.Err() != nil || n.epoch != u.epoch
		u.committing = !over
	})
	if over {
		return freshet.Completed{}, u.abandon(u.causeOf(freshet.Errorf(freshet.KindConflict, opWrite, "", "the cluster was restored while the file was written: write it again")))
	}
	w := freshet.Written{
		Length: u.length, ModTime: n.deps.Clock.Now().UTC(), Fingerprint: u.keep.meta.Fingerprint, Owner: t.Owner, Group: t.Group, Mode: 0o644,
	}
	if len(others) > 0 {
		w.Nodes = append([]freshet.NodeID{n.opts.Node.ID}, others...)
	}
	n.finish(u, freshet.FinishedOp{Written: &w})
	done, err := n.complete(ctx, t.Op, w)
	if err != nil && !freshet.IsKind(err, freshet.KindDeadline) {
		n.giveUpKept(ctx, u)
	}
	if freshet.IsKind(err, freshet.KindNotExist) { // of the operation, not of the path
		err = freshet.Errorf(freshet.KindUnavailable, opWrite, "",
			"the cluster gave the write up, as it does when it has not heard of this node for some seconds; nothing was written: write it again: %w", err)
	}
	return done, err
}

// notTaken says what to do about a disk that can't take a file.
func notTaken(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EROFS) {
		return err
	}
	return freshet.Errorf(freshet.KindOf(err), opWrite, "",
		"this node's disk can't take the file; nothing was written: look at its directories in \"freshet cluster nodes\", or write with cache_through or through: %w", err)
}

// giveUpKept ends an upload that the leader refused to make visible. Its blocks are
// released, and freed, when the leader says that the version never will be.
func (n *Node) giveUpKept(ctx context.Context, u *upload) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if err := n.deps.Coordinator.Abort(ctx, u.ticket.Op, true); err == nil {
		n.settle(u.ticket.Op)
	}
}

// maxKeptAsked is of how many versions a heartbeat asks whether they must be kept.
const maxKeptAsked = 1000

// askKept returns versions to ask for: all in turn.
func (n *Node) askKept() []freshet.FileID {
	all := n.deps.Blocks.Kept()
	if len(all) <= maxKeptAsked {
		return all
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	from := n.keptFrom % len(all)
	n.keptFrom = from + maxKeptAsked
	asked := all[from:min(from+maxKeptAsked, len(all))]
	return append(slices.Clip(asked), all[:maxKeptAsked-len(asked)]...)
}
