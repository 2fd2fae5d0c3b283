package cachenode

import (
	"context"
	"sync"

	"github.com/freshet-io/freshet"
)

// copyWorkers is how many blocks the node fetches at a time because the leader wants
// more copies of them.
const copyWorkers = 4

// copies are the leader's orders to fetch blocks that other nodes hold. The leader
// names an order again with each answer until the block is here, or it gives it up:
// an order that failed is not tried again as long as it is named.
type copies struct {
	mu     sync.Mutex
	orders map[freshet.BlockID]freshet.BlockCopy
	begun  map[freshet.BlockID]struct{} // of orders: those that are being carried out, or were
	queue  []freshet.BlockID            // of orders: the others
	wake   chan struct{}
}

// take makes all the orders of an answer those that count.
func (c *copies) take(all []freshet.BlockCopy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(all)+len(c.orders) == 0 {
		return
	}
	orders := make(map[freshet.BlockID]freshet.BlockCopy, len(all))
	begun := map[freshet.BlockID]struct{}{}
	c.queue = c.queue[:0]
	for _, o := range all {
		id := o.Block.ID
		orders[id] = o
		if _, ok := c.begun[id]; ok {
			begun[id] = struct{}{}
		} else {
			c.queue = append(c.queue, id)
		}
	}
	c.orders, c.begun = orders, begun
	for range min(len(c.queue), copyWorkers) {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// next returns an order to carry out.
func (c *copies) next() (freshet.BlockCopy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return freshet.BlockCopy{}, false
	}
	id := c.queue[0]
	c.queue = c.queue[1:]
	c.begun[id] = struct{}{}
	return c.orders[id], true
}

// later takes back that an order was begun; the leader's next answer begins it again.
func (c *copies) later(id freshet.BlockID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.begun, id)
}

// copyBlocks carries out orders until ctx ends.
func (n *Node) copyBlocks(ctx context.Context) error {
	var wg sync.WaitGroup
	for range copyWorkers {
		wg.Go(func() {
			for {
				select {
				case <-n.copies.wake:
				case <-ctx.Done():
					return
				}
				for ctx.Err() == nil {
					o, ok := n.copies.next()
					if !ok {
						break
					}
					n.copyBlock(ctx, o)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// copyBlock fetches one block. Reads come first: while many run, it waits.
func (n *Node) copyBlock(ctx context.Context, o freshet.BlockCopy) {
	if _, here := n.deps.Blocks.Stat(o.Block.ID); here {
		return
	}
	err := n.filler.Fetch(ctx, freshet.BlockRead{Block: o.Block, Source: o.Source})
	switch {
	case err == nil:
		n.metrics.copies.WithLabelValues("copied").Inc()
	case freshet.IsKind(err, freshet.KindExhausted):
		n.copies.later(o.Block.ID)
	case ctx.Err() == nil:
		n.metrics.copies.WithLabelValues("failed").Inc()
		n.deps.Log.Debug("a block could not be copied from another node", "file_id", uint64(o.Block.ID.File), "index", o.Block.ID.Index, "error", err)
	}
}
