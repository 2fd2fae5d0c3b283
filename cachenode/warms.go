package cachenode

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

const (
	// warmWorkers is how many blocks the node brings at a time because the leader wants
	// files warmed.
	warmWorkers = 16
	// A block for which there is no room among the fetches is tried again after
	// warmPause, for warmPatience.
	warmPause    = 100 * time.Millisecond
	warmPatience = 2 * time.Minute
	// warmNews is how many results are reported before the next heartbeat is due.
	warmNews = 64
)

// warms are the leader's orders to bring blocks, and what became of them. The leader
// names an order again until it has heard how it ended.
type warms struct {
	mu      sync.Mutex
	orders  map[freshet.BlockID]freshet.BlockCopy
	begun   map[freshet.BlockID]struct{} // of orders: those that are being carried out
	results map[freshet.BlockID]freshet.WarmedBlock
	queue   []freshet.BlockID // of orders: the others
	news    int               // results that no heartbeat has told yet
	wake    chan struct{}
}

// take makes all the orders of an answer those that count.
func (w *warms) take(all []freshet.BlockCopy) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(all)+len(w.orders) == 0 {
		return
	}
	orders := make(map[freshet.BlockID]freshet.BlockCopy, len(all))
	begun, results := map[freshet.BlockID]struct{}{}, map[freshet.BlockID]freshet.WarmedBlock{}
	w.queue = w.queue[:0]
	for _, o := range all {
		id := o.Block.ID
		orders[id] = o
		if r, ended := w.results[id]; ended {
			results[id] = r
		} else if _, runs := w.begun[id]; runs {
			begun[id] = struct{}{}
		} else {
			w.queue = append(w.queue, id)
		}
	}
	w.orders, w.begun, w.results = orders, begun, results
	for range min(len(w.queue), warmWorkers) {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// next returns an order to carry out.
func (w *warms) next() (freshet.BlockCopy, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return freshet.BlockCopy{}, false
	}
	id := w.queue[0]
	w.queue = w.queue[1:]
	w.begun[id] = struct{}{}
	return w.orders[id], true
}

// wanted reports whether the leader still names the order.
func (w *warms) wanted(id freshet.BlockID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.begun[id]
	return ok
}

// ended notes a result, if it is still wanted, and reports whether the leader should
// hear of it before the next heartbeat is due.
func (w *warms) ended(r freshet.WarmedBlock) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, runs := w.begun[r.Block]; !runs {
		return false
	}
	delete(w.begun, r.Block)
	w.results[r.Block] = r
	w.news++
	return w.news >= warmNews || (len(w.queue) == 0 && len(w.begun) == 0)
}

// report returns all results that the leader may not have heard of.
func (w *warms) report() []freshet.WarmedBlock {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.news = 0
	all := make([]freshet.WarmedBlock, 0, len(w.results))
	for _, r := range w.results {
		all = append(all, r)
	}
	return all
}

// warmBlocks carries out orders until ctx ends.
func (n *Node) warmBlocks(ctx context.Context) error {
	var wg sync.WaitGroup
	for range warmWorkers {
		wg.Go(func() {
			for {
				select {
				case <-n.warms.wake:
				case <-ctx.Done():
					return
				}
				for ctx.Err() == nil {
					o, ok := n.warms.next()
					if !ok {
						break
					}
					n.warmBlock(ctx, o)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// warmBlock brings one block. Reads come first: while many run, it waits.
func (n *Node) warmBlock(ctx context.Context, o freshet.BlockCopy) {
	id := o.Block.ID
	began := n.deps.Clock.Elapsed()
	_, here := n.deps.Blocks.Stat(id)
	for {
		err := n.filler.Fetch(ctx, freshet.BlockRead{Block: o.Block, Source: o.Source})
		if ctx.Err() != nil {
			return
		}
		if freshet.IsKind(err, freshet.KindExhausted) && n.deps.Clock.Elapsed()-began < warmPatience {
			select {
			case <-n.deps.Clock.After(warmPause):
			case <-ctx.Done():
			}
			if ctx.Err() != nil || !n.warms.wanted(id) {
				return
			}
			continue
		}
		r, result := freshet.WarmedBlock{Block: id, Fetched: !here}, "fetched"
		switch {
		case err != nil:
			r.Fetched, r.Kind, r.Error, result = false, freshet.KindOf(err), reasonOf(err), "failed"
		case here:
			result = "held"
		}
		n.metrics.warms.WithLabelValues(result).Inc()
		if n.warms.ended(r) {
			n.heartbeatNow()
		}
		return
	}
}
