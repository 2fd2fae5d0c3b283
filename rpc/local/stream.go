package local

import (
	"context"
	"errors"
	"io"

	"github.com/freshet-io/freshet"
)

// streamBuffer is how much WriteTo reads at a time.
const streamBuffer = 512 << 10

// buffer returns a buffer for so many bytes, at most streamBuffer.
func (p *Pool) buffer(n int64) (b []byte, free func()) {
	if n < streamBuffer/2 {
		return make([]byte, max(n, 1)), func() {}
	}
	a, ok := p.buffers.Get().(*[streamBuffer]byte)
	if !ok {
		a = new([streamBuffer]byte)
	}
	return a[:], func() { p.buffers.Put(a) }
}

// stream reads a range of a block by a descriptor for as long as it can, and goes on
// over the network where not: the bytes are of one version either way.
type stream struct {
	pool *Pool
	ctx  context.Context //nolint:containedctx // that of the read, which the stream is
	node freshet.Node
	req  freshet.BlockRead
	done int64
	desc *descriptor // may be closed meanwhile
	rest freshet.BlockStream
}

// Length implements freshet.BlockStream.
func (s *stream) Length() int64 { return s.req.Length }

// Origin implements freshet.BlockStream.
func (s *stream) Origin() freshet.Origin { return freshet.OriginHit }

// Close implements io.Closer.
func (s *stream) Close() error {
	s.desc = nil
	if s.rest != nil {
		return s.rest.Close()
	}
	return nil
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if s.rest != nil {
		return s.rest.Read(p)
	}
	n := min(int64(len(p)), s.req.Length-s.done)
	if n == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	if err := s.ctx.Err(); err != nil {
		kind := freshet.KindUnavailable
		if errors.Is(err, context.DeadlineExceeded) {
			kind = freshet.KindDeadline
		}
		return 0, freshet.Errorf(kind, "read block", "", "%w", err)
	}
	if s.read(p[:n]) {
		s.done += n
		return int(n), nil
	}
	if err := s.goOn(); err != nil {
		return 0, err
	}
	return s.rest.Read(p)
}

// read fills p by a descriptor; false if there is none that works.
func (s *stream) read(p []byte) bool {
	off, b, src := s.req.Offset+s.done, &s.req.Block, &s.req.Source
	if d := s.desc; d != nil && d.acquire() {
		err := d.readAt(p, off)
		d.release()
		if err == nil {
			s.pool.touch(d)
			return true
		}
		s.pool.drop(d, err, b, src)
	}
	if s.desc = s.pool.borrow(s.ctx, &s.node, b, src); s.desc == nil {
		return false
	}
	defer s.desc.release()
	err := s.desc.readAt(p, off)
	if err != nil {
		s.pool.drop(s.desc, err, b, src)
	}
	return err == nil
}

// goOn opens the rest over the network.
func (s *stream) goOn() error {
	q := s.req
	q.Offset, q.Length = q.Offset+s.done, q.Length-s.done
	rest, err := s.pool.next.ReadBlock(s.ctx, s.node, q)
	if err != nil {
		return err
	}
	s.rest = rest
	return nil
}

// WriteTo implements io.WriterTo.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	buf, free := s.pool.buffer(s.req.Length - s.done)
	defer free()
	var total int64
	for s.rest == nil {
		n, err := s.Read(buf)
		if err == io.EOF { //nolint:errorlint // Read returns it itself
			return total, nil
		}
		if err != nil {
			return total, err
		}
		m, err := w.Write(buf[:n])
		total += int64(m)
		if err != nil {
			return total, err
		}
	}
	n, err := s.rest.WriteTo(w)
	return total + n, err
}
