package tier

import (
	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
)

// Section writes one part of a block whose length was known to Create, beside the
// sections that write the other parts. It is used by one goroutine at a time, and
// must be closed before its Writer is.
type Section struct {
	w     *Writer
	at    int64  // of the next byte, in the block
	end   int64  // of the section
	piece []byte // where the bytes from at on go; nil: there are none yet
	have  int    // of it
	free  func() // gives piece back, if it is not the block's own memory
	hash  *xxh3.Hasher
}

// Section returns the section of n bytes from off. It begins where a chunk does and
// ends where one does, or with the block; KindInvalid otherwise. A block is written
// by sections that do not overlap, or by Write.
func (w *Writer) Section(off, n int64) (*Section, error) {
	end := off + n
	if w.length < 0 || off < 0 || n <= 0 || end > w.length || off%ChunkSize != 0 || (end%ChunkSize != 0 && end != w.length) {
		return nil, freshet.Errorf(freshet.KindInvalid, "write block", "", "%d bytes at %d can't be written by themselves", n, off)
	}
	w.split.Do(func() {
		w.table = make([]uint64, chunks(w.length))
		w.base, w.noRoom = w.draft.expect(w.length)
	})
	if w.noRoom != nil {
		return nil, w.noRoom
	}
	return &Section{w: w, at: off, end: end, hash: xxh3.New()}, nil
}

// Left returns how many bytes the section still lacks.
func (s *Section) Left() int64 { return s.end - s.at }

// Space returns where the next bytes go, at most ChunkSize; Extend takes them. A file
// gets whole pages the cheapest, and many of them at a time, so a piece ends where a
// multiple of ChunkSize in the file does. It is valid until the next call of Extend or
// Close.
func (s *Section) Space() []byte {
	if s.piece == nil && s.at < s.end {
		s.take()
	}
	return s.piece[s.have:]
}

func (s *Section) take() {
	i := s.at / ChunkSize
	if s.at%ChunkSize == 0 {
		if s.piece = s.w.draft.chunk(i, min(ChunkSize, s.w.length-s.at), chunks(s.w.length)); s.piece != nil {
			return
		}
	}
	b, free := s.w.tier.chunkBuffer()
	room := ChunkSize - (s.at+s.w.base)%ChunkSize
	s.piece, s.free = b[:min(room, s.end-s.at)], free
}

// Extend adds the first n bytes of Space, which can be read from then on. After an
// error the block can't be completed.
func (s *Section) Extend(n int) error {
	p := s.piece[s.have : s.have+n]
	if err := s.w.draft.fill(p, s.at); err != nil {
		return err
	}
	for len(p) > 0 {
		left := min(ChunkSize-s.at%ChunkSize, s.end-s.at)
		m := min(int64(len(p)), left)
		_, _ = s.hash.Write(p[:m]) //nolint:errcheck // a hash never fails
		s.at += m
		p = p[m:]
		if m == left {
			s.w.table[(s.at-1)/ChunkSize] = s.hash.Sum64()
			s.hash.Reset()
		}
	}
	if s.have += n; s.have == len(s.piece) {
		s.release()
	}
	s.w.filled.Add(int64(n))
	return nil
}

func (s *Section) release() {
	if s.free != nil {
		s.free()
	}
	s.piece, s.have, s.free = nil, 0, nil
}

// Close frees what the section holds. What it wrote stays.
func (s *Section) Close() { s.release() }

// View returns up to n bytes from off, all of which must have been written, where
// they are addressable: in memory, up to the end of a chunk. Else it is nil.
func (w *Writer) View(off, n int64) []byte { return w.draft.view(off, n) }
