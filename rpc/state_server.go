package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// States is what a coordinator does with the replicated state as a whole.
type States interface {
	// StateHash is answered by any member, of its own state.
	StateHash(ctx context.Context, index uint64) (freshet.StateHash, error)
	// SaveSnapshot writes a copy; on a member that does not lead it is
	// freshet.KindNotLeader before anything is written, unless stale is set.
	SaveSnapshot(ctx context.Context, stale bool, w io.Writer) error
	// RestoreSnapshot reads a copy; on a member that does not lead it is
	// freshet.KindNotLeader before anything is read.
	RestoreSnapshot(ctx context.Context, r io.Reader, opts freshet.RestoreOptions) (freshet.Restored, error)
}

// StateServer adapts States to the wire.
type StateServer struct {
	freshetv1.UnimplementedStateServiceServer
	states  States
	forward *Forwarder
}

// NewStateServer returns the adapter.
func NewStateServer(s States, forward *Forwarder) *StateServer {
	return &StateServer{states: s, forward: forward}
}

// GetStateHash implements the service.
func (s *StateServer) GetStateHash(ctx context.Context, req *freshetv1.GetStateHashRequest) (*freshetv1.GetStateHashResponse, error) {
	h, err := s.states.StateHash(ctx, req.GetIndex())
	if err != nil {
		return nil, StatusOf(err)
	}
	return &freshetv1.GetStateHashResponse{
		Member: h.Member, AppliedIndex: h.Applied, Hash: hex.EncodeToString(h.Hash[:]), Format: uint32(h.Format),
	}, nil
}

// snapshotPart is how much of a snapshot travels in one message.
const snapshotPart = 256 << 10

// parts sends what is written in messages of a size that every member takes.
type parts struct{ send func([]byte) error }

// Write implements io.Writer.
func (p parts) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), snapshotPart)
		if err := p.send(rest[:n]); err != nil {
			return len(b) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// SaveSnapshot implements the service.
func (s *StateServer) SaveSnapshot(req *freshetv1.SaveSnapshotRequest, stream grpc.ServerStreamingServer[freshetv1.SaveSnapshotResponse]) error {
	ctx := stream.Context()
	err := s.states.SaveSnapshot(ctx, req.GetStale(), parts{func(b []byte) error {
		return stream.Send(&freshetv1.SaveSnapshotResponse{Data: b})
	}})
	if err == nil {
		return nil
	}
	fctx, conn, err := s.forward.toLeader(ctx, err)
	if err != nil {
		return StatusOf(err)
	}
	from, err := freshetv1.NewStateServiceClient(conn).SaveSnapshot(fctx, req)
	if err != nil {
		return err
	}
	return relay(from, stream)
}

// RestoreSnapshot implements the service.
func (s *StateServer) RestoreSnapshot(stream grpc.ClientStreamingServer[freshetv1.RestoreSnapshotRequest, freshetv1.RestoreSnapshotResponse]) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return StatusOf(freshet.Errorf(freshet.KindInvalid, "restore snapshot", "", "the call has no content: %w", err))
	}
	r, err := s.states.RestoreSnapshot(ctx, &received{next: stream.Recv, rest: first.GetData()}, freshet.RestoreOptions{Force: first.GetForce(), DryRun: first.GetDryRun()})
	if err == nil {
		return stream.SendAndClose(&freshetv1.RestoreSnapshotResponse{
			ClusterId: r.Cluster.String(), Cluster: r.ClusterName, SnapshotIndex: r.Index, SnapshotEpoch: r.OldEpoch, Entries: r.Entries, Mounts: uint64(r.Mounts),
			ReplacedIndex: r.ReplacedIndex, ReplacedEntries: r.ReplacedEntries, Epoch: r.Epoch,
		})
	}
	fctx, conn, err := s.forward.toLeader(ctx, err)
	if err != nil {
		return StatusOf(err)
	}
	to, err := freshetv1.NewStateServiceClient(conn).RestoreSnapshot(fctx)
	if err != nil {
		return err
	}
	for m := first; ; {
		if to.Send(m) != nil {
			break // the leader's answer says why
		}
		if m, err = stream.Recv(); errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	answer, err := to.CloseAndRecv()
	if err != nil {
		return err
	}
	return stream.SendAndClose(answer)
}

// received reads the data of a stream of messages.
type received struct {
	next func() (*freshetv1.RestoreSnapshotRequest, error)
	rest []byte
}

// Read implements io.Reader.
func (r *received) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.next()
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
