package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Quotas is what a coordinator does about quotas.
type Quotas interface {
	// Quotas returns all quotas in order of their paths, or those that count the
	// entry at p, and that of p itself, if p is not empty.
	Quotas(ctx context.Context, p freshet.Path) ([]freshet.Quota, error)
	SetQuota(ctx context.Context, c freshet.QuotaChange) (freshet.Quota, error)
	// RemoveQuota returns the quota that was removed.
	RemoveQuota(ctx context.Context, r freshet.QuotaRemoval) (freshet.Quota, error)
}

// QuotaServer adapts Quotas to the wire.
type QuotaServer struct {
	freshetv1.UnimplementedQuotaServiceServer
	quotas  Quotas
	forward *Forwarder
}

// NewQuotaServer returns the adapter.
func NewQuotaServer(q Quotas, forward *Forwarder) *QuotaServer {
	return &QuotaServer{quotas: q, forward: forward}
}

func quotas(c grpc.ClientConnInterface) freshetv1.QuotaServiceClient {
	return freshetv1.NewQuotaServiceClient(c)
}

// ListQuotas implements the service.
func (s *QuotaServer) ListQuotas(ctx context.Context, req *freshetv1.ListQuotasRequest) (*freshetv1.ListQuotasResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.ListQuotasRequest) (*freshetv1.ListQuotasResponse, error) {
			p, err := optionalPath(req.GetPath())
			if err != nil {
				return nil, err
			}
			all, err := s.quotas.Quotas(ctx, p)
			if err != nil {
				return nil, err
			}
			return &freshetv1.ListQuotasResponse{Quotas: quotasToWire(all)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.ListQuotasRequest) (*freshetv1.ListQuotasResponse, error) {
			return quotas(c).ListQuotas(ctx, req)
		})
}

// SetQuota implements the service.
func (s *QuotaServer) SetQuota(ctx context.Context, req *freshetv1.SetQuotaRequest) (*freshetv1.SetQuotaResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.SetQuotaRequest) (*freshetv1.SetQuotaResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			q, err := s.quotas.SetQuota(ctx, freshet.QuotaChange{
				Op: op, Path: p, MaxEntries: req.GetMaxEntries(), MaxBytes: req.GetMaxBytes(), Origin: req.GetOrigin(), DryRun: req.GetDryRun(),
			})
			if err != nil {
				return nil, err
			}
			return &freshetv1.SetQuotaResponse{Quota: QuotaToWire(q)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.SetQuotaRequest) (*freshetv1.SetQuotaResponse, error) {
			return quotas(c).SetQuota(ctx, req)
		})
}

// RemoveQuota implements the service.
func (s *QuotaServer) RemoveQuota(ctx context.Context, req *freshetv1.RemoveQuotaRequest) (*freshetv1.RemoveQuotaResponse, error) {
	return serve(ctx, s.forward, req,
		func(ctx context.Context, req *freshetv1.RemoveQuotaRequest) (*freshetv1.RemoveQuotaResponse, error) {
			p, op, err := changeArgs(req.GetPath(), req.GetOpId())
			if err != nil {
				return nil, err
			}
			q, err := s.quotas.RemoveQuota(ctx, freshet.QuotaRemoval{Op: op, Path: p, DryRun: req.GetDryRun()})
			if err != nil {
				return nil, err
			}
			return &freshetv1.RemoveQuotaResponse{Quota: QuotaToWire(q)}, nil
		},
		func(c grpc.ClientConnInterface, ctx context.Context, req *freshetv1.RemoveQuotaRequest) (*freshetv1.RemoveQuotaResponse, error) {
			return quotas(c).RemoveQuota(ctx, req)
		})
}

// QuotaToWire translates a quota.
func QuotaToWire(q freshet.Quota) *freshetv1.Quota {
	w := &freshetv1.Quota{
		Path: string(q.Path), MaxEntries: q.MaxEntries, MaxBytes: q.MaxBytes, UsedEntries: q.UsedEntries, UsedBytes: q.UsedBytes,
		ReservedEntries: q.ReservedEntries, ReservedBytes: q.ReservedBytes, Counting: q.Counting, Origin: q.Origin,
	}
	if !q.SetAt.IsZero() {
		w.SetAt = timestamppb.New(q.SetAt)
	}
	return w
}

func quotasToWire(all []freshet.Quota) []*freshetv1.Quota {
	var out []*freshetv1.Quota
	for _, q := range all {
		out = append(out, QuotaToWire(q))
	}
	return out
}

func quotasOfWire(all []*freshetv1.Quota) ([]freshet.Quota, error) {
	var out []freshet.Quota
	for _, w := range all {
		q, err := quotaOfWire(w)
		if err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}

func quotaOfWire(w *freshetv1.Quota) (freshet.Quota, error) {
	p, err := freshet.ParsePath(w.GetPath())
	q := freshet.Quota{
		Path: p, MaxEntries: w.GetMaxEntries(), MaxBytes: w.GetMaxBytes(), UsedEntries: w.GetUsedEntries(), UsedBytes: w.GetUsedBytes(),
		ReservedEntries: w.GetReservedEntries(), ReservedBytes: w.GetReservedBytes(), Counting: w.GetCounting(), Origin: w.GetOrigin(),
	}
	if w.GetSetAt() != nil {
		q.SetAt = w.GetSetAt().AsTime()
	}
	return q, freshet.Wrap("read message", "", err)
}

// Quotas implements Quotas.
func (c *Coordinator) Quotas(ctx context.Context, p freshet.Path) ([]freshet.Quota, error) {
	r, err := c.quotas.ListQuotas(ctx, &freshetv1.ListQuotasRequest{Path: string(p)})
	if err != nil {
		return nil, ErrorOf(err)
	}
	return quotasOfWire(r.GetQuotas())
}

// SetQuota implements Quotas.
func (c *Coordinator) SetQuota(ctx context.Context, q freshet.QuotaChange) (freshet.Quota, error) {
	r, err := c.quotas.SetQuota(ctx, &freshetv1.SetQuotaRequest{
		Path: string(q.Path), MaxEntries: q.MaxEntries, MaxBytes: q.MaxBytes, Origin: q.Origin, DryRun: q.DryRun, OpId: newOp(q.Op).String(),
	})
	if err != nil {
		return freshet.Quota{}, ErrorOf(err)
	}
	return quotaOfWire(r.GetQuota())
}

// RemoveQuota implements Quotas.
func (c *Coordinator) RemoveQuota(ctx context.Context, q freshet.QuotaRemoval) (freshet.Quota, error) {
	r, err := c.quotas.RemoveQuota(ctx, &freshetv1.RemoveQuotaRequest{Path: string(q.Path), DryRun: q.DryRun, OpId: newOp(q.Op).String()})
	if err != nil {
		return freshet.Quota{}, ErrorOf(err)
	}
	return quotaOfWire(r.GetQuota())
}

// lengthOfWire and lengthToWire translate a length that is negative if it is not
// known.
func lengthOfWire(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

func lengthToWire(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}
