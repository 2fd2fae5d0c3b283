package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
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
				err = s.nodes.Permit(ctx, q.Op, q.Node, q.Incarnation, q.Length)
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

// BlockServer adapts Blocks to the wire: what a cache node serves.
type BlockServer struct {
	freshetv1.UnimplementedBlockServiceServer
	blocks Blocks
}

// NewBlockServer returns the adapter.
func NewBlockServer(b Blocks) *BlockServer { return &BlockServer{blocks: b} }

// ReadBlock implements the service.
func (s *BlockServer) ReadBlock(req *freshetv1.ReadBlockRequest, stream grpc.ServerStreamingServer[freshetv1.ReadBlockResponse]) error {
	q, err := readBlockOfWire(req)
	if err != nil {
		return StatusOf(err)
	}
	body, err := s.blocks.Read(stream.Context(), q)
	if err != nil {
		return StatusOf(err)
	}
	defer func() { _ = body.Close() }() // read only
	buf := make([]byte, min(ChunkSize, max(body.Length(), 1)))
	for first := true; ; first = false {
		n, err := io.ReadFull(body, buf)
		if first && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			// Only now is it sure where the bytes come from.
			if serr := stream.Send(&freshetv1.ReadBlockResponse{From: body.Origin().String()}); serr != nil {
				return serr
			}
		}
		if n > 0 {
			if serr := stream.Send(&freshetv1.ReadBlockResponse{Data: buf[:n]}); serr != nil {
				return serr
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		default:
			return StatusOf(err)
		}
	}
}

// maxAhead bounds the blocks that a reader may announce.
const maxAhead = 4

func readBlockOfWire(req *freshetv1.ReadBlockRequest) (freshet.BlockRead, error) {
	src, err := sourceOfWire(req.GetSource())
	if err != nil {
		return freshet.BlockRead{}, err
	}
	read, err := freshet.ParseReadType(req.GetReadType())
	if err != nil {
		return freshet.BlockRead{}, err
	}
	q := freshet.BlockRead{
		Block: blockOfWire(req.GetBlock()), Source: src, Offset: req.GetOffset(), Length: req.GetLength(),
		Type: read, Cached: req.GetOnlyCached(),
	}
	for _, b := range req.GetAhead()[:min(len(req.GetAhead()), maxAhead)] {
		q.Ahead = append(q.Ahead, blockOfWire(b))
	}
	if q.Offset < 0 || q.Length < 0 || q.Offset > q.Block.Length || q.Length > q.Block.Length-q.Offset {
		return q, freshet.Errorf(freshet.KindInvalid, "read block", "", "range %d+%d is outside the block of %d bytes", q.Offset, q.Length, q.Block.Length)
	}
	return q, nil
}

// WriteFile implements the service.
func (s *BlockServer) WriteFile(stream grpc.ClientStreamingServer[freshetv1.WriteFileRequest, freshetv1.WriteFileResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetTicket() == nil {
		return StatusOf(freshet.Errorf(freshet.KindInvalid, "write file", "", "the first message carries no ticket"))
	}
	t, err := ticketOfWire(first.GetTicket())
	if err != nil {
		return StatusOf(err)
	}
	body := &uploadReader{stream: stream, rest: first.GetData(), ended: first.GetEnd()}
	done, err := s.blocks.Write(stream.Context(), t, body, first.GetLength())
	if err != nil {
		return StatusOf(err)
	}
	return stream.SendAndClose(&freshetv1.WriteFileResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()})
}

// uploadReader reads the chunks of an upload. A stream that closes without the
// end mark is a client that died: it must not look like a complete body.
type uploadReader struct {
	stream grpc.ClientStreamingServer[freshetv1.WriteFileRequest, freshetv1.WriteFileResponse]
	rest   []byte
	ended  bool
}

// Read implements io.Reader.
func (r *uploadReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		m, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, freshet.Errorf(freshet.KindInvalid, "write file", "", "the upload ended without its end mark: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return 0, ErrorOf(err)
		}
		r.rest, r.ended = m.GetData(), m.GetEnd()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
