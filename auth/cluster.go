package auth

import (
	"context"
	"io"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// settings checks who asks for settings of a path, or of all paths if p is "".
func (g *Guard) settings(ctx context.Context, op string, p freshet.Path) error {
	if p == "" {
		_, err := g.who(ctx)
		return err
	}
	return g.use(ctx, op, p, freshet.ReadOptions{}, nothing, nothing)
}

// Mounts implements rpc.Mounts.
func (g *Guard) Mounts(ctx context.Context, p freshet.Path) ([]freshet.MountAnswer, uint64, error) {
	if _, err := g.who(ctx); err != nil {
		return nil, 0, err
	}
	return g.region.Mounts(ctx, p)
}

// AddMount implements rpc.Mounts.
func (g *Guard) AddMount(ctx context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	if err := g.super(ctx, "mount add", c.Path); err != nil {
		return freshet.MountAnswer{}, err
	}
	return g.region.AddMount(ctx, c)
}

// UpdateMount implements rpc.Mounts.
func (g *Guard) UpdateMount(ctx context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	if err := g.super(ctx, "mount update", c.Path); err != nil {
		return freshet.MountAnswer{}, err
	}
	return g.region.UpdateMount(ctx, c)
}

// RemoveMount implements rpc.Mounts.
func (g *Guard) RemoveMount(ctx context.Context, p freshet.Path, opts freshet.RemoveMountOptions) (freshet.MountAnswer, error) {
	if err := g.super(ctx, "mount remove", p); err != nil {
		return freshet.MountAnswer{}, err
	}
	return g.region.RemoveMount(ctx, p, opts)
}

// Policies implements rpc.Policies.
func (g *Guard) Policies(ctx context.Context, p freshet.Path) ([]freshet.SyncPolicy, error) {
	if err := g.settings(ctx, "show policies", p); err != nil {
		return nil, err
	}
	return g.region.Policies(ctx, p)
}

// SetPolicy implements rpc.Policies.
func (g *Guard) SetPolicy(ctx context.Context, policy freshet.SyncPolicy, dryRun bool) (freshet.SyncPolicy, error) {
	if err := g.super(ctx, "set policy", policy.Path); err != nil {
		return freshet.SyncPolicy{}, err
	}
	return g.region.SetPolicy(ctx, policy, dryRun)
}

// RemovePolicy implements rpc.Policies.
func (g *Guard) RemovePolicy(ctx context.Context, p freshet.Path, dryRun bool) (freshet.SyncPolicy, error) {
	if err := g.super(ctx, "remove policy", p); err != nil {
		return freshet.SyncPolicy{}, err
	}
	return g.region.RemovePolicy(ctx, p, dryRun)
}

// PathPolicies implements rpc.Policies.
func (g *Guard) PathPolicies(ctx context.Context, p freshet.Path) (freshet.PolicyReport, error) {
	if err := g.settings(ctx, "show policies", p); err != nil {
		return freshet.PolicyReport{}, err
	}
	return g.region.PathPolicies(ctx, p)
}

// ChangePolicy implements rpc.Policies.
func (g *Guard) ChangePolicy(ctx context.Context, c freshet.PolicyChange) (freshet.Policy, error) {
	if err := g.super(ctx, "set policy", c.Path); err != nil {
		return freshet.Policy{}, err
	}
	return g.region.ChangePolicy(ctx, c)
}

// Quotas implements rpc.Quotas.
func (g *Guard) Quotas(ctx context.Context, p freshet.Path) ([]freshet.Quota, error) {
	if err := g.settings(ctx, "show quotas", p); err != nil {
		return nil, err
	}
	return g.region.Quotas(ctx, p)
}

// SetQuota implements rpc.Quotas.
func (g *Guard) SetQuota(ctx context.Context, c freshet.QuotaChange) (freshet.Quota, error) {
	if err := g.super(ctx, "set quota", c.Path); err != nil {
		return freshet.Quota{}, err
	}
	return g.region.SetQuota(ctx, c)
}

// RemoveQuota implements rpc.Quotas.
func (g *Guard) RemoveQuota(ctx context.Context, r freshet.QuotaRemoval) (freshet.Quota, error) {
	if err := g.super(ctx, "remove quota", r.Path); err != nil {
		return freshet.Quota{}, err
	}
	return g.region.RemoveQuota(ctx, r)
}

// Cluster implements rpc.Cluster. Health checks and those who want to become members
// ask it, who are nobody's. Only the superuser sees the paths of operations.
func (g *Guard) Cluster(ctx context.Context) (freshet.ClusterStatus, error) {
	st, err := g.region.Cluster(ctx)
	if who, werr := g.who(ctx); werr != nil || !who.Super {
		st.QuarantinedOps = nil
	}
	return st, err
}

// Nodes implements rpc.Cluster, as Cluster.
func (g *Guard) Nodes(ctx context.Context) ([]freshet.NodeStatus, error) { return g.region.Nodes(ctx) }

// JoinRaft implements rpc.Cluster. It is a call between servers, as those of cache
// nodes are: with TLS it takes their certificate.
func (g *Guard) JoinRaft(ctx context.Context, m freshet.Member, cluster string) (freshet.ClusterID, uint64, error) {
	return g.region.JoinRaft(ctx, m, cluster)
}

// RemoveRaft implements rpc.Cluster.
func (g *Guard) RemoveRaft(ctx context.Context, member string, dryRun bool) error {
	if err := g.super(ctx, "remove member", ""); err != nil {
		return err
	}
	return g.region.RemoveRaft(ctx, member, dryRun)
}

// TransferLeadership implements rpc.Cluster.
func (g *Guard) TransferLeadership(ctx context.Context, member string) (string, error) {
	if err := g.super(ctx, "transfer leadership", ""); err != nil {
		return "", err
	}
	return g.region.TransferLeadership(ctx, member)
}

// BumpEpoch implements rpc.Cluster.
func (g *Guard) BumpEpoch(ctx context.Context, dryRun bool) (uint64, error) {
	if err := g.super(ctx, "bump epoch", ""); err != nil {
		return 0, err
	}
	return g.region.BumpEpoch(ctx, dryRun)
}

// DrainNode implements rpc.Fleet.
func (g *Guard) DrainNode(ctx context.Context, q freshet.DrainChange) (freshet.NodeDrain, error) {
	if err := g.super(ctx, "drain node", ""); err != nil {
		return freshet.NodeDrain{}, err
	}
	return g.region.DrainNode(ctx, q)
}

// Drain implements rpc.Fleet.
func (g *Guard) Drain(ctx context.Context, node string) (freshet.NodeDrain, error) {
	if err := g.super(ctx, "show drain", ""); err != nil {
		return freshet.NodeDrain{}, err
	}
	return g.region.Drain(ctx, node)
}

// DecommissionNode implements rpc.Fleet.
func (g *Guard) DecommissionNode(ctx context.Context, q freshet.Decommission) (freshet.NodeDrain, error) {
	if err := g.super(ctx, "decommission node", ""); err != nil {
		return freshet.NodeDrain{}, err
	}
	return g.region.DecommissionNode(ctx, q)
}

// StartSync implements rpc.Syncs.
func (g *Guard) StartSync(ctx context.Context, q freshet.SyncQuery) (freshet.SyncJob, error) {
	if err := g.super(ctx, "start sync", q.Path); err != nil {
		return freshet.SyncJob{}, err
	}
	return g.region.StartSync(ctx, q)
}

// SyncJobs implements rpc.Syncs.
func (g *Guard) SyncJobs(ctx context.Context, id uint64, p freshet.Path) ([]freshet.SyncJob, error) {
	if err := g.super(ctx, "list syncs", p); err != nil {
		return nil, err
	}
	return g.region.SyncJobs(ctx, id, p)
}

// CancelSync implements rpc.Syncs.
func (g *Guard) CancelSync(ctx context.Context, id uint64) (freshet.SyncJob, error) {
	if err := g.super(ctx, "cancel sync", ""); err != nil {
		return freshet.SyncJob{}, err
	}
	return g.region.CancelSync(ctx, id)
}

// Persist implements rpc.Persister.
func (g *Guard) Persist(ctx context.Context, q freshet.PersistQuery) (freshet.Unpersisted, error) {
	if err := g.super(ctx, "persist", q.Path); err != nil {
		return freshet.Unpersisted{}, err
	}
	return g.region.Persist(ctx, q)
}

// Unpersisted implements rpc.Persister.
func (g *Guard) Unpersisted(ctx context.Context, q freshet.UnpersistedQuery) (freshet.Unpersisted, error) {
	if err := g.super(ctx, "list unpersisted files", q.Path); err != nil {
		return freshet.Unpersisted{}, err
	}
	return g.region.Unpersisted(ctx, q)
}

// Check implements rpc.Checker.
func (g *Guard) Check(ctx context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	if err := g.super(ctx, "check", q.Path); err != nil {
		return err
	}
	return g.region.Check(ctx, q, report)
}

// StateHash implements rpc.States.
func (g *Guard) StateHash(ctx context.Context, index uint64) (freshet.StateHash, error) {
	if err := g.super(ctx, "state hash", ""); err != nil {
		return freshet.StateHash{}, err
	}
	return g.region.StateHash(ctx, index)
}

// SaveSnapshot implements rpc.States.
func (g *Guard) SaveSnapshot(ctx context.Context, stale bool, w io.Writer) error {
	if err := g.super(ctx, "save snapshot", ""); err != nil {
		return err
	}
	return g.region.SaveSnapshot(ctx, stale, w)
}

// RestoreSnapshot implements rpc.States.
func (g *Guard) RestoreSnapshot(ctx context.Context, r io.Reader, opts freshet.RestoreOptions) (freshet.Restored, error) {
	if err := g.super(ctx, "restore snapshot", ""); err != nil {
		return freshet.Restored{}, err
	}
	return g.region.RestoreSnapshot(ctx, r, opts)
}

// Peers guards what the bus shows and changes.
type Peers struct {
	inner rpc.Peers
	g     *Guard
}

var _ rpc.Peers = Peers{}

// GuardPeers returns inner behind the guard.
func (g *Guard) GuardPeers(inner rpc.Peers) Peers { return Peers{inner, g} }

// Peers implements rpc.Peers.
func (p Peers) Peers(ctx context.Context) ([]freshet.Peer, error) {
	if _, err := p.g.who(ctx); err != nil {
		return nil, err
	}
	return p.inner.Peers(ctx)
}

// JoinPeers implements rpc.Peers.
func (p Peers) JoinPeers(ctx context.Context, addresses []string) (int, error) {
	if err := p.g.super(ctx, "join peers", ""); err != nil {
		return 0, err
	}
	return p.inner.JoinPeers(ctx, addresses)
}

// ForgetPeer implements rpc.Peers.
func (p Peers) ForgetPeer(ctx context.Context, cluster string) error {
	if err := p.g.super(ctx, "forget peer", ""); err != nil {
		return err
	}
	return p.inner.ForgetPeer(ctx, cluster)
}
