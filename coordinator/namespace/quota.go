package namespace

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
)

// Usage is an amount of entries, files and directories, and of bytes of files.
type Usage struct {
	Entries int64 `codec:"e"`
	Bytes   int64 `codec:"b"`
}

func (u Usage) plus(v Usage, times int64) Usage {
	return Usage{u.Entries + times*v.Entries, u.Bytes + times*v.Bytes}
}

func (u Usage) zero() bool { return u == Usage{} }

// weigh returns what an entry uses.
func weigh(n *inode) Usage {
	switch {
	case n == nil:
		return Usage{}
	case n.dir:
		return Usage{Entries: 1}
	}
	return Usage{Entries: 1, Bytes: n.length}
}

// Quota limits what the namespace may hold strictly below a path.
type Quota struct {
	ID         uint64       `codec:"i"` // never reused
	Path       freshet.Path `codec:"p"`
	MaxEntries int64        `codec:"me"` // 0 is no limit
	MaxBytes   int64        `codec:"mb"`
	Origin     string       `codec:"o"`
	SetAt      time.Time    `codec:"t"`
	Used       Usage        `codec:"u"`
}

// QuotaStatus is a quota with what operations that run have announced.
type QuotaStatus struct {
	Quota
	Reserved Usage
	// Counting: directories wait to be counted, or to be taken off, so that Used is
	// not what lies below the path yet.
	Counting bool
}

// SetQuota sets the limits of a path, or replaces them. What is there already is
// counted by CountQuotas.
type SetQuota struct {
	Path       freshet.Path `codec:"p"`
	MaxEntries int64        `codec:"e"`
	MaxBytes   int64        `codec:"b"`
	Origin     string       `codec:"o"`
	At         time.Time    `codec:"t"`
}

// RemoveQuota removes the quota of exactly that path; KindNotExist if none.
type RemoveQuota struct {
	Path freshet.Path `codec:"p"`
}

// CountQuotas counts up to Limit entries of directories whose quotas changed.
type CountQuotas struct {
	Limit int `codec:"l"`
}

// quotas is what is kept of quotas in memory.
type quotas struct {
	byPath   map[freshet.Path]*Quota
	byID     map[uint64]*Quota
	reserved map[uint64]Usage // by running operations
}

func newQuotas() quotas {
	return quotas{byPath: map[freshet.Path]*Quota{}, byID: map[uint64]*Quota{}, reserved: map[uint64]Usage{}}
}

func (q *quotas) insert(one *Quota) { q.byPath[one.Path], q.byID[one.ID] = one, one }

// covering returns the quotas that count the entry at p, from the root down.
func (q *quotas) covering(p freshet.Path) []*Quota {
	if len(q.byPath) == 0 || p.IsRoot() {
		return nil
	}
	var all []*Quota
	if one := q.byPath[freshet.Root]; one != nil {
		all = append(all, one)
	}
	for i := 1; i < len(p); i++ {
		if p[i] == '/' {
			if one := q.byPath[p[:i]]; one != nil {
				all = append(all, one)
			}
		}
	}
	return all
}

// wanted returns the IDs of the quotas that count what lies directly in the
// directory p, ascending.
func (q *quotas) wanted(p freshet.Path) []uint64 {
	var ids []uint64
	for _, one := range q.covering(p) {
		ids = append(ids, one.ID)
	}
	if one := q.byPath[p]; one != nil {
		ids = append(ids, one.ID)
	}
	slices.Sort(ids)
	return ids
}

// Quotas returns the quotas in the order of their paths.
func (s *State) Quotas() ([]QuotaStatus, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	counting, err := s.uncounted()
	if err != nil {
		return nil, corrupt("read quotas", "", err)
	}
	all := make([]QuotaStatus, 0, len(s.quotas.byPath))
	for _, one := range s.quotas.byPath {
		all = append(all, QuotaStatus{Quota: *one, Reserved: s.quotas.reserved[one.ID], Counting: counting || s.trash > 0})
	}
	slices.SortFunc(all, func(a, b QuotaStatus) int { return cmp.Compare(a.Path, b.Path) })
	return all, nil
}

// Uncounted reports whether there is work for CountQuotas.
func (s *State) Uncounted() (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.uncounted()
}

// uncounted costs nothing where there never was a quota.
func (s *State) uncounted() (bool, error) {
	if s.meta.LastQuota == 0 || s.failed != nil {
		return false, s.failed
	}
	found := false
	start, end := s.keys.bounds(tableUncounted)
	err := s.store.Scan(start, end, func(_, _ []byte) bool {
		found = true
		return false
	})
	return found, err
}

// CoveredAlike reports whether the same quotas count the entries at both paths.
func (s *State) CoveredAlike(a, b freshet.Path) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Equal(s.quotas.covering(a), s.quotas.covering(b))
}

// CountBelow returns what the namespace holds strictly below p, in the mount that
// p lies in. It reads page by page and does not hold up Apply in between, so that
// what changes meanwhile may be counted or not.
func (s *State) CountBelow(p freshet.Path) (Usage, error) {
	var sum Usage
	dirs := []freshet.Path{p}
	for len(dirs) > 0 {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		for after := ""; ; {
			page, err := s.List(dir, after, 1000)
			if err != nil {
				return Usage{}, err
			}
			for i := range page {
				c := &page[i]
				if c.Info.MountPoint || (c.Virtual && c.Info.Mount == 0) {
					continue
				}
				sum = sum.plus(Usage{Entries: 1, Bytes: c.Info.Length}, 1)
				if c.Info.Type == freshet.TypeDirectory {
					dirs = append(dirs, dir.Join(c.Name))
				}
			}
			if len(page) < 1000 {
				break
			}
			after = page[len(page)-1].Name
		}
	}
	return sum, nil
}

// need is what an operation will add: its entries are those of missing parents too.
func (in *intent) need() Usage { return Usage{in.NeedEntries, in.NeedBytes} }

// charged returns the quotas that an operation adds to.
func (q *quotas) charged(b *Begin) []*Quota {
	if b.Kind != OpRename {
		return q.covering(b.Path)
	}
	from := q.covering(b.Path)
	return slices.DeleteFunc(q.covering(b.Path2), func(one *Quota) bool { return slices.Contains(from, one) })
}

// of returns the part of a need that one quota counts: parents at or above its path
// are not its.
func (u Usage) of(one *Quota, p freshet.Path, moved int64) Usage {
	deep := int64(len(p.Segments()) - len(one.Path.Segments()))
	return Usage{Entries: min(u.Entries-moved, deep) + moved, Bytes: u.Bytes}
}

func (in *intent) target() freshet.Path {
	if in.Kind == OpRename {
		return in.Path2
	}
	return in.Path
}

// reserve announces, or with -1 withdraws, what an operation will add.
func (q *quotas) reserve(in *intent, times int64) {
	need := in.need()
	if in.State == IntentQuarantine || need.zero() {
		return
	}
	for _, one := range q.charged(&in.Begin) {
		r := q.reserved[one.ID].plus(need.of(one, in.target(), in.MoveEntries), times)
		if q.reserved[one.ID] = r; r.zero() {
			delete(q.reserved, one.ID)
		}
	}
}

// reserveAll counts the reservations anew.
func (x *index) reserveAll() {
	x.quotas.reserved = map[uint64]Usage{}
	for _, in := range x.intents {
		x.quotas.reserve(in, 1)
	}
}

// admit refuses an operation that would exceed a quota; it sets what the operation
// reserves. A new file of unknown length needs room for a byte.
func (t *txn) admit(in *intent, m *mount) error {
	charged := t.quotas.charged(&in.Begin)
	if len(charged) == 0 || in.Kind == OpRemove || in.Kind == OpSetAttr {
		return nil
	}
	t.settle() // what earlier commands of this log entry added counts
	key, length := in.Key, int64(0)
	switch {
	case in.Kind == OpRename:
		key, length = in.Key2, in.MoveBytes
		if c := t.walk(m, in.Key); c.entry() != nil && !c.last().dir {
			length = c.last().length
		}
	case in.Kind == OpWrite && in.Length != nil:
		length = max(*in.Length, 0)
	}
	c := t.walk(m, key)
	if n := c.entry(); n != nil {
		length -= weigh(n).Bytes
		in.NeedEntries = in.MoveEntries
	} else {
		in.NeedEntries = in.MoveEntries + int64(strings.Count(c.rest, "/")) + 1
	}
	in.NeedBytes = max(length, 0)
	unknown := in.Kind == OpWrite && in.Length == nil && c.entry() == nil
	for _, one := range charged {
		add := in.need().of(one, in.target(), in.MoveEntries)
		if unknown {
			add.Bytes = 1 // it will hold something
		}
		if err := t.exceeds(one, add, in.target(), in.Kind.String()); err != nil {
			return err
		}
	}
	return nil
}

// admitLength is admit for an upload that is about to become visible, when its
// length is known.
func (t *txn) admitLength(in *intent, length int64) error {
	if length < 0 || in.Kind != OpWrite || len(t.quotas.byPath) == 0 {
		return nil
	}
	m := t.mountByID(in.Mount)
	charged := t.quotas.charged(&in.Begin)
	if m == nil || len(charged) == 0 {
		return nil
	}
	t.settle() // what earlier commands of this log entry added counts
	c := t.walk(m, in.Key)
	grows := max(length-weigh(c.entry()).Bytes, 0)
	t.quotas.reserve(in, -1)
	var err error
	for _, one := range charged {
		if err == nil {
			err = t.exceeds(one, Usage{Bytes: grows}, in.Path, "write")
		}
	}
	if err == nil {
		in.NeedBytes = grows
	}
	t.quotas.reserve(in, 1)
	return err
}

// exceeds says why an amount does not fit.
func (t *txn) exceeds(one *Quota, add Usage, p freshet.Path, op string) error {
	r := t.quotas.reserved[one.ID]
	const remedy = "remove something, or raise it with \"freshet quota set\""
	switch {
	case add.Entries > 0 && one.MaxEntries > 0 && one.Used.Entries+r.Entries+add.Entries > one.MaxEntries:
		return freshet.Errorf(freshet.KindExhausted, op, p, "the quota of %s is exceeded: %d of %d entries are used and %d reserved, %d more do not fit; %s",
			one.Path, one.Used.Entries, one.MaxEntries, r.Entries, add.Entries, remedy)
	case add.Bytes > 0 && one.MaxBytes > 0 && one.Used.Bytes+r.Bytes+add.Bytes > one.MaxBytes:
		return freshet.Errorf(freshet.KindExhausted, op, p, "the quota of %s is exceeded: %d of %d bytes are used and %d reserved, %d more do not fit; %s",
			one.Path, one.Used.Bytes, one.MaxBytes, r.Bytes, add.Bytes, remedy)
	}
	return nil
}

// check checks the form of a quota.
func (c *SetQuota) check() error {
	const op = "quota set"
	if p, err := freshet.ParsePath(string(c.Path)); err != nil || p != c.Path {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", c.Path)
	}
	if c.MaxEntries < 0 || c.MaxBytes < 0 || (c.MaxEntries == 0 && c.MaxBytes == 0) {
		return freshet.Errorf(freshet.KindInvalid, op, c.Path, "a quota limits entries, bytes or both, to more than 0")
	}
	return nil
}

func (t *txn) setQuota(c *SetQuota) Result {
	if err := c.check(); err != nil {
		return Result{Err: err}
	}
	one := t.quotas.byPath[c.Path]
	if one == nil {
		t.settle()
		t.meta.LastQuota++
		one = &Quota{ID: t.meta.LastQuota, Path: c.Path}
		t.quotas.insert(one)
		t.recount(c.Path)
		t.reserveAll()
	}
	one.MaxEntries, one.MaxBytes, one.Origin, one.SetAt = c.MaxEntries, c.MaxBytes, c.Origin, c.At.UTC()
	t.saveQuota(one)
	return Result{}
}

func (t *txn) removeQuota(c *RemoveQuota) Result {
	one := t.quotas.byPath[c.Path]
	if one == nil {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "quota unset", c.Path, "no quota is set for exactly this path")}
	}
	t.settle()
	delete(t.quotas.byPath, one.Path)
	delete(t.quotas.byID, one.ID)
	t.del(t.keys.u64(tableQuota, one.ID))
	t.recount(c.Path)
	t.reserveAll()
	return Result{}
}

func (t *txn) saveQuota(one *Quota) { t.setRow(t.keys.u64(tableQuota, one.ID), one) }

func (x *index) readQuota(_, value []byte) error {
	one := &Quota{}
	if err := decode(value, one); err != nil {
		return err
	}
	if p, err := freshet.ParsePath(string(one.Path)); err != nil || p != one.Path {
		return errTable
	}
	x.quotas.insert(one)
	return nil
}

// sorted returns the IDs, ascending.
func (q *quotas) sorted() []uint64 { return slices.Sorted(maps.Keys(q.byID)) }
