package fill

import (
	"context"
	"errors"
	"io"

	"github.com/freshet-io/freshet"
)

// maxWaiting bounds the blocks that wait to be fetched in the background. A block
// beyond them is dropped: a later read of it asks again.
const maxWaiting = 256

// rest is what is to be cached of blocks of which a part was read. The filler's mu
// guards it.
type rest struct {
	queue   []freshet.BlockRead
	queued  map[freshet.BlockID]struct{}
	workers int
}

func newRest() rest { return rest{queued: make(map[freshet.BlockID]struct{})} }

// fetchRest has the block fetched in the background if it is to be cached although
// only a part of it was asked for.
func (f *Filler) fetchRest(req freshet.BlockRead) {
	if _, part := f.keeps(req); !part {
		return
	}
	req.Offset, req.Length = 0, req.Block.Length
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, queued := f.rest.queued[req.Block.ID]; queued || f.ctx == nil || f.flights[req.Block.ID] != nil {
		return
	}
	if len(f.rest.queue) >= maxWaiting {
		f.deps.Watch.fetched("dropped")
		return
	}
	f.rest.queued[req.Block.ID] = struct{}{}
	f.rest.queue = append(f.rest.queue, req)
	if f.rest.workers < f.opts.Background {
		f.rest.workers++
		ctx := f.ctx
		f.wg.Go(func() { f.fetchQueued(ctx) })
	}
}

// fetchQueued fetches blocks until none waits.
func (f *Filler) fetchQueued(ctx context.Context) {
	for {
		fl, ok := f.nextRest(ctx)
		if !ok {
			return
		}
		if fl == nil {
			continue
		}
		if _, err := fl.wait(ctx, fl.req.Block.Length); errors.Is(err, io.EOF) {
			f.deps.Watch.fetched("cached")
		} else if ctx.Err() == nil {
			f.deps.Watch.fetched("failed")
		}
		f.leave(fl, false)
	}
}

// nextRest begins the fetch of the next block that waits; false if none does, nil if
// it is not to be fetched any more.
func (f *Filler) nextRest(ctx context.Context) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rest.queue) == 0 || ctx.Err() != nil {
		f.rest.workers--
		return nil, false
	}
	req := f.rest.queue[0]
	f.rest.queue = f.rest.queue[1:]
	delete(f.rest.queued, req.Block.ID)
	if f.flights[req.Block.ID] != nil { // readers wait for all of it meanwhile
		return nil, true
	}
	if _, here := f.deps.Blocks.Stat(req.Block.ID); here {
		return nil, true
	}
	if len(f.flights) >= max(f.opts.MaxFills/2, 1) {
		f.deps.Watch.fetched("dropped")
		return nil, true
	}
	fl := f.begin(req, 0, true, false)
	if fl != nil {
		fl.refs++
	}
	return fl, true
}

// Fetch brings a block into the tier for nobody in particular, from the same sources
// as a read, and returns when it is there or can't be had. Like all that is fetched in
// the background it gives way to readers. It takes no more than half
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
	fl, busy := f.order(req)
	switch {
	case busy:
		return freshet.Errorf(freshet.KindExhausted, op, "", "too many blocks are fetched for readers")
	case fl == nil:
		return freshet.Errorf(freshet.KindExhausted, op, "", "the block can't be cached now")
	}
	defer f.leave(fl, false)
	_, err := fl.wait(ctx, req.Block.Length)
	switch {
	case errors.Is(err, io.EOF): // all bytes came
		return nil
	case errors.Is(err, errNotCached):
		return freshet.Errorf(freshet.KindUnavailable, op, "", "the tier has no room, or failed")
	}
	return freshet.Wrap(op, "", err)
}

// order joins or begins the fetch of a block that is wanted here, whatever the mount
// keeps of what is read.
func (f *Filler) order(req freshet.BlockRead) (fl *flight, busy bool) {
	if !f.named(req) {
		return nil, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fl = f.flights[req.Block.ID]
	switch {
	case fl != nil && !fl.serves(req):
		return nil, false
	case fl == nil && len(f.flights) >= max(f.opts.MaxFills/2, 1):
		return nil, true
	case fl == nil:
		fl = f.begin(req, 0, true, false)
	}
	if fl != nil {
		fl.refs++
	}
	return fl, false
}
