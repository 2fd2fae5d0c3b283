package namespace

import "container/heap"

// burial is where the purge of detached directories goes on. It is no part of the
// state: a member that has none begins again, and finds the same.
type burial struct {
	dirs  minHeap // of the trash, and some that were purged; may be empty
	dir   uint64  // that is being purged, up to the name after
	after string
}

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

// add notes a directory that came to the trash. A heap that has not been made yet
// will be made of the whole trash.
func (b *burial) add(dir uint64) {
	if len(b.dirs) > 0 {
		heap.Push(&b.dirs, dir)
	}
}

// firstTrash returns the lowest directory of the trash, which is not empty.
func (x *index) firstTrash() uint64 {
	b := &x.burial
	for len(b.dirs) > 0 {
		if _, ok := x.trash[b.dirs[0]]; ok {
			return b.dirs[0]
		}
		heap.Pop(&b.dirs)
	}
	for dir := range x.trash {
		b.dirs = append(b.dirs, dir)
	}
	heap.Init(&b.dirs)
	return b.dirs[0]
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
