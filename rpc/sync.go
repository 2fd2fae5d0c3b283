package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Syncs is what a coordinator does about syncs that go on without their caller.
type Syncs interface {
	StartSync(ctx context.Context, q freshet.SyncQuery) (freshet.SyncJob, error)
	// SyncJobs returns those that run and the last ones that ended: all, the one
	// of an ID that is not 0, or those that concern a path that is not "".
	SyncJobs(ctx context.Context, id uint64, p freshet.Path) ([]freshet.SyncJob, error)
	// CancelSync returns the sync that was ended.
	CancelSync(ctx context.Context, id uint64) (freshet.SyncJob, error)
}

// SyncServer adapts Syncs to the wire.
type SyncServer struct {
	freshetv1.UnimplementedSyncServiceServer
	syncs   Syncs
	forward *Forwarder
}

// NewSyncServer returns the adapter.
func NewSyncServer(s Syncs, forward *Forwarder) *SyncServer {
	return &SyncServer{syncs: s, forward: forward}
}

func syncs(c grpc.ClientConnInterface) freshetv1.SyncServiceClient {
	return freshetv1.NewSyncServiceClient(c)
}

// StartSync implements the service.
func (s *SyncServer) StartSync(ctx context.Context, req *freshetv1.StartSyncRequest) (*freshetv1.StartSyncResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.StartSyncRequest) (*freshetv1.StartSyncResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			q := freshet.SyncQuery{Op: op, Path: p, Recursive: req.GetRecursive()}
			if req.GetMaxAge() != "" {
				if q.MaxAge, err = freshet.ParseInterval(req.GetMaxAge()); err != nil {
					return nil, err
				}
			}
			j, err := s.syncs.StartSync(ctx, q)
			if err != nil {
				return nil, err
			}
			return &freshetv1.StartSyncResponse{Sync: syncJobToWire(j)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.StartSyncRequest) (*freshetv1.StartSyncResponse, error) {
			return syncs(c).StartSync(ctx, req)
		})
}

// ListSyncs implements the service.
func (s *SyncServer) ListSyncs(ctx context.Context, req *freshetv1.ListSyncsRequest) (*freshetv1.ListSyncsResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListSyncsRequest) (*freshetv1.ListSyncsResponse, error) {
			p, err := optionalPath(req.GetPath())
			if err != nil {
				return nil, err
			}
			all, err := s.syncs.SyncJobs(ctx, req.GetId(), p)
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListSyncsResponse{}
			for _, j := range all {
				out.Syncs = append(out.Syncs, syncJobToWire(j))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListSyncsRequest) (*freshetv1.ListSyncsResponse, error) {
			return syncs(c).ListSyncs(ctx, req)
		})
}

// CancelSync implements the service.
func (s *SyncServer) CancelSync(ctx context.Context, req *freshetv1.CancelSyncRequest) (*freshetv1.CancelSyncResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.CancelSyncRequest) (*freshetv1.CancelSyncResponse, error) {
			if req.GetId() == 0 {
				return nil, freshet.Errorf(freshet.KindInvalid, "cancel sync", "", "the id of the sync is required")
			}
			j, err := s.syncs.CancelSync(ctx, req.GetId())
			if err != nil {
				return nil, err
			}
			return &freshetv1.CancelSyncResponse{Sync: syncJobToWire(j)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.CancelSyncRequest) (*freshetv1.CancelSyncResponse, error) {
			return syncs(c).CancelSync(ctx, req)
		})
}

func syncJobToWire(j freshet.SyncJob) *freshetv1.SyncJob {
	p := j.Progress
	out := &freshetv1.SyncJob{
		Id: j.ID, Path: string(j.Path), Recursive: j.Recursive, MaxAge: j.MaxAge.String(), State: string(j.State),
		Directories: p.Directories, Fresh: p.Fresh, Entries: p.Entries, Changed: p.Changed, Failed: p.Failed,
		Elapsed: durationpb.New(p.Elapsed), Current: string(p.Current), Done: p.Done, Error: j.Error,
	}
	if !j.StartedAt.IsZero() {
		out.StartedAt = timestamppb.New(j.StartedAt)
	}
	if !j.EndedAt.IsZero() {
		out.EndedAt = timestamppb.New(j.EndedAt)
	}
	if j.Kind != freshet.KindOK {
		out.Kind = j.Kind.String()
	}
	return out
}
