package coordinator

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

const opAwait = "wait for session token"

// await waits until this cluster has seen what the token proves. A token is never
// ignored: what can't be proven is an error.
func (c *Coordinator) await(ctx context.Context, p freshet.Path, t freshet.Token) error {
	if t.IsZero() {
		return nil
	}
	id := c.state.Identity()
	if t.Cluster == id.Cluster {
		return c.ownToken(p, t, id.Epoch)
	}
	deadline := c.clock.After(c.opts.TokenWait)
	for nudged := false; ; nudged = true {
		changed := c.watch.subs.wait()
		sub, known := c.subscription(t)
		switch {
		case !known:
			return freshet.Errorf(freshet.KindUnavailable, opAwait, p,
				"the token is of cluster %s, whose log of that storage this cluster does not follow (yet): check `freshet peers ls`", t.Cluster)
		case satisfied(sub, t):
			return nil
		case sub.Publisher.Epoch == t.Epoch && !c.concerned(t.Domain):
			return nil // nothing of that storage is mounted here any more
		}
		if hook := c.hooks.Load().Nudge; hook != nil && !nudged {
			hook(t.Cluster, t.Domain)
		}
		select {
		case <-changed:
		case <-deadline:
			return freshet.Errorf(freshet.KindDeadline, opAwait, p, "waited %v for %s/%d:%d, applied %d:%d",
				c.opts.TokenWait, nameOr(sub.Publisher.Name, t.Cluster.String()), t.Epoch, t.Seq, sub.Publisher.Epoch, sub.Applied)
		case <-ctx.Done():
			return &freshet.Error{Op: opAwait, Path: p, Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
		}
	}
}

// ownToken judges a token of this cluster: after the barrier the leader has
// applied everything that was acknowledged.
func (c *Coordinator) ownToken(p freshet.Path, t freshet.Token, epoch uint64) error {
	if t.Epoch > epoch {
		return freshet.Errorf(freshet.KindUnavailable, opAwait, p,
			"the token is of epoch %d of this cluster, which is in epoch %d: it was restored without a new epoch; run `freshet cluster bump-epoch`", t.Epoch, epoch)
	}
	if t.Epoch < epoch {
		return nil // everything was marked when the epoch began
	}
	for _, h := range c.state.Heads() {
		if h.Domain == t.Domain && h.High >= t.Seq {
			return nil
		}
	}
	return freshet.Errorf(freshet.KindUnavailable, opAwait, p,
		"the token proves a write %d that this cluster's log does not have: was it restored from a backup? run `freshet cluster bump-epoch`", t.Seq)
}

func (c *Coordinator) subscription(t freshet.Token) (invalidation.Subscription, bool) {
	for _, sub := range c.state.Subscriptions() {
		if sub.Publisher.Cluster == t.Cluster && sub.Domain == t.Domain {
			return sub, true
		}
	}
	return invalidation.Subscription{}, false
}

// satisfied: everything up to the token is reflected in the marks. A later epoch
// was entered by a reset, which marked everything.
func satisfied(sub invalidation.Subscription, t freshet.Token) bool {
	if sub.State != invalidation.StateSynced {
		return false
	}
	return sub.Publisher.Epoch > t.Epoch || (sub.Publisher.Epoch == t.Epoch && sub.Applied >= t.Seq)
}

func (c *Coordinator) concerned(d freshet.DomainID) bool { return len(c.state.Roots(d)) > 0 }
