package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// state says what a directory is good for.
type state int

const (
	stateFailed  state = iota // out of service: its blocks are not the node's
	stateFull                 // its disk has no space: it serves its blocks and takes no others
	stateServing              // in service
)

func (s state) String() string { return [...]string{"failed", "full", "serving"}[s] }

// dir is one directory, or memory.
type dir struct {
	store *Store
	level *level
	spec  Dir
	bit   uint64
	tier  atomic.Pointer[tier.Tier] // nil if it was never opened

	suspect atomic.Bool // something failed since the last check
	noSpace atomic.Bool // and it was the disk's space
	checked atomic.Bool // it is being looked at

	// Guarded by the store's mu.
	state state
	why   error // it is not serving
}

func (s *Store) newDir(l *level, spec Dir) *dir {
	d := &dir{store: s, level: l, spec: spec, bit: 1 << len(s.dirs)}
	s.dirs = append(s.dirs, d)
	l.dirs = append(l.dirs, d)
	return d
}

// open puts the directory into service with the blocks that are in it.
func (d *dir) open() error {
	opts := tier.Options{Capacity: d.spec.Capacity, Policy: d.level.Policy}
	if d.level.at > 0 {
		opts.Clock = d.store.opts.Clock // only there it matters how often blocks are read
	}
	var t *tier.Tier
	var err error
	if d.level.Kind == Memory {
		t, err = tier.NewMemory(opts)
	} else {
		opts.Failed = d.failed
		opts.Patience = d.store.opts.Patience
		if fault := d.store.opts.Fault; fault != nil {
			opts.Fault = func(op string) error { return fault(d.spec.Path, op) }
		}
		t, err = tier.OpenDisk(d.spec.Path, opts)
	}
	if err != nil {
		return err
	}
	if d.isBack() { // what has failed once must show that it works
		if err := t.Probe(); err != nil {
			_ = t.Close() //nolint:errcheck // it does not work anyway
			return err
		}
	}
	d.putIn(t)
	return nil
}

// isBack reports whether the directory was out of service.
func (d *dir) isBack() bool {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return d.why != nil
}

func (d *dir) putIn(t *tier.Tier) {
	s := d.store
	found := t.List()                                    // nobody else knows t yet,
	t.Observe(func(c tier.Change) { s.change(d, t, c) }) // and until then its changes are passed over
	s.mu.Lock()
	defer s.mu.Unlock()
	d.tier.Store(t)
	d.state, d.why = stateServing, nil
	d.suspect.Store(false)
	d.noSpace.Store(false)
	for _, b := range found {
		s.note(d, tier.Change{Block: b, Added: true})
	}
}

// failed is told by the tier, locked, of what has failed.
func (d *dir) failed(err error) {
	if freshet.IsKind(tier.DiskError(err), freshet.KindExhausted) {
		d.noSpace.Store(true)
	}
	d.suspect.Store(true)
	signal(d.store.checking)
}

// fail takes the directory out of service: its blocks are not the node's any more.
func (d *dir) fail(why error) {
	s := d.store
	s.mu.Lock()
	defer s.mu.Unlock()
	d.why = why
	if d.state == stateFailed {
		return
	}
	d.state = stateFailed
	for id, p := range s.index {
		if p.dirs&d.bit != 0 {
			s.note(d, tier.Change{Block: freshet.BlockReport{ID: id, Length: p.length}, Reason: tier.ReasonFailed})
		}
	}
}

func (d *dir) setFull(full bool, why error) {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	switch {
	case d.state == stateFailed:
	case full:
		d.state, d.why = stateFull, why
	default:
		d.state, d.why = stateServing, nil
		d.noSpace.Store(false)
	}
}

func (d *dir) status() (state, error) {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return d.state, d.why
}

func (d *dir) takes() bool {
	st, _ := d.status()
	return st == stateServing
}

func (d *dir) free() int64 {
	t := d.tier.Load()
	return t.Capacity() - t.Used()
}

// byFree returns the directories that take blocks, the one with the most free space
// first.
func (l *level) byFree() []*dir {
	if len(l.dirs) == 1 && l.dirs[0].takes() {
		return l.dirs
	}
	type spot struct {
		d    *dir
		free int64
	}
	var spots []spot
	for _, d := range l.dirs {
		if d.takes() {
			spots = append(spots, spot{d, d.free()})
		}
	}
	slices.SortStableFunc(spots, func(a, b spot) int { return int(max(-1, min(1, b.free-a.free))) })
	dirs := make([]*dir, len(spots))
	for i, sp := range spots {
		dirs[i] = sp.d
	}
	return dirs
}

// sum adds up over the directories that serve blocks.
func (l *level) sum(of func(*tier.Tier) int64) (n int64) {
	for _, d := range l.dirs {
		if st, _ := d.status(); st != stateFailed {
			n += of(d.tier.Load())
		}
	}
	return n
}

// Status is the state of one tier.
type Status struct {
	Kind                   Kind
	Capacity, Used, Pinned int64 // bytes, of the directories in service
	Kept                   int64 // of blocks that are kept, see Store.CreateKept
	Dirs                   []DirStatus
}

// DirStatus is the state of one directory.
type DirStatus struct {
	Path string
	// State is "serving"; "full" if its disk has no space, so that it serves what it
	// has and takes no more; or "failed" if it is out of service.
	State string
	Err   error // why it is not serving
	// Used and Capacity are bytes; of a directory that is out of service only its
	// Capacity is known.
	Used, Capacity int64
}

// Status returns the state of all tiers, the fastest first.
func (s *Store) Status() []Status {
	all := make([]Status, 0, len(s.levels))
	for _, l := range s.levels {
		st := Status{Kind: l.Kind, Capacity: l.sum((*tier.Tier).Capacity), Used: l.sum((*tier.Tier).Used), Pinned: l.sum((*tier.Tier).Pinned), Kept: l.sum((*tier.Tier).HeldBytes)}
		for _, d := range l.dirs {
			state, err := d.status()
			one := DirStatus{Path: d.spec.Path, State: state.String(), Err: err, Capacity: cmp.Or(d.spec.Capacity, tier.DefaultCapacity)}
			if state != stateFailed {
				one.Used = d.tier.Load().Used()
			}
			st.Dirs = append(st.Dirs, one)
		}
		all = append(all, st)
	}
	return all
}

// trouble says which directories do not serve, for an error.
func (s *Store) trouble() string {
	var parts []string
	for _, d := range s.dirs {
		if st, why := d.status(); st != stateServing {
			parts = append(parts, fmt.Sprintf("%s is %s: %v", d.spec.Path, st, why))
		}
	}
	return strings.Join(parts, "; ")
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
