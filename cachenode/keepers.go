package cachenode

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/fingerprint"
)

const (
	opKeep = "keep block"
	// keepWorkers is how many files the node copies at a time because the leader wants
	// another durable copy of them.
	keepWorkers = 2
	// keepTries is how often a block is begun that comes in another way meanwhile.
	keepTries = 3
	// keepAgain is after how long an order that failed is tried again, if the leader
	// still wants it.
	keepAgain = 5 * time.Second
)

// KeepBlock takes a durable copy of a block of a file that is in no storage, from the
// first of the block's nodes that gives it, and keeps it until the leader says otherwise.
// When it returns nil, the block is on a disk of this node.
//
// KindUnsupported: the node has memory alone. KindExhausted: there is no room.
// KindUnavailable: the node stops or is drained, or no node gave the block. KindConflict:
// the request is of another cluster or epoch, or for another node, or run of this one.
func (n *Node) KeepBlock(ctx context.Context, q freshet.BlockKeep) error {
	if err := n.mayKeep(q); err != nil {
		return err
	}
	fp := fingerprint.Unpersisted(uint64(q.Block.ID.File))
	var err error
	for range keepTries {
		err = n.deps.Blocks.Settle(q.Block.ID, tier.Want{Cluster: q.Cluster, Epoch: q.Epoch, Fingerprint: fp, Length: q.Block.Length})
		if !freshet.IsKind(err, freshet.KindNotExist) {
			break
		}
		if err = n.takeBlock(ctx, q, tier.Meta{Cluster: q.Cluster, Epoch: q.Epoch, Fingerprint: fp}); !freshet.IsKind(err, freshet.KindExist) {
			break
		}
	}
	return freshet.Wrap(opKeep, "", err)
}

func (n *Node) mayKeep(q freshet.BlockKeep) error {
	cluster, epoch, joined := n.identity()
	n.mu.Lock()
	running := n.running
	n.mu.Unlock()
	switch {
	case !n.deps.Blocks.Durable():
		return freshet.Errorf(freshet.KindUnsupported, opKeep, "", "this node has memory alone, which keeps nothing durably")
	case n.deps.Remote == nil:
		return freshet.Errorf(freshet.KindUnsupported, opKeep, "", "this node does not read from others")
	case !running || !joined:
		return freshet.Errorf(freshet.KindUnavailable, opKeep, "", "the node is stopping, or not registered with a coordinator yet")
	case n.draining.Load():
		return freshet.Errorf(freshet.KindUnavailable, opKeep, "", "the node is being drained")
	case q.Node != n.opts.Node.ID || q.Incarnation != n.deps.Identity.Incarnation():
		return freshet.Errorf(freshet.KindConflict, opKeep, "", "the node was restarted or replaced meanwhile")
	case q.Cluster != cluster || q.Epoch < epoch:
		return freshet.Errorf(freshet.KindConflict, opKeep, "", "the cluster was restored or replaced meanwhile")
	case q.Epoch > epoch:
		return freshet.Errorf(freshet.KindUnavailable, opKeep, "", "the node has not heard of epoch %d of the cluster yet", q.Epoch)
	}
	return nil
}

// takeBlock copies the block from a node that holds it.
func (n *Node) takeBlock(ctx context.Context, q freshet.BlockKeep, meta tier.Meta) error {
	err := freshet.Errorf(freshet.KindUnavailable, opKeep, "", "no other node holds the block")
	for _, from := range q.Block.Nodes {
		if from.ID == n.opts.Node.ID {
			continue
		}
		if err = n.takeFrom(ctx, from, q, meta); err == nil || freshet.IsKind(err, freshet.KindExist, freshet.KindExhausted) {
			return err
		}
	}
	return err
}

func (n *Node) takeFrom(ctx context.Context, from freshet.Node, q freshet.BlockKeep, meta tier.Meta) error {
	w, err := n.deps.Blocks.CreateKept(q.Block.ID, q.Block.Length)
	if err != nil {
		return err
	}
	defer w.Close()
	body, err := n.deps.Remote.ReadBlock(ctx, from, freshet.BlockRead{
		Block: q.Block, Source: freshet.Source{Fingerprint: meta.Fingerprint}, Length: q.Block.Length, Type: freshet.ReadNoCache, Cached: true,
	})
	if err != nil {
		return unavailable(from, err)
	}
	defer func() { _ = body.Close() }() //nolint:errcheck // only read from
	got, err := io.Copy(w, body)
	if err == nil && got != q.Block.Length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return unavailable(from, err)
	}
	return w.Commit(meta)
}

// unavailable is the error of another node, of which this one's caller need not know
// more than that the block did not come.
func unavailable(from freshet.Node, err error) error {
	if freshet.IsKind(err, freshet.KindExhausted) {
		return err // of this node's own tier, or of a node that has too much to do
	}
	return freshet.Errorf(freshet.KindUnavailable, opKeep, "", "the block did not come from node %s: %w", from.Name, err)
}

// keeps are the leader's orders to keep durable copies of files that are in no storage.
// The leader names an order again with each answer until the node has said that it keeps
// the file, or gives it up.
type keeps struct {
	mu    sync.Mutex
	begun map[freshet.FileID]keeping // of those that are named
	queue []freshet.KeepOrder        // of those that are named: the others
	wake  chan struct{}
}

// keeping is what became of an order. Neither: it is being carried out.
type keeping struct {
	kept, failed bool
	at           time.Duration // it failed
}

// take makes the orders of an answer, at now, those that count.
func (k *keeps) take(all []freshet.KeepOrder, now time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(all)+len(k.begun)+len(k.queue) == 0 {
		return
	}
	begun := map[freshet.FileID]keeping{}
	k.queue = k.queue[:0]
	for _, o := range all {
		if was, ok := k.begun[o.File]; ok && (!was.failed || now-was.at < keepAgain) {
			begun[o.File] = was
		} else {
			k.queue = append(k.queue, o)
		}
	}
	k.begun = begun
	for range min(len(k.queue), keepWorkers) {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

func (k *keeps) next() (freshet.KeepOrder, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		return freshet.KeepOrder{}, false
	}
	o := k.queue[0]
	k.queue = k.queue[1:]
	k.begun[o.File] = keeping{}
	return o, true
}

// ended notes what became of an order, if the leader still wants to know.
func (k *keeps) ended(id freshet.FileID, what keeping) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.begun[id]; ok {
		k.begun[id] = what
	}
}

// report returns the files of the orders that are kept.
func (k *keeps) report() []freshet.FileID {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []freshet.FileID
	for id, what := range k.begun {
		if what.kept {
			all = append(all, id)
		}
	}
	return all
}

// keepFiles carries out orders until ctx ends.
func (n *Node) keepFiles(ctx context.Context) error {
	var wg sync.WaitGroup
	for range keepWorkers {
		wg.Go(func() {
			for {
				select {
				case <-n.keeps.wake:
				case <-ctx.Done():
					return
				}
				for ctx.Err() == nil {
					o, ok := n.keeps.next()
					if !ok {
						break
					}
					n.keepFile(ctx, o)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func (n *Node) keepFile(ctx context.Context, o freshet.KeepOrder) {
	cluster, epoch, _ := n.identity()
	for at := int64(0); at < o.Length; at += o.BlockSize {
		b := freshet.Block{
			ID:     freshet.BlockID{File: o.File, Index: uint32(at / o.BlockSize)}, //nolint:gosec // blocks are numbered by 32 bits
			Offset: at, Length: min(o.BlockSize, o.Length-at), Nodes: o.Nodes,
		}
		one, cancel := context.WithTimeout(ctx, copyTimeout)
		err := n.KeepBlock(one, freshet.BlockKeep{Cluster: cluster, Epoch: epoch, Node: n.opts.Node.ID, Incarnation: n.deps.Identity.Incarnation(), Block: b})
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				n.deps.Log.Warn("a copy of a file that is not in the storage could not be made", "file_id", uint64(o.File), "index", b.ID.Index, "error", err)
			}
			n.keeps.ended(o.File, keeping{failed: true, at: n.deps.Clock.Elapsed()})
			return
		}
	}
	n.deps.Log.Info("a copy of a file that is not in the storage is kept", "file_id", uint64(o.File), "bytes", o.Length)
	n.keeps.ended(o.File, keeping{kept: true})
	n.heartbeatNow()
}
