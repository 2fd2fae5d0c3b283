package namespace

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
)

// Which quotas count an entry is written down with the directory that has it: its
// tag. So a change of an entry costs one look at its directory's tag and no walk,
// and only where some quota is set. The tags below a directory that was moved, or
// whose quotas were changed, are brought up to date page by page by CountQuotas;
// until a page is done its entries are charged as before. At any moment the usage
// of a quota is the sum of all entries that are charged to it, those of detached
// directories too until they are purged.

// tag is which quotas count the entries of a directory.
type tag struct {
	ids []uint64 // ascending; those of quotas that are gone count for nothing
	// While it changes: names up to cursor are charged to next already.
	moving bool
	next   []uint64
	cursor string
	again  bool // it has to be looked at once more afterwards
}

func (g *tag) at(name string) []uint64 {
	switch {
	case g == nil:
		return nil
	case g.moving && name <= g.cursor:
		return g.next
	}
	return g.ids
}

func (g *tag) encode() []byte {
	flags := byte(0)
	if g.moving {
		flags |= 1
	}
	if g.again {
		flags |= 2
	}
	b := []byte{flags}
	for _, ids := range [][]uint64{g.ids, g.next} {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			b = binary.AppendUvarint(b, id)
		}
	}
	return append(b, g.cursor...)
}

func decodeTag(b []byte) (*tag, error) {
	d := reader{rest: b}
	flags := d.byte()
	g := &tag{moving: flags&1 != 0, again: flags&2 != 0}
	for _, ids := range []*[]uint64{&g.ids, &g.next} {
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			*ids = append(*ids, d.uvarint())
		}
	}
	g.cursor = string(d.rest)
	if d.bad || flags > 3 || (!g.moving && (g.cursor != "" || len(g.next) > 0)) {
		return nil, errTable
	}
	return g, nil
}

// charges is what a log entry has to charge.
type charges struct {
	counted map[place]Usage // changed entries of tagged directories, as they are charged
	touched []place         // of these, since they were charged last
	tags    map[uint64]*tag
	due     map[uint64]Usage // what quotas are to be charged with, by ID
	used    map[uint64]bool  // quotas to save
	gone    []uint64         // purged directories
}

// tagOf returns the tag of a directory, nil if no quota counts its entries.
func (t *txn) tagOf(dir uint64) *tag {
	if g, ok := t.charges.tags[dir]; ok {
		return g
	}
	b, ok, err := t.b.Get(t.keys.u64(tableTag, dir))
	t.fail(err)
	var g *tag
	if ok {
		g, err = decodeTag(b)
		t.fail(err)
	}
	if t.charges.tags == nil {
		t.charges.tags = map[uint64]*tag{}
	}
	t.charges.tags[dir] = g
	return g
}

func (t *txn) setTag(dir uint64, g *tag) {
	t.tagOf(dir) // makes the map
	if len(g.ids) == 0 && !g.moving {
		t.charges.tags[dir] = nil
		t.del(t.keys.u64(tableTag, dir))
		return
	}
	t.charges.tags[dir] = g
	t.set(t.keys.u64(tableTag, dir), g.encode())
}

// account notes what an entry that is about to change is charged with.
func (t *txn) account(p place) {
	if len(t.quotas.byID) == 0 || t.tagOf(p.parent) == nil {
		return
	}
	old, err := t.inode(p)
	t.fail(err)
	if t.charges.counted == nil {
		t.charges.counted = map[place]Usage{}
	}
	t.charges.counted[p] = weigh(old)
}

func (t *txn) touched(p place) {
	if len(t.charges.counted) == 0 {
		return
	}
	if _, ok := t.charges.counted[p]; ok {
		t.charges.touched = append(t.charges.touched, p)
	}
}

// settle charges what changed so far. The txn must be exclusive.
func (t *txn) settle() {
	t.weighTouched()
	t.pay()
}

// weighTouched notes what is to be charged for what changed so far.
func (t *txn) weighTouched() {
	for _, p := range t.charges.touched {
		was, now := t.charges.counted[p], weigh(t.dirty[p])
		if now == was {
			continue
		}
		t.charges.counted[p] = now
		for _, id := range t.tagOf(p.parent).at(p.name) {
			if t.quotas.byID[id] != nil {
				if t.charges.due == nil {
					t.charges.due = map[uint64]Usage{}
				}
				t.charges.due[id] = t.charges.due[id].plus(now.plus(was, -1), 1)
			}
		}
	}
	t.charges.touched = t.charges.touched[:0]
}

// pay charges what is due.
func (t *txn) pay() {
	for id, u := range t.charges.due {
		t.charge([]uint64{id}, u)
	}
	t.charges.due = nil
}

func (t *txn) charge(ids []uint64, u Usage) {
	for _, id := range ids {
		if one := t.quotas.byID[id]; one != nil {
			one.Used = one.Used.plus(u, 1)
			if t.charges.used == nil {
				t.charges.used = map[uint64]bool{}
			}
			t.charges.used[id] = true
		}
	}
}

// saveCharges writes what a log entry charges to quotas, and leaves it due.
func (t *txn) saveCharges() {
	t.weighTouched()
	for _, dir := range t.charges.gone {
		t.del(t.keys.u64(tableTag, dir))
		t.del(t.keys.u64(tableUncounted, dir))
	}
	if len(t.charges.used)+len(t.charges.due) == 0 {
		return
	}
	for _, id := range t.quotas.sorted() {
		if u, ok := t.charges.due[id]; ok || t.charges.used[id] {
			one := *t.quotas.byID[id]
			one.Used = one.Used.plus(u, 1)
			t.saveQuota(&one)
		}
	}
}

// inherit tags a new directory: what its own entry is charged to, and the quota of
// its own path.
func (t *txn) inherit(p place, dir uint64) {
	if len(t.quotas.byID) == 0 {
		return
	}
	ids := slices.Clone(t.tagOf(p.parent).at(p.name))
	for _, id := range t.quotas.sorted() {
		one := t.quotas.byID[id]
		if one.Path.Base() != p.name {
			continue
		}
		if up, ok := t.pathOf(p.parent); ok && up.Join(p.name) == one.Path {
			ids = append(ids, one.ID)
		}
	}
	if len(ids) > 0 {
		slices.Sort(ids)
		t.setTag(dir, &tag{ids: slices.Compact(ids)})
	}
}

// inheritRoot is inherit for the root of a new mount.
func (t *txn) inheritRoot(m *mount) {
	if ids := t.quotas.wanted(m.Path); len(ids) > 0 {
		t.setTag(t.get(m.root).id, &tag{ids: ids})
	}
}

// pathOf returns the path of a directory; false if it is detached.
func (t *txn) pathOf(dir uint64) (freshet.Path, bool) {
	var names []string
	for range freshet.MaxPathDepth + 1 {
		b, ok, err := t.b.Get(t.keys.u64(tableDir, dir))
		t.fail(err)
		if !ok {
			return "", false
		}
		at, err := decodePlace(b)
		if err != nil {
			t.fail(err)
			return "", false
		}
		if at.parent == 0 {
			for _, m := range t.mounts {
				if m.root == at {
					slices.Reverse(names)
					return m.at(strings.Join(names, "/")), true
				}
			}
			return "", false
		}
		names = append(names, at.name)
		dir = at.parent
	}
	return "", false
}

// recount has the directories at p, and mount points below it, looked at.
func (t *txn) recount(p freshet.Path) {
	for _, m := range t.mounts {
		if p.Contains(m.Path) {
			t.recountDir(t.get(m.root).id)
		}
	}
	if r := t.resolve(p); r.mount != nil && r.key != "" {
		if c := t.walk(r.mount, r.key); c.entry() != nil && c.last().dir {
			t.recountDir(c.last().id)
		}
	}
}

// recountDir has a directory, and what lies below it if that turns out to be
// needed, looked at by CountQuotas.
func (t *txn) recountDir(dir uint64) {
	if g := t.tagOf(dir); g != nil && g.moving && !g.again {
		g = &tag{ids: g.ids, moving: true, next: g.next, cursor: g.cursor, again: true}
		t.setTag(dir, g)
	}
	t.set(t.keys.u64(tableUncounted, dir), nil)
	t.changes.Quotas = true
}

// moved has a directory looked at that was moved, and directories below it that
// lie, or lay, at the path of a quota.
func (t *txn) moved(m *mount, from, to string, dir uint64) {
	if t.meta.LastQuota == 0 {
		return
	}
	t.recountDir(dir)
	for _, id := range t.quotas.sorted() {
		p := t.quotas.byID[id].Path
		for _, old := range []freshet.Path{m.at(from), m.at(to)} {
			if p == old || !old.Contains(p) {
				continue
			}
			if c := t.walk(m, child(to, old.Rel(p))); c.entry() != nil && c.last().dir {
				t.recountDir(c.last().id)
			}
		}
	}
}

// forgotten drops the tag of a directory that was purged, once its last entries
// are taken off.
func (t *txn) forgotten(dir uint64) {
	if t.meta.LastQuota != 0 {
		t.charges.gone = append(t.charges.gone, dir)
	}
}

// countQuotas brings the tags of waiting directories up to date.
func (t *txn) countQuotas(limit int) bool {
	if limit <= 0 {
		limit = 1000
	}
	t.settle()
	t.flush()
	start, end := t.keys.bounds(tableUncounted)
	var dirs []uint64
	t.fail(t.b.Scan(start, end, func(key, _ []byte) bool {
		dirs = append(dirs, u64Of(key))
		return len(dirs) < limit
	}))
	for _, dir := range dirs {
		if limit > 0 && t.err == nil {
			limit -= t.countDir(dir, limit)
		}
	}
	for _, p := range t.order { // what they are charged with now
		if t.tagOf(p.parent) != nil {
			if t.charges.counted == nil {
				t.charges.counted = map[place]Usage{}
			}
			t.charges.counted[p] = weigh(t.dirty[p])
		}
	}
	more := false
	t.fail(t.b.Scan(start, end, func(_, _ []byte) bool {
		more = true
		return false
	}))
	t.changes.Quotas = t.changes.Quotas || more
	return more
}

// countDir takes a directory up to limit entries further and returns how many it
// took, at least 1.
func (t *txn) countDir(dir uint64, limit int) int {
	p, held := t.pathOf(dir)
	if !held { // the purge takes off what is charged
		t.del(t.keys.u64(tableUncounted, dir))
		return 1
	}
	g := &tag{}
	if old := t.tagOf(dir); old != nil {
		*g = *old
	}
	if !g.moving {
		want := t.quotas.wanted(p)
		if slices.Equal(want, g.ids) {
			t.del(t.keys.u64(tableUncounted, dir))
			return 1
		}
		g.moving, g.next, g.cursor, g.again = true, want, "", false
	}
	n, sum, subs := t.page(dir, g, limit)
	t.charge(g.ids, Usage{}.plus(sum, -1))
	t.charge(g.next, sum)
	for _, sub := range subs {
		t.recountDir(sub)
	}
	if n < limit {
		again := g.again
		g = &tag{ids: g.next}
		if !again {
			t.del(t.keys.u64(tableUncounted, dir))
		}
	}
	t.setTag(dir, g)
	return max(n, 1)
}

// page weighs the next entries of a directory and moves the tag's cursor.
func (t *txn) page(dir uint64, g *tag, limit int) (n int, sum Usage, subs []uint64) {
	start, end := t.keys.children(dir)
	if g.cursor != "" {
		start = append(t.keys.inode(dir, g.cursor), 0)
	}
	var failed error
	t.fail(t.b.Scan(start, end, func(key, value []byte) bool {
		e, err := decodeInode(value, t.attrs)
		if err != nil {
			failed = err
			return false
		}
		n++
		sum = sum.plus(weigh(e), 1)
		if e.dir {
			subs = append(subs, e.id)
		}
		g.cursor = string(key[10:])
		return n < limit
	}))
	t.fail(failed)
	return n, sum, subs
}
