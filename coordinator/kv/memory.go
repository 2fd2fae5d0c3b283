package kv

import (
	"bytes"
	"sync"

	"github.com/tidwall/btree"
)

type item struct {
	key   string
	value []byte // never changed once it is in a tree
}

func less(a, b item) bool { return a.key < b.key }

type tree = btree.BTreeG[item]

func newTree() *tree { return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true}) }

// Memory is a Store in memory, for tests and simulation. A batch writes to a
// copy-on-write copy of the tree, so that views cost nothing. It starts no
// goroutine. It remembers what Flush made durable, see Crash.
type Memory struct {
	mu      sync.RWMutex
	live    *tree // never changed in place: Commit replaces it
	durable *tree
	closed  bool
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	t := newTree()
	return &Memory{live: t, durable: t}
}

// Crash returns a store that holds what was durable in m, as if the process had
// died: batches since the last Flush are lost. m itself is closed.
func (m *Memory) Crash() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return &Memory{live: m.durable, durable: m.durable}
}

func (m *Memory) tree() (*tree, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	return m.live, nil
}

// Get implements Reader.
func (m *Memory) Get(key []byte) ([]byte, bool, error) {
	t, err := m.tree()
	if err != nil {
		return nil, false, err
	}
	return get(t, key)
}

// Scan implements Reader.
func (m *Memory) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	t, err := m.tree()
	if err != nil {
		return err
	}
	scan(t, start, end, fn)
	return nil
}

// View implements Store.
func (m *Memory) View() (View, error) {
	t, err := m.tree()
	if err != nil {
		return nil, err
	}
	return memoryView{t}, nil
}

// NewBatch implements Store.
func (m *Memory) NewBatch() Batch {
	m.mu.Lock() // copying a tree writes to it
	defer m.mu.Unlock()
	return &memoryBatch{store: m, base: m.live, tree: m.live.IsoCopy()}
}

// Flush implements Store.
func (m *Memory) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.durable = m.live
	return nil
}

// Metrics implements Store.
func (m *Memory) Metrics() Metrics { return Metrics{} }

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

type memoryView struct{ tree *tree }

func (v memoryView) Get(key []byte) ([]byte, bool, error) { return get(v.tree, key) }

func (v memoryView) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	scan(v.tree, start, end, fn)
	return nil
}

func (memoryView) Close() error { return nil }

type memoryBatch struct {
	store *Memory
	base  *tree
	tree  *tree // nil after Commit or Close
}

func (b *memoryBatch) Get(key []byte) ([]byte, bool, error) {
	if b.tree == nil {
		return nil, false, ErrClosed
	}
	return get(b.tree, key)
}

func (b *memoryBatch) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	if b.tree == nil {
		return ErrClosed
	}
	scan(b.tree, start, end, fn)
	return nil
}

func (b *memoryBatch) Set(key, value []byte) error {
	if b.tree == nil {
		return ErrClosed
	}
	b.tree.Set(item{key: string(key), value: bytes.Clone(value)})
	return nil
}

func (b *memoryBatch) Delete(key []byte) error {
	if b.tree == nil {
		return ErrClosed
	}
	b.tree.Delete(item{key: string(key)})
	return nil
}

func (b *memoryBatch) DeleteRange(start, end []byte) error {
	if b.tree == nil {
		return ErrClosed
	}
	var keys []string
	scan(b.tree, start, end, func(key, _ []byte) bool {
		keys = append(keys, string(key))
		return true
	})
	for _, key := range keys {
		b.tree.Delete(item{key: key})
	}
	return nil
}

func (b *memoryBatch) Commit() error {
	if b.tree == nil {
		return ErrClosed
	}
	t := b.tree
	b.tree = nil
	m := b.store
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case m.live != b.base:
		return ErrConflict
	}
	m.live = t
	return nil
}

func (b *memoryBatch) Close() error {
	b.tree = nil
	return nil
}

func get(t *tree, key []byte) ([]byte, bool, error) {
	it, ok := t.Get(item{key: string(key)})
	if !ok {
		return nil, false, nil
	}
	return bytes.Clone(it.value), true, nil
}

func scan(t *tree, start, end []byte, fn func(key, value []byte) bool) {
	bound := string(end)
	t.Ascend(item{key: string(start)}, func(it item) bool {
		if bound != "" && it.key >= bound {
			return false
		}
		return fn([]byte(it.key), it.value)
	})
}
