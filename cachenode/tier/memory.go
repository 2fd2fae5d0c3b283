package tier

import (
	"os"
	"sync"

	"github.com/freshet-io/freshet"
)

// memory keeps blocks as chunks on the heap, so that a block in the making grows
// without being copied.
type memory struct {
	mu     sync.RWMutex
	blocks map[freshet.BlockID]*memoryBlock
}

type memoryBlock struct {
	mu     sync.RWMutex // the list grows while others read
	chunks [][]byte     // all of ChunkSize but the last
	header header
	table  []uint64
}

func newMemory() *memory { return &memory{blocks: make(map[freshet.BlockID]*memoryBlock)} }

func (m *memory) create() (draft, error) { return &memoryDraft{in: m, block: new(memoryBlock)}, nil }

func (m *memory) open(e *entry) (handle, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := m.blocks[e.id]
	if b == nil {
		return nil, freshet.Errorf(freshet.KindNotExist, "open block", "", "block %s was removed", blockName(e.id))
	}
	return memoryHandle{b}, nil
}

func (m *memory) remove(id freshet.BlockID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blocks, id)
}

func (m *memory) setAside(freshet.BlockID, int64) (string, bool) { return "", false }
func (m *memory) removeAside(string)                             {}
func (m *memory) hold(freshet.FileID) error                      { return nil }
func (m *memory) unhold(freshet.FileID)                          {}
func (m *memory) settle(freshet.BlockID) error                   { return nil }
func (m *memory) probe() error                                   { return nil }

func (m *memory) footprint(length int64) int64 { return length + 8*chunks(length) }

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.blocks)
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

// roundUp keeps small blocks small and big ones free of repeated growth.
func roundUp(n int) int { return (n + 4095) &^ 4095 }

func (d *memoryDraft) readAt(p []byte, off int64) error { return memoryHandle{d.block}.readAt(p, off) }

func (d *memoryDraft) prepare(h header, table []uint64) error {
	d.block.header, d.block.table = h, table
	return nil
}

func (d *memoryDraft) sync() error { return nil }

func (d *memoryDraft) publish(id freshet.BlockID) (stamp, error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	d.in.blocks[id] = d.block
	return stamp{}, nil
}

func (d *memoryDraft) close() {}

type memoryHandle struct{ block *memoryBlock }

func (h memoryHandle) readAt(p []byte, off int64) error {
	for len(p) > 0 {
		n := copy(p, h.view(off, int64(len(p))))
		if n == 0 {
			return errShort
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// view returns up to n bytes from off: what its chunk has of them.
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
func (h memoryHandle) close() error                    { return nil }
