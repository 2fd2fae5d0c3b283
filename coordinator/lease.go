package coordinator

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/leases"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// contactSilence is for how long the bus takes a publisher that says nothing for one
// with nothing to say (C21).
const contactSilence = 3 * time.Second

// forever is longer than any lease.
const forever = time.Duration(math.MaxInt64)

// holders is how the leader starts and stops granting leases.
type holders struct {
	turn    chan struct{}  // of length 1, full while somebody begins or ends it
	settles sync.WaitGroup // proposals of unknown outcome that still fence
}

// LeaseSession is a client that keeps answers; see leases.Session.
type LeaseSession = leases.Session

// OpenLeases begins a session under which a client may keep answers. KindUnsupported if
// leases are off, or while a member of the cluster does not know them; KindExist if its
// name is taken.
func (c *Coordinator) OpenLeases(ctx context.Context, o freshet.LeaseOpening) (*LeaseSession, error) {
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	c.enterLeases()
	c.leases.Release(&o) // who waits for them need not wait for this turn
	if err := c.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer c.endTurn()
	c.leases.Release(&o) // an attempt before may have had its turn only now
	s, err := c.leases.Open(ctx, o.ID, c.allowLeases)
	return s, c.leaderHint(err)
}

// takeTurn waits for who begins or ends a session, whose word to the log may take long.
func (c *Coordinator) takeTurn(ctx context.Context) error {
	select {
	case c.holders.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &freshet.Error{Op: "hold leases", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
	}
}

func (c *Coordinator) endTurn() { <-c.holders.turn }

func (c *Coordinator) allowLeases(ctx context.Context, a leases.Allowed) error {
	_, err := c.propose(ctx, namespace.Command{SetLeases: &namespace.SetLeases{Length: a.Length, Holders: a.Holders}})
	return err
}

// restLeases lets later leaders change things at once if nobody keeps anything.
func (c *Coordinator) restLeases(ctx context.Context) error {
	if err := c.takeTurn(ctx); err != nil {
		return err
	}
	defer c.endTurn()
	return c.leases.Rest(ctx, c.allowLeases)
}

// enterLeases enters the term in which this member leads, if it does, and returns it: its
// first barrier has been applied, so that the state says what earlier leaders granted.
func (c *Coordinator) enterLeases() (term uint64, leads bool) {
	view, _ := c.journal.Leadership()
	if view.Leading {
		c.leases.Enter(view.Term, c.allowedLeases())
	}
	return view.Term, view.Leading
}

// allowedLeases returns what the state allows.
func (c *Coordinator) allowedLeases() leases.Allowed {
	a := c.state.Leases()
	return leases.Allowed{Length: a.Length, Holders: a.Holders}
}

// commit replicates commands after everything that clients keep and that they could make
// wrong was called back (L2). It is the only way to the log.
func (c *Coordinator) commit(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	term, leads := c.enterLeases()
	if !leads {
		return nil, c.leaderHint(freshet.Errorf(freshet.KindNotLeader, "propose", "", "this member does not lead the cluster"))
	}
	release, err := c.leases.Guard(ctx, term, func() []freshet.Path { return c.state.Lines(cmds) })
	if err != nil {
		return nil, c.leaderHint(err)
	}
	results, err := c.journal.ProposeIn(ctx, term, cmds...) // what was waited for holds in this term
	if err == nil || !journal.OutcomeUnknown(err) {
		release()
		return results, err
	}
	// It may be applied yet, and nobody may keep an answer that it makes wrong.
	c.holders.settles.Go(func() {
		defer release()
		if lead, ok := c.journal.Leading(); ok {
			_ = c.journal.Settle(lead) // or the term is over, and with it all leases
		}
	})
	return results, err
}

// awaitSettled waits for what still fences, once the journal is closed.
func (c *Coordinator) awaitSettled() error {
	c.holders.settles.Wait()
	return nil
}

// appliedLeases checks that all that an entry marked was fenced.
func (c *Coordinator) appliedLeases(marked []namespace.Marked) {
	if len(marked) > 0 {
		c.leases.Applied(func(yield func(freshet.Path) bool) {
			for i := range marked {
				if !yield(marked[i].Path) {
					return
				}
			}
		})
	}
}

// askToKeep begins a question whose answer the caller would keep, nil if it would not or
// asks for more than what everybody is told.
func (c *Coordinator) askToKeep(p freshet.Path, opts *freshet.ReadOptions) *leases.Ask {
	if opts.SyncInterval != nil || !opts.After.IsZero() {
		return nil
	}
	return c.leases.Ask(opts.Lease, p)
}

// keep returns for how long a fact of which v is the verdict may be kept: never longer
// than the leader itself would serve it if it heard nothing more from anybody (L5).
func (c *Coordinator) keep(l *namespace.Lookup, v *metasync.Verdict) time.Duration {
	if !l.HasMount || v.Uncachable || !v.Fresh {
		return 0
	}
	left := func(i freshet.Interval) time.Duration {
		switch {
		case i < 0:
			return forever
		case v.Age < 0:
			return 0
		}
		return time.Duration(i) - v.Age
	}
	e := c.rule(l, nil)
	keep := left(e.interval)
	silent := l.Interval // what applies once nothing is heard any more
	if l.Policy.Level == freshet.LevelInvalidate {
		silent = shorter(silent, l.Mount.DegradedInterval)
		if e.degraded == "" {
			keep = min(keep, max(c.contacts.left(c.state.Subscriptions, l.Mount.Domain), left(shorter(e.interval, l.Mount.DegradedInterval))))
		}
	}
	if e.suspended {
		since := c.active.Status(l.Mount.ID, c.term.Load()).SinceNotice
		keep = min(keep, max(ufs.WatchSilence-since, left(silent)))
	}
	return keep
}

// left returns for how long all publishers of a domain count as heard if they fall
// silent now.
func (k *contacts) left(subscriptions func() []invalidation.Subscription, domain freshet.DomainID) time.Duration {
	subs := subscriptions()
	k.mu.Lock()
	defer k.mu.Unlock()
	left := forever
	for i := range subs {
		if subs[i].Domain == domain {
			at := k.byKey[keyOf(subs[i].Publisher, domain)]
			left = min(left, contactSilence-k.clock.Since(at.fresh))
		}
	}
	return left
}

// keepRights is keep for what decides who may use an entry.
func (c *Coordinator) keepRights(e *metasync.Entry) time.Duration {
	if !e.Cached {
		return 0
	}
	if e.Lookup.MountPoint || e.Lookup.Virtual {
		return forever // commands change them, but for what a storage says of them
	}
	return c.keep(&e.Lookup, &e.Verdict)
}
