package namespace

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/fingerprint"
)

// MaxUnpersisted is how many files may be unpersisted at a time: they are known in
// memory.
const MaxUnpersisted = 1_000_000

// Unshakable is the ValidFrom of an entry that no word of the storage makes stale:
// what it is about is not in the storage.
const Unshakable = math.MaxUint64

// Unpersisted is what is known of a visible file whose bytes lie on cache nodes and
// not in the storage.
type Unpersisted struct {
	File   freshet.FileID   `codec:"f"`
	Nodes  []freshet.NodeID `codec:"n"` // that promised to keep its blocks
	Since  time.Time        `codec:"t"` // when it was acknowledged
	Length int64            `codec:"l"`
	// Beneath is the version that the storage had at the path then; unknown: it had
	// nothing. Only that is replaced when the file is persisted.
	Beneath fingerprint.Fingerprint `codec:"b"`
	// Queued says that it is to be persisted, not before Next.
	Queued   bool      `codec:"q"`
	Next     time.Time `codec:"x"`
	Attempts int       `codec:"a"` // that failed
	Error    string    `codec:"e"` // of the last one
	// Conflict says that the storage holds a version that is not Beneath.
	Conflict bool `codec:"c"`
	// Replicas is on how many nodes it was durable when it was acknowledged; 0 is 1.
	Replicas int `codec:"r,omitempty"`
	// Asked is when it was queued, if that was after it was acknowledged.
	Asked time.Time `codec:"w,omitempty"`
	// Laid is the index at which Beneath became another one.
	Laid uint64 `codec:"la,omitempty"`
	// Memory says that its bytes are in memory alone: they end with the nodes' processes.
	Memory bool `codec:"m,omitempty"`
}

// PersistRetryMax is the longest wait between two attempts to persist a file.
const PersistRetryMax = 5 * time.Minute

// Backoff returns how long to wait after an attempt to persist the file, Attempts having
// failed before: a second, then twice that each time, up to PersistRetryMax.
func (u *Unpersisted) Backoff() time.Duration {
	return min(time.Second<<min(u.Attempts, 16), PersistRetryMax)
}

// Waits returns since when the file waits to be persisted, if it is queued.
func (u *Unpersisted) Waits() time.Time {
	if u.Asked.IsZero() {
		return u.Since
	}
	return u.Asked
}

// unpersisted is the row with the place of the entry that has the file.
type unpersisted struct {
	Unpersisted

	at place
}

// unpersistedFiles are all of them. Rows are replaced, never changed.
type unpersistedFiles struct {
	rows  map[freshet.FileID]*unpersisted
	below map[uint64]int // by directory: how many lie below it
	bytes int64
	// persists are the operations that persist a file, or did and may still.
	persists map[freshet.FileID]freshet.OpID
}

func newUnpersistedFiles() unpersistedFiles {
	return unpersistedFiles{rows: map[freshet.FileID]*unpersisted{}, below: map[uint64]int{}, persists: map[freshet.FileID]freshet.OpID{}}
}

// unpersistedAt returns the row of the entry's file, nil if it is in the storage.
func (x *index) unpersistedAt(n *inode) *unpersisted {
	if n == nil || n.dir || n.file == 0 || len(x.files.rows) == 0 {
		return nil
	}
	return x.files.rows[n.file]
}

// holds reports whether the storage's word alone does not remove the entry: it is
// an unpersisted file, or a directory that one lies below.
func (x *index) holds(n *inode) bool {
	if n != nil && n.dir {
		return x.files.below[n.id] > 0
	}
	return x.unpersistedAt(n) != nil
}

// above calls fn for each directory above a place, from the nearest on.
func above(r kv.Reader, k keys, at place, fn func(dir uint64)) error {
	for at.parent != 0 {
		fn(at.parent)
		b, ok, err := r.Get(k.u64(tableDir, at.parent))
		if err == nil && !ok {
			err = fmt.Errorf("%w: a directory above an unpersisted file", errTable)
		}
		if err != nil {
			return err
		}
		if at, err = decodePlace(b); err != nil {
			return err
		}
	}
	return nil
}

// weigh adds n files to the directories above a place.
func (f *unpersistedFiles) weigh(r kv.Reader, k keys, at place, n int) error {
	return above(r, k, at, func(dir uint64) {
		if f.below[dir] += n; f.below[dir] == 0 {
			delete(f.below, dir)
		}
	})
}

// readUnpersisted reads a row; its place is found by placeUnpersisted.
func (x *index) readUnpersisted(key, value []byte) error {
	u := &unpersisted{}
	if err := decode(value, &u.Unpersisted); err != nil {
		return err
	}
	if len(key) != 8 || u.File == 0 || u64Of(key) != uint64(u.File) {
		return errTable
	}
	x.files.rows[u.File] = u
	x.files.bytes += u.Length
	return nil
}

func (x *index) placeUnpersisted(r kv.Reader, k keys) error {
	for _, u := range x.files.rows {
		b, ok, err := r.Get(k.u64(tableFile, uint64(u.File)))
		if err == nil && !ok {
			err = fmt.Errorf("%w: the entry of an unpersisted file is missing", errTable)
		}
		if err == nil {
			u.at, err = decodePlace(b)
		}
		if err == nil {
			err = x.files.weigh(r, k, u.at, 1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) saveUnpersisted(u *unpersisted) {
	t.files.rows[u.File] = u
	t.setRow(t.keys.u64(tableUnpersisted, uint64(u.File)), &u.Unpersisted)
	t.changes.Unpersisted = true
}

// keepUnpersisted makes the entry at p, which is bound to the file, unpersisted.
func (t *txn) keepUnpersisted(p place, u Unpersisted) {
	t.fail(t.files.weigh(t.b, t.keys, p, 1))
	t.files.bytes += u.Length
	t.saveUnpersisted(&unpersisted{Unpersisted: u, at: p})
}

// forgetUnpersisted ends that the file is unpersisted: it was persisted, or is not
// wanted any more. An upload of it that has no permit yet gets none.
func (t *txn) forgetUnpersisted(id freshet.FileID) {
	u := t.files.rows[id]
	if u == nil {
		return
	}
	t.exclusive()
	t.fail(t.files.weigh(t.b, t.keys, u.at, -1))
	t.files.bytes -= u.Length
	delete(t.files.rows, id)
	t.del(t.keys.u64(tableUnpersisted, uint64(id)))
	t.changes.Unpersisted = true
	t.stopPersist(id)
}

// stopPersist withdraws an upload that may not have been published yet; false if it
// may have been.
func (t *txn) stopPersist(id freshet.FileID) bool {
	in := t.intents[t.files.persists[id]]
	if in == nil {
		return true
	}
	if in.State != IntentUploading {
		return false
	}
	t.changes.Withdrawn = append(t.changes.Withdrawn, in.Intent)
	t.endIntent(in, false)
	return true
}

// moveUnpersisted follows an entry that moves: a file, or a directory with all below
// it. It is called before the move.
func (t *txn) moveUnpersisted(n *inode, from, to place) {
	count := 1
	if n.dir {
		count = t.files.below[n.id]
	} else if t.unpersistedAt(n) == nil {
		return
	}
	if count == 0 {
		return
	}
	t.fail(t.files.weigh(t.b, t.keys, from, -count))
	t.fail(t.files.weigh(t.b, t.keys, to, count))
	if u := t.unpersistedAt(n); u != nil {
		moved := *u
		moved.at = to
		t.files.rows[u.File] = &moved
	}
}

// unpersistedIn returns the rows of the files below a directory, in the order of
// their IDs.
func (t *txn) unpersistedIn(dir uint64) []*unpersisted {
	if t.files.below[dir] == 0 {
		return nil
	}
	var found []*unpersisted
	for _, u := range t.files.rows {
		inside := false
		t.fail(above(t.b, t.keys, u.at, func(d uint64) { inside = inside || d == dir }))
		if inside {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(a, b *unpersisted) int { return cmp.Compare(a.File, b.File) })
	return found
}

// unpersistedUnder returns those at key or below it.
func (t *txn) unpersistedUnder(m *mount, key string) []*unpersisted {
	c := t.walk(m, key)
	switch n := c.entry(); {
	case n == nil:
		return nil
	case n.dir:
		return t.unpersistedIn(n.id)
	default:
		if u := t.unpersistedAt(n); u != nil {
			return []*unpersisted{u}
		}
		return nil
	}
}

// keyOf returns the key, in its mount, of a place that is not detached.
func (t *txn) keyOf(at place) string {
	key := at.name
	for {
		b, ok, err := t.b.Get(t.keys.u64(tableDir, at.parent))
		if err == nil && !ok {
			err = errTable
		}
		if err == nil {
			at, err = decodePlace(b)
		}
		if err != nil {
			t.fail(err)
			return key
		}
		if at.parent == 0 {
			return key
		}
		key = at.name + "/" + key
	}
}

// discardRemoved drops the unpersisted files that a removal took away: those at and below
// its key that were there when it began. One that may be on its way to the storage stays.
func (t *txn) discardRemoved(m *mount, in *intent) {
	for _, u := range t.unpersistedUnder(m, in.Key) {
		if t.get(u.at).validFrom <= in.Started && t.stopPersist(u.File) {
			t.discardFile(m, u)
		}
	}
}

// discardFile drops an unpersisted file. What the storage has at its path, if anything,
// shows at the next look.
func (t *txn) discardFile(m *mount, u *unpersisted) {
	key := t.keyOf(u.at)
	t.dropSince(m, key, t.i-1)
	t.mark(m, key, false)
}

// keepDirectory keeps a directory that a load did not find, because unpersisted files
// lie below it: they will make it again. All else below it has to be looked at.
func (t *txn) keepDirectory(p place, start uint64) {
	n := t.edit(p)
	n.validFrom, n.complete = start, false
	n.subtree = max(n.subtree, start)
}

// UnpersistedTotals is how much is unpersisted.
type UnpersistedTotals struct {
	Files, Bytes int64
}

// UnpersistedTotals returns how much is unpersisted.
func (s *State) UnpersistedTotals() UnpersistedTotals {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return UnpersistedTotals{Files: int64(len(s.files.rows)), Bytes: s.files.bytes}
}

// UnpersistedFile is an unpersisted file with its path.
type UnpersistedFile struct {
	Unpersisted

	Path       freshet.Path
	Mount      freshet.MountID
	Key        string
	BlockSize  int64
	Owner      string
	Group      string
	Mode       uint32
	Persisting freshet.OpID // the operation that persists it; zero: none does
}

// Unpersisted returns up to limit unpersisted files, the oldest version first, that
// want selects; no limit if it is 0. want must not use the State.
func (s *State) Unpersisted(limit int, want func(*Unpersisted, freshet.OpID) bool) ([]UnpersistedFile, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return nil, s.failed
	}
	var rows []*unpersisted
	for _, u := range s.files.rows {
		if want == nil || want(&u.Unpersisted, s.files.persists[u.File]) {
			rows = append(rows, u)
		}
	}
	slices.SortFunc(rows, func(a, b *unpersisted) int { return cmp.Compare(a.File, b.File) })
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	out := make([]UnpersistedFile, 0, len(rows))
	for _, u := range rows {
		f, ok, err := s.unpersistedFile(u)
		if err != nil {
			return nil, corrupt("list unpersisted files", "", err)
		}
		if ok {
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *State) unpersistedFile(u *unpersisted) (UnpersistedFile, bool, error) {
	info, src, ok, err := s.fileInfo(u.File)
	return UnpersistedFile{
		Unpersisted: u.Unpersisted, Path: info.Path, Mount: info.Mount, Key: src.Key, BlockSize: info.BlockSize,
		Owner: info.Owner, Group: info.Group, Mode: info.Mode, Persisting: s.files.persists[u.File],
	}, ok, err
}

// UnpersistedOf returns the unpersisted file of that version.
func (s *State) UnpersistedOf(id freshet.FileID) (UnpersistedFile, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := s.files.rows[id]
	if u == nil || s.failed != nil {
		return UnpersistedFile{}, false
	}
	f, ok, err := s.unpersistedFile(u)
	return f, ok && err == nil
}

// Release returns those of the versions of a cluster whose blocks need not be kept for
// the storage any more: they were persisted, replaced or removed, or never became
// visible. A version that this member may not have heard of yet is not among them, and
// none is of another cluster, whose versions have the same numbers.
func (s *State) Release(cluster freshet.ClusterID, ids []freshet.FileID) []freshet.FileID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil || cluster != s.meta.Cluster {
		return nil
	}
	const counterBits = 64 - epochBits
	epoch := s.meta.Epoch & (1<<epochBits - 1)
	var over []freshet.FileID
	for _, id := range ids {
		of, number := uint64(id)>>counterBits, uint64(id)&(1<<counterBits-1)
		_, uploading := s.uploads[id]
		if of > epoch || of == epoch && number > s.meta.LastFile || uploading || s.files.rows[id] != nil {
			continue
		}
		over = append(over, id)
	}
	return over
}
