package journal

import (
	"sync"
	"time"

	"github.com/freshet-io/freshet/internal/clock"
)

// holds keep the part of the log that a member needs which is being brought up by a
// copy of the state: making, sending and reading one takes time, and were the log
// truncated meanwhile, the member would need the next copy, and so on for ever.
type holds struct {
	clock clock.Clock

	mu  sync.Mutex
	all map[*hold]struct{}
}

// hold keeps what follows an index.
type hold struct {
	from  uint64        // the first entry that is kept
	ended bool          // the copy has arrived, or not
	until time.Duration // on the clock's Elapsed, once it has ended
}

// catchUp is how long at least a member that has got its copy may take for what
// was appended since: as long as the copy took, if that was longer.
const catchUp = time.Minute

// keep keeps the log from an entry on until some time after end is called.
func (h *holds) keep(from uint64) (end func()) {
	begun := h.clock.Elapsed()
	one := &hold{from: from}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[*hold]struct{}{}
	}
	h.all[one] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		now := h.clock.Elapsed()
		one.ended, one.until = true, now+max(catchUp, now-begun)
	}
}

// first returns the first entry that must stay, and whether there is one.
func (h *holds) first() (from uint64, held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for one := range h.all {
		switch {
		case one.ended && h.clock.Elapsed() >= one.until:
			delete(h.all, one)
		case !held || one.from < from:
			from, held = one.from, true
		}
	}
	return from, held
}
