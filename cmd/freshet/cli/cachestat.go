package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// cacheSum is what is cached of all files at or below some paths.
type cacheSum struct {
	Paths        []string `json:"paths"`
	Files        int64    `json:"files,string"`
	CachedFiles  int64    `json:"cachedFiles,string"` // of which all blocks are cached
	Blocks       int64    `json:"blocks,string"`
	CachedBlocks int64    `json:"cachedBlocks,string"`
	Bytes        int64    `json:"bytes,string"`
	CachedBytes  int64    `json:"cachedBytes,string"`
	CachedRatio  float64  `json:"cachedRatio"`
	PinnedBytes  int64    `json:"pinnedBytes,string"` // that are cached
	// Nodes have what each node holds; a block on several counts at each.
	Nodes []nodeSum `json:"nodes"`
}

type nodeSum struct {
	Node   string  `json:"node"`
	Tier   string  `json:"tier"`
	Blocks int64   `json:"blocks,string"`
	Bytes  int64   `json:"bytes,string"`
	Share  float64 `json:"share"` // of all bytes
}

func (c *cacheSum) add(f *freshetv1.CachedFile) {
	if f.GetType() != freshet.TypeFile.String() {
		return
	}
	c.Files++
	c.Blocks += f.GetBlocks()
	c.CachedBlocks += f.GetCachedBlocks()
	c.Bytes += f.GetLength()
	c.CachedBytes += f.GetCachedBytes()
	if f.GetCachedBlocks() == f.GetBlocks() {
		c.CachedFiles++
	}
	if f.GetPinned() {
		c.PinnedBytes += f.GetCachedBytes()
	}
	for _, n := range f.GetNodes() {
		i := slices.IndexFunc(c.Nodes, func(s nodeSum) bool { return s.Node == n.GetNode() })
		if i < 0 {
			i = len(c.Nodes)
			c.Nodes = append(c.Nodes, nodeSum{Node: n.GetNode(), Tier: n.GetTier()})
		}
		c.Nodes[i].Blocks += n.GetBlocks()
		c.Nodes[i].Bytes += n.GetBytes()
	}
}

func (c *cacheSum) finish() {
	c.CachedRatio = ratio(c.CachedBytes, c.Bytes)
	for i := range c.Nodes {
		c.Nodes[i].Share = ratio(c.Nodes[i].Bytes, c.Bytes)
	}
	slices.SortFunc(c.Nodes, func(a, b nodeSum) int { return cmp.Compare(a.Node, b.Node) })
}

// ratio is 1 of nothing: all of it is there.
func ratio(part, whole int64) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

func percent(r float64) string {
	if r > 0.999 && r < 1 {
		return "99.9 %" // not all
	}
	return fmt.Sprintf("%.1f %%", 100*r)
}

// inspect calls each for all files at or below the path.
func inspect(ctx context.Context, s *session, req *freshetv1.InspectCacheRequest, each func(f *freshetv1.CachedFile)) error {
	for {
		r, err := s.cache.InspectCache(ctx, req)
		if err != nil {
			return err
		}
		for _, f := range r.GetFiles() {
			each(f)
		}
		if r.GetNextPageToken() == "" {
			return nil
		}
		req.PageToken = r.GetNextPageToken()
	}
}

// sum adds up what is cached below paths.
func (a *app) sum(ctx context.Context, s *session, paths []string, f *filterFlags) (*cacheSum, error) {
	filter, err := f.filter()
	if err != nil {
		return nil, err
	}
	out := &cacheSum{Paths: paths, Nodes: []nodeSum{}}
	defer a.endProgress()
	for _, p := range paths {
		if err := inspect(ctx, s, &freshetv1.InspectCacheRequest{Path: p, Recursive: true, Filter: filter, Place: f.place()}, func(f *freshetv1.CachedFile) {
			if out.add(f); out.Files%1000 == 0 {
				a.progress("%d files, %s of %s cached", out.Files, bytesText(out.CachedBytes), bytesText(out.Bytes))
			}
		}); err != nil {
			return nil, err
		}
	}
	out.finish()
	return out, nil
}

func (a *app) printSum(sum *cacheSum, location bool) error {
	return a.printValue(sum, func(t *table) {
		t.row("FILES", "WHOLLY CACHED", "BLOCKS", "CACHED", "BYTES", "CACHED", "SHARE", "PINNED")
		t.row(sum.Files, sum.CachedFiles, sum.Blocks, sum.CachedBlocks, bytesText(sum.Bytes), bytesText(sum.CachedBytes), percent(sum.CachedRatio), bytesText(sum.PinnedBytes))
		if location && len(sum.Nodes) > 0 {
			t.line("")
			t.row("NODE", "TIERS", "BLOCKS", "BYTES", "SHARE")
			for _, n := range sum.Nodes {
				t.row(n.Node, n.Tier, n.Blocks, bytesText(n.Bytes), percent(n.Share))
			}
		}
	})
}

func (a *app) cacheStat() *cobra.Command {
	var f filterFlags
	c := &cobra.Command{
		Use: "stat PATH…", Short: "Show how much of files and trees is cached, and on which nodes", Args: cobra.MinimumNArgs(1),
		Long: "stat adds up what the nodes hold of the versions that readers get. It brings nothing into the cache; directories\n" +
			"are listed as a reader would list them. A block that several nodes hold counts once in the sum, and at each node.",
		Example: "  freshet cache stat /sales\n  freshet cache stat /sales --include '*.parquet' -o json | jq .cachedRatio\n  freshet cache stat /sales --zone eu-west-1a",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				sum, err := a.sum(ctx, s, args, &f)
				if err != nil {
					return err
				}
				return a.printSum(sum, true)
			})
		},
	}
	f.register(c, true, true)
	return c
}

func (a *app) cacheList() *cobra.Command {
	var f filterFlags
	var recursive bool
	c := &cobra.Command{
		Use: "ls PATH", Short: "List files with what is cached of each, and on which nodes", Args: cobra.ExactArgs(1),
		Example: "  freshet cache ls /sales/2026\n  freshet cache ls /sales --recursive --min-size 1GiB",
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				all := &freshetv1.InspectCacheResponse{}
				req := &freshetv1.InspectCacheRequest{Path: args[0], Recursive: recursive, Filter: filter, Place: f.place()}
				if err := inspect(ctx, s, req, func(f *freshetv1.CachedFile) { all.Files = append(all.Files, f) }); err != nil {
					return err
				}
				return a.print(all, func(t *table) { cachedTable(t, all.GetFiles()) })
			})
		},
	}
	f.register(c, true, true)
	c.Flags().BoolVar(&recursive, "recursive", false, "all files below the directory")
	return c
}

func cachedTable(t *table, files []*freshetv1.CachedFile) {
	t.row("CACHED", "BYTES", "BLOCKS", "PINNED", "NODES", "PATH")
	for _, f := range files {
		if f.GetType() != freshet.TypeFile.String() {
			t.row("-", "-", "-", "-", "-", f.GetPath()+"/")
			continue
		}
		var nodes []string
		for _, n := range f.GetNodes() {
			nodes = append(nodes, fmt.Sprintf("%s (%s) %d", n.GetNode(), n.GetTier(), n.GetBlocks()))
		}
		t.row(percent(ratio(f.GetCachedBytes(), f.GetLength())), bytesText(f.GetLength()), fmt.Sprintf("%d/%d", f.GetCachedBlocks(), f.GetBlocks()),
			yesNo(f.GetPinned()), dash(strings.Join(nodes, ", ")), f.GetPath())
	}
}
