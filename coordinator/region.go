package coordinator

import (
	"context"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// Publisher returns who this cluster is as a source of records.
func (c *Coordinator) Publisher() invalidation.Publisher {
	id := c.state.Identity()
	return invalidation.Publisher{Cluster: id.Cluster, Name: id.Name, Epoch: id.Epoch}
}

// Node returns the name of this member.
func (c *Coordinator) Node() string { return nameOr(c.opts.Member.Name, c.opts.Member.ID) }

// Root is one mount as other clusters need to know it.
type Root struct {
	Domain    freshet.DomainID
	Key       string
	ReadOnly  bool
	Level     freshet.Level
	Authority string
}

// Roots returns the mounts, and a channel that is closed when they, or the levels
// that policies give them, change.
func (c *Coordinator) Roots() ([]Root, <-chan struct{}) {
	changed := c.watch.mounts.wait()
	mounts, _ := c.state.Mounts()
	roots := make([]Root, 0, len(mounts))
	for _, m := range mounts {
		r := Root{Domain: m.Domain, Key: m.DomainKey, ReadOnly: m.ReadOnly, Level: c.levelOf(&m)}
		if canonical, err := c.openers.Parse(ufs.Spec{URI: m.URI, Options: m.Options}); err == nil {
			r.Authority = canonical.Authority
		}
		roots = append(roots, r)
	}
	return roots, changed
}

// Heads returns the heads of all own logs as this member has applied them, and a
// channel that is closed when one grows.
func (c *Coordinator) Heads() ([]invalidation.Head, <-chan struct{}) {
	changed := c.watch.heads.wait()
	return c.state.Heads(), changed
}

// VerifiedHeads returns the heads as a leader that proved, after the call began,
// that it leads.
func (c *Coordinator) VerifiedHeads(ctx context.Context) ([]invalidation.Head, error) {
	if _, err := c.journal.Verify(ctx); err != nil {
		return nil, c.leaderHint(err)
	}
	if _, leads := c.Leading(); !leads {
		return nil, c.leaderHint(freshet.Errorf(freshet.KindNotLeader, "read heads", "", "this member has not taken over yet"))
	}
	return c.state.Heads(), nil
}

// Records returns records of an own log.
func (c *Coordinator) Records(domain freshet.DomainID, after uint64, limit int) (invalidation.Batch, error) {
	return c.state.Records(domain, after, limit)
}

// Subscriptions returns the positions in the logs of other clusters.
func (c *Coordinator) Subscriptions() ([]invalidation.Subscription, error) {
	return c.state.Subscriptions(), c.state.Err()
}

// Invalidate is the one door by which word of a change enters: a batch of another
// cluster's records, an unverified hint, or an operator's mark.
func (c *Coordinator) Invalidate(ctx context.Context, cmd namespace.Command) (namespace.Result, error) {
	if cmd.Invalidate == nil && cmd.Hint == nil && cmd.Mark == nil {
		return namespace.Result{}, freshet.Errorf(freshet.KindInternal, "invalidate", "", "the command invalidates nothing")
	}
	return c.one(ctx, cmd)
}

func (c *Coordinator) one(ctx context.Context, cmd namespace.Command) (namespace.Result, error) {
	results, err := c.propose(ctx, cmd)
	if len(results) == 0 {
		return namespace.Result{}, err
	}
	return results[0], err
}

// Apply marks what the records name and advances the position, in one command.
func (c *Coordinator) Apply(ctx context.Context, b invalidation.Batch) (invalidation.Verdict, invalidation.Subscription, error) {
	r, err := c.Invalidate(ctx, namespace.Command{Invalidate: &namespace.Invalidate{Batch: b}})
	if err == nil {
		c.metrics.invalidated(r.Verdict, len(b.Records))
	}
	return r.Verdict, r.Position, err
}

// Hint marks what unverified records name and advances nothing.
func (c *Coordinator) Hint(ctx context.Context, domain freshet.DomainID, records []invalidation.Record) error {
	_, err := c.Invalidate(ctx, namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: slices.Clone(records)}})
	return err
}

// Reset marks every mount of the domain and sets the position to head.
func (c *Coordinator) Reset(ctx context.Context, p invalidation.Publisher, head invalidation.Head) (invalidation.Subscription, error) {
	r, err := c.one(ctx, namespace.Command{ResetSub: &namespace.ResetSub{Publisher: p, Head: head}})
	if err == nil {
		c.log.Info("the position in a publisher's log was reset", "publisher", p.Name, "epoch", p.Epoch, "seq", head.High)
	}
	return r.Position, err
}

// Begin creates a subscription at position 0.
func (c *Coordinator) Begin(ctx context.Context, p invalidation.Publisher, domain freshet.DomainID) (invalidation.Subscription, error) {
	r, err := c.one(ctx, namespace.Command{BeginSub: &namespace.BeginSub{Publisher: p, Domain: domain}})
	return r.Position, err
}

// Forget resets and drops everything of a publisher.
func (c *Coordinator) Forget(ctx context.Context, cluster freshet.ClusterID) error {
	_, err := c.one(ctx, namespace.Command{ForgetSub: &namespace.ForgetSub{Cluster: cluster}})
	if err == nil {
		c.contacts.drop(cluster)
	}
	return err
}
