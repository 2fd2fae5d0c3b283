package server

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/gateway/rest"
	"github.com/freshet-io/freshet/internal/run"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/ufs"
)

const dataPrefix = rest.DataPrefix

// CacheNode runs a cache node until ctx ends.
func (p *Process) CacheNode(ctx context.Context, f *config.File) error {
	id, err := identity(f.TLS)
	if err != nil {
		return err
	}
	stopTracing, err := p.startTracing(ctx, "cachenode")
	if err != nil {
		return err
	}
	defer stopTracing()
	var ls listeners
	defer ls.close()
	grpcL := ls.bind(ctx, "data", f.Listen.Data)
	httpL := ls.bind(ctx, "http", f.Listen.HTTP)
	if ls.err != nil {
		return ls.err
	}
	sock, err := openSocket(ctx, f.Listen)
	if err != nil {
		return err
	}
	defer sock.close()
	who, blocks, err := p.openBlocks(f)
	if err != nil {
		return err
	}
	defer func() { _, _ = who.Close(), blocks.Close() }() // nothing is lost by a failed close of a cache

	conn, err := rpc.Dial(f.Coordinators, rpc.DialOptions{TLS: id.Client(), NoRetry: true, MaxBackoff: time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the process ends
	leader := rpc.NewCoordinator(conn)
	others := rpc.NewConns(rpc.DialOptions{TLS: id.Client(), MaxMessage: rpc.MaxDataMessage, NoRetry: true})
	defer func() { _ = others.Close() }() // as above
	pool := rpc.NewNodePool(others)

	self := freshet.Node{
		ID: who.Node(), Name: f.Node.Name, GRPC: advertised(f.Advertise.Data, grpcL), HTTP: advertised(f.Advertise.HTTP, httpL),
		Host: hostOf(f), Socket: f.Listen.Socket, Incarnation: who.Incarnation(),
	}
	mounts, err := p.mounts(f)
	if err != nil {
		return err
	}
	node := cachenode.New(cachenode.Deps{
		Coordinator: leader, Mounts: mounts, Blocks: blocks, Identity: who, Remote: pool, Peers: pool,
		Log: p.Log, Metrics: p.Metrics,
	}, cachenode.Options{
		Node: self, Rack: f.Locality.Rack, Zone: f.Locality.Zone,
		Caching: ufs.Caching{Partial: *f.Cache.Partial, Passive: *f.Cache.Passive}, Fill: fillOf(f),
	})

	gsrv := rpc.NewServer(rpc.ServerOptions{TLS: id.Server(), MaxMessage: rpc.MaxDataMessage, Log: p.Log})
	freshetv1.RegisterBlockServiceServer(gsrv.Registrar(), rpc.NewBlockServer(node))
	freshetv1.RegisterKeepServiceServer(gsrv.Registrar(), rpc.NewKeepServer(node))
	freshetv1.RegisterReadAheadServiceServer(gsrv.Registrar(), rpc.NewAheadServer(node))
	freshetv1.RegisterRangeServiceServer(gsrv.Registrar(), rpc.NewRangeServer(node, ctx.Done()))
	var kept *client.Leases
	if n := *f.Leases.Max; n > 0 {
		kept = client.NewLeases(leader.Leases(), client.LeaseOptions{Max: n, Log: p.Log, Metrics: p.Metrics})
	}
	files := client.New(leader, ownNode{node, self.ID, pool}, client.Options{
		Host: self.Host, Rack: f.Locality.Rack, Zone: f.Locality.Zone, Node: self.ID, Leases: kept,
	})
	mux := http.NewServeMux()
	p.common(mux, httpL, func(context.Context) error { return node.Ready() })
	mux.Handle("/", rest.NotFound())
	handler := rest.WithRequestID(splitRoutes(rest.NewData(files, p.Log), mux))

	p.Ready(Addresses{Data: self.GRPC, HTTP: self.HTTP})
	parts := []run.Part{{Name: "storages", Run: func(ctx context.Context) error { return p.keepOpen(ctx, mounts) }}}
	if kept != nil {
		parts = append(parts, run.Part{Name: "leases", Run: kept.Run})
	}
	return run.Ordered(ctx, append(parts,
		run.Part{Name: "cache", Run: blocks.Run},
		run.Part{Name: "cache node", Run: node.Run},
		run.Part{Name: "socket", Run: func(ctx context.Context) error { return p.serveSocket(ctx, sock, node) }},
		run.Part{Name: "gRPC", Run: func(ctx context.Context) error { return gsrv.Serve(ctx, grpcL) }},
		run.Part{Name: "HTTP", Run: func(ctx context.Context) error { return p.serveHTTP(ctx, httpL, handler, id) }},
	)...)
}

// fillOf returns how the node fetches blocks.
func fillOf(f *config.File) fill.Options {
	c := &f.Cache
	return fill.Options{
		MaxFills: c.Fetch.Blocks, Range: c.Fetch.Range.Bytes(), Parallel: c.Fetch.Parallel, MaxRanges: c.Fetch.Requests,
		Background: c.Background.Blocks, BackgroundRate: c.Background.Rate.Bytes(),
	}
}

func hostOf(f *config.File) string {
	if f.Locality.Host != "" {
		return f.Locality.Host
	}
	host, err := os.Hostname()
	if err != nil {
		return "" // only a hint
	}
	return host
}

// keepOpen tries again to open storages that could not be opened, until ctx ends,
// and closes all then.
func (p *Process) keepOpen(ctx context.Context, mounts *ufs.Mounts) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := mounts.Reopen(); err != nil {
				p.Log.DebugContext(ctx, "not all storages could be opened", "error", err)
			}
		case <-ctx.Done():
			return mounts.Close()
		}
	}
}

// openBlocks opens the blocks and the identity that belongs to them.
func (p *Process) openBlocks(f *config.File) (*cachenode.Identity, *store.Store, error) {
	who := cachenode.NewIdentity()
	if keepsBlocks(f) {
		dir, err := dataDir(f, "node")
		if err != nil {
			return nil, nil, err
		}
		if who, err = cachenode.OpenIdentity(dir); err != nil {
			return nil, nil, err
		}
	}
	blocks, err := store.Open(tiersOf(f), store.Options{Log: p.Log})
	if err != nil {
		_ = who.Close() // the first error is the one to tell
		return nil, nil, err
	}
	return who, blocks, nil
}

// keepsBlocks reports whether blocks survive a restart, and with them the identity.
func keepsBlocks(f *config.File) bool {
	return slices.ContainsFunc(f.Cache.Tiers, func(t config.Tier) bool { return t.Kind != "memory" })
}

func tiersOf(f *config.File) []store.Tier {
	var tiers []store.Tier
	for _, t := range f.Cache.Tiers {
		st := store.Tier{
			Kind: store.Kind(t.Kind), Policy: cmp.Or(t.Eviction, f.Cache.Eviction),
			High: float64(t.HighWatermark) / 100, Low: float64(t.LowWatermark) / 100,
		}
		for _, d := range t.Directories() {
			st.Dirs = append(st.Dirs, store.Dir{Path: d.Path, Capacity: d.Size.Bytes()})
		}
		tiers = append(tiers, st)
	}
	return tiers
}

// ownNode reaches the node of this process without a socket.
type ownNode struct {
	node *cachenode.Node
	self freshet.NodeID
	pool *rpc.NodePool
}

func (o ownNode) ReadBlock(ctx context.Context, n freshet.Node, req freshet.BlockRead) (freshet.BlockStream, error) {
	if n.ID == o.self {
		return o.node.Read(ctx, req)
	}
	return o.pool.ReadBlock(ctx, n, req)
}

// ReadAhead has a node fetch a block.
func (o ownNode) ReadAhead(ctx context.Context, n freshet.Node, req freshet.BlockRead) error {
	if n.ID == o.self {
		o.node.ReadAhead(ctx, req)
		return nil
	}
	return o.pool.ReadAhead(ctx, n, req)
}

func (o ownNode) WriteFile(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
	if t.Node.ID == o.self {
		return o.node.Write(ctx, t, body, length)
	}
	return o.pool.WriteFile(ctx, t, body, length)
}
