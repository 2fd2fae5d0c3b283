package cachenode

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/ufs"
)

// minHeartbeatTimeout bounds one heartbeat, however short the interval is.
const minHeartbeatTimeout = 3 * time.Second

// timePerBlock is what a leader may need for each block of a report: one look in its
// store, which may be on a disk.
const timePerBlock = 50 * time.Microsecond

// heartbeats sends one each interval, and one at once when there is something
// that can't wait, until ctx ends; then a last one.
func (n *Node) heartbeats(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed, refused := false, false
	// A node may start before its leader does: only who has been answered is lost.
	level := slog.LevelInfo
	for {
		select {
		case <-timer.C:
		case <-n.wake:
		case <-ctx.Done():
			n.lastHeartbeat()
			return nil
		}
		err := n.heartbeat(ctx)
		conflict := freshet.IsKind(err, freshet.KindConflict) // which does not pass by itself
		if conflict && !refused {
			n.deps.Log.Error("heartbeat failed: somebody has to look; the node serves reads and publishes nothing until then", "error", err)
		} else if err != nil && !failed {
			n.deps.Log.Log(ctx, level, "heartbeat failed; the node serves reads and publishes nothing until a leader answers", "error", err)
		} else if err == nil && failed {
			n.deps.Log.Info("heartbeat is answered again")
		}
		refused = conflict
		if failed = err != nil; !failed {
			level = slog.LevelWarn
		}
		timer.Reset(n.opts.Heartbeat)
	}
}

// lastHeartbeat tells the leader at once what became of the last uploads. If it
// fails, the leader finds out by itself.
func (n *Node) lastHeartbeat() {
	ctx, cancel := context.WithTimeout(context.Background(), n.opts.Heartbeat)
	defer cancel()
	if err := n.heartbeat(ctx); err != nil {
		n.deps.Log.Info("the last heartbeat failed", "error", err)
	}
}

func (n *Node) heartbeat(ctx context.Context) error {
	hb, took := n.report()
	within := max(3*n.opts.Heartbeat, minHeartbeatTimeout) + time.Duration(len(hb.Added))*timePerBlock
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	sent := n.deps.Clock.Elapsed() // the lease runs from here, not from the answer
	reply, err := n.deps.Coordinator.Heartbeat(ctx, hb)
	if err != nil {
		n.giveBack(took)
		return err
	}
	return n.apply(hb, reply, sent)
}

// maxDamaged bounds the damaged blocks of one report; more of them on one disk are
// no longer news.
const maxDamaged = 1000

// changes are what the next report tells of the blocks of the tier.
type changes struct {
	blocks  map[freshet.BlockID]struct{} // that came or went
	damaged map[freshet.BlockID]struct{} // that went because their bytes were wrong
}

func newChanges() changes {
	return changes{map[freshet.BlockID]struct{}{}, map[freshet.BlockID]struct{}{}}
}

func (c *changes) note(of tier.Change) {
	c.blocks[of.Block.ID] = struct{}{}
	if of.Reason == tier.ReasonCorrupt && len(c.damaged) < maxDamaged {
		c.damaged[of.Block.ID] = struct{}{}
	}
}

// report makes a heartbeat, and returns the changes that are in it.
func (n *Node) report() (freshet.Heartbeat, changes) {
	t := n.deps.Blocks
	hb := freshet.Heartbeat{
		Node: n.opts.Node, Incarnation: n.deps.Identity.Incarnation(), Rack: n.opts.Rack, Zone: n.opts.Zone,
		Capacity: t.Capacity(), Tier: t.Name(), TakesCopies: true,
		TakesWarms: true, Warmed: n.warms.report(), // before the changes are taken: they have what was brought
		Directories: directories(t), Hot: n.heat.take(),
		Kept: n.askKept(), Keeps: true, Durable: t.Durable(), Took: n.keeps.report(), // before the changes are taken, as above
	}
	n.mu.Lock()
	hb.Cluster = n.cluster
	hb.Term, hb.Full, hb.MountRevision, hb.PinRevision = n.term, n.needFull, n.revision, n.pins
	for op := range n.uploads {
		hb.Active = append(hb.Active, op)
	}
	hb.Finished = slices.AppendSeq(hb.Finished, maps.Values(n.finished))
	n.mu.Unlock()

	// The changes are taken before the blocks are looked at, so what changes
	// from here on is in the next report.
	took := n.takeDirty()
	hb.Damaged = slices.Collect(maps.Keys(took.damaged))
	hb.Used = t.Used()
	if hb.Full {
		hb.Added = t.List()
		return hb, took
	}
	for id := range took.blocks {
		if length, ok := t.Stat(id); ok {
			hb.Added = append(hb.Added, freshet.BlockReport{ID: id, Length: length})
		} else {
			hb.Removed = append(hb.Removed, id)
		}
	}
	return hb, took
}

func (n *Node) takeDirty() changes {
	n.dirtyMu.Lock()
	defer n.dirtyMu.Unlock()
	took := n.dirty
	n.dirty = newChanges()
	return took
}

// giveBack keeps changes for the next report, because this one may not have
// arrived.
func (n *Node) giveBack(took changes) {
	n.dirtyMu.Lock()
	defer n.dirtyMu.Unlock()
	maps.Copy(n.dirty.blocks, took.blocks)
	maps.Copy(n.dirty.damaged, took.damaged)
}

// apply does what the leader's answer says.
func (n *Node) apply(hb freshet.Heartbeat, reply freshet.HeartbeatReply, sent time.Duration) error {
	if err := n.checkReply(reply); err != nil {
		return err
	}
	n.join(reply)
	n.applyMounts(reply)
	n.deps.Blocks.Release(reply.Released...) // before they are freed
	n.deps.Blocks.Remove(reply.Free...)
	whole := hb.Full && !reply.NeedFull // else the answer is to a part of the blocks
	n.deps.Blocks.Pin(whole, reply.Pinned...)
	n.copies.take(reply.Copy)
	n.warms.take(reply.Warm)
	n.draining.Store(reply.Draining)
	n.persists.take(reply.Persist, n.knows)
	n.keeps.take(reply.Keep, n.deps.Clock.Elapsed())
	n.update(func() {
		if whole {
			n.pins = reply.PinRevision
		}
		newTerm := reply.Term != n.term
		n.needFull = reply.NeedFull || newTerm && !hb.Full
		n.term = reply.Term
		for _, op := range reply.Settled {
			delete(n.finished, op)
		}
		for _, op := range reply.Abort {
			n.cancel(n.uploads[op], freshet.Errorf(freshet.KindUnavailable, "write file", "", "the cluster has given the upload up: start again"))
		}
		n.answers++
		n.lease = sent + reply.Lease // last: what may be published was decided above
		if n.needFull && !hb.Full {  // a leader that is never satisfied is answered at the usual pace
			n.heartbeatNow()
		}
	})
	return nil
}

// knows reports whether the node runs an operation, or has ended it and the leader has
// not settled that.
func (n *Node) knows(op freshet.OpID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ended := n.finished[op]
	return ended || n.uploads[op] != nil
}

// checkReply refuses an answer from the cluster's past, and one of another cluster as long
// as the node keeps what only it has: that cluster knows nothing of it, and would have it
// dropped.
func (n *Node) checkReply(reply freshet.HeartbeatReply) error {
	n.mu.Lock()
	cluster, epoch, term := n.cluster, n.epoch, n.term
	n.mu.Unlock()
	if reply.Cluster == cluster {
		if reply.Epoch < epoch || reply.Epoch == epoch && reply.Term < term {
			return freshet.Errorf(freshet.KindStale, "heartbeat", "", "the answer is of epoch %d, term %d; the node has seen epoch %d, term %d", reply.Epoch, reply.Term, epoch, term)
		}
		return nil
	}
	if kept := len(n.deps.Blocks.Kept()); kept > 0 && cluster != (freshet.ClusterID{}) {
		return freshet.Errorf(freshet.KindConflict, "heartbeat", "",
			"the coordinators are of cluster %s, and this node keeps %d files of cluster %s that are not in the storage: have it join that one again and persist them, or give them up: stop it and remove its cache directories",
			reply.Cluster, kept, cluster)
	}
	return nil
}

// join takes up the cluster and its epoch. Blocks of another cluster mean
// nothing here, and uploads that an older epoch permitted are not of this
// history (C16).
func (n *Node) join(reply freshet.HeartbeatReply) {
	n.mu.Lock()
	old, oldEpoch, joined := n.cluster, n.epoch, n.joined
	n.mu.Unlock()
	if joined && reply.Cluster == old && reply.Epoch == oldEpoch {
		return
	}
	if reply.Cluster != old {
		if old != (freshet.ClusterID{}) {
			n.deps.Log.Warn("the node has joined another cluster; its blocks are dropped", "cluster_id", reply.Cluster.String(), "old_cluster_id", old.String())
			n.deps.Blocks.Clear()
		}
		if err := n.deps.Identity.SetCluster(reply.Cluster); err != nil {
			n.deps.Log.Error("the cluster of the node could not be kept", "error", err)
		}
	}
	n.update(func() {
		n.joined, n.cluster, n.epoch, n.term = true, reply.Cluster, reply.Epoch, 0
		n.lease = 0
		for _, u := range n.uploads {
			if u.epoch != reply.Epoch || reply.Cluster != old {
				n.cancel(u, freshet.Errorf(freshet.KindConflict, "write file", "", "the cluster was restored or replaced while the file was written: write it again"))
			}
		}
		if joined {
			clear(n.finished) // the new history has no intents for them
		}
	})
}

func (n *Node) applyMounts(reply freshet.HeartbeatReply) {
	n.mu.Lock()
	known := n.revision
	n.mu.Unlock()
	if reply.MountRevision == known {
		return
	}
	n.noteCaching(reply.Mounts)
	if err := n.deps.Mounts.Set(reply.Mounts); err != nil {
		// The revision stays, so the table is sent again and the rest is tried again.
		n.deps.Log.Error("not all mounts could be opened", "mount_revision", reply.MountRevision, "error", err)
		return
	}
	n.update(func() { n.revision = reply.MountRevision })
}

// noteCaching takes up what the mounts say of what is kept.
func (n *Node) noteCaching(mounts []freshet.Mount) {
	keeps := make(map[freshet.MountID]ufs.Caching, len(mounts))
	for _, m := range mounts {
		c, err := ufs.ParseCaching(m.Options, n.opts.Caching)
		if err != nil { // of a newer release
			n.deps.Log.Warn("options of a mount are not understood; the node's own settings apply", "mount_id", uint64(m.ID), "error", err)
		}
		keeps[m.ID] = c
	}
	n.update(func() { n.cachings = keeps })
}
