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
	if whole, part := f.keeps(req); !whole || !part {
		return false
	}
	if _, here := f.deps.Blocks.Stat(req.Block.ID); here {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flights[req.Block.ID] != nil {
		return true
	}
	return len(f.flights) < max(f.opts.MaxFills/2, 2) && f.begin(req, 0, true, true) != nil
}
