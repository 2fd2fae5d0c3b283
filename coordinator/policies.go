package coordinator

import (
	"cmp"
	"context"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

const (
	opPolicyGet = "sync get"
	opPolicySet = "sync set"
	opPolicyDel = "sync unset"
)

// originMount is the origin of the rules that mounts carry.
const originMount = "mount"

// Policies returns all rules, those of mounts too, in order of their paths, or
// the one that applies to p if p is not empty.
func (c *Coordinator) Policies(ctx context.Context, p freshet.Path) ([]freshet.SyncPolicy, error) {
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	if p == "" {
		return c.rules(), nil
	}
	if err := checkPath(p); err != nil {
		return nil, err
	}
	rule, ok := applying(c.rules(), p)
	if !ok {
		return nil, freshet.Errorf(freshet.KindNotExist, opPolicyGet, p, "no sync interval applies: no storage is mounted there and none is set")
	}
	return []freshet.SyncPolicy{rule}, nil
}

// rules returns the rules in order of their paths; where a policy stands at a
// mount point, it comes after the mount's own, which it overrides.
func (c *Coordinator) rules() []freshet.SyncPolicy {
	var all []freshet.SyncPolicy
	mounts, _ := c.state.Mounts()
	for _, m := range mounts {
		all = append(all, freshet.SyncPolicy{Path: m.Path, Interval: m.Interval, Origin: originMount, SetAt: m.CreatedAt})
	}
	for _, p := range c.state.Policies() {
		all = append(all, freshet.SyncPolicy{Path: p.Path, Interval: p.Interval, Origin: p.Origin, SetAt: p.SetAt})
	}
	slices.SortStableFunc(all, func(a, b freshet.SyncPolicy) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// applying returns the rule of the longest prefix of p; of two at one path the
// later, which is the policy. A mount's rule hides those of paths above it.
func applying(rules []freshet.SyncPolicy, p freshet.Path) (freshet.SyncPolicy, bool) {
	best := -1
	for i, r := range rules {
		if r.Path.Contains(p) && (best < 0 || len(r.Path) >= len(rules[best].Path)) {
			best = i
		}
	}
	if best < 0 {
		return freshet.SyncPolicy{}, false
	}
	return rules[best], true
}

// SetPolicy sets the sync interval of a path and what lies below it. It takes
// effect with the next access.
func (c *Coordinator) SetPolicy(ctx context.Context, p freshet.SyncPolicy, dryRun bool) (freshet.SyncPolicy, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.SyncPolicy{}, err
	}
	if err := checkPath(p.Path); err != nil {
		return freshet.SyncPolicy{}, err
	}
	if p.Interval < freshet.Never || p.Interval > freshet.MaxInterval {
		return freshet.SyncPolicy{}, freshet.Errorf(freshet.KindInvalid, opPolicySet, p.Path, "the interval is out of range")
	}
	setDefault(&p.Origin, "operator")
	p.SetAt = c.clock.Now().UTC()
	if dryRun {
		return p, nil
	}
	_, err := c.propose(ctx, namespace.Command{SetPolicy: &namespace.Policy{Path: p.Path, Interval: p.Interval, Origin: p.Origin, SetAt: p.SetAt}})
	return p, err
}

// RemovePolicy removes the policy of exactly that path and returns the rule that
// applies afterwards.
func (c *Coordinator) RemovePolicy(ctx context.Context, p freshet.Path, dryRun bool) (freshet.SyncPolicy, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.SyncPolicy{}, err
	}
	rules := c.rules()
	at := slices.IndexFunc(rules, func(r freshet.SyncPolicy) bool { return r.Path == p && r.Origin != originMount })
	if at < 0 {
		return freshet.SyncPolicy{}, freshet.Errorf(freshet.KindNotExist, opPolicyDel, p, "no sync interval is set for exactly this path")
	}
	if !dryRun {
		if _, err := c.propose(ctx, namespace.Command{RemovePolicy: &namespace.RemovePolicy{Path: p}}); err != nil {
			return freshet.SyncPolicy{}, err
		}
	}
	next, ok := applying(slices.Delete(rules, at, at+1), p)
	if !ok { // nothing is mounted there: nothing is synced
		next = freshet.SyncPolicy{Path: p, Interval: freshet.Never}
	}
	return next, nil
}
