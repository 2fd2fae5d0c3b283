package client

import (
	"errors"
	"io"
	"os"

	"github.com/freshet-io/freshet"
)

// minSendfile is from how many bytes on it pays to let the kernel send a file.
const minSendfile = 64 << 10

// fileBody is a body whose bytes lie in a file of this machine.
type fileBody interface {
	// File returns the file and the offset in it of the next byte.
	File() (f *os.File, off int64, ok bool)
	// Skip says that n bytes were taken from the file.
	Skip(n int64)
}

// sink is a writer that keeps its own errors apart from those of the source.
type sink struct {
	io.Writer

	err error
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// viewed is a body whose bytes lie in memory.
type viewed interface {
	// View returns up to n of the next bytes, which are taken from the body and never
	// change as long as somebody has them; nil if they have to be read.
	View(n int64) []byte
}

// take writes the rest of body, n bytes, and returns how many were written.
func (s *sink) take(body freshet.BlockStream, n int64) (int64, error) {
	to, ok := s.Writer.(io.ReaderFrom)
	if !ok || n < minSendfile {
		return body.WriteTo(s)
	}
	if src, ok := body.(fileBody); ok {
		if f, off, ok := src.File(); ok {
			if _, err := f.Seek(off, io.SeekStart); err == nil {
				return s.sendFile(to, src, f, n)
			}
		}
	}
	if src, ok := body.(viewed); ok {
		p := &pieces{body: body, views: src, left: n}
		done, err := to.ReadFrom(p)
		if s.err = err; p.failed != nil {
			s.err, err = nil, p.failed
		}
		return done, err
	}
	return body.WriteTo(s)
}

func (s *sink) sendFile(to io.ReaderFrom, src fileBody, f *os.File, n int64) (int64, error) {
	done, err := to.ReadFrom(io.LimitReader(f, n))
	src.Skip(done)
	s.err = err // a local file whose bytes were verified does not fail
	return done, err
}

// pieces are the bytes of a body that lies in memory: who writes them can have many
// pieces at once, for one system call.
type pieces struct {
	body   freshet.BlockStream
	views  viewed
	left   int64
	failed error // of the body
}

// Pieces returns up to n of the next bytes where they lie, none if they have to be
// read or written by WriteTo.
func (p *pieces) Pieces(n int64) (all [][]byte) {
	for n = min(n, p.left); n > 0; {
		b := p.views.View(n)
		if len(b) == 0 {
			break
		}
		all = append(all, b)
		n -= int64(len(b))
		p.left -= int64(len(b))
	}
	return all
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		p.failed = err
	}
	return n, err
}

// WriteTo implements io.WriterTo.
func (p *pieces) WriteTo(w io.Writer) (int64, error) {
	to := &sink{Writer: w}
	n, err := p.body.WriteTo(to)
	p.left -= n
	if to.err == nil {
		p.failed = err
	}
	return n, err
}
