package metasync

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
)

// PrefetchOptions are the settings of prefetching. The zero value is usable.
//
// A prefetch is always the listing of a directory: that of a directory whose
// entries are looked up one by one, and those of the directories that follow
// when the directories of one parent are listed one after the other, as paging
// through a recursive listing does. The pages of one directory need none: its
// first page has the whole listing made.
type PrefetchOptions struct {
	// Off asks for nothing that nobody has asked for.
	Off bool
	// Share is how many storage calls prefetching may make for each that readers
	// made; what a prefetch spared them is added. 0 is 0.5.
	Share float64
	// Bytes bounds the memory for entries that were prefetched and not used yet;
	// 0 is 32 MiB.
	Bytes int64
	// After is how many lookups in a row look sequential; 0 is 4.
	After int
	// Ahead is how many directories are listed ahead of the reader; 0 is 4.
	Ahead int
	// Rule is the rule for what nobody has asked for yet; nil is the interval of
	// the lookup.
	Rule Rule
}

func (o *PrefetchOptions) setDefaults() {
	setDefault(&o.Share, 0.5)
	setDefault(&o.Bytes, 32<<20)
	setDefault(&o.After, 4)
	setDefault(&o.Ahead, 4)
	if o.Rule == nil {
		o.Rule = func(l *namespace.Lookup) freshet.Interval { return l.Interval }
	}
}

const (
	// prefetchers is how many prefetches run at once.
	prefetchers = 4
	// prefetchQueue bounds what waits for them; what does not fit is dropped.
	prefetchQueue = 64
	// patternWindow is how far apart two lookups of one sequence may be.
	patternWindow = 30 * time.Second
	// maxPatterns bounds the directories that are watched for sequences.
	maxPatterns = 1024
	// prefetchPage is after how many entries another storage call is counted.
	prefetchPage = 1000
	// prefetchPatience is how long a prefetch waits for its budget to grow.
	prefetchPatience = time.Second
	// prefetchUse is after which time a prefetched listing that nobody used counts
	// as wasted.
	prefetchUse = time.Minute
	// maxCredit bounds the calls that may be saved up.
	maxCredit = 256
)

var errBudget = errors.New("the budget of prefetching is spent")

// prefetcher finds sequences in what readers ask for and asks for the rest of
// them. It only makes looks like any reader's, in a lower class: what they find,
// and whether it may be served, follows the same rules. So under "always" it has
// nothing to do, for what it found would have begun before the reader's call.
type prefetcher struct {
	s       *Syncer
	opts    PrefetchOptions
	metrics *prefetchMetrics
	queue   chan *prefetch
	running atomic.Bool
	waiting atomic.Int64 // pending and unused ones

	mu       sync.Mutex
	patterns map[memoryKey]*pattern
	pending  map[freshet.Path]*prefetch // listings that are queued or on their way
	unused   map[freshet.Path]*prefetch // done, and nobody has used them yet
	bytes    int64                      // of pending and unused ones
	credit   float64                    // storage calls
	earned   chan struct{}              // closed when credit grows; nil while nobody waits
}

// pattern is a sequence of lookups of entries of a directory, or of listings of
// directories in it.
type pattern struct {
	recent [4]freshet.Path
	run    int
	need   int
	at     time.Duration
}

// prefetch is a listing to make; one with ahead is the directories that follow dir.
type prefetch struct {
	dir   freshet.Path
	ahead bool

	sibling bool // it was asked for because of the directories before it
	own     bool // the look was begun for it
	shared  bool // a reader had it already; guarded by the prefetcher's mu
	over    bool // nothing counts any more; guarded by the prefetcher's mu
	stop    context.CancelCauseFunc
	stopped bool // the look goes on for others alone
	entries int
	calls   float64
	bytes   int64
	done    time.Duration
}

func newPrefetcher(s *Syncer, opts PrefetchOptions) *prefetcher {
	f := &prefetcher{s: s, opts: opts, queue: make(chan *prefetch, prefetchQueue)}
	f.metrics = newPrefetchMetrics(s.opts.Metrics, f)
	f.reset()
	return f
}

func (f *prefetcher) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wasted(len(f.unused))
	f.patterns, f.pending, f.unused = map[memoryKey]*pattern{}, map[freshet.Path]*prefetch{}, map[freshet.Path]*prefetch{}
	f.bytes, f.credit = 0, 0
	f.waiting.Store(0)
}

// Prefetch asks storages for what readers will probably ask for next, until ctx
// ends; it returns after all it started has ended. It should run while this
// member leads, once at a time. It is not needed for anything else.
func (s *Syncer) Prefetch(ctx context.Context) error {
	f := s.prefetch
	if f.opts.Off {
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	f.running.Store(true)
	for range prefetchers {
		wg.Go(func() {
			for {
				select {
				case j := <-f.queue:
					f.work(ctx, j)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
	f.running.Store(false)
	for len(f.queue) > 0 {
		<-f.queue
	}
	f.reset()
	return nil
}

// watches reports whether what ctx asks for is to be watched.
func (f *prefetcher) watches(ctx context.Context) bool {
	return f.running.Load() && ClassOf(ctx) == ClassOnDemand
}

// looked is told that a reader had the storage asked about the entry at p.
func (f *prefetcher) looked(ctx context.Context, p freshet.Path) {
	if !f.watches(ctx) || p.IsRoot() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.earn(f.opts.Share)
	dir := p.Parent()
	pat := f.pattern(memoryKey{path: dir})
	if slices.Contains(pat.recent[:], p) {
		return // the same few again and again are no sequence
	}
	pat.recent[pat.run%len(pat.recent)] = p
	pat.run++
	if pat.run >= pat.need {
		f.enqueue(&prefetch{dir: dir})
	}
}

// listed is told that a reader had the listing of dir made, or used one that was
// prefetched.
func (f *prefetcher) listed(ctx context.Context, dir freshet.Path) {
	if !f.watches(ctx) || dir.IsRoot() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.earn(f.opts.Share)
	f.follow(dir)
}

// follow goes on with the sequence of listings that dir belongs to.
func (f *prefetcher) follow(dir freshet.Path) {
	pat := f.pattern(memoryKey{path: dir.Parent(), listing: true})
	switch last := pat.recent[0]; {
	case dir == last:
		return
	case dir < last:
		pat.run = 0
	}
	pat.recent[0] = dir
	pat.run++
	if pat.run >= max(f.opts.After-1, 1) {
		f.enqueue(&prefetch{dir: dir, ahead: true})
	}
}

// The methods down to take are called with mu held.

func (f *prefetcher) pattern(k memoryKey) *pattern {
	now := f.s.opts.Clock.Elapsed()
	pat := f.patterns[k]
	if pat == nil {
		if len(f.patterns) >= maxPatterns {
			clear(f.patterns)
		}
		pat = &pattern{need: f.opts.After}
		f.patterns[k] = pat
	} else if now-pat.at > patternWindow {
		*pat = pattern{need: pat.need}
	}
	pat.at = now
	return pat
}

// enqueue asks for a prefetch unless it is asked for already. It never blocks.
func (f *prefetcher) enqueue(j *prefetch) {
	if !j.ahead && f.pending[j.dir] != nil {
		return
	}
	if len(f.queue) == cap(f.queue) {
		f.metrics.listings[prefetchDropped].Inc()
		return
	}
	if !j.ahead { // before it can be done, and used
		f.pending[j.dir] = j
		f.count()
	}
	f.queue <- j // there is room: who sends holds mu
}

func (f *prefetcher) earn(calls float64) {
	f.credit = min(f.credit+calls, maxCredit)
	if f.earned != nil && f.credit > 0 {
		close(f.earned)
		f.earned = nil
	}
}

// wasted counts listings that nobody used.
func (f *prefetcher) wasted(n int) {
	if n > 0 {
		f.metrics.wasted.Add(float64(n))
	}
}

// expire gives up what nobody has used for long.
func (f *prefetcher) expire() {
	now := f.s.opts.Clock.Elapsed()
	for dir, j := range f.unused {
		if now-j.done > prefetchUse {
			f.drop(dir, j)
			f.wasted(1)
		}
	}
}

func (f *prefetcher) drop(dir freshet.Path, j *prefetch) {
	delete(f.unused, dir)
	f.bytes -= j.bytes
	f.count()
}

// share notes that a reader has what is still pending.
func (f *prefetcher) share(j *prefetch) {
	if !j.shared {
		j.shared = true
		f.earn(j.calls)
	}
}

func (f *prefetcher) count() { f.waiting.Store(int64(len(f.pending) + len(f.unused))) }

// answered is told that a reader was answered about p without a look.
func (f *prefetcher) answered(ctx context.Context, p freshet.Path, l *namespace.Lookup) {
	dir := p.Parent()
	if l.KnownAbsent {
		dir = l.AbsentAt
	}
	f.use(ctx, dir, false)
}

// use is told that a reader was answered from what the listing of dir says; whole,
// that it was the listing itself.
func (f *prefetcher) use(ctx context.Context, dir freshet.Path, whole bool) {
	if f.waiting.Load() == 0 || ClassOf(ctx) != ClassOnDemand {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.unused[dir]
	switch {
	case j != nil:
		f.drop(dir, j)
		f.metrics.used.Inc()
		f.earn(j.calls)
	case whole && f.pending[dir] != nil: // it was made, and is about to be counted
		j = f.pending[dir]
		f.share(j)
	default:
		return
	}
	if j.sibling {
		f.follow(dir)
	}
}

// take takes a call from the credit; false if there is none, or no memory.
func (f *prefetcher) take(j *prefetch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.credit <= 0 || f.bytes > f.opts.Bytes {
		return false
	}
	f.credit--
	j.calls++
	return true
}

// work carries out a prefetch.
func (f *prefetcher) work(ctx context.Context, j *prefetch) {
	if j.ahead {
		f.expand(j.dir)
		return
	}
	result := f.list(ctx, j)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pending, j.dir)
	defer f.count()
	if result != "" {
		f.metrics.listings[result].Inc()
	}
	if result != prefetchDone || j.shared {
		f.bytes -= j.bytes
		j.over = true
		f.ended(j, result)
		return
	}
	if old := f.unused[j.dir]; old != nil {
		f.drop(j.dir, old)
		f.wasted(1)
	}
	j.done = f.s.opts.Clock.Elapsed()
	f.unused[j.dir] = j
}

// ended takes note of a prefetch of which nothing is left to be used.
func (f *prefetcher) ended(j *prefetch, result string) {
	if result == prefetchDone {
		f.metrics.used.Inc()
		return
	}
	if result == "" {
		f.earn(j.calls)
	}
	pat := f.patterns[memoryKey{path: j.dir}]
	if pat == nil {
		return
	}
	pat.run = 0
	if result == prefetchStopped { // it costs more than it seemed
		pat.need = min(2*pat.need, 1<<20)
	}
}

// list makes a listing that is due, and returns what became of it, "" if it was
// nothing to be counted.
func (f *prefetcher) list(ctx context.Context, j *prefetch) string {
	s := f.s
	c := s.call()
	s.reads(&c)
	l, err := s.State.Lookup(j.dir)
	if err != nil || !f.due(j.dir, &l, &c) {
		return ""
	}
	f.mu.Lock()
	f.expire()
	f.mu.Unlock()
	if !f.take(j) {
		return prefetchDropped
	}
	ctx, j.stop = context.WithCancelCause(WithClass(ctx, ClassPrefetch))
	defer j.stop(nil)
	lk, err := s.lookAtListing(context.WithValue(ctx, prefetchKey{}, j), j.dir, l.Listing.Need, c)
	switch {
	case err == nil && !j.own:
		return "" // a reader's look
	case err == nil && lk.answer.complete:
		if lk.urgency.read() == ClassOnDemand {
			f.mu.Lock()
			f.share(j)
			f.mu.Unlock()
		}
		return prefetchDone
	case errors.Is(context.Cause(ctx), errBudget):
		return prefetchStopped
	}
	return prefetchFailed
}

// due reports whether a reader of the listing would have to ask the storage, and
// would be served from what a prefetch finds. It sets the interval of the call.
func (f *prefetcher) due(dir freshet.Path, l *namespace.Lookup, c *call) bool {
	if !l.HasMount || (l.Found && l.Info.Type == freshet.TypeFile) {
		return false
	}
	if c.interval = f.opts.Rule(l); c.interval == freshet.Always || l.Uncachable {
		return false
	}
	v := f.s.judgeListing(dir, l, *c)
	return !v.Fresh && !v.Uncachable
}

// expand asks for the listings of the directories that follow dir.
func (f *prefetcher) expand(dir freshet.Path) {
	const most = 4 * childPage // entries to find them among
	parent, after, found := dir.Parent(), dir.Base(), 0
	for range most / childPage {
		page, err := f.s.State.List(parent, after, childPage)
		if err != nil {
			return
		}
		for i := range page {
			c := &page[i]
			if c.Virtual || c.Info.Type != freshet.TypeDirectory {
				continue
			}
			now := f.s.call()
			f.s.reads(&now)
			l, err := f.s.State.Lookup(c.Info.Path)
			if err != nil {
				return
			}
			if f.due(c.Info.Path, &l, &now) {
				f.mu.Lock()
				f.enqueue(&prefetch{dir: c.Info.Path, sibling: true})
				f.mu.Unlock()
			}
			if found++; found == f.opts.Ahead {
				return
			}
		}
		if len(page) < childPage {
			return
		}
		after = page[len(page)-1].Name
	}
}

type prefetchKey struct{}

// begins is told that a look at a listing begins.
func (f *prefetcher) begins(ctx context.Context) {
	if j, ok := ctx.Value(prefetchKey{}).(*prefetch); ok {
		j.own = true
		f.metrics.calls.Inc()
	}
}

// entry is told of each entry of a listing, and holds a prefetch to its budget.
// It is called without a slot.
func (f *prefetcher) entry(ctx context.Context, name string) {
	j, ok := ctx.Value(prefetchKey{}).(*prefetch)
	if !ok {
		return
	}
	size := int64(len(name)) + absenceBytes
	f.mu.Lock()
	if !j.over {
		j.bytes += size
		f.bytes += size
	}
	f.mu.Unlock()
	if j.entries++; j.entries%prefetchPage == 0 && !j.stopped {
		f.page(ctx, j)
	}
}

// page waits until the prefetch may make another call. One that may not for long
// gives up; who joined its look meanwhile gets it nevertheless.
func (f *prefetcher) page(ctx context.Context, j *prefetch) {
	late := f.s.opts.Clock.NewTimer(prefetchPatience)
	defer late.Stop()
	for ClassOf(ctx) != ClassOnDemand && !f.take(j) {
		f.mu.Lock()
		if f.earned == nil {
			f.earned = make(chan struct{})
		}
		earned, over := f.earned, f.bytes > f.opts.Bytes
		f.mu.Unlock()
		if !over {
			over = !f.await(ctx, earned, late)
		}
		if over {
			j.stopped = true
			j.stop(errBudget)
			return
		}
	}
	f.metrics.calls.Inc()
}

// await waits for the credit to grow, or for the time to look whether a reader
// waits for the prefetch by now; false if it is too late.
func (f *prefetcher) await(ctx context.Context, earned <-chan struct{}, late clock.Timer) bool {
	again := f.s.opts.Clock.NewTimer(prefetchPatience / 20)
	defer again.Stop()
	select {
	case <-earned:
	case <-again.C():
	case <-late.C():
		return false
	case <-ctx.Done():
		return false
	}
	return true
}
