package namespace

import (
	"encoding/binary"
	"strings"

	"github.com/freshet-io/freshet"
)

// maxMissing bounds the marks that are remembered path by path for paths that
// are not held. An older one is pushed into the nearest held directory, where it
// covers every path below that is not held: loads that are in flight for longer
// than it takes to make so many marks may be rejected without need.
const maxMissing = 4096

// missingRing holds the newest marks of paths that are not held, in the order of
// their making.
type missingRing struct {
	byKey map[mountKey]missed
	order []mountKey // of the marks first, first+1, ...
	first uint64
}

type missed struct {
	seq       uint64 // 0 in ringChanges: forgotten
	stamp     uint64
	recursive bool
}

// need returns the newest remembered stamp that covers key; changed is what takes
// the place of marks in the ring.
func (r *missingRing) need(id freshet.MountID, key string, changed map[mountKey]missed) uint64 {
	if len(r.byKey) == 0 && len(changed) == 0 {
		return 0
	}
	stamp := r.get(mountKey{id, key}, changed).stamp
	for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
		if m := r.get(mountKey{id, key[:i]}, changed); m.recursive {
			stamp = max(stamp, m.stamp)
		}
	}
	return stamp
}

// get returns the mark of a path, the zero value if there is none.
func (r *missingRing) get(k mountKey, changed map[mountKey]missed) missed {
	if m, ok := changed[k]; ok {
		return m
	}
	return r.byKey[k]
}

// ringChanges are what a log entry changes in the ring.
type ringChanges struct {
	byKey map[mountKey]missed
	order []mountKey // to be appended
	gone  int        // to be taken off the front
}

// take makes the changes.
func (r *missingRing) take(c *ringChanges) {
	r.order = append(r.order, c.order...)[c.gone:]
	r.first += uint64(c.gone)
	for k, m := range c.byKey {
		if m.seq == 0 {
			delete(r.byKey, k)
		} else {
			r.byKey[k] = m
		}
	}
}

func (t *txn) missed(k mountKey) missed { return t.missing.get(k, t.marks.byKey) }

func (t *txn) setMissed(k mountKey, m missed) {
	if t.marks.byKey == nil {
		t.marks.byKey = map[mountKey]missed{}
	}
	t.marks.byKey[k] = m
}

// remember keeps the stamp of a path that is not held.
func (t *txn) remember(k mountKey, stamp uint64, recursive bool) {
	if stamp == 0 {
		return
	}
	old, c := t.missed(k), &t.marks
	m := missed{
		seq:   t.missing.first + uint64(len(t.missing.order)+len(c.order)),
		stamp: max(stamp, old.stamp), recursive: recursive || old.recursive,
	}
	t.setMissed(k, m)
	c.order = append(c.order, k)
	t.set(t.keys.u64(tableMissing, m.seq), appendMissed(nil, k, m))
	if len(t.missing.order)+len(c.order)-c.gone > maxMissing {
		t.forgetOldest()
	}
}

// rememberLine remembers a mark of key and, as of the entries themselves, of its
// ancestors that are not held either; key[:held] is held.
func (t *txn) rememberLine(m *mount, key string, held int, recursive bool) {
	for i := held + 1; i < len(key); i++ {
		if key[i] == '/' && t.missed(mountKey{m.ID, key[:i]}).stamp < t.i {
			t.remember(mountKey{m.ID, key[:i]}, t.i, false)
		}
	}
	t.remember(mountKey{m.ID, key}, t.i, recursive)
}

func (t *txn) forgetOldest() {
	c, held := &t.marks, t.missing.order
	seq := t.missing.first + uint64(c.gone)
	var k mountKey
	if c.gone < len(held) {
		k = held[c.gone]
	} else {
		k = c.order[c.gone-len(held)]
	}
	c.gone++
	t.del(t.keys.u64(tableMissing, seq))
	old := t.missed(k)
	if old.seq != seq {
		return // marked again since
	}
	t.setMissed(k, missed{})
	m := t.mountByID(k.mount)
	if m == nil {
		return
	}
	ch := t.walk(m, k.key)
	if ch.held() && !(old.recursive && ch.last().dir) {
		return // its own stamp is as new
	}
	d := len(ch.at) - 1
	if !ch.last().dir {
		d--
	}
	dir := t.edit(ch.at[d])
	dir.missing = max(dir.missing, old.stamp)
}

func appendMissed(b []byte, k mountKey, m missed) []byte {
	b = binary.AppendUvarint(b, uint64(k.mount))
	b = binary.AppendUvarint(b, m.stamp)
	if m.recursive {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, k.key...)
}

func decodeMissed(b []byte) (k mountKey, m missed, ok bool) {
	d := reader{rest: b}
	k.mount = freshet.MountID(d.uvarint())
	m.stamp = d.uvarint()
	m.recursive = d.byte() == 1
	k.key = string(d.rest)
	return k, m, !d.bad
}
