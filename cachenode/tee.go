package cachenode

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// maxPendingBlocks bounds the open files of one upload: of a long file in small blocks
// only the first ones are kept.
const maxPendingBlocks = 1024

// tee keeps what is uploaded as blocks of the new file version, which appear in
// the tier only when the storage has acknowledged the file. It never fails an
// upload: when the cache has no room, or fails, it stops keeping more.
type tee struct {
	blocks    *store.Store
	file      freshet.FileID
	blockSize int64
	total     int64 // bytes of the file, < 0 if not known
	limit     int64 // bytes that one upload may take of the cache
	kept      []*tier.Writer
	current   *tier.Writer // the last of kept, while it is not full
	written   int64
	stopped   bool
}

// newTee returns a tee for the upload, nil if nothing is to be kept.
func newTee(blocks *store.Store, ticket freshet.Ticket, total int64) *tee {
	if ticket.Write != freshet.CacheThrough || ticket.File == 0 {
		return nil
	}
	// One upload may not push out everything else.
	return &tee{blocks: blocks, file: ticket.File, blockSize: ticket.BlockSize, total: total, limit: blocks.Capacity() / 2}
}

// besideBytes is from how many bytes on the storage and the tier are written to at the
// same time.
const besideBytes = 64 << 10

// beside is write while the caller does something else with p, until it calls wait.
func (t *tee) beside(p []byte) (wait func()) {
	if t == nil || t.stopped || len(p) < besideBytes {
		t.write(p)
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.write(p)
	}()
	return func() { <-done }
}

// write takes the next bytes of the file.
func (t *tee) write(p []byte) {
	if t == nil {
		return
	}
	for len(p) > 0 && !t.stopped {
		if t.current == nil && !t.next() {
			return
		}
		n := min(int64(len(p)), t.blockSize-t.current.Written())
		if _, err := t.current.Write(p[:n]); err != nil {
			t.stop()
			return
		}
		t.written += n
		if t.current.Written() == t.blockSize {
			t.current = nil
		}
		p = p[n:]
	}
}

// next begins a block.
func (t *tee) next() bool {
	length := int64(-1)
	if t.total >= 0 {
		length = min(t.blockSize, t.total-t.written)
	}
	index := t.written / t.blockSize
	if t.written >= t.limit || len(t.kept) >= maxPendingBlocks {
		t.stopped = true
		return false
	}
	w, err := t.blocks.Create(freshet.BlockID{File: t.file, Index: uint32(index)}, length) //nolint:gosec // bounded by maxPendingBlocks
	if err != nil {
		t.stopped = true
		return false
	}
	t.current = w
	t.kept = append(t.kept, w)
	return true
}

// stop drops the block that is incomplete and keeps no more.
func (t *tee) stop() {
	t.stopped = true
	if t.current == nil {
		return
	}
	t.current.Close()
	t.current = nil
	t.kept = t.kept[:len(t.kept)-1]
}

// commit binds the blocks to the version that the storage gave the file.
func (t *tee) commit(meta tier.Meta) {
	if t == nil {
		return
	}
	if t.stopped {
		t.stop() // nothing, unless it stopped at a block's end
	}
	for _, w := range t.kept {
		_ = w.Commit(meta) //nolint:errcheck // what can't be kept is fetched when it is read
		w.Close()
	}
	t.kept, t.current, t.stopped = nil, nil, true
}

// drop forgets the blocks.
func (t *tee) drop() {
	if t == nil {
		return
	}
	for _, w := range t.kept {
		w.Close()
	}
	t.kept, t.current, t.stopped = nil, nil, true
}
