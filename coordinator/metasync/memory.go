package metasync

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
)

// memory is what a leader knows of validations made in its term: which entries
// and listings the storage was found to agree with, from which index on, and
// when. It starts empty with each term and is bounded: what has not been used for
// long is forgotten and looked at again.
//
// Records are kept in two generations. Use moves a record to the young one; when
// that is full, the old one is dropped and the young one takes its place. So at
// most limit records are held, and no list has to be kept in order.
type memory struct {
	order      *atomic.Uint64 // of all terms
	mu         sync.Mutex
	limit      int
	young, old map[memoryKey]record
	absent     *absences
}

// memoryKey names an entry, or the listing of a directory.
type memoryKey struct {
	path    freshet.Path
	listing bool
}

// record is one validation.
type record struct {
	index uint64        // applied index before the storage was asked; 0: nothing is known
	at    time.Duration // clock.Elapsed when that began
	began uint64        // when it began, in the order of memory.next
	made  uint64        // when it was recorded; of a listing: when it began
	noted uint64        // when it was recorded
}

// known reports whether r says anything.
func (r record) known() bool { return r.index != 0 }

func newMemory(order *atomic.Uint64, limit int, absent AbsentLimits) *memory {
	return &memory{order: order, limit: max(limit, 2), young: map[memoryKey]record{}, old: map[memoryKey]record{}, absent: newAbsences(absent)}
}

// next returns a number that is larger than all before: for things that have no
// better order, because clocks may stand still between two of them.
func (m *memory) next() uint64 { return m.order.Add(1) }

// validated records that the entry at p was found, by a look that began with
// r, to be as it is held. What is recorded last counts.
func (m *memory) validated(p freshet.Path, r record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.noted = m.next()
	r.made = r.noted
	m.set(memoryKey{path: p}, r)
}

// listed records that the listing of dir, and every child that has no later
// record of its own, was found to be as it is held. A child's record made since
// the listing began overrides it.
func (m *memory) listed(dir freshet.Path, r record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.made, r.noted = r.began, m.next()
	m.set(memoryKey{path: dir, listing: true}, r)
}

// foundNothing records that a look that began with r found nothing at p.
func (m *memory) foundNothing(p freshet.Path, at *freshet.Mount, r record) {
	r.noted = m.next()
	m.absent.add(p, at, r)
}

// doubt forgets what is known of p: neither an own record nor the listing that
// is being made covers it.
func (m *memory) doubt(p freshet.Path) { m.validated(p, record{}) }

// entry returns the validation that covers the entry at p: its own, or that of
// its parent's listing.
func (m *memory) entry(p freshet.Path) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	own, hasOwn := m.get(memoryKey{path: p})
	listing, hasListing := m.get(memoryKey{path: p.Parent(), listing: true})
	switch {
	case !hasListing || p.IsRoot():
		return own
	case !hasOwn || own.made < listing.began:
		return listing
	}
	return own
}

// listing returns the validation of the listing of dir.
func (m *memory) listing(dir freshet.Path) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, _ := m.get(memoryKey{path: dir, listing: true})
	return r
}

func (m *memory) get(k memoryKey) (record, bool) {
	if r, ok := m.young[k]; ok {
		return r, true
	}
	r, ok := m.old[k]
	if ok {
		delete(m.old, k)
		m.set(k, r)
	}
	return r, ok
}

func (m *memory) set(k memoryKey, r record) {
	if len(m.young) >= m.limit/2 {
		m.old, m.young = m.young, make(map[memoryKey]record, m.limit/8)
	}
	delete(m.old, k)
	m.young[k] = r
}

// size returns the number of records.
func (m *memory) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.young) + len(m.old)
}
