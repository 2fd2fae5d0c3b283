package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// NamespaceServer adapts a Namespace to the wire. The REST gateway calls it in
// process.
type NamespaceServer struct {
	freshetv1.UnimplementedNamespaceServiceServer
	ns      Namespace
	forward *Forwarder
	direct  []grpc.CallOption
}

// NewNamespaceServer returns the adapter; forward may be nil where the member
// always leads.
func NewNamespaceServer(ns Namespace, forward *Forwarder) *NamespaceServer {
	return &NamespaceServer{ns: ns, forward: forward, direct: direct()}
}

type nsClient = freshetv1.NamespaceServiceClient

func ns(c grpc.ClientConnInterface) nsClient { return freshetv1.NewNamespaceServiceClient(c) }

// Stat implements the service.
func (s *NamespaceServer) Stat(ctx context.Context, req *freshetv1.StatRequest) (*freshetv1.StatResponse, error) {
	local := func(ctx context.Context, req *freshetv1.StatRequest) (*freshetv1.StatResponse, error) {
		st, err := s.stat(ctx, req)
		if err != nil {
			return nil, err
		}
		return &freshetv1.StatResponse{Entry: statusToWire(st), LeaseNs: leaseTimeToWire(st.Lease)}, nil
	}
	return serve(ctx, s.forward, req, local,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.StatRequest) (*freshetv1.StatResponse, error) {
			return ns(c).Stat(ctx, req)
		})
}

func (s *NamespaceServer) stat(ctx context.Context, req *freshetv1.StatRequest) (freshet.Status, error) {
	p, opts, err := readArgs(ctx, req.GetPath(), req.GetSyncInterval(), req.GetAfter())
	if err == nil {
		opts.Lease, err = leaseOfWire(req.GetLease())
	}
	if err != nil {
		return freshet.Status{}, err
	}
	return s.ns.Stat(ctx, p, opts)
}

func readArgs(ctx context.Context, path, interval, token string) (freshet.Path, freshet.ReadOptions, error) {
	p, err := freshet.ParsePath(path)
	if err != nil {
		return "", freshet.ReadOptions{}, err
	}
	opts, err := readOptionsOfWire(interval, after(ctx, token))
	return p, opts, err
}

// maxBatch bounds BatchStat.
const maxBatch = 1000

// BatchStat implements the service.
func (s *NamespaceServer) BatchStat(ctx context.Context, req *freshetv1.BatchStatRequest) (*freshetv1.BatchStatResponse, error) {
	local := func(ctx context.Context, req *freshetv1.BatchStatRequest) (*freshetv1.BatchStatResponse, error) {
		outcomes, err := s.batchStat(ctx, req)
		if err != nil {
			return nil, err
		}
		out := &freshetv1.BatchStatResponse{Results: make([]*freshetv1.StatResult, len(outcomes))}
		for i := range outcomes {
			out.Results[i] = outcomeToWire(&outcomes[i], req.GetPaths()[i])
		}
		return out, nil
	}
	return serve(ctx, s.forward, req, local,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.BatchStatRequest) (*freshetv1.BatchStatResponse, error) {
			return ns(c).BatchStat(ctx, req)
		})
}

func (s *NamespaceServer) batchStat(ctx context.Context, req *freshetv1.BatchStatRequest) ([]freshet.StatOutcome, error) {
	if n := len(req.GetPaths()); n > maxBatch {
		return nil, freshet.Errorf(freshet.KindInvalid, "batch stat", "", "%d paths, more than %d", n, maxBatch)
	}
	opts, err := readOptionsOfWire(req.GetSyncInterval(), after(ctx, req.GetAfter()))
	if err != nil {
		return nil, err
	}
	out := make([]freshet.StatOutcome, len(req.GetPaths()))
	for i, text := range req.GetPaths() {
		p, err := freshet.ParsePath(text)
		if err == nil {
			out[i].Status, err = s.ns.Stat(ctx, p, opts)
		}
		if freshet.IsKind(err, freshet.KindNotLeader) {
			return nil, err
		}
		out[i].Err = err
	}
	return out, nil
}

func outcomeToWire(o *freshet.StatOutcome, path string) *freshetv1.StatResult {
	if err := o.Err; err != nil {
		return &freshetv1.StatResult{
			Error: &freshetv1.ErrorDetail{Kind: kindOf(err).String(), Path: path}, Message: strings.ToValidUTF8(err.Error(), "\ufffd"),
		}
	}
	return &freshetv1.StatResult{Entry: statusToWire(o.Status)}
}

// List implements the service.
func (s *NamespaceServer) List(ctx context.Context, req *freshetv1.ListRequest) (*freshetv1.ListResponse, error) {
	local := func(ctx context.Context, req *freshetv1.ListRequest) (*freshetv1.ListResponse, error) {
		page, err := s.list(ctx, req)
		if err != nil {
			return nil, err
		}
		return pageToWire(page), nil
	}
	return serve(ctx, s.forward, req, local,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListRequest) (*freshetv1.ListResponse, error) {
			return ns(c).List(ctx, req)
		})
}

func (s *NamespaceServer) list(ctx context.Context, req *freshetv1.ListRequest) (freshet.ListPage, error) {
	p, opts, err := readArgs(ctx, req.GetPath(), req.GetSyncInterval(), req.GetAfter())
	if err != nil {
		return freshet.ListPage{}, err
	}
	if n := req.GetPageSize(); n < 0 || n > freshet.MaxListPage {
		return freshet.ListPage{}, freshet.Errorf(freshet.KindInvalid, "list", p, "page size %d is not between 1 and %d", n, freshet.MaxListPage)
	}
	return s.ns.List(ctx, freshet.ListQuery{
		Path: p, PageToken: req.GetPageToken(), PageSize: int(req.GetPageSize()), Recursive: req.GetRecursive(),
		Prefix: req.GetPrefix(), StartAfter: req.GetStartAfter(), Options: opts,
	})
}

// parseOp reads an operation ID; "" is none.
func parseOp(s string) (freshet.OpID, error) {
	if s == "" {
		return freshet.OpID{}, nil
	}
	op, err := freshet.ParseOpID(s)
	return op, freshet.Wrap("read message", "", err)
}

// Mkdir implements the service.
func (s *NamespaceServer) Mkdir(ctx context.Context, req *freshetv1.MkdirRequest) (*freshetv1.MkdirResponse, error) {
	return serve(ctx, s.forward, req, s.mkdir,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.MkdirRequest) (*freshetv1.MkdirResponse, error) {
			return ns(c).Mkdir(ctx, req)
		})
}

func (s *NamespaceServer) mkdir(ctx context.Context, req *freshetv1.MkdirRequest) (*freshetv1.MkdirResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	done, err := s.ns.Mkdir(ctx, freshet.MkdirQuery{Op: op, Path: p, Parents: req.GetParents(), Mode: req.GetMode()})
	if err != nil {
		return nil, err
	}
	return &freshetv1.MkdirResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
}

func changeArgs(path, opID string) (freshet.Path, freshet.OpID, error) {
	p, err := freshet.ParsePath(path)
	if err != nil {
		return "", freshet.OpID{}, err
	}
	op, err := parseOp(opID)
	return p, op, err
}

// Rename implements the service.
func (s *NamespaceServer) Rename(ctx context.Context, req *freshetv1.RenameRequest) (*freshetv1.RenameResponse, error) {
	return serve(ctx, s.forward, req, s.rename,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RenameRequest) (*freshetv1.RenameResponse, error) {
			return ns(c).Rename(ctx, req)
		})
}

func (s *NamespaceServer) rename(ctx context.Context, req *freshetv1.RenameRequest) (*freshetv1.RenameResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	target, err := freshet.ParsePath(req.GetTarget())
	if err != nil {
		return nil, err
	}
	done, err := s.ns.Rename(ctx, freshet.RenameQuery{Op: op, Path: p, Target: target, Overwrite: req.GetOverwrite()})
	if err != nil {
		return nil, err
	}
	return &freshetv1.RenameResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
}

// Remove implements the service.
func (s *NamespaceServer) Remove(ctx context.Context, req *freshetv1.RemoveRequest) (*freshetv1.RemoveResponse, error) {
	return serve(ctx, s.forward, req, s.remove,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RemoveRequest) (*freshetv1.RemoveResponse, error) {
			return ns(c).Remove(ctx, req)
		})
}

func (s *NamespaceServer) remove(ctx context.Context, req *freshetv1.RemoveRequest) (*freshetv1.RemoveResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	done, err := s.ns.Remove(ctx, freshet.RemoveQuery{Op: op, Path: p, Recursive: req.GetRecursive()})
	if err != nil {
		return nil, err
	}
	return &freshetv1.RemoveResponse{Token: done.Token.String()}, nil
}

// SetAttr implements the service.
func (s *NamespaceServer) SetAttr(ctx context.Context, req *freshetv1.SetAttrRequest) (*freshetv1.SetAttrResponse, error) {
	return serve(ctx, s.forward, req, s.setAttr,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.SetAttrRequest) (*freshetv1.SetAttrResponse, error) {
			return ns(c).SetAttr(ctx, req)
		})
}

func (s *NamespaceServer) setAttr(ctx context.Context, req *freshetv1.SetAttrRequest) (*freshetv1.SetAttrResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	q := freshet.SetAttrQuery{Op: op, Path: p, Mode: req.Mode}
	if v := req.GetOwner(); v != "" {
		q.Owner = &v
	}
	if v := req.GetGroup(); v != "" {
		q.Group = &v
	}
	done, err := s.ns.SetAttr(ctx, q)
	if err != nil {
		return nil, err
	}
	return &freshetv1.SetAttrResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}, nil
}

// Explain implements the service.
func (s *NamespaceServer) Explain(ctx context.Context, req *freshetv1.ExplainRequest) (*freshetv1.ExplainResponse, error) {
	return serve(ctx, s.forward, req, s.explain,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ExplainRequest) (*freshetv1.ExplainResponse, error) {
			return ns(c).Explain(ctx, req)
		})
}

func (s *NamespaceServer) explain(ctx context.Context, req *freshetv1.ExplainRequest) (*freshetv1.ExplainResponse, error) {
	p, err := freshet.ParsePath(req.GetPath())
	if err != nil {
		return nil, err
	}
	x, err := s.ns.Explain(ctx, p, req.GetCheck())
	if err != nil {
		return nil, err
	}
	return explanationToWire(x), nil
}

// Locate implements the service.
func (s *NamespaceServer) Locate(ctx context.Context, req *freshetv1.LocateRequest) (*freshetv1.LocateResponse, error) {
	return serve(ctx, s.forward, req, s.locate,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.LocateRequest) (*freshetv1.LocateResponse, error) {
			return ns(c).Locate(ctx, req)
		})
}

func (s *NamespaceServer) locate(ctx context.Context, req *freshetv1.LocateRequest) (*freshetv1.LocateResponse, error) {
	p, opts, err := readArgs(ctx, req.GetPath(), req.GetSyncInterval(), req.GetAfter())
	if err == nil {
		opts.Lease, err = leaseOfWire(req.GetLease())
	}
	if err != nil {
		return nil, err
	}
	if req.GetOffset() < 0 {
		return nil, freshet.Errorf(freshet.KindInvalid, "locate", p, "offset %d is negative", req.GetOffset())
	}
	loc, err := s.ns.Locate(ctx, freshet.LocateQuery{
		Path: p, Offset: req.GetOffset(), Length: req.GetLength(), Options: opts,
		Host: req.GetHost(), Rack: req.GetRack(), Zone: req.GetZone(), StaleFingerprint: req.GetStaleFingerprint(),
	})
	if err != nil {
		return nil, err
	}
	return locationToWire(loc), nil
}

// BeginWrite implements the service.
func (s *NamespaceServer) BeginWrite(ctx context.Context, req *freshetv1.BeginWriteRequest) (*freshetv1.BeginWriteResponse, error) {
	return serve(ctx, s.forward, req, s.beginWrite,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.BeginWriteRequest) (*freshetv1.BeginWriteResponse, error) {
			return ns(c).BeginWrite(ctx, req)
		})
}

func (s *NamespaceServer) beginWrite(ctx context.Context, req *freshetv1.BeginWriteRequest) (*freshetv1.BeginWriteResponse, error) {
	q, err := beginWriteOfWire(req)
	if err != nil {
		return nil, err
	}
	a, err := s.ns.BeginWrite(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &freshetv1.BeginWriteResponse{}
	beginAnswerToWire(&a, out)
	return out, nil
}

// AbortWrite implements the service.
func (s *NamespaceServer) AbortWrite(ctx context.Context, req *freshetv1.AbortWriteRequest) (*freshetv1.AbortWriteResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.AbortWriteRequest) (*freshetv1.AbortWriteResponse, error) {
			op, err := opOfWire(req.GetOp())
			if err == nil {
				err = s.ns.AbortWrite(ctx, op)
			}
			return &freshetv1.AbortWriteResponse{}, err
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.AbortWriteRequest) (*freshetv1.AbortWriteResponse, error) {
			return ns(c).AbortWrite(ctx, req)
		})
}

// Sync implements the service.
func (s *NamespaceServer) Sync(req *freshetv1.SyncRequest, stream grpc.ServerStreamingServer[freshetv1.SyncResponse]) error {
	ctx := stream.Context()
	p, err := freshet.ParsePath(req.GetPath())
	if err != nil {
		return StatusOf(err)
	}
	err = s.ns.Sync(ctx, p, req.GetRecursive(), func(pr freshet.SyncProgress) error {
		return stream.Send(ProgressToWire(pr))
	})
	if err == nil {
		return nil
	}
	fctx, conn, err := s.forward.toLeader(ctx, err)
	if err != nil {
		return StatusOf(err)
	}
	from, err := ns(conn).Sync(fctx, req)
	if err != nil {
		return err
	}
	return relay(from, stream)
}
