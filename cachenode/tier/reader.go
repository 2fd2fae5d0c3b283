package tier

import (
	"errors"
	"io"
	"os"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// check is what is known of a block since its header was verified.
type check struct {
	header   header
	table    []uint64
	verified []atomic.Uint64 // one bit for each chunk whose bytes were verified
	stamp    stamp           // the file when the header was verified
}

func newCheck(h header, table []uint64, st stamp) *check {
	return &check{header: h, table: table, verified: make([]atomic.Uint64, (len(table)+63)/64), stamp: st}
}

func (c *check) isVerified(i int64) bool { return c.verified[i/64].Load()&(1<<(i%64)) != 0 }
func (c *check) setVerified(i int64)     { c.verified[i/64].Or(1 << (i % 64)) }

// Reader reads one block, which stays readable when it leaves the tier. All
// methods but Close are safe for concurrent use. A chunk of the block that is
// read from a disk as a whole is verified each time; one that is read in part, or
// lies in memory, is verified when it is first read in this process, and again when
// its file was changed since. KindCorrupt: the bytes are not what was written; the block has been
// dropped, read it from elsewhere.
type Reader struct {
	tier   *Tier
	entry  *entry
	check  *check
	handle handle
	reads  int // of the block, if this is one that counts, else 0
}

// Open opens a block. KindNotExist: the tier has no block that is what want says;
// KindCorrupt: it had one, which was damaged and has been dropped.
func (t *Tier) Open(id freshet.BlockID, want Want) (*Reader, error) {
	e, reads := t.pin(id)
	if e == nil {
		return nil, freshet.Errorf(freshet.KindNotExist, "open block", "", "block %s is not cached", blockName(id))
	}
	r, err := t.open(e)
	if err != nil {
		return nil, err
	}
	r.reads = reads
	if err := r.match(want); err != nil {
		return nil, errorsJoin(err, r.Close())
	}
	return r, nil
}

// open opens a block that the caller has pinned.
func (t *Tier) open(e *entry) (*Reader, error) {
	h, err := t.medium.open(e)
	if err != nil {
		if freshet.IsKind(err, freshet.KindCorrupt) && !t.discard(e, ReasonCorrupt) {
			err = freshet.Errorf(freshet.KindNotExist, "open block", "", "block %s was removed", blockName(e.id))
		}
		t.unpin(e)
		return nil, err
	}
	r := &Reader{tier: t, entry: e, handle: h}
	if r.check, err = e.verify(h); err != nil {
		if hung(err) {
			return nil, errorsJoin(diskError("open block", err), r.Close())
		}
		t.discard(e, ReasonCorrupt)
		return nil, errorsJoin(corrupt(e.id, err), r.Close())
	}
	return r, nil
}

// verify returns what is known of the block, after it has read the header if
// this is the first time, or if the file has changed.
func (e *entry) verify(h handle) (*check, error) {
	st, err := h.stamp()
	if err != nil {
		return nil, err
	}
	e.checkMu.Lock()
	defer e.checkMu.Unlock()
	if e.check != nil && e.check.stamp == st {
		return e.check, nil
	}
	head, table, err := h.load()
	if err != nil {
		return nil, err
	}
	if head.id != e.id || head.length != e.length {
		return nil, errors.New("the header is that of another block")
	}
	e.check = newCheck(head, table, st)
	return e.check, nil
}

// match drops a block that is sound but not the one that is wanted, such as one
// whose ID was used again after the cluster was restored from a backup.
func (r *Reader) match(want Want) error {
	have := r.check.header
	if have.meta.Cluster == want.Cluster && have.meta.Epoch <= want.Epoch &&
		have.length == want.Length && sameVersion(&have, want.Fingerprint) {
		return nil
	}
	r.tier.discard(r.entry, ReasonForeign)
	return freshet.Errorf(freshet.KindNotExist, "open block", "", "block %s is cached for another version, epoch or cluster", blockName(r.entry.id))
}

// sameVersion reports whether the block is of the version that is wanted. One that was
// written before its version was in any storage says so, and nothing but its file ID
// names it: that is the same version, whatever the storage came to call it.
func sameVersion(h *header, want fingerprint.Fingerprint) bool {
	have := h.meta.Fingerprint
	return have.SameContent(want) || have.SameContent(fingerprint.Unpersisted(uint64(h.id.File)))
}

// Length returns the length of the block in bytes.
func (r *Reader) Length() int64 { return r.check.header.length }

// Meta returns what the block is bound to.
func (r *Reader) Meta() Meta { return r.check.header.meta }

// Close frees the block. No other method may be called after it.
func (r *Reader) Close() error {
	err := r.handle.close()
	r.tier.unpin(r.entry)
	return err
}

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, freshet.Errorf(freshet.KindInvalid, "read block", "", "negative offset %d", off)
	}
	if off >= r.Length() {
		return 0, io.EOF
	}
	var end error
	if rest := r.Length() - off; int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	done := 0
	for done < len(p) {
		n, err := r.readChunk(p[done:], off+int64(done))
		if err != nil {
			return done, r.failed(err)
		}
		done += n
	}
	return done, end
}

// readChunk reads what the chunk at off has of p.
func (r *Reader) readChunk(p []byte, off int64) (int, error) {
	i := off / ChunkSize
	start, size := r.chunk(i)
	n := min(int64(len(p)), start+size-off)
	switch {
	case n == size: // the whole chunk: verify it on its way
		if err := r.handle.readAt(p[:n], off); err != nil {
			return 0, err
		}
		return int(n), r.verifyChunk(i, p[:n])
	case r.trusted(i):
		return int(n), r.handle.readAt(p[:n], off)
	}
	buf, free := r.tier.chunkBuffer()
	defer free()
	b := buf[:size]
	if err := r.handle.readAt(b, start); err != nil {
		return 0, err
	}
	if err := r.verifyChunk(i, b); err != nil {
		return 0, err
	}
	return copy(p[:n], b[off-start:]), nil
}

func (r *Reader) chunk(i int64) (start, size int64) {
	start = i * ChunkSize
	return start, min(ChunkSize, r.Length()-start)
}

// trusted reports whether chunk i was verified and the file is as it was then.
func (r *Reader) trusted(i int64) bool {
	if !r.check.isVerified(i) {
		return false
	}
	st, err := r.handle.stamp()
	return err == nil && st == r.check.stamp
}

func (r *Reader) verifyChunk(i int64, b []byte) error {
	if xxh3.Hash(b) != r.check.table[i] {
		return errors.New("the checksum of the bytes is wrong")
	}
	r.check.setVerified(i)
	return nil
}

// failed drops the block: it can't be read as it was written.
func (r *Reader) failed(err error) error {
	if hung(err) { // which says nothing of the block, but that it is to be read elsewhere
		return corrupt(r.entry.id, err)
	}
	r.tier.discard(r.entry, ReasonCorrupt)
	return corrupt(r.entry.id, err)
}

// Verify verifies the chunks that overlap n bytes from off, which must lie in
// the block, unless that was done before and the file is unchanged. Whoever reads
// the File without this package calls it first.
func (r *Reader) Verify(off, n int64) error {
	if n <= 0 {
		return nil
	}
	buf, free := r.tier.chunkBuffer()
	defer free()
	for i := off / ChunkSize; i <= (off+n-1)/ChunkSize; i++ {
		if r.trusted(i) {
			continue
		}
		start, size := r.chunk(i)
		err := r.handle.readAt(buf[:size], start)
		if err == nil {
			err = r.verifyChunk(i, buf[:size])
		}
		if err != nil {
			return r.failed(err)
		}
	}
	return nil
}

// CopyTo writes n bytes from off, which must lie in the block, to w. It returns
// how many bytes w took; all of them were verified.
func (r *Reader) CopyTo(w io.Writer, off, n int64) (int64, error) {
	var done int64
	buf, free := r.tier.chunkBuffer()
	defer free()
	for done < n {
		at := off + done
		start, size := r.chunk(at / ChunkSize)
		b, err := r.bytes(buf, at, min(n-done, start+size-at))
		if err != nil {
			return done, r.failed(err)
		}
		m, err := w.Write(b)
		done += int64(m)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// bytes returns n verified bytes from off, all in one chunk: those of the block
// itself where it lies in memory, else a copy in buf.
func (r *Reader) bytes(buf []byte, off, n int64) ([]byte, error) {
	start, size := r.chunk(off / ChunkSize)
	if b := r.handle.view(start, size); b != nil {
		return r.part(b, off, n)
	}
	m, err := r.readChunk(buf[:n], off)
	return buf[:m], err
}

// part returns n verified bytes from off, of the chunk that has the bytes b.
func (r *Reader) part(b []byte, off, n int64) ([]byte, error) {
	start, size := r.chunk(off / ChunkSize)
	if int64(len(b)) != size {
		return nil, errShort
	}
	part := b[off-start : off-start+n]
	if r.trusted(off / ChunkSize) { // to look at them again would cost half as much as to send them
		return part, nil
	}
	return part, r.verifyChunk(off/ChunkSize, b)
}

// View returns up to n verified bytes from off, which must lie in the block, where
// the block itself lies in memory; nil for any other, and for one that is found to be
// damaged, which ReadAt says. They never change as long as somebody has them.
func (r *Reader) View(off, n int64) []byte {
	start, size := r.chunk(off / ChunkSize)
	if n = min(n, start+size-off); n <= 0 {
		return nil
	}
	b := r.handle.view(start, size) // once: the block may move into a file at any time
	if b == nil {
		return nil
	}
	if b, err := r.part(b, off, n); err == nil {
		return b
	}
	return nil
}

// File returns the open file of a block on a disk and the offset in it at which
// the block begins, for sendfile or for passing it to another process; nil for a
// block in memory. The file is this Reader's own and ends with it. Call Verify
// first.
func (r *Reader) File() (f *os.File, dataOffset int64) { return r.handle.file() }

// chunkBuffer returns a buffer of one chunk.
func (t *Tier) chunkBuffer() (b []byte, free func()) {
	a, ok := t.buffers.Get().(*[ChunkSize]byte)
	if !ok {
		a = new([ChunkSize]byte)
	}
	return a[:], func() { t.buffers.Put(a) }
}
