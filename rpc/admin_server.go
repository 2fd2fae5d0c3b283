package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// MountServer adapts Mounts to the wire.
type MountServer struct {
	freshetv1.UnimplementedMountServiceServer
	mounts  Mounts
	forward *Forwarder
}

// NewMountServer returns the adapter.
func NewMountServer(m Mounts, forward *Forwarder) *MountServer {
	return &MountServer{mounts: m, forward: forward}
}

func mounts(c grpc.ClientConnInterface) freshetv1.MountServiceClient {
	return freshetv1.NewMountServiceClient(c)
}

// ListMounts implements the service.
func (s *MountServer) ListMounts(ctx context.Context, req *freshetv1.ListMountsRequest) (*freshetv1.ListMountsResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListMountsRequest) (*freshetv1.ListMountsResponse, error) {
			p, err := optionalPath(req.GetPath())
			if err != nil {
				return nil, err
			}
			all, index, err := s.mounts.Mounts(ctx, p)
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListMountsResponse{Index: index}
			for _, m := range all {
				out.Mounts = append(out.Mounts, mountToWire(m))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListMountsRequest) (*freshetv1.ListMountsResponse, error) {
			return mounts(c).ListMounts(ctx, req)
		})
}

func optionalPath(s string) (freshet.Path, error) {
	if s == "" {
		return "", nil
	}
	return freshet.ParsePath(s)
}

// AddMount implements the service.
func (s *MountServer) AddMount(ctx context.Context, req *freshetv1.AddMountRequest) (*freshetv1.AddMountResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.AddMountRequest) (*freshetv1.AddMountResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			ctx = freshet.WithOp(ctx, op)
			uri, ro := req.GetUfs(), req.GetReadOnly()
			c := freshet.MountChange{
				Path: p, URI: &uri, Options: req.GetOptions(), ReadOnly: &ro, Origin: req.GetOrigin(), DryRun: req.GetDryRun(),
			}
			if err := changeConsistencyOfWire(req.GetConsistency(), &c); err != nil {
				return nil, err
			}
			a, err := s.mounts.AddMount(ctx, c)
			if err != nil {
				return nil, err
			}
			return &freshetv1.AddMountResponse{Mount: mountToWire(a), Notes: a.Notes}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.AddMountRequest) (*freshetv1.AddMountResponse, error) {
			return mounts(c).AddMount(ctx, req)
		})
}

// UpdateMount implements the service.
func (s *MountServer) UpdateMount(ctx context.Context, req *freshetv1.UpdateMountRequest) (*freshetv1.UpdateMountResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.UpdateMountRequest) (*freshetv1.UpdateMountResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			ctx = freshet.WithOp(ctx, op)
			c := freshet.MountChange{
				Path: p, URI: req.Ufs, Options: req.GetOptions(), ReadOnly: req.ReadOnly, Origin: req.GetOrigin(),
				DryRun: req.GetDryRun(), IfGeneration: req.GetIfGeneration(),
			}
			if err := changeConsistencyOfWire(req.GetConsistency(), &c); err != nil {
				return nil, err
			}
			a, err := s.mounts.UpdateMount(ctx, c)
			if err != nil {
				return nil, err
			}
			return &freshetv1.UpdateMountResponse{Mount: mountToWire(a), Notes: a.Notes}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.UpdateMountRequest) (*freshetv1.UpdateMountResponse, error) {
			return mounts(c).UpdateMount(ctx, req)
		})
}

// RemoveMount implements the service.
func (s *MountServer) RemoveMount(ctx context.Context, req *freshetv1.RemoveMountRequest) (*freshetv1.RemoveMountResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.RemoveMountRequest) (*freshetv1.RemoveMountResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			ctx = freshet.WithOp(ctx, op)
			a, err := s.mounts.RemoveMount(ctx, p, freshet.RemoveMountOptions{DryRun: req.GetDryRun(), Force: req.GetForce()})
			if err != nil {
				return nil, err
			}
			return &freshetv1.RemoveMountResponse{Mount: mountToWire(a)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RemoveMountRequest) (*freshetv1.RemoveMountResponse, error) {
			return mounts(c).RemoveMount(ctx, req)
		})
}

// PolicyServer adapts Policies to the wire.
type PolicyServer struct {
	freshetv1.UnimplementedPolicyServiceServer
	policies Policies
	forward  *Forwarder
}

// NewPolicyServer returns the adapter.
func NewPolicyServer(p Policies, forward *Forwarder) *PolicyServer {
	return &PolicyServer{policies: p, forward: forward}
}

func policies(c grpc.ClientConnInterface) freshetv1.PolicyServiceClient {
	return freshetv1.NewPolicyServiceClient(c)
}

// ListSyncPolicies implements the service.
func (s *PolicyServer) ListSyncPolicies(ctx context.Context, req *freshetv1.ListSyncPoliciesRequest) (*freshetv1.ListSyncPoliciesResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListSyncPoliciesRequest) (*freshetv1.ListSyncPoliciesResponse, error) {
			p, err := optionalPath(req.GetPath())
			if err != nil {
				return nil, err
			}
			all, err := s.policies.Policies(ctx, p)
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListSyncPoliciesResponse{}
			for _, rule := range all {
				out.Policies = append(out.Policies, policyToWire(rule))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListSyncPoliciesRequest) (*freshetv1.ListSyncPoliciesResponse, error) {
			return policies(c).ListSyncPolicies(ctx, req)
		})
}

// SetSyncPolicy implements the service.
func (s *PolicyServer) SetSyncPolicy(ctx context.Context, req *freshetv1.SetSyncPolicyRequest) (*freshetv1.SetSyncPolicyResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.SetSyncPolicyRequest) (*freshetv1.SetSyncPolicyResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			ctx = freshet.WithOp(ctx, op)
			i, err := freshet.ParseInterval(req.GetInterval())
			if err != nil {
				return nil, err
			}
			rule, err := s.policies.SetPolicy(ctx, freshet.SyncPolicy{Path: p, Interval: i, Origin: req.GetOrigin()}, req.GetDryRun())
			if err != nil {
				return nil, err
			}
			return &freshetv1.SetSyncPolicyResponse{Policy: policyToWire(rule)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.SetSyncPolicyRequest) (*freshetv1.SetSyncPolicyResponse, error) {
			return policies(c).SetSyncPolicy(ctx, req)
		})
}

// RemoveSyncPolicy implements the service.
func (s *PolicyServer) RemoveSyncPolicy(ctx context.Context, req *freshetv1.RemoveSyncPolicyRequest) (*freshetv1.RemoveSyncPolicyResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.RemoveSyncPolicyRequest) (*freshetv1.RemoveSyncPolicyResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			ctx = freshet.WithOp(ctx, op)
			rule, err := s.policies.RemovePolicy(ctx, p, req.GetDryRun())
			if err != nil {
				return nil, err
			}
			return &freshetv1.RemoveSyncPolicyResponse{Policy: policyToWire(rule)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RemoveSyncPolicyRequest) (*freshetv1.RemoveSyncPolicyResponse, error) {
			return policies(c).RemoveSyncPolicy(ctx, req)
		})
}

// ClusterServer adapts Cluster and Peers to the wire.
type ClusterServer struct {
	freshetv1.UnimplementedClusterServiceServer
	cluster Cluster
	peers   Peers
	forward *Forwarder
}

// NewClusterServer returns the adapter; peers may be nil in a cluster without a
// bus.
func NewClusterServer(c Cluster, peers Peers, forward *Forwarder) *ClusterServer {
	return &ClusterServer{cluster: c, peers: peers, forward: forward}
}

func cluster(c grpc.ClientConnInterface) freshetv1.ClusterServiceClient {
	return freshetv1.NewClusterServiceClient(c)
}

func (s *ClusterServer) bus() (Peers, error) {
	if s.peers == nil {
		return nil, freshet.Errorf(freshet.KindUnsupported, "peers", "", "this cluster has no bus; set cross_cluster in its configuration")
	}
	return s.peers, nil
}

// GetCluster implements the service.
func (s *ClusterServer) GetCluster(ctx context.Context, req *freshetv1.GetClusterRequest) (*freshetv1.GetClusterResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, _ *freshetv1.GetClusterRequest) (*freshetv1.GetClusterResponse, error) {
			c, err := s.cluster.Cluster(ctx)
			if err != nil {
				return nil, err
			}
			return clusterToWire(c), nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.GetClusterRequest) (*freshetv1.GetClusterResponse, error) {
			return cluster(c).GetCluster(ctx, req)
		})
}

// ListNodes implements the service.
func (s *ClusterServer) ListNodes(ctx context.Context, req *freshetv1.ListNodesRequest) (*freshetv1.ListNodesResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, _ *freshetv1.ListNodesRequest) (*freshetv1.ListNodesResponse, error) {
			all, err := s.cluster.Nodes(ctx)
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListNodesResponse{}
			for _, n := range all {
				out.Nodes = append(out.Nodes, nodeStatusToWire(n))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListNodesRequest) (*freshetv1.ListNodesResponse, error) {
			return cluster(c).ListNodes(ctx, req)
		})
}

// ListPeers implements the service.
func (s *ClusterServer) ListPeers(ctx context.Context, req *freshetv1.ListPeersRequest) (*freshetv1.ListPeersResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, _ *freshetv1.ListPeersRequest) (*freshetv1.ListPeersResponse, error) {
			bus, err := s.bus()
			if err != nil {
				return nil, err
			}
			all, err := bus.Peers(ctx)
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListPeersResponse{}
			for _, p := range all {
				out.Peers = append(out.Peers, peerToWire(p))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListPeersRequest) (*freshetv1.ListPeersResponse, error) {
			return cluster(c).ListPeers(ctx, req)
		})
}

// JoinPeers implements the service.
func (s *ClusterServer) JoinPeers(ctx context.Context, req *freshetv1.JoinPeersRequest) (*freshetv1.JoinPeersResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.JoinPeersRequest) (*freshetv1.JoinPeersResponse, error) {
			bus, err := s.bus()
			if err != nil {
				return nil, err
			}
			n, err := bus.JoinPeers(ctx, req.GetAddresses())
			return &freshetv1.JoinPeersResponse{Joined: int32(n)}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.JoinPeersRequest) (*freshetv1.JoinPeersResponse, error) {
			return cluster(c).JoinPeers(ctx, req)
		})
}

// LeavePeers implements the service.
func (s *ClusterServer) LeavePeers(ctx context.Context, req *freshetv1.LeavePeersRequest) (*freshetv1.LeavePeersResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.LeavePeersRequest) (*freshetv1.LeavePeersResponse, error) {
			bus, err := s.bus()
			if err != nil {
				return nil, err
			}
			return &freshetv1.LeavePeersResponse{}, bus.ForgetPeer(ctx, req.GetCluster())
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.LeavePeersRequest) (*freshetv1.LeavePeersResponse, error) {
			return cluster(c).LeavePeers(ctx, req)
		})
}

// JoinRaft implements the service.
func (s *ClusterServer) JoinRaft(ctx context.Context, req *freshetv1.JoinRaftRequest) (*freshetv1.JoinRaftResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.JoinRaftRequest) (*freshetv1.JoinRaftResponse, error) {
			id, epoch, err := s.cluster.JoinRaft(ctx, memberOfWire(req.GetMember()), req.GetCluster())
			if err != nil {
				return nil, err
			}
			return &freshetv1.JoinRaftResponse{ClusterId: id.String(), Epoch: epoch}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.JoinRaftRequest) (*freshetv1.JoinRaftResponse, error) {
			return cluster(c).JoinRaft(ctx, req)
		})
}

// RemoveRaft implements the service.
func (s *ClusterServer) RemoveRaft(ctx context.Context, req *freshetv1.RemoveRaftRequest) (*freshetv1.RemoveRaftResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.RemoveRaftRequest) (*freshetv1.RemoveRaftResponse, error) {
			return &freshetv1.RemoveRaftResponse{}, s.cluster.RemoveRaft(ctx, req.GetMember(), req.GetDryRun())
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RemoveRaftRequest) (*freshetv1.RemoveRaftResponse, error) {
			return cluster(c).RemoveRaft(ctx, req)
		})
}

// TransferLeadership implements the service.
func (s *ClusterServer) TransferLeadership(ctx context.Context, req *freshetv1.TransferLeadershipRequest) (*freshetv1.TransferLeadershipResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.TransferLeadershipRequest) (*freshetv1.TransferLeadershipResponse, error) {
			leader, err := s.cluster.TransferLeadership(ctx, req.GetMember())
			return &freshetv1.TransferLeadershipResponse{Leader: leader}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.TransferLeadershipRequest) (*freshetv1.TransferLeadershipResponse, error) {
			return cluster(c).TransferLeadership(ctx, req)
		})
}

// BumpEpoch implements the service.
func (s *ClusterServer) BumpEpoch(ctx context.Context, req *freshetv1.BumpEpochRequest) (*freshetv1.BumpEpochResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.BumpEpochRequest) (*freshetv1.BumpEpochResponse, error) {
			op, err := parseOp(req.GetOpId())
			if err != nil {
				return nil, err
			}
			epoch, err := s.cluster.BumpEpoch(freshet.WithOp(ctx, op), req.GetDryRun())
			return &freshetv1.BumpEpochResponse{Epoch: epoch}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.BumpEpochRequest) (*freshetv1.BumpEpochResponse, error) {
			return cluster(c).BumpEpoch(ctx, req)
		})
}
