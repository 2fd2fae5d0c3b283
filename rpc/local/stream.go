package local

import (
	"context"
	"io"

	"github.com/freshet-io/freshet"
)

// streamBuffer is how much WriteTo reads at a time.
const streamBuffer = 512 << 10

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
		return 0, err
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
	q := s.req
	q.Offset += s.done
	if d := s.desc; d != nil && d.acquire() {
		err := d.readAt(p, q.Offset)
		d.release()
		if err == nil {
			s.pool.touch(d)
			return true
		}
		s.pool.drop(d, err, &q)
	}
	if s.desc = s.pool.borrow(s.ctx, s.node, &q); s.desc == nil {
		return false
	}
	defer s.desc.release()
	err := s.desc.readAt(p, q.Offset)
	if err != nil {
		s.pool.drop(s.desc, err, &q)
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
	buf := make([]byte, min(streamBuffer, max(s.req.Length-s.done, 1)))
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
