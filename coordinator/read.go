package coordinator

import (
	"context"
	"errors"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// prepare is what every read of the namespace does first: prove that this member
// may answer, and wait for what the caller's token proves.
func (c *Coordinator) prepare(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) error {
	if err := checkPath(p); err != nil {
		return err
	}
	if err := c.barrier(ctx); err != nil {
		return err
	}
	return c.await(ctx, p, opts.After)
}

// checkPath refuses what did not come through freshet.ParsePath.
func checkPath(p freshet.Path) error {
	canonical, err := freshet.ParsePath(string(p))
	if err != nil {
		return err
	}
	if canonical != p {
		return freshet.Errorf(freshet.KindInvalid, "check path", "", "%q is not in canonical form; write it as %q", string(p), string(canonical))
	}
	return nil
}

// Stat returns what is known of p, fresh under the rule that applies.
func (c *Coordinator) Stat(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	if err := c.prepare(ctx, p, opts); err != nil {
		return freshet.Status{}, err
	}
	ask := c.askToKeep(p, &opts)
	defer ask.Drop()
	e, ok := c.answers.Get().(*metasync.Entry)
	if !ok {
		e = new(metasync.Entry)
	}
	defer c.answers.Put(e)
	if err := c.sync.EntryInto(ctx, p, c.ruleOf(opts.SyncInterval), e); err != nil {
		return freshet.Status{}, c.leaderHint(err)
	}
	l := &e.Lookup
	if !e.Cached {
		if err := c.state.LookupInto(p, l); err != nil {
			return freshet.Status{}, err
		}
	}
	c.usedUnder(l.Policy.TTL, p, false)
	st := freshet.Status{Info: e.Info}
	if e.Info.FileID != 0 {
		st.CachedBytes = c.nodes.CachedBytes(e.Info.FileID, c.clock.Elapsed())
	}
	st.Freshness = c.freshness(l, e.Verdict, opts.SyncInterval)
	st.Freshness.Fresh = true // else it would not have been answered
	switch {
	case !e.Cached:
		st.Freshness.Age = 0
	case ask != nil && e.Info.FileID != 0:
		st.Lease = ask.Grant(c.keep(l, &e.Verdict))
	}
	return st, nil
}

// freshness describes a verdict for users.
func (c *Coordinator) freshness(l *namespace.Lookup, v metasync.Verdict, override *freshet.Interval) freshet.Freshness {
	e := c.rule(l, override)
	f := freshet.Freshness{
		Fresh: v.Fresh, Interval: e.interval, Rule: l.Rule.Path, Age: v.Age,
		Degraded: e.degraded != "", DegradedReason: e.degraded,
	}
	if l.HasMount {
		f.Level = l.Policy.Level
	}
	return f
}

// Sync looks at p, and at everything below it if recursive, whatever its age.
func (c *Coordinator) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	if err := c.prepare(ctx, p, freshet.ReadOptions{}); err != nil {
		return err
	}
	return c.whileLeading(ctx, "sync", p, func(ctx context.Context) error {
		return c.sync.Sync(ctx, p, metasync.SyncOptions{Recursive: recursive}, report)
	})
}

// whileLeading runs fn with a context that ends with this leadership too. If it ended,
// what fn failed for is an error of KindNotLeader: the next leader can do it.
func (c *Coordinator) whileLeading(ctx context.Context, op string, p freshet.Path, fn func(ctx context.Context) error) error {
	lead, _ := c.Leading()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := freshet.Errorf(freshet.KindNotLeader, op, p, "this member does not lead the cluster any more")
	defer context.AfterFunc(lead, func() { cancel(ended) })()
	err := fn(ctx)
	if err != nil && errors.Is(context.Cause(ctx), ended) {
		err = ended
	}
	return c.leaderHint(err)
}
