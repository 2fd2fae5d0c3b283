package namespace

import (
	"math/bits"
	"sync/atomic"
)

// cache keeps rows of the inode table as they are stored, and that a name is not
// held, in front of the store, and decoded directories in front of that. Its
// memory is a few large blocks without pointers, which the garbage collector does
// not look into, and never exceeds the limit. Its content depends on the reads of
// one member and is no part of the state.
//
// Rows are copied out under the lock of their shard, so a reader never sees one
// that changes. It is safe for concurrent use. While a writer changes rows in the
// store, between begin and end, what it has hidden is read there, and nothing that
// readers read there is kept: so nobody finds what is older, or newer, than the store.
type cache struct {
	shards []cacheShard
	mask   uint64 // of the shard in a hash
	dirs   frontCache

	changing atomic.Bool

	fixed int64 // memory that does not depend on the content
}

// What newCache makes of a limit. A shard has one lock; small ones waste what does
// not fit at the end of their blocks.
const (
	maxCacheShards = 64
	minShardBytes  = 1 << 20
	shardOverhead  = 512 // of the struct and the lists in it, at least
)

// known is what the cache says of a name.
type known uint8

const (
	unknown known = iota
	absent        // the name is not held
	held
)

// newCache returns a cache that takes at most limit bytes. alloc makes blocks of
// its memory; nil is the heap.
func newCache(limit int64, alloc func(bytes int) ([]byte, error)) *cache {
	if alloc == nil {
		alloc = func(bytes int) ([]byte, error) { return make([]byte, bytes), nil }
	}
	n := int64(1)
	for n < maxCacheShards && limit/(2*n) >= minShardBytes {
		n *= 2
	}
	c := &cache{shards: make([]cacheShard, n), mask: uint64(n - 1), dirs: newFrontCache(limit)}
	c.fixed = c.dirs.bytes() + n*shardOverhead
	for i := range c.shards {
		c.shards[i].init((limit-c.fixed)/n, alloc)
	}
	return c
}

// get appends the row of p to buf if it is cached. hash is p.hash().
func (c *cache) get(hash uint64, p place, buf []byte) ([]byte, known) {
	return c.shards[hash&c.mask].get(hash, p, buf)
}

// put caches the row of p; nil says that the name is not held.
func (c *cache) put(hash uint64, p place, row []byte) {
	c.shards[hash&c.mask].put(hash, p, row)
}

// fill is put of what was read from the store.
func (c *cache) fill(hash uint64, p place, row []byte) {
	c.shards[hash&c.mask].fill(hash, p, row, &c.changing)
}

// begin has to come before a change of rows in the store, and before they are hidden:
// who fills one before that has its row hidden, who comes later does nothing.
func (c *cache) begin() { c.changing.Store(true) }

// end has to come when every row that was hidden is put, or dropped.
func (c *cache) end() { c.changing.Store(false) }

// hide has p read from the store until it is put.
func (c *cache) hide(hash uint64, p place) { c.shards[hash&c.mask].hide(hash, p) }

// drop forgets what is cached of p.
func (c *cache) drop(hash uint64, p place) { c.shards[hash&c.mask].forgetName(hash, p) }

// clear forgets everything. The memory stays the cache's.
func (c *cache) clear() {
	c.end()
	c.dirs.clear()
	for i := range c.shards {
		c.shards[i].clear()
	}
}

// cacheStats are the number of names that are cached, the memory that the cache
// takes, and how often a name was known or not. Directories that were found decoded
// are in neither count.
type cacheStats struct{ entries, bytes, hits, misses int64 }

func (c *cache) stats() cacheStats {
	sum := cacheStats{bytes: c.fixed}
	for i := range c.shards {
		s := c.shards[i].stats()
		sum.entries += s.entries
		sum.bytes += s.bytes
		sum.hits += s.hits
		sum.misses += s.misses
	}
	return sum
}

// hash is that of the cache. It needs no seed: the cache bounds what it costs when
// many names have the same.
func (p place) hash() uint64 { return hashKey(p.parent, p.name) }

func hashKey[T string | []byte](parent uint64, name T) uint64 {
	const k0, k1, k2 = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F
	h := parent*k0 ^ uint64(len(name))*k1
	i := 0
	for ; i+8 <= len(name); i += 8 {
		h = mix(h^load64(name, i), k2)
	}
	var rest uint64
	for ; i < len(name); i++ {
		rest = rest<<8 | uint64(name[i])
	}
	h = mix(h^rest, k1)
	return mix(h^k0, k2)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo ^ a
}

func load64[T string | []byte](b T, i int) uint64 {
	_ = b[i+7]
	return uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
		uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56
}
