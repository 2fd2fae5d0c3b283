package fill

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// maxSwitches bounds how often one stream goes on with another source.
const maxSwitches = maxTries

// Stream gives the bytes of one read. When its source fails in a way that says
// nothing about the file (a damaged block, a node that went away, a full disk)
// it goes on with another source at the same byte. It is used by one goroutine
// at a time and must be closed.
type Stream struct {
	filler   *Filler
	ctx      context.Context //nolint:containedctx // that of the read, which the stream is
	req      freshet.BlockRead
	off, end int64
	sent     int64
	src      source
	noFill   bool  // the cache failed this stream once
	noRemote bool  // another node failed this stream once
	noShare  bool  // what it shared with others failed
	opened   int64 // where src begins
	switches int
}

var _ freshet.BlockStream = (*Stream)(nil)

// source gives the bytes of a block from an offset on.
type source interface {
	// read returns bytes from off.
	read(ctx context.Context, p []byte, off int64) (int, error)
	origin() freshet.Origin
	close() error
}

// Length returns how many bytes the whole stream has.
func (s *Stream) Length() int64 { return s.req.Length }

// Origin says where the bytes come from, as far as is known now.
func (s *Stream) Origin() freshet.Origin {
	if s.src == nil {
		return freshet.OriginHit
	}
	return s.src.origin()
}

// Sent returns how many bytes were taken from the stream.
func (s *Stream) Sent() int64 { return s.sent }

// Skip says that n bytes were taken by way of File.
func (s *Stream) Skip(n int64) { s.advance(min(n, s.end-s.off)) }

func (s *Stream) advance(n int64) {
	s.off += n
	s.sent += n
}

// Turn makes the stream go on at another byte of the block, for n bytes. It is for a
// stream of a whole block of which ranges are wanted: one that was opened for less
// returns KindInvalid for what lies outside of it.
func (s *Stream) Turn(off, n int64) error {
	if off < s.req.Offset || n < 0 || off > s.req.Offset+s.req.Length || n > s.req.Offset+s.req.Length-off {
		return freshet.Errorf(freshet.KindInvalid, "read block", "", "range %d+%d is outside of what was opened", off, n)
	}
	if _, ok := s.src.(*bodySource); ok {
		return freshet.Errorf(freshet.KindUnsupported, "read block", "", "bytes that are not cached come in their order")
	}
	s.off, s.end = off, off+n
	return nil
}

// Close frees the stream.
func (s *Stream) Close() error {
	if s.src == nil {
		return nil
	}
	err := s.src.close()
	s.src = nil
	return err
}

// open opens the best source for the bytes from s.off on.
func (s *Stream) open() error {
	f := s.filler
	s.opened = s.off
	if r := f.openTier(s.req); r != nil {
		s.src = &tierSource{r}
		return nil
	}
	if f.awaitEnding(s.ctx, s.req.Block.ID) {
		return s.open()
	}
	if s.req.Cached {
		return freshet.Errorf(freshet.KindNotExist, "read block", "", "this node does not hold the block")
	}
	if !s.noFill {
		fl, ending := f.join(s.req, s.off)
		if ending {
			return s.open()
		}
		if fl != nil {
			s.src = &flightSource{fl}
			// The first byte decides whether the read succeeds, and from where.
			if _, err := fl.wait(s.ctx, s.off); err != nil {
				return s.replace(err)
			}
			return nil
		}
	}
	return s.openDirect()
}

// openDirect opens just the range of this read, past the cache.
func (s *Stream) openDirect() error {
	f, r := s.filler, span{s.off, s.end - s.off}
	if !s.noShare {
		if p := f.share(s.req, r, s.noRemote); p != nil {
			s.src = partSource{p}
			if _, err := s.src.read(s.ctx, make([]byte, 1), s.off); err != nil {
				return s.replace(err)
			}
			s.fetchRest()
			return nil
		}
	}
	body, origin, err := f.openDirect(s.ctx, s.req, r, s.noRemote)
	if err != nil {
		return err
	}
	s.src = &bodySource{body, origin}
	s.fetchRest()
	return nil
}

// fetchRest has the rest of the block fetched in the background, unless the cache
// can't take it.
func (s *Stream) fetchRest() {
	if !s.noFill && s.req.Length < s.req.Block.Length {
		s.filler.fetchRest(s.req)
	}
}

// openDirect opens a range at another node, unless noRemote, or in the storage, for a
// reader who waits.
func (f *Filler) openDirect(ctx context.Context, req freshet.BlockRead, r span, noRemote bool) (io.ReadCloser, freshet.Origin, error) {
	defer f.pace.busy()()
	if !noRemote {
		for _, node := range f.remotes(req) {
			body, err := f.openWatched(ctx, func(ctx context.Context) (io.ReadCloser, error) { return f.openRemote(ctx, node, req, r) })
			if err == nil {
				return &waitedFor{body, &f.pace}, freshet.OriginRemote, nil
			}
		}
	}
	body, err := f.openWatched(ctx, func(ctx context.Context) (io.ReadCloser, error) { return f.openUFS(ctx, req, r) })
	if err != nil {
		return nil, freshet.OriginUFS, err
	}
	return &waitedFor{body, &f.pace}, freshet.OriginUFS, nil
}

// waitedFor is a body of which a reader waits for each byte.
type waitedFor struct {
	*watched

	pace *pacer
}

func (w *waitedFor) Read(p []byte) (int, error) {
	defer w.pace.busy()()
	return w.watched.Read(p)
}

// replace opens another source after err, or returns err if another one would
// not help.
func (s *Stream) replace(err error) error {
	if s.src == nil || s.ctx.Err() != nil || s.switches >= maxSwitches {
		return err
	}
	s.switches++
	switch src := s.src.(type) {
	case *tierSource: // damaged: fetch the block again
	case *flightSource:
		if !errors.Is(err, errNotCached) {
			return err
		}
		s.noFill = true
	case partSource:
		if s.filler.stopped() || errors.Is(err, context.Canceled) {
			s.noShare = true
			break
		}
		return err
	case *bodySource:
		switch {
		case src.from == freshet.OriginRemote:
			s.noRemote = true
		case !again(err, s.switches, s.off > s.opened):
			return err
		}
		s.noFill = true // it goes on where it was
	}
	_ = s.Close() //nolint:errcheck // it has failed already
	return s.open()
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.off < s.end {
		if s.src == nil {
			return 0, freshet.Errorf(freshet.KindInternal, "read block", "", "the stream was closed")
		}
		n, err := s.src.read(s.ctx, p[:min(int64(len(p)), s.end-s.off)], s.off)
		s.advance(int64(n))
		if n > 0 {
			return n, nil
		}
		if err != nil {
			if err := s.replace(err); err != nil {
				return 0, wrapEnd(err)
			}
		}
	}
	return 0, io.EOF
}

// wrapEnd gives the end of the read's context a Kind.
func wrapEnd(err error) error {
	var e *freshet.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return freshet.Errorf(freshet.KindDeadline, "read block", "", "%w", err)
	case errors.Is(err, context.Canceled), errors.Is(err, errNotCached):
		return freshet.Errorf(freshet.KindUnavailable, "read block", "", "%w", err)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return freshet.Wrap("read block", "", err)
}

// WriteTo implements io.WriterTo: it writes the rest of the stream to w, without
// a copy in between where the block lies in memory.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	var done int64
	var buf []byte
	for s.off < s.end {
		if src, ok := s.src.(*tierSource); ok {
			n, err := src.r.CopyTo(w, s.off, s.end-s.off)
			s.advance(n)
			done += n
			if err != nil && !freshet.IsKind(err, freshet.KindCorrupt) {
				return done, err
			}
			if err != nil {
				if err := s.replace(err); err != nil {
					return done, wrapEnd(err)
				}
			}
			continue
		}
		if src, ok := s.src.(*flightSource); ok {
			n, err := s.handOn(src, w)
			done += n
			if err != nil {
				return done, err
			}
			if n > 0 {
				continue
			}
		}
		if buf == nil {
			buf = make([]byte, min(copyBuffer, s.end-s.off))
		}
		n, err := s.Read(buf)
		if err == nil {
			n, err = w.Write(buf[:n])
		}
		done += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// View returns up to n of the next bytes where the block lies in memory, nil if they
// have to be read. They are taken from the stream, were verified, and never change
// as long as somebody has them.
func (s *Stream) View(n int64) []byte {
	src, ok := s.src.(*tierSource)
	if !ok {
		return nil
	}
	b := src.r.View(s.off, min(n, s.end-s.off))
	s.advance(int64(len(b)))
	return b
}

// handOn writes bytes to w that have come and are addressable; 0 if none is.
func (s *Stream) handOn(src *flightSource, w io.Writer) (int64, error) {
	have, err := src.fl.wait(s.ctx, s.off)
	if err != nil {
		return 0, nil //nolint:nilerr // Read comes upon it too
	}
	b := src.fl.writer.View(s.off, min(have, s.end)-s.off)
	if len(b) == 0 {
		return 0, nil
	}
	n, err := w.Write(b)
	s.advance(int64(n))
	return int64(n), err
}

// File returns, for a block in a tier on a disk, the open file and the offset in
// it of the stream's next byte, for sendfile or for passing it to another
// process; false for any other source. The bytes of the stream were verified.
// The file ends with the stream.
func (s *Stream) File() (f *os.File, off int64, ok bool) {
	src, isTier := s.src.(*tierSource)
	if !isTier {
		return nil, 0, false
	}
	f, base := src.r.File()
	if f == nil || src.r.Verify(s.off, s.end-s.off) != nil {
		return nil, 0, false // Read and WriteTo go on with another source
	}
	return f, base + s.off, true
}

type tierSource struct{ r *tier.Reader }

func (t *tierSource) read(_ context.Context, p []byte, off int64) (int, error) {
	n, err := t.r.ReadAt(p, off)
	if n > 0 {
		err = nil
	}
	return n, err
}
func (t *tierSource) origin() freshet.Origin { return freshet.OriginHit }
func (t *tierSource) close() error           { return t.r.Close() }

type flightSource struct{ fl *flight }

func (f *flightSource) read(ctx context.Context, p []byte, off int64) (int, error) {
	have, err := f.fl.wait(ctx, off)
	if err != nil {
		return 0, err
	}
	n, err := f.fl.writer.ReadAt(p[:min(int64(len(p)), have-off)], off)
	if err != nil {
		return 0, errNotCached
	}
	return n, nil
}
func (f *flightSource) origin() freshet.Origin { return f.fl.originNow() }

func (f *flightSource) close() error {
	f.fl.filler.leave(f.fl, true)
	return nil
}

type bodySource struct {
	rc   io.ReadCloser
	from freshet.Origin
}

func (b *bodySource) read(_ context.Context, p []byte, _ int64) (int, error) { return b.rc.Read(p) }
func (b *bodySource) origin() freshet.Origin                                 { return b.from }
func (b *bodySource) close() error                                           { return b.rc.Close() }
