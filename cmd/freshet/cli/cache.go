package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) cacheCommand() *cobra.Command {
	return group("cache", "Bring files into the cache, free them, keep them there, and show what is cached where",
		"  freshet cache warm /sales/2026 --include '*.parquet'\n"+
			"  freshet cache stat /sales           # how much of it is cached, and on which nodes\n"+
			"  freshet cache free /sales/2025 --recursive\n"+
			"  freshet cache pin /sales/hot",
		a.cacheWarm(), a.cacheStatus(), a.cacheCancel(), a.cacheList(), a.cacheStat(), a.cacheFree(), a.cachePin(), a.cacheUnpin(), a.cacheTTL(), a.cacheReplicas())
}

// filterFlags select files.
type filterFlags struct {
	include, exclude []string
	newer            string
	minSize, maxSize string
	firstBytes       string
	node, host       string
	rack, zone       string
}

// register adds the flags; part those that select a part of each file, place those that
// select nodes.
func (f *filterFlags) register(c *cobra.Command, part, place bool) {
	fl := c.Flags()
	fl.StringArrayVar(&f.include, "include", nil, "only files that match, such as *.parquet (names) or 2026/** (paths below PATH); may be given again")
	fl.StringArrayVar(&f.exclude, "exclude", nil, "no files that match; may be given again, and goes before --include")
	fl.StringVar(&f.newer, "newer-than", "", "only files modified since: a duration (24h), a day (2026-11-01) or a time (RFC 3339)")
	fl.StringVar(&f.minSize, "min-size", "", "only files of that size at least, such as 1MiB")
	fl.StringVar(&f.maxSize, "max-size", "", "only files of that size at most")
	if part {
		fl.StringVar(&f.firstBytes, "first-bytes", "", "only the blocks that hold the first bytes of each file, such as 1MiB")
	}
	if place {
		fl.StringVar(&f.node, "node", "", "only this cache node, by name or ID")
		fl.StringVar(&f.host, "host", "", "only cache nodes on this host")
		fl.StringVar(&f.rack, "rack", "", "only cache nodes in this rack")
		fl.StringVar(&f.zone, "zone", "", "only cache nodes in this zone")
	}
}

func (f *filterFlags) filter() (*freshetv1.CacheFilter, error) {
	out := &freshetv1.CacheFilter{Include: f.include, Exclude: f.exclude}
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{{"--min-size", f.minSize, &out.MinSize}, {"--max-size", f.maxSize, &out.MaxSize}, {"--first-bytes", f.firstBytes, &out.FirstBytes}} {
		if s.text == "" {
			continue
		}
		n, err := freshet.ParseSize(s.text)
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "read flags", "", "%s: %w", s.flag, err)
		}
		*s.to = n
	}
	if f.newer != "" {
		at, err := parseSince(f.newer, time.Now())
		if err != nil {
			return nil, err
		}
		out.NewerThan = timestamppb.New(at)
	}
	check := freshet.CacheFilter{Include: out.GetInclude(), Exclude: out.GetExclude(), MinSize: out.GetMinSize(), MaxSize: out.GetMaxSize()}
	return out, check.Check()
}

func (f *filterFlags) place() *freshetv1.CachePlace {
	return &freshetv1.CachePlace{Node: f.node, Host: f.host, Rack: f.rack, Zone: f.zone}
}

// parseSince reads a moment: an age, a day or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, freshet.Errorf(freshet.KindInvalid, "read flags", "", "--newer-than %q is neither a duration such as 24h, nor a day such as 2026-11-01, nor a time such as 2026-11-01T12:00:00Z", text)
}

func (a *app) cacheFree() *cobra.Command {
	var f filterFlags
	var recursive, dryRun bool
	c := &cobra.Command{
		Use: "free PATH…", Short: "Drop the cached blocks of files from all nodes; the files themselves stay", Args: cobra.MinimumNArgs(1),
		Long: "free has all cache nodes drop the blocks of files. Nothing in the storage is touched, what is known of the\n" +
			"files stays, and the next read fetches them again. What is pinned is refused: a file by an error, files\n" +
			"below a directory by exit code 8, with the others freed.",
		Example: "  freshet cache free /sales/2025/a.parquet\n  freshet cache free /sales/2025 --recursive\n  freshet cache free /logs --recursive --exclude '*.idx' --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			return a.eachWithin(a.withUnbounded, cmd, args, func(ctx context.Context, s *session, arg string) error {
				return a.free(ctx, s, &freshetv1.FreeCacheRequest{Path: arg, Recursive: recursive, Filter: filter, DryRun: dryRun})
			})
		},
	}
	f.register(c, false, false)
	c.Flags().BoolVar(&recursive, "recursive", false, "everything below a directory")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be freed, change nothing")
	return c
}

func (a *app) free(ctx context.Context, s *session, req *freshetv1.FreeCacheRequest) error {
	r, err := s.cache.FreeCache(ctx, req)
	if err != nil {
		return err
	}
	a.changed(req.GetDryRun(), "freed %s in %s of %s below or at %s", bytesText(r.GetBytes()), countText(r.GetCopies(), "block", "blocks"),
		countText(r.GetFiles(), "file", "files"), safe(req.GetPath()))
	if err := a.print(r, func(t *table) {
		t.row("FILES", "BLOCKS", "BYTES", "PENDING", "REFUSED")
		t.row(r.GetFiles(), r.GetCopies(), bytesText(r.GetBytes()), r.GetPending(), r.GetRefused())
	}); err != nil {
		return err
	}
	for _, f := range r.GetRefusals() {
		a.note("%s: %s", safe(f.GetPath()), f.GetError())
	}
	if r.GetPending() > 0 {
		a.note("%s still to be dropped; the nodes go on", countText(r.GetPending(), "block is", "blocks are"))
	}
	if r.GetRefused() > 0 {
		return &exitError{code: freshet.ExitPartly, err: fmt.Errorf("%s kept", countText(r.GetRefused(), "file was", "files were"))}
	}
	return nil
}

// setProperties sets properties of a path, as `freshet policy set` does.
func (a *app) setProperties(cmd *cobra.Command, path string, set []freshet.Setting, dryRun bool, said string) error {
	props, err := rpc.PropertiesToWire(set)
	if err != nil {
		return err
	}
	return a.with(cmd, func(ctx context.Context, s *session) error {
		r, err := s.policies.UpdatePolicy(ctx, &freshetv1.UpdatePolicyRequest{Path: path, Properties: props, DryRun: dryRun, OpId: rpc.NewOpID()})
		if err != nil {
			return err
		}
		a.changed(dryRun, "%s", said)
		return a.print(r.GetPolicy(), func(t *table) { settingsTable(t, r.GetPolicy().GetSettings()) })
	})
}

func (a *app) cachePin() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "pin PATH", Short: "Keep what is cached of a path and what lies below it from being evicted", Args: cobra.ExactArgs(1),
		Long:    "pin sets the property pinned of a path, as `freshet policy set --pinned` does. It brings nothing into the cache:\n`freshet cache warm` does.",
		Example: "  freshet cache pin /sales/hot\n  freshet cache warm /sales/hot",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setProperties(cmd, args[0], []freshet.Setting{{Property: freshet.PropertyPinned, Value: "true"}}, dryRun, "pinned "+safe(args[0]))
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) cacheUnpin() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "unpin PATH", Short: "Let what is cached of a path be evicted again", Args: cobra.ExactArgs(1),
		Long: "unpin takes back a pin that is set for exactly that path. Where one is inherited from a path above, it sets\n" +
			"pinned to false for this path and what lies below it. What is not pinned stays as it is.",
		Example: "  freshet cache unpin /sales/hot",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				p, err := a.unpin(ctx, s, args[0], dryRun)
				if err != nil {
					return err
				}
				return a.print(p, func(t *table) { settingsTable(t, p.GetSettings()) })
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

// unpin returns what is set at the path afterwards.
func (a *app) unpin(ctx context.Context, s *session, path string, dryRun bool) (*freshetv1.Policy, error) {
	p, err := freshet.ParsePath(path)
	if err != nil {
		return nil, err
	}
	path = string(p)
	r, err := s.policies.ListPolicies(ctx, &freshetv1.ListPoliciesRequest{Path: path})
	if err != nil {
		return nil, err
	}
	here, above := pinsOf(r, path)
	out := &freshetv1.Policy{Path: path}
	if here == "true" {
		d, err := s.policies.DeletePolicy(ctx, &freshetv1.DeletePolicyRequest{Path: path, Properties: []string{string(freshet.PropertyPinned)}, DryRun: dryRun, OpId: rpc.NewOpID()})
		if err != nil {
			return nil, err
		}
		if out = d.GetPolicy(); out.GetPath() == "" {
			out.Path = path
		}
	}
	switch {
	case above == "true" && here != "false":
		props, err := rpc.PropertiesToWire([]freshet.Setting{{Property: freshet.PropertyPinned, Value: "false"}})
		if err != nil {
			return nil, err
		}
		u, err := s.policies.UpdatePolicy(ctx, &freshetv1.UpdatePolicyRequest{Path: path, Properties: props, DryRun: dryRun, OpId: rpc.NewOpID()})
		if err != nil {
			return nil, err
		}
		a.changed(dryRun, "unpinned %s, which a path above it pins", safe(path))
		return u.GetPolicy(), nil
	case here == "true":
		a.changed(dryRun, "unpinned %s", safe(path))
	default:
		a.note("%s is not pinned; nothing to do", safe(path))
	}
	return out, nil
}

// pinsOf returns what is set of pinned at the path, and by the nearest one above it.
func pinsOf(r *freshetv1.ListPoliciesResponse, path string) (here, above string) {
	for _, p := range r.GetPolicies() { // the outermost first
		for _, s := range p.GetSettings() {
			switch {
			case s.GetProperty() != string(freshet.PropertyPinned):
			case p.GetPath() == path:
				here = s.GetValue()
			default:
				above = s.GetValue()
			}
		}
	}
	return here, above
}

func (a *app) cacheTTL() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "ttl PATH DURATION", Short: "Drop from the cache what nobody used for a time", Args: cobra.ExactArgs(2),
		Long:    "ttl sets the property ttl of a path and what lies below it, as `freshet policy set --ttl` does: a duration of a\nsecond or more, or never.",
		Example: "  freshet cache ttl /logs 24h\n  freshet cache ttl /logs never",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setProperties(cmd, args[0], []freshet.Setting{{Property: freshet.PropertyTTL, Value: args[1]}}, dryRun, fmt.Sprintf("set the ttl of %s to %s", safe(args[0]), safe(args[1])))
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) cacheReplicas() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "replicas PATH MIN[:MAX]", Short: "Bound the live copies of the cached blocks of a path", Args: cobra.ExactArgs(2),
		Long: "replicas sets the properties replication_min and replication_max of a path and what lies below it, as\n" +
			"`freshet policy set` does. MIN 0 forces nothing, MAX 0, or none, is no limit.",
		Example: "  freshet cache replicas /models 3       # at least three nodes hold each cached block\n" +
			"  freshet cache replicas /models 2:4\n  freshet cache replicas /logs 0:1",
		RunE: func(cmd *cobra.Command, args []string) error {
			least, most, both := strings.Cut(args[1], ":")
			if !both {
				most = "0"
			}
			return a.setProperties(cmd, args[0], []freshet.Setting{
				{Property: freshet.PropertyReplicationMin, Value: least}, {Property: freshet.PropertyReplicationMax, Value: most},
			}, dryRun, "bounded the copies of "+safe(args[0]))
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}
