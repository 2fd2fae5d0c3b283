package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/version"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Look after a cluster: members, nodes, Raft, epoch",
		"  freshet cluster status\n  freshet cluster nodes\n  freshet cluster drain n3 --wait\n  freshet cluster raft list-peers",
		a.clusterStatus(), a.clusterNodes(), a.clusterDrain(), a.clusterDecommission(), a.clusterRaft(), a.clusterSnapshot(), a.clusterStateHash(), a.clusterBumpEpoch())
}

func (a *app) clusterStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show members, leader and health; exits with 7 if something is wrong", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
				if err != nil {
					return err
				}
				if err := a.print(r, func(t *table) { clusterTable(t, r) }); err != nil {
					return err
				}
				if !r.GetHealthy() {
					return &exitError{code: freshet.ExitUnhealthy}
				}
				return nil
			})
		},
	}
}

func clusterTable(t *table, r *freshetv1.GetClusterResponse) {
	state := "healthy"
	if !r.GetHealthy() {
		state = "UNHEALTHY"
	}
	t.row("cluster", fmt.Sprintf("%s (%s), epoch %d, %s", r.GetName(), r.GetId(), r.GetEpoch(), state))
	for _, p := range r.GetProblems() {
		t.row("problem", p)
	}
	t.row("raft", fmt.Sprintf("leader %s, term %d, applied index %d", dash(r.GetLeader()), r.GetTerm(), r.GetAppliedIndex()))
	t.row("namespace", countText(r.GetEntries(), "entry", "entries")+", "+countText(r.GetMounts(), "mount", "mounts"))
	t.row("operations", fmt.Sprintf("%d unfinished, %d of them in quarantine", r.GetIntents(), r.GetQuarantined()))
	t.row("cache nodes", fmt.Sprintf("%d live, %d dead", r.GetLiveNodes(), r.GetDeadNodes()))
	t.row("version", fmt.Sprintf("%s, version %d of the state is in force", r.GetVersion(), r.GetStateVersion()))
	if len(r.GetQuarantinedOperations()) > 0 {
		t.line("")
		operationsTable(t, r.GetQuarantinedOperations())
	}
	t.line("")
	membersTable(t, r.GetMembers())
}

func membersTable(t *table, members []*freshetv1.Member) {
	t.row("MEMBER", "ROLE", "VOTER", "CLIENTS", "HTTP", "RAFT", "BUS")
	for _, m := range members {
		role := "follower"
		if m.GetLeader() {
			role = "leader"
		}
		name := m.GetName()
		if name == "" {
			name = m.GetId()
		}
		t.row(name, role, yesNo(m.GetVoter()), dash(m.GetGrpc()), dash(m.GetHttp()), dash(m.GetRaft()), dash(m.GetBus()))
	}
}

func (a *app) clusterNodes() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the cache nodes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.ListNodes(ctx, &freshetv1.ListNodesRequest{})
				if err != nil {
					return err
				}
				return a.print(r, func(t *table) {
					t.row("NODE", "STATE", "TIER", "USED", "CAPACITY", "BLOCKS", "GRPC", "HTTP", "LAST HEARD")
					for _, n := range r.GetNodes() {
						t.row(n.GetName(), nodeState(n), dash(n.GetTier()), bytesText(n.GetUsedBytes()), bytesText(n.GetCapacityBytes()),
							n.GetBlocks(), n.GetGrpc(), dash(n.GetHttp()), heardText(n))
					}
					directoriesTable(t, r.GetNodes())
				})
			})
		},
	}
}

func (a *app) clusterRaft() *cobra.Command {
	return group("raft", "Look after the group of coordinators",
		"  freshet cluster raft list-peers\n  freshet cluster raft transfer-leader c2\n  freshet cluster raft remove c3",
		a.raftList(), a.raftAdd(), a.raftRemove(), a.raftTransfer())
}

func (a *app) raftList() *cobra.Command {
	return &cobra.Command{
		Use: "list-peers", Short: "List the coordinators", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
				if err != nil {
					return err
				}
				only := &freshetv1.GetClusterResponse{Name: r.GetName(), Id: r.GetId(), Leader: r.GetLeader(), Term: r.GetTerm(), Members: r.GetMembers(), Raft: r.GetRaft()}
				return a.print(only, func(t *table) { membersTable(t, r.GetMembers()) })
			})
		},
	}
}

func (a *app) raftAdd() *cobra.Command {
	var m freshetv1.Member
	var cluster string
	c := &cobra.Command{
		Use: "add ID", Short: "Add a coordinator; a starting one adds itself through raft.join", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m.Id, m.Name = args[0], args[0]
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.JoinRaft(ctx, &freshetv1.JoinRaftRequest{Member: &m, Cluster: cluster})
				if err != nil {
					return err
				}
				a.note("added %s", args[0])
				return a.print(r, func(t *table) { t.row("cluster", r.GetClusterId(), "epoch", r.GetEpoch()) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&m.Raft, "raft", "", "Raft address, host:port")
	f.StringVar(&m.Grpc, "client", "", "client address, host:port")
	f.StringVar(&m.Http, "http", "", "REST address, host:port")
	f.StringVar(&m.Bus, "bus", "", "cluster-to-cluster address, host:port")
	f.StringVar(&cluster, "cluster", "", "name of the cluster, as a safeguard")
	_ = c.MarkFlagRequired("raft") // fails only for a flag that is not there
	return c
}

func (a *app) raftRemove() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "remove MEMBER", Short: "Remove a coordinator, by name or ID", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if _, err := s.cluster.RemoveRaft(ctx, &freshetv1.RemoveRaftRequest{Member: args[0], DryRun: dryRun}); err != nil {
					return err
				}
				a.changed(dryRun, "removed %s", args[0])
				return nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) raftTransfer() *cobra.Command {
	return &cobra.Command{
		Use: "transfer-leader [MEMBER]", Short: "Hand the leadership to another member", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := strings.Join(args, "")
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.TransferLeadership(ctx, &freshetv1.TransferLeadershipRequest{Member: to})
				if err != nil {
					return err
				}
				if r.GetLeader() == "" {
					a.note("handed over; who leads now is not known yet: see `freshet cluster status`")
				}
				return a.print(r, func(t *table) { t.row("leader", dash(r.GetLeader())) })
			})
		},
	}
}

func (a *app) clusterBumpEpoch() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "bump-epoch", Short: "Start a new epoch: due after a restore or any loss of acknowledged log entries", Args: cobra.NoArgs,
		Long: "A new epoch makes every other cluster check all that it has cached of the shared storages.\n" +
			"It is due after a restore from a backup, after manual changes of the Raft log, or when another\n" +
			"cluster refuses this one because its epoch went back.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.BumpEpoch(ctx, &freshetv1.BumpEpochRequest{DryRun: dryRun, OpId: rpc.NewOpID()})
				if err != nil {
					return err
				}
				a.changed(dryRun, "started epoch %d", r.GetEpoch())
				return a.print(r, func(t *table) { t.row("epoch", r.GetEpoch()) })
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) peersCommand() *cobra.Command {
	return group("peers", "Other clusters on the bus",
		"  freshet peers ls\n  freshet peers join gossip.us-east.example:7402\n  freshet peers leave us-east",
		a.peersList(), a.peersStatus(), a.peersJoin(), a.peersLeave())
}

func (a *app) peers(cmd *cobra.Command, f func(r *freshetv1.ListPeersResponse) error) error {
	return a.with(cmd, func(ctx context.Context, s *session) error {
		r, err := s.cluster.ListPeers(ctx, &freshetv1.ListPeersRequest{})
		if err != nil {
			return err
		}
		return f(r)
	})
}

func (a *app) peersList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the other clusters", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.peers(cmd, func(r *freshetv1.ListPeersResponse) error {
				return a.print(r, func(t *table) {
					t.row("CLUSTER", "STATE", "EPOCH", "LAST CONTACT", "GOSSIP MEMBERS", "ADDRESSES", "REASON")
					for _, p := range r.GetPeers() {
						t.row(p.GetName(), p.GetState(), p.GetEpoch(), ageText(p.GetSinceContact()), p.GetGossipMembers(),
							dash(strings.Join(p.GetAddresses(), ",")), dash(p.GetReason()))
					}
				})
			})
		},
	}
}

func (a *app) peersStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status [CLUSTER]", Short: "Show positions, lag and resets per domain; exits with 7 if a peer is not in order", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.peers(cmd, func(r *freshetv1.ListPeersResponse) error {
				if len(args) == 1 {
					r.Peers = slices.DeleteFunc(r.GetPeers(), func(p *freshetv1.Peer) bool { return p.GetName() != args[0] && p.GetId() != args[0] })
					if len(r.GetPeers()) == 0 {
						return freshet.Errorf(freshet.KindNotExist, "peers status", "", "no cluster %q on the bus; see 'freshet peers ls'", args[0])
					}
				}
				if err := a.print(r, func(t *table) { peersTable(t, r.GetPeers()) }); err != nil {
					return err
				}
				for _, p := range r.GetPeers() {
					if p.GetState() == "degraded" {
						return &exitError{code: freshet.ExitUnhealthy}
					}
				}
				return nil
			})
		},
	}
}

func peersTable(t *table, peers []*freshetv1.Peer) {
	t.row("CLUSTER", "STATE", "DOMAIN", "POSITION", "APPLIED", "HEAD", "LAG", "LAST CONTACT", "LAST RESET", "REASON")
	for _, p := range peers {
		if len(p.GetDomains()) == 0 {
			t.row(p.GetName(), p.GetState(), "-", "-", "-", "-", "-", ageText(p.GetSinceContact()), "-", dash(p.GetReason()))
		}
		for _, d := range p.GetDomains() {
			pos := d.GetPosition()
			lag := max(pos.GetHead(), pos.GetApplied()) - pos.GetApplied()
			t.row(p.GetName(), p.GetState(), d.GetDomain(), pos.GetState(), pos.GetApplied(), pos.GetHead(), lag,
				ageText(pos.GetSinceContact()), timeText(d.GetLastReset()), dash(d.GetLastResetReason()))
		}
	}
}

func (a *app) peersJoin() *cobra.Command {
	return &cobra.Command{
		Use: "join ADDRESS…", Short: "Join the gossip pool at one or more addresses of other clusters", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.cluster.JoinPeers(ctx, &freshetv1.JoinPeersRequest{Addresses: args})
				if err != nil {
					return err
				}
				return a.print(r, func(t *table) { t.row("joined", r.GetJoined()) })
			})
		},
	}
}

func (a *app) peersLeave() *cobra.Command {
	return &cobra.Command{
		Use: "leave CLUSTER", Aliases: []string{"forget"}, Short: "Forget a cluster that is gone for good; what it may have changed is checked again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				_, err := s.cluster.LeavePeers(ctx, &freshetv1.LeavePeersRequest{Cluster: args[0]})
				if err == nil {
					a.note("forgot %s", args[0])
				}
				return err
			})
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version and the wire protocols it speaks", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info := version.Get()
			return a.printValue(info, func(t *table) { t.line(info.String()) })
		},
	}
}

// errPartly is what a command over many items returns when some failed.
func errPartly(failed, total int, first error) error {
	return &exitError{code: freshet.ExitPartly, err: errors.Join(fmt.Errorf("%d of %d failed", failed, total), first)}
}
