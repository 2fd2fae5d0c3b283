// Package rpc owns calls between processes: wire types, error codes, TLS,
// deadlines, finding and forwarding to the leader. It knows the vocabulary and
// the wire, and none of the packages that do the work: it declares what it
// needs of them.
package rpc

import (
	"context"
	"io"

	"github.com/freshet-io/freshet"
)

// Namespace is what a coordinator does for clients. Methods return
// freshet.KindNotLeader on a member that does not lead; the server forwards.
type Namespace interface {
	Stat(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error)
	List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error)
	Mkdir(ctx context.Context, q freshet.MkdirQuery) (freshet.Completed, error)
	Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error)
	Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error)
	SetAttr(ctx context.Context, q freshet.SetAttrQuery) (freshet.Completed, error)
	Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error)
	BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error)
	AbortWrite(ctx context.Context, op freshet.OpID) error
	Explain(ctx context.Context, p freshet.Path, check bool) (freshet.Explanation, error)
	// Sync calls report now and then and once with Done; an error of report
	// cancels the sync.
	Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error
	// RemoveTree calls report after each page and once with Done; an error of
	// report, or the end of ctx, stops it at the next page.
	RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error
	// PlanRename says what Rename would do, and changes nothing.
	PlanRename(ctx context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error)
}

// Mounts is what a coordinator does about mounts.
type Mounts interface {
	// Mounts returns the mounts in order of their paths, or the one at p if p
	// is not empty, and the applied index.
	Mounts(ctx context.Context, p freshet.Path) ([]freshet.MountAnswer, uint64, error)
	AddMount(ctx context.Context, c freshet.MountChange) (freshet.MountAnswer, error)
	UpdateMount(ctx context.Context, c freshet.MountChange) (freshet.MountAnswer, error)
	RemoveMount(ctx context.Context, p freshet.Path, opts freshet.RemoveMountOptions) (freshet.MountAnswer, error)
}

// Policies is what a coordinator does about policies. The first three methods are
// of their property sync_interval alone.
type Policies interface {
	// Policies returns all rules, those of mounts too, in order of their
	// paths, or the one that applies to p if p is not empty.
	Policies(ctx context.Context, p freshet.Path) ([]freshet.SyncPolicy, error)
	SetPolicy(ctx context.Context, policy freshet.SyncPolicy, dryRun bool) (freshet.SyncPolicy, error)
	// RemovePolicy returns the rule that applies afterwards.
	RemovePolicy(ctx context.Context, p freshet.Path, dryRun bool) (freshet.SyncPolicy, error)
	// PathPolicies returns what is set at all paths or, if p is not empty, at p
	// and above it, and what applies at p.
	PathPolicies(ctx context.Context, p freshet.Path) (freshet.PolicyReport, error)
	// ChangePolicy returns what is set at the path afterwards.
	ChangePolicy(ctx context.Context, c freshet.PolicyChange) (freshet.Policy, error)
}

// Cluster is what a coordinator shows and changes of the cluster itself.
type Cluster interface {
	Cluster(ctx context.Context) (freshet.ClusterStatus, error)
	Nodes(ctx context.Context) ([]freshet.NodeStatus, error)
	JoinRaft(ctx context.Context, m freshet.Member, cluster string) (freshet.ClusterID, uint64, error)
	RemoveRaft(ctx context.Context, member string, dryRun bool) error
	TransferLeadership(ctx context.Context, member string) (string, error)
	BumpEpoch(ctx context.Context, dryRun bool) (uint64, error)
}

// Events is what a coordinator does with what storages tell of changes.
type Events interface {
	PostEvents(ctx context.Context, post freshet.EventPost) (freshet.EventAnswer, error)
}

// Peers is what the bus shows and changes.
type Peers interface {
	Peers(ctx context.Context) ([]freshet.Peer, error)
	JoinPeers(ctx context.Context, addresses []string) (int, error)
	ForgetPeer(ctx context.Context, cluster string) error
}

// Nodes is what a coordinator does for cache nodes.
type Nodes interface {
	Heartbeat(ctx context.Context, h freshet.Heartbeat) (freshet.HeartbeatReply, error)
	Permit(ctx context.Context, q freshet.PermitQuery) error
	Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error)
	Abort(ctx context.Context, op freshet.OpID, definite bool) error
}

// Blocks is what a cache node does for clients and other nodes.
type Blocks interface {
	// Read returns bytes of one block.
	Read(ctx context.Context, req freshet.BlockRead) (freshet.BlockStream, error)
	// Write reads body to its end, uploads it under the ticket and returns what
	// is visible then. length is the declared one, negative if unknown.
	Write(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error)
}
