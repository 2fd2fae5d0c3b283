package tier

import (
	"container/heap"

	"github.com/freshet-io/freshet"
)

// lfu evicts the block that was read the least often, with dynamic aging (Arlitt
// et al., "Evaluating Content Management Techniques for Web Proxy Caches", 1999):
// what a block's reads are worth grows with what the last victim's were, so that
// what was read often long ago does not stay for ever. Among equals the one goes
// that has not been read for the longest time.
type lfu struct {
	heap  lfuHeap
	items map[freshet.BlockID]*lfuItem
	age   uint64 // the worth of the last victim
	clock uint64 // counts additions and reads
}

type lfuItem struct {
	id    freshet.BlockID
	reads uint64 // since it came, its coming included
	worth uint64 // the reads plus the age at the last of them
	last  uint64 // when it was last added or read
	at    int    // in the heap
}

func newLFU() *lfu { return &lfu{items: make(map[freshet.BlockID]*lfuItem)} }

func (l *lfu) add(id freshet.BlockID, _ int64) {
	l.clock++
	it := &lfuItem{id: id, reads: 1, worth: l.age + 1, last: l.clock}
	l.items[id] = it
	heap.Push(&l.heap, it)
}

func (l *lfu) touch(id freshet.BlockID) {
	it := l.items[id]
	if it == nil {
		return
	}
	l.clock++
	it.reads++
	it.worth, it.last = l.age+it.reads, l.clock
	heap.Fix(&l.heap, it.at)
}

func (l *lfu) remove(id freshet.BlockID) {
	if it := l.items[id]; it != nil {
		heap.Remove(&l.heap, it.at)
		delete(l.items, id)
	}
}

// victim takes busy blocks out of the heap until it has found another one.
func (l *lfu) victim(busy func(freshet.BlockID) bool) (id freshet.BlockID, ok bool) {
	var passed []*lfuItem
	for len(l.heap) > 0 {
		it := l.heap[0]
		if !busy(it.id) {
			l.age, id, ok = it.worth, it.id, true
			break
		}
		heap.Pop(&l.heap)
		passed = append(passed, it)
	}
	for _, it := range passed {
		heap.Push(&l.heap, it)
	}
	return id, ok
}

// lfuHeap is a heap of the blocks, the next victim in front.
type lfuHeap []*lfuItem

func (h lfuHeap) Len() int { return len(h) }

func (h lfuHeap) Less(i, j int) bool {
	if h[i].worth != h[j].worth {
		return h[i].worth < h[j].worth
	}
	return h[i].last < h[j].last
}

func (h lfuHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *lfuHeap) Push(x any) {
	it := x.(*lfuItem) //nolint:forcetypeassert // nothing else is in the heap
	it.at = len(*h)
	*h = append(*h, it)
}

func (h *lfuHeap) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return it
}
