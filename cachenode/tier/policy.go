package tier

import (
	"container/list"

	"github.com/freshet-io/freshet"
)

// policy decides which block goes first. The tier calls it under its lock.
type policy interface {
	add(id freshet.BlockID, size int64)
	touch(id freshet.BlockID)
	remove(id freshet.BlockID)
	// victim returns a block that should go; it stays until remove. Blocks for
	// which busy is true are passed over; false if there is no other.
	victim(busy func(freshet.BlockID) bool) (freshet.BlockID, bool)
}

// Policies returns the names of the eviction policies, the default first.
func Policies() []string { return []string{"s3-fifo", "sieve", "lru", "lfu"} }

func newPolicy(name string, capacity int64) (policy, error) {
	switch name {
	case "", "s3-fifo":
		return newS3FIFO(capacity), nil
	case "sieve":
		return newSieve(), nil
	case "lru":
		return &lru{items: make(map[freshet.BlockID]*list.Element)}, nil
	case "lfu":
		return newLFU(), nil
	}
	return nil, freshet.Errorf(freshet.KindInvalid, "open cache tier", "", "%q is not an eviction policy: use one of %q", name, Policies())
}

// lru evicts the block that was not read for the longest time.
type lru struct {
	order list.List // of BlockID, the next victim in front
	items map[freshet.BlockID]*list.Element
}

func (l *lru) add(id freshet.BlockID, _ int64) { l.items[id] = l.order.PushBack(id) }

func (l *lru) touch(id freshet.BlockID) {
	if el := l.items[id]; el != nil {
		l.order.MoveToBack(el)
	}
}

func (l *lru) remove(id freshet.BlockID) {
	if el := l.items[id]; el != nil {
		l.order.Remove(el)
		delete(l.items, id)
	}
}

func (l *lru) victim(busy func(freshet.BlockID) bool) (freshet.BlockID, bool) {
	for el := l.order.Front(); el != nil; el = el.Next() {
		if id, ok := el.Value.(freshet.BlockID); ok && !busy(id) {
			return id, true
		}
	}
	return freshet.BlockID{}, false
}
