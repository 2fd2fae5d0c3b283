package namespace

import (
	"encoding/binary"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
)

// txn is the change of the state by one log entry. It is worked out while readers
// go on, who see it once show has run: entries, and the small tables that syncs
// change, are changed as copies. The other small tables are changed in place, for a
// store that fails ends the state anyway; a command that does so makes the txn
// exclusive first, see exclusive.
type txn struct {
	*State
	i      uint64 // index of the log entry
	locked bool   // readers are kept out until readmit

	// These hide those of the State, which show replaces.
	meta  meta
	attrs []attr
	trash int
	marks ringChanges // of missing

	b        kv.Batch
	dirty    map[place]*inode          // nil: removed
	order    []place                   // of dirty, as first touched
	grown    map[freshet.DomainID]bool // own logs with a new head
	enc      []byte                    // stored forms of order, as of the last flush
	rows     []storedRow               // of order, in enc
	key      []byte                    // of the row that is read or written next
	pack     []byte                    // its stored form
	steps    steps
	outcomes bool                // some were written, or deleted
	buried   map[uint64]struct{} // detached directories of which entries were purged
	charges  charges
	changes  Changes
	cause    Cause // of the marks of the command that is applied
	err      error
}

func newTxn(s *State, index uint64) *txn {
	return &txn{
		State: s, i: index, meta: s.meta, attrs: s.attrs, trash: s.trash, b: s.store.NewBatch(), dirty: map[place]*inode{}, grown: map[freshet.DomainID]bool{},
		enc: s.spare.enc, rows: s.spare.rows, pack: s.spare.pack,
	}
}

// exclusive keeps readers out from now on. What was done before, they can't see.
func (t *txn) exclusive() {
	if !t.locked {
		t.mu.Lock()
		t.locked = true
	}
}

// readmit lets readers in again.
func (t *txn) readmit() {
	if t.locked {
		t.locked = false
		t.mu.Unlock()
	}
}

// fail remembers the first failure of the store.
func (t *txn) fail(err error) {
	if err != nil && t.err == nil {
		t.err = err
	}
}

func (t *txn) set(key, value []byte) { t.fail(t.b.Set(key, value)) }
func (t *txn) del(key []byte)        { t.fail(t.b.Delete(key)) }
func (t *txn) setRow(key []byte, row any) {
	b, err := t.encoder.encode(row)
	t.fail(err)
	t.set(key, b)
}

// opKey returns the key of a row of op, valid until the next key.
func (t *txn) opKey(table byte, op freshet.OpID) []byte {
	t.key = append(append(t.key[:0], t.keys.gen, table), op[:]...)
	return t.key
}

// u64Key returns the key of a row of v, valid until the next key.
func (t *txn) u64Key(table byte, v uint64) []byte {
	t.key = binary.BigEndian.AppendUint64(append(t.key[:0], t.keys.gen, table), v)
	return t.key
}

// inodeKey returns the key of the row of the entry at p, valid until the next key.
func (t *txn) inodeKey(p place) []byte {
	t.key = append(binary.BigEndian.AppendUint64(append(t.key[:0], t.keys.gen, tableInode), p.parent), p.name...)
	return t.key
}

// get returns the entry at p, nil if none is held. It must not be changed.
func (t *txn) get(p place) *inode {
	if n, ok := t.dirty[p]; ok {
		return n
	}
	n, err := t.inode(p)
	t.fail(err)
	return n
}

// edit returns the entry at p, which must be held, to be changed.
func (t *txn) edit(p place) *inode {
	n, ok := t.dirty[p]
	if ok {
		t.touched(p)
		return n
	}
	old := t.get(p)
	if old == nil { // only after a failure of the store, which commit reports
		old = &inode{}
	}
	n = new(inode)
	*n = *old
	t.put(p, n)
	return n
}

func (t *txn) put(p place, n *inode) {
	if _, ok := t.dirty[p]; !ok {
		t.order = append(t.order, p)
		t.account(p)
	}
	t.touched(p)
	t.dirty[p] = n
}

// flush writes the changed entries to the batch, so that a scan sees them.
func (t *txn) flush() {
	t.enc, t.rows = t.enc[:0], t.rows[:0]
	for _, p := range t.order {
		n := t.dirty[p]
		if n == nil {
			t.del(t.inodeKey(p))
		} else {
			from := len(t.enc)
			t.enc = appendInode(t.enc, n, t.intern(n.attr))
			t.set(t.inodeKey(p), t.enc[from:])
		}
		t.rows = append(t.rows, storedRow{n, p.hash(), len(t.enc)})
	}
}

// show makes what was committed visible to readers, who are kept out.
func (t *txn) show() {
	s := t.State
	s.meta, s.attrs, s.trash = t.meta, t.attrs, t.trash
	s.missing.take(&t.marks)
	t.pay()
	for i, p := range t.order {
		t.cache.dirs.put(t.rows[i].hash, p, t.rows[i].ino)
	}
}

// hideAll has readers read from the store what is about to be committed.
func (t *txn) hideAll() {
	t.cache.begin()
	for i, p := range t.order {
		t.cache.hide(t.rows[i].hash, p)
	}
}

// cacheAll caches what was committed. Readers may see it already, and see the same.
func (t *txn) cacheAll() {
	from := 0
	for i, p := range t.order {
		r := t.rows[i]
		row := t.enc[from:r.end]
		from = r.end
		switch _, buried := t.buried[p.parent]; {
		case r.ino != nil:
			t.cache.put(r.hash, p, row)
		case buried:
			t.cache.drop(r.hash, p) // nobody will ask for it
		default:
			t.cache.put(r.hash, p, nil)
		}
	}
	t.cache.end()
	if cap(t.enc) <= maxEncoded {
		clear(t.rows)
		t.spare = spareRows{t.enc, t.rows, t.pack}
	}
}

// storedRow is where a row ends in txn.enc; an empty one is of what is removed.
type storedRow struct {
	ino  *inode
	hash uint64 // of its place
	end  int
}

// spareRows are buffers that are kept for the next log entry, if it is not too large.
type spareRows struct {
	enc  []byte
	rows []storedRow
	pack []byte
}

const maxEncoded = 1 << 20

// maxAttrs bounds the table of interned attributes; the rest is stored inline.
const maxAttrs = 1 << 16

func (t *txn) intern(a attr) uint32 {
	if id, ok := t.attrIDs[a]; ok {
		return id
	}
	if len(t.attrs) >= maxAttrs {
		return 0
	}
	t.attrs = append(t.attrs, a)
	id := uint32(len(t.attrs))
	t.attrIDs[a] = id
	t.set(t.keys.u64(tableAttr, uint64(id)), appendAttr(nil, a, 0))
	return id
}

// commit ends the log entry. After a failure readers are kept out until readmit.
func (t *txn) commit() error {
	defer t.b.Close()
	t.meta.Applied = t.i
	t.saveCharges()
	t.flush()
	for d := range t.grown {
		t.setRow(t.keys.head(d), t.heads[d])
	}
	t.setRow(t.keys.table(tableMeta), &t.meta)
	t.hideAll()
	t.exclusive()
	t.freezeBelow(t.i)
	if t.err == nil {
		t.err = t.b.Commit()
	}
	if t.err != nil {
		return t.err
	}
	t.show()
	t.freezeBelow(t.i + 1)
	t.readmit()
	t.cacheAll()
	return nil
}

// create adds an entry at p. Its stamps are those that its path had so far, so
// that no mark is lost by the path becoming held.
func (t *txn) create(p place, n *inode, need uint64) *inode {
	n.self = max(n.self, need)
	t.put(p, n)
	t.meta.Entries++
	if n.dir {
		t.meta.LastInode++
		n.id = t.meta.LastInode
		n.subtree = max(n.subtree, need)
		t.set(t.keys.u64(tableDir, n.id), p.encode())
		t.inherit(p, n.id)
	}
	return n
}

// bind records where the file is; unbind forgets a version of a file's content.
func (t *txn) bind(p place, id freshet.FileID) {
	t.pack = p.append(t.pack[:0])
	t.set(t.u64Key(tableFile, uint64(id)), t.pack)
}

func (t *txn) unbind(id freshet.FileID) {
	if id == 0 {
		return
	}
	t.forgetUnpersisted(id)
	t.del(t.u64Key(tableFile, uint64(id)))
	t.changes.Freed = append(t.changes.Freed, id)
}

// epochBits of a FileID are the low bits of the epoch.
const epochBits = 24

func (t *txn) newFile() freshet.FileID {
	t.meta.LastFile++
	const counterBits = 64 - epochBits
	return freshet.FileID(t.meta.Epoch<<counterBits | t.meta.LastFile&(1<<counterBits-1))
}

// detach removes the entry at p from the tree. What is below a directory goes to
// the trash as a whole. The caller keeps the stamps, see drop.
func (t *txn) detach(p place) {
	if n := t.get(p); n != nil {
		t.detachEntry(p, n)
	}
}

// detachEntry is detach of an entry that is known.
func (t *txn) detachEntry(p place, n *inode) {
	t.put(p, nil)
	t.meta.Entries--
	if !n.dir {
		t.unbind(n.file)
		return
	}
	for _, u := range t.unpersistedIn(n.id) {
		t.forgetUnpersisted(u.File)
	}
	t.del(t.keys.u64(tableDir, n.id))
	t.discard(n.id)
}

// purge frees entries of detached directories, at most limit.
func (t *txn) purge(limit int) bool {
	if limit <= 0 {
		limit = 1000
	}
	t.flush()
	for limit > 0 && t.trash > 0 {
		dir, err := t.firstTrash()
		var found []buriedEntry
		if err == nil {
			found, err = t.nextBuried(dir, limit)
		}
		if t.fail(err); t.err != nil {
			return false
		}
		for i := range found {
			t.detachEntry(found[i].at, found[i].ino)
			t.del(t.keys.inode(dir, found[i].at.name))
		}
		if limit -= len(found); limit > 0 { // the scan reached the end
			t.dispose(dir)
			t.forgotten(dir)
			limit--
		}
	}
	t.changes.Trash = t.changes.Trash || t.trash > 0
	return t.trash > 0
}

// inode returns the entry at p, nil if none is held. It must not be changed.
func (s *State) inode(p place) (*inode, error) { return s.inodeIn(p, nil) }

// inodeIn is inode that decodes a file into n, if that is not nil, rather than into
// a new one.
func (s *State) inodeIn(p place, n *inode) (*inode, error) {
	hash := p.hash()
	if n := s.cache.dirs.get(hash, p); n != nil {
		return n, nil
	}
	var buf [256]byte
	row, what := s.cache.get(hash, p, buf[:0])
	if what == unknown {
		b, ok, err := s.store.Get(s.keys.inode(p.parent, p.name))
		if err != nil {
			return nil, err
		}
		if what = absent; ok {
			row, what = b, held
		}
		s.cache.fill(hash, p, b)
	}
	if what == absent {
		return nil, nil
	}
	dir := isDirRow(row)
	if n == nil || dir {
		n = new(inode)
	}
	if err := n.decode(row, s.attrs); err != nil {
		return nil, err
	}
	if dir {
		s.cache.dirs.put(hash, p, n)
	}
	return n, nil
}

func u64Of(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b[len(b)-8:])
}
