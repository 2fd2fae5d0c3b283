package rpc

import (
	"context"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Ahead is what a cache node does for clients that know what they will read.
type Ahead interface {
	// ReadAhead begins to bring a block into the cache, and reports whether it is
	// there or on its way.
	ReadAhead(ctx context.Context, req freshet.BlockRead) bool
}

// AheadServer adapts Ahead to the wire.
type AheadServer struct {
	freshetv1.UnimplementedReadAheadServiceServer
	ahead Ahead
}

// NewAheadServer returns the adapter.
func NewAheadServer(a Ahead) *AheadServer { return &AheadServer{ahead: a} }

// ReadAhead implements the service.
func (s *AheadServer) ReadAhead(ctx context.Context, req *freshetv1.ReadAheadRequest) (*freshetv1.ReadAheadResponse, error) {
	src, err := sourceOfWire(req.GetSource())
	if err != nil {
		return nil, StatusOf(err)
	}
	return &freshetv1.ReadAheadResponse{
		Taken: s.ahead.ReadAhead(ctx, freshet.BlockRead{Block: blockOfWire(req.GetBlock()), Source: src, Length: -1}),
	}, nil
}

// ReadAhead asks node n to bring a block into its cache. It returns as soon as the
// node has begun; that it can't is no error.
func (p *NodePool) ReadAhead(ctx context.Context, n freshet.Node, q freshet.BlockRead) error {
	conn, err := p.conns.Get(n.GRPC)
	if err != nil {
		return err
	}
	_, err = freshetv1.NewReadAheadServiceClient(conn).ReadAhead(ctx, &freshetv1.ReadAheadRequest{
		Block: blockToWire(q.Block), Source: sourceToWire(q.Source),
	})
	return ErrorOf(err)
}

// ReadBlockToWire and ReadBlockOfWire translate what is asked of a node, for the
// package that does so over a Unix socket.
func ReadBlockToWire(q freshet.BlockRead) *freshetv1.ReadBlockRequest {
	return &freshetv1.ReadBlockRequest{
		Block: blockToWire(q.Block), Source: sourceToWire(q.Source), Offset: q.Offset, Length: q.Length,
		ReadType: q.Type.String(), OnlyCached: q.Cached,
	}
}

// ReadBlockOfWire is the inverse of ReadBlockToWire; KindInvalid for what it never
// returns.
func ReadBlockOfWire(req *freshetv1.ReadBlockRequest) (freshet.BlockRead, error) {
	return readBlockOfWire(req)
}
