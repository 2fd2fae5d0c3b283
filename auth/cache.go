package auth

import (
	"context"

	"github.com/freshet-io/freshet"
)

// StartWarm implements rpc.Cache.
func (g *Guard) StartWarm(ctx context.Context, q freshet.WarmQuery) (freshet.WarmJob, error) {
	if err := g.super(ctx, "warm", ""); err != nil {
		return freshet.WarmJob{}, err
	}
	return g.region.StartWarm(ctx, q)
}

// WarmJobs implements rpc.Cache.
func (g *Guard) WarmJobs(ctx context.Context, id uint64) ([]freshet.WarmJob, error) {
	if err := g.super(ctx, "list warms", ""); err != nil {
		return nil, err
	}
	return g.region.WarmJobs(ctx, id)
}

// CancelWarm implements rpc.Cache.
func (g *Guard) CancelWarm(ctx context.Context, id uint64) (freshet.WarmJob, error) {
	if err := g.super(ctx, "cancel warm", ""); err != nil {
		return freshet.WarmJob{}, err
	}
	return g.region.CancelWarm(ctx, id)
}

// InspectCache implements rpc.Cache.
func (g *Guard) InspectCache(ctx context.Context, q freshet.CacheQuery) (freshet.CachePage, error) {
	if err := g.super(ctx, "inspect cache", q.Path); err != nil {
		return freshet.CachePage{}, err
	}
	return g.region.InspectCache(ctx, q)
}

// FreeCache implements rpc.Cache.
func (g *Guard) FreeCache(ctx context.Context, q freshet.FreeQuery) (freshet.FreeResult, error) {
	if err := g.super(ctx, "free cache", q.Path); err != nil {
		return freshet.FreeResult{}, err
	}
	return g.region.FreeCache(ctx, q)
}
