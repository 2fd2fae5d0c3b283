package rpc

import (
	"sync"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers what codec falls back to
	"google.golang.org/grpc/mem"
)

// encoder is an answer that writes its message itself, see wire.go.
type encoder interface {
	// size is about how many bytes appendTo appends.
	size() int
	appendTo(b []byte) ([]byte, error)
}

// decoder is an answer that reads its message itself. It keeps nothing of b.
type decoder interface{ readFrom(b []byte) error }

// codec is that of protocol buffers, but for encoders, decoders and parcels. What it writes
// and reads is the same on the wire.
type codec struct {
	encoding.CodecV2

	pool mem.BufferPool
}

// Codec returns the codec for what a Coordinator asks and the servers of this
// package answer. Their own connections have it; it is for those that others make.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto"), &largest{}} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if p, ok := v.(parcel); ok {
		return p.pack()
	}
	m, ok := v.(encoder)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	n := m.size()
	if mem.IsBelowBufferPoolingThreshold(n) {
		b, err := m.appendTo(make([]byte, 0, n))
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	buf := c.pool.Get(n)
	b, err := m.appendTo((*buf)[:0])
	if *buf = b; err != nil {
		c.pool.Put(buf)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buf, c.pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if p, ok := v.(parcel); ok {
		return p.unpack(data)
	}
	m, ok := v.(decoder)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(c.pool)
	defer buf.Free()
	return m.readFrom(buf.ReadOnlyData())
}

// largest pools buffers of any size, for messages that are nearly all as large as
// a page of a listing. Unlike the library's, what it hands out is not cleared:
// whoever takes a buffer here overwrites it.
type largest struct{ pool sync.Pool }

// Get implements mem.BufferPool.
func (p *largest) Get(n int) *[]byte {
	buf, ok := p.pool.Get().(*[]byte)
	if !ok || cap(*buf) < n {
		b := make([]byte, n)
		return &b
	}
	*buf = (*buf)[:n]
	return buf
}

// Put implements mem.BufferPool.
func (p *largest) Put(buf *[]byte) {
	if cap(*buf) <= MaxControlMessage {
		p.pool.Put(buf)
	}
}
