package rpc_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a coordinator and a cache node that record what they are asked and
// answer with values that have no zero field.
type fake struct {
	mu    sync.Mutex
	err   error
	panic any
	seed  int
	calls []call
	// heartbeat and blocks, if set, answer instead.
	heartbeat func(freshet.Heartbeat) freshet.HeartbeatReply
	read      func(freshet.BlockRead) (freshet.BlockStream, error)
	write     func(freshet.Ticket, io.Reader, int64) (freshet.Completed, error)
	// seen, if set, is told the context of each call of Stat, Sync and List.
	seen func(ctx context.Context)
	// listener, if set, is where it is served.
	listener net.Listener
}

type call struct {
	method string
	args   []any
	answer []any
}

// respond records a call and fills the answers, which are pointers.
func (f *fake) respond(method string, args []any, answers ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := call{method: method, args: args}
	if f.panic != nil {
		panic(f.panic)
	}
	if f.err == nil {
		for _, a := range answers {
			f.seed++
			fill(reflect.ValueOf(a).Elem(), &f.seed)
			c.answer = append(c.answer, reflect.ValueOf(a).Elem().Interface())
		}
	}
	f.calls = append(f.calls, c)
	return f.err
}

func (f *fake) saw(ctx context.Context) {
	if f.seen != nil {
		f.seen(ctx)
	}
}

func (f *fake) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c.method == method {
			n++
		}
	}
	return n
}

func (f *fake) last() call {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return call{}
	}
	return f.calls[len(f.calls)-1]
}

func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func one[T any](f *fake, method string, args ...any) (T, error) {
	var out T
	err := f.respond(method, args, &out)
	return out, err
}

func (f *fake) Stat(ctx context.Context, p freshet.Path, o freshet.ReadOptions) (freshet.Status, error) {
	f.saw(ctx)
	return one[freshet.Status](f, "Stat", p, o)
}

func (f *fake) List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	f.saw(ctx)
	return one[freshet.ListPage](f, "List", q)
}

func (f *fake) Mkdir(_ context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	return one[freshet.Completed](f, "Mkdir", q)
}

func (f *fake) Rename(_ context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	return one[freshet.Completed](f, "Rename", q)
}

func (f *fake) Remove(_ context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	return one[freshet.Completed](f, "Remove", q)
}

func (f *fake) SetAttr(_ context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	return one[freshet.Completed](f, "SetAttr", q)
}

func (f *fake) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	return one[freshet.Location](f, "Locate", q)
}

func (f *fake) BeginWrite(_ context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	return one[freshet.BeginWriteAnswer](f, "BeginWrite", q)
}

func (f *fake) AbortWrite(_ context.Context, op freshet.OpID) error {
	return f.respond("AbortWrite", []any{op})
}

func (f *fake) Explain(_ context.Context, p freshet.Path, check bool) (freshet.Explanation, error) {
	return one[freshet.Explanation](f, "Explain", p, check)
}

func (f *fake) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	f.saw(ctx)
	for range 2 {
		pr, err := one[freshet.SyncProgress](f, "Sync", p, recursive)
		if err == nil {
			err = report(pr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) RemoveTree(_ context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error {
	if err := f.respond("RemoveTree", []any{q}); err != nil {
		return err
	}
	for i := range int64(5) {
		if err := report(freshet.RemoveProgress{Entries: i, Current: q.Path, Done: i == 4}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) PlanRename(_ context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	return one[freshet.RenamePlan](f, "PlanRename", q)
}

func (f *fake) Mounts(_ context.Context, p freshet.Path) ([]freshet.MountAnswer, uint64, error) {
	var all []freshet.MountAnswer
	var index uint64
	err := f.respond("Mounts", []any{p}, &all, &index)
	return all, index, err
}

func (f *fake) AddMount(_ context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	return one[freshet.MountAnswer](f, "AddMount", c)
}

func (f *fake) UpdateMount(_ context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	return one[freshet.MountAnswer](f, "UpdateMount", c)
}

func (f *fake) RemoveMount(_ context.Context, p freshet.Path, o freshet.RemoveMountOptions) (freshet.MountAnswer, error) {
	return one[freshet.MountAnswer](f, "RemoveMount", p, o)
}

func (f *fake) Policies(_ context.Context, p freshet.Path) ([]freshet.SyncPolicy, error) {
	return one[[]freshet.SyncPolicy](f, "Policies", p)
}

func (f *fake) SetPolicy(_ context.Context, rule freshet.SyncPolicy, dryRun bool) (freshet.SyncPolicy, error) {
	return one[freshet.SyncPolicy](f, "SetPolicy", rule, dryRun)
}

func (f *fake) RemovePolicy(_ context.Context, p freshet.Path, dryRun bool) (freshet.SyncPolicy, error) {
	return one[freshet.SyncPolicy](f, "RemovePolicy", p, dryRun)
}

func (f *fake) PathPolicies(_ context.Context, p freshet.Path) (freshet.PolicyReport, error) {
	return one[freshet.PolicyReport](f, "PathPolicies", p)
}

func (f *fake) ChangePolicy(_ context.Context, c freshet.PolicyChange) (freshet.Policy, error) {
	return one[freshet.Policy](f, "ChangePolicy", c)
}

func (f *fake) Cluster(context.Context) (freshet.ClusterStatus, error) {
	return one[freshet.ClusterStatus](f, "Cluster")
}

func (f *fake) Nodes(context.Context) ([]freshet.NodeStatus, error) {
	return one[[]freshet.NodeStatus](f, "Nodes")
}

func (f *fake) JoinRaft(_ context.Context, m freshet.Member, cluster string) (freshet.ClusterID, uint64, error) {
	var id freshet.ClusterID
	var epoch uint64
	err := f.respond("JoinRaft", []any{m, cluster}, &id, &epoch)
	return id, epoch, err
}

func (f *fake) RemoveRaft(_ context.Context, member string, dryRun bool) error {
	return f.respond("RemoveRaft", []any{member, dryRun})
}

func (f *fake) TransferLeadership(_ context.Context, member string) (string, error) {
	return one[string](f, "TransferLeadership", member)
}

func (f *fake) BumpEpoch(_ context.Context, dryRun bool) (uint64, error) {
	return one[uint64](f, "BumpEpoch", dryRun)
}

func (f *fake) Quotas(_ context.Context, p freshet.Path) ([]freshet.Quota, error) {
	return one[[]freshet.Quota](f, "Quotas", p)
}

func (f *fake) SetQuota(_ context.Context, c freshet.QuotaChange) (freshet.Quota, error) {
	return one[freshet.Quota](f, "SetQuota", c)
}

func (f *fake) RemoveQuota(_ context.Context, r freshet.QuotaRemoval) (freshet.Quota, error) {
	return one[freshet.Quota](f, "RemoveQuota", r)
}

func (f *fake) PostEvents(_ context.Context, p freshet.EventPost) (freshet.EventAnswer, error) {
	return one[freshet.EventAnswer](f, "PostEvents", p)
}

func (f *fake) Peers(context.Context) ([]freshet.Peer, error) { return one[[]freshet.Peer](f, "Peers") }

func (f *fake) JoinPeers(_ context.Context, addresses []string) (int, error) {
	return one[int](f, "JoinPeers", addresses)
}

func (f *fake) ForgetPeer(_ context.Context, cluster string) error {
	return f.respond("ForgetPeer", []any{cluster})
}

func (f *fake) Heartbeat(_ context.Context, h freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	if f.heartbeat != nil {
		return f.heartbeat(h), nil
	}
	return one[freshet.HeartbeatReply](f, "Heartbeat", h)
}

func (f *fake) Permit(_ context.Context, q freshet.PermitQuery) error {
	return f.respond("Permit", []any{q})
}

func (f *fake) Complete(_ context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	return one[freshet.Completed](f, "Complete", op, w)
}

func (f *fake) Abort(_ context.Context, op freshet.OpID, definite bool) error {
	return f.respond("Abort", []any{op, definite})
}

func (f *fake) Read(_ context.Context, q freshet.BlockRead) (freshet.BlockStream, error) {
	return f.read(q)
}

func (f *fake) Write(_ context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
	return f.write(t, body, length)
}

// fill gives v and everything in it a value of its own that is not zero.
func fill(v reflect.Value, seed *int) {
	*seed++
	n := *seed
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(n), int64(n)).UTC()))
		return
	case freshet.Path:
		v.SetString(fmt.Sprintf("/p%d", n))
		return
	case freshet.PolicyChange:
		v.Set(reflect.ValueOf(freshet.PolicyChange{
			Path: "/p", Set: []freshet.Setting{
				{Property: freshet.PropertySyncInterval, Value: "1s"},
				{Property: freshet.PropertyConsistency, Value: "interval"},
				{Property: freshet.PropertyWriteType, Value: "through"},
				{Property: freshet.PropertyTTL, Value: "1h"},
				{Property: freshet.PropertyTTLAction, Value: "free"},
				{Property: freshet.PropertyPinned, Value: "true"},
				{Property: freshet.PropertyBlockSize, Value: "64MiB"},
				{Property: freshet.PropertyReplicationMin, Value: "1"},
				{Property: freshet.PropertyReplicationMax, Value: "2"},
			},
			Unset: []freshet.Property{freshet.PropertyTTL}, Origin: "terraform", DryRun: true,
		}))
		return
	case freshet.Interval:
		v.SetInt(int64(time.Duration(n) * time.Second))
		return
	case freshet.Level, freshet.FileType, freshet.WriteType, freshet.ReadType:
		v.SetUint(1)
		return
	}
	switch v.Kind() { //nolint:exhaustive // the vocabulary has no others
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(n))
	case reflect.Uint8:
		v.SetUint(uint64(n%255 + 1))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), seed)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), seed)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), seed)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, seed)
		fill(value, seed)
		v.SetMapIndex(key, value)
	case reflect.Func: // none travels
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, seed)
		}
	default:
		panic("no filler for " + v.Type().String())
	}
}

// server is a running server.
type server struct {
	addr string
	stop func()
}

// start serves everything that f does; finder, if not nil, is whom it forwards to.
func start(t testing.TB, f *fake, finder rpc.LeaderFinder, opts rpc.ServerOptions) *server {
	t.Helper()
	return startBetween(t, f, finder, opts, rpc.DialOptions{NoRetry: true})
}

// startBetween is start of a member that dials others with the options between.
func startBetween(t testing.TB, f *fake, finder rpc.LeaderFinder, opts rpc.ServerOptions, between rpc.DialOptions) *server {
	t.Helper()
	conns := rpc.NewConns(between)
	var forward *rpc.Forwarder
	if finder != nil {
		forward = rpc.NewForwarder(finder, conns)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	srv := rpc.NewServer(opts)
	r := srv.Registrar()
	rpc.RegisterNamespace(r, rpc.NewNamespaceServer(f, forward))
	freshetv1.RegisterMountServiceServer(r, rpc.NewMountServer(f, forward))
	freshetv1.RegisterPolicyServiceServer(r, rpc.NewPolicyServer(f, forward))
	freshetv1.RegisterQuotaServiceServer(r, rpc.NewQuotaServer(f, forward))
	freshetv1.RegisterClusterServiceServer(r, rpc.NewClusterServer(f, f, forward))
	freshetv1.RegisterEventServiceServer(r, rpc.NewEventServer(f, forward))
	freshetv1.RegisterCheckServiceServer(r, rpc.NewCheckServer(f, forward))
	freshetv1.RegisterNodeServiceServer(r, rpc.NewNodeServer(f, forward))
	freshetv1.RegisterBlockServiceServer(r, rpc.NewBlockServer(f))
	freshetv1.RegisterRangeServiceServer(r, rpc.NewRangeServer(f, nil))
	addr, stop := serving(t, f.listener, srv)
	t.Cleanup(func() { stop(); _ = conns.Close() })
	return &server{addr: addr, stop: stop}
}

// serveOnly serves what register registers, until the test ends.
func serveOnly(t *testing.T, register func(*rpc.Server)) string {
	t.Helper()
	srv := rpc.NewServer(rpc.ServerOptions{Log: slog.New(slog.DiscardHandler)})
	register(srv)
	addr, stop := serving(t, nil, srv)
	t.Cleanup(stop)
	return addr
}

// serving serves at l, or anywhere.
func serving(t testing.TB, l net.Listener, srv *rpc.Server) (addr string, stop func()) {
	t.Helper()
	if l == nil {
		l = listen(t)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	return l.Addr().String(), sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial returns a client of the servers at addrs.
func dial(t *testing.T, opts rpc.DialOptions, addrs ...string) *rpc.Coordinator {
	t.Helper()
	conn, err := rpc.Dial(addrs, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return rpc.NewCoordinator(conn)
}

type leaderAt string

func (l leaderAt) LeaderAddress() string { return string(l) }
