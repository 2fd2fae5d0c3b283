package client

import (
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

// take writes the rest of body, n bytes, and returns how many were written.
func (s *sink) take(body freshet.BlockStream, n int64) (int64, error) {
	to, ok := s.Writer.(io.ReaderFrom)
	if !ok || n < minSendfile {
		return body.WriteTo(s)
	}
	src, ok := body.(fileBody)
	if !ok {
		return body.WriteTo(s)
	}
	f, off, ok := src.File()
	if !ok {
		return body.WriteTo(s)
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return body.WriteTo(s)
	}
	done, err := to.ReadFrom(io.LimitReader(f, n))
	src.Skip(done)
	s.err = err // a local file whose bytes were verified does not fail
	return done, err
}
