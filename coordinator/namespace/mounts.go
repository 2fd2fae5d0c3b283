package namespace

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// trieNode is a path that carries a mount or a policy, or leads to one.
type trieNode struct {
	children map[string]*trieNode
	mount    *mount
	policy   *rules // what the policy of the path sets
	mounts   int    // at and below
}

// resolved is what the mount table and the policies say of a path.
type resolved struct {
	mount    *mount
	key      string    // relative to the mount's root
	node     *trieNode // of the path itself, nil if none
	interval freshet.Interval
	rule     Rule
	policy   Effective
}

// point reports whether the path is a mount point, virtual whether it exists
// because a mount point lies below it.
func (r *resolved) point() bool { return r.node != nil && r.node.mount != nil }

func (r *resolved) virtual() bool {
	if r.node == nil {
		return false
	}
	return r.node.mounts > 1 || (r.node.mounts == 1 && r.node.mount == nil)
}

// resolve finds mount, key and rule of p.
func (x *index) resolve(p freshet.Path) resolved {
	r := resolved{interval: freshet.Never, policy: Effective{TTL: freshet.Never}}
	n := x.trie
	end := 0 // p[:end] is the path of n
	for {
		if n.mount != nil {
			r.mount, r.key = n.mount, keyAfter(p, end)
			r.interval, r.rule = n.mount.Interval, Rule{Path: n.mount.Path, Origin: n.mount.Origin, Mount: true}
			r.policy.Level = n.mount.Level
		}
		if n.policy != nil {
			n.policy.over(&r)
		}
		if end == len(p) || p.IsRoot() {
			r.node = n
			return r
		}
		next := strings.IndexByte(string(p[end+1:]), '/')
		if next < 0 {
			next = len(p)
		} else {
			next += end + 1
		}
		if n = n.children[string(p[end+1:next])]; n == nil {
			return r
		}
		end = next
	}
}

func keyAfter(p freshet.Path, end int) string {
	if end >= len(p)-1 {
		return ""
	}
	return string(p[end+1:])
}

// node returns the node of p, made if needed.
func (x *index) node(p freshet.Path) []*trieNode {
	n := x.trie
	line := []*trieNode{n}
	for _, seg := range p.Segments() {
		next := n.children[seg]
		if next == nil {
			next = &trieNode{children: map[string]*trieNode{}}
			n.children[seg] = next
		}
		n = next
		line = append(line, n)
	}
	return line
}

func (x *index) insertMount(m *mount) {
	line := x.node(m.Path)
	line[len(line)-1].mount = m
	for _, n := range line {
		n.mounts++
	}
	at, _ := slices.BinarySearchFunc(x.mounts, m.ID, compareMountID)
	x.mounts = slices.Insert(x.mounts, at, m)
}

func (x *index) deleteMount(m *mount) {
	line := x.node(m.Path)
	line[len(line)-1].mount = nil
	for _, n := range line {
		n.mounts--
	}
	x.prune(m.Path)
	x.mounts = slices.DeleteFunc(x.mounts, func(o *mount) bool { return o == m })
}

// prune removes the nodes up from p that carry nothing.
func (x *index) prune(p freshet.Path) {
	line, segs := x.node(p), p.Segments()
	for i := len(segs); i > 0; i-- {
		if n := line[i]; n.mount == nil && n.policy == nil && len(n.children) == 0 {
			delete(line[i-1].children, segs[i-1])
		}
	}
}

func compareMountID(m *mount, id freshet.MountID) int {
	switch {
	case m.ID < id:
		return -1
	case m.ID > id:
		return 1
	}
	return 0
}

func (x *index) mountByID(id freshet.MountID) *mount {
	if at, ok := slices.BinarySearchFunc(x.mounts, id, compareMountID); ok {
		return x.mounts[at]
	}
	return nil
}

// copy returns the mount with a map of its own.
func (m *mount) copy() freshet.Mount {
	c := m.Mount
	c.Options = maps.Clone(c.Options)
	return c
}

// at returns the path of a key in m.
func (m *mount) at(key string) freshet.Path {
	switch {
	case key == "":
		return m.Path
	case m.Path.IsRoot():
		return freshet.Path("/" + key)
	}
	return m.Path + freshet.Path("/"+key)
}

// domainKey returns the key in the mount's domain of a key relative to its root.
func domainKey(root, key string) string {
	switch {
	case key == "":
		return root
	case root == "/" || root == "":
		return "/" + key
	}
	return root + "/" + key
}

// match reports whether a change of the domain's key concerns m, and returns the
// key relative to its root and whether everything below that is concerned.
func (m *mount) match(key string, recursive bool) (rel string, all, ok bool) {
	rel, ok = invalidation.Matches(m.DomainKey, key, recursive)
	return rel, recursive, ok
}

func rootPlace(id freshet.MountID) place {
	return place{parent: 0, name: strconv.FormatUint(uint64(id), 10)}
}

// checkMount says why a mount can't be added beside others.
func checkMount(m freshet.Mount, others []*mount) error {
	const op = "mount add"
	if p, err := freshet.ParsePath(string(m.Path)); err != nil || p != m.Path {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", m.Path)
	}
	if err := m.Path.CheckWritable(); err != nil {
		return freshet.Wrap(op, m.Path, err)
	}
	if m.URI == "" || !strings.HasPrefix(m.DomainKey, "/") {
		return freshet.Errorf(freshet.KindInvalid, op, m.Path, "the mount needs a URI and the key of its root in the domain")
	}
	for _, o := range others {
		if o.Path == m.Path {
			return freshet.Errorf(freshet.KindExist, op, m.Path, "%s is mounted there already: unmount it first, or update it", o.URI)
		}
		if o.Domain != m.Domain {
			continue
		}
		_, in := invalidation.Matches(o.DomainKey, m.DomainKey, false)
		_, out := invalidation.Matches(m.DomainKey, o.DomainKey, false)
		if in || out {
			return freshet.Errorf(freshet.KindConflict, op, m.Path, "%s overlaps %s, which is mounted at %s: one part of a storage can be mounted only once", m.URI, o.URI, o.Path)
		}
	}
	return nil
}

func (t *txn) addMount(c *AddMount) Result {
	if err := checkMount(c.Mount, t.mounts); err != nil {
		return Result{Err: err}
	}
	if r := t.resolve(c.Mount.Path); r.mount != nil {
		if ch := t.walk(r.mount, r.key); ch.held() || !ch.last().dir {
			return Result{Err: freshet.Errorf(freshet.KindConflict, "mount add", c.Mount.Path,
				"%s holds an entry of the mount at %s, which would be hidden: choose a path that does not exist there", c.Mount.Path, r.mount.Path)}
		}
	}
	return Result{Mount: t.attach(c.Mount)}
}

// attach adds a mount that was checked.
func (t *txn) attach(fm freshet.Mount) freshet.Mount {
	t.meta.LastMount++
	t.meta.LastGen++
	fm.ID, fm.Generation = t.meta.LastMount, t.meta.LastGen
	fm.Options = maps.Clone(fm.Options)
	m := &mount{Mount: fm, root: rootPlace(fm.ID)}
	t.create(m.root, &inode{dir: true, mtime: noTime}, t.i)
	t.insertMount(m)
	t.inheritRoot(m)
	t.saveMount(m)
	t.headOf(fm.Domain)
	t.changes.Marked = append(t.changes.Marked, Marked{Path: fm.Path, Recursive: true, Cause: t.cause})
	return m.copy()
}

func (t *txn) saveMount(m *mount) {
	t.setRow(t.keys.u64(tableMount, uint64(m.ID)), &m.Mount)
	t.meta.Mounts = t.i
	t.changes.Mounts = true
}

func (t *txn) updateMount(c *UpdateMount) Result {
	const op = "mount update"
	r := t.resolve(c.Mount.Path)
	switch {
	case !r.point():
		return Result{Err: freshet.Errorf(freshet.KindNotExist, op, c.Mount.Path, "no storage is mounted there")}
	case c.IfGeneration != 0 && c.IfGeneration != r.mount.Generation:
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, c.Mount.Path, "the mount's generation is %d, not %d: it was changed meanwhile, read it again", r.mount.Generation, c.IfGeneration)}
	case c.Mount.URI == "":
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, c.Mount.Path, "the mount needs a URI")}
	}
	old := r.mount
	fm := c.Mount
	fm.ID, fm.Path, fm.Generation, fm.CreatedAt = old.ID, old.Path, old.Generation, old.CreatedAt
	fm.Domain, fm.DomainKey = old.Domain, old.DomainKey
	fm.Options = maps.Clone(fm.Options)
	wasActive := old.ActiveSync
	moved := fm.URI != old.URI || (!c.SameStorage && !maps.Equal(fm.Options, old.Options))
	if moved {
		t.meta.LastGen++
		fm.Generation = t.meta.LastGen
	}
	old.Mount = fm
	t.saveMount(old)
	if moved || (fm.ActiveSync && !wasActive) { // what was loaded unwatched proves nothing
		t.mark(old, "", true)
	}
	if fm.ActiveSync != wasActive {
		t.uncover(old.Generation)
	}
	t.dropCursors(old.Domain)
	return Result{Mount: old.copy()}
}

func (t *txn) removeMount(c *RemoveMount) Result {
	const op = "mount remove"
	r := t.resolve(c.Path)
	if !r.point() {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, op, c.Path, "no storage is mounted there")}
	}
	var nested []string
	for _, m := range t.mounts {
		if m != r.mount && c.Path.Contains(m.Path) {
			nested = append(nested, string(m.Path))
		}
	}
	if len(nested) > 0 {
		slices.Sort(nested)
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, c.Path, "mounts are nested in it: unmount %s first", strings.Join(nested, ", "))}
	}
	for _, in := range t.intents {
		if in.Mount == r.mount.ID && !c.Force {
			return Result{Err: freshet.Errorf(freshet.KindConflict, op, c.Path, "operations on it have not ended: wait for them, or force it")}
		}
	}
	if n := t.get(r.mount.root); t.holds(n) && !c.Force {
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, c.Path,
			"%d files below it are not in the storage yet: have them persisted with \"freshet persist --recursive --wait %s\", or force it and lose them", t.files.below[n.id], c.Path)}
	}
	gone := r.mount.copy()
	t.detach(r.mount.root)
	t.deleteMount(r.mount)
	t.del(t.keys.u64(tableMount, uint64(gone.ID)))
	t.dropCursors(gone.Domain)
	t.meta.Mounts = t.i
	t.changes.Mounts = true
	t.changes.Marked = append(t.changes.Marked, Marked{Path: gone.Path, Recursive: true, Cause: t.cause})
	return Result{Mount: gone}
}
