// Package offheap owns memory outside of the heap of Go: the garbage collector
// neither looks into it nor counts it, so that a large cache makes collections
// neither slower nor rarer. It never decides what lies in it.
package offheap

import (
	"fmt"
	"runtime"
	"sync"
)

// regionBytes is how much is asked of the system at once.
const regionBytes = 4 << 20

// Memory hands out blocks and takes none back: they go to the system together, once
// nothing refers to the Memory any more. Whoever keeps a block must therefore keep
// the Memory. It is safe for concurrent use. Where the system has no such memory
// blocks are those of the heap.
type Memory struct {
	mu      sync.Mutex
	rest    []byte // of the newest region
	regions *regions
}

type regions struct {
	source source
	all    [][]byte
	bytes  int64
}

// source is where regions come from; its functions are those of the system.
type source struct {
	get func(bytes int) ([]byte, error)
	put func([]byte) error
}

// New returns a Memory that has taken nothing yet.
func New() *Memory { return newMemory(system()) }

func newMemory(s source) *Memory {
	m := &Memory{regions: &regions{source: s}}
	runtime.AddCleanup(m, func(r *regions) { r.free() }, m.regions)
	return m
}

// Alloc returns a block of zeros. Its pages take no memory until they are written.
// The error is that of a system without memory.
func (m *Memory) Alloc(bytes int) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes <= 0 {
		return nil, nil
	}
	if bytes > len(m.rest) {
		size := max(regionBytes, bytes)
		region, err := m.regions.source.get(size)
		if err != nil {
			return nil, fmt.Errorf("ask the system for %d bytes: %w", size, err)
		}
		m.regions.all = append(m.regions.all, region)
		m.regions.bytes += int64(len(region))
		if bytes == size {
			return region[:bytes:bytes], nil
		}
		m.rest = region
	}
	b := m.rest[:bytes:bytes]
	m.rest = m.rest[bytes:]
	return b, nil
}

// Bytes returns how much was taken of the system.
func (m *Memory) Bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.regions.bytes
}

func (r *regions) free() {
	for _, b := range r.all {
		_ = r.source.put(b) // what the system does not take back it keeps until the process ends
	}
}
