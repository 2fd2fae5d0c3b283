package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/freshet-io/freshet"
)

// PolicyRule is what a file sets for a path and what lies below it; what is not
// given is inherited.
type PolicyRule struct {
	Path         string      `yaml:"path"`
	SyncInterval string      `yaml:"sync_interval"`
	Consistency  string      `yaml:"consistency"`
	WriteType    string      `yaml:"write_type"`
	TTL          string      `yaml:"ttl"`
	TTLAction    string      `yaml:"ttl_action"`
	Pinned       *bool       `yaml:"pinned"`
	BlockSize    string      `yaml:"block_size"`
	Replication  Replication `yaml:"replication"`
	// DurableReplicas is on how many nodes files of must_cache and async_through are
	// durable when they are acknowledged.
	DurableReplicas *int `yaml:"durable_replicas"`
}

// Replication bounds the copies of a block.
type Replication struct {
	Min *int `yaml:"min"`
	Max *int `yaml:"max"`
}

// change returns the rule as a change, with the values checked.
func (r PolicyRule) change(origin string) (freshet.PolicyChange, error) {
	p, err := freshet.ParsePath(r.Path)
	c := freshet.PolicyChange{Path: p, Origin: origin}
	if err != nil {
		return c, err
	}
	for _, s := range []freshet.Setting{
		{Property: freshet.PropertySyncInterval, Value: r.SyncInterval},
		{Property: freshet.PropertyConsistency, Value: r.Consistency},
		{Property: freshet.PropertyWriteType, Value: r.WriteType},
		{Property: freshet.PropertyTTL, Value: r.TTL},
		{Property: freshet.PropertyTTLAction, Value: r.TTLAction},
		{Property: freshet.PropertyPinned, Value: optional(r.Pinned, strconv.FormatBool)},
		{Property: freshet.PropertyBlockSize, Value: r.BlockSize},
		{Property: freshet.PropertyReplicationMin, Value: optional(r.Replication.Min, strconv.Itoa)},
		{Property: freshet.PropertyReplicationMax, Value: optional(r.Replication.Max, strconv.Itoa)},
		{Property: freshet.PropertyDurableReplicas, Value: optional(r.DurableReplicas, strconv.Itoa)},
	} {
		if s.Value != "" {
			c.Set = append(c.Set, s)
		}
	}
	return c, c.Normalize()
}

func optional[T any](v *T, text func(T) string) string {
	if v == nil {
		return ""
	}
	return text(*v)
}

// PolicyChanges returns what the keys sync and policies set, one change for each
// path, in order of the paths; the file must have been validated.
func (f *File) PolicyChanges(origin string) ([]freshet.PolicyChange, error) {
	var all []freshet.PolicyChange
	for _, r := range f.Sync {
		s, err := r.Policy(origin)
		if err != nil {
			return nil, err
		}
		all = append(all, freshet.PolicyChange{
			Path: s.Path, Origin: origin, Set: []freshet.Setting{{Property: freshet.PropertySyncInterval, Value: s.Interval.String()}},
		})
	}
	for _, r := range f.Policies {
		c, err := r.change(origin)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(all, func(o freshet.PolicyChange) bool { return o.Path == c.Path }); i >= 0 {
			all[i].Set = append(all[i].Set, c.Set...)
			continue
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b freshet.PolicyChange) int { return cmp.Compare(a.Path, b.Path) })
	return all, nil
}

func (f *File) checkPolicies(p *problems) {
	synced := map[freshet.Path]bool{}
	for i, r := range f.Sync {
		key := fmt.Sprintf("sync[%d]", i)
		rule, err := r.Policy("config")
		if err != nil {
			p.add(key, "%v", err)
			continue
		}
		p.once(synced, key, rule.Path)
	}
	seen := map[freshet.Path]bool{}
	for i, r := range f.Policies {
		key := fmt.Sprintf("policies[%d]", i)
		c, err := r.change("config")
		if err != nil {
			p.add(key, "%v", err)
			continue
		}
		p.once(seen, key, c.Path)
		if synced[c.Path] && r.SyncInterval != "" {
			p.add(key+".sync_interval", "the interval of %s is set under \"sync\" too: remove one", c.Path)
		}
	}
}
