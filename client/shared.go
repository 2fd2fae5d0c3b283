package client

import (
	"context"
	"io"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// shared is what nodes can do besides: they give small parts of the blocks that they
// hold by messages that many reads share.
type shared interface {
	// ReadRange fills r.To from what the node holds; KindNotExist if it does not hold
	// the block.
	ReadRange(ctx context.Context, n freshet.Node, r rpc.RangeRead) error
	// ReadRanges fills all and returns the error of each, or that of all.
	ReadRanges(ctx context.Context, n freshet.Node, reads []rpc.RangeRead) ([]error, error)
}

// maxShared is how long a read may be that shares a message, in bytes: one that is
// longer pays for a stream of its own.
const maxShared = 256 << 10

// maxHolders bounds the blocks of which a file knows by itself who holds them.
const maxHolders = 4096

// holder returns the node that a small read of the block is to be asked of, if any:
// what was seen counts more than what the coordinator said.
func (v *version) holder(b *freshet.Block, n int) (freshet.Node, bool) {
	if v.f.c.shared == nil || n > maxShared {
		return freshet.Node{}, false
	}
	v.mu.RLock()
	seen, ok := v.holders[b.ID]
	v.mu.RUnlock()
	switch {
	case ok:
		return seen, seen.ID != ""
	case len(b.Nodes) > 0:
		return b.Nodes[0], true
	}
	return freshet.Node{}, false
}

// note says which node holds a block, none if it is the zero one.
func (v *version) note(b *freshet.Block, n freshet.Node) {
	if v.f.c.shared == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.holders == nil || len(v.holders) >= maxHolders {
		v.holders = map[freshet.BlockID]freshet.Node{}
	}
	v.holders[b.ID] = n
}

func (v *version) rangeOf(b *freshet.Block, off int64, p []byte) rpc.RangeRead {
	return rpc.RangeRead{Block: *b, Source: v.source, Offset: off - b.Offset, To: p}
}

// readShared reads from who holds the block, and reports whether it could.
func (v *version) readShared(ctx context.Context, b *freshet.Block, off int64, p []byte) bool {
	n, ok := v.holder(b, len(p))
	if !ok {
		return false
	}
	err := v.f.c.shared.ReadRange(ctx, n, v.rangeOf(b, off, p))
	if err != nil && ctx.Err() == nil {
		v.note(b, freshet.Node{}) // until a stream comes from a cache again
	}
	return err == nil
}

// readStream reads by a stream of a node.
func (v *version) readStream(ctx context.Context, n freshet.Node, b *freshet.Block, off int64, p []byte) error {
	body, err := v.f.c.nodes.ReadBlock(ctx, n, v.request(b, off, int64(len(p))))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(body, p)
	if err == nil && body.Origin() == freshet.OriginHit {
		v.note(b, n)
	}
	_ = body.Close() // read only
	return err
}

// batch is the parts of a vectored read that one node is asked for.
type batch struct {
	node   freshet.Node
	reads  []rpc.RangeRead
	pieces []piece
	blocks []*freshet.Block
}

// readTogether reads what few messages can bring, and returns the rest.
func (v *version) readTogether(ctx context.Context, pieces []piece) (rest []piece) {
	var batches []*batch
	of := map[freshet.NodeID]*batch{}
	for _, p := range pieces {
		b, ok := v.find(p.off)
		n := freshet.Node{}
		if ok {
			n, ok = v.holder(b, len(p.into))
		}
		if !ok {
			rest = append(rest, p)
			continue
		}
		at := of[n.ID]
		if at == nil {
			at = &batch{node: n}
			of[n.ID], batches = at, append(batches, at)
		}
		at.reads, at.pieces, at.blocks = append(at.reads, v.rangeOf(b, p.off, p.into)), append(at.pieces, p), append(at.blocks, b)
	}
	failed := make([][]piece, len(batches))
	var wg sync.WaitGroup
	for i, at := range batches {
		wg.Go(func() { failed[i] = v.readBatch(ctx, at) })
	}
	wg.Wait()
	for _, f := range failed {
		rest = append(rest, f...)
	}
	return rest
}

// readBatch returns the pieces that the node could not read.
func (v *version) readBatch(ctx context.Context, at *batch) (rest []piece) {
	errs, err := v.f.c.shared.ReadRanges(ctx, at.node, at.reads)
	for i, p := range at.pieces {
		if err == nil && errs[i] == nil {
			continue
		}
		if ctx.Err() == nil {
			v.note(at.blocks[i], freshet.Node{})
		}
		rest = append(rest, p)
	}
	return rest
}
