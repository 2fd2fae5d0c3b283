// Package store owns the cached blocks of a node over all its tiers, the fastest
// first, each in memory or in one or more directories: where a new block goes,
// which blocks move to a slower tier or a faster one, and which directories are out
// of service.
//
// It never decides which of the blocks of a directory goes first, never looks at
// bytes, and never fetches a block: package tier keeps what is in one directory. A
// block may be in several tiers at once for a while, which costs space and harms
// nothing, for blocks are immutable.
package store

import (
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/internal/clock"
)

// MaxDirs is how many directories a node may have.
const MaxDirs = 63

// Kind says what a tier is made of. It is a name for people, but for Memory.
type Kind string

// The kinds of tier.
const (
	Memory Kind = "memory"
	SSD    Kind = "ssd"
	HDD    Kind = "hdd"
	Disk   Kind = "disk" // whatever it is
)

// Tier describes one tier.
type Tier struct {
	Kind Kind
	Dirs []Dir // of Memory: one, without a path
	// Policy is the eviction policy, one of tier.Policies. "" is the first of them.
	Policy string
	// High and Low are parts of the capacity of a directory: when more than High
	// is taken, Run makes blocks leave until Low is. 0 is what leaves a twentieth
	// free, at most 4 GiB, and for High half of that. The last tier, if it is
	// memory, has no watermarks: there a block leaves at once.
	High, Low float64
}

// Dir is one directory of a tier.
type Dir struct {
	Path     string
	Capacity int64 // bytes; 0 is tier.DefaultCapacity
}

// InMemory returns a tier in memory.
func InMemory(capacity int64) Tier { return Tier{Kind: Memory, Dirs: []Dir{{Capacity: capacity}}} }

// OnDisk returns a tier in one directory.
func OnDisk(path string, capacity int64) Tier {
	return Tier{Kind: Disk, Dirs: []Dir{{Path: path, Capacity: capacity}}}
}

// Options are the settings of a Store; the zero value is usable.
type Options struct {
	Log   *slog.Logger
	Clock clock.Clock
	// PromoteReads is how many reads, a second apart at least, make a block move
	// to the tier above. 0 is 2.
	PromoteReads int
	// CheckEvery is the time between two attempts to put a directory that is out
	// of service back into it. 0 is ten seconds.
	CheckEvery time.Duration
	// Patience is how long an access to a directory may take before it has failed;
	// then the directory is out of service until it answers. 0 is 15 seconds.
	Patience time.Duration
	// Fault, if not nil, is asked before each access to the directory; for fault
	// injection.
	Fault func(dir, op string) error
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.PromoteReads <= 0 {
		o.PromoteReads = 2
	}
	if o.CheckEvery <= 0 {
		o.CheckEvery = 10 * time.Second
	}
}

// Store is the set of blocks of a node. It is safe for concurrent use. Without Run
// blocks move nowhere, and no directory leaves service or comes back.
type Store struct {
	opts   Options
	levels []*level
	dirs   []*dir // of all levels, the fastest first; a dir's place is its bit

	shedding chan struct{} // asks the mover to look at the watermarks
	promote  chan promotion
	checking chan struct{} // asks the checker to look at the directories

	// moveMu is held while a block that is in two places leaves one, so that what
	// concerns the block finds it in all of them. Taken before the tiers' locks.
	moveMu sync.Mutex

	// mu is taken after the tiers' locks.
	mu      sync.Mutex
	index   map[freshet.BlockID]place
	observe func(tier.Change)
	moved   func(from, to Kind)
}

// place says where a block is.
type place struct {
	length int64
	dirs   uint64 // a bit for each
}

// level is one tier.
type level struct {
	Tier
	at   int
	dirs []*dir
}

// Open opens the tiers, which are at least one. A directory that can't be opened is
// out of service until it can, unless there is no other; KindConflict: another
// process has it. It starts nothing.
func Open(tiers []Tier, opts Options) (*Store, error) {
	opts.setDefaults()
	s := &Store{
		opts: opts, shedding: make(chan struct{}, 1), promote: make(chan promotion, 64), checking: make(chan struct{}, 1),
		index: make(map[freshet.BlockID]place), observe: func(tier.Change) {}, moved: func(Kind, Kind) {},
	}
	var failed error
	serving := 0
	for i, t := range tiers {
		l := &level{Tier: t, at: i}
		s.levels = append(s.levels, l)
		for _, spec := range t.Dirs {
			d := s.newDir(l, spec)
			err := d.open()
			switch {
			case err == nil:
				serving++
			case freshet.IsKind(err, freshet.KindConflict, freshet.KindInvalid):
				return nil, s.abandon(err)
			default:
				opts.Log.Error("a cache directory can't be opened and is out of service", "directory", spec.Path, "tier", string(t.Kind), "error", err)
				d.fail(err)
				failed = err
			}
		}
	}
	if len(s.dirs) == 0 || len(s.dirs) > MaxDirs {
		return nil, s.abandon(freshet.Errorf(freshet.KindInvalid, "open cache", "", "%d directories: give 1 to %d", len(s.dirs), MaxDirs))
	}
	if serving == 0 {
		return nil, s.abandon(failed)
	}
	return s, nil
}

func (s *Store) abandon(err error) error {
	_ = s.Close() //nolint:errcheck // nothing was done with it
	return err
}

// Close gives up the locks of the directories. Blocks stay on disks.
func (s *Store) Close() error {
	var first error
	for _, d := range s.dirs {
		if t := d.tier.Load(); t != nil {
			if err := t.Close(); first == nil {
				first = err
			}
		}
	}
	return first
}

// Observe sets the function that is told of every block that comes to the node or
// goes from now on, in order; not of those that move. It is called with a tier
// locked: it must be quick and must not call the store.
func (s *Store) Observe(fn func(tier.Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = fn
}

// ObserveMoves sets the function that is told of every block that was copied to
// another tier.
func (s *Store) ObserveMoves(fn func(from, to Kind)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = fn
}

// change keeps the index and tells the observer what it means for the node.
func (s *Store) change(d *dir, of *tier.Tier, c tier.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.state != stateServing && d.state != stateFull || d.tier.Load() != of {
		return // its blocks are gone from the index already
	}
	s.note(d, c)
}

// note is change with mu held.
func (s *Store) note(d *dir, c tier.Change) {
	p := s.index[c.Block.ID]
	was := p.dirs
	if c.Added {
		p = place{c.Block.Length, was | d.bit}
	} else {
		p.dirs &^= d.bit
	}
	if p.dirs == 0 {
		delete(s.index, c.Block.ID)
	} else {
		s.index[c.Block.ID] = p
	}
	if (was == 0) != (p.dirs == 0) {
		s.observe(c)
	}
}

func (s *Store) lookup(id freshet.BlockID) place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index[id]
}

// Stat returns the length of a block and whether the node holds it.
func (s *Store) Stat(id freshet.BlockID) (length int64, ok bool) {
	p := s.lookup(id)
	return p.length, p.dirs != 0
}

// List returns all blocks in no particular order.
func (s *Store) List() []freshet.BlockReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]freshet.BlockReport, 0, len(s.index))
	for id, p := range s.index {
		list = append(list, freshet.BlockReport{ID: id, Length: p.length})
	}
	return list
}

// Open opens a block, in the fastest tier that has it. KindNotExist: there is no
// block that is what want says; KindCorrupt: there was one, which was damaged and
// has been dropped.
func (s *Store) Open(id freshet.BlockID, want tier.Want) (*tier.Reader, error) {
	err := freshet.Errorf(freshet.KindNotExist, "open block", "", "the block is not cached")
	for left := s.lookup(id).dirs; left != 0; left &= left - 1 {
		d := s.dirs[bits.TrailingZeros64(left)]
		t := d.tier.Load()
		if t == nil {
			continue
		}
		r, failed := t.Open(id, want)
		if failed == nil {
			s.noteRead(d, r)
			return r, nil
		}
		if !freshet.IsKind(failed, freshet.KindNotExist) {
			err = failed
		}
	}
	return nil, err
}

// Create starts a block: in the fastest tier that has free space, so that nothing
// has to wait, else in the slowest one that can make space.
func (s *Store) Create(id freshet.BlockID, length int64) (*tier.Writer, error) {
	if _, ok := s.Stat(id); ok {
		return nil, freshet.Errorf(freshet.KindExist, "write block", "", "the block is cached already")
	}
	w, _, err := s.createIn(s.levels, id, length)
	return w, err
}

// createIn starts a block in one of the levels.
func (s *Store) createIn(levels []*level, id freshet.BlockID, length int64) (*tier.Writer, *dir, error) {
	err := freshet.Errorf(freshet.KindUnavailable, "write block", "", "no directory of the cache takes blocks")
	for _, l := range levels {
		for _, d := range l.byFree() {
			var w *tier.Writer
			if w, err = d.tier.Load().CreateInFree(id, length); decided(err) {
				return s.created(w, d, err)
			}
		}
	}
	for _, l := range slices.Backward(levels) {
		for _, d := range l.byFree() {
			var w *tier.Writer
			if w, err = d.tier.Load().Create(id, length); decided(err) {
				return s.created(w, d, err)
			}
		}
	}
	if trouble := s.trouble(); trouble != "" {
		err = fmt.Errorf("%w (%s)", err, trouble)
	}
	return nil, nil, err
}

// decided reports whether another directory would say the same.
func decided(err error) bool {
	return err == nil || freshet.IsKind(err, freshet.KindExist, freshet.KindInvalid)
}

func (s *Store) created(w *tier.Writer, d *dir, err error) (*tier.Writer, *dir, error) {
	if err == nil {
		s.shedIfHigh(d)
	}
	return w, d, err
}

// Remove drops blocks that are no longer wanted. Open readers go on reading.
func (s *Store) Remove(ids ...freshet.BlockID) {
	if len(ids) == 0 {
		return
	}
	s.eachTier(func(t *tier.Tier) { t.Remove(ids...) })
}

// Pin keeps the blocks of file versions that the node holds from being evicted;
// they can still be removed. With only, the blocks of all other versions are pinned
// no more.
func (s *Store) Pin(only bool, files ...freshet.FileID) {
	s.eachTier(func(t *tier.Tier) { t.Pin(only, files...) })
}

// Clear drops all blocks, because they belong to somebody else.
func (s *Store) Clear() { s.eachTier((*tier.Tier).Clear) }

func (s *Store) eachTier(do func(*tier.Tier)) {
	s.moveMu.Lock()
	defer s.moveMu.Unlock()
	for _, d := range s.dirs {
		if t := d.tier.Load(); t != nil {
			do(t)
		}
	}
}

// Swept returns how many files were removed at the start because they can't be
// blocks.
func (s *Store) Swept() int {
	n := 0
	for _, d := range s.dirs {
		if t := d.tier.Load(); t != nil {
			n += t.Swept()
		}
	}
	return n
}

// Capacity returns the bytes that blocks may take in all directories in service.
func (s *Store) Capacity() int64 { return s.sum((*tier.Tier).Capacity) }

// Used returns the bytes that are taken in all directories in service,
// reservations included.
func (s *Store) Used() int64 { return s.sum((*tier.Tier).Used) }

// Pinned returns the bytes that pinned blocks take in all directories in service.
func (s *Store) Pinned() int64 { return s.sum((*tier.Tier).Pinned) }

func (s *Store) sum(of func(*tier.Tier) int64) (n int64) {
	for _, l := range s.levels {
		n += l.sum(of)
	}
	return n
}

// Kinds returns the kinds of the tiers, the fastest first.
func (s *Store) Kinds() []Kind {
	var kinds []Kind
	for _, l := range s.levels {
		kinds = append(kinds, l.Kind)
	}
	return kinds
}

// Name returns the kinds of the tiers in one word: "memory+ssd".
func (s *Store) Name() string {
	var names []string
	for _, k := range s.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, "+")
}
