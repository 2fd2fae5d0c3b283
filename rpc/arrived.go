package rpc

import (
	"io"

	"google.golang.org/grpc/mem"
)

// arrived are bytes as they came from the wire, in the buffers that they were read
// into. Each is given back when it was read. It is used by one goroutine at a time.
type arrived struct {
	bufs mem.BufferSlice
	at   int // in the first of them
}

// read copies the next bytes, 0 if there are none.
func (r *arrived) read(p []byte) (n int) {
	for n < len(p) && len(r.bufs) > 0 {
		k := copy(p[n:], r.bufs[0].ReadOnlyData()[r.at:])
		n += k
		r.skip(k)
	}
	return n
}

// writeTo writes all of them to w.
func (r *arrived) writeTo(w io.Writer) (n int64, err error) {
	for len(r.bufs) > 0 {
		k, err := w.Write(r.bufs[0].ReadOnlyData()[r.at:])
		n += int64(k)
		if r.skip(k); err != nil {
			return n, err
		}
	}
	return n, nil
}

// skip goes on behind n bytes of the first buffer.
func (r *arrived) skip(n int) {
	if r.at += n; r.at < r.bufs[0].Len() {
		return
	}
	r.bufs[0].Free()
	r.bufs, r.at = r.bufs[1:], 0
}

// free gives up what was not read.
func (r *arrived) free() {
	r.bufs.Free()
	r.bufs, r.at = nil, 0
}
