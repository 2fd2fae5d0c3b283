package fill

import "github.com/freshet-io/freshet"

// Ahead begins to bring a block into the tier for a reader that will want it soon,
// and reports whether it is there or on its way. Like Fetch it takes no more than
// half of the fetches that may run.
func (f *Filler) Ahead(req freshet.BlockRead) bool {
	req.Offset, req.Length = 0, -1
	if checkRange(&req) != nil {
		return false
	}
	if _, ok := f.deps.Blocks.Stat(req.Block.ID); ok {
		return true
	}
	f.mu.Lock()
	_, running := f.flights[req.Block.ID]
	busy := len(f.flights) >= max(f.opts.MaxFills/2, 1)
	f.mu.Unlock()
	if running || busy {
		return running
	}
	fl := f.join(req)
	if fl == nil {
		return false
	}
	f.leave(fl) // it goes on by itself
	return true
}
