package coordinator

import (
	"context"
	"fmt"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/audit"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Check compares cache and storage at and below a path in both directions, see
// audit.Auditor. A repair marks and looks, as an operator's sync does: nothing in
// the storage is touched and nothing is published.
func (c *Coordinator) Check(ctx context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	if err := c.prepare(ctx, q.Path, freshet.ReadOptions{}); err != nil {
		return err
	}
	return c.whileLeading(ctx, "check", q.Path, func(ctx context.Context) error {
		if err := c.awaitReports(ctx); err != nil { // blocks are looked at too
			return err
		}
		return audit.New(c.auditDeps(), audit.Options{Clock: c.clock}).Check(ctx, q, report)
	})
}

func (c *Coordinator) auditDeps() audit.Deps {
	return audit.Deps{
		Sync: c.sync, Rule: c.ruleOf(nil), Barrier: c.barrier, Busy: c.busy, Coming: c.coming,
		Mark: func(ctx context.Context, p freshet.Path) error {
			_, err := c.Invalidate(ctx, namespace.Command{Mark: &namespace.Mark{Path: p}})
			return err
		},
		Blocks: func(f freshet.FileID) []freshet.ExplainedBlock { return c.nodes.Blocks(f, c.clock.Elapsed()) },
		Damage: func(f freshet.FileID) freshet.Damage { return c.nodes.Damage(f, c.clock.Elapsed()) },
		Evict:  c.nodes.Evict,
	}
}

// busy reports whether an operation that has not ended may change p or what lies
// below it; one below it may make the directories that lead to it.
func (c *Coordinator) busy(p freshet.Path) bool {
	for _, in := range c.state.Intents() {
		for _, q := range []freshet.Path{in.Path, in.Path2} {
			if q != "" && (q.Contains(p) || p.Contains(q)) {
				return true
			}
		}
	}
	return false
}

// coming says which news of other clusters is known to be on its way to a mount,
// "" if none is.
func (c *Coordinator) coming(m *freshet.Mount) string {
	for _, p := range c.publishers(&namespace.Lookup{HasMount: true, Mount: *m}) {
		if p.Head > p.Applied {
			return fmt.Sprintf("%d changes that %s published are still to be applied here", p.Head-p.Applied, p.Cluster)
		}
	}
	return ""
}
