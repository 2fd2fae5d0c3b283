package metasync

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Reordered returns names, which are in byte order and end in "/" for a
// directory, in the order of sort keys, and how many waited at most.
func Reordered(names []string) (out []string, most int) {
	i := 0
	r := reorder{next: func() (held, bool, error) {
		if i == len(names) {
			return held{}, false, nil
		}
		n := names[i]
		i++
		if d := len(n) - 1; n[d] == '/' {
			return held{name: n[:d], dir: true}, true, nil
		}
		return held{name: n}, true, nil
	}}
	for {
		h, _ := r.peek() //nolint:errcheck // next has none
		most = max(most, len(r.waiting))
		again, _ := r.peek() //nolint:errcheck // next has none
		if h == nil {
			return out, most
		}
		if *again != *h {
			return append(out, "peek took something"), most
		}
		out = append(out, h.sortKey())
		r.take()
	}
}

// Shown returns those of a storage's listing that no file hides.
func Shown(listing []ufs.Status) []string {
	var s shadow
	var out []string
	for _, st := range listing {
		if !s.hides(st, st.Key) {
			out = append(out, st.SortKey())
		}
	}
	return out
}

// NameIn is nameIn.
func NameIn(dir, key string) (string, bool) { return nameIn(dir, key) }

// Memory is memory for tests.
type Memory struct{ *memory }

// NewMemory returns a memory of that size.
func NewMemory(limit int) Memory { return Memory{newMemory(new(atomic.Uint64), limit, AbsentLimits{})} }

// Begin returns a look that begins now.
func (m Memory) Begin(index uint64, at time.Duration) Look {
	return Look{m, record{index: index, at: at, began: m.next()}}
}

// Look is a look of a test.
type Look struct {
	m Memory
	r record
}

// Validated records that p was found unchanged, Listed that dir was.
func (l Look) Validated(p freshet.Path) { l.m.validated(p, l.r) }
func (l Look) Listed(dir freshet.Path)  { l.m.listed(dir, l.r) }

// Entry and Listing return the index of what covers the path.
func (m Memory) Entry(p freshet.Path) uint64   { return m.entry(p).index }
func (m Memory) Listing(p freshet.Path) uint64 { return m.listing(p).index }
func (m Memory) Doubt(p freshet.Path)          { m.doubt(p) }
func (m Memory) Size() int                     { return m.size() }

// Work returns a context of work of a class, and what makes it more urgent.
func Work(ctx context.Context, c Class) (context.Context, func(Class)) {
	u := newUrgency(c)
	return withUrgency(ctx, u), u.raise
}

// Absences is absences for tests.
type Absences struct{ *absences }

// NewAbsences returns an empty memory of absent paths.
func NewAbsences(l AbsentLimits) Absences { return Absences{newAbsences(l)} }

// Add remembers that a look found nothing at p.
func (a Absences) Add(p freshet.Path, began uint64) {
	a.add(p, &freshet.Mount{ID: 1}, record{index: 1, began: began})
}

// Bytes returns what is counted.
func (a Absences) Bytes() int64 {
	_, n := a.held()
	return n
}

// Prefetches reports whether prefetching runs.
func (s *Syncer) Prefetches() bool { return s.prefetch.running.Load() }

// PrefetchIdle reports whether no prefetch is queued or on its way.
func (s *Syncer) PrefetchIdle() bool {
	s.prefetch.mu.Lock()
	defer s.prefetch.mu.Unlock()
	return len(s.prefetch.queue) == 0 && len(s.prefetch.pending) == 0
}

// Waiting returns how many wait for the look at the listing of dir that is on its way.
func (s *Syncer) Waiting(dir freshet.Path) int {
	s.listings.mu.Lock()
	defer s.listings.mu.Unlock()
	if k := s.listings.running[dir]; k != nil {
		return k.waiters
	}
	return 0
}
