package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "Set how paths are treated: sync interval, consistency, write type, TTL and more",
		"  freshet policy set /hot --sync-interval 10s --ttl 24h\n"+
			"  freshet policy show /hot/a.csv     # what applies, and where it is set\n"+
			"  freshet policy unset /hot --property ttl",
		a.policySet(), a.policyUnset(), a.policyShow(), a.policyList())
}

// policyFlags are the values of properties as flags.
type policyFlags struct {
	values map[freshet.Property]*string
	pinned bool
}

func (f *policyFlags) register(c *cobra.Command) {
	f.values = map[freshet.Property]*string{}
	for _, p := range []struct {
		property freshet.Property
		help     string
	}{
		{freshet.PropertySyncInterval, "always (or 0), never (or -1) or a duration such as 30s"},
		{freshet.PropertyConsistency, "invalidate or interval"},
		{freshet.PropertyWriteType, "of writes that name none: cache_through, through, async_through or must_cache"},
		{freshet.PropertyTTL, "a duration after which what nobody used is dropped from the cache, or never"},
		{freshet.PropertyTTLAction, "what the TTL does: free"},
		{freshet.PropertyBlockSize, "size of the cached blocks of new versions of files: a multiple of 64KiB up to 1GiB"},
		{freshet.PropertyReplicationMin, "live copies of each cached block at least, from 0 (nothing is forced) to 64"},
		{freshet.PropertyReplicationMax, "live copies of each cached block at most, from 0 (no limit) to 64"},
		{freshet.PropertyDurableReplicas, "cache nodes on whose disks a file of must_cache or async_through is when it is acknowledged, from 1 to 8"},
	} {
		f.values[p.property] = c.Flags().String(flagOf(p.property), "", p.help)
	}
	c.Flags().BoolVar(&f.pinned, flagOf(freshet.PropertyPinned), false, "keep cached blocks from being evicted; --pinned=false lets them go again")
}

func flagOf(p freshet.Property) string { return strings.ReplaceAll(string(p), "_", "-") }

// given returns the values that were given.
func (f *policyFlags) given(c *cobra.Command) []freshet.Setting {
	var out []freshet.Setting
	for _, p := range freshet.Properties() {
		flag := c.Flag(flagOf(p))
		if flag != nil && flag.Changed {
			out = append(out, freshet.Setting{Property: p, Value: flag.Value.String()})
		}
	}
	return out
}

func (a *app) policySet() *cobra.Command {
	var f policyFlags
	var replace, dryRun bool
	var origin string
	c := &cobra.Command{
		Use: "set PATH", Short: "Set properties of a path and what lies below it; takes effect at once", Args: cobra.ExactArgs(1),
		Long: "Each property is inherited from the longest path that sets it, whatever else that path sets.\n" +
			"A mount sets sync-interval and consistency of its own and so hides what is set above it of\n" +
			"these two; all others are inherited through mount points.\n" +
			"A block size applies to files that are new or change from then on.",
		Example: "  freshet policy set /hot --sync-interval 10s\n" +
			"  freshet policy set /logs --write-type through --ttl 1h\n" +
			"  freshet policy set /tables --block-size 1MiB  # small reads of large files cost less\n" +
			"  freshet policy set /logs --ttl 2h --replace   # and nothing else",
		RunE: func(cmd *cobra.Command, args []string) error {
			set := f.given(cmd)
			if len(set) == 0 {
				return freshet.Errorf(freshet.KindInvalid, "policy set", "", "name at least one property, such as --sync-interval 30s; to remove all, use `freshet policy unset`")
			}
			props, err := rpc.PropertiesToWire(set)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				var p *freshetv1.Policy
				if replace {
					r, err := s.policies.ReplacePolicy(ctx, &freshetv1.ReplacePolicyRequest{Path: args[0], Properties: props, Origin: origin, DryRun: dryRun, OpId: rpc.NewOpID()})
					if err != nil {
						return err
					}
					p = r.GetPolicy()
				} else {
					r, err := s.policies.UpdatePolicy(ctx, &freshetv1.UpdatePolicyRequest{Path: args[0], Properties: props, Origin: origin, DryRun: dryRun, OpId: rpc.NewOpID()})
					if err != nil {
						return err
					}
					p = r.GetPolicy()
				}
				a.changed(dryRun, "set %s of %s", countText(len(set), "property", "properties"), p.GetPath())
				return a.print(p, func(t *table) { settingsTable(t, p.GetSettings()) })
			})
		},
	}
	f.register(c)
	c.Flags().BoolVar(&replace, "replace", false, "remove the properties that are not given")
	c.Flags().StringVar(&origin, "origin", "", "who sets it, such as terraform; operator by default")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) policyUnset() *cobra.Command {
	var properties []string
	var dryRun bool
	c := &cobra.Command{
		Use: "unset PATH", Short: "Remove properties of exactly that path, or all of them; they are inherited again", Args: cobra.ExactArgs(1),
		Example: "  freshet policy unset /hot\n  freshet policy unset /hot --property ttl --property ttl_action",
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, p := range properties { // as the flags of set are written
				properties[i] = strings.ReplaceAll(p, "-", "_")
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.policies.DeletePolicy(ctx, &freshetv1.DeletePolicyRequest{Path: args[0], Properties: properties, DryRun: dryRun, OpId: rpc.NewOpID()})
				if err != nil {
					return err
				}
				left := r.GetPolicy().GetSettings()
				if len(left) == 0 && a.output == "table" {
					a.changed(dryRun, "removed the properties of %s; nothing is left that is set there", args[0])
					return nil
				}
				a.changed(dryRun, "removed properties of %s; this is still set there:", args[0])
				return a.print(r.GetPolicy(), func(t *table) { settingsTable(t, left) })
			})
		},
	}
	c.Flags().StringSliceVar(&properties, "property", nil, "one property, such as ttl; may be given again")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) policyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show PATH", Short: "Show what applies to a path, and which path and whom it comes from", Args: cobra.ExactArgs(1),
		Example: "  freshet policy show /hot/a.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if args[0] == "" {
					return freshet.Errorf(freshet.KindInvalid, "policy show", "", "the path is empty")
				}
				r, err := s.policies.ListPolicies(ctx, &freshetv1.ListPoliciesRequest{Path: args[0]})
				if err != nil {
					return err
				}
				return a.print(r, func(t *table) { settingsTable(t, r.GetEffective()) })
			})
		},
	}
}

func (a *app) policyList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List what is set at all paths, by mounts too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.policies.ListPolicies(ctx, &freshetv1.ListPoliciesRequest{})
				if err != nil {
					return err
				}
				var all []*freshetv1.PolicySetting
				for _, p := range r.GetPolicies() {
					all = append(all, p.GetSettings()...)
				}
				return a.print(r, func(t *table) { settingsTable(t, all) })
			})
		},
	}
}

func settingsTable(t *table, all []*freshetv1.PolicySetting) {
	t.row("PROPERTY", "VALUE", "PATH", "ORIGIN", "SET")
	for _, s := range all {
		path := s.GetPath()
		if path == "" {
			path = "-"
		}
		t.row(s.GetProperty(), s.GetValue(), path, s.GetOrigin(), timeText(s.GetSetAt()))
	}
}
