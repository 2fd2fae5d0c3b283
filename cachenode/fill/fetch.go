package fill

import (
	"context"
	"errors"
	"io"

	"github.com/freshet-io/freshet"
)

// Fetch brings a block into the tier for nobody in particular, from the same sources
// as a read, and returns when it is there or can't be had. It takes no more than half
// of the fetches that may run: KindExhausted if they do, or if the block can't be
// cached now. KindStale: the storage holds another version.
func (f *Filler) Fetch(ctx context.Context, req freshet.BlockRead) error {
	const op = "fetch block"
	req.Offset, req.Length = 0, -1
	if err := checkRange(&req); err != nil {
		return err
	}
	if r := f.openTier(req); r != nil {
		return freshet.Wrap(op, "", r.Close())
	}
	f.mu.Lock()
	busy := len(f.flights) >= max(f.opts.MaxFills/2, 1)
	f.mu.Unlock()
	if busy {
		return freshet.Errorf(freshet.KindExhausted, op, "", "too many blocks are fetched for readers")
	}
	fl := f.join(req)
	if fl == nil {
		return freshet.Errorf(freshet.KindExhausted, op, "", "the block can't be cached now")
	}
	defer f.leave(fl)
	_, err := fl.wait(ctx, req.Block.Length)
	switch {
	case errors.Is(err, io.EOF): // all bytes came
		return nil
	case errors.Is(err, errNotCached):
		return freshet.Errorf(freshet.KindUnavailable, op, "", "the tier has no room, or failed")
	}
	return freshet.Wrap(op, "", err)
}
