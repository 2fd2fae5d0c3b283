package client

import (
	"context"
	"slices"
	"sync"

	"github.com/freshet-io/freshet"
)

// ahead is what nodes can do for a reader that knows what it will read.
type ahead interface {
	// ReadAhead has the node begin to bring the block into its cache.
	ReadAhead(ctx context.Context, n freshet.Node, q freshet.BlockRead) error
}

// aheadAfter is how many bytes in a row make a reader one that goes on, in bytes: one
// that looks at the head of a file should not make its node fetch more of it.
const aheadAfter = 4 << 20

// readAhead is what a Reader has asked for ahead.
type readAhead struct {
	run    int64 // bytes in a row
	until  int64 // blocks that begin before this offset of the file were looked at
	at     int64 // the block, by its end, from which that was done last
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// lookAhead asks for the blocks after the current one that no node holds.
func (r *Reader) lookAhead(n int64) {
	if r.ahead.run += n; r.ahead.run < aheadAfter || r.c.ahead == nil || r.c.opts.ReadAhead < 0 || r.opts.Read == freshet.ReadNoCache || r.next >= len(r.loc.Blocks) {
		return
	}
	current := r.loc.Blocks[r.next]
	if end := current.Offset + current.Length; r.ahead.at < end && r.pos > current.Offset {
		r.ahead.at = end
	} else {
		return
	}
	depth := r.c.opts.ReadAhead
	if depth == 0 {
		depth = defaultReadAhead
	}
	var blocks []freshet.Block
	for _, b := range r.loc.Blocks[r.next+1:] {
		if depth == 0 || b.Offset >= r.end {
			break
		}
		depth--
		if b.Offset >= r.ahead.until && len(b.Nodes) == 0 && b.Fetch.ID != "" {
			blocks = append(blocks, b)
		}
		r.ahead.until = max(r.ahead.until, b.Offset+1)
	}
	if len(blocks) > 0 {
		r.askAhead(blocks)
	}
}

// askAhead asks without waiting: that it fails costs only time.
func (r *Reader) askAhead(blocks []freshet.Block) {
	r.stopAhead() // it has long been answered
	ctx, cancel := context.WithCancel(r.ctx)
	r.ahead.cancel = cancel
	source := r.loc.Source
	r.ahead.wg.Go(func() {
		for _, b := range blocks {
			if err := r.c.ahead.ReadAhead(ctx, b.Fetch, freshet.BlockRead{Block: b, Source: source, Length: -1}); err != nil {
				return
			}
		}
	})
}

func (r *Reader) stopAhead() {
	if r.ahead.cancel != nil {
		r.ahead.cancel()
		r.ahead.wg.Wait()
		r.ahead.cancel = nil
	}
}

// candidates returns the nodes to ask for a block, the best first: the ones of this
// host before all.
func (c *Client) candidates(ctx context.Context, b freshet.Block) []freshet.Node {
	nodes := b.Nodes
	if b.Fetch.ID != "" && !slices.ContainsFunc(nodes, func(n freshet.Node) bool { return n.ID == b.Fetch.ID }) {
		nodes = append(slices.Clip(nodes), b.Fetch)
	}
	if c.near == nil || len(nodes) < 2 {
		return nodes
	}
	for i, n := range nodes {
		if n.Socket != "" && c.near.Near(ctx, n) {
			if i > 0 {
				nodes = slices.Clone(nodes)
				copy(nodes[1:i+1], nodes[:i])
				nodes[0] = n
			}
			break
		}
	}
	return nodes
}
