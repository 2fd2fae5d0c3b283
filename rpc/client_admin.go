package rpc

import (
	"context"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Cluster implements Cluster.
func (c *Coordinator) Cluster(ctx context.Context) (freshet.ClusterStatus, error) {
	r, err := c.cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
	if err != nil {
		return freshet.ClusterStatus{}, ErrorOf(err)
	}
	return clusterOfWire(r), nil
}

// Nodes implements Cluster.
func (c *Coordinator) Nodes(ctx context.Context) ([]freshet.NodeStatus, error) {
	r, err := c.cluster.ListNodes(ctx, &freshetv1.ListNodesRequest{})
	if err != nil {
		return nil, ErrorOf(err)
	}
	out := make([]freshet.NodeStatus, 0, len(r.GetNodes()))
	for _, n := range r.GetNodes() {
		out = append(out, nodeStatusOfWire(n))
	}
	return out, nil
}

// JoinRaft implements Cluster.
func (c *Coordinator) JoinRaft(ctx context.Context, m freshet.Member, clusterName string) (freshet.ClusterID, uint64, error) {
	r, err := c.cluster.JoinRaft(ctx, &freshetv1.JoinRaftRequest{Member: memberToWire(m), Cluster: clusterName})
	if err != nil {
		return freshet.ClusterID{}, 0, ErrorOf(err)
	}
	id, err := uuid.Parse(r.GetClusterId())
	if err != nil {
		return freshet.ClusterID{}, 0, freshet.Errorf(freshet.KindInternal, "join raft", "", "cluster ID in the answer: %w", err)
	}
	return id, r.GetEpoch(), nil
}

// RemoveRaft implements Cluster.
func (c *Coordinator) RemoveRaft(ctx context.Context, member string, dryRun bool) error {
	_, err := c.cluster.RemoveRaft(ctx, &freshetv1.RemoveRaftRequest{Member: member, DryRun: dryRun})
	return ErrorOf(err)
}

// TransferLeadership implements Cluster.
func (c *Coordinator) TransferLeadership(ctx context.Context, member string) (string, error) {
	r, err := c.cluster.TransferLeadership(ctx, &freshetv1.TransferLeadershipRequest{Member: member})
	return r.GetLeader(), ErrorOf(err)
}

// BumpEpoch implements Cluster.
func (c *Coordinator) BumpEpoch(ctx context.Context, dryRun bool) (uint64, error) {
	r, err := c.cluster.BumpEpoch(ctx, &freshetv1.BumpEpochRequest{DryRun: dryRun, OpId: newOp(freshet.OpOf(ctx)).String()})
	return r.GetEpoch(), ErrorOf(err)
}

// Peers implements Peers.
func (c *Coordinator) Peers(ctx context.Context) ([]freshet.Peer, error) {
	r, err := c.cluster.ListPeers(ctx, &freshetv1.ListPeersRequest{})
	if err != nil {
		return nil, ErrorOf(err)
	}
	out := make([]freshet.Peer, 0, len(r.GetPeers()))
	for _, p := range r.GetPeers() {
		out = append(out, peerOfWire(p))
	}
	return out, nil
}

// JoinPeers implements Peers.
func (c *Coordinator) JoinPeers(ctx context.Context, addresses []string) (int, error) {
	r, err := c.cluster.JoinPeers(ctx, &freshetv1.JoinPeersRequest{Addresses: addresses})
	return int(r.GetJoined()), ErrorOf(err)
}

// ForgetPeer implements Peers.
func (c *Coordinator) ForgetPeer(ctx context.Context, name string) error {
	_, err := c.cluster.LeavePeers(ctx, &freshetv1.LeavePeersRequest{Cluster: name})
	return ErrorOf(err)
}

// maxReports bounds the blocks that one heartbeat message names; a report of more
// goes on in further messages, well below the limit of a message.
const maxReports = 100_000

// Heartbeat implements Nodes. A report of many blocks is sent in parts; the
// answer is that to all of them.
func (c *Coordinator) Heartbeat(ctx context.Context, h freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	added, removed, more := h.Added, h.Removed, h.More
	h.Removed, removed = split(removed, maxReports) // the leader, too, takes them first
	h.Added, added = split(added, maxReports-len(h.Removed))
	h.More = more || len(added)+len(removed) > 0
	reply, err := c.heartbeat(ctx, h)
	for err == nil && len(added)+len(removed) > 0 && !reply.NeedFull {
		h.Full, h.Finished, h.Hot, h.Damaged = false, nil, nil, nil // said already, and heard
		h.Continued, h.Term = true, reply.Term
		h.PinRevision = reply.PinRevision // its rules are those that the first part was answered under
		h.Removed, removed = split(removed, maxReports)
		h.Added, added = split(added, maxReports-len(h.Removed))
		h.More = more || len(added)+len(removed) > 0
		var next freshet.HeartbeatReply
		if next, err = c.heartbeat(ctx, h); err == nil {
			next.Free = append(reply.Free, next.Free...)
			next.Settled = append(reply.Settled, next.Settled...)
			next.Pinned = append(reply.Pinned, next.Pinned...)
			reply = next
		}
	}
	return reply, err
}

func split[T any](all []T, n int) (head, rest []T) {
	n = min(n, len(all))
	return all[:n], all[n:]
}

func (c *Coordinator) heartbeat(ctx context.Context, h freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	r, err := c.nodes.Heartbeat(ctx, heartbeatToWire(h))
	if err != nil {
		return freshet.HeartbeatReply{}, ErrorOf(err)
	}
	return heartbeatReplyOfWire(r)
}

// Permit implements Nodes. Calls that run at the same time may be made together.
func (c *Coordinator) Permit(ctx context.Context, q freshet.PermitQuery) error {
	_, err := c.gathered.permits.do(ctx, &freshetv1.PermitRequest{
		Op: q.Op[:], NodeId: string(q.Node), Incarnation: q.Incarnation, Length: lengthToWire(q.Length), Sealed: q.Sealed.String(),
	})
	return err
}

// Complete implements Nodes. Calls that run at the same time may be made together.
func (c *Coordinator) Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	r, err := c.gathered.completes.do(ctx, &freshetv1.CompleteRequest{Op: op[:], Written: writtenToWire(w)})
	if err != nil {
		return freshet.Completed{}, err
	}
	return completedOfWire(r.GetEntry(), r.GetToken())
}

// Abort implements Nodes.
func (c *Coordinator) Abort(ctx context.Context, op freshet.OpID, definite bool) error {
	_, err := c.nodes.Abort(ctx, &freshetv1.AbortRequest{Op: op[:], Definite: definite})
	return ErrorOf(err)
}

// PostEvents implements Events.
func (c *Coordinator) PostEvents(ctx context.Context, p freshet.EventPost) (freshet.EventAnswer, error) {
	r, err := c.events.PostEvents(ctx, &freshetv1.PostEventsRequest{Body: p.Body, Token: p.Token, Trusted: p.Trusted})
	if err != nil {
		return freshet.EventAnswer{}, ErrorOf(err)
	}
	return freshet.EventAnswer{
		Marked: int(r.GetMarked()), Ignored: int(r.GetIgnored()), Unread: int(r.GetUnread()), Validation: r.GetValidation(), Confirm: r.GetConfirm(),
	}, nil
}
