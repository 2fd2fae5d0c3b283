package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// drainPoll is how often a node that is emptied is asked for.
const drainPoll = time.Second

// nodeState is the state of a node in one word.
func nodeState(n *freshetv1.Node) string {
	if n.GetRole() == string(freshet.RoleDraining) {
		return n.GetState() + ", draining"
	}
	return n.GetState()
}

// heardText is how long ago a node was heard; of one that was let go nobody knows.
func heardText(n *freshetv1.Node) string {
	if n.GetState() == string(freshet.RoleDecommissioned) {
		return "-"
	}
	return ageText(n.GetSinceHeartbeat())
}

// directoriesTable shows the directories that do not serve.
func directoriesTable(t *table, nodes []*freshetv1.Node) {
	first := true
	for _, n := range nodes {
		for _, d := range n.GetDirectories() {
			if d.GetState() == "serving" {
				continue
			}
			if first {
				t.line("")
				t.row("NODE", "DIRECTORY", "TIER", "STATE", "WHY")
				first = false
			}
			t.row(n.GetName(), dash(d.GetPath()), d.GetTier(), d.GetState(), dash(d.GetReason()))
		}
	}
}

func (a *app) clusterDrain() *cobra.Command {
	var req freshetv1.DrainNodeRequest
	var wait bool
	c := &cobra.Command{
		Use: "drain NODE", Short: "Empty a cache node before it goes, by name or ID", Args: cobra.ExactArgs(1),
		Long: "A node that drains takes no new blocks and no uploads. What only it holds of pinned paths, and of paths\n" +
			"with a replication_min, is copied to other nodes first; all else is read from it as long as it is there,\n" +
			"and from the storage afterwards. When it is drained, let it go with 'freshet cluster decommission', then stop it:\n" +
			"one that does not answer is never drained, since nobody knows what only it holds.",
		Example: "  freshet cluster drain n3 --dry-run       # what would have to be copied?\n" +
			"  freshet cluster drain n3 --wait          # until it is drained\n" +
			"  freshet cluster drain n3 --undo          # let it serve as before",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node = args[0]
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				r, err := s.fleet.DrainNode(ctx, &req)
				if err != nil {
					return err
				}
				d := r.GetDrain()
				if !req.GetDryRun() && !req.GetUndo() && wait {
					if d, err = a.followDrain(ctx, s, d); err != nil {
						return err
					}
				}
				what := "%s is " + d.GetState()
				if req.GetDryRun() {
					what = "%s would be " + d.GetState()
				}
				a.note(what, d.GetName())
				return a.printDrain(d)
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&wait, "wait", false, "wait until the node is drained, or for --timeout if that is given")
	f.BoolVar(&req.Undo, "undo", false, "let the node serve as before; also one that was decommissioned")
	f.BoolVar(&req.DryRun, "dry-run", false, "check everything, change nothing")
	c.MarkFlagsMutuallyExclusive("wait", "undo")
	c.MarkFlagsMutuallyExclusive("wait", "dry-run")
	return c
}

// followDrain waits until a node is drained.
func (a *app) followDrain(ctx context.Context, s *session, d *freshetv1.NodeDrain) (*freshetv1.NodeDrain, error) {
	told := ""
	for d.GetState() == "draining" {
		if now := strings.Join(d.GetWaitsFor(), ", "); now != told {
			a.note("%s: %s", d.GetName(), now)
			told = now
		}
		select {
		case <-time.After(drainPoll):
		case <-ctx.Done():
			return nil, a.drainGoesOn(ctx, d)
		}
		r, err := s.fleet.GetDrain(ctx, &freshetv1.GetDrainRequest{Node: d.GetId()})
		switch {
		case ctx.Err() != nil:
			return nil, a.drainGoesOn(ctx, d)
		case freshet.IsKind(rpc.ErrorOf(err), freshet.KindUnavailable, freshet.KindNotLeader):
			continue // an election; the next leader goes on
		case err != nil:
			return nil, err
		}
		d = r.GetDrain()
	}
	if d.GetState() != "drained" {
		return nil, freshet.Errorf(freshet.KindConflict, "drain node", "", "%s is %s: somebody decided otherwise", d.GetName(), d.GetState())
	}
	return d, nil
}

func (a *app) drainGoesOn(ctx context.Context, d *freshetv1.NodeDrain) error {
	return a.stoppedWaiting(ctx, "drain node", d.GetName()+" goes on draining, see `freshet cluster nodes`; --undo ends that")
}

func (a *app) clusterDecommission() *cobra.Command {
	var req freshetv1.DecommissionNodeRequest
	c := &cobra.Command{
		Use: "decommission NODE", Short: "Forget a drained cache node, and refuse it from then on", Args: cobra.ExactArgs(1),
		Long: "The node is no longer listed as live and nobody is sent to it. If it comes back it is refused until\n" +
			"'freshet cluster drain NODE --undo'.",
		Example: "  freshet cluster decommission n3\n" +
			"  freshet cluster decommission n3 --force      # it is broken and can't be drained",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node = args[0]
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.fleet.DecommissionNode(ctx, &req)
				if err != nil {
					return err
				}
				a.changed(req.GetDryRun(), "decommissioned %s", r.GetDrain().GetName())
				return a.printDrain(r.GetDrain())
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&req.Force, "force", false, "also a node that is not drained: what only it holds is read from the storage again")
	f.BoolVar(&req.DryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) printDrain(d *freshetv1.NodeDrain) error {
	return a.print(d, func(t *table) {
		t.row("NODE", "STATE", "SINCE", "BLOCKS", "USED", "LEFT", "UPLOADS", "WAITS FOR")
		t.row(d.GetName(), d.GetState(), timeText(d.GetSince()), d.GetBlocks(), bytesText(d.GetUsedBytes()),
			fmt.Sprintf("%s, %s", countText(d.GetLeftBlocks(), "block", "blocks"), bytesText(d.GetLeftBytes())),
			d.GetUploads(), dash(strings.Join(d.GetWaitsFor(), ", ")))
	})
}
