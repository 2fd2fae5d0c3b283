package tier

import (
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
)

// growStep is how much space a block of unknown length takes at a time.
const growStep = 1 << 20

// Writer writes one block. Its bytes can be read, by ReadAt, as soon as they are
// written; the block appears in the tier at Commit. One goroutine writes, or one for
// each Section; ReadAt is safe for many. Close must be called once at the end, after the last ReadAt:
// without Commit before, it drops the block.
type Writer struct {
	tier     *Tier
	id       freshet.BlockID
	length   int64 // < 0: not known before
	draft    draft
	reserved int64
	written  int64
	hash     *xxh3.Hasher
	inChunk  int
	table    []uint64
	split    sync.Once    // into sections
	base     int64        // where in its file a block that is written by sections begins
	noRoom   error        // why it can't be
	filled   atomic.Int64 // bytes of all sections
	err      error        // the first failure of the medium; nothing works after it
	sealed   *header      // what is written of it, once that is all
	entry    *entry
}

// Create starts a block. length is its length in bytes if it is known, for which
// space is taken at once; with a length < 0 space is taken as bytes come. What
// doesn't fit, or has no name, is KindExhausted, KindExist or KindInvalid.
func (t *Tier) Create(id freshet.BlockID, length int64) (*Writer, error) {
	return t.create(id, length, true)
}

// CreateInFree is Create for whoever does not want another block to be evicted for
// this one: KindExhausted if there is no free space. For what a block of unknown
// length needs later others may go.
func (t *Tier) CreateInFree(id freshet.BlockID, length int64) (*Writer, error) {
	return t.create(id, length, false)
}

func (t *Tier) create(id freshet.BlockID, length int64, evict bool) (*Writer, error) {
	if id.File == 0 || length == 0 || length > freshet.MaxBlockSize {
		return nil, freshet.Errorf(freshet.KindInvalid, "write block", "", "a block of file %d with %d bytes can't be cached", id.File, length)
	}
	if _, ok := t.Stat(id); ok {
		return nil, freshet.Errorf(freshet.KindExist, "write block", "", "block %s is cached already", blockName(id))
	}
	need := t.medium.footprint(max(length, 1))
	if err := t.reserve(need, evict); err != nil {
		return nil, err
	}
	d, err := t.medium.create()
	if err != nil {
		t.release(need)
		return nil, err
	}
	return &Writer{tier: t, id: id, length: length, draft: d, reserved: need, hash: xxh3.New()}, nil
}

// Written returns how many bytes were written.
func (w *Writer) Written() int64 { return w.written }

// Write appends p. After an error the block can't be completed.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.write(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *Writer) write(p []byte) error {
	if w.written+int64(len(p)) > freshet.MaxBlockSize {
		return freshet.Errorf(freshet.KindInvalid, "write block", "", "a block is longer than %d bytes", int64(freshet.MaxBlockSize))
	}
	if err := w.grow(w.written + int64(len(p))); err != nil {
		return err
	}
	if err := w.draft.append(p); err != nil {
		return err
	}
	w.written += int64(len(p))
	for len(p) > 0 {
		n := min(len(p), ChunkSize-w.inChunk)
		_, _ = w.hash.Write(p[:n]) //nolint:errcheck // a hash never fails
		w.inChunk += n
		p = p[n:]
		if w.inChunk == ChunkSize {
			w.endChunk()
		}
	}
	return nil
}

// grow takes the space for a block of that length, in steps.
func (w *Writer) grow(length int64) error {
	need := w.tier.medium.footprint(length)
	if need <= w.reserved {
		return nil
	}
	step := min(max(need-w.reserved, growStep), w.tier.medium.footprint(freshet.MaxBlockSize)-w.reserved)
	if err := w.tier.reserve(step, true); err != nil {
		step = need - w.reserved // the step was only for convenience
		if err := w.tier.reserve(step, true); err != nil {
			return err
		}
	}
	w.reserved += step
	return nil
}

func (w *Writer) endChunk() {
	w.table = append(w.table, w.hash.Sum64())
	w.hash.Reset()
	w.inChunk = 0
}

// ReadAt reads len(p) bytes from off, all of which must have been written.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	if err := w.draft.readAt(p, off); err != nil {
		return 0, freshet.Wrap("read block", "", err)
	}
	return len(p), nil
}

// Seal binds what was written to meta: Commit, with the same, has no more to write.
func (w *Writer) Seal(meta Meta) error {
	if w.err != nil {
		return w.err
	}
	w.written += w.filled.Load()
	if w.written == 0 || w.sealed != nil {
		return freshet.Errorf(freshet.KindInvalid, "write block", "", "block %s is empty or committed already", blockName(w.id))
	}
	if n := w.filled.Load(); n > 0 && n != w.length {
		return freshet.Errorf(freshet.KindInvalid, "write block", "", "block %s has %d of %d bytes", blockName(w.id), n, w.length)
	}
	if w.inChunk > 0 {
		w.endChunk()
	}
	h := header{meta: meta, id: w.id, length: w.written, tableSum: xxh3.Hash(encodeTable(w.table))}
	if w.err = w.draft.prepare(h, w.table); w.err == nil {
		w.sealed = &h
	}
	return w.err
}

// Commit binds what was written to meta and makes it a block of the tier. The
// block can't be evicted before Close. KindExist if it has come in another way.
func (w *Writer) Commit(meta Meta) error {
	if w.sealed == nil || w.err != nil || w.entry != nil {
		if err := w.Seal(meta); err != nil {
			return err
		}
	}
	held := w.tier.isHeld(w.id.File)
	if held {
		if w.err = w.draft.sync(); w.err != nil {
			return w.err
		}
	}
	if w.err = w.publish(*w.sealed); w.err == nil && held {
		w.err = w.tier.medium.settle(w.id)
	}
	return w.err
}

// Reserve takes the space that the block needs to have that length. Nothing is lost
// if there is none: KindExhausted.
func (w *Writer) Reserve(length int64) error { return w.grow(length) }

func (w *Writer) publish(h header) error {
	t := w.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return freshet.Errorf(freshet.KindUnavailable, "write block", "", "the cache tier is closed")
	}
	if t.blocks[w.id] != nil {
		return freshet.Errorf(freshet.KindExist, "write block", "", "block %s is cached already", blockName(w.id))
	}
	st, err := w.draft.publish(w.id)
	if err != nil {
		return err
	}
	e := &entry{id: w.id, length: w.written, size: t.medium.footprint(w.written), readers: 1}
	e.check = newCheck(h, w.table, st)
	t.used += e.size - w.reserved
	w.reserved, w.entry = 0, e
	t.blocks[e.id] = e
	t.policy.add(e.id, e.size)
	t.observe(Change{Block: freshet.BlockReport{ID: e.id, Length: e.length}, Added: true})
	return nil
}

// Close frees what the writer holds and drops the block if it was not committed.
func (w *Writer) Close() {
	w.draft.close()
	if w.entry != nil {
		w.tier.unpin(w.entry)
		w.entry = nil
		return
	}
	w.tier.release(w.reserved)
	w.reserved = 0
}
