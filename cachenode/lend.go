package cachenode

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// Lend opens a block that the node holds for another process on this host, which
// reads it by its descriptor. KindNotExist: the node does not hold it, and does not
// fetch it; KindExhausted: others have too much open. The loan must be closed.
func (n *Node) Lend(_ context.Context, req freshet.BlockRead) (*tier.Loan, error) {
	r, err := n.openHeld(req)
	if err != nil {
		return nil, err
	}
	l, err := r.Lend()
	if err != nil {
		_ = r.Close() //nolint:errcheck // only read from
		return nil, err
	}
	return l, nil
}

func (n *Node) openHeld(req freshet.BlockRead) (*tier.Reader, error) {
	cluster, epoch, ok := n.identity()
	if !ok || req.Block.ID.File == 0 {
		return nil, freshet.Errorf(freshet.KindNotExist, "lend block", "", "this node does not hold the block")
	}
	return n.deps.Blocks.Open(req.Block.ID, tier.Want{
		Cluster: cluster, Epoch: epoch, Fingerprint: req.Source.Fingerprint, Length: req.Block.Length,
	})
}

// Inspect verifies a chunk of a block, of which somebody says that it is damaged. If
// it is, the block is dropped.
func (n *Node) Inspect(req freshet.BlockRead, chunk int64) {
	off := chunk * tier.ChunkSize
	if off < 0 || off >= req.Block.Length {
		return
	}
	r, err := n.openHeld(req)
	if err != nil {
		return // it is gone, if it was there
	}
	defer func() { _ = r.Close() }() //nolint:errcheck // only read from
	// What is read as a whole is verified each time.
	_, _ = r.ReadAt(make([]byte, min(tier.ChunkSize, req.Block.Length-off)), off) //nolint:errcheck // drops the block
}

// ReadAhead begins to bring a block into the cache for a client that will want it,
// and reports whether it is there or on its way.
func (n *Node) ReadAhead(_ context.Context, req freshet.BlockRead) bool { return n.filler.Ahead(req) }

// Fetch is Lend for a read that the node answers whether it holds the block or not: the
// block is lent if it is held, else a draft of it, with up to where the bytes that are
// asked for have come. KindUnsupported, and all others but KindStale: the bytes are to
// be had by Read.
func (n *Node) Fetch(ctx context.Context, req freshet.BlockRead) (l *tier.Loan, d *fill.Draft, have int64, err error) {
	for range maxLooks {
		l, err = n.Lend(ctx, req)
		if !freshet.IsKind(err, freshet.KindNotExist) || n.draining.Load() {
			return l, nil, 0, err
		}
		var again bool
		if d, have, again, err = n.filler.Draft(ctx, req); again {
			continue
		}
		if err == nil {
			n.heat.note(req.Block.ID, 1)
		}
		return nil, d, have, err
	}
	return nil, nil, 0, freshet.Errorf(freshet.KindNotExist, "lend block", "", "the block comes and goes")
}

// maxLooks bounds how often a block is looked for that comes and goes.
const maxLooks = 4
