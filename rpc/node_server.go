package rpc

import (
	"context"

	"google.golang.org/grpc"

	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// NodeServer adapts Nodes to the wire: what a coordinator serves to cache nodes.
type NodeServer struct {
	freshetv1.UnimplementedNodeServiceServer
	nodes   Nodes
	forward *Forwarder
}

// NewNodeServer returns the adapter.
func NewNodeServer(n Nodes, forward *Forwarder) *NodeServer {
	return &NodeServer{nodes: n, forward: forward}
}

func nodes(c grpc.ClientConnInterface) freshetv1.NodeServiceClient {
	return freshetv1.NewNodeServiceClient(c)
}

// Heartbeat implements the service.
func (s *NodeServer) Heartbeat(ctx context.Context, req *freshetv1.HeartbeatRequest) (*freshetv1.HeartbeatResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.HeartbeatRequest) (*freshetv1.HeartbeatResponse, error) {
			h, err := heartbeatOfWire(req)
			if err != nil {
				return nil, err
			}
			r, err := s.nodes.Heartbeat(ctx, h)
			if err != nil {
				return nil, err
			}
			return heartbeatReplyToWire(r), nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.HeartbeatRequest) (*freshetv1.HeartbeatResponse, error) {
			return nodes(c).Heartbeat(ctx, req)
		})
}

// Permit implements the service.
func (s *NodeServer) Permit(ctx context.Context, req *freshetv1.PermitRequest) (*freshetv1.PermitResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.PermitRequest) (*freshetv1.PermitResponse, error) {
			q, err := permitOfWire(req)
			if err == nil {
				err = s.nodes.Permit(ctx, q)
			}
			return &freshetv1.PermitResponse{}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.PermitRequest) (*freshetv1.PermitResponse, error) {
			return nodes(c).Permit(ctx, req)
		})
}

// Complete implements the service.
func (s *NodeServer) Complete(ctx context.Context, req *freshetv1.CompleteRequest) (*freshetv1.CompleteResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.CompleteRequest) (*freshetv1.CompleteResponse, error) {
			q, err := completeOfWire(req)
			if err != nil {
				return nil, err
			}
			done, err := s.nodes.Complete(ctx, q.Op, q.Written)
			if err != nil {
				return nil, err
			}
			return &freshetv1.CompleteResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.CompleteRequest) (*freshetv1.CompleteResponse, error) {
			return nodes(c).Complete(ctx, req)
		})
}

// Abort implements the service.
func (s *NodeServer) Abort(ctx context.Context, req *freshetv1.AbortRequest) (*freshetv1.AbortResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.AbortRequest) (*freshetv1.AbortResponse, error) {
			op, err := opOfWire(req.GetOp())
			if err == nil {
				err = s.nodes.Abort(ctx, op, req.GetDefinite())
			}
			return &freshetv1.AbortResponse{}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.AbortRequest) (*freshetv1.AbortResponse, error) {
			return nodes(c).Abort(ctx, req)
		})
}
