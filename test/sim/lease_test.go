package sim_test

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/rpc"
)

// leaseLength is for how long clients keep answers.
const leaseLength = 2 * time.Second

// keepers are the processes of a site whose clients keep answers, each with a clock of
// its own that runs fast or slow, by less than clocks are trusted to.
type keepers struct {
	all     []*client.Leases
	metrics *prometheus.Registry
	stop    context.CancelFunc
	done    sync.WaitGroup
	frozen  []atomic.Bool
}

// skewed is a clock of another rate.
type skewed struct {
	bubbleClock
	rate float64
	by   time.Duration
}

func (c skewed) Elapsed() time.Duration {
	return c.by + time.Duration(c.rate*float64(c.bubbleClock.Elapsed()))
}

func (s *site) beginKeepers(w *world) {
	ctx, cancel := context.WithCancel(context.Background())
	s.keep.stop, s.keep.metrics = cancel, prometheus.NewRegistry()
	const processes = 3
	s.keep.frozen = make([]atomic.Bool, processes)
	for i := range processes {
		c := skewed{w.clock, 0.992 + 0.008*float64(i), time.Duration(w.chance.below(100)) * time.Hour}
		var metrics prometheus.Registerer
		if i == 0 {
			metrics = s.keep.metrics
		}
		l := client.NewLeases(&holder{s: s, frozen: &s.keep.frozen[i], dice: newDice(w.settings.seed, uint64(7000+i))}, client.LeaseOptions{Clock: c, Metrics: metrics, Max: 12})
		s.keep.all = append(s.keep.all, l)
		s.keep.done.Go(func() { _ = l.Run(ctx) })
	}
}

// endKeepers stops the clients and says how often an answer was kept.
func (s *site) endKeepers(w *world) {
	if s.keep.stop == nil {
		return
	}
	s.keep.stop()
	s.keep.done.Wait()
	all, err := s.keep.metrics.Gather()
	if err != nil {
		w.t.Error(err)
	}
	for _, f := range all {
		switch m := f.GetMetric()[0]; f.GetName() {
		case "freshet_lease_hits_total":
			w.kept.hits += m.GetCounter().GetValue()
		case "freshet_lease_dropped_total":
			w.kept.dropped += m.GetCounter().GetValue()
		}
	}
}

// clientFor returns a client of one of the processes that keep answers, if there are any.
func (s *site) clientFor(d *dice) *client.Client {
	opts := client.Options{}
	if n := len(s.keep.all); n > 0 {
		opts.Leases = s.keep.all[d.below(n)]
	}
	return client.New(router{s}, nodesOf{s}, opts)
}

// holder is how a process holds a session with the leader of a site. Its stream is slow
// at times, breaks, or is dead without anybody having noticed; or the process stands
// still.
type holder struct {
	s      *site
	frozen *atomic.Bool
	dice   *dice
}

// OpenLeases implements rpc.Leases.
func (h *holder) OpenLeases(ctx context.Context, opening freshet.LeaseOpening) (rpc.LeaseSession, error) {
	type opened struct {
		s *coordinator.LeaseSession
		p *process
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	o, err := call(ctx, h.s, func(c *coordinator.Coordinator) (opened, error) {
		s, err := c.OpenLeases(ctx, opening)
		for _, m := range h.s.members {
			if m.running() == c {
				return opened{s, m.process()}, err
			}
		}
		return opened{}, gone("the leader")
	})
	if err != nil {
		return nil, err
	}
	if h.dice.below(10) == 0 {
		o.s.Close()
		return nil, gone("the answer that there is a session")
	}
	return &stream{h: h, s: o.s, p: o.p, over: make(chan struct{})}, nil
}

// stream is one session.
type stream struct {
	h    *holder
	s    *coordinator.LeaseSession
	p    *process
	over chan struct{}
}

func (s *stream) ID() freshet.LeaseID { return s.s.ID() }

func (s *stream) Next(ctx context.Context) (freshet.LeaseBreak, error) {
	d := s.h.dice
	if d.below(60) == 0 {
		return freshet.LeaseBreak{}, gone("the stream of leases")
	}
	to, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.over:
			cancel()
		case <-to.Done():
		}
	}()
	b, err := called(to, s.p, func() (freshet.LeaseBreak, error) { return s.s.Next(to) })
	if err != nil {
		return b, err
	}
	s.h.wait(ctx)
	if d.below(10) == 0 {
		pause(ctx, d.upTo(4*time.Second))
	} else {
		pause(ctx, d.upTo(5*time.Millisecond))
	}
	return b, nil
}

func (s *stream) Ack(number uint64) error {
	if s.h.dice.below(60) == 0 {
		return gone("the stream of leases")
	}
	pause(context.Background(), s.h.dice.upTo(5*time.Millisecond))
	if s.p.dead() {
		return gone(s.p.name)
	}
	return s.s.Ack(number)
}

// End is heard by the leader, or gets lost.
func (s *stream) End() {
	close(s.over)
	if s.h.dice.below(2) == 0 {
		s.s.End()
	}
}

// Close is noticed by the leader or, as with a cable that was cut, not.
func (s *stream) Close() {
	if s.h.dice.below(2) == 0 {
		s.s.Close()
	}
}

// detain lets an answer that may be kept take longer than the word that it may not.
func (s *site) detain(ctx context.Context, lease time.Duration) {
	if lease > 0 && s.w.chance.below(5) == 0 {
		pause(ctx, s.w.chance.upTo(300*time.Millisecond))
	}
}

// wait stands still while the process does.
func (h *holder) wait(ctx context.Context) {
	for h.frozen.Load() && ctx.Err() == nil {
		pause(ctx, 20*time.Millisecond)
	}
}

// freeze lets a process that keeps answers stand still for a while. Its clients go on
// reading here, which is worse than what a stopped process can do.
func (n *nemesis) freeze(s *site) {
	if len(s.keep.frozen) == 0 {
		return
	}
	f := &s.keep.frozen[n.dice.below(len(s.keep.frozen))]
	n.w.note("%s: a client that keeps answers hears nothing", s.name)
	f.Store(true)
	n.after(4*time.Second, func() { f.Store(false) })
}

// hot reads a few files all the time.
func (a *actor) hot(ctx context.Context, busy *sync.WaitGroup) {
	busy.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, 10*time.Millisecond+a.dice.upTo(60*time.Millisecond))
			if ctx.Err() == nil {
				to, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				a.files = a.s.clientFor(a.dice)
				key := a.keys[a.dice.below(min(4, len(a.keys)))]
				if a.dice.below(4) == 0 {
					a.stat(to, key)
				} else {
					a.read(to, key, freshet.Token{}, time.Time{})
				}
				cancel()
			}
		}
	})
}

// unbroken finds answers that were called back too late.
func (w *world) unbroken() {
	for _, s := range w.sites {
		for _, m := range s.members {
			for _, r := range m.metrics {
				all, err := r.Gather()
				if err != nil {
					w.t.Error(err)
				}
				for _, f := range all {
					if n := f.GetMetric()[0].GetCounter().GetValue(); f.GetName() == "freshet_lease_late_breaks_total" && n > 0 {
						w.violation("", "%s: %v changes were applied of which leases had not been called back", m.raft, n)
					}
				}
			}
		}
	}
}
