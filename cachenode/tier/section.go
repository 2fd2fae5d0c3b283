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
	chunk []byte // where the bytes of the chunk at at go; nil: there are none yet
	have  int    // of it
	free  func() // gives chunk back, if it is not the block's own memory
}

// Section returns the section of n bytes from off. It begins where a chunk does and
// ends where one does, or with the block; KindInvalid otherwise. A block is written
// by sections that do not overlap, or by Write.
func (w *Writer) Section(off, n int64) (*Section, error) {
	end := off + n
	if w.length < 0 || off < 0 || n <= 0 || end > w.length || off%ChunkSize != 0 || (end%ChunkSize != 0 && end != w.length) {
		return nil, freshet.Errorf(freshet.KindInvalid, "write block", "", "%d bytes at %d can't be written by themselves", n, off)
	}
	w.split.Do(func() { w.table = make([]uint64, chunks(w.length)) })
	return &Section{w: w, at: off, end: end}, nil
}

// Left returns how many bytes the section still lacks.
func (s *Section) Left() int64 { return s.end - s.at }

// Space returns where the next bytes go, at most up to the end of a chunk; Extend
// takes them. It is valid until the next call of Extend or Close.
func (s *Section) Space() []byte {
	if s.chunk == nil && s.at < s.end {
		size := min(ChunkSize, s.w.length-s.at)
		if s.chunk = s.w.draft.chunk(s.at/ChunkSize, size, chunks(s.w.length)); s.chunk == nil {
			b, free := s.w.tier.chunkBuffer()
			s.chunk, s.free = b[:size], free
		}
	}
	return s.chunk[s.have:]
}

// Extend adds the first n bytes of Space, which can be read from then on. After an
// error the block can't be completed.
func (s *Section) Extend(n int) error {
	if err := s.w.draft.fill(s.chunk[s.have:s.have+n], s.at); err != nil {
		return err
	}
	s.have += n
	s.at += int64(n)
	if s.have == len(s.chunk) {
		s.w.table[(s.at-1)/ChunkSize] = xxh3.Hash(s.chunk)
		s.release()
	}
	s.w.filled.Add(int64(n))
	return nil
}

func (s *Section) release() {
	if s.free != nil {
		s.free()
	}
	s.chunk, s.have, s.free = nil, 0, nil
}

// Close frees what the section holds. What it wrote stays.
func (s *Section) Close() { s.release() }

// View returns up to n bytes from off, all of which must have been written, where
// they are addressable: in memory, up to the end of a chunk. Else it is nil.
func (w *Writer) View(off, n int64) []byte { return w.draft.view(off, n) }
