package client

import (
	"container/list"
	"context"
	crand "crypto/rand"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/pathtree"
	"github.com/freshet-io/freshet/rpc"
)

// LeaseOptions are the settings of Leases; the zero value is usable.
type LeaseOptions struct {
	// Max bounds the answers that are kept, of some kilobytes each; 0 is 16,384.
	Max int

	Clock   clock.Clock
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil counts for nobody
}

// Leases keeps answers of coordinators about files for as long as they allow, and drops
// them when they call them back: what is given is what the leader would have said at that
// moment (L1 in docs/protocol.md). Run holds the session without which nothing is kept:
// from when somebody asks, until nobody has for a while.
// Safe for concurrent use.
type Leases struct {
	opts    LeaseOptions
	holder  rpc.Leases
	metrics *leaseMetrics
	wanted  chan struct{} // of length 1: somebody asked while there was no session

	mu      sync.Mutex
	session freshet.LeaseID // zero while there is none
	used    bool            // somebody asked since Run looked last
	tree    pathtree.Tree[map[string]*kept]
	order   list.List // of *kept, the one used last at the back
	asks    map[askKey]*ask
}

// kept is what is kept of one path for one caller.
type kept struct {
	path   freshet.Path
	caller string
	place  *list.Element

	stat      freshet.Status
	statUntil time.Duration // by clock.Elapsed
	loc       freshet.Location
	locUntil  time.Duration
}

// askKey names a question that those who have it too wait for.
type askKey struct {
	path     freshet.Path
	caller   string
	stat     bool
	off, len int64
}

// ask is a question that is on its way.
type ask struct {
	done chan struct{}
	void bool // called back, or of another session
}

// NewLeases returns Leases that keep what the coordinators behind h allow.
func NewLeases(h rpc.Leases, opts LeaseOptions) *Leases {
	if opts.Max == 0 {
		opts.Max = 16384
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Leases{opts: opts, holder: h, wanted: make(chan struct{}, 1), asks: map[askKey]*ask{}}
	l.metrics = newLeaseMetrics(opts.Metrics, l)
	return l
}

// The pauses between attempts to have a session grow up to maxRetry, and to offRetry where
// there is no such thing: not yet, or not at all.
const (
	firstRetry = 100 * time.Millisecond
	maxRetry   = 2 * time.Second
	offRetry   = 30 * time.Second
)

// idleAfter is for how long nobody has to ask until a session is ended, at least; it is up
// to twice as long. While there are sessions, the first change under a new leader waits for
// what they may keep (L4).
const idleAfter = 10 * time.Second

// Run holds a session with the leader while one is wanted, until ctx ends.
func (l *Leases) Run(ctx context.Context) error {
	var o freshet.LeaseOpening
	wait := firstRetry
	for {
		select {
		case <-l.wanted:
		case <-ctx.Done():
			return nil
		}
		o.ID = newLeaseID() // never one of before, whose request may be on its way still
		s, err := l.holder.OpenLeases(ctx, o)
		longest := maxRetry
		if err == nil {
			wait = firstRetry
			o = freshet.LeaseOpening{Previous: s.ID()}
			if err = l.hold(ctx, s); err == nil {
				continue
			}
			l.want() // a new leader is told at once that nothing is kept any more
		} else if freshet.IsKind(err, freshet.KindUnsupported) {
			longest = offRetry
		} else {
			o.Unanswered = remember(o.Unanswered, o.ID)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		l.opts.Log.Debug("no answers are kept: there is no session with the leader", "error", err)
		pause := wait/2 + rand.N(wait) //nolint:gosec // spreads those who come back
		select {
		case <-l.opts.Clock.After(pause):
		case <-ctx.Done():
		}
		wait = min(2*wait, longest)
	}
}

// newLeaseID returns an ID that nobody can guess, and that nobody had before.
func newLeaseID() (id freshet.LeaseID) {
	_, _ = crand.Read(id[:]) // it never fails
	return id
}

// remember adds the name of a session that was not answered. After too many the oldest is
// forgotten: a leader that lived on has trimmed it.
func remember(unanswered []freshet.LeaseID, id freshet.LeaseID) []freshet.LeaseID {
	if n := len(unanswered) - freshet.MaxUnanswered + 1; n > 0 {
		unanswered = unanswered[n:]
	}
	return slices.Concat(unanswered, []freshet.LeaseID{id}) // who was given them may read them still
}

// want has Run open a session.
func (l *Leases) want() {
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}

// farewell is how long the leader has to answer that a session is over.
const farewell = time.Second

// hold drops what the session calls back, and everything when it ends: with an error, or
// because nobody wants it any more.
func (l *Leases) hold(ctx context.Context, s rpc.LeaseSession) error {
	defer s.Close()
	l.enter(s.ID())
	listening, deaf := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	idle := false
	var watching sync.WaitGroup
	watching.Go(func() {
		defer deaf()
		idle = l.awaitIdle(ctx, over)
		l.enter(freshet.LeaseID{})
		s.End() // after everything was dropped
		select {
		case <-over:
		case <-l.opts.Clock.After(farewell):
		}
	})
	err := l.follow(listening, s)
	close(over)
	watching.Wait()
	if idle {
		return nil
	}
	return err
}

// awaitIdle waits until nobody has asked for a while, false if the session is over or ctx
// ends before.
func (l *Leases) awaitIdle(ctx context.Context, over <-chan struct{}) bool {
	timer := l.opts.Clock.NewTimer(idleAfter)
	defer timer.Stop()
	for {
		select {
		case <-timer.C():
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
		l.mu.Lock()
		used := l.used
		l.used = false
		l.mu.Unlock()
		if !used {
			return true
		}
		timer.Reset(idleAfter)
	}
}

// follow drops what the session calls back until it ends.
func (l *Leases) follow(ctx context.Context, s rpc.LeaseSession) error {
	for {
		b, err := s.Next(ctx)
		if err != nil {
			return err
		}
		for _, p := range b.Paths {
			l.drop(p)
		}
		if err := s.Ack(b.Number); err != nil {
			return err
		}
	}
}

// enter begins a session with nothing kept; a zero one is none.
func (l *Leases) enter(id freshet.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session, l.used = id, l.used || !id.IsZero()
	l.tree = pathtree.Tree[map[string]*kept]{}
	l.order.Init()
	for _, a := range l.asks {
		a.void = true
	}
}

// drop forgets what is kept on the line of p, and voids what is on its way.
func (l *Leases) drop(p freshet.Path) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics.breaks.Inc()
	var at []freshet.Path
	l.tree.Line(p, func(q freshet.Path, _ map[string]*kept) bool {
		at = append(at, q)
		return true
	})
	for _, q := range at {
		l.forget(q)
	}
	for k, a := range l.asks {
		if k.path.Contains(p) || p.Contains(k.path) {
			a.void = true
		}
	}
}

// forget drops what is kept of exactly p.
func (l *Leases) forget(p freshet.Path) {
	all, _ := l.tree.Get(p)
	for _, k := range all {
		l.order.Remove(k.place)
	}
	l.tree.Delete(p)
}

// wide makes a question one about all around it. Who reads a file in parts, and again,
// shall have to ask for few of them; who reads one part only shall not have to be told of
// all others.
func wide(q freshet.LocateQuery, blockSize int64) freshet.LocateQuery {
	span := min(window, maxAnswer*max(blockSize, 1))
	q.Offset, q.Length = q.Offset-q.Offset%span, span
	return q
}

// maxAnswer is about how many blocks a coordinator names in one answer.
const maxAnswer = 256

// Locate answers q from what is kept or asks ns.
func (l *Leases) Locate(ctx context.Context, ns rpc.Namespace, q freshet.LocateQuery) (freshet.Location, error) {
	if q.StaleFingerprint != "" || q.Again {
		l.mu.Lock()
		l.forget(q.Path)
		l.mu.Unlock()
		return ns.Locate(ctx, q)
	}
	if !keeps(&q.Options) {
		return ns.Locate(ctx, q)
	}
	caller := rpc.Caller(ctx)
	key := askKey{path: q.Path, caller: caller, off: q.Offset, len: q.Length}
	for joined := false; ; joined = true {
		loc, ok := l.located(caller, &q)
		if ok {
			l.metrics.hits.Inc()
			return loc, nil
		}
		a, session, first := l.begin(key)
		if !first && !joined && a != nil {
			if err := await(ctx, a, q.Path); err != nil {
				return freshet.Location{}, err
			}
			continue
		}
		if session.IsZero() {
			return ns.Locate(ctx, q)
		}
		l.metrics.misses.Inc()
		if !first { // who came later than the question may not have its answer unless it is kept
			q.Options.Lease = freshet.LeaseID{}
			return ns.Locate(ctx, q)
		}
		defer l.end(key, a)
		q.Options.Lease = session
		if size := loc.Info.BlockSize; size > 0 { // another part is kept
			if all, err := l.locate(ctx, ns, wide(q, size), key, a); err == nil && covers(&all, q.Offset) {
				return part(&all, &q), nil
			}
		}
		return l.locate(ctx, ns, q, key, a)
	}
}

// locate asks, and keeps what may be kept.
func (l *Leases) locate(ctx context.Context, ns rpc.Namespace, q freshet.LocateQuery, key askKey, a *ask) (freshet.Location, error) {
	sent := l.opts.Clock.Elapsed()
	loc, err := ns.Locate(ctx, q)
	if err == nil {
		l.keep(key, a, loc.Lease, func(k *kept) { k.loc, k.locUntil = loc, sent+freshet.KeepFor(loc.Lease) })
	}
	return loc, err
}

// located returns what is kept, and whether it answers q: it has the block that q begins
// in.
func (l *Leases) located(caller string, q *freshet.LocateQuery) (loc freshet.Location, ok bool) {
	l.mu.Lock()
	k := l.find(q.Path, caller)
	if k == nil || l.opts.Clock.Elapsed() >= k.locUntil {
		l.mu.Unlock()
		return loc, false
	}
	loc = k.loc
	l.mu.Unlock()
	if !covers(&loc, q.Offset) {
		return loc, false
	}
	return part(&loc, q), true
}

// covers reports whether an answer has the block at an offset, or says that there is none.
func covers(loc *freshet.Location, off int64) bool {
	n := len(loc.Blocks)
	if off >= loc.Info.Length {
		return off == loc.Info.Length
	}
	return n > 0 && off >= loc.Blocks[0].Offset && off < loc.Blocks[n-1].Offset+loc.Blocks[n-1].Length
}

// part returns the part of an answer that is asked for.
func part(loc *freshet.Location, q *freshet.LocateQuery) freshet.Location {
	out := *loc
	end := loc.Info.Length
	if q.Length >= 0 && q.Length < end-q.Offset {
		end = q.Offset + q.Length
	}
	blocks := loc.Blocks
	for len(blocks) > 0 && blocks[0].Offset+blocks[0].Length <= q.Offset {
		blocks = blocks[1:]
	}
	n := len(blocks)
	for n > 0 && blocks[n-1].Offset >= end {
		n--
	}
	out.Blocks = blocks[:n:n]
	return out
}

// Stat answers from what is kept or asks ns. What a kept answer says of cached bytes is
// as old as the answer.
func (l *Leases) Stat(ctx context.Context, ns rpc.Namespace, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	if !keeps(&opts) {
		return ns.Stat(ctx, p, opts)
	}
	key := askKey{path: p, caller: rpc.Caller(ctx), stat: true}
	for joined := false; ; joined = true {
		if st, ok := l.status(p, key.caller); ok {
			l.metrics.hits.Inc()
			return st, nil
		}
		a, session, first := l.begin(key)
		if !first && !joined && a != nil {
			if err := await(ctx, a, p); err != nil {
				return freshet.Status{}, err
			}
			continue
		}
		if session.IsZero() || !first {
			return ns.Stat(ctx, p, opts)
		}
		l.metrics.misses.Inc()
		defer l.end(key, a)
		opts.Lease = session
		sent := l.opts.Clock.Elapsed()
		st, err := ns.Stat(ctx, p, opts)
		if err == nil {
			l.keep(key, a, st.Lease, func(k *kept) { k.stat, k.statUntil = st, sent+freshet.KeepFor(st.Lease) })
		}
		return st, err
	}
}

func (l *Leases) status(p freshet.Path, caller string) (st freshet.Status, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.find(p, caller)
	now := l.opts.Clock.Elapsed()
	if k == nil || now >= k.statUntil {
		return st, false
	}
	st = k.stat
	if st.Freshness.Age >= 0 { // as of the end of its time it is at most so old
		st.Freshness.Age += max(now-(k.statUntil-freshet.KeepFor(st.Lease)), 0)
	}
	return st, true
}

// keeps reports whether a read takes what is kept: one that has an interval or a token of
// its own asks for more than a lease says.
func keeps(opts *freshet.ReadOptions) bool { return opts.SyncInterval == nil && opts.After.IsZero() }

// find returns what is kept of a path for a caller who asks, nil if nothing is. The caller
// holds mu.
func (l *Leases) find(p freshet.Path, caller string) *kept {
	l.used = true
	all, _ := l.tree.Get(p)
	k := all[caller]
	if k != nil {
		l.order.MoveToBack(k.place)
	}
	return k
}

// begin returns the question of a key: first says that it is the caller's to ask and to
// end. Without a session there is none.
func (l *Leases) begin(key askKey) (a *ask, session freshet.LeaseID, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session.IsZero() {
		l.want()
	}
	if a = l.asks[key]; a != nil || l.session.IsZero() {
		return a, l.session, false
	}
	a = &ask{done: make(chan struct{})}
	l.asks[key] = a
	return a, l.session, true
}

// end lets those go on who wait for a question.
func (l *Leases) end(key askKey, a *ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.asks, key)
	close(a.done)
}

// await waits for the question of another.
func await(ctx context.Context, a *ask, p freshet.Path) error {
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return &freshet.Error{Op: "locate", Path: p, Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
	}
}

// keep keeps an answer that was granted for a time unless it was called back meanwhile.
func (l *Leases) keep(key askKey, a *ask, granted time.Duration, set func(*kept)) {
	if granted <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.void {
		return
	}
	all, _ := l.tree.Get(key.path)
	k := all[key.caller]
	if k == nil {
		for l.order.Len() >= l.opts.Max {
			l.evict()
		}
		if all, _ = l.tree.Get(key.path); all == nil { // it may have been evicted
			all = map[string]*kept{}
			l.tree.Set(key.path, all)
		}
		k = &kept{path: key.path, caller: key.caller}
		k.place = l.order.PushBack(k)
		all[key.caller] = k
	}
	set(k)
}

// evict forgets what was not used for the longest time.
func (l *Leases) evict() {
	k, ok := l.order.Front().Value.(*kept)
	if !ok {
		return
	}
	l.order.Remove(k.place)
	all, _ := l.tree.Get(k.path)
	if delete(all, k.caller); len(all) == 0 {
		l.tree.Delete(k.path)
	}
}

// Len returns how many answers are kept, some of which may have run out.
func (l *Leases) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.Len()
}

// Holds reports whether there is a session.
func (l *Leases) Holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.session.IsZero()
}

type leaseMetrics struct {
	hits, misses, breaks prometheus.Counter
}

func newLeaseMetrics(r prometheus.Registerer, l *Leases) *leaseMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &leaseMetrics{
		hits:   counter("freshet_lease_hits_total", "Questions to the coordinator that a kept answer saved."),
		misses: counter("freshet_lease_misses_total", "Questions to the coordinator whose answer might be kept."),
		breaks: counter("freshet_lease_dropped_total", "Paths of which the coordinator called kept answers back."),
	}
	if r != nil {
		r.MustRegister(m.hits, m.misses, m.breaks, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "freshet_leases_kept", Help: "Files about which answers are kept.",
		}, func() float64 { return float64(l.Len()) }))
	}
	return m
}
