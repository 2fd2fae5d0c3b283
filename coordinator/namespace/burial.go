package namespace

import (
	"container/heap"
	"fmt"
	"slices"
)

// burial is where the purge of detached directories goes on. It is no part of the
// state: a member that has none begins again, and finds the same. The directories are
// in rows; a window of the lowest ones is held in memory, so that rows that were
// deleted need not be stepped over for each.
type burial struct {
	dirs  minHeap // all of the trash up to known
	known uint64
	dir   uint64 // that is being purged, up to the name after
	after string
}

// burialWindow is how many directories are read at once, and half of how many are
// held.
const burialWindow = 1024

// everything is the known of a window that holds the whole trash.
const everything = ^uint64(0)

// minHeap is a heap of directories, the lowest first.
type minHeap []uint64

func (h minHeap) Len() int           { return len(h) }
func (h minHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h minHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *minHeap) Push(x any) {
	if dir, ok := x.(uint64); ok {
		*h = append(*h, dir)
	}
}

// Pop implements heap.Interface.
func (h *minHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// add notes a directory that came to the trash, whose row is in the batch.
func (b *burial) add(dir uint64) {
	if dir > b.known {
		return
	}
	heap.Push(&b.dirs, dir)
	if len(b.dirs) > 2*burialWindow { // a sorted list is a heap
		slices.Sort(b.dirs)
		b.dirs = b.dirs[:burialWindow]
		b.known = b.dirs[burialWindow-1]
	}
}

// discard puts a detached directory into the trash.
func (t *txn) discard(dir uint64) {
	if t.trash == 0 { // no rows: nothing has to be read
		t.burial.dirs, t.burial.known = nil, everything
	}
	t.trash++
	t.burial.add(dir)
	t.set(t.keys.u64(tableTrash, dir), nil)
	t.changes.Trash = true
}

// dispose takes an empty directory out of the trash. It was the lowest before its own
// directories came to the trash.
func (t *txn) dispose(dir uint64) {
	if i := slices.Index(t.burial.dirs, dir); i >= 0 {
		heap.Remove(&t.burial.dirs, i)
	}
	t.trash--
	t.del(t.keys.u64(tableTrash, dir))
}

// firstTrash returns the lowest directory of the trash, which is not empty.
func (t *txn) firstTrash() (uint64, error) {
	b := &t.burial
	if len(b.dirs) == 0 {
		start, end := t.keys.u64(tableTrash, b.known+1), t.keys.u64(tableTrash, everything)
		err := t.b.Scan(start, end, func(key, _ []byte) bool {
			b.dirs = append(b.dirs, u64Of(key))
			return len(b.dirs) < burialWindow
		})
		if err == nil && len(b.dirs) == 0 {
			err = fmt.Errorf("%w: %d directories of the trash are missing", errTable, t.trash)
		}
		if err != nil {
			return 0, err
		}
		b.known = everything
		if n := len(b.dirs); n == burialWindow {
			b.known = b.dirs[n-1]
		}
	}
	return b.dirs[0], nil
}

// buriedEntry is an entry of a detached directory.
type buriedEntry struct {
	at  place
	ino *inode
}

// nextBuried returns up to limit entries of a detached directory, whose changes are
// in the batch. It goes on where the last one ended: what was purged before would
// have to be stepped over row by row, until the store has compacted it away.
func (t *txn) nextBuried(dir uint64, limit int) ([]buriedEntry, error) {
	b := &t.burial
	start, end := t.keys.children(dir)
	if b.dir == dir {
		start = append(t.keys.inode(dir, b.after), 0)
	}
	var found []buriedEntry
	var failed error
	err := t.b.Scan(start, end, func(key, value []byte) bool {
		e := buriedEntry{at: place{dir, string(key[10:])}}
		if e.ino, failed = decodeInode(value, t.attrs); failed != nil {
			return false
		}
		found = append(found, e)
		return len(found) < limit
	})
	if failed != nil {
		err = failed
	}
	if err != nil || len(found) == 0 {
		return nil, err
	}
	b.dir, b.after = dir, found[len(found)-1].at.name
	if t.buried == nil {
		t.buried = map[uint64]struct{}{}
	}
	t.buried[dir] = struct{}{}
	return found, nil
}
