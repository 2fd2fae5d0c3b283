package tier

import (
	"container/list"

	"github.com/freshet-io/freshet"
)

// sieve is the policy of one queue and a hand (Zhang et al., "SIEVE is Simpler
// than LRU", NSDI 2024): a read only marks a block. The hand goes from the oldest
// block to the newest, takes the marks away, and stops at the first block without
// one. Unlike in a clock, blocks that it spares stay where they are, so new ones
// that nobody reads go before old ones that are read.
type sieve struct {
	order list.List // of *sieveItem, the oldest in front
	items map[freshet.BlockID]*list.Element
	hand  *list.Element // where the next search begins; nil: at the oldest
}

type sieveItem struct {
	id   freshet.BlockID
	read bool
}

func newSieve() *sieve { return &sieve{items: make(map[freshet.BlockID]*list.Element)} }

func (s *sieve) add(id freshet.BlockID, _ int64) { s.items[id] = s.order.PushBack(&sieveItem{id: id}) }

func (s *sieve) touch(id freshet.BlockID) {
	if el := s.items[id]; el != nil {
		el.Value.(*sieveItem).read = true //nolint:forcetypeassert // nothing else is in the list
	}
}

func (s *sieve) remove(id freshet.BlockID) {
	el := s.items[id]
	if el == nil {
		return
	}
	if s.hand == el {
		s.hand = el.Next()
	}
	s.order.Remove(el)
	delete(s.items, id)
}

// victim goes round at most twice: once to take the marks away, once more to find
// a block without one.
func (s *sieve) victim(busy func(freshet.BlockID) bool) (freshet.BlockID, bool) {
	el := s.hand
	for range 2 * len(s.items) {
		if el == nil {
			el = s.order.Front()
		}
		it := el.Value.(*sieveItem) //nolint:forcetypeassert // nothing else is in the list
		if !it.read && !busy(it.id) {
			s.hand = el
			return it.id, true
		}
		it.read = false
		el = el.Next()
	}
	return freshet.BlockID{}, false
}
