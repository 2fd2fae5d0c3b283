package leases

import (
	"context"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

const opOpen = "hold leases"

// Session is a client that keeps answers and can be told to drop them.
type Session struct {
	t  *Table
	id freshet.LeaseID

	// The table's lock guards what follows.
	held   map[freshet.Path]*lease
	last   time.Duration  // until when anything that was granted may be kept
	broken []*lease       // that the client was told, or will be, to drop
	queue  []freshet.Path // to be told
	told   uint64         // number of the last break that Next returned
	acked  uint64         // number of the last that the client has carried out
	gone   bool           // nothing is granted or told any more
	void   bool           // the client said itself that it keeps nothing
	change chan struct{}  // closed at the next change; nil while nobody waits
}

// ID returns the name of the session.
func (s *Session) ID() freshet.LeaseID { return s.id }

// Next waits for something that the client has to drop. An error means that the session
// is over: KindStale if the client was too late to drop something.
func (s *Session) Next(ctx context.Context) (freshet.LeaseBreak, error) {
	t := s.t
	for {
		t.mu.Lock()
		switch {
		case s.gone:
			t.mu.Unlock()
			return freshet.LeaseBreak{}, freshet.Errorf(freshet.KindStale, opOpen, "", "the session is over")
		case len(s.queue) > 0:
			b := freshet.LeaseBreak{Number: s.told + 1, Paths: s.queue}
			s.told++
			s.queue = nil
			t.mu.Unlock()
			return b, nil
		}
		changed := s.changed()
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return freshet.LeaseBreak{}, ended(ctx)
		}
	}
}

// Ack says that the client dropped what the breaks up to number named.
func (s *Session) Ack(number uint64) error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if number > s.told {
		return freshet.Errorf(freshet.KindInvalid, opOpen, "", "break %d is acknowledged, %d were told", number, s.told)
	}
	s.acked = max(s.acked, number)
	s.broken = slices.DeleteFunc(s.broken, func(l *lease) bool {
		over := l.broken == 0 || l.broken <= number
		if over && l.broken != 0 && s.held[l.path] == l {
			s.t.drop(l)
		}
		return over
	})
	s.wake()
	return nil
}

// End ends the session of a client that says that it keeps nothing any more.
func (s *Session) End() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.t.close(s)
	s.t.forget(s)
}

// Close ends the session: nobody is there any more who could be told. What is out is
// waited for.
func (s *Session) Close() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.t.close(s)
}

// close ends a session. The caller holds mu.
func (t *Table) close(s *Session) {
	if !s.gone {
		s.gone = true
		s.wake()
		t.left = append(t.left, s)
	}
	t.sweep()
}

// forget drops all of a session, which keeps nothing.
func (t *Table) forget(s *Session) {
	s.void = true
	s.wake()
	for _, l := range s.held {
		t.drop(l)
	}
	if t.sessions[s.id] == s {
		delete(t.sessions, s.id)
	}
}

// changed returns a channel that is closed at the next change. The caller holds mu.
func (s *Session) changed() <-chan struct{} {
	if s.change == nil {
		s.change = make(chan struct{})
	}
	return s.change
}

func (s *Session) wake() {
	if s.change != nil {
		close(s.change)
		s.change = nil
	}
}

// tell queues a path and returns the number of the break that will name it.
func (s *Session) tell(p freshet.Path) uint64 {
	switch {
	case s.gone:
	case len(s.queue) >= maxQueue:
		s.queue = []freshet.Path{freshet.Root}
	case len(s.queue) == 0 || s.queue[len(s.queue)-1] != p:
		s.queue = append(s.queue, p)
	}
	s.wake()
	return s.told + 1
}

// wait is what a change waits for: a break, or the end of the lease.
type wait struct {
	session *Session
	number  uint64
	until   time.Duration
}

// await returns when nothing of waits is kept anywhere, nor, if early, of what earlier
// leaders granted.
func (t *Table) await(ctx context.Context, over <-chan struct{}, early bool, waits []wait) error {
	start := t.opts.Clock.Elapsed()
	for i := range waits {
		if err := t.awaitOne(ctx, over, &waits[i]); err != nil {
			return err
		}
	}
	if early {
		if err := t.awaitEarly(ctx, over); err != nil {
			return err
		}
	}
	if early || len(waits) > 0 {
		t.metrics.waited.Observe((t.opts.Clock.Elapsed() - start).Seconds())
	}
	return nil
}

func (t *Table) awaitOne(ctx context.Context, over <-chan struct{}, w *wait) error {
	for {
		t.mu.Lock()
		if w.session.acked >= w.number || w.session.void {
			t.mu.Unlock()
			return nil
		}
		if t.opts.Clock.Elapsed() >= w.until {
			if !w.session.gone { // it would hold up the next change too
				t.metrics.expired.Inc()
				t.close(w.session)
			}
			t.mu.Unlock()
			return nil
		}
		changed := w.session.changed()
		t.mu.Unlock()
		if err := t.pause(ctx, over, changed, w.until); err != nil {
			return err
		}
	}
}

// pause waits for a change or until about a time.
func (t *Table) pause(ctx context.Context, over, changed <-chan struct{}, until time.Duration) error {
	timer := t.opts.Clock.NewTimer(until - t.opts.Clock.Elapsed())
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C():
	case <-over:
		return notLeader()
	case <-ctx.Done():
		return ended(ctx)
	}
	return nil
}

// Ask is a question whose answer may be kept. It begins before anything is looked up that
// the answer rests on; a nil one is granted nothing.
type Ask struct {
	session *Session
	path    freshet.Path
	within  chan struct{} // the term, see Table.over
	void    bool          // something on its line was changed since
	over    bool
}

// Ask begins a question of a session, nil if there is no such session now.
func (t *Table) Ask(id freshet.LeaseID, p freshet.Path) *Ask {
	if id.IsZero() || t.opts.Length <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s == nil || s.gone || t.longest < t.opts.Length {
		return nil
	}
	a := &Ask{session: s, path: p, within: t.over}
	at := t.at(p)
	at.asks = append(at.asks, a)
	return a
}

// Grant ends the question and says for how long the answer may be kept, of keep at most;
// 0 is not at all.
func (a *Ask) Grant(keep time.Duration) time.Duration {
	if a == nil {
		return 0
	}
	t := a.session.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.over || a.within != t.over {
		return 0
	}
	a.end()
	keep = min(keep, t.opts.Length)
	t.sweep()
	switch {
	case a.void || a.session.gone || t.fenced(a.path):
		t.metrics.refused.WithLabelValues("changing").Inc()
		return 0
	case keep < least:
		t.metrics.refused.WithLabelValues("young").Inc()
		return 0
	case t.longest < t.opts.Length:
		return 0
	}
	l := a.session.held[a.path]
	if l == nil {
		if t.ages.Len() >= t.opts.Max {
			t.metrics.refused.WithLabelValues("full").Inc()
			return 0
		}
		l = &lease{session: a.session, path: a.path}
		l.age = t.ages.PushBack(l)
		a.session.held[a.path] = l
		at := t.at(a.path)
		if at.leases == nil {
			at.leases = map[*Session]*lease{}
		}
		at.leases[a.session] = l
	}
	t.ages.MoveToBack(l.age)
	l.broken = 0 // what calls it back next is another break
	l.until = max(l.until, t.opts.Clock.Elapsed()+freshet.AwaitFor(keep))
	l.session.last = max(l.session.last, l.until)
	t.metrics.grants.Inc()
	return keep
}

// Drop ends the question if Grant did not.
func (a *Ask) Drop() {
	if a == nil {
		return
	}
	a.session.t.mu.Lock()
	defer a.session.t.mu.Unlock()
	a.end()
}

// end forgets the question. The caller holds mu.
func (a *Ask) end() {
	t := a.session.t
	if a.over {
		return
	}
	a.over = true
	s, ok := t.tree.Get(a.path)
	if !ok || a.within != t.over {
		return
	}
	if i := slices.Index(s.asks, a); i >= 0 {
		s.asks = slices.Delete(s.asks, i, i+1)
	}
	t.clean(a.path, s)
}

// Counts returns how many sessions are open and how many leases are out.
func (t *Table) Counts() (sessions, leases int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sessions {
		if !s.gone {
			sessions++
		}
	}
	return sessions, t.ages.Len()
}
