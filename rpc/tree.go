package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// RemoveTree implements the service.
func (s *NamespaceServer) RemoveTree(req *freshetv1.RemoveTreeRequest, stream grpc.ServerStreamingServer[freshetv1.RemoveTreeResponse]) error {
	ctx := stream.Context()
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return StatusOf(err)
	}
	err = s.ns.RemoveTree(ctx, freshet.RemoveQuery{Op: op, Path: p, Recursive: req.GetRecursive()}, func(pr freshet.RemoveProgress) error {
		m := &freshetv1.RemoveTreeResponse{Entries: pr.Entries, Current: string(pr.Current), Done: pr.Done}
		if pr.Done {
			m.Token = pr.Token.String()
		}
		return stream.Send(m)
	})
	if err == nil {
		return nil
	}
	fctx, conn, err := s.forward.toLeader(ctx, err)
	if err != nil {
		return StatusOf(err)
	}
	from, err := ns(conn).RemoveTree(fctx, req)
	if err != nil {
		return err
	}
	return relay(from, stream)
}

// RemoveTree implements Namespace.
func (c *Coordinator) RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // stops the removal if report fails
	stream, err := c.ns.RemoveTree(ctx, &freshetv1.RemoveTreeRequest{Path: string(q.Path), Recursive: q.Recursive, OpId: newOp(q.Op).String()})
	if err != nil {
		return ErrorOf(err)
	}
	return drain(stream, func(m *freshetv1.RemoveTreeResponse) error {
		pr := freshet.RemoveProgress{Entries: m.GetEntries(), Current: freshet.Path(m.GetCurrent()), Done: m.GetDone()}
		if pr.Token, err = freshet.ParseToken(m.GetToken()); err != nil {
			return freshet.Wrap("read message", "", err)
		}
		return report(pr)
	})
}

// PlanRename implements the service.
func (s *NamespaceServer) PlanRename(ctx context.Context, req *freshetv1.PlanRenameRequest) (*freshetv1.PlanRenameResponse, error) {
	return serve(ctx, s.forward, req, s.planRename,
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.PlanRenameRequest) (*freshetv1.PlanRenameResponse, error) {
			return ns(c).PlanRename(ctx, req)
		})
}

func (s *NamespaceServer) planRename(ctx context.Context, req *freshetv1.PlanRenameRequest) (*freshetv1.PlanRenameResponse, error) {
	p, op, err := changeArgs(req.GetPath(), req.GetOpId())
	if err != nil {
		return nil, err
	}
	target, err := freshet.ParsePath(req.GetTarget())
	if err != nil {
		return nil, err
	}
	plan, err := s.ns.PlanRename(ctx, freshet.RenameQuery{Op: op, Path: p, Target: target, Overwrite: req.GetOverwrite()})
	if err != nil {
		return nil, err
	}
	return &freshetv1.PlanRenameResponse{
		Entry: EntryToWire(plan.Info), Atomic: plan.Atomic, Objects: plan.Objects, Bytes: plan.Bytes, Replaces: plan.Replaces,
	}, nil
}

// PlanRename implements Namespace.
func (c *Coordinator) PlanRename(ctx context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	req := &freshetv1.PlanRenameRequest{Path: string(q.Path), Target: string(q.Target), Overwrite: q.Overwrite}
	if !q.Op.IsZero() {
		req.OpId = q.Op.String()
	}
	r, err := c.ns.PlanRename(ctx, req)
	if err != nil {
		return freshet.RenamePlan{}, ErrorOf(err)
	}
	plan := freshet.RenamePlan{Atomic: r.GetAtomic(), Objects: r.GetObjects(), Bytes: r.GetBytes(), Replaces: r.GetReplaces()}
	plan.Info, err = EntryOfWire(r.GetEntry())
	return plan, err
}
