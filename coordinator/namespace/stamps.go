package namespace

import (
	"strings"

	"github.com/freshet-io/freshet"
)

// chain is the held part of a path inside a mount, from the mount's root down.
type chain struct {
	at   []place
	ino  []*inode
	rest string // what of the key is not held; "" if all is
	leaf *inode // of a reader's chain: what a file is decoded into
}

func (c *chain) last() *inode { return c.ino[len(c.ino)-1] }
func (c *chain) held() bool   { return c.rest == "" }

// entry returns the place and the entry of the path itself, nil if not held.
func (c *chain) entry() *inode {
	if c.held() {
		return c.last()
	}
	return nil
}

// parent returns the index of the directory that holds, or would hold, the
// path's entry if all directories up to it are held; -1 otherwise.
func (c *chain) parent() int {
	switch {
	case c.held():
		return len(c.at) - 2
	case !strings.Contains(c.rest, "/") && c.last().dir:
		return len(c.at) - 1
	}
	return -1
}

// need returns the newest stamp that covers the entry at depth k.
func (c *chain) need(k int) uint64 { return max(c.ino[k].self, c.above(k)) }

// above returns the newest recursive stamp at depth k or above.
func (c *chain) above(k int) uint64 {
	var n uint64
	for j := 0; j <= k; j++ {
		n = max(n, c.ino[j].subtree)
	}
	return n
}

// listingNeed returns the newest stamp that covers the listing at depth k.
func (c *chain) listingNeed(k int) uint64 { return max(c.need(k), c.ino[k].children) }

func (c *chain) servable(k int) bool { return c.ino[k].validFrom >= max(c.need(k), 1) }

func (c *chain) listed(k int) bool {
	return c.ino[k].complete && c.ino[k].listFrom >= max(c.listingNeed(k), 1)
}

// present reports whether the entry at depth k is known to be a directory now:
// nothing newer than what we loaded says otherwise. A mount's root always is.
func (c *chain) present(k int) bool {
	return k == 0 || (c.ino[k].dir && ((c.ino[k].loaded && c.servable(k)) || c.listed(k)))
}

// steps is memory for chains, each of which is used within one command.
type steps struct {
	at  []place
	ino []*inode
}

// How deep a chain may be before it needs memory of its own, and how many chains
// are made room for at once.
const (
	stepsDeep = 8
	stepsMany = 16
)

func (s *steps) chain(key string) chain {
	n := len(s.at)
	if n+stepsDeep > cap(s.at) {
		s.at, s.ino, n = make([]place, 0, stepsMany*stepsDeep), make([]*inode, 0, stepsMany*stepsDeep), 0
	}
	end := n + stepsDeep
	s.at, s.ino = s.at[:end], s.ino[:end]
	return chain{at: s.at[n:n:end], ino: s.ino[n:n:end], rest: key}
}

// free gives all chains back.
func (s *steps) free() { s.at, s.ino = s.at[:0], s.ino[:0] }

// walk returns the held part of key in m.
func (t *txn) walk(m *mount, key string) chain {
	c := t.steps.chain(key)
	for p := m.root; ; p = c.next() {
		n := t.get(p)
		if n == nil && p == m.root { // only after a failure of the store
			n = &inode{dir: true}
		}
		if n == nil || c.enter(p, n) {
			return c
		}
	}
}

// enter adds the entry at p and reports whether the walk ends there.
func (c *chain) enter(p place, n *inode) bool {
	if len(c.at) > 0 {
		_, c.rest = cut(c.rest)
	}
	c.at, c.ino = append(c.at, p), append(c.ino, n)
	return c.rest == "" || !n.dir
}

// next returns where the next entry of the walk is.
func (c *chain) next() place {
	name, _ := cut(c.rest)
	return place{c.last().id, name}
}

// cut splits the first segment off a key.
func cut(key string) (name, rest string) {
	name, rest, _ = strings.Cut(key, "/")
	return name, rest
}

// need returns the newest stamp that covers key: a load of it that began
// earlier must not install.
func (x *index) need(m *mount, key string, c *chain) uint64 {
	return c.needOf(m, key, &x.missing, nil)
}

// need is that of the index with what this log entry has changed.
func (t *txn) need(m *mount, key string, c *chain) uint64 {
	return c.needOf(m, key, &t.missing, t.marks.byKey)
}

func (c *chain) needOf(m *mount, key string, ring *missingRing, changed map[mountKey]missed) uint64 {
	if c.held() {
		return c.need(len(c.ino) - 1)
	}
	var n uint64
	for _, ino := range c.ino {
		n = max(n, ino.subtree, ino.missing)
	}
	if !c.last().dir {
		n = max(n, c.last().self)
	}
	return max(n, ring.need(m.ID, key, changed))
}

// mark stamps key, and all below it if recursive. It is the only way to stamp,
// whoever caused the change: the entry itself; the listing that has it; that
// something below changed at all ancestors; the whole subtree if recursive. For
// a path that is not held the nearest known directory's listing is stamped, and
// the path is remembered. An ancestor that is not known to be a directory now,
// held or not, may have come or gone with the change: it and its parent's
// listing are stamped too.
func (t *txn) mark(m *mount, key string, recursive bool) {
	c := t.walk(m, key)
	last := len(c.at) - 1
	doubtful := append(make([]bool, 0, stepsDeep), make([]bool, len(c.at))...) // on the stack
	for k := range c.at {
		doubtful[k] = (k < last || !c.held()) && !c.present(k)
	}
	for k := range c.at {
		n := t.edit(c.at[k])
		c.ino[k] = n
		if k < last || !c.held() {
			n.below = t.i
		}
		if doubtful[k] {
			t.stamp(n)
			t.stampListing(c.ino[k-1])
		}
	}
	if c.held() {
		n := c.last()
		t.stamp(n)
		if last > 0 {
			t.stampListing(c.ino[last-1])
		}
		if recursive {
			n.subtree, n.below = t.i, t.i
			t.demoteAll()
		}
	} else {
		dir := last
		if !c.last().dir {
			dir--
		}
		t.stampListing(c.ino[dir])
		t.rememberLine(m, key, len(key)-len(c.rest), recursive)
	}
	t.changes.Marked = append(t.changes.Marked, Marked{Path: m.at(key), Recursive: recursive, Cause: t.cause})
}

// stamp and stampListing set a stamp. What an earlier command of the same log
// entry made valid as of that entry is valid no more: within one index the order
// of commands counts, which the numbers do not show.
func (t *txn) stamp(n *inode) {
	n.self = t.i
	t.demote(n)
}

func (t *txn) stampListing(n *inode) {
	n.children = t.i
	n.listFrom = min(n.listFrom, t.i-1)
}

// demote makes what was valid as of this very index valid no more. What is not in the
// storage is valid in any case, and is told from what came before by when it came.
func (t *txn) demote(n *inode) {
	if t.unpersistedAt(n) == nil {
		n.validFrom = min(n.validFrom, t.i-1)
	}
	n.listFrom = min(n.listFrom, t.i-1)
}

// demoteAll demotes whatever this log entry made valid. A recursive mark covers
// entries that it does not touch; this covers more of them than it must.
func (t *txn) demoteAll() {
	for _, n := range t.dirty {
		if n != nil {
			t.demote(n)
		}
	}
}

// markDomain marks key of the domain in every mount that it concerns, but for
// except.
func (t *txn) markDomain(d freshet.DomainID, key string, recursive bool, except freshet.MountID) {
	for _, m := range t.mounts {
		if m.Domain != d || m.ID == except {
			continue
		}
		if rel, all, ok := m.match(key, recursive); ok {
			t.mark(m, rel, all)
		}
	}
}

// dropSince removes the entry of key, and all below it, if it is held. Its
// stamps, and that it was gone at since, are remembered against loads in flight.
func (t *txn) dropSince(m *mount, key string, since uint64) {
	c := t.walk(m, key)
	n := c.entry()
	if n == nil || key == "" {
		return
	}
	stamp := max(n.newest(), c.above(len(c.ino)-1), since)
	t.detach(c.at[len(c.at)-1])
	// A file too may carry a mark of what is below it: a directory was there, or
	// is there by now.
	t.remember(mountKey{m.ID, key}, stamp, n.dir || n.subtree > 0)
}

// reach makes sure that every directory above key is held, as a structural one
// if nothing is known of it, and returns the place of key. False if a file is in
// the way that may be there; one that is known to be outdated for a load that
// began at start is dropped.
func (t *txn) reach(m *mount, key string, start uint64) (place, bool) {
	if key == "" {
		return m.root, true
	}
	c := t.walk(m, key)
	if !c.held() && !c.last().dir {
		k := len(c.ino) - 1
		if t.holds(c.last()) || c.servable(k) || c.need(k) > start || c.last().validFrom > start {
			return place{}, false
		}
		t.dropSince(m, strings.TrimSuffix(strings.TrimSuffix(key, c.rest), "/"), start)
		c = t.walk(m, key)
	}
	if c.held() {
		return c.at[len(c.at)-1], true
	}
	dir, rest := c.last(), c.rest
	for {
		name, after := cut(rest)
		p := place{dir.id, name}
		if after == "" {
			return p, true
		}
		sub := strings.TrimSuffix(strings.TrimSuffix(key, after), "/")
		held := t.walk(m, sub)
		need := t.need(m, sub, &held)
		dir, rest = t.create(p, &inode{dir: true, mtime: noTime}, need), after
	}
}
