package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Fleet is what a coordinator does about cache nodes that leave. Nodes are named by
// their names or IDs.
type Fleet interface {
	DrainNode(ctx context.Context, q freshet.DrainChange) (freshet.NodeDrain, error)
	// Drain says how far a node is.
	Drain(ctx context.Context, node string) (freshet.NodeDrain, error)
	DecommissionNode(ctx context.Context, q freshet.Decommission) (freshet.NodeDrain, error)
}

// FleetServer adapts Fleet to the wire.
type FleetServer struct {
	freshetv1.UnimplementedFleetServiceServer
	fleet   Fleet
	forward *Forwarder
}

// NewFleetServer returns the adapter.
func NewFleetServer(f Fleet, forward *Forwarder) *FleetServer {
	return &FleetServer{fleet: f, forward: forward}
}

func fleet(c grpc.ClientConnInterface) freshetv1.FleetServiceClient {
	return freshetv1.NewFleetServiceClient(c)
}

func named(node string) error {
	if node == "" {
		return freshet.Errorf(freshet.KindInvalid, "find node", "", "the name or ID of the node is required")
	}
	return nil
}

// DrainNode implements the service.
func (s *FleetServer) DrainNode(ctx context.Context, req *freshetv1.DrainNodeRequest) (*freshetv1.DrainNodeResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.DrainNodeRequest) (*freshetv1.DrainNodeResponse, error) {
			if err := named(req.GetNode()); err != nil {
				return nil, err
			}
			d, err := s.fleet.DrainNode(ctx, freshet.DrainChange{Node: req.GetNode(), Undo: req.GetUndo(), DryRun: req.GetDryRun()})
			if err != nil {
				return nil, err
			}
			return &freshetv1.DrainNodeResponse{Drain: drainToWire(d)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.DrainNodeRequest) (*freshetv1.DrainNodeResponse, error) {
			return fleet(c).DrainNode(ctx, req)
		})
}

// GetDrain implements the service.
func (s *FleetServer) GetDrain(ctx context.Context, req *freshetv1.GetDrainRequest) (*freshetv1.GetDrainResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.GetDrainRequest) (*freshetv1.GetDrainResponse, error) {
			if err := named(req.GetNode()); err != nil {
				return nil, err
			}
			d, err := s.fleet.Drain(ctx, req.GetNode())
			if err != nil {
				return nil, err
			}
			return &freshetv1.GetDrainResponse{Drain: drainToWire(d)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.GetDrainRequest) (*freshetv1.GetDrainResponse, error) {
			return fleet(c).GetDrain(ctx, req)
		})
}

// DecommissionNode implements the service.
func (s *FleetServer) DecommissionNode(ctx context.Context, req *freshetv1.DecommissionNodeRequest) (*freshetv1.DecommissionNodeResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.DecommissionNodeRequest) (*freshetv1.DecommissionNodeResponse, error) {
			if err := named(req.GetNode()); err != nil {
				return nil, err
			}
			d, err := s.fleet.DecommissionNode(ctx, freshet.Decommission{Node: req.GetNode(), Force: req.GetForce(), DryRun: req.GetDryRun()})
			if err != nil {
				return nil, err
			}
			return &freshetv1.DecommissionNodeResponse{Drain: drainToWire(d)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.DecommissionNodeRequest) (*freshetv1.DecommissionNodeResponse, error) {
			return fleet(c).DecommissionNode(ctx, req)
		})
}
