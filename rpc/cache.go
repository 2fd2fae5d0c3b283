package rpc

import (
	"context"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Cache is what a coordinator does about what is cached where.
type Cache interface {
	StartWarm(ctx context.Context, q freshet.WarmQuery) (freshet.WarmJob, error)
	// WarmJobs returns those that run and the last ones that ended: all, or the one of
	// an ID that is not 0.
	WarmJobs(ctx context.Context, id uint64) ([]freshet.WarmJob, error)
	// CancelWarm returns the warm that was ended.
	CancelWarm(ctx context.Context, id uint64) (freshet.WarmJob, error)
	InspectCache(ctx context.Context, q freshet.CacheQuery) (freshet.CachePage, error)
	FreeCache(ctx context.Context, q freshet.FreeQuery) (freshet.FreeResult, error)
}

// CacheServer adapts Cache to the wire.
type CacheServer struct {
	freshetv1.UnimplementedCacheServiceServer
	cache   Cache
	forward *Forwarder
}

// NewCacheServer returns the adapter.
func NewCacheServer(c Cache, forward *Forwarder) *CacheServer {
	return &CacheServer{cache: c, forward: forward}
}

func caches(c grpc.ClientConnInterface) freshetv1.CacheServiceClient {
	return freshetv1.NewCacheServiceClient(c)
}

// StartWarm implements the service.
func (s *CacheServer) StartWarm(ctx context.Context, req *freshetv1.StartWarmRequest) (*freshetv1.StartWarmResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.StartWarmRequest) (*freshetv1.StartWarmResponse, error) {
			q, err := warmQueryOfWire(req)
			if err != nil {
				return nil, err
			}
			j, err := s.cache.StartWarm(ctx, q)
			if err != nil {
				return nil, err
			}
			return &freshetv1.StartWarmResponse{Warm: warmJobToWire(&j)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.StartWarmRequest) (*freshetv1.StartWarmResponse, error) {
			return caches(c).StartWarm(ctx, req)
		})
}

// ListWarms implements the service.
func (s *CacheServer) ListWarms(ctx context.Context, req *freshetv1.ListWarmsRequest) (*freshetv1.ListWarmsResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListWarmsRequest) (*freshetv1.ListWarmsResponse, error) {
			all, err := s.cache.WarmJobs(ctx, req.GetId())
			if err != nil {
				return nil, err
			}
			out := &freshetv1.ListWarmsResponse{}
			for i := range all {
				out.Warms = append(out.Warms, warmJobToWire(&all[i]))
			}
			return out, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListWarmsRequest) (*freshetv1.ListWarmsResponse, error) {
			return caches(c).ListWarms(ctx, req)
		})
}

// CancelWarm implements the service.
func (s *CacheServer) CancelWarm(ctx context.Context, req *freshetv1.CancelWarmRequest) (*freshetv1.CancelWarmResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.CancelWarmRequest) (*freshetv1.CancelWarmResponse, error) {
			if req.GetId() == 0 {
				return nil, freshet.Errorf(freshet.KindInvalid, "cancel warm", "", "the id of the warm is required")
			}
			j, err := s.cache.CancelWarm(ctx, req.GetId())
			if err != nil {
				return nil, err
			}
			return &freshetv1.CancelWarmResponse{Warm: warmJobToWire(&j)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.CancelWarmRequest) (*freshetv1.CancelWarmResponse, error) {
			return caches(c).CancelWarm(ctx, req)
		})
}

// InspectCache implements the service.
func (s *CacheServer) InspectCache(ctx context.Context, req *freshetv1.InspectCacheRequest) (*freshetv1.InspectCacheResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.InspectCacheRequest) (*freshetv1.InspectCacheResponse, error) {
			p, err := freshet.ParsePath(req.GetPath())
			if err != nil {
				return nil, err
			}
			page, err := s.cache.InspectCache(ctx, freshet.CacheQuery{
				Path: p, Recursive: req.GetRecursive(), Filter: cacheFilterOfWire(req.GetFilter()), Place: cachePlaceOfWire(req.GetPlace()),
				PageSize: int(req.GetPageSize()), PageToken: req.GetPageToken(),
			})
			if err != nil {
				return nil, err
			}
			return cachePageToWire(&page), nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.InspectCacheRequest) (*freshetv1.InspectCacheResponse, error) {
			return caches(c).InspectCache(ctx, req)
		})
}

// FreeCache implements the service.
func (s *CacheServer) FreeCache(ctx context.Context, req *freshetv1.FreeCacheRequest) (*freshetv1.FreeCacheResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.FreeCacheRequest) (*freshetv1.FreeCacheResponse, error) {
			p, err := freshet.ParsePath(req.GetPath())
			if err != nil {
				return nil, err
			}
			r, err := s.cache.FreeCache(ctx, freshet.FreeQuery{
				Path: p, Recursive: req.GetRecursive(), Filter: cacheFilterOfWire(req.GetFilter()), DryRun: req.GetDryRun(),
			})
			if err != nil {
				return nil, err
			}
			return &freshetv1.FreeCacheResponse{
				Files: r.Files, Copies: r.Copies, Bytes: r.Bytes, Pending: r.Pending, Refused: r.Refused, Refusals: failuresToWire(r.Refusals),
			}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.FreeCacheRequest) (*freshetv1.FreeCacheResponse, error) {
			return caches(c).FreeCache(ctx, req)
		})
}

func warmQueryOfWire(req *freshetv1.StartWarmRequest) (freshet.WarmQuery, error) {
	q := freshet.WarmQuery{
		Filter: cacheFilterOfWire(req.GetFilter()), Place: cachePlaceOfWire(req.GetPlace()), Replicas: int(req.GetReplicas()),
	}
	for _, text := range req.GetPaths() {
		p, err := freshet.ParsePath(text)
		if err != nil {
			return q, err
		}
		q.Paths = append(q.Paths, p)
	}
	if req.GetOpId() != "" {
		op, err := freshet.ParseOpID(req.GetOpId())
		if err != nil {
			return q, err
		}
		q.Op = op
	}
	return q, nil
}

func cacheFilterOfWire(f *freshetv1.CacheFilter) freshet.CacheFilter {
	out := freshet.CacheFilter{
		Include: f.GetInclude(), Exclude: f.GetExclude(), MinSize: f.GetMinSize(), MaxSize: f.GetMaxSize(), FirstBytes: f.GetFirstBytes(),
	}
	if f.GetNewerThan() != nil {
		out.NewerThan = f.GetNewerThan().AsTime()
	}
	return out
}

func cacheFilterToWire(f *freshet.CacheFilter) *freshetv1.CacheFilter {
	out := &freshetv1.CacheFilter{
		Include: f.Include, Exclude: f.Exclude, MinSize: f.MinSize, MaxSize: f.MaxSize, FirstBytes: f.FirstBytes,
	}
	if !f.NewerThan.IsZero() {
		out.NewerThan = timestamppb.New(f.NewerThan)
	}
	return out
}

func cachePlaceOfWire(p *freshetv1.CachePlace) freshet.CachePlace {
	return freshet.CachePlace{Node: p.GetNode(), Host: p.GetHost(), Rack: p.GetRack(), Zone: p.GetZone()}
}

func warmJobToWire(j *freshet.WarmJob) *freshetv1.WarmJob {
	p, q := &j.Progress, &j.Query
	out := &freshetv1.WarmJob{
		Id: j.ID, Filter: cacheFilterToWire(&q.Filter), Replicas: int32(q.Replicas), State: string(j.State), //nolint:gosec // bounded by MaxCopies
		Place:   &freshetv1.CachePlace{Node: q.Place.Node, Host: q.Place.Host, Rack: q.Place.Rack, Zone: q.Place.Zone},
		Counted: p.Counted, TotalFiles: p.TotalFiles, TotalBytes: p.TotalBytes, Files: p.Files, CachedBytes: p.CachedBytes,
		WarmedBytes: p.WarmedBytes, Failed: p.Failed, Elapsed: durationpb.New(p.Elapsed), Current: string(p.Current),
		Failures: failuresToWire(p.Failures), Error: j.Error,
	}
	for _, path := range q.Paths {
		out.Paths = append(out.Paths, string(path))
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

func failuresToWire(all []freshet.FileFailure) []*freshetv1.WarmFailure {
	var out []*freshetv1.WarmFailure
	for _, f := range all {
		out = append(out, &freshetv1.WarmFailure{Path: string(f.Path), Kind: f.Kind.String(), Error: f.Error})
	}
	return out
}

func cachePageToWire(page *freshet.CachePage) *freshetv1.InspectCacheResponse {
	out := &freshetv1.InspectCacheResponse{NextPageToken: page.NextPageToken}
	for i := range page.Files {
		f := &page.Files[i]
		w := &freshetv1.CachedFile{
			Path: string(f.Path), Type: f.Type.String(), Length: f.Length, Blocks: f.Blocks,
			CachedBytes: f.CachedBytes, CachedBlocks: f.CachedBlocks, Pinned: f.Pinned,
		}
		for _, s := range f.Nodes {
			w.Nodes = append(w.Nodes, &freshetv1.NodeShare{Node: s.Node, Tier: s.Tier, Blocks: s.Blocks, Bytes: s.Bytes})
		}
		out.Files = append(out.Files, w)
	}
	return out
}

func warmedToWire(all []freshet.WarmedBlock) []*freshetv1.WarmedBlock {
	var out []*freshetv1.WarmedBlock
	for _, w := range all {
		one := &freshetv1.WarmedBlock{
			Block: &freshetv1.BlockReport{FileId: uint64(w.Block.File), Index: w.Block.Index}, Fetched: w.Fetched, Kind: uint32(w.Kind), Error: w.Error,
		}
		out = append(out, one)
	}
	return out
}

func warmedOfWire(all []*freshetv1.WarmedBlock) []freshet.WarmedBlock {
	var out []freshet.WarmedBlock
	for _, w := range all {
		one := freshet.WarmedBlock{Block: blockIDOfWire(w.GetBlock()), Fetched: w.GetFetched(), Error: w.GetError()}
		if one.Kind = freshet.KindInternal; w.GetKind() <= math.MaxUint8 {
			one.Kind = freshet.Kind(w.GetKind())
		}
		out = append(out, one)
	}
	return out
}
