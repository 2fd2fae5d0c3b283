package namespace

import (
	"github.com/freshet-io/freshet"
)

// Expire drops what is held of children of a directory, with their versions, so
// that their blocks are freed: nobody used them for as long as the policy of
// their path keeps them. The storage is not touched, and the next access asks it.
// A child stays that was loaded or changed at Before or later, that an unresolved
// operation can change, that leads to a mount point, or that has children of its
// own. It is due to the leader, which knows what was used and when; the guards
// are the state's.
type Expire struct {
	Mount      freshet.MountID `codec:"m"`
	Generation uint64          `codec:"g"`
	Dir        freshet.Path    `codec:"p"`
	Names      []string        `codec:"n"`
	Before     uint64          `codec:"b"`
}

func (t *txn) expire(c *Expire) Result {
	m, r := t.loadable(c.Mount, c.Generation, c.Dir)
	if m == nil {
		return Result{}
	}
	var res Result
	for _, name := range c.Names {
		key := child(r.key, name)
		if t.ownName(m, name, key, r.node) && t.expirable(m, key, c.Before) {
			t.expireOne(m, key)
			res.Dropped++
		}
	}
	return res
}

// expirable reports whether what is held at key may be dropped.
func (t *txn) expirable(m *mount, key string, before uint64) bool {
	c := t.walk(m, key)
	n := c.entry()
	if n == nil || t.holds(n) || n.validFrom >= before || len(t.writers[mountKey{m.ID, key}]) > 0 {
		return false
	}
	if entry, listing := t.uncachable(m, key); entry || listing {
		return false
	}
	if !n.dir {
		return true
	}
	if r := t.resolve(m.at(key)); n.listFrom >= before || r.virtual() {
		return false
	}
	return t.childless(n.id)
}

// childless reports whether nothing is held in the directory.
func (t *txn) childless(dir uint64) bool {
	t.flush()
	none := true
	start, end := t.keys.children(dir)
	t.fail(t.b.Scan(start, end, func(_, _ []byte) bool {
		none = false
		return false
	}))
	return none && t.err == nil
}

// expireOne drops the entry of key. The listing that had it is no proof of absence
// any more.
func (t *txn) expireOne(m *mount, key string) {
	c := t.walk(m, key)
	n := c.last()
	t.dropSince(m, key, max(n.validFrom, n.listFrom))
	t.edit(c.at[len(c.at)-2]).complete = false
}
