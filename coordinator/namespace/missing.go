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
	seq       uint64
	stamp     uint64
	recursive bool
}

// need returns the newest remembered stamp that covers key.
func (r *missingRing) need(id freshet.MountID, key string) uint64 {
	if len(r.byKey) == 0 {
		return 0
	}
	stamp := r.byKey[mountKey{id, key}].stamp
	for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
		if m, ok := r.byKey[mountKey{id, key[:i]}]; ok && m.recursive {
			stamp = max(stamp, m.stamp)
		}
	}
	return stamp
}

// remember keeps the stamp of a path that is not held.
func (t *txn) remember(k mountKey, stamp uint64, recursive bool) {
	if stamp == 0 {
		return
	}
	r := &t.missing
	if old, ok := r.byKey[k]; ok {
		stamp, recursive = max(stamp, old.stamp), recursive || old.recursive
	}
	seq := r.first + uint64(len(r.order))
	r.byKey[k] = missed{seq: seq, stamp: stamp, recursive: recursive}
	r.order = append(r.order, k)
	t.set(t.keys.u64(tableMissing, seq), appendMissed(nil, k, r.byKey[k]))
	if len(r.order) > maxMissing {
		t.forgetOldest()
	}
}

// rememberLine remembers a mark of key and, as of the entries themselves, of its
// ancestors that are not held either; key[:held] is held.
func (t *txn) rememberLine(m *mount, key string, held int, recursive bool) {
	for i := held + 1; i < len(key); i++ {
		if key[i] == '/' && t.missing.byKey[mountKey{m.ID, key[:i]}].stamp < t.i {
			t.remember(mountKey{m.ID, key[:i]}, t.i, false)
		}
	}
	t.remember(mountKey{m.ID, key}, t.i, recursive)
}

func (t *txn) forgetOldest() {
	r := &t.missing
	k, seq := r.order[0], r.first
	r.order, r.first = r.order[1:], r.first+1
	t.del(t.keys.u64(tableMissing, seq))
	old := r.byKey[k]
	if old.seq != seq {
		return // marked again since
	}
	delete(r.byKey, k)
	m := t.mountByID(k.mount)
	if m == nil {
		return
	}
	c := t.walk(m, k.key)
	if c.held() && !(old.recursive && c.last().dir) {
		return // its own stamp is as new
	}
	d := len(c.at) - 1
	if !c.last().dir {
		d--
	}
	dir := t.edit(c.at[d])
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
