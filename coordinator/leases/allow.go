package leases

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Allowed is what the state allows: it says to the next leader for how long it has to wait,
// and for whom.
type Allowed struct {
	// Length is for how long answers may be kept at most; 0 is not at all.
	Length time.Duration
	// Holders names the only sessions under which any may be kept; empty is anybody.
	Holders []freshet.LeaseID
}

// maxNamed is how many sessions the state names: it is written with every change.
const maxNamed = 32

// before is what earlier leaders granted.
type before struct {
	until   time.Duration // by clock.Elapsed: it has run out everywhere then
	holders []freshet.LeaseID
	anybody bool          // not only holders
	gone    chan struct{} // closed when all holders have said that they keep nothing
}

// since returns what leaders may have granted up to now whom the state allowed it.
func (o *Options) since(from Allowed) before {
	b := before{until: o.Clock.Elapsed(), holders: from.Holders, gone: make(chan struct{})}
	if from.Length > 0 {
		b.until += freshet.AwaitFor(from.Length)
		b.anybody = len(from.Holders) == 0
	}
	return b
}

// early reports whether answers of earlier leaders may be kept still. The caller holds mu.
func (t *Table) early() bool {
	return t.opts.Clock.Elapsed() < t.before.until && (t.before.anybody || len(t.before.holders) > 0)
}

// awaitEarly waits until no answers of earlier leaders are kept.
func (t *Table) awaitEarly(ctx context.Context, over <-chan struct{}) error {
	for {
		t.mu.Lock()
		early, until, gone := t.early(), t.before.until, t.before.gone
		t.mu.Unlock()
		select {
		case <-over:
			return notLeader()
		default:
		}
		if !early {
			return nil
		}
		if err := t.pause(ctx, over, gone, until); err != nil {
			return err
		}
	}
}

// Release ends the sessions, of this term or of one before, of which a client says that it
// keeps nothing any more.
func (t *Table) Release(o *freshet.LeaseOpening) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(o.Previous)
	for _, id := range o.Unanswered {
		t.release(id)
	}
}

// release ends one session. The caller holds mu.
func (t *Table) release(id freshet.LeaseID) {
	if s := t.sessions[id]; s != nil {
		t.close(s)
		t.forget(s)
	}
	b := &t.before
	i := slices.Index(b.holders, id)
	if t.over == nil || i < 0 {
		return
	}
	b.holders = slices.Concat(b.holders[:i], b.holders[i+1:]) // the state has the old one
	if len(b.holders) == 0 && !b.anybody {
		close(b.gone)
	}
}

// allowed returns what the state has to allow for the sessions that there are, and one
// more unless it is zero. The caller holds mu.
func (t *Table) allowed(more freshet.LeaseID) Allowed {
	a := Allowed{Length: max(t.longest, t.opts.Length)}
	if !more.IsZero() {
		a.Holders = append(a.Holders, more)
	}
	if t.early() {
		if t.before.anybody {
			return Allowed{Length: a.Length}
		}
		a.Holders = append(a.Holders, t.before.holders...)
	}
	if len(a.Holders)+len(t.sessions) > maxNamed {
		return Allowed{Length: a.Length}
	}
	for id := range t.sessions {
		a.Holders = append(a.Holders, id)
	}
	slices.SortFunc(a.Holders, func(a, b freshet.LeaseID) int { return bytes.Compare(a[:], b[:]) })
	return a
}

// isAllowed reports whether the state is known to say just that.
func (t *Table) isAllowed(a Allowed) bool {
	return t.longest == a.Length && slices.Equal(t.named, a.Holders)
}

// Open begins a session by the name id; if that is zero, by one of its own. allow changes
// what the state allows; it is called if that has to be more than it is. All changes fence
// from now on, and those that do not are over before. Calls must not overlap with each other
// or with Rest. KindExhausted if there are too many sessions, KindUnsupported if leases are
// off, KindExist if the name is taken.
func (t *Table) Open(ctx context.Context, id freshet.LeaseID, allow func(context.Context, Allowed) error) (*Session, error) {
	if t.opts.Length <= 0 {
		return nil, freshet.Errorf(freshet.KindUnsupported, opOpen, "", "this cluster grants no leases: leases.length is 0")
	}
	if id.IsZero() {
		id = newID()
	}
	t.mu.Lock()
	t.sweep()
	term, over := t.term, t.over
	if over == nil {
		t.mu.Unlock()
		return nil, notLeader()
	}
	if len(t.sessions) >= maxSessions {
		t.mu.Unlock()
		return nil, freshet.Errorf(freshet.KindExhausted, opOpen, "", "%d sessions are open already", maxSessions)
	}
	if t.sessions[id] != nil || slices.Contains(t.before.holders, id) {
		t.mu.Unlock()
		return nil, freshet.Errorf(freshet.KindExist, opOpen, "", "there is a session of this name; each needs one that was never used")
	}
	drained := t.fence()
	s := &Session{t: t, id: id, held: map[freshet.Path]*lease{}}
	want := t.allowed(s.id)
	known := t.isAllowed(want)
	t.mu.Unlock()
	if drained != nil {
		select {
		case <-drained:
		case <-over:
			return nil, notLeader()
		case <-ctx.Done():
			return nil, ended(ctx)
		}
	}
	if !known {
		if err := allow(ctx, want); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over == nil || t.term != term {
		return nil, notLeader()
	}
	t.longest, t.named = want.Length, want.Holders
	t.sessions[s.id] = s
	return s, nil
}

// fence has all changes fence, and returns what is closed when those that do not are over;
// nil if there are none. The caller holds mu.
func (t *Table) fence() (drained chan struct{}) {
	t.fencing = true
	if t.open == 0 {
		return nil
	}
	if t.drained == nil {
		t.drained = make(chan struct{})
	}
	return t.drained
}

// Rest has the state allow no more than is needed: nothing if nobody has a session and
// nothing is out, so that successors need not wait.
func (t *Table) Rest(ctx context.Context, allow func(context.Context, Allowed) error) error {
	t.mu.Lock()
	t.sweep()
	if t.over == nil || !t.fencing {
		t.mu.Unlock()
		return nil
	}
	var want Allowed
	idle := len(t.sessions) == 0 && t.ages.Len() == 0 && !t.early()
	if idle {
		t.longest = 0 // nothing is granted from now on; what changes goes on fencing
	} else if want = t.allowed(freshet.LeaseID{}); t.isAllowed(want) {
		t.mu.Unlock()
		return nil
	}
	term := t.term
	t.mu.Unlock()
	err := allow(ctx, want)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && t.over != nil && t.term == term {
		t.longest, t.named, t.fencing = want.Length, want.Holders, !idle
	}
	return err
}
