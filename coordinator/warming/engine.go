// Package warming owns how files come into the cache without a reader: it walks trees,
// sees which blocks of the versions that readers get are not cached, and has nodes
// bring them, so many at a time. Orders travel in the answers to the nodes' heartbeats
// and their outcome in the next ones.
//
// It decides nothing about freshness: what it orders is what a locate says, and blocks
// are named by file version, so that a file that changes meanwhile is located anew and
// never mixed. It keeps nothing over a change of the leader.
package warming

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/internal/clock"
)

// What bounds the orders that one node has at a time: their number, and their bytes
// unless there is one only.
const (
	maxOrders     = 256
	maxOrderBytes = 1 << 30
)

// sweepEvery is how often is looked whether a node that has orders still lives.
const sweepEvery = time.Second

// Deps are what an Engine works with; all are required but Clock.
type Deps struct {
	// Stat, List and Locate answer as readers are answered.
	Stat   func(ctx context.Context, p freshet.Path) (freshet.Info, error)
	List   func(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error)
	Locate func(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error)
	// Spread says where a block is and could go.
	Spread func(b freshet.BlockID, length int64, place freshet.CachePlace) placement.Spread
	// Held returns how many of the first so many blocks of a file a place has.
	Held func(file freshet.FileID, blocks int64, place freshet.CachePlace) int64
	// Live reports whether a node lives.
	Live  func(id freshet.NodeID) bool
	Clock clock.Clock // nil is the machine's
}

// Engine has nodes bring blocks. It is safe for concurrent use.
type Engine struct {
	deps Deps

	mu      sync.Mutex
	lanes   map[freshet.NodeID]*lane
	changed chan struct{} // closed when an order has ended
}

// lane is what one node is to bring.
type lane struct {
	orders map[freshet.BlockID]*order
	bytes  int64
}

type order struct {
	copy    freshet.BlockCopy
	waiting int // jobs
	done    chan struct{}
	result  freshet.WarmedBlock // once done is closed
}

// New returns an Engine. It starts nothing.
func New(deps Deps) *Engine {
	if deps.Clock == nil {
		deps.Clock = clock.Real{}
	}
	return &Engine{deps: deps, lanes: map[freshet.NodeID]*lane{}, changed: make(chan struct{})}
}

// Run gives up the orders of nodes that died, until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	for {
		select {
		case <-e.deps.Clock.After(sweepEvery):
			e.sweep()
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *Engine) sweep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, l := range e.lanes {
		if len(l.orders) == 0 {
			delete(e.lanes, id)
			continue
		}
		if e.deps.Live(id) {
			continue
		}
		for b := range l.orders {
			l.end(freshet.WarmedBlock{Block: b, Kind: freshet.KindUnavailable, Error: "the cache node went away"})
		}
		e.raise()
	}
}

// Orders returns the blocks that a node is to bring, in order.
func (e *Engine) Orders(id freshet.NodeID) []freshet.BlockCopy {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[id]
	if l == nil {
		return nil
	}
	all := make([]freshet.BlockCopy, 0, len(l.orders))
	for _, o := range l.orders {
		all = append(all, o.copy)
	}
	slices.SortFunc(all, func(a, b freshet.BlockCopy) int {
		return cmp.Or(cmp.Compare(a.Block.ID.File, b.Block.ID.File), cmp.Compare(a.Block.ID.Index, b.Block.ID.Index))
	})
	return all
}

// Report takes a node's word of what became of its orders. What it was not asked for
// is not heard.
func (e *Engine) Report(id freshet.NodeID, results []freshet.WarmedBlock) {
	if len(results) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[id]
	if l == nil {
		return
	}
	for _, r := range results {
		l.end(r)
	}
	e.raise()
}

// Ordered returns how many blocks the nodes are to bring now.
func (e *Engine) Ordered() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for l := range maps.Values(e.lanes) {
		n += len(l.orders)
	}
	return n
}

func (e *Engine) raise() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (l *lane) end(r freshet.WarmedBlock) {
	o := l.orders[r.Block]
	if o == nil {
		return
	}
	l.drop(r.Block)
	o.result = r
	close(o.done)
}

func (l *lane) drop(b freshet.BlockID) {
	l.bytes -= l.orders[b].copy.Block.Length
	delete(l.orders, b)
}

func (l *lane) room(length int64) bool {
	return len(l.orders) == 0 || (len(l.orders) < maxOrders && l.bytes+length <= maxOrderBytes)
}

// bring has a node bring a block and returns what became of it. It waits until the node
// has few enough other orders. The error is that of ctx.
func (e *Engine) bring(ctx context.Context, node freshet.NodeID, block freshet.BlockCopy) (freshet.WarmedBlock, error) {
	o, err := e.order(ctx, node, block)
	if err != nil {
		return freshet.WarmedBlock{}, err
	}
	select {
	case <-o.done:
		return o.result, nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	o.waiting--
	if l := e.lanes[node]; o.waiting == 0 && l != nil && l.orders[block.Block.ID] == o {
		l.drop(block.Block.ID)
		e.raise()
	}
	return freshet.WarmedBlock{}, ctx.Err()
}

// order adds an order, or an interest in one of the same block.
func (e *Engine) order(ctx context.Context, node freshet.NodeID, block freshet.BlockCopy) (*order, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e.mu.Lock()
		l := e.lanes[node]
		if l == nil {
			l = &lane{orders: map[freshet.BlockID]*order{}}
			e.lanes[node] = l
		}
		o := l.orders[block.Block.ID]
		if o == nil && l.room(block.Block.Length) {
			o = &order{copy: block, done: make(chan struct{})}
			l.orders[block.Block.ID] = o
			l.bytes += block.Block.Length
		}
		if o != nil {
			o.waiting++
			e.mu.Unlock()
			return o, nil
		}
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
