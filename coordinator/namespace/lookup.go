package namespace

import (
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// Rule says which setting gave a path its sync interval.
type Rule struct {
	Path   freshet.Path // where it is set; "" if nothing is set
	Origin string
	Mount  bool // it is a mount's own interval, not a policy
}

// Freshness of a fact: it is servable if the later of ValidFrom and the start
// of the leader's last successful validation, which it keeps in memory, is at
// least Need. Need is never 0, so that a fact that no load made is not servable.
type Freshness struct {
	ValidFrom uint64
	Need      uint64
}

// Servable reports whether the fact is servable given the index at which the
// leader's last validation of it began, 0 if there was none.
func (f Freshness) Servable(validated uint64) bool { return max(f.ValidFrom, validated) >= f.Need }

// Listing is what is known of a directory's listing.
type Listing struct {
	Complete bool
	// Special: the directory also holds what is neither a file nor a directory,
	// which is in no listing.
	Special bool
	Freshness
	Uncachable bool // an effect that may still land can change it
}

// Lookup is what the state knows of one path.
type Lookup struct {
	Found bool
	Info  freshet.Info
	// Placeholder: the entry is held only because something below it is; it was
	// never loaded itself.
	Placeholder bool
	Mount       freshet.Mount // its Options must not be changed
	HasMount    bool
	Key         string // relative to the mount's root, without a leading slash
	Freshness
	Listing Listing // of a directory
	// KnownAbsent: the path is not held, and the complete listing of the nearest
	// held directory, or a file in its way, says that it does not exist. That
	// fact is Absent; it is about the entry at AbsentAt. A listing that special
	// entries were left out of says nothing of what it does not have.
	KnownAbsent bool
	Absent      Freshness
	AbsentAt    freshet.Path
	// Uncachable: an effect that may still land can change the path.
	Uncachable bool
	MountPoint bool
	// Virtual: the path exists because mount points lie below it, whatever the
	// storage says.
	Virtual        bool
	Interval       freshet.Interval
	Rule           Rule
	Policy         Effective // what applies besides
	PendingWriters int       // operations on the path that have not ended
	// Unpersisted: the file is not in the storage, or files below the directory are not.
	// Beneath is what the storage had when the file was written; unknown: nothing.
	Unpersisted bool
	Beneath     fingerprint.Fingerprint
	Applied     uint64
}

// Child is an entry of a listing.
type Child struct {
	Name        string
	Info        freshet.Info
	Placeholder bool
	Virtual     bool // a mount point or a way to one
	// Unpersisted: the file is not in the storage, or files below the directory are not.
	Unpersisted bool
	Freshness
}

// Lookup returns what is known of p. It makes no judgement on time, and reads
// the store only for entries that are not cached in memory.
func (s *State) Lookup(p freshet.Path) (Lookup, error) {
	var l Lookup
	if err := s.LookupInto(p, &l); err != nil {
		return Lookup{}, err
	}
	return l, nil
}

// LookupInto is Lookup for callers that have a place for the answer: it is large,
// and copying it costs a good part of a lookup. After an error l is of no use.
func (s *State) LookupInto(p freshet.Path, l *Lookup) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return s.failed
	}
	r := s.resolve(p)
	*l = Lookup{
		Applied: s.meta.Applied, Interval: r.interval, Rule: r.rule, Policy: r.policy,
		MountPoint: r.point(), Virtual: r.virtual() || (p.IsRoot() && r.mount == nil),
	}
	l.Need, l.Listing.Need = 1, 1
	if r.mount == nil {
		l.Found = l.Virtual
		l.Info = virtualInfo(p, 0, false)
		return nil
	}
	l.Mount, l.HasMount, l.Key = r.mount.Mount, true, r.key
	c := s.chain()
	defer s.chains.Put(c)
	if err := s.walk(r.mount, r.key, c); err != nil {
		return corrupt("lookup", p, err)
	}
	l.fill(p, r.mount, c)
	if !c.held() {
		l.Need = max(s.need(r.mount, r.key, c), 1)
		l.absent(r.mount, c)
	}
	if l.Virtual && (!l.Found || l.Info.Type != freshet.TypeDirectory) {
		l.Found, l.KnownAbsent = true, false
		l.Info = virtualInfo(p, r.mount.ID, l.MountPoint)
		l.Placeholder = true
	}
	if len(s.intents) > 0 {
		l.PendingWriters = len(s.writers[mountKey{r.mount.ID, r.key}])
		l.Uncachable, l.Listing.Uncachable = s.uncachable(r.mount, r.key)
		if l.Listing.Uncachable && (!l.Found || l.Info.Type != freshet.TypeDirectory) {
			l.Uncachable = true // the effect may make the directories that lead to it
		}
	}
	if len(s.files.rows) > 0 && s.holds(c.entry()) {
		l.Unpersisted = true
		if !c.entry().dir { // the storage has no say
			l.ValidFrom, l.Uncachable = Unshakable, false
			l.Beneath = s.unpersistedAt(c.entry()).Beneath
		}
	}
	return nil
}

func (l *Lookup) fill(p freshet.Path, m *mount, c *chain) {
	n := c.entry()
	if n == nil {
		return
	}
	k := len(c.ino) - 1
	l.Found = true
	setInfo(&l.Info, p, n, m.ID)
	l.Info.MountPoint = l.MountPoint
	l.Placeholder = !n.loaded
	l.Freshness = Freshness{ValidFrom: n.validFrom, Need: max(c.need(k), 1)}
	if n.dir {
		l.Listing.Complete, l.Listing.Special = n.complete, n.special
		l.Listing.Freshness = Freshness{ValidFrom: n.listFrom, Need: max(c.listingNeed(k), 1)}
	}
}

// absent says what the nearest held entry tells about a path that is not held.
func (l *Lookup) absent(m *mount, c *chain) {
	k := len(c.ino) - 1
	n := c.last()
	l.AbsentAt = m.at(strings.TrimSuffix(strings.TrimSuffix(l.Key, c.rest), "/"))
	switch {
	case !n.dir:
		l.KnownAbsent = true
		l.Absent = Freshness{ValidFrom: n.validFrom, Need: max(l.Need, c.need(k))}
	case n.complete && !n.special:
		l.KnownAbsent = true
		l.Absent = Freshness{ValidFrom: n.listFrom, Need: max(l.Need, c.listingNeed(k))}
	}
}

func corrupt(op string, p freshet.Path, err error) error {
	return freshet.Errorf(freshet.KindCorrupt, op, p, "the store of the state can't be read: %w", err)
}

// chain returns an empty chain to be put back.
func (s *State) chain() *chain {
	if c, ok := s.chains.Get().(*chain); ok {
		c.at, c.ino = c.at[:0], c.ino[:0]
		return c
	}
	return &chain{at: make([]place, 0, 12), ino: make([]*inode, 0, 12), leaf: new(inode)}
}

// walk fills c with the held part of key in m, for a reader.
func (s *State) walk(m *mount, key string, c *chain) error {
	p := m.root
	c.rest = key
	for {
		n, err := s.inodeIn(p, c.leaf)
		if err == nil && n == nil && p.parent == 0 {
			err = errInode
		}
		if n == nil || err != nil {
			return err
		}
		if c.enter(p, n) {
			return nil
		}
		p = c.next()
	}
}

func infoOf(p freshet.Path, n *inode, id freshet.MountID) freshet.Info {
	var info freshet.Info
	setInfo(&info, p, n, id)
	return info
}

// setInfo is infoOf in its place.
func setInfo(info *freshet.Info, p freshet.Path, n *inode, id freshet.MountID) {
	*info = freshet.Info{
		Path: p, Mount: id, ModTime: n.modTime(), Owner: n.attr.owner, Group: n.attr.group, Mode: n.attr.mode,
		Fingerprint: n.fingerprint(), FromCache: true,
	}
	if n.dir {
		info.Type = freshet.TypeDirectory
		return
	}
	info.Length, info.FileID, info.BlockSize = n.length, n.file, n.blockSize
	if info.BlockSize == 0 {
		info.BlockSize = freshet.DefaultBlockSize
	}
}

func virtualInfo(p freshet.Path, id freshet.MountID, point bool) freshet.Info {
	return freshet.Info{Path: p, Type: freshet.TypeDirectory, Mount: id, MountPoint: point, FromCache: true}
}

// uncachable reports whether an operation in quarantine can still change the
// entry of key, and whether it can change its listing.
func (x *index) uncachable(m *mount, key string) (entry, listing bool) {
	if len(x.zombies) == 0 {
		return false, false
	}
	at := domainKey(m.DomainKey, key)
	for _, in := range x.zombies {
		if in.Domain != m.Domain {
			continue
		}
		for _, k := range in.keys() {
			k = domainKey(in.Root, k)
			if k == at || (in.spansBelow() && below(k, at)) {
				return true, true
			}
			listing = listing || below(at, k)
		}
	}
	return false, listing
}

// List returns up to limit children of dir, in byte order of their names, from
// the first name after after; mount points and the ways to them are among them.
// Whether that is all there is, Lookup(dir).Listing says; read it before. A limit
// of 0 or less is 1000. It is empty for what is not held as a directory.
func (s *State) List(dir freshet.Path, after string, limit int) ([]Child, error) {
	return s.ListInto(nil, dir, after, limit)
}

// ListInto is List for callers that have a place for the answer: it appends to
// children, which must be empty.
func (s *State) ListInto(children []Child, dir freshet.Path, after string, limit int) ([]Child, error) {
	if limit <= 0 {
		limit = 1000
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return nil, s.failed
	}
	r := s.resolve(dir)
	if r.mount != nil {
		c := s.chain()
		defer s.chains.Put(c)
		err := s.walk(r.mount, r.key, c)
		if n := c.entry(); err == nil && n != nil && n.dir {
			if children == nil {
				children = make([]Child, 0, min(limit, 256))
			}
			children, err = s.scanChildren(children, dir, r.mount.ID, c, after, limit)
		}
		if err != nil {
			return nil, corrupt("list", dir, err)
		}
	}
	children = s.addVirtual(children, dir, &r, after)
	return children[:min(len(children), limit)], nil
}

func (s *State) scanChildren(children []Child, dir freshet.Path, id freshet.MountID, c *chain, after string, limit int) ([]Child, error) {
	parent := c.last()
	above := c.above(len(c.ino) - 1)
	start, end := s.keys.children(parent.id)
	if after != "" {
		start = append(s.keys.inode(parent.id, after), 0)
	}
	lead := strings.TrimSuffix(string(dir), "/") + "/"
	var failed error
	var n inode
	err := s.store.Scan(start, end, func(key, value []byte) bool {
		// What a listing reads it decodes from the store, and does not cache: it must
		// not push out what is looked up.
		path, err := n.decodeAfter(lead, key[10:], value, s.attrs)
		if failed = err; err != nil {
			return false
		}
		children = append(children, Child{
			Name: path[len(lead):], Placeholder: !n.loaded,
			Freshness: Freshness{ValidFrom: n.validFrom, Need: max(n.self, n.subtree, above, 1)},
		})
		setInfo(&children[len(children)-1].Info, freshet.Path(path), &n, id)
		if len(s.files.rows) > 0 && s.holds(&n) {
			c := &children[len(children)-1]
			if c.Unpersisted = true; !n.dir {
				c.ValidFrom = Unshakable
			}
		}
		return len(children) < limit
	})
	if failed != nil {
		err = failed
	}
	return children, err
}

// addVirtual puts the mount points below dir, and the ways to them, among its
// children.
func (s *State) addVirtual(children []Child, dir freshet.Path, r *resolved, after string) []Child {
	if r.node == nil {
		return children
	}
	added := false
	for name, n := range r.node.children {
		if n.mounts == 0 || name <= after {
			continue
		}
		p := dir.Join(name)
		v := Child{Name: name, Virtual: true, Freshness: Freshness{Need: 1}}
		if n.mount != nil {
			v.Info = virtualInfo(p, n.mount.ID, true)
		} else {
			v.Info = virtualInfo(p, 0, false)
		}
		i := slices.IndexFunc(children, func(c Child) bool { return c.Name == name })
		switch {
		case i < 0:
			children = append(children, v)
			added = true
		case n.mount != nil || children[i].Info.Type != freshet.TypeDirectory:
			children[i] = v
		default:
			children[i].Virtual = true
		}
	}
	if added {
		slices.SortFunc(children, func(a, b Child) int { return strings.Compare(a.Name, b.Name) })
	}
	return children
}

// FileLive reports for each ID whether blocks of that version may still be read:
// an entry has it, an upload makes it, or it was detached and not yet purged.
func (s *State) FileLive(ids []freshet.FileID) []bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	live := make([]bool, len(ids))
	for i, id := range ids {
		if _, ok := s.uploads[id]; ok {
			live[i] = true
			continue
		}
		_, ok, err := s.store.Get(s.keys.u64(tableFile, uint64(id)))
		live[i] = ok || err != nil || s.failed != nil // when in doubt nothing is freed
	}
	return live
}

// FileInfo returns the entry that has the version id, and the key of its source.
// False if no entry has it; KindCorrupt if the state can't be read.
func (s *State) FileInfo(id freshet.FileID) (freshet.Info, freshet.Source, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	info, src, ok, err := s.fileInfo(id)
	if err != nil {
		err = corrupt("find file", "", err)
	}
	return info, src, ok, err
}

func (s *State) fileInfo(id freshet.FileID) (info freshet.Info, src freshet.Source, ok bool, err error) {
	b, ok, err := s.store.Get(s.keys.u64(tableFile, uint64(id)))
	if err != nil || !ok {
		return info, src, false, err
	}
	at, err := decodePlace(b)
	if err != nil {
		return info, src, false, err
	}
	n, err := s.inode(at)
	if err != nil || n == nil || n.file != id {
		return info, src, false, err
	}
	var names []string
	for at.parent != 0 {
		names = append(names, at.name)
		b, ok, err := s.store.Get(s.keys.u64(tableDir, at.parent))
		if err != nil || !ok {
			return info, src, false, err // detached
		}
		if at, err = decodePlace(b); err != nil {
			return info, src, false, err
		}
	}
	slices.Reverse(names)
	for _, m := range s.mounts {
		if m.root == at {
			key := strings.Join(names, "/")
			return infoOf(m.at(key), n, m.ID), freshet.Source{Mount: m.ID, Key: key, Fingerprint: n.fingerprint()}, true, nil
		}
	}
	return info, src, false, nil
}

// Records returns up to limit records of an own log from the one after after.
// KindStale means that the log does not reach back, or not forward, to after: the
// receiver must start over. KindNotExist: there is no log of the domain.
func (s *State) Records(d freshet.DomainID, after uint64, limit int) (invalidation.Batch, error) {
	const op = "read records"
	if limit <= 0 {
		limit = 1000
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := invalidation.Batch{Publisher: s.meta.Cluster, Epoch: s.meta.Epoch, Domain: d, After: after}
	h := s.heads[d]
	switch {
	case s.failed != nil:
		return b, s.failed
	case h == nil:
		return b, freshet.Errorf(freshet.KindNotExist, op, "", "no log of that domain is kept")
	case after > h.High || after+1 < h.Low:
		return b, freshet.Errorf(freshet.KindStale, op, "", "the log holds %d to %d, not what follows %d", h.Low, h.High, after)
	}
	var err error
	if b.AfterHash, err = s.chainAt(h, after); err != nil {
		return b, corrupt(op, "", err)
	}
	err = s.store.Scan(s.keys.record(d, after+1), s.keys.record(d, h.High+1), func(_, value []byte) bool {
		r, err := invalidation.DecodeRecord(value[min(len(value), len(b.AfterHash)):])
		if err != nil {
			b.Records = nil
			return false
		}
		b.Records = append(b.Records, r)
		return len(b.Records) < limit
	})
	if err == nil && len(b.Records) == 0 && after < h.High {
		err = errInode
	}
	if err != nil {
		return b, corrupt(op, "", err)
	}
	return b, nil
}

func (s *State) chainAt(h *head, seq uint64) (invalidation.Hash, error) {
	switch seq {
	case h.High:
		return h.Hash, nil
	case h.Low - 1:
		return h.LowHash, nil
	}
	b, ok, err := s.store.Get(s.keys.record(h.Domain, seq))
	if err == nil && (!ok || len(b) < len(h.Hash)) {
		err = errInode
	}
	if err != nil {
		return invalidation.Hash{}, err
	}
	return invalidation.Hash(b[:len(h.Hash)]), nil
}

// Roots returns the keys, in the domain, of the roots of its mounts.
func (s *State) Roots(d freshet.DomainID) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var roots []string
	for _, m := range s.mounts {
		if m.Domain == d {
			roots = append(roots, m.DomainKey)
		}
	}
	slices.Sort(roots)
	return roots
}
