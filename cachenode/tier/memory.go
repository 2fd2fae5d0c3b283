package tier

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/freshet-io/freshet"
)

// memory keeps blocks as chunks on the heap, so that a block in the making grows
// without being copied. One that is lent to another process moves into a file in
// memory first, and stays there: streams are slower from it than from the heap.
type memory struct {
	mu     sync.RWMutex
	blocks map[freshet.BlockID]*memoryBlock

	files  atomic.Int64 // blocks in a file
	moving sync.Mutex   // one moves at a time: for a moment it is there twice
}

type memoryBlock struct {
	in   *memory
	refs atomic.Int64 // of the list of blocks, handles and the draft

	mu     sync.RWMutex // the list grows while others read
	chunks [][]byte     // all of ChunkSize but the last; nil if the block is in file
	file   *os.File
	sealed bool // file can't be changed any more
	header header
	table  []uint64
}

func newMemory() *memory { return &memory{blocks: make(map[freshet.BlockID]*memoryBlock)} }

func (m *memory) create() (draft, error) {
	b := &memoryBlock{in: m}
	b.refs.Store(1)
	return &memoryDraft{in: m, block: b}, nil
}

// leave gives up one reference; the last one to leave frees the file.
func (b *memoryBlock) leave() {
	if b.refs.Add(-1) > 0 || b.file == nil {
		return
	}
	_ = b.file.Close() //nolint:errcheck // memory
	b.in.files.Add(-1)
}

func (m *memory) open(e *entry) (handle, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := m.blocks[e.id]
	if b == nil {
		return nil, freshet.Errorf(freshet.KindNotExist, "open block", "", "block %s was removed", blockName(e.id))
	}
	b.refs.Add(1)
	return memoryHandle{b}, nil
}

func (m *memory) remove(id freshet.BlockID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.blocks[id]; b != nil {
		delete(m.blocks, id)
		b.leave()
	}
}

func (m *memory) setAside(freshet.BlockID, int64) (string, bool) { return "", false }
func (m *memory) removeAside(string)                             {}
func (m *memory) hold(freshet.FileID) error                      { return nil }
func (m *memory) unhold(freshet.FileID) error                    { return nil }
func (m *memory) settle(freshet.BlockID) error                   { return nil }
func (m *memory) sync(freshet.BlockID) error                     { return nil }
func (m *memory) probe() error                                   { return nil }
func (m *memory) stuck() bool                                    { return false }

func (m *memory) footprint(length int64) int64 { return length + 8*chunks(length) }

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range m.blocks {
		delete(m.blocks, id)
		b.leave()
	}
	return nil
}

type memoryDraft struct {
	in    *memory
	block *memoryBlock
}

func (d *memoryDraft) append(p []byte) error {
	b := d.block
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p) > 0 {
		last := len(b.chunks) - 1
		if last < 0 || len(b.chunks[last]) == ChunkSize {
			b.chunks = append(b.chunks, make([]byte, 0, min(ChunkSize, roundUp(len(p)))))
			last++
		}
		n := min(len(p), ChunkSize-len(b.chunks[last]))
		b.chunks[last] = append(b.chunks[last], p[:n]...)
		p = p[n:]
	}
	return nil
}

func (d *memoryDraft) expect(int64) (int64, error) { return 0, nil }

func (d *memoryDraft) chunk(i, size, of int64) []byte {
	b := d.block
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		return nil
	}
	c := make([]byte, size)
	if b.chunks == nil {
		b.chunks = make([][]byte, of)
	}
	b.chunks[i] = c[:0]
	return c
}

// fill makes bytes readable that are in place.
func (d *memoryDraft) fill(p []byte, off int64) error {
	b := d.block
	b.mu.Lock()
	f := b.file
	if f == nil {
		c := b.chunks[off/ChunkSize]
		b.chunks[off/ChunkSize] = c[:len(c)+len(p)]
	}
	b.mu.Unlock()
	if f != nil { // since the block was lent
		_, err := f.WriteAt(p, off)
		return err
	}
	return nil
}

func (d *memoryDraft) view(off, n int64) []byte { return memoryHandle{d.block}.view(off, n) }

// roundUp keeps small blocks small and big ones free of repeated growth.
func roundUp(n int) int { return (n + 4095) &^ 4095 }

func (d *memoryDraft) readAt(p []byte, off int64) error { return memoryHandle{d.block}.readAt(p, off) }

func (d *memoryDraft) prepare(h header, table []uint64) error {
	d.block.header, d.block.table = h, table
	return d.block.seal()
}

func (d *memoryDraft) sync() error { return nil }

func (d *memoryDraft) publish(id freshet.BlockID) (stamp, error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	d.in.blocks[id] = d.block
	d.block.refs.Add(1)
	return stamp{}, nil
}

func (d *memoryDraft) close() { d.block.leave() }

type memoryHandle struct{ block *memoryBlock }

func (h memoryHandle) readAt(p []byte, off int64) error {
	for len(p) > 0 {
		n := copy(p, h.view(off, int64(len(p))))
		if n == 0 {
			return h.block.readFile(p, off)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readFile reads from the file, if the block is in one.
func (b *memoryBlock) readFile(p []byte, off int64) error {
	b.mu.RLock()
	f := b.file
	b.mu.RUnlock()
	if f == nil {
		return errShort
	}
	if n, err := f.ReadAt(p, off); n < len(p) {
		return errors.Join(errShort, err)
	}
	return nil
}

// view returns up to n bytes from off: what its chunk has of them; nil if the block
// is in a file.
func (h memoryHandle) view(off, n int64) []byte {
	h.block.mu.RLock()
	defer h.block.mu.RUnlock()
	i := off / ChunkSize
	if i >= int64(len(h.block.chunks)) {
		return nil
	}
	c := h.block.chunks[i]
	from := min(off%ChunkSize, int64(len(c)))
	to := min(from+n, int64(len(c)))
	return c[from:to:to]
}

func (h memoryHandle) load() (header, []uint64, error) { return h.block.header, h.block.table, nil }
func (h memoryHandle) stamp() (stamp, error)           { return stamp{}, nil }
func (h memoryHandle) file() (*os.File, int64)         { return nil, 0 }

func (h memoryHandle) close() error {
	h.block.leave()
	return nil
}
