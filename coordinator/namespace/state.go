package namespace

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/invalidation"
)

// Options are the settings of a State; the zero value is usable. They differ
// between members without making their states differ.
type Options struct {
	// CacheBytes bounds the memory for entries; 0 is 64 MiB.
	CacheBytes int64
	// Alloc makes blocks of that memory, for example outside of the heap. What it
	// returned is used as long as the State. An error leaves the cache as small as it
	// is. Nil is the heap.
	Alloc func(bytes int) ([]byte, error)
}

const defaultCacheBytes = 64 << 20

// State is the replicated state of a cluster. Reads are safe for concurrent use
// with each other and with Apply; they see all of a batch or nothing. Apply and
// Restore must be called by one goroutine at a time.
type State struct {
	mu    sync.RWMutex
	store kv.Store
	keys  keys
	cache *cache
	// formats are those that the state can be read from.
	formats formats
	index
	spare   spareRows // this and encoder are Apply's own
	encoder rowEncoder
	chains  sync.Pool // of *chain, for readers
	failed  error     // the store failed during Apply: nothing is served any more
	// awaited are the calls of At whose index is not applied yet.
	awaited []*awaited
}

// index is what of the state is kept in memory, rebuilt by Open. Its size does
// not depend on the number of entries.
type index struct {
	meta     meta
	mounts   []*mount // by ID
	trie     *trieNode
	policies map[freshet.Path]Policy
	intents  map[freshet.OpID]*intent
	writers  map[mountKey][]*intent // by each key that an intent names
	uploads  map[freshet.FileID]freshet.OpID
	zombies  map[freshet.OpID]*intent // those in quarantine
	wide     int                      // intents that span what is below their key
	heads    map[freshet.DomainID]*head
	subs     map[subKey]*invalidation.Subscription
	cursors  map[string]WatchCursor // by source
	jobs     map[uint64]SyncJob
	warms    map[uint64]WarmJob
	members  map[string]Member
	nodes    map[freshet.NodeID]NodeRole
	attrs    []attr
	attrIDs  map[attr]uint32
	missing  missingRing
	trash    int // detached directories, which are in rows
	burial   burial
	quotas   quotas
	files    unpersistedFiles
}

// meta is the row that each batch writes.
type meta struct {
	Applied   uint64
	Cluster   freshet.ClusterID
	Name      string
	Epoch     uint64
	Mounts    uint64 // revision of the mount table: index of its last change
	LastMount freshet.MountID
	LastGen   uint64
	LastInode uint64
	LastFile  uint64
	Entries   uint64            // rows of the inode table
	LastQuota uint64            `codec:",omitempty"`
	Version   int               `codec:",omitempty"` // in force, 0 is 1
	Leases    time.Duration     `codec:",omitempty"` // see SetLeases
	Holders   []freshet.LeaseID `codec:",omitempty"`
}

// mountKey names a path inside a mount.
type mountKey struct {
	mount freshet.MountID
	key   string // relative to the mount's root, "" for the root itself
}

// mount is a mount with the place of its root's entry.
type mount struct {
	freshet.Mount
	root place
}

// Identity is who the cluster is. Cluster is zero before the bootstrap.
type Identity struct {
	Cluster freshet.ClusterID
	Name    string
	Epoch   uint64
}

// Changes says what a batch touched, so that those who wait can be woken.
type Changes struct {
	Heads    bool // records were appended, or dropped by Compact
	Mounts   bool
	Policies bool
	Epoch    bool // identity too
	Intents  bool // an operation went into quarantine: there is something to find out
	Subs     bool
	Members  bool
	Jobs     bool // syncs were started, or ended
	Nodes    bool // cache nodes have other roles
	Trash    bool // there is something to purge
	Quotas   bool // there is something to count
	Marked   []Marked
	Freed    []freshet.FileID // versions that are no longer live
	// Unpersisted: there are more unpersisted files, or less, or more is known of
	// them. Persisted are those that got to the storage.
	Unpersisted bool
	Persisted   []freshet.FileID
	// Withdrawn are uploads of unpersisted files that ended before they could be
	// published: the file was moved, replaced or removed.
	Withdrawn []Intent
}

// Marked is a path that was invalidated.
type Marked struct {
	Path      freshet.Path
	Recursive bool
	Cause     Cause
}

// Open reads the small tables of store into memory; it never reads all entries.
// An empty store is an empty state. A store of an older format is first brought up
// to this one, which may take as long as reading and writing it. A store that can't
// be understood is KindCorrupt, one that a newer version wrote KindUnsupported.
func Open(store kv.Store, opts Options) (*State, error) {
	return openFormats(store, opts, ownFormats())
}

func openFormats(store kv.Store, opts Options, known formats) (*State, error) {
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = defaultCacheBytes
	}
	s := &State{store: store, cache: newCache(opts.CacheBytes, opts.Alloc), formats: known}
	l, err := readLayout(store)
	if err == nil {
		err = known.check(int(l.format))
	}
	if err != nil {
		return nil, freshet.Errorf(formatKind(err, freshet.KindCorrupt), "open state", "", "%w", err)
	}
	s.keys.gen = l.gen
	if err := s.upgrade(l); err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "open state", "", "%w", err)
	}
	if s.index, err = readIndex(store, s.keys); err != nil {
		return nil, freshet.Errorf(formatKind(err, freshet.KindCorrupt), "open state", "", "%w", err)
	}
	if err := s.cleanOthers(); err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "open state", "", "%w", err)
	}
	return s, nil
}

// Applied returns the index of the last log entry that is in the state.
func (s *State) Applied() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.meta.Applied
}

// Err returns the failure of the store that made the state stop, nil if none.
// After a failure Apply changes nothing and the process should end.
func (s *State) Err() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}

// Founded reports whether the state is that of a cluster, and Err.
func (s *State) Founded() (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.meta.Cluster != freshet.ClusterID{}, s.failed
}

// Flush makes everything applied so far durable. The log may be truncated up to
// Applied as it was before the call.
func (s *State) Flush() error {
	if err := s.store.Flush(); err != nil {
		return freshet.Errorf(freshet.KindUnavailable, "flush state", "", "%w", err)
	}
	return nil
}

// Identity returns the cluster's identity.
func (s *State) Identity() Identity {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Identity{Cluster: s.meta.Cluster, Name: s.meta.Name, Epoch: s.meta.Epoch}
}

// Members returns the coordinators in the order of their IDs.
func (s *State) Members() []Member {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := slices.Collect(maps.Values(s.members))
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Mounts returns the mounts in the order of their paths, and the revision of
// the table, which grows with each change.
func (s *State) Mounts() (mounts []freshet.Mount, revision uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.mounts {
		mounts = append(mounts, m.copy())
	}
	slices.SortFunc(mounts, func(a, b freshet.Mount) int { return cmp.Compare(a.Path, b.Path) })
	return mounts, s.meta.Mounts
}

// MountByID returns the mount of that ID.
func (s *State) MountByID(id freshet.MountID) (freshet.Mount, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if m := s.mountByID(id); m != nil {
		return m.copy(), true
	}
	return freshet.Mount{}, false
}

// MountAt returns the mount that holds p: that of the longest prefix.
func (s *State) MountAt(p freshet.Path) (freshet.Mount, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.resolve(p); r.mount != nil {
		return r.mount.copy(), true
	}
	return freshet.Mount{}, false
}

// Policies returns the policies in the order of their paths.
func (s *State) Policies() []Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := slices.Collect(maps.Values(s.policies))
	slices.SortFunc(all, func(a, b Policy) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// Intents returns the operations that have begun and not ended, in the order in
// which they began.
func (s *State) Intents() []Intent {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Intent, 0, len(s.intents))
	for _, in := range s.intents {
		all = append(all, in.Intent)
	}
	slices.SortFunc(all, func(a, b Intent) int {
		return cmp.Or(cmp.Compare(a.Started, b.Started), slices.Compare(a.Op[:], b.Op[:]))
	})
	return all
}

// OpenOps returns how many operations have begun and not ended.
func (s *State) OpenOps() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.intents)
}

// Intent returns the intent of op.
func (s *State) Intent(op freshet.OpID) (Intent, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if in := s.intents[op]; in != nil {
		return in.Intent, true
	}
	return Intent{}, false
}

// OpResult returns the recorded outcome of op.
func (s *State) OpResult(op freshet.OpID) (freshet.Completed, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok, err := readOutcome(s.store, s.keys.op(tableOutcome, op))
	if err != nil {
		return freshet.Completed{}, false, freshet.Errorf(freshet.KindCorrupt, "read outcome", "", "%w", err)
	}
	return o.Completed, ok, nil
}

// Heads returns the heads of the own logs in the order of their domains.
func (s *State) Heads() []invalidation.Head {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]invalidation.Head, 0, len(s.heads))
	for _, d := range slices.SortedFunc(maps.Keys(s.heads), compareDomains) {
		all = append(all, s.heads[d].Head)
	}
	return all
}

// Subscriptions returns the positions in the logs of other clusters.
func (s *State) Subscriptions() []invalidation.Subscription {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]invalidation.Subscription, 0, len(s.subs))
	for _, k := range s.sortedSubs() {
		all = append(all, *s.subs[k])
	}
	return all
}

func compareDomains(a, b freshet.DomainID) int { return slices.Compare(a[:], b[:]) }

func (x *index) sortedSubs() []subKey {
	return slices.SortedFunc(maps.Keys(x.subs), func(a, b subKey) int {
		return cmp.Or(slices.Compare(a.cluster[:], b.cluster[:]), compareDomains(a.domain, b.domain))
	})
}

// Apply applies the commands of the log entry at index, in order, as one change
// of the store that contains index too. An index at or below Applied was applied
// before: it is skipped and the results are nil. When the store fails every
// result is that failure, nothing changes, and Err returns it from then on. What
// loads, marks and purges do is worked out while readers go on.
func (s *State) Apply(index uint64, cmds []Command) ([]Result, Changes) {
	if index <= s.meta.Applied { // which nobody else changes
		return nil, Changes{}
	}
	if s.failed != nil {
		return failAll(index, len(cmds), s.failed), Changes{}
	}
	t := newTxn(s, index)
	defer t.readmit()
	results := make([]Result, len(cmds))
	for i := range cmds {
		results[i] = t.apply(&cmds[i])
		results[i].Index = index
	}
	if err := t.commit(); err != nil {
		s.failed = freshet.Errorf(freshet.KindInternal, "apply", "", "the store of the state failed, restart the coordinator: %w", err)
		return failAll(index, len(cmds), s.failed), Changes{}
	}
	return results, t.changes
}

func failAll(index uint64, n int, err error) []Result {
	results := make([]Result, n)
	for i := range results {
		results[i] = Result{Index: index, Err: err}
	}
	return results
}
