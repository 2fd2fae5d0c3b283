package rpc

import (
	"context"
	"math"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Keeper is what a cache node does for others whose files are in no storage yet.
type Keeper interface {
	// KeepBlock takes a durable copy of a block from a node that holds it.
	KeepBlock(ctx context.Context, q freshet.BlockKeep) error
}

// KeepServer adapts a Keeper to the wire.
type KeepServer struct {
	freshetv1.UnimplementedKeepServiceServer
	keeper Keeper
}

// NewKeepServer returns the adapter.
func NewKeepServer(k Keeper) *KeepServer { return &KeepServer{keeper: k} }

// KeepBlock implements the service.
func (s *KeepServer) KeepBlock(ctx context.Context, req *freshetv1.KeepBlockRequest) (*freshetv1.KeepBlockResponse, error) {
	id, err := uuid.FromBytes(req.GetClusterId())
	if err != nil {
		return nil, StatusOf(freshet.Errorf(freshet.KindInvalid, "keep block", "", "the ID of the cluster: %w", err))
	}
	q := freshet.BlockKeep{Cluster: id, Epoch: req.GetEpoch(), Node: freshet.NodeID(req.GetNodeId()), Incarnation: req.GetIncarnation(), Block: blockOfWire(req.GetBlock())}
	if q.Block.ID.File == 0 || q.Block.Length <= 0 || q.Block.Length > freshet.MaxBlockSize || q.Block.Offset < 0 {
		return nil, StatusOf(freshet.Errorf(freshet.KindInvalid, "keep block", "", "a block of version %d with %d bytes at %d", q.Block.ID.File, q.Block.Length, q.Block.Offset))
	}
	if err := s.keeper.KeepBlock(ctx, q); err != nil {
		return nil, StatusOf(err)
	}
	return &freshetv1.KeepBlockResponse{}, nil
}

// KeepBlock asks node n to keep a durable copy of a block, see Keeper.
func (p *NodePool) KeepBlock(ctx context.Context, n freshet.Node, q freshet.BlockKeep) error {
	conn, err := p.conns.Get(n.GRPC)
	if err != nil {
		return err
	}
	_, err = freshetv1.NewKeepServiceClient(conn).KeepBlock(ctx, &freshetv1.KeepBlockRequest{
		ClusterId: q.Cluster[:], Epoch: q.Epoch, NodeId: string(q.Node), Incarnation: q.Incarnation, Block: blockToWire(q.Block),
	})
	return ErrorOf(err)
}

func keepOrderToWire(o *freshet.KeepOrder) *freshetv1.KeepOrder {
	return &freshetv1.KeepOrder{FileId: uint64(o.File), Length: o.Length, BlockSize: o.BlockSize, Nodes: nodesToWire(o.Nodes)}
}

func keepOrderOfWire(w *freshetv1.KeepOrder) (freshet.KeepOrder, error) {
	o := freshet.KeepOrder{File: freshet.FileID(w.GetFileId()), Length: w.GetLength(), BlockSize: w.GetBlockSize(), Nodes: nodesOfWire(w.GetNodes())}
	if o.File == 0 || o.Length < 0 || o.BlockSize <= 0 || o.BlockSize > freshet.MaxBlockSize || o.Length/o.BlockSize > math.MaxUint32 {
		return o, freshet.Errorf(freshet.KindInvalid, "read order", "", "an order to keep version %d of %d bytes in blocks of %d", o.File, o.Length, o.BlockSize)
	}
	return o, nil
}

func nodesToWire(all []freshet.Node) []*freshetv1.Node {
	var out []*freshetv1.Node
	for _, n := range all {
		out = append(out, nodeToWire(n))
	}
	return out
}

func nodesOfWire(all []*freshetv1.Node) []freshet.Node {
	var out []freshet.Node
	for _, n := range all {
		out = append(out, nodeOfWire(n))
	}
	return out
}

func nodeIDsToWire(ids []freshet.NodeID) []string {
	var out []string
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}

func nodeIDsOfWire(ids []string) []freshet.NodeID {
	var out []freshet.NodeID
	for _, id := range ids {
		out = append(out, freshet.NodeID(id))
	}
	return out
}
