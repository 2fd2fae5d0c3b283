package cachenode

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
)

// Peers are the other nodes, of which some keep copies of files that are in no storage.
type Peers interface {
	// KeepBlock has a node take a durable copy of a block from one that holds it.
	KeepBlock(ctx context.Context, node freshet.Node, q freshet.BlockKeep) error
}

// copyTimeout bounds what one node takes to copy one block.
const copyTimeout = 2 * time.Minute

// copier has other nodes keep copies of the blocks of an upload as they are written. Of
// each copy one goroutine is in charge, which goes on with another node when one fails. A
// nil copier makes no copies.
type copier struct {
	peers  Peers
	keep   freshet.BlockKeep // without the block
	from   freshet.Node
	room   time.Duration // how long nodes that are full are waited for
	clock  clock.Clock
	copies int
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed when any of the below changes
	spare   []freshet.Node
	kept    map[freshet.NodeID]int // blocks, by those that had no room for more
	blocks  []freshet.Block
	ended   bool // there are no more blocks
	holding []freshet.NodeID
	why     []string // nodes were given up
	err     error
}

// newCopier begins to make the copies that the upload's ticket asks for; nil if it asks
// for none.
func (n *Node) newCopier(u *upload) *copier {
	t := &u.ticket
	if t.DurableReplicas < 2 {
		return nil
	}
	c := &copier{
		peers: n.deps.Peers, keep: freshet.BlockKeep{Cluster: u.keep.meta.Cluster, Epoch: u.epoch}, from: n.opts.Node, room: n.opts.RoomTimeout, clock: n.deps.Clock,
		copies: t.DurableReplicas - 1, changed: make(chan struct{}), kept: map[freshet.NodeID]int{},
	}
	for _, at := range t.Keepers {
		if at.ID != n.opts.Node.ID && !slices.ContainsFunc(c.spare, func(o freshet.Node) bool { return o.ID == at.ID }) {
			c.spare = append(c.spare, at)
		}
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(u.ctx)
	for range c.copies {
		c.wg.Go(func() { c.run(ctx) })
	}
	return c
}

// add tells of a block that is written.
func (c *copier) add(b freshet.Block) {
	if c == nil {
		return
	}
	b.Nodes = []freshet.Node{c.from}
	c.update(func() { c.blocks = append(c.blocks, b) })
}

// failure returns why the copies can't be made, nil as long as they can.
func (c *copier) failure() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// wait returns the nodes that hold all blocks, after the last one was added.
func (c *copier) wait(ctx context.Context) ([]freshet.NodeID, error) {
	if c == nil {
		return nil, nil
	}
	c.update(func() { c.ended = true })
	c.wg.Wait()
	if err := c.failure(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return c.holding, nil
}

// stop ends what goes on.
func (c *copier) stop() {
	if c != nil {
		c.cancel()
		c.wg.Wait()
	}
}

func (c *copier) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.changed)
	c.changed = make(chan struct{})
}

// run makes one copy.
func (c *copier) run(ctx context.Context) {
	var full time.Duration // since when nobody has had room; 0: somebody has
	for ctx.Err() == nil && c.failure() == nil {
		node, from, ok := c.next()
		if !ok {
			c.fail()
			return
		}
		kept, err := c.copyTo(ctx, node, from)
		if err == nil {
			c.update(func() { c.holding = append(c.holding, node.ID) })
			return
		}
		if ctx.Err() != nil {
			return
		}
		if kept > from {
			full = 0
		}
		if !freshet.IsKind(err, freshet.KindExhausted) {
			c.giveUp(node, err)
			continue
		}
		if full == 0 {
			full = c.clock.Elapsed()
		}
		if c.clock.Elapsed()-full >= c.room {
			c.giveUp(node, err)
			continue
		}
		c.update(func() { c.spare, c.kept[node.ID] = append(c.spare, node), kept })
		select {
		case <-time.After(roomPause):
		case <-ctx.Done():
		}
	}
}

// next takes a node that has no copy yet, and says how many blocks it has.
func (c *copier) next() (node freshet.Node, kept int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spare) == 0 {
		return node, 0, false
	}
	node = c.spare[0]
	c.spare = c.spare[1:]
	return node, c.kept[node.ID], true
}

func (c *copier) giveUp(node freshet.Node, err error) {
	c.update(func() { c.why = append(c.why, node.Name+": "+err.Error()) })
}

func (c *copier) fail() {
	c.update(func() {
		if c.err == nil {
			c.err = freshet.Errorf(freshet.KindExhausted, opWrite, "",
				"the file could not be made durable on %d nodes, as durable_replicas asks for, and no further node can keep a copy; nothing was written: write it again when more nodes live, or ask for fewer replicas (%s)",
				c.copies+1, strings.Join(c.why, "; "))
		}
	})
}

// copyTo has a node keep all blocks from the kept-th on, and returns how many it has then.
func (c *copier) copyTo(ctx context.Context, node freshet.Node, kept int) (int, error) {
	for {
		b, ok := c.await(ctx, kept)
		if !ok {
			return kept, context.Cause(ctx)
		}
		q := c.keep
		q.Node, q.Incarnation, q.Block = node.ID, node.Incarnation, b
		err := c.ask(ctx, node, q)
		if freshet.IsKind(err, freshet.KindUnavailable) && ctx.Err() == nil { // a connection may have broken
			err = c.ask(ctx, node, q)
		}
		if err != nil {
			return kept, err
		}
		kept++
	}
}

func (c *copier) ask(ctx context.Context, node freshet.Node, q freshet.BlockKeep) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	return c.peers.KeepBlock(ctx, node, q)
}

// await returns the i-th block once it is written; false if there is none, or nobody
// wants copies any more.
func (c *copier) await(ctx context.Context, i int) (freshet.Block, bool) {
	for {
		c.mu.Lock()
		changed, failed, ended := c.changed, c.err != nil, c.ended
		var b freshet.Block
		have := i < len(c.blocks)
		if have {
			b = c.blocks[i]
		}
		c.mu.Unlock()
		switch {
		case failed:
			return b, false
		case have:
			return b, true
		case ended:
			return b, false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return b, false
		}
	}
}
