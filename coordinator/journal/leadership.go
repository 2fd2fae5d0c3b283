package journal

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Leadership is who leads, as this member knows.
type Leadership struct {
	// Term is the current term of Raft.
	Term uint64
	// Leading says that this member leads and may answer: the first barrier of its
	// term has been applied (C18).
	Leading bool
	// ID and Addr are those of the leader in Raft, empty if it is not known.
	ID, Addr string
}

// leadership follows Raft's view and publishes it.
type leadership struct {
	j    *Journal
	raft *raft.Raft

	mu      sync.Mutex
	view    Leadership
	changed chan struct{} // closed at the next change
	term    *termState    // nil while this member does not lead

	ready atomic.Pointer[termState] // as term, once its barrier was applied
}

// termState is one term in which this member leads.
type termState struct {
	term   uint64
	ctx    context.Context //nolint:containedctx // it is the term: it ends with it
	cancel context.CancelCauseFunc
}

var errTermOver = unavailable("lead", errLeadershipOver{})

type errLeadershipOver struct{}

func (errLeadershipOver) Error() string { return "this member's term as the leader is over" }

func newLeadership(j *Journal, r *raft.Raft) *leadership {
	return &leadership{j: j, raft: r, changed: make(chan struct{})}
}

// run follows Raft until ctx ends.
func (l *leadership) run(ctx context.Context) error {
	events := make(chan raft.Observation, 64) // full means that one is on its way
	observer := raft.NewObserver(events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	l.raft.RegisterObserver(observer)
	defer l.raft.DeregisterObserver(observer)
	var barriers sync.WaitGroup
	defer barriers.Wait()
	defer l.end()
	for {
		if t := l.refresh(ctx); t != nil {
			barriers.Go(func() { l.barrier(t) })
		}
		select {
		case <-l.raft.LeaderCh():
		case <-events:
		case <-ctx.Done():
			return nil
		}
	}
}

// refresh compares what is published with Raft. It returns a term that has just
// begun, whose barrier is to be run.
func (l *leadership) refresh(ctx context.Context) (begun *termState) {
	term, leads := l.leads()
	addr, id := l.raft.LeaderWithID()
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.term; t != nil && (!leads || t.term != term) {
		l.over()
	}
	if leads && l.term == nil {
		l.j.contacts.recompute(term)
		t := &termState{term: term}
		t.ctx, t.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		l.term, begun = t, t
		l.j.metrics.elected.Inc()
	}
	l.publish(Leadership{Term: term, Leading: l.ready.Load() != nil, ID: string(id), Addr: string(addr)})
	return begun
}

// leads returns the term and whether this member leads it. Raft gives up the state
// before it enters another term, so the state belongs to the term.
func (l *leadership) leads() (uint64, bool) {
	term := l.raft.CurrentTerm()
	return term, l.raft.State() == raft.Leader && l.raft.CurrentTerm() == term
}

// publish wakes those who wait for a change. The caller holds mu.
func (l *leadership) publish(v Leadership) {
	if v == l.view {
		return
	}
	l.view = v
	close(l.changed)
	l.changed = make(chan struct{})
}

// barrier makes the term ready: after it the state has applied every entry that
// an earlier leader can have acknowledged.
func (l *leadership) barrier(t *termState) {
	for {
		err := l.j.await(l.raft.Barrier(0))
		l.mu.Lock()
		if term, leads := l.leads(); l.term != t || !leads || term != t.term {
			l.mu.Unlock()
			return
		}
		if err == nil {
			l.ready.Store(t)
			v := l.view
			v.Leading = true
			l.publish(v)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		select { // a leadership transfer that failed, for example
		case <-t.ctx.Done():
			return
		case <-l.j.failed:
			return
		case <-time.After(l.j.opts.Heartbeat / 10):
		}
	}
}

// end closes the term when the member stops.
func (l *leadership) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != nil {
		l.over()
	}
	l.publish(Leadership{Term: l.view.Term})
}

// replaced sends those who wait here, or will, to the session that came instead.
func (l *leadership) replaced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
}

// over ends the term. The caller holds mu.
func (l *leadership) over() {
	l.ready.Store(nil)
	l.term.cancel(errTermOver)
	l.term = nil
}

// current returns the term in which this member leads and may answer, nil if it
// does not.
func (l *leadership) current() *termState {
	t := l.ready.Load()
	if t == nil {
		return nil
	}
	// What is published may be behind.
	if term, leads := l.leads(); !leads || term != t.term {
		return nil
	}
	return t
}

// Leadership returns who leads, and a channel that is closed when that changes.
func (j *Journal) Leadership() (Leadership, <-chan struct{}) {
	s := j.session.Load()
	if s == nil {
		return Leadership{}, j.started
	}
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	return s.leadership.view, s.leadership.changed
}

// Leading returns a context that lasts as long as this member leads the current
// term, and whether it does and may answer (C18). The leader's background work
// runs under it.
func (j *Journal) Leading() (context.Context, bool) {
	if s := j.session.Load(); s != nil {
		if t := s.leadership.current(); t != nil {
			return t.ctx, true
		}
	}
	over, cancel := context.WithCancelCause(context.Background())
	cancel(errTermOver)
	return over, false
}

// Term returns Raft's current term, 0 before Run.
func (j *Journal) Term() uint64 {
	if s := j.session.Load(); s != nil {
		return s.raft.CurrentTerm()
	}
	return 0
}

// Leader returns the leader's Raft server ID and address, empty if it is not known.
func (j *Journal) Leader() (id, addr string) {
	if s := j.session.Load(); s != nil {
		a, i := s.raft.LeaderWithID()
		return string(i), string(a)
	}
	return "", ""
}
