package rpc

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/mem"
)

const (
	// minChunk is the least that a message carries of a long stream, in bytes.
	minChunk = 64 << 10
	// roomBytes is about how much memory the streams of a server take together. Each
	// has a chunk on its way and prepares the next.
	roomBytes = 128 << 20
)

// room is the memory that streams read chunks into. A reader that is slow holds a
// chunk as long as it likes: the more streams there are the smaller their chunks
// get, so that memory has a bound whoever reads. Buffers are used again, and hold
// what they held: whoever takes one overwrites what he sends of it.
type room struct {
	streams atomic.Int64
	pools   [bits.UintSize]sync.Pool // by powers of two
}

// enter counts a stream in until the function that it returns is called.
func (r *room) enter() (leave func()) {
	r.streams.Add(1)
	return func() { r.streams.Add(-1) }
}

// chunk is how many bytes a message should carry now.
func (r *room) chunk() int64 {
	each := roomBytes / 2 / max(r.streams.Load(), 1)
	return int64(1) << (bits.Len64(uint64(min(max(each, minChunk), ChunkSize))) - 1)
}

// Get implements mem.BufferPool.
func (r *room) Get(n int) *[]byte {
	class := bits.Len(uint(max(n, 1) - 1)) //nolint:gosec // not negative
	if buf, ok := r.pools[class].Get().(*[]byte); ok {
		*buf = (*buf)[:n]
		return buf
	}
	b := make([]byte, n, 1<<class)
	return &b
}

// Put implements mem.BufferPool.
func (r *room) Put(buf *[]byte) {
	if poison {
		overwrite((*buf)[:cap(*buf)])
	}
	if class := bits.Len(uint(cap(*buf))) - 1; cap(*buf) == 1<<class {
		r.pools[class].Put(buf)
	}
}

var _ mem.BufferPool = (*room)(nil)

// overwrite fills b with nonsense.
func overwrite(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}

// fill returns a buffer of up to n bytes that fill has filled, nil if it gave none.
// The buffer comes back when the last reference to it is given up.
func (r *room) fill(n int64, fill func([]byte) (int, error)) (mem.Buffer, error) {
	buf := r.Get(int(n))
	got, err := fill(*buf)
	*buf = (*buf)[:got]
	if got == 0 {
		r.Put(buf)
		return nil, err
	}
	return mem.NewBuffer(buf, r), err
}
