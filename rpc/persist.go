package rpc

import (
	"context"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Persister is what a coordinator does about files that are not in the storage.
type Persister interface {
	// Persist queues files; the answer has the number and the bytes of them.
	Persist(ctx context.Context, q freshet.PersistQuery) (freshet.Unpersisted, error)
	Unpersisted(ctx context.Context, q freshet.UnpersistedQuery) (freshet.Unpersisted, error)
}

// PersistServer adapts a Persister to the wire.
type PersistServer struct {
	freshetv1.UnimplementedPersistServiceServer
	persister Persister
	forward   *Forwarder
}

// NewPersistServer returns the adapter.
func NewPersistServer(p Persister, forward *Forwarder) *PersistServer {
	return &PersistServer{persister: p, forward: forward}
}

// Persist implements the service.
func (s *PersistServer) Persist(ctx context.Context, req *freshetv1.PersistRequest) (*freshetv1.PersistResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.PersistRequest) (*freshetv1.PersistResponse, error) {
			p, err := freshet.ParsePath(req.GetPath())
			if err != nil {
				return nil, err
			}
			q := freshet.PersistQuery{Path: p, Recursive: req.GetRecursive(), Overwrite: req.GetOverwrite(), DryRun: req.GetDryRun()}
			u, err := s.persister.Persist(ctx, q)
			if err != nil {
				return nil, err
			}
			return &freshetv1.PersistResponse{Count: u.Count, Bytes: u.Bytes}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.PersistRequest) (*freshetv1.PersistResponse, error) {
			return freshetv1.NewPersistServiceClient(c).Persist(ctx, req)
		})
}

// ListUnpersisted implements the service.
func (s *PersistServer) ListUnpersisted(ctx context.Context, req *freshetv1.ListUnpersistedRequest) (*freshetv1.ListUnpersistedResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListUnpersistedRequest) (*freshetv1.ListUnpersistedResponse, error) {
			p, err := optionalPath(req.GetPath())
			if err != nil {
				return nil, err
			}
			if p == "" {
				p = freshet.Root
			}
			u, err := s.persister.Unpersisted(ctx, freshet.UnpersistedQuery{Path: p, Limit: int(req.GetLimit())})
			if err != nil {
				return nil, err
			}
			return unpersistedToWire(&u), nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListUnpersistedRequest) (*freshetv1.ListUnpersistedResponse, error) {
			return freshetv1.NewPersistServiceClient(c).ListUnpersisted(ctx, req)
		})
}

func unpersistedToWire(u *freshet.Unpersisted) *freshetv1.ListUnpersistedResponse {
	out := &freshetv1.ListUnpersistedResponse{
		Count: u.Count, Bytes: u.Bytes, Queued: u.Queued, Persisting: u.Persisting, Failed: u.Failed, Conflicts: u.Conflicts,
		Lost: u.Lost, Oldest: durationpb.New(u.Oldest), Short: u.Short,
	}
	for i := range u.Files {
		f := &u.Files[i]
		w := &freshetv1.UnpersistedFile{
			Path: string(f.Path), FileId: uint64(f.File), Length: f.Length, Since: timestamppb.New(f.Since), State: f.State, Nodes: f.Nodes,
			Attempts: int64(f.Attempts), Error: f.Error,
			DurableReplicas: int32(f.Replicas), LiveReplicas: int32(f.Live), //nolint:gosec // no more than nodes
		}
		if !f.Next.IsZero() {
			w.Next = timestamppb.New(f.Next)
		}
		out.Files = append(out.Files, w)
	}
	return out
}

func fileIDsToWire(ids []freshet.FileID) []uint64 {
	var out []uint64
	for _, id := range ids {
		out = append(out, uint64(id))
	}
	return out
}

func fileIDsOfWire(ids []uint64) []freshet.FileID {
	var out []freshet.FileID
	for _, id := range ids {
		out = append(out, freshet.FileID(id))
	}
	return out
}

func persistOrderToWire(o *freshet.PersistOrder) *freshetv1.PersistOrder {
	out := &freshetv1.PersistOrder{
		Op: opToWire(o.Op), FileId: uint64(o.File), Path: string(o.Path), Target: sourceToWire(o.Target), Length: o.Length, BlockSize: o.BlockSize,
		Owner: o.Owner, Group: o.Group, Mode: o.Mode,
	}
	if !o.Beneath.IsZero() {
		out.Beneath = o.Beneath.String()
	}
	return out
}

func persistOrderOfWire(w *freshetv1.PersistOrder) (freshet.PersistOrder, error) {
	const op = "read order"
	o := freshet.PersistOrder{
		File: freshet.FileID(w.GetFileId()), Length: w.GetLength(), BlockSize: w.GetBlockSize(), Owner: w.GetOwner(), Group: w.GetGroup(), Mode: w.GetMode(),
	}
	var err error
	if o.Op, err = opOfWire(w.GetOp()); err != nil {
		return o, err
	}
	if o.Path, err = freshet.ParsePath(w.GetPath()); err != nil {
		return o, err
	}
	if o.Target, err = sourceOfWire(w.GetTarget()); err != nil {
		return o, err
	}
	if w.GetBeneath() != "" {
		if o.Beneath, err = fingerprint.ParseText(w.GetBeneath()); err != nil {
			return o, freshet.Errorf(freshet.KindInvalid, op, o.Path, "%w", err)
		}
	}
	if o.File == 0 || o.Length < 0 || o.BlockSize <= 0 || o.BlockSize > freshet.MaxBlockSize || o.Length/o.BlockSize > math.MaxUint32 {
		return o, freshet.Errorf(freshet.KindInvalid, op, o.Path, "an order to persist version %d of %d bytes in blocks of %d", o.File, o.Length, o.BlockSize)
	}
	return o, nil
}
