package metasync

import (
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// AbsentLimits bound what is remembered of paths at which a look found nothing.
type AbsentLimits struct {
	// Off remembers none: then only the complete listing of a directory says what
	// is not in it.
	Off bool
	// Entries is how many paths; 0 is 131,072.
	Entries int
	// Bytes is the memory for them, of about 200 bytes and its name for a path; 0
	// is 32 MiB.
	Bytes int64
}

// absenceBytes is what a path that is known to be absent takes beside its name,
// measured in TestAnAbsentPathTakesWhatItIsCountedAs.
const absenceBytes = 200

func (l *AbsentLimits) setDefaults() {
	setDefault(&l.Entries, 1<<17)
	setDefault(&l.Bytes, 32<<20)
}

// absences are the paths at which a look of this term found nothing. They are
// facts like others: what is here says when the look began and from which index,
// never whether that still counts.
//
// What has not been used for a round of the hand is forgotten first.
type absences struct {
	limits AbsentLimits

	mu     sync.Mutex
	byPath map[freshet.Path]*absence
	ring   []*absence
	hand   int
	bytes  int64
}

type absence struct {
	path       freshet.Path
	mount      freshet.MountID
	generation uint64
	record     record
	at         int // in the ring
	used       bool
}

func (a *absence) size() int64 { return int64(len(a.path)) + absenceBytes }

func newAbsences(limits AbsentLimits) *absences {
	return &absences{limits: limits, byPath: map[freshet.Path]*absence{}}
}

// add remembers that a look that began with r found nothing at p. A look that
// began later counts more.
func (a *absences) add(p freshet.Path, m *freshet.Mount, r record) {
	if a.limits.Off {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.byPath[p]; old != nil {
		if old.record.began < r.began {
			old.record, old.mount, old.generation = r, m.ID, m.Generation
		}
		return
	}
	e := &absence{path: p, mount: m.ID, generation: m.Generation, record: r, at: len(a.ring)}
	if e.size() > a.limits.Bytes {
		return
	}
	for len(a.ring) >= a.limits.Entries || a.bytes+e.size() > a.limits.Bytes {
		a.evict()
	}
	e.at = len(a.ring)
	a.ring = append(a.ring, e)
	a.byPath[p] = e
	a.bytes += e.size()
}

// evict forgets the first from the hand on that was not used since the hand
// passed it.
func (a *absences) evict() {
	for {
		a.hand %= len(a.ring)
		e := a.ring[a.hand]
		if !e.used {
			a.remove(e)
			return
		}
		e.used = false
		a.hand++
	}
}

func (a *absences) remove(e *absence) {
	last := len(a.ring) - 1
	a.ring[e.at] = a.ring[last]
	a.ring[e.at].at = e.at
	a.ring[last] = nil
	a.ring = a.ring[:last]
	delete(a.byPath, e.path)
	a.bytes -= e.size()
}

// get returns the look that found nothing at p of the mount.
func (a *absences) get(p freshet.Path, m *freshet.Mount) (record, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.byPath[p]
	if e == nil || e.mount != m.ID || e.generation != m.Generation {
		return record{}, false
	}
	e.used = true
	return e.record, true
}

// exists forgets that p, or a directory above it, was absent.
func (a *absences) exists(p freshet.Path) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ring) == 0 {
		return
	}
	for ; ; p = p.Parent() {
		if e := a.byPath[p]; e != nil {
			a.remove(e)
		}
		if p.IsRoot() {
			return
		}
	}
}

// held returns how many paths are remembered, and what they take.
func (a *absences) held() (entries int, bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.ring), a.bytes
}

// judgeAbsent decides whether the path is freshly known not to exist: by a
// complete listing, or by a look at it or at a directory above it.
func (s *Syncer) judgeAbsent(l *namespace.Lookup, c call) Verdict {
	v := s.notListed(l, c)
	if v.Fresh {
		return v
	}
	if looked, ok := s.foundAbsent(l, c); ok && (looked.Fresh || !v.Loaded) {
		return looked
	}
	return v
}

// notListed judges what the listing of the nearest held directory says.
func (s *Syncer) notListed(l *namespace.Lookup, c call) Verdict {
	if !l.KnownAbsent {
		return Verdict{Age: -1, Need: l.Need, Uncachable: l.Uncachable}
	}
	v := s.judge(l.Absent, s.mem.Load().listing(l.AbsentAt), c)
	v.Uncachable = l.Uncachable
	v.Fresh = v.Fresh && !v.Uncachable
	return v
}

// foundAbsent judges what looks at the path, and at those above it that are not
// held either, found. What is above it says that the path is absent only if
// nothing marked either of both since, and no effect can still land on either.
func (s *Syncer) foundAbsent(l *namespace.Lookup, c call) (best Verdict, ok bool) {
	absent := s.mem.Load().absent
	if l.Found || !l.HasMount || l.Key == "" {
		return Verdict{}, false
	}
	if n, _ := absent.held(); n == 0 {
		return Verdict{}, false
	}
	p := l.Mount.Path.Join(l.Key)
	for q := p; q != l.AbsentAt && q != l.Mount.Path; q = q.Parent() {
		r, known := absent.get(q, &l.Mount)
		if !known {
			continue
		}
		need, uncachable := max(l.Need, 1), l.Uncachable
		if q != p {
			above, err := s.State.Lookup(q)
			if err != nil || above.Found || above.Mount.ID != l.Mount.ID || above.Mount.Generation != l.Mount.Generation {
				continue
			}
			need, uncachable = max(need, above.Need), uncachable || above.Uncachable
		}
		v := s.judge(namespace.Freshness{Need: need}, r, c)
		v.Uncachable, v.LookedAt = uncachable, q
		v.Fresh = v.Fresh && !uncachable
		if v.Fresh {
			return v, true
		}
		if !ok {
			best, ok = v, true
		}
	}
	return best, ok
}
