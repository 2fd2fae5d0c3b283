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
