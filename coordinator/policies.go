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

	opPolicyChange = "change policy"
)

// originMount is the origin of the rules that mounts carry.
const originMount = freshet.OriginMount

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
		if p.Bare {
			continue
		}
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
	if p.Interval < freshet.Never || p.Interval > freshet.MaxInterval {
		return freshet.SyncPolicy{}, freshet.Errorf(freshet.KindInvalid, opPolicySet, p.Path, "the interval is out of range")
	}
	after, err := c.ChangePolicy(ctx, freshet.PolicyChange{
		Path: p.Path, Origin: p.Origin, DryRun: dryRun,
		Set: []freshet.Setting{{Property: freshet.PropertySyncInterval, Value: p.Interval.String()}},
	})
	if err != nil {
		return freshet.SyncPolicy{}, err
	}
	set, ok := settingOf(after.Settings, freshet.PropertySyncInterval)
	if !ok { // a repeated call, and it was removed since
		return freshet.SyncPolicy{Path: p.Path, Interval: freshet.Never}, nil
	}
	i, err := freshet.ParseInterval(set.Value)
	return freshet.SyncPolicy{Path: p.Path, Interval: i, Origin: set.Origin, SetAt: set.SetAt}, err
}

// RemovePolicy removes the sync interval of exactly that path and returns the rule
// that applies afterwards.
func (c *Coordinator) RemovePolicy(ctx context.Context, p freshet.Path, dryRun bool) (freshet.SyncPolicy, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.SyncPolicy{}, err
	}
	if done, err := c.repeated(ctx); done || err != nil {
		next, _ := applying(c.rules(), p)
		return next, err
	}
	rules := c.rules()
	at := slices.IndexFunc(rules, func(r freshet.SyncPolicy) bool { return r.Path == p && r.Origin != originMount })
	if at < 0 {
		return freshet.SyncPolicy{}, freshet.Errorf(freshet.KindNotExist, opPolicyDel, p, "no sync interval is set for exactly this path")
	}
	if _, err := c.ChangePolicy(ctx, freshet.PolicyChange{Path: p, Unset: []freshet.Property{freshet.PropertySyncInterval}, DryRun: dryRun}); err != nil {
		return freshet.SyncPolicy{}, err
	}
	next, ok := applying(slices.Delete(rules, at, at+1), p)
	if !ok { // nothing is mounted there: nothing is synced
		next = freshet.SyncPolicy{Path: p, Interval: freshet.Never}
	}
	return next, nil
}

// PathPolicies returns what is set at all paths or, if p is not empty, at p and
// above it, and what applies at p.
func (c *Coordinator) PathPolicies(ctx context.Context, p freshet.Path) (freshet.PolicyReport, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.PolicyReport{}, err
	}
	all := c.policies()
	if p == "" {
		return freshet.PolicyReport{Policies: all}, nil
	}
	if err := checkPath(p); err != nil {
		return freshet.PolicyReport{}, err
	}
	all = lineOf(all, p)
	return freshet.PolicyReport{Policies: all, Effective: effectiveSettings(all)}, nil
}

// lineOf keeps the policies at p and above it.
func lineOf(all []freshet.Policy, p freshet.Path) []freshet.Policy {
	return slices.DeleteFunc(all, func(o freshet.Policy) bool { return !o.Path.Contains(p) })
}

// policies returns what is set everywhere in order of the paths; at a mount point
// the mount's own settings come first.
func (c *Coordinator) policies() []freshet.Policy {
	var all []freshet.Policy
	mounts, _ := c.state.Mounts()
	for _, m := range mounts {
		own := func(p freshet.Property, v string) freshet.Setting {
			return freshet.Setting{Property: p, Value: v, Path: m.Path, Origin: originMount, SetAt: m.CreatedAt}
		}
		all = append(all, freshet.Policy{Path: m.Path, Settings: []freshet.Setting{
			own(freshet.PropertySyncInterval, m.Interval.String()), own(freshet.PropertyConsistency, m.Level.String()),
		}})
	}
	for _, p := range c.state.Policies() {
		all = append(all, policyOf(&p))
	}
	slices.SortStableFunc(all, func(a, b freshet.Policy) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// policyOf returns a policy of the state in the words of clients.
func policyOf(p *namespace.Policy) freshet.Policy {
	out := freshet.Policy{Path: p.Path}
	if !p.Bare {
		out.Settings = append(out.Settings, freshet.Setting{
			Property: freshet.PropertySyncInterval, Value: p.Interval.String(), Path: p.Path, Origin: p.Origin, SetAt: p.SetAt,
		})
	}
	for _, s := range p.Settings {
		out.Settings = append(out.Settings, freshet.Setting{Property: s.Property, Value: s.Value, Path: p.Path, Origin: s.Origin, SetAt: s.SetAt})
	}
	sortSettings(out.Settings)
	return out
}

// sortSettings puts settings in the order of freshet.Properties, unknown ones last.
func sortSettings(all []freshet.Setting) {
	order := freshet.Properties()
	place := func(s freshet.Setting) int {
		if i := slices.Index(order, s.Property); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(all, func(a, b freshet.Setting) int { return place(a) - place(b) })
}

func settingOf(all []freshet.Setting, p freshet.Property) (freshet.Setting, bool) {
	i := slices.IndexFunc(all, func(s freshet.Setting) bool { return s.Property == p })
	if i < 0 {
		return freshet.Setting{}, false
	}
	return all[i], true
}

// effectiveSettings lays the policies of a line of paths, the outermost first,
// over each other, each property by itself.
func effectiveSettings(line []freshet.Policy) []freshet.Setting {
	out := freshet.DefaultSettings()
	for _, p := range line {
		for _, s := range p.Settings {
			if i := slices.IndexFunc(out, func(o freshet.Setting) bool { return o.Property == s.Property }); i >= 0 {
				out[i] = s
			}
		}
	}
	return out
}

// ChangePolicy changes what is set at a path and returns what is set there
// afterwards. It takes effect with the next access.
func (c *Coordinator) ChangePolicy(ctx context.Context, ch freshet.PolicyChange) (freshet.Policy, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.Policy{}, err
	}
	if err := checkPath(ch.Path); err != nil {
		return freshet.Policy{}, err
	}
	if err := ch.Normalize(); err != nil {
		return freshet.Policy{}, err
	}
	if done, err := c.repeated(ctx); done || err != nil {
		set := c.policyAt(ch.Path)
		return policyOf(&set), err
	}
	cmd := c.policyCommand(ch)
	after, err := c.afterChange(&cmd)
	if err == nil {
		err = c.checkEffective(&after, &ch)
	}
	if err == nil { // a dry run says it too
		err = c.gate([]namespace.Command{{ChangePolicy: &cmd}})
	}
	if err != nil || ch.DryRun {
		return policyOf(&after), err
	}
	if _, err := c.propose(ctx, namespace.Command{ChangePolicy: &cmd}); err != nil {
		return freshet.Policy{}, err
	}
	c.log.Info("policy changed", "path", string(ch.Path), "set", len(cmd.Set), "unset", len(cmd.Unset), "replace", cmd.Replace, "origin", ch.Origin)
	return policyOf(&after), nil
}

// policyCommand makes the command of a change that was normalized.
func (c *Coordinator) policyCommand(ch freshet.PolicyChange) namespace.ChangePolicy {
	cmd := namespace.ChangePolicy{Path: ch.Path, Unset: ch.Unset, Replace: ch.Replace}
	now := c.clock.Now().UTC()
	for _, s := range ch.Set {
		cmd.Set = append(cmd.Set, namespace.PolicySetting{Property: s.Property, Value: s.Value, Origin: ch.Origin, SetAt: now})
	}
	return cmd
}

// seedPolicy makes a policy that founds a cluster.
func (c *Coordinator) seedPolicy(ch freshet.PolicyChange) (namespace.Policy, error) {
	setDefault(&ch.Origin, freshet.OriginConfig)
	seed := namespace.Policy{Path: ch.Path, Bare: true}
	if err := checkPath(ch.Path); err != nil {
		return seed, err
	}
	if err := ch.Normalize(); err != nil {
		return seed, err
	}
	cmd := c.policyCommand(ch)
	return seed, seed.Change(&cmd)
}

// afterChange returns what would be set at the path after the command.
func (c *Coordinator) afterChange(cmd *namespace.ChangePolicy) (namespace.Policy, error) {
	held := c.policyAt(cmd.Path)
	return held, held.Change(cmd)
}

// policyAt returns a copy of what is set at exactly one path.
func (c *Coordinator) policyAt(p freshet.Path) namespace.Policy {
	all := c.state.Policies()
	i := slices.IndexFunc(all, func(o namespace.Policy) bool { return o.Path == p })
	if i < 0 {
		return namespace.Policy{Path: p, Bare: true}
	}
	held := all[i]
	held.Settings = slices.Clone(held.Settings)
	return held
}

// checkEffective refuses settings that contradict each other.
func (c *Coordinator) checkEffective(after *namespace.Policy, ch *freshet.PolicyChange) error {
	line := slices.DeleteFunc(c.policies(), func(o freshet.Policy) bool {
		return !o.Path.Contains(ch.Path) || (o.Path == ch.Path && !isMount(o))
	})
	effective := effectiveSettings(append(line, policyOf(after)))
	if boundsCopies(ch, policyOf(after).Settings) {
		if err := freshet.CheckReplication(ch.Path, effective); err != nil {
			return err
		}
	}
	level, set := settingOf(ch.Set, freshet.PropertyConsistency)
	if !set || level.Value != freshet.LevelInterval.String() {
		return nil
	}
	if applies, _ := settingOf(effective, freshet.PropertySyncInterval); applies.Value == freshet.Never.String() {
		return freshet.Errorf(freshet.KindInvalid, opPolicyChange, ch.Path,
			"consistency %q needs a sync interval, and \"never\" applies here: set sync_interval too, to a duration such as 5m or to always", level.Value)
	}
	return nil
}

// boundsCopies reports whether a change is of the bounds of copies and leaves one of
// them at the path: what lies above it can't be mended there.
func boundsCopies(ch *freshet.PolicyChange, after []freshet.Setting) bool {
	touches, leaves := ch.Replace, false
	for _, p := range []freshet.Property{freshet.PropertyReplicationMin, freshet.PropertyReplicationMax} {
		_, set := settingOf(ch.Set, p)
		touches = touches || set || slices.Contains(ch.Unset, p)
		_, has := settingOf(after, p)
		leaves = leaves || has
	}
	return touches && leaves
}

func isMount(p freshet.Policy) bool {
	return len(p.Settings) > 0 && p.Settings[0].Origin == originMount
}

// levelOf returns the consistency level of a mount as far as other clusters are
// concerned: they are listened to if any path in it wants that.
func (c *Coordinator) levelOf(m *freshet.Mount) freshet.Level {
	e, _ := c.state.EffectiveAt(m.Path)
	if e.Level == freshet.LevelInvalidate {
		return e.Level
	}
	for _, p := range c.state.Policies() {
		if !m.Path.Contains(p.Path) {
			continue
		}
		if at, ok := c.state.MountAt(p.Path); !ok || at.ID != m.ID {
			continue
		}
		if e, _ := c.state.EffectiveAt(p.Path); e.Level == freshet.LevelInvalidate {
			return freshet.LevelInvalidate
		}
	}
	return e.Level
}
