package namespace

import (
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// loadable finds the mount of a load; nil if the load is of another generation
// or its path now belongs to another mount.
func (t *txn) loadable(id freshet.MountID, gen uint64, p freshet.Path) (*mount, resolved) {
	m := t.mountByID(id)
	if m == nil || m.Generation != gen {
		return nil, resolved{}
	}
	r := t.resolve(p)
	if r.mount != m {
		return nil, resolved{}
	}
	return m, r
}

// mayInstall is the guard of every load: nothing that covers key was marked
// since start, and what is held, or known to be absent, was not loaded later.
func (t *txn) mayInstall(m *mount, key string, start uint64) bool {
	c := t.walk(m, key)
	if t.need(m, key, &c) > start {
		return false
	}
	n := c.last()
	if c.held() || !n.dir {
		return n.validFrom <= start
	}
	return !n.complete || n.listFrom <= start
}

func (t *txn) loadEntry(c *LoadEntry) Result {
	m, r := t.loadable(c.Mount, c.Generation, c.Path)
	if m == nil || c.Start > t.i || !t.mayInstall(m, r.key, c.Start) {
		return Result{}
	}
	if c.Entry == nil {
		removed := t.remove(m, r.key, c.Start)
		if ch := t.walk(m, r.key); c.Special && !ch.held() && ch.last().dir {
			t.edit(ch.at[len(ch.at)-1]).special = true
		}
		return Result{Installed: removed}
	}
	return Result{Installed: t.install(m, r.key, c.Entry, c.Start)}
}

// install puts what a load found at key; the guard was asked. False if something
// newer is in the way.
func (t *txn) install(m *mount, key string, e *Entry, start uint64) bool {
	dir := e.Type == freshet.TypeDirectory
	if key == "" && !dir {
		return false
	}
	if c := t.walk(m, key); t.unpersistedAt(c.entry()) != nil {
		return true // it is what it is, whatever the storage has of that name
	}
	if c := t.walk(m, key); c.entry() != nil && c.last().dir && !dir && !t.remove(m, key, start) {
		return false
	}
	if c := t.walk(m, key); c.entry() != nil && !c.last().dir && dir {
		t.dropSince(m, key, start)
	}
	p, ok := t.reach(m, key, start)
	if !ok {
		return false
	}
	if t.get(p) == nil {
		c := t.walk(m, key)
		n := &inode{dir: dir, mtime: noTime}
		t.assign(p, n, e, false, named{m, key})
		n.validFrom = start
		t.create(p, n, t.need(m, key, &c))
		return true
	}
	n := t.edit(p)
	t.assign(p, n, e, false, named{m, key})
	n.validFrom = start
	return true
}

// remove drops what a load did not find at key; the guard was asked. A directory
// below which something changed since start is kept, and marked: the answer and
// the change contradict each other.
func (t *txn) remove(m *mount, key string, start uint64) bool {
	if key == "" {
		return false
	}
	c := t.walk(m, key)
	n := c.entry()
	if n == nil {
		return true
	}
	if !n.dir && t.holds(n) {
		return true
	}
	if n.newest() > start {
		t.mark(m, key, false)
		return false
	}
	if t.holds(n) {
		t.keepDirectory(c.at[len(c.at)-1], start)
		return false
	}
	t.dropSince(m, key, start)
	return true
}

// assign sets what the storage said of the entry at p. The file ID stays if the
// content is the same; ours says that an effect of our own was definite, so that
// a change time that moved is no sign of a foreign change. A new version has the block
// size that is in force for its name.
func (t *txn) assign(p place, n *inode, e *Entry, ours bool, of named) {
	if t.unpersistedAt(n) != nil {
		return
	}
	old := *n
	n.loaded = true
	n.mtime = nanos(e.ModTime)
	n.attr = attr{owner: e.Owner, group: e.Group, mode: e.Mode, meta: e.Fingerprint.Meta}
	n.content, n.change = e.Fingerprint.Content, e.Fingerprint.Change
	if n.dir {
		return
	}
	n.length = e.Length
	if old.file != 0 && old.length == e.Length && sameContent(old.fingerprint(), e.Fingerprint, ours) {
		return
	}
	t.unbind(old.file)
	n.file = t.newFile()
	n.blockSize = t.blockSize(of, e.Length)
	t.bind(p, n.file)
}

func sameContent(old, now fingerprint.Fingerprint, ours bool) bool {
	if ours {
		return old.Known() && old.Content == now.Content
	}
	return old.SameContent(now)
}

func (t *txn) loadListing(c *LoadListing) Result {
	m, r := t.loadable(c.Mount, c.Generation, c.Dir)
	if m == nil || c.Start > t.i || c.ListStart > c.Start {
		return Result{Rejected: namesOf(c)}
	}
	dir, ok := t.directory(m, r.key, c.Start)
	if !ok {
		return Result{Rejected: namesOf(c)}
	}
	var res Result
	held := t.walk(m, r.key)
	names := t.namesIn(held.last().id, c.Upserts)
	for i := range c.Upserts {
		e := &c.Upserts[i]
		key := child(r.key, e.Name)
		if !t.ownName(m, e.Name, key, r.node) {
			continue
		}
		ok, plain := t.installChild(m, &held, &names, key, e, c.Start)
		if !plain {
			ok = t.mayInstall(m, key, c.Start) && t.install(m, key, e, c.Start)
			held = t.walk(m, r.key)
		}
		if !ok {
			res.Rejected = append(res.Rejected, e.Name)
		}
	}
	for _, name := range c.Removes {
		key := child(r.key, name)
		if !t.ownName(m, name, key, r.node) {
			continue
		}
		if !t.mayInstall(m, key, c.Start) || !t.remove(m, key, c.Start) {
			res.Rejected = append(res.Rejected, name)
		}
	}
	ch := t.walk(m, r.key)
	k := len(ch.at) - 1
	if c.Complete && ch.listingNeed(k) <= c.ListStart && ch.ino[k].listFrom <= c.ListStart {
		n := t.edit(dir)
		n.complete, n.listFrom, n.special = true, c.ListStart, c.Special
		res.Installed = true
	}
	return res
}

// installChild is mayInstall and install for an entry of the directory at the end
// of dir, which is held: a listing has thousands of them. Not plain are changes
// of type; nothing is done about them.
func (t *txn) installChild(m *mount, dir *chain, names *heldNames, key string, e *Entry, start uint64) (ok, plain bool) {
	k := len(dir.ino) - 1
	p := place{dir.ino[k].id, e.Name}
	n, changed := t.dirty[p]
	if !changed && !names.lack(p) {
		n = t.get(p)
	}
	if n == nil {
		need := t.missing.need(m.ID, key, t.marks.byKey)
		for _, up := range dir.ino {
			need = max(need, up.subtree, up.missing)
		}
		if need > start || (dir.ino[k].complete && dir.ino[k].listFrom > start) {
			return false, true
		}
		n = &inode{dir: e.Type == freshet.TypeDirectory, mtime: noTime, validFrom: start}
		t.assign(p, n, e, false, named{m, key})
		t.create(p, n, need)
		return true, true
	}
	if n.dir != (e.Type == freshet.TypeDirectory) {
		return false, false
	}
	if t.unpersistedAt(n) != nil {
		return true, true
	}
	if max(n.self, n.subtree, dir.above(k)) > start || n.validFrom > start {
		return false, true
	}
	n = t.edit(p)
	t.assign(p, n, e, false, named{m, key})
	n.validFrom = start
	return true, true
}

// heldNames are the names that the store has in a part of a directory. One scan spares
// a search for each new entry, which costs as much as all else that is done for it.
type heldNames struct {
	dir         uint64
	first, last string // what was scanned; nothing if last is ""
	names       map[string]struct{}
}

// lack reports whether the store surely has no row at p.
func (r *heldNames) lack(p place) bool {
	if r.last == "" || p.parent != r.dir || p.name < r.first || p.name > r.last {
		return false
	}
	_, has := r.names[p.name]
	return !has
}

// namesIn returns the names held between the first and the last name of entries; where
// there are many more than that, those it came to.
func (t *txn) namesIn(dir uint64, entries []Entry) heldNames {
	r := heldNames{dir: dir}
	if len(entries) < 8 {
		return r
	}
	r.first, r.last = entries[0].Name, entries[0].Name
	for i := range entries {
		r.first, r.last = min(r.first, entries[i].Name), max(r.last, entries[i].Name)
	}
	end := append(t.keys.inode(dir, r.last), 0)
	r.names = map[string]struct{}{}
	t.fail(t.store.Scan(t.keys.inode(dir, r.first), end, func(key, _ []byte) bool {
		name := string(key[10:])
		r.names[name] = struct{}{}
		if len(r.names) > 2*len(entries) {
			r.last = name
			return false
		}
		return true
	}))
	return r
}

// directory returns the place of a directory that was listed, made or turned
// from a file if the listing, which began at start, is newer.
func (t *txn) directory(m *mount, key string, start uint64) (place, bool) {
	c := t.walk(m, key)
	if n := c.entry(); n != nil && n.dir {
		return c.at[len(c.at)-1], true
	}
	if !t.mayInstall(m, key, start) {
		return place{}, false
	}
	if n := c.entry(); n != nil {
		if t.holds(n) {
			return place{}, false
		}
		t.dropSince(m, key, start)
	}
	p, ok := t.reach(m, key, start)
	if !ok {
		return place{}, false
	}
	held := t.walk(m, key)
	t.create(p, &inode{dir: true, mtime: noTime}, t.need(m, key, &held))
	return p, true
}

// ownName reports whether an entry of that name is the storage's to name: it is
// one segment, not reserved, and no mount point lies at it. dir is what the mount
// table has of the directory.
func (t *txn) ownName(m *mount, name, key string, dir *trieNode) bool {
	if name == "" || strings.HasPrefix(name, freshet.ReservedPrefix) || strings.ContainsAny(name, "/\x00") {
		return false
	}
	if dir == nil || dir.children[name] == nil {
		return true
	}
	r := t.resolve(m.at(key))
	return r.mount == m
}

func child(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func namesOf(c *LoadListing) []string {
	names := make([]string, 0, len(c.Upserts)+len(c.Removes))
	for i := range c.Upserts {
		names = append(names, c.Upserts[i].Name)
	}
	return append(names, c.Removes...)
}

func (t *txn) operatorMark(c *Mark) Result {
	r := t.resolve(c.Path)
	found := false
	if r.mount != nil {
		t.mark(r.mount, r.key, c.Recursive)
		found = true
	}
	for _, m := range t.mounts {
		if c.Recursive && m != r.mount && c.Path.Contains(m.Path) {
			t.mark(m, "", true)
			found = true
		}
	}
	if !found {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "mark", c.Path, "no storage is mounted there")}
	}
	return Result{}
}
