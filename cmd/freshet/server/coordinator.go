package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/auth"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/leases"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
	api "github.com/freshet-io/freshet/docs/api"
	"github.com/freshet-io/freshet/gateway/rest"
	"github.com/freshet-io/freshet/internal/offheap"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/internal/version"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/ufs/all"
)

// coordinatorParts are a coordinator's listeners and what it is known as.
type coordinatorParts struct {
	client, http, raft, bus net.Listener
	self                    freshet.Member
	id                      *rpc.Identity
	face                    *face
}

// Coordinator runs a coordinator until ctx ends.
func (p *Process) Coordinator(ctx context.Context, cfg *config.File) error {
	id, err := identity(cfg.TLS)
	if err != nil {
		return err
	}
	stopTracing, err := p.startTracing(ctx, "coordinator")
	if err != nil {
		return err
	}
	defer stopTracing()
	var ls listeners
	defer ls.close()
	parts := coordinatorParts{
		id:     id,
		client: ls.bind(ctx, "client", cfg.Listen.Client), http: ls.bind(ctx, "http", cfg.Listen.HTTP),
		raft: ls.bind(ctx, "raft", cfg.Listen.Raft), bus: ls.bind(ctx, "bus", cfg.Listen.Bus),
	}
	if ls.err != nil {
		return ls.err
	}
	parts.face = p.newFace(parts.http)
	parts.self = freshet.Member{
		ID: cfg.Node.Name, Name: cfg.Node.Name, GRPC: advertised(cfg.Advertise.Client, parts.client), HTTP: advertised(cfg.Advertise.HTTP, parts.http),
		Raft: advertised(cfg.Advertise.Raft, parts.raft), Bus: advertised(cfg.Advertise.Bus, parts.bus),
		StateVersion: namespace.Version,
	}
	p.Ready(Addresses{
		Client: parts.self.GRPC, HTTP: parts.self.HTTP, Raft: parts.self.Raft, Bus: parts.self.Bus, Gossip: cfg.Listen.Gossip,
	})
	return run.Ordered(ctx,
		run.Part{Name: "coordinator", Run: func(ctx context.Context) error {
			way, err := p.found(ctx, cfg, parts)
			if err != nil {
				if ctx.Err() != nil {
					return nil //nolint:nilerr // it was told to stop
				}
				return err
			}
			return p.runCoordinator(ctx, cfg, parts, way)
		}},
		run.Part{Name: "HTTP", Run: func(ctx context.Context) error { return p.serveHTTP(ctx, parts.http, parts.face, id) }},
	)
}

// face is the HTTP handler of a coordinator: while the cluster is not founded one
// that says so, so that a supervisor sees a process that lives but is not ready.
type face struct{ now atomic.Pointer[http.Handler] }

func (p *Process) newFace(l net.Listener) *face {
	mux := http.NewServeMux()
	p.common(mux, l, func(context.Context) error { return unfounded() })
	mux.Handle("/", rest.Unavailable(unfounded()))
	f := &face{}
	f.set(rest.WithRequestID(mux))
	return f
}

func (f *face) set(h http.Handler) { f.now.Store(&h) }

// ServeHTTP implements http.Handler.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*f.now.Load()).ServeHTTP(w, r) }

// way is how a member came into its cluster. It is kept in the data directory:
// a member that crashed before its log had anything must decide the same again.
type way struct {
	Found []journal.Server `json:"found,omitempty"`
	Join  bool             `json:"join,omitempty"`
}

func (p *Process) found(ctx context.Context, cfg *config.File, parts coordinatorParts) (way, error) {
	dir, err := dataDir(cfg, "")
	if err != nil {
		return way{}, err
	}
	name := filepath.Join(dir, "founding.json")
	var w way
	b, err := os.ReadFile(name)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &w); err != nil {
			return w, freshet.Errorf(freshet.KindCorrupt, "start coordinator", "", "%s: %w", name, err)
		}
		return w, nil
	case !errors.Is(err, os.ErrNotExist):
		return w, freshet.Errorf(freshet.KindUnavailable, "start coordinator", "", "%w", err)
	}
	f := newFounding(cfg, parts.self, rpc.DialOptions{TLS: parts.id.Client(), NoRetry: true, MaxBackoff: time.Second})
	if w.Found, w.Join, err = f.run(ctx, parts.client, rpc.ServerOptions{TLS: parts.id.Server(), Log: p.Log, Grace: time.Second}); err != nil {
		return w, err
	}
	if b, err = json.Marshal(w); err != nil {
		return w, freshet.Errorf(freshet.KindInternal, "start coordinator", "", "%w", err)
	}
	if err := writeDurable(name, b); err != nil {
		return w, freshet.Errorf(freshet.KindUnavailable, "start coordinator", "", "%w", err)
	}
	return w, nil
}

// writeDurable writes a file that is there whole, or not at all, after a crash.
func writeDurable(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (p *Process) runCoordinator(ctx context.Context, cfg *config.File, parts coordinatorParts, w way) (err error) {
	dir, err := dataDir(cfg, "state")
	if err != nil {
		return err
	}
	_, memory := coordinator.SplitMemory(cfg.Raft.StateCache.Bytes())
	store, err := pebblekv.Open(dir, pebblekv.Options{CacheBytes: memory, Logger: p.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	opts, err := p.coordinatorOptions(cfg, parts, w)
	if err != nil {
		return err
	}
	c, err := coordinator.New(opts, coordinator.Deps{Store: store, Openers: all.Openers(p.Log, p.Metrics), Scratch: func() (kv.Store, func() error, error) { return scratch(cfg) }, Log: p.Log, Metrics: p.Metrics})
	if err != nil {
		return err
	}
	conns := rpc.NewConns(rpc.DialOptions{TLS: parts.id.Client(), NoRetry: true, MaxBackoff: time.Second})
	defer func() { _ = conns.Close() }() // nothing to be done about it
	b, err := p.newBus(cfg, c, parts.id, parts.bus)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	hooks := coordinator.Hooks{Announce: func(ctx context.Context, leader string, self freshet.Member) error {
		return joinAt(ctx, conns, leader, self, cfg.Cluster)
	}}
	if b != nil {
		b.hooks(&hooks)
	}
	c.Attach(hooks)
	p.onReload("placement", func(f *config.File) { c.SetPlacement(placementOptions(f)) })
	p.onReload("sync_engine", func(f *config.File) { c.SetSyncLimits(syncLimits(f)) })
	faces, err := p.faces(ctx, cfg, parts, c, b, conns)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	tasks := append([]run.Part{{Name: "coordinator", Run: c.Run}}, faces...)
	if w.Join {
		tasks = append(tasks, run.Part{Name: "join", Run: func(ctx context.Context) error { return p.join(ctx, cfg, conns, parts.self) }})
	}
	return run.Ordered(ctx, tasks...)
}

// scratch makes a store in which a snapshot is made ready to be restored.
func scratch(cfg *config.File) (kv.Store, func() error, error) {
	dir, err := dataDir(cfg, "restore")
	if err == nil {
		err = os.RemoveAll(dir) // of a process that ended in the middle
	}
	if err != nil {
		return nil, nil, err
	}
	store, err := pebblekv.Open(dir, pebblekv.Options{CacheBytes: 8 << 20})
	if err != nil {
		return nil, nil, err
	}
	return store, func() error { return errors.Join(store.Close(), os.RemoveAll(dir)) }, nil
}

func (p *Process) coordinatorOptions(cfg *config.File, parts coordinatorParts, w way) (coordinator.Options, error) {
	dir, err := dataDir(cfg, "raft")
	if err != nil {
		return coordinator.Options{}, err
	}
	wrap, err := p.wrap()
	if err != nil {
		return coordinator.Options{}, err
	}
	m := parts.self
	entries, _ := coordinator.SplitMemory(cfg.Raft.StateCache.Bytes())
	opts := coordinator.Options{
		Cluster: cfg.Cluster,
		Member:  namespace.Member{ID: m.ID, Name: m.Name, Raft: m.Raft, GRPC: m.GRPC, HTTP: m.HTTP, Bus: m.Bus},
		Journal: journal.Options{Dir: dir, Advertise: m.Raft, Heartbeat: cfg.Raft.Heartbeat.Value(), LogBytes: cfg.Raft.LogSize.Bytes()},
		Found:   w.Found, Environment: environment(cfg, p.Getenv), WrapMount: wrap,
		State:   namespace.Options{CacheBytes: entries, Alloc: offheap.New().Alloc},
		Version: version.Get().Version,
		Sync:    syncOptions(cfg),
		Leases:  leases.Options{Length: cfg.Leases.Length.Value(), Max: *cfg.Leases.Max},
	}
	opts.Journal.Listener, opts.Journal.Dial = parts.raft, nil
	if parts.id != nil {
		opts.Journal.Listener = tls.NewListener(parts.raft, parts.id.Mutual())
		dialer := &tls.Dialer{Config: parts.id.Client()}
		opts.Journal.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }
	}
	for _, m := range cfg.Mounts {
		change, err := m.Change("config")
		if err != nil {
			return opts, err
		}
		opts.Mounts = append(opts.Mounts, change)
	}
	opts.Placement = placementOptions(cfg)
	opts.Audit = coordinator.Audit{PerSecond: cfg.Audit.EntriesPerSecond}
	if opts.Policies, err = cfg.PolicyChanges(freshet.OriginConfig); err != nil {
		return opts, err
	}
	opts.Quotas, err = cfg.QuotaChanges(freshet.OriginConfig)
	return opts, err
}

// placementOptions say which nodes hold blocks.
func placementOptions(f *config.File) placement.Options {
	l := &f.Placement
	return placement.Options{Policy: l.Policy, Heat: placement.HeatOptions{Copies: l.HotCopies, Reads: l.HotReads}}
}

// syncLimits are the bounds of what a coordinator asks of storages.
func syncOptions(f *config.File) metasync.Options {
	m := &f.Metadata
	return metasync.Options{
		Limits:   syncLimits(f),
		Absent:   metasync.AbsentLimits{Off: *m.AbsentPaths == 0, Entries: *m.AbsentPaths, Bytes: m.AbsentMemory.Bytes()},
		Prefetch: metasync.PrefetchOptions{Off: !*m.Prefetch, Share: m.PrefetchShare, Bytes: m.PrefetchMemory.Bytes()},
	}
}

func syncLimits(f *config.File) metasync.Limits {
	return metasync.Limits{Parallel: f.SyncEngine.Parallel, PerMount: f.SyncEngine.PerMount}
}

// holder lets clients of a coordinator keep answers. Anybody may: what a session may
// keep, each call is asked for in the name of its caller.
type holder struct{ c *coordinator.Coordinator }

// OpenLeases implements rpc.Leases.
func (h holder) OpenLeases(ctx context.Context, o freshet.LeaseOpening) (rpc.LeaseSession, error) {
	s, err := h.c.OpenLeases(ctx, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// faces are the servers of a coordinator.
func (p *Process) faces(ctx context.Context, cfg *config.File, parts coordinatorParts, c *coordinator.Coordinator, b *bus, conns *rpc.Conns) ([]run.Part, error) {
	forward := rpc.NewForwarder(c, conns)
	var busPeers rpc.Peers
	if b != nil {
		busPeers = peers{b}
	}
	var served auth.Services = c
	if cfg.Auth.Mode == config.AuthSimple {
		guard, err := newGuard(cfg.Auth, c)
		if err != nil {
			return nil, err
		}
		served = guard
		if busPeers != nil {
			busPeers = guard.GuardPeers(busPeers)
		}
	}
	ns := rpc.NewNamespaceServer(served, forward)
	services := rest.Services{
		Namespace: ns, Mounts: rpc.NewMountServer(served, forward), Policies: rpc.NewPolicyServer(served, forward),
		Cluster: rpc.NewClusterServer(young{served, c, waiting{newFounding(cfg, parts.self, rpc.DialOptions{})}}, busPeers, forward),
		Events:  rpc.NewEventServer(c, forward), // which have a token of their own
		Access:  rpc.NewAccessServer(served, forward),
		Quotas:  rpc.NewQuotaServer(served, forward),
		Syncs:   rpc.NewSyncServer(served, forward),
		Cache:   rpc.NewCacheServer(served, forward),
		Fleet:   rpc.NewFleetServer(served, forward),
		Persist: rpc.NewPersistServer(served, forward),
		Check:   rpc.ForwardedChecker(served, forward),
	}
	handler, err := p.routes(ctx, parts, services, rpc.NewForwarded(served, forward))
	if err != nil {
		return nil, err
	}
	srv := rpc.NewServer(rpc.ServerOptions{TLS: parts.id.Server(), Log: p.Log})
	rpc.RegisterNamespace(srv.Registrar(), ns)
	register(srv.Registrar(), services, rpc.NewNodeServer(c, forward))
	freshetv1.RegisterCheckServiceServer(srv.Registrar(), rpc.NewCheckServer(served, forward))
	freshetv1.RegisterLeaseServiceServer(srv.Registrar(), rpc.NewLeaseServer(holder{c}, forward, ctx.Done()))
	freshetv1.RegisterStateServiceServer(srv.Registrar(), rpc.NewStateServer(served, forward))
	if cfg.Auth.Mode != config.AuthSimple { // in whose name each call of many is made is not told
		freshetv1.RegisterBatchServiceServer(srv.Registrar(), rpc.NewBatchServer(c, forward))
	}
	parts.face.set(handler)
	tasks := []run.Part{{Name: "gRPC", Run: func(ctx context.Context) error { return srv.Serve(ctx, parts.client) }}}
	if b != nil {
		tasks = append(tasks,
			run.Part{Name: "bus server", Run: func(ctx context.Context) error { return b.server.Serve(ctx, b.listen) }},
			run.Part{Name: "bus", Run: b.run})
	}
	return tasks, nil
}

func register(r grpc.ServiceRegistrar, s rest.Services, nodes freshetv1.NodeServiceServer) {
	freshetv1.RegisterMountServiceServer(r, s.Mounts)
	freshetv1.RegisterPolicyServiceServer(r, s.Policies)
	freshetv1.RegisterClusterServiceServer(r, s.Cluster)
	freshetv1.RegisterEventServiceServer(r, s.Events)
	freshetv1.RegisterAccessServiceServer(r, s.Access)
	freshetv1.RegisterNodeServiceServer(r, nodes)
	freshetv1.RegisterQuotaServiceServer(r, s.Quotas)
	freshetv1.RegisterSyncServiceServer(r, s.Syncs)
	freshetv1.RegisterCacheServiceServer(r, s.Cache)
	freshetv1.RegisterFleetServiceServer(r, s.Fleet)
	freshetv1.RegisterPersistServiceServer(r, s.Persist)
}

// routes are the HTTP routes of a coordinator.
func (p *Process) routes(ctx context.Context, parts coordinatorParts, s rest.Services, ns rpc.Namespace) (http.Handler, error) {
	gateway, err := rest.NewAPI(ctx, s)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	p.common(mux, parts.http, func(ctx context.Context) error {
		// Through the leader, so that a follower is ready only while it has one.
		r, err := s.Cluster.GetCluster(ctx, &freshetv1.GetClusterRequest{})
		if err == nil && r.GetLeader() == "" {
			err = unfounded()
		}
		return rpc.ErrorOf(err)
	})
	description, err := rest.OpenAPI(api.OpenAPI)
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(description) // the client is gone if this fails
	})
	mux.Handle("/v1/sync", rest.NewSync(ns))
	mux.Handle("/v1/check", rest.NewCheck(s.Check))
	mux.Handle("/v1/events", rest.NewEvents(s.Events))
	mux.Handle("/", gateway)
	data := rest.Redirect(func(r *http.Request, path freshet.Path) (string, error) { return pickNode(r.Context(), s, path) }, parts.id != nil)
	return rest.WithRequestID(splitRoutes(data, mux)), nil
}

// pickNode names the HTTP address of a live cache node: for one path always the
// same as long as the nodes are, for all paths together each as often.
func pickNode(ctx context.Context, s rest.Services, p freshet.Path) (string, error) {
	r, err := s.Cluster.ListNodes(ctx, &freshetv1.ListNodesRequest{})
	if err != nil {
		return "", rpc.ErrorOf(err)
	}
	var best string
	var weight uint64
	for _, n := range r.GetNodes() {
		if n.GetState() != "live" || n.GetHttp() == "" {
			continue
		}
		if w := xxh3.HashString(n.GetId() + string(p)); best == "" || w > weight {
			best, weight = n.GetHttp(), w
		}
	}
	if best == "" {
		return "", freshet.Errorf(freshet.KindUnavailable, "find cache node", p, "no cache node is live")
	}
	return best, nil
}

// young answers for a coordinator whose cluster is not founded yet, so that the
// other founders find this one.
type young struct {
	known

	coordinator *coordinator.Coordinator
	waiting     waiting
}

// known answers for a cluster that is founded.
type known interface{ rpc.Cluster }

// Cluster implements rpc.Cluster.
func (y young) Cluster(ctx context.Context) (freshet.ClusterStatus, error) {
	if y.coordinator.Publisher().Cluster == (freshet.ClusterID{}) {
		return y.waiting.Cluster(ctx)
	}
	return y.known.Cluster(ctx)
}

// join asks to be taken into the cluster until it is.
func (p *Process) join(ctx context.Context, cfg *config.File, conns *rpc.Conns, self freshet.Member) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, addr := range cfg.Raft.Join {
			err := joinAt(ctx, conns, addr, self, cfg.Cluster)
			if err == nil {
				<-ctx.Done()
				return nil
			}
			p.Log.InfoContext(ctx, "could not join yet", "at", addr, "error", err.Error())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func joinAt(ctx context.Context, conns *rpc.Conns, addr string, self freshet.Member, cluster string) error {
	conn, err := conns.Get(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, _, err = rpc.NewCoordinator(conn).JoinRaft(ctx, self, cluster)
	return err
}
