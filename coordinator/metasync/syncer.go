package metasync

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
)

// Options are the settings of a Syncer. The zero value is usable.
type Options struct {
	// Validations bounds the records of validations in memory, of about 200 bytes
	// each; 0 is 262,144. A listing is one record, however many children it has.
	Validations int
	// Prefetch are the settings of asking for what nobody has asked for yet.
	Prefetch PrefetchOptions
	// Absent bounds what is remembered of paths that do not exist.
	Absent AbsentLimits
	// Attempts is how often a load that lost against an invalidation is made
	// again before its answer is passed through uncached; 0 is 3.
	Attempts int
	// Parallel is how many directories a recursive sync lists at once, and how
	// many single entries a listing looks at; 0 is 8.
	Parallel int
	// Frontier is how many directories a recursive sync holds that it found and
	// did not come to yet; 0 is 16,384. Up to there it goes breadth first, beyond
	// it depth first, and then holds a page of them more per level.
	Frontier int
	// SegmentPages is after how many pages of a storage the start index of a
	// listing is taken anew, so that an entry that changes while much is listed
	// does not have to wait for the next listing; 0 is 16.
	SegmentPages int
	// StatTimeout bounds one question about one entry; 0 is 30 s.
	StatTimeout time.Duration
	// Limits bound the questions to storages that are on their way at once.
	Limits Limits

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// State is what a Syncer reads of the replicated state.
type State interface {
	Applied() uint64
	Lookup(p freshet.Path) (namespace.Lookup, error)
	LookupInto(p freshet.Path, l *namespace.Lookup) error
	List(dir freshet.Path, after string, limit int) ([]namespace.Child, error)
	ListInto(children []namespace.Child, dir freshet.Path, after string, limit int) ([]namespace.Child, error)
	Mounts() ([]freshet.Mount, uint64)
	Newest(p freshet.Path) (uint64, error)
}

// Deps are what a Syncer works with. All are required.
type Deps struct {
	State State
	// Propose replicates commands, see journal.Journal.
	Propose func(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error)
	// Storage returns the storage of a mount, and what releases it.
	Storage func(m freshet.Mount) (ufs.FS, func(), error)
}

// Syncer makes facts fresh. It is safe for concurrent use and has no goroutine of
// its own but those of running calls.
type Syncer struct {
	Deps
	opts     Options
	mem      atomic.Pointer[memory]
	order    atomic.Uint64 // see memory.next
	entries  *flights[entryAnswer]
	listings *flights[listingAnswer]
	syncs    [2]*flights[struct{}] // of one path, and of all below it
	slots    *Slots
	prefetch *prefetcher
	metrics  *metrics
	special  atomic.Bool // the log was told of entries that can't be shown
	pages    sync.Pool   // of *[]namespace.Child, for Children
}

// New returns a Syncer with an empty memory.
func New(deps Deps, opts Options) *Syncer {
	setDefault(&opts.Validations, 1<<18)
	opts.Absent.setDefaults()
	opts.Prefetch.setDefaults()
	setDefault(&opts.Attempts, 3)
	setDefault(&opts.Parallel, 8)
	setDefault(&opts.Frontier, 16384)
	setDefault(&opts.SegmentPages, 16)
	setDefault(&opts.StatTimeout, 30*time.Second)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	s := &Syncer{Deps: deps, opts: opts, entries: newFlights[entryAnswer](), listings: newFlights[listingAnswer]()}
	s.syncs = [2]*flights[struct{}]{newFlights[struct{}](), newFlights[struct{}]()}
	s.slots = NewSlots(opts.Limits, opts.Metrics, opts.Clock)
	s.Forget()
	s.metrics = newMetrics(opts.Metrics, s)
	s.prefetch = newPrefetcher(s, opts.Prefetch)
	return s
}

func setDefault[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}

// Forget drops what is known of validations: a new term has begun, or the state
// was replaced. Looks in flight are recorded nowhere.
func (s *Syncer) Forget() { s.mem.Store(newMemory(&s.order, s.opts.Validations, s.opts.Absent)) }

// Slots returns the pools that every question to a storage goes through.
func (s *Syncer) Slots() *Slots { return s.slots }

// StaleDetected counts a version that a storage refused.
func (s *Syncer) StaleDetected() { s.metrics.stale.Inc() }

// Rule says which interval applies to what a lookup found.
type Rule func(*namespace.Lookup) freshet.Interval

// Fixed is the rule of one interval for everything.
func Fixed(i freshet.Interval) Rule { return func(*namespace.Lookup) freshet.Interval { return i } }

// call is when a reader came: what it may share depends on it.
type call struct {
	at       time.Duration
	began    uint64
	interval freshet.Interval
	now      time.Duration // when the state was read last: ages are those of then
	// seen is from before the state was read, in the order of memory.next. A
	// validation that was recorded later is of what the state held then, which may
	// not be what was read: it counts for nothing.
	seen uint64
}

// reads notes that the state is read next: by a call that just came, or again.
func (s *Syncer) reads(c *call) {
	if c.seen != 0 || c.now == 0 {
		c.now = s.opts.Clock.Elapsed()
	}
	c.seen = s.order.Load()
}

// call notes that a reader came, who reads the state at once; its interval is set
// by the first lookup.
func (s *Syncer) call() call {
	at := s.opts.Clock.Elapsed()
	return call{at: at, now: at, began: s.mem.Load().next()}
}

// Verdict is a judgement on one fact.
type Verdict struct {
	Fresh bool
	// Age is the time since the last validation began, negative if unknown.
	Age time.Duration
	// Valid is the index from which on the fact is known to hold.
	Valid, Need uint64
	// Uncachable: an effect that may still land can change the fact.
	Uncachable bool
	// Loaded says that the fact is held at all.
	Loaded bool
	// LookedAt is the path at which a look found nothing, if that is the fact.
	LookedAt freshet.Path
}

// judge decides on a fact for a reader.
func (s *Syncer) judge(f namespace.Freshness, r record, c call) Verdict {
	if r.noted > c.seen {
		r = record{}
	}
	v := Verdict{Valid: max(f.ValidFrom, r.index), Need: f.Need, Age: -1, Loaded: true}
	if r.known() {
		v.Age = max(c.now-r.at, 0)
	}
	switch {
	case !f.Servable(r.index):
	case f.ValidFrom == namespace.Unshakable: // the storage does not have it
		v.Fresh = true
	case c.interval < 0:
		v.Fresh = true
	case !r.known():
	case c.began != 0 && r.began > c.began: // looked at for this call
		v.Fresh = true
	default:
		v.Fresh = !c.interval.Expired(v.Age)
	}
	return v
}

func (s *Syncer) judgeEntry(p freshet.Path, l *namespace.Lookup, c call) Verdict {
	if l.MountPoint || l.Virtual {
		return Verdict{Fresh: true, Age: -1, Loaded: true, Valid: l.Applied}
	}
	if !l.Found || l.Placeholder {
		return Verdict{Age: -1, Need: l.Need, Uncachable: l.Uncachable}
	}
	v := s.judge(l.Freshness, s.mem.Load().entry(p), c)
	v.Uncachable = l.Uncachable
	v.Fresh = v.Fresh && !v.Uncachable
	return v
}

func (s *Syncer) judgeListing(dir freshet.Path, l *namespace.Lookup, c call) Verdict {
	if !l.HasMount {
		return Verdict{Fresh: l.Virtual, Age: -1, Loaded: true, Valid: l.Applied}
	}
	if !l.Listing.Complete {
		return Verdict{Age: -1, Need: l.Listing.Need, Uncachable: l.Listing.Uncachable}
	}
	v := s.judge(l.Listing.Freshness, s.mem.Load().listing(dir), c)
	v.Uncachable = l.Listing.Uncachable
	v.Fresh = v.Fresh && !v.Uncachable
	return v
}

// mayShare is the join rule: nothing that covers the fact was marked since the
// look began, and it began late enough for the reader.
func mayShare[T any](l *look[T], mem *memory, need uint64, c call) bool {
	switch {
	case l.mem != mem || l.index < need:
		return false
	case c.interval < 0 || l.began > c.began:
		return true
	}
	return l.at >= c.at-time.Duration(c.interval) && c.interval > 0
}
