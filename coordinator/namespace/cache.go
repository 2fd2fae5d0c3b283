package namespace

import "sync"

// cache keeps decoded inodes, and that a name is not held, in front of the
// store. It is bounded by an estimate of its bytes and forgets by second chance:
// a hit sets a bit, so that hits need a read lock only. Its content depends on
// the reads of one member and is no part of the state.
type cache struct {
	shards [cacheShards]cacheShard
}

const cacheShards = 16

type cacheShard struct {
	mu    sync.Mutex
	slots map[place]int32
	ring  []cacheSlot
	hand  int
	bytes int64
	limit int64
}

type cacheSlot struct {
	key  place
	ino  *inode // nil: the name is not held
	size int32
	used bool
	live bool
}

func newCache(limit int64) *cache {
	c := &cache{}
	for i := range c.shards {
		c.shards[i].slots = map[place]int32{}
		c.shards[i].limit = limit / cacheShards
	}
	return c
}

func (c *cache) shard(p place) *cacheShard {
	h := p.parent * 0x9E3779B97F4A7C15
	if len(p.name) > 0 {
		h ^= uint64(p.name[len(p.name)-1])*31 + uint64(len(p.name))
	}
	return &c.shards[(h^h>>32)%cacheShards]
}

func (c *cache) get(p place) (ino *inode, known bool) {
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.slots[p]
	if !ok {
		return nil, false
	}
	s.ring[i].used = true
	return s.ring[i].ino, true
}

func (c *cache) put(p place, ino *inode) {
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	size := sizeOf(p, ino)
	if i, ok := s.slots[p]; ok {
		s.bytes += int64(size - s.ring[i].size)
		s.ring[i].ino, s.ring[i].size, s.ring[i].used = ino, size, true
		return
	}
	i := s.room(int64(size))
	if i < 0 {
		i = int32(len(s.ring))
		s.ring = append(s.ring, cacheSlot{})
	}
	s.ring[i] = cacheSlot{key: p, ino: ino, size: size, live: true}
	s.slots[p] = i
	s.bytes += int64(size)
}

// room forgets entries until size more bytes fit and returns a slot that became
// free, or -1.
func (s *cacheShard) room(size int64) int32 {
	free := int32(-1)
	for tries := 2 * len(s.ring); s.bytes+size > s.limit && tries > 0; tries-- {
		s.hand = (s.hand + 1) % len(s.ring)
		slot := &s.ring[s.hand]
		switch {
		case !slot.live:
			free = int32(s.hand)
		case slot.used:
			slot.used = false
		default:
			delete(s.slots, slot.key)
			s.bytes -= int64(slot.size)
			*slot = cacheSlot{}
			free = int32(s.hand)
		}
	}
	return free
}

func (c *cache) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.slots, s.ring, s.hand, s.bytes = map[place]int32{}, nil, 0, 0
		s.mu.Unlock()
	}
}

// stats returns the number of entries and the estimate of their bytes.
func (c *cache) stats() (entries, bytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		entries += int64(len(s.slots))
		bytes += s.bytes
		s.mu.Unlock()
	}
	return entries, bytes
}

// sizeOf estimates what an entry costs: its strings, the struct, the slot and
// its share of the map.
func sizeOf(p place, ino *inode) int32 {
	const slot, structure = 112, 272
	n := slot + len(p.name)
	if ino != nil {
		n += structure + len(ino.content) + len(ino.change)
	}
	return int32(n)
}

// peek is get without a trace: a listing must not push out what is looked up.
func (c *cache) peek(p place) (ino *inode, known bool) {
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.slots[p]; ok {
		return s.ring[i].ino, true
	}
	return nil, false
}
