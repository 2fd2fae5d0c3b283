package namespace

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

// cacheShard is a ring of rows and an index of it. Rows are appended at the head
// and forgotten at the tail, but for those that were read since they were last
// appended: these are appended once more.
//
// A row is a head of four bytes, parent, name and the stored form of the inode,
// filled up to a multiple of four. It lies in one block; what is left at the end of
// a block is a dead row.
type cacheShard struct {
	mu    sync.Mutex
	index rowIndex
	alloc func(bytes int) ([]byte, error)

	blocks     [][]byte // made when the ring first reaches them
	size       int      // of the ring: a multiple of 1<<shift
	shift      uint     // of the size of a block
	head, tail uint64   // bytes appended and forgotten so far; modulo size they are positions
	scratch    []byte   // of the row that is moved

	hits, misses int64
}

// The head of a row: its size in units, flags, and the number of bytes of the
// parent's ID, of which leading zeros are left out.
const (
	rowUnit = 4
	rowHead = 4

	rowDead   = 1 << 0
	rowUsed   = 1 << 1
	rowAbsent = 1 << 2
	rowPad    = 3 // shift of the number of bytes behind the row that are not its own
	rowPads   = rowUnit - 1
	rowHidden = 1 << 5

	minBlockBits = 12
	maxBlockBits = 17 // so that the size of a whole block fits into a head
	// A row may take a fraction of a block, or too much were lost at the ends.
	rowsPerBlock = 4
	// bytesPerSlot is how much of a ring comes with one slot of the index: rows of
	// files take 64 to 100 bytes, and the index is to be full to three quarters.
	bytesPerSlot = 48
	// maxMoves bounds the rows that one append moves, and so how long it takes.
	maxMoves = 32
)

func (s *cacheShard) init(limit int64, alloc func(int) ([]byte, error)) {
	s.alloc = alloc
	ring := max(limit, 0) * bytesPerSlot / (bytesPerSlot + slotBytes)
	s.shift = maxBlockBits
	for s.shift > minBlockBits && ring>>s.shift < 8 {
		s.shift--
	}
	s.size = int(ring>>s.shift) << s.shift
	s.index.max = s.size / bytesPerSlot
}

func (s *cacheShard) get(hash uint64, p place, buf []byte) ([]byte, known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, at, ok := s.find(hash, p)
	if !ok || s.row(at)[2]&rowHidden != 0 {
		s.misses++
		return buf, unknown
	}
	s.hits++
	row := s.row(at)
	row[2] |= rowUsed
	if row[2]&rowAbsent != 0 {
		return buf, absent
	}
	_, _, value := cutRow(row)
	return append(buf, value...), held
}

func (s *cacheShard) put(hash uint64, p place, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(hash, p, value)
}

// fill is put unless rows are being changed.
func (s *cacheShard) fill(hash uint64, p place, value []byte, changing *atomic.Bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !changing.Load() {
		s.write(hash, p, value)
	}
}

// hide lets get find nothing until the row is put again.
func (s *cacheShard) hide(hash uint64, p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, at, ok := s.find(hash, p); ok {
		s.row(at)[2] |= rowHidden
	}
}

func (s *cacheShard) write(hash uint64, p place, value []byte) {
	size := rowSize(p, value)
	flags := byte(0)
	if slot, at, ok := s.find(hash, p); ok {
		old := s.row(at)
		flags = rowUsed
		if size <= len(old) {
			writeRow(old[:size], p, value, flags)
			if rest := old[size:]; len(rest) > 0 {
				writeDead(rest)
			}
			return
		}
		old[2] |= rowDead
		s.index.remove(slot)
	}
	if size > 1<<s.shift/rowsPerBlock || !s.index.reserve(s.drop) {
		return
	}
	s.room(size)
	if at, ok := s.place(size); ok && s.index.insert(hash, at) {
		writeRow(s.bytes(at, size), p, value, flags)
		s.head += uint64(size)
	}
}

func (s *cacheShard) forgetName(hash uint64, p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot, at, ok := s.find(hash, p); ok {
		s.drop(at)
		s.index.remove(slot)
	}
}

// find returns where the index and the ring have p.
func (s *cacheShard) find(hash uint64, p place) (slot int, at uint64, ok bool) {
	return s.index.find(hash, func(at uint64) bool { return isRow(s.row(at), p) })
}

// room forgets rows until size more bytes fit, and one more slot is free.
func (s *cacheShard) room(size int) {
	moves := maxMoves
	for s.tail != s.head && (!s.fits(size) || s.index.full()) {
		s.forget(&moves)
	}
}

// fits reports whether size bytes can be appended, and what has to be left out at
// the end of the block with them.
func (s *cacheShard) fits(size int) bool {
	return s.head-s.tail+uint64(size+s.gap(size)) <= uint64(s.size)
}

// gap returns how many bytes of the head's block are too few for size.
func (s *cacheShard) gap(size int) int {
	block := 1 << s.shift
	if left := block - int(s.head)&(block-1); left < size {
		return left
	}
	return 0
}

// forget takes the row at the tail off. One that was read since it was appended is
// appended again, as often as moves allows.
func (s *cacheShard) forget(moves *int) {
	at := s.tail % uint64(s.size)
	row := s.row(at)
	s.tail += uint64(len(row))
	if row[2]&rowDead != 0 {
		return
	}
	parent, name, _ := cutRow(row)
	hash := hashKey(parent, name)
	slot, ok := s.index.slotOf(hash, at)
	if !ok {
		return // can't be: every live row is in the index
	}
	if row[2]&rowUsed != 0 && *moves > 0 && s.fits(len(row)) {
		*moves--
		s.scratch = append(s.scratch[:0], row...)
		s.scratch[2] &^= rowUsed
		if to, ok := s.place(len(s.scratch)); ok {
			copy(s.bytes(to, len(s.scratch)), s.scratch)
			s.head += uint64(len(s.scratch))
			s.index.move(slot, to)
			return
		}
	}
	s.index.remove(slot)
}

// drop forgets the row at a position whose slot the index has lost.
func (s *cacheShard) drop(at uint64) { s.row(at)[2] |= rowDead }

// place returns the position of the next row, of that size, which fits. The head
// skips what is left of its block if that is too little. False if there is no
// memory.
func (s *cacheShard) place(size int) (at uint64, ok bool) {
	if s.size == 0 || !s.fits(size) {
		return 0, false
	}
	if gap := s.gap(size); gap > 0 {
		writeDead(s.bytes(s.head%uint64(s.size), gap))
		s.head += uint64(gap)
	}
	at = s.head % uint64(s.size)
	if int(at>>s.shift) == len(s.blocks) && !s.grow() {
		return 0, false
	}
	return s.head % uint64(s.size), s.fits(size)
}

// grow makes the next block. If there is no memory the ring stays as large as it is.
func (s *cacheShard) grow() bool {
	b, err := s.alloc(1 << s.shift)
	if err != nil || len(b) < 1<<s.shift {
		s.size = len(s.blocks) << s.shift
		return s.size > 0
	}
	s.blocks = append(s.blocks, b)
	return true
}

func (s *cacheShard) bytes(at uint64, size int) []byte {
	off := int(at) & (1<<s.shift - 1)
	return s.blocks[at>>s.shift][off : off+size]
}

// row returns the row at a position.
func (s *cacheShard) row(at uint64) []byte {
	b := s.blocks[at>>s.shift][int(at)&(1<<s.shift-1):]
	return b[:rowUnit*int(binary.LittleEndian.Uint16(b))]
}

func (s *cacheShard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.clear()
	s.head, s.tail = 0, 0
}

func (s *cacheShard) stats() cacheStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cacheStats{
		entries: int64(s.index.used), hits: s.hits, misses: s.misses,
		bytes: int64(len(s.blocks)<<s.shift + cap(s.scratch) + slotBytes*len(s.index.slots)),
	}
}

func rowSize(p place, value []byte) int {
	n := rowHead + idBytes(p.parent) + uvarintBytes(len(p.name)) + len(p.name) + len(value)
	return (n + rowUnit - 1) / rowUnit * rowUnit
}

func idBytes(id uint64) int { return (bits.Len64(id) + 7) / 8 }

func uvarintBytes(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }

// writeRow fills b with a row. A nil value says that the name is not held.
func writeRow(b []byte, p place, value []byte, flags byte) {
	size := len(b)
	if value == nil {
		flags |= rowAbsent
	}
	k := idBytes(p.parent)
	binary.LittleEndian.PutUint16(b, uint16(size/rowUnit))
	b[3] = byte(k)
	row := b[:rowHead]
	for id := p.parent; k > 0; k, id = k-1, id>>8 {
		row = append(row, byte(id))
	}
	row = binary.AppendUvarint(row, uint64(len(p.name)))
	row = append(row, p.name...)
	row = append(row, value...)
	b[2] = flags | byte(size-len(row))<<rowPad
}

func writeDead(b []byte) {
	binary.LittleEndian.PutUint16(b, uint16(len(b)/rowUnit))
	b[2], b[3] = rowDead, 0
}

// isRow reports whether row is that of p.
func isRow(row []byte, p place) bool {
	k := idBytes(p.parent)
	if int(row[3]) != k {
		return false
	}
	id := p.parent
	for _, b := range row[rowHead : rowHead+k] {
		if b != byte(id) {
			return false
		}
		id >>= 8
	}
	n, l := uint64(row[rowHead+k]), 1
	if n >= 0x80 {
		n, l = binary.Uvarint(row[rowHead+k:])
	}
	from := rowHead + k + l
	return n == uint64(len(p.name)) && string(row[from:from+int(n)]) == p.name
}

// cutRow returns the parts of a row.
func cutRow(row []byte) (parent uint64, name, value []byte) {
	k := int(row[3])
	for i := k - 1; i >= 0; i-- {
		parent = parent<<8 | uint64(row[rowHead+i])
	}
	n, l := binary.Uvarint(row[rowHead+k:])
	from := rowHead + k + l
	to := from + int(n)
	return parent, row[from:to], row[to : len(row)-int(row[2]>>rowPad&rowPads)]
}
