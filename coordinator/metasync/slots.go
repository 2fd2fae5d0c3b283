package metasync

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
)

// Class says who waits for a question to a storage: a free slot goes to the
// highest class that waits.
type Class uint8

// The classes, the lowest first.
const (
	// ClassBackground is work that nobody waits for at this moment: recursive syncs.
	ClassBackground Class = iota
	// ClassPrefetch is what somebody will probably ask for next.
	ClassPrefetch
	// ClassOnDemand is what a reader waits for. It is the class of a context that
	// names none.
	ClassOnDemand

	classes = 3
)

// String returns the class as metrics name it.
func (c Class) String() string {
	switch c {
	case ClassBackground:
		return "background"
	case ClassPrefetch:
		return "prefetch"
	case ClassOnDemand:
	}
	return "on_demand"
}

// Limits bound the questions to storages that are on their way at once. A
// question is one entry, or one page of a listing.
type Limits struct {
	Parallel int // in all; 0 is 64
	PerMount int // of one mount; 0 is 32
}

const (
	defaultParallel = 64
	defaultPerMount = 32
	// turnOfOthers is how many slots in a row are given past lower classes that
	// wait: the next one goes to whoever of these waits longest. So under any load
	// from above a lower class gets one of so many slots, and never none.
	turnOfOthers = 16
)

func (l *Limits) setDefaults() {
	if l.Parallel <= 0 {
		l.Parallel = defaultParallel
	}
	if l.PerMount <= 0 {
		l.PerMount = defaultPerMount
	}
}

// Slots are the bounded pools of questions to storages: one in all and one per
// mount. Classes below on-demand never take the last quarter of a pool (but the
// only slot of a pool of one), so that a reader does not have to wait for the end
// of a question that nobody waits for. Who holds a slot asks the storage and does
// nothing else: it waits neither for another slot nor for the log. It is safe for
// concurrent use and has no goroutine.
type Slots struct {
	mu     sync.Mutex
	limits Limits
	clock  clock.Clock
	used   [classes]int
	mounts map[freshet.MountID]*pool
	order  uint64 // of arrival
	passed int    // slots given past lower classes that waited

	length  [classes]prometheus.Gauge
	running [classes]prometheus.Gauge
	waited  [classes]prometheus.Observer
}

// pool is the part of a mount. It is dropped when it is not in use.
type pool struct {
	used    [classes]int
	waiting [classes][]*waiter // in the order of arrival
}

type waiter struct {
	mount   freshet.MountID
	class   Class
	arrived uint64
	since   time.Duration
	granted chan struct{} // closed
	given   bool
}

// NewSlots returns pools of those limits. A nil clock is the machine's.
func NewSlots(limits Limits, reg prometheus.Registerer, c clock.Clock) *Slots {
	limits.setDefaults()
	if c == nil {
		c = clock.Real{}
	}
	s := &Slots{limits: limits, clock: c, mounts: map[freshet.MountID]*pool{}}
	length := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "freshet_sync_queue_length", Help: "Questions to storages that wait for a slot, by class: on_demand, prefetch or background.",
	}, []string{"class"})
	running := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "freshet_sync_slots_used", Help: "Questions to storages that are on their way, by class.",
	}, []string{"class"})
	waited := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "freshet_sync_queue_seconds", Help: "Time that questions to storages waited for a slot, by class.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
	}, []string{"class"})
	bound := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "freshet_sync_slots", Help: "Questions to storages that may be on their way at once, in all.",
	}, func() float64 { return float64(s.Limits().Parallel) })
	for c := range Class(classes) {
		s.length[c], s.running[c], s.waited[c] = length.WithLabelValues(c.String()), running.WithLabelValues(c.String()), waited.WithLabelValues(c.String())
	}
	if reg != nil {
		reg.MustRegister(length, running, waited, bound)
	}
	return s
}

// Limits returns the limits that hold now.
func (s *Slots) Limits() Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// SetLimits changes the limits at once. Slots above a smaller limit are not taken
// away; they are not given again.
func (s *Slots) SetLimits(l Limits) {
	l.setDefaults()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
	s.grant()
}

// Load is how much a pool has to do.
type Load struct{ Used, Waiting int }

// Load returns what is on its way and what waits, of one class.
func (s *Slots) Load(c Class) Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Load{Used: s.used[c]}
	for _, p := range s.mounts {
		l.Waiting += len(p.waiting[c])
	}
	return l
}

// Slot is the right to ask one question. It must be released, once.
type Slot struct {
	s     *Slots
	mount freshet.MountID
	class Class
}

// Take waits for a slot for a question to a mount, in the class of ctx (see
// WithClass). The error is that of ctx.
func (s *Slots) Take(ctx context.Context, mount freshet.MountID) (Slot, error) {
	u := urgencyOf(ctx)
	class := u.read()
	s.mu.Lock()
	p := s.pool(mount)
	if s.fits(p, class) { // then nobody waits whom this one could overtake: grant leaves none that fits
		s.give(p, class)
		s.mu.Unlock()
		s.waited[class].Observe(0)
		return Slot{s, mount, class}, nil
	}
	s.order++
	w := &waiter{mount: mount, class: class, arrived: s.order, since: s.clock.Elapsed(), granted: make(chan struct{})}
	p.waiting[class] = append(p.waiting[class], w)
	s.length[class].Inc()
	s.mu.Unlock()
	defer u.watch(s, w)()
	select {
	case <-w.granted:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.given {
			s.release(w.mount, w.class)
		} else if s.unline(w) {
			s.tidy(w.mount, s.mounts[w.mount])
		}
		return Slot{}, context.Cause(ctx)
	}
	s.waited[w.class].Observe((s.clock.Elapsed() - w.since).Seconds())
	return Slot{s, mount, w.class}, nil
}

// Release gives the slot back.
func (t Slot) Release() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.release(t.mount, t.class)
}

// The methods below are called with mu held.

func (s *Slots) pool(mount freshet.MountID) *pool {
	p := s.mounts[mount]
	if p == nil {
		p = &pool{}
		s.mounts[mount] = p
	}
	return p
}

func (s *Slots) give(p *pool, class Class) {
	s.used[class]++
	p.used[class]++
	s.running[class].Inc()
}

func (s *Slots) release(mount freshet.MountID, class Class) {
	p := s.mounts[mount]
	s.used[class]--
	p.used[class]--
	s.running[class].Dec()
	s.grant()
	s.tidy(mount, p)
}

func (s *Slots) tidy(mount freshet.MountID, p *pool) {
	for c := range Class(classes) {
		if p.used[c] > 0 || len(p.waiting[c]) > 0 {
			return
		}
	}
	delete(s.mounts, mount)
}

// fits reports whether both pools have room for the class.
func (s *Slots) fits(p *pool, class Class) bool {
	return room(&s.used, s.limits.Parallel, class) && room(&p.used, s.limits.PerMount, class)
}

func room(used *[classes]int, limit int, class Class) bool {
	low := used[ClassBackground] + used[ClassPrefetch]
	if class < ClassOnDemand && limit > 1 && low >= limit-max(limit/4, 1) {
		return false
	}
	return low+used[ClassOnDemand] < limit
}

// grant gives all slots that can be given.
func (s *Slots) grant() {
	for {
		w := s.first(classes)
		if w == nil {
			return
		}
		if other := s.first(w.class); other == nil {
			s.passed = 0
		} else if s.passed++; s.passed == turnOfOthers {
			w, s.passed = other, 0
		}
		p := s.mounts[w.mount]
		p.waiting[w.class] = p.waiting[w.class][1:]
		s.length[w.class].Dec()
		s.give(p, w.class)
		w.given = true
		close(w.granted)
	}
}

// first returns who of the classes below high comes first, of those who wait and
// whose pools have room: by class, then by time, and by time alone if it is the
// turn of the lower classes.
func (s *Slots) first(high Class) *waiter {
	var best *waiter
	for _, p := range s.mounts {
		for c := range high {
			if len(p.waiting[c]) == 0 || !s.fits(p, c) {
				continue
			}
			w := p.waiting[c][0]
			switch {
			case best == nil:
				best = w
			case high == classes && w.class != best.class:
				if w.class > best.class {
					best = w
				}
			case w.arrived < best.arrived:
				best = w
			}
		}
	}
	return best
}

// raise moves who waits to a higher class, to its place by time.
func (s *Slots) raise(w *waiter, class Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.given || w.class >= class || !s.unline(w) {
		return
	}
	p := s.mounts[w.mount]
	w.class = class
	line := p.waiting[class]
	i, _ := slices.BinarySearchFunc(line, w.arrived, func(o *waiter, at uint64) int { return cmp.Compare(o.arrived, at) })
	p.waiting[class] = slices.Insert(line, i, w)
	s.length[class].Inc()
	s.grant()
}

// unline takes a waiter out of its line, and reports whether it was in it.
func (s *Slots) unline(w *waiter) bool {
	p := s.mounts[w.mount]
	if p == nil {
		return false
	}
	i := slices.Index(p.waiting[w.class], w)
	if i < 0 {
		return false
	}
	p.waiting[w.class] = slices.Delete(slices.Clone(p.waiting[w.class]), i, i+1)
	s.length[w.class].Dec()
	return true
}
