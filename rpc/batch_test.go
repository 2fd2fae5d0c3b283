package rpc_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// crowded is a coordinator that answers calls of new files by what they ask, and
// lets none return before as many wait as are to be made together.
type crowded struct {
	*fake

	mu       sync.Mutex
	together int // calls that came together
	single   int
	refuse   freshet.Path // is refused, alone or together
	hold     chan struct{}
}

func (c *crowded) BeginWrite(_ context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	<-c.hold
	c.mu.Lock()
	defer c.mu.Unlock()
	c.single++
	return c.begin(q)
}

func (c *crowded) begin(q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	if q.Path == c.refuse {
		return freshet.BeginWriteAnswer{}, freshet.Errorf(freshet.KindConflict, "write", q.Path, "is a directory")
	}
	return freshet.BeginWriteAnswer{Ticket: freshet.Ticket{Op: q.Op, Path: q.Path, Write: q.Write}}, nil
}

func (c *crowded) BeginWrites(_ context.Context, qs []freshet.BeginWriteQuery) ([]freshet.Each[freshet.BeginWriteAnswer], error) {
	<-c.hold
	c.mu.Lock()
	defer c.mu.Unlock()
	c.together += len(qs)
	out := make([]freshet.Each[freshet.BeginWriteAnswer], len(qs))
	for i, q := range qs {
		out[i].Answer, out[i].Err = c.begin(q)
	}
	return out, nil
}

func (c *crowded) Permit(_ context.Context, q freshet.PermitQuery) error {
	<-c.hold
	return c.permit(q.Op)
}

func (c *crowded) permit(op freshet.OpID) error {
	if op[15]%5 == 0 {
		return freshet.Errorf(freshet.KindNotExist, "permit", "", "operation %s is not known", op)
	}
	return nil
}

func (c *crowded) Permits(_ context.Context, qs []freshet.PermitQuery) ([]error, error) {
	<-c.hold
	c.mu.Lock()
	defer c.mu.Unlock()
	c.together += len(qs)
	errs := make([]error, len(qs))
	for i, q := range qs {
		errs[i] = c.permit(q.Op)
	}
	return errs, nil
}

func (c *crowded) Complete(_ context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	<-c.hold
	return completedBy(op, w), nil
}

func completedBy(op freshet.OpID, w freshet.Written) freshet.Completed {
	return freshet.Completed{Info: freshet.Info{Path: freshet.Path("/" + op.String()), Length: w.Length}}
}

func (c *crowded) Completes(_ context.Context, qs []freshet.CompleteQuery) ([]freshet.Each[freshet.Completed], error) {
	<-c.hold
	c.mu.Lock()
	defer c.mu.Unlock()
	c.together += len(qs)
	out := make([]freshet.Each[freshet.Completed], len(qs))
	for i, q := range qs {
		out[i].Answer = completedBy(q.Op, q.Written)
	}
	return out, nil
}

// serveCrowded serves c; without batches it is a server of before there were any.
func serveCrowded(t *testing.T, c *crowded, finder rpc.LeaderFinder, batched bool) string {
	t.Helper()
	conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
	t.Cleanup(func() { _ = conns.Close() })
	var forward *rpc.Forwarder
	if finder != nil {
		forward = rpc.NewForwarder(finder, conns)
	}
	return serveOnly(t, func(srv *rpc.Server) {
		freshetv1.RegisterNamespaceServiceServer(srv.Registrar(), rpc.NewNamespaceServer(c, forward))
		freshetv1.RegisterNodeServiceServer(srv.Registrar(), rpc.NewNodeServer(c, forward))
		if batched {
			freshetv1.RegisterBatchServiceServer(srv.Registrar(), rpc.NewBatchServer(c, forward))
		}
	})
}

// TestCallsOfNewFilesTravelTogether makes calls from many goroutines at once: each
// has the answer to its own, whoever made it, and the error that it has alone.
func TestCallsOfNewFilesTravelTogether(t *testing.T) {
	const callers = 60
	for _, batched := range []bool{true, false} {
		t.Run(fmt.Sprintf("server knows batches: %t", batched), func(t *testing.T) {
			c := &crowded{fake: &fake{}, refuse: "/f7", hold: make(chan struct{})}
			client := dial(t, rpc.DialOptions{NoRetry: true}, serveCrowded(t, c, nil, batched))
			var wg sync.WaitGroup
			for i := range callers {
				op := freshet.OpID{1, 15: byte(i)}
				wg.Go(func() { beginOne(t, client, op, i, c.refuse) })
				wg.Go(func() {
					err := client.Permit(t.Context(), freshet.PermitQuery{Op: op, Node: "n", Incarnation: 1, Length: -1})
					if unknown := i%5 == 0; freshet.IsKind(err, freshet.KindNotExist) != unknown || (err != nil) != unknown {
						t.Errorf("permit %d: %v", i, err)
					}
				})
				wg.Go(func() {
					done, err := client.Complete(t.Context(), op, freshet.Written{Length: int64(i)})
					if err != nil || done.Info.Length != int64(i) || done.Info.Path != freshet.Path("/"+op.String()) {
						t.Errorf("complete %d: %+v, %v", i, done, err)
					}
				})
			}
			close(c.hold)
			wg.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if !batched && c.together > 0 {
				t.Errorf("%d calls came together", c.together)
			}
		})
	}
}

func beginOne(t *testing.T, client *rpc.Coordinator, op freshet.OpID, i int, refuse freshet.Path) {
	p := freshet.Path(fmt.Sprintf("/f%d", i))
	a, err := client.BeginWrite(t.Context(), freshet.BeginWriteQuery{Op: op, Path: p, Write: freshet.Through})
	switch {
	case p == refuse:
		if _, path := rpc.RemoteDetail(err); !freshet.IsKind(err, freshet.KindConflict) || path != p {
			t.Errorf("begin of %s: %v of %q", p, err, path)
		}
	case err != nil || a.Ticket.Op != op || a.Ticket.Path != p:
		t.Errorf("begin of %s: %+v, %v", p, a, err)
	}
}

// TestBatchesAreForwarded calls a member that does not lead.
func TestBatchesAreForwarded(t *testing.T) {
	leader := &crowded{fake: &fake{}, hold: make(chan struct{}), refuse: "/f1"}
	close(leader.hold)
	addr := serveCrowded(t, leader, nil, true)
	follower := rpc.NewBatchServer(follows{}, forwardTo(t, addr))
	calls := []*freshetv1.BeginWriteRequest{{Path: "/f0", Op: make([]byte, 16)}, {Path: "/f1"}, {Path: "not a path"}, {Path: "/f3", Op: make([]byte, 3)}, {Path: "/f4"}}
	r, err := follower.BeginWrites(t.Context(), &freshetv1.BeginWritesRequest{Calls: calls})
	if err != nil || fmt.Sprint(r.GetAgain()) != "[1 2 3]" || len(r.GetAnswers()) != 5 || r.GetAnswers()[4].GetTicket().GetPath() != "/f4" {
		t.Errorf("begins: %v, %v", r, err)
	}
	p, err := follower.Permits(t.Context(), &freshetv1.PermitsRequest{Calls: []*freshetv1.PermitRequest{{Op: append(make([]byte, 15), 1)}, {Op: make([]byte, 16)}}})
	if err != nil || fmt.Sprint(p.GetAgain()) != "[1]" {
		t.Errorf("permits: %v, %v", p, err)
	}
	d, err := follower.Completes(t.Context(), &freshetv1.CompletesRequest{Calls: []*freshetv1.CompleteRequest{{Written: &freshetv1.Written{Length: 5}}}})
	if err != nil || len(d.GetAgain()) != 0 || d.GetAnswers()[0].GetEntry().GetLength() != 5 {
		t.Errorf("completes: %v, %v", d, err)
	}
	if _, err := follower.BeginWrites(t.Context(), &freshetv1.BeginWritesRequest{Calls: make([]*freshetv1.BeginWriteRequest, 129)}); !freshet.IsKind(rpc.ErrorOf(err), freshet.KindInvalid) {
		t.Errorf("more calls than may be made together: %v", err)
	}
}

// TestBatchesOfNodesNeedACertificate as the calls in them do by themselves.
func TestBatchesOfNodesNeedACertificate(t *testing.T) {
	a := newAuthority(t)
	id := load(t, a.files(t, "server", "127.0.0.1"))
	caOnly, err := rpc.ClientTLS(filepath.Join(a.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c := &crowded{fake: &fake{}, hold: make(chan struct{})}
	close(c.hold)
	srv := rpc.NewServer(rpc.ServerOptions{TLS: id.Server()})
	freshetv1.RegisterBatchServiceServer(srv.Registrar(), rpc.NewBatchServer(c, nil))
	addr, stop := serving(t, nil, srv)
	t.Cleanup(stop)
	for _, with := range []bool{false, true} {
		opts := rpc.DialOptions{TLS: caOnly, NoRetry: true}
		if with {
			opts.TLS = id.Client()
		}
		conn, err := rpc.Dial([]string{addr}, opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		client := freshetv1.NewBatchServiceClient(conn)
		if _, err := client.BeginWrites(t.Context(), &freshetv1.BeginWritesRequest{}); err != nil {
			t.Errorf("begins, certificate %t: %v", with, err)
		}
		_, permits := client.Permits(t.Context(), &freshetv1.PermitsRequest{})
		_, completes := client.Completes(t.Context(), &freshetv1.CompletesRequest{})
		for name, err := range map[string]error{"permits": permits, "completes": completes} {
			if refused := freshet.IsKind(rpc.ErrorOf(err), freshet.KindPermission); refused == with || (err == nil) != with {
				t.Errorf("%s, certificate %t: %v", name, with, err)
			}
		}
	}
}

// follows is a member that does not lead.
type follows struct{}

var errFollows = freshet.Errorf(freshet.KindNotLeader, "write", "", "this member does not lead")

func (follows) BeginWrites(context.Context, []freshet.BeginWriteQuery) ([]freshet.Each[freshet.BeginWriteAnswer], error) {
	return nil, errFollows
}

func (follows) Permits(_ context.Context, qs []freshet.PermitQuery) ([]error, error) {
	errs := make([]error, len(qs))
	errs[len(qs)-1] = errFollows // it has just ceased to lead
	return errs, nil
}

func (follows) Completes(context.Context, []freshet.CompleteQuery) ([]freshet.Each[freshet.Completed], error) {
	return nil, errFollows
}

func forwardTo(t *testing.T, addr string) *rpc.Forwarder {
	t.Helper()
	conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
	t.Cleanup(func() { _ = conns.Close() })
	return rpc.NewForwarder(leaderAt(addr), conns)
}
