// Package leases owns the memory of a leader of which answers clients keep, and calls
// them back: before a change is proposed, every answer that it could make wrong is
// broken, or has run out, and none is granted until the change is applied or given up
// (L1 to L4 in docs/protocol.md). It never decides what an answer says, nor for how
// long its own freshness would last; it has no goroutine and no connection, and keeps
// nothing beyond a term.
package leases

import (
	"container/list"
	"context"
	"crypto/rand"
	"iter"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/pathtree"
)

// Options are the settings of a Table. The zero value grants nothing.
type Options struct {
	// Length is for how long an answer may be kept at most; 0 grants none.
	Length time.Duration
	// Max bounds the answers that are out at once, of about 400 bytes each and their
	// path; 0 is 100,000.
	Max int

	Clock   clock.Clock
	Metrics prometheus.Registerer
}

// least is the shortest lease that is worth a word.
const least = 20 * time.Millisecond

// maxSessions bounds the sessions that are open at once.
const maxSessions = 10_000

// maxQueue is how many paths wait to be told to one session before it is told to drop
// everything instead.
const maxQueue = 4096

// Table is what is out in the present term. It is safe for concurrent use.
type Table struct {
	opts    Options
	metrics *metrics

	mu       sync.Mutex
	term     uint64
	over     chan struct{} // closed when the term is over; nil while there is none
	before   before
	longest  time.Duration     // how long a lease the state allows; successors wait for it
	named    []freshet.LeaseID // who may have one, as the state says; see Allowed
	fencing  bool              // changes fence: leases are out, or soon will be
	open     int               // changes under way that do not fence
	drained  chan struct{}     // closed when open becomes 0; nil while nobody waits
	sessions map[freshet.LeaseID]*Session
	left     []*Session // those that ended, while their clients may still keep something
	tree     pathtree.Tree[*spot]
	ages     list.List // of *lease, the one granted last at the back
}

// spot is what is known of one path.
type spot struct {
	leases map[*Session]*lease
	asks   []*Ask
	fences int
}

func (s *spot) empty() bool { return len(s.leases) == 0 && len(s.asks) == 0 && s.fences == 0 }

// lease is an answer of a path that a session may keep.
type lease struct {
	session *Session
	path    freshet.Path
	until   time.Duration // by clock.Elapsed: it has run out everywhere then
	age     *list.Element
	// broken is the number of the break that calls it back, 0 if none does. It stays
	// until the client has dropped it: the next change has to wait for that too.
	broken uint64
}

// New returns a Table of no term.
func New(opts Options) *Table {
	if opts.Max == 0 {
		opts.Max = 100_000
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	t := &Table{opts: opts}
	t.metrics = newMetrics(opts.Metrics, t)
	return t
}

// Length returns for how long answers may be kept at most; 0 is never.
func (t *Table) Length() time.Duration { return t.opts.Length }

// Enter begins a term, whose first barrier was applied: from is what the state allowed the
// leaders before, who may have granted a lease at any time up to now.
// Entering the present term again, or one that is over, changes nothing.
func (t *Table) Enter(term uint64, from Allowed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term < t.term || (term == t.term && t.over != nil) {
		return
	}
	t.end()
	t.term, t.over = term, make(chan struct{})
	t.longest, t.named, t.fencing = from.Length, from.Holders, from.Length > 0
	t.before = t.opts.since(from)
}

// Leave ends the present term: nothing is granted, and who waits is told.
func (t *Table) Leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end()
}

// end forgets everything. The caller holds mu.
func (t *Table) end() {
	if t.over != nil {
		close(t.over)
	}
	for _, s := range t.sessions {
		s.gone = true
		s.wake()
	}
	t.over, t.fencing, t.open, t.drained = nil, false, 0, nil
	t.sessions, t.left = map[freshet.LeaseID]*Session{}, nil
	t.tree = pathtree.Tree[*spot]{}
	t.ages.Init()
}

// notLeader is the answer where there is no term, or another one.
func notLeader() error {
	return freshet.Errorf(freshet.KindNotLeader, "lease", "", "this member does not lead the cluster any more")
}

func ended(ctx context.Context) error {
	return &freshet.Error{Op: "lease", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
}

// Guard calls back what is kept on the lines that a change touches, waits until it is
// dropped or has run out, and lets nobody keep an answer there until release is called:
// when the change was applied here, or never will be. lines is called only if leases are
// out. After an error nothing is to be released and the change must not be made.
func (t *Table) Guard(ctx context.Context, term uint64, lines func() []freshet.Path) (release func(), err error) {
	t.mu.Lock()
	if t.over == nil || t.term != term {
		t.mu.Unlock()
		return nil, notLeader()
	}
	if !t.fencing {
		t.open++
		over := t.over
		t.mu.Unlock()
		return func() { t.closed(over) }, nil
	}
	t.mu.Unlock()
	all := lines()
	if len(all) == 0 {
		return func() {}, nil
	}
	t.mu.Lock()
	if t.over == nil || t.term != term {
		t.mu.Unlock()
		return nil, notLeader()
	}
	over, waits := t.over, []wait(nil)
	early := t.early()
	for _, p := range all {
		t.at(p).fences++
		waits = t.breakLine(p, waits)
	}
	t.mu.Unlock()
	release = func() { t.unfence(over, all) }
	if err := t.await(ctx, over, early, waits); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// closed ends a change that did not fence.
func (t *Table) closed(over chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != over {
		return
	}
	if t.open--; t.open == 0 && t.drained != nil {
		close(t.drained)
		t.drained = nil
	}
}

func (t *Table) unfence(over chan struct{}, lines []freshet.Path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != over {
		return
	}
	for _, p := range lines {
		t.voidAsks(p) // that began while this was fenced: they may have looked before the change
		if s, ok := t.tree.Get(p); ok {
			s.fences--
			t.clean(p, s)
		}
	}
}

// voidAsks has nothing granted on the line of p that is being answered now.
func (t *Table) voidAsks(p freshet.Path) {
	t.tree.Line(p, func(_ freshet.Path, s *spot) bool {
		for _, a := range s.asks {
			a.void = true
		}
		return true
	})
}

// Applied is told of the paths that a change which was applied marked. All of them must
// be on fenced lines; what is not is called back now, too late, and counted.
func (t *Table) Applied(marked iter.Seq[freshet.Path]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over == nil || !t.fencing {
		return
	}
	for p := range marked {
		covered := false
		t.tree.Above(p, func(_ freshet.Path, s *spot) bool {
			covered = s.fences > 0
			return !covered
		})
		if !covered {
			if waits := t.breakLine(p, nil); len(waits) > 0 {
				t.metrics.late.Inc()
			}
		}
	}
}

// fenced reports whether p is on a line that a change under way touches.
func (t *Table) fenced(p freshet.Path) (is bool) {
	t.tree.Line(p, func(_ freshet.Path, s *spot) bool {
		is = s.fences > 0
		return !is
	})
	return is
}

// at returns the spot of p. The caller holds mu.
func (t *Table) at(p freshet.Path) *spot {
	s, ok := t.tree.Get(p)
	if !ok {
		s = &spot{}
		t.tree.Set(p, s)
	}
	return s
}

// clean forgets a spot of which nothing is known any more.
func (t *Table) clean(p freshet.Path, s *spot) {
	if s.empty() {
		t.tree.Delete(p)
	}
}

// breakLine breaks what is out on the line of p and voids what is being answered. It
// adds what is to be waited for.
func (t *Table) breakLine(p freshet.Path, waits []wait) []wait {
	t.voidAsks(p)
	var broken []*lease
	t.tree.Line(p, func(_ freshet.Path, s *spot) bool {
		for _, l := range s.leases {
			broken = append(broken, l)
		}
		return true
	})
	now := t.opts.Clock.Elapsed()
	told := map[*Session]uint64{}
	for _, l := range broken {
		if l.until <= now {
			t.drop(l)
			continue
		}
		if l.broken == 0 {
			number, ok := told[l.session]
			if !ok {
				number = l.session.tell(p)
				told[l.session] = number
			}
			l.broken = number
			l.session.broken = append(l.session.broken, l)
			t.metrics.breaks.Inc()
		}
		waits = append(waits, wait{l.session, l.broken, l.until})
	}
	return waits
}

// drop forgets a lease.
func (t *Table) drop(l *lease) {
	if s, ok := t.tree.Get(l.path); ok {
		delete(s.leases, l.session)
		t.clean(l.path, s)
	}
	delete(l.session.held, l.path)
	t.ages.Remove(l.age)
}

// sweep forgets leases that have run out.
func (t *Table) sweep() {
	now := t.opts.Clock.Elapsed()
	for e := t.ages.Front(); e != nil; e = t.ages.Front() {
		l, ok := e.Value.(*lease)
		if !ok || l.until > now {
			break
		}
		t.drop(l)
	}
	for len(t.left) > 0 && t.left[0].last <= now {
		if s := t.left[0]; t.sessions[s.id] == s { // else it was forgotten, and its name may be another's
			delete(t.sessions, s.id)
		}
		t.left = t.left[1:]
	}
}

// newID returns an ID that nobody can guess, and that nobody had before.
func newID() (id freshet.LeaseID) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}
