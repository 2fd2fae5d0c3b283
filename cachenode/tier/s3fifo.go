package tier

import (
	"container/list"

	"github.com/freshet-io/freshet"
)

// s3fifo is the policy of three queues: a new block enters a small probationary
// queue, and leaves the tier from there unless it was read again; one that was,
// or that comes back soon after it left, enters the main queue, where each read
// buys it another round. One pass over a big data set so evicts only the small
// queue. Sizes are bytes, for blocks differ in length by orders of magnitude.
type s3fifo struct {
	smallMax  int64
	small     fifo
	main      fifo
	ghosts    list.List // of BlockID, the oldest in front
	ghostByID map[freshet.BlockID]*list.Element
	items     map[freshet.BlockID]*fifoItem
}

type fifo struct {
	order list.List // of *fifoItem, the oldest in front
	bytes int64
}

type fifoItem struct {
	id    freshet.BlockID
	size  int64
	reads int // since it entered its place, at most maxReads
	in    *fifo
	el    *list.Element
}

const (
	smallShare = 10 // the small queue's part of the capacity is one in so many
	maxReads   = 3
	minGhosts  = 128
)

func newS3FIFO(capacity int64) *s3fifo {
	return &s3fifo{
		smallMax:  capacity / smallShare,
		ghostByID: make(map[freshet.BlockID]*list.Element),
		items:     make(map[freshet.BlockID]*fifoItem),
	}
}

func (f *fifo) push(it *fifoItem) {
	it.in, it.el = f, f.order.PushBack(it)
	f.bytes += it.size
}

func (f *fifo) pop(it *fifoItem) {
	f.order.Remove(it.el)
	f.bytes -= it.size
}

func (s *s3fifo) add(id freshet.BlockID, size int64) {
	it := &fifoItem{id: id, size: size}
	s.items[id] = it
	if el := s.ghostByID[id]; el != nil {
		s.ghosts.Remove(el)
		delete(s.ghostByID, id)
		s.main.push(it)
		return
	}
	s.small.push(it)
}

func (s *s3fifo) touch(id freshet.BlockID) {
	if it := s.items[id]; it != nil && it.reads < maxReads {
		it.reads++
	}
}

func (s *s3fifo) remove(id freshet.BlockID) {
	it := s.items[id]
	if it == nil {
		return
	}
	if it.in == &s.small {
		s.remember(id)
	}
	it.in.pop(it)
	delete(s.items, id)
}

// remember keeps the name of a block that left from the small queue, for as many
// blocks as the tier holds.
func (s *s3fifo) remember(id freshet.BlockID) {
	s.ghostByID[id] = s.ghosts.PushBack(id)
	for s.ghosts.Len() > max(len(s.items), minGhosts) {
		if old, ok := s.ghosts.Remove(s.ghosts.Front()).(freshet.BlockID); ok {
			delete(s.ghostByID, old)
		}
	}
}

func (s *s3fifo) victim(busy func(freshet.BlockID) bool) (freshet.BlockID, bool) {
	// Every step evicts, moves a block to the main queue or takes one of its
	// reads, so a block that is not busy comes up within this many steps.
	for range (maxReads + 2) * (len(s.items) + 1) {
		from := &s.main
		if s.small.bytes > s.smallMax || s.main.order.Len() == 0 {
			from = &s.small
		}
		front := from.order.Front()
		if front == nil {
			break
		}
		it, ok := front.Value.(*fifoItem)
		if ok && it.reads == 0 && !busy(it.id) {
			return it.id, true
		}
		from.pop(it)
		switch {
		case from == &s.small:
			it.reads = 0 // it has earned its place by being read, no more
		case it.reads > 0:
			it.reads--
		}
		s.main.push(it)
	}
	return s.anyIdle(busy)
}

// anyIdle is for the rare case that the queue whose turn it is holds only blocks
// in use.
func (s *s3fifo) anyIdle(busy func(freshet.BlockID) bool) (freshet.BlockID, bool) {
	for _, queue := range []*fifo{&s.small, &s.main} {
		for el := queue.order.Front(); el != nil; el = el.Next() {
			if it, ok := el.Value.(*fifoItem); ok && !busy(it.id) {
				return it.id, true
			}
		}
	}
	return freshet.BlockID{}, false
}
