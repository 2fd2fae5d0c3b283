package placement

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
)

// HeatOptions say when a block that is read much gets more copies; the zero value is
// usable.
type HeatOptions struct {
	// Copies is how many copies a block gets at most for being read much, where no
	// policy sets the most; 0 is 3, and 1 ends it.
	Copies int
	// Reads is how many reads a second one copy is to serve; 0 is 200.
	Reads int
}

const (
	defaultHeatCopies = 3
	defaultHeatReads  = 200
	// maxHeat bounds the blocks whose reads are known.
	maxHeat = 1024
	// A copy more than is needed is let go after coolAfter, half of what it is to serve
	// being the measure.
	coolAfter = time.Minute
	// maxHeatGap bounds the time that a report of reads is taken to be of.
	maxHeatGap = 10 * time.Second
)

// heat is which blocks are read much.
type heat struct {
	opts   HeatOptions
	blocks map[freshet.BlockID]*warmth
	turn   atomic.Uint64
}

// warmth is how much a block is read.
type warmth struct {
	rates map[slot]float64 // reads a second at each node
	want  int              // copies
	most  time.Duration    // when so many were last needed
	made  map[freshet.NodeID]struct{}
}

func (w *warmth) rate() (sum float64) {
	for _, r := range w.rates {
		sum += r
	}
	return sum
}

func (o HeatOptions) copies() int    { return cmp.Or(o.Copies, defaultHeatCopies) }
func (o HeatOptions) reads() float64 { return float64(cmp.Or(o.Reads, defaultHeatReads)) }

// SetHeat makes other settings apply.
func (n *Nodes) SetHeat(o HeatOptions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heat.opts = o
}

// hot reports whether the block is read so much that its copies take turns.
func (h *heat) hot(id freshet.BlockID) bool {
	w := h.blocks[id]
	return w != nil && w.want > 1
}

// least returns how many copies are wanted where a policy wants least, and at most
// most, or with 0 any number.
func (h *heat) least(id freshet.BlockID, least, most int) int {
	if w := h.blocks[id]; w != nil && w.want > least {
		least = w.want
	}
	if most > 0 {
		least = min(least, most)
	}
	return least
}

// warm takes a report of reads. It is called before the node is noted as heard.
func (n *Nodes) warm(at *node, hot []freshet.BlockHeat, now time.Duration) {
	h := &n.heat
	gap := min(max(now-at.heard, 100*time.Millisecond), maxHeatGap).Seconds()
	reads := make(map[freshet.BlockID]float64, len(hot))
	for _, b := range hot {
		reads[b.ID] = float64(b.Reads) / gap
		if h.blocks[b.ID] == nil && len(h.blocks) < maxHeat && h.opts.copies() > 1 {
			if h.blocks == nil {
				h.blocks = map[freshet.BlockID]*warmth{}
			}
			h.blocks[b.ID] = &warmth{rates: map[slot]float64{}}
		}
	}
	for id, w := range h.blocks {
		// Half of it is what was known, so that a moment makes no copies.
		if w.rates[at.slot] = (w.rates[at.slot] + reads[id]) / 2; w.rates[at.slot] < 1 {
			delete(w.rates, at.slot)
		}
		if len(w.rates) == 0 && w.want == 0 {
			delete(h.blocks, id)
		}
	}
}

// HotBlock is a block that is read so much, or was, that its copies are to be looked
// at.
type HotBlock struct {
	ID   freshet.BlockID
	Rate float64 // reads a second
	Want int     // copies that are wanted for it now; 0 if none are any more
}

// Hot returns the blocks that are read much, the hottest first.
func (n *Nodes) Hot() []HotBlock {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var all []HotBlock
	for id, w := range n.heat.blocks {
		if rate := w.rate(); rate > n.heat.opts.reads() || w.want > 0 {
			all = append(all, HotBlock{id, rate, w.want})
		}
	}
	slices.SortFunc(all, func(a, b HotBlock) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.ID.File, b.ID.File), cmp.Compare(a.ID.Index, b.ID.Index))
	})
	return all
}

// Heat orders more copies of a block that is read much, and has those that were made
// for it freed when they are not needed any more. bounds are those of the policy; may is
// false if the block may not be copied now.
func (n *Nodes) Heat(id freshet.BlockID, bounds freshet.Replication, may bool, now time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &n.heat
	w := h.blocks[id]
	if w == nil || !n.settled(now) {
		return
	}
	for s := range w.rates { // who is silent is read by nobody
		if at := n.slots[s]; at == nil || !n.live(at, now) {
			delete(w.rates, s)
		}
	}
	least, most := bounds.Bounds()
	n.setWant(w, least, most, now)
	records := n.index.block(id)
	held := slices.DeleteFunc(n.holding(id, records, now), (*node).drains)
	if len(records) == 0 || len(held) == 0 {
		w.made = nil
		if len(w.rates) == 0 {
			delete(h.blocks, id)
		}
		return
	}
	if len(held) < w.want {
		if may {
			n.order(lacking{id, int64(records[0].length), held}, w, now)
		}
		return
	}
	n.cool(id, w, held, max(w.want, least, 1))
	if w.want == 0 && len(w.rates) == 0 {
		delete(h.blocks, id)
	}
}

// setWant decides how many copies the block should have: at once more, less after a
// while.
func (n *Nodes) setWant(w *warmth, least, most int, now time.Duration) {
	bound := max(least, n.heat.opts.copies())
	if most > 0 {
		bound = most
	}
	per, rate := n.heat.opts.reads(), w.rate()
	need := min(int(math.Ceil(rate/per)), bound)
	if need < 2 || n.heat.opts.copies() < 2 {
		need = 0
	}
	switch {
	case need >= w.want:
		w.want, w.most = need, now
	case w.want > bound:
		w.want = bound
	case rate > per*(float64(w.want)-1)/2:
		w.most = now
	case now-w.most >= coolAfter:
		w.want, w.most = need, now
	}
}

func (n *Nodes) order(b lacking, w *warmth, now time.Duration) {
	targets := n.carriers(now)
	before := slices.DeleteFunc(slices.Clone(targets), func(at *node) bool { _, ordered := at.orders[b.id]; return !ordered })
	orderMissing(b, w.want, targets, now)
	for _, at := range targets {
		if _, ordered := at.orders[b.id]; ordered && !slices.Contains(before, at) {
			if w.made == nil {
				w.made = map[freshet.NodeID]struct{}{}
			}
			w.made[at.ID] = struct{}{}
		}
	}
}

// cool frees copies beyond keep that were made because the block was read much.
func (n *Nodes) cool(id freshet.BlockID, w *warmth, held []*node, keep int) {
	for _, at := range slices.Backward(held) {
		if _, made := w.made[at.ID]; made && keep < len(held) {
			at.release(id)
			delete(w.made, at.ID)
			keep++
		}
	}
	if w.want == 0 {
		w.made = nil
	}
}

// HeatTotals returns how many blocks have, or are to have, more copies because they
// are read much, and how many copies that are.
func (n *Nodes) HeatTotals() (blocks, copies int) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, w := range n.heat.blocks {
		if w.want > 0 {
			blocks++
			copies += len(w.made)
		}
	}
	return blocks, copies
}
