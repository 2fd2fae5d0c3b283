package rpc_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// methods are all calls of a coordinator but for those whose answer is a stream.
func methods() []string {
	var out []string
	for _, t := range []reflect.Type{
		reflect.TypeFor[rpc.Namespace](), reflect.TypeFor[rpc.Mounts](), reflect.TypeFor[rpc.Policies](),
		reflect.TypeFor[rpc.Cluster](), reflect.TypeFor[rpc.Peers](), reflect.TypeFor[rpc.Events](), reflect.TypeFor[rpc.Quotas](), reflect.TypeFor[rpc.Nodes](),
	} {
		for method := range t.Methods() {
			if name := method.Name; name != "Sync" && name != "RemoveTree" {
				out = append(out, name)
			}
		}
	}
	return out
}

// invoke calls a method with arguments that have no zero field and returns them,
// the answers and the error.
func invoke(ctx context.Context, c *rpc.Coordinator, method string, seed int) (args, answers []any, err error) {
	m := reflect.ValueOf(c).MethodByName(method)
	in := []reflect.Value{reflect.ValueOf(ctx)}
	for i := 1; i < m.Type().NumIn(); i++ {
		v := reflect.New(m.Type().In(i)).Elem()
		fill(v, &seed)
		in = append(in, v)
		args = append(args, v.Interface())
	}
	out := m.Call(in)
	for _, v := range out[:len(out)-1] {
		answers = append(answers, v.Interface())
	}
	err, _ = reflect.TypeAssert[error](out[len(out)-1])
	return args, answers, err
}

// unsent clears the fields that do not travel, each for a reason.
func unsent(method string, v any, argument bool) any {
	mount := func(m *freshet.Mount) {
		m.Domain, m.MaxOpLifetime = freshet.DomainID{}, 0 // the cluster's own business; only heartbeats carry them
	}
	switch v := v.(type) {
	case freshet.MountAnswer:
		mount(&v.Mount)
		if method == "RemoveMount" {
			v.Notes = nil // notes are about what to expect of a mount
		}
		return v
	case []freshet.MountAnswer:
		for i := range v {
			mount(&v[i].Mount)
			v[i].Notes = nil // as above
		}
		return v
	case freshet.MountChange:
		if method == "AddMount" {
			v.IfGeneration = 0 // there is none yet
		}
		return v
	case freshet.LocateQuery:
		v.Again = false // of the caller's own process
		return v
	case freshet.ListQuery:
		v.Options.Lease = freshet.LeaseID{} // listings are not kept
		return v
	case freshet.MkdirQuery:
		v.Owner, v.Group = "", "" // the member that leads says, never the caller
		return v
	case freshet.BeginWriteQuery:
		v.Owner, v.Group = "", "" // as above
		return v
	case freshet.SyncPolicy:
		if argument {
			v.SetAt = time.Time{} // the leader's clock says
		}
		return v
	case freshet.Completed:
		if method == "Remove" {
			v.Info = freshet.Info{} // there is none any more
		}
		return v
	case freshet.BeginWriteAnswer:
		if v.Done {
			v.Ticket = freshet.Ticket{}
		} else {
			v.Completed = freshet.Completed{}
		}
		return v
	case []freshet.Peer:
		for i := range v {
			for j := range v[i].Domains {
				d := &v[i].Domains[j]
				d.Domain = freshet.DomainID{} // for people the authority has a name
			}
		}
		return v
	case freshet.Explanation:
		mount(v.Mount)
		for i := range v.Publishers {
			p := &v.Publishers[i]
			p.Domain, p.Authority, p.LastReset, p.ResetReason = freshet.DomainID{}, "", time.Time{}, "" // of the mount shown
		}
		i := v.Storage.Info
		v.Storage.Info = freshet.Info{Path: v.Path, Length: i.Length, ModTime: i.ModTime, Fingerprint: i.Fingerprint}
		return v
	}
	return v
}

func compare(t *testing.T, what, method string, got, want []any, argument bool) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s %s: %d values, want %d", method, what, len(got), len(want))
	}
	for i := range want {
		if w := unsent(method, want[i], argument); !reflect.DeepEqual(got[i], w) {
			t.Errorf("%s %s %d:\n got %+v\nwant %+v", method, what, i, got[i], w)
		}
	}
}

func TestEveryFieldSurvivesTheWire(t *testing.T) {
	f := &fake{}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{}, s.addr)
	for _, method := range methods() {
		args, answers, err := invoke(t.Context(), c, method, 7)
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		did := f.last()
		if did.method != method {
			t.Errorf("%s arrived as %s", method, did.method)
			continue
		}
		compare(t, "argument", method, did.args, args, true)
		compare(t, "answer", method, answers, did.answer, false)
	}
}

// beginFake lets a write begin.
type beginFake struct {
	fake

	answer freshet.BeginWriteAnswer
}

func (f *beginFake) BeginWrite(context.Context, freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	return f.answer, nil
}

func TestAWriteThatMayBeginCarriesItsTicket(t *testing.T) {
	seed := 3
	f := &beginFake{}
	fill(reflect.ValueOf(&f.answer.Ticket).Elem(), &seed)
	got, err := rpc.NewCoordinator(inProcess{rpc.NewNamespaceServer(f, nil)}).BeginWrite(t.Context(), freshet.BeginWriteQuery{Path: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, f.answer) {
		t.Errorf("got %+v\nwant %+v", got, f.answer)
	}
}

func TestOperationsOfChangesGetAnID(t *testing.T) {
	f := &fake{}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{}, s.addr)
	for _, do := range []func() error{
		func() error { _, err := c.Mkdir(t.Context(), freshet.MkdirQuery{Path: "/a"}); return err },
		func() error {
			_, err := c.Rename(t.Context(), freshet.RenameQuery{Path: "/a", Target: "/b"})
			return err
		},
		func() error { _, err := c.Remove(t.Context(), freshet.RemoveQuery{Path: "/a"}); return err },
		func() error { _, err := c.SetAttr(t.Context(), freshet.SetAttrQuery{Path: "/a"}); return err },
		func() error { _, err := c.BeginWrite(t.Context(), freshet.BeginWriteQuery{Path: "/a"}); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		did := f.last()
		op := reflect.ValueOf(did.args[0]).FieldByName("Op")
		if op.IsZero() {
			t.Errorf("%s was sent without an operation ID: a repetition would not be safe", did.method)
		}
	}
}

func TestSyncReportsEveryStepAndStopsWhenToldTo(t *testing.T) {
	f := &fake{}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{}, s.addr)
	var got []freshet.SyncProgress
	err := c.Sync(t.Context(), "/a", true, func(p freshet.SyncProgress) error { got = append(got, p); return nil })
	if err != nil || len(got) != 2 {
		t.Fatalf("got %d reports and %v", len(got), err)
	}
	if !reflect.DeepEqual([]any{got[1]}, f.last().answer) {
		t.Errorf("got %+v, want %+v", got[1], f.last().answer)
	}
	stop := freshet.Errorf(freshet.KindExhausted, "test", "", "enough")
	if err := c.Sync(t.Context(), "/a", true, func(freshet.SyncProgress) error { return stop }); !freshet.IsKind(err, freshet.KindExhausted) {
		t.Errorf("got %v", err)
	}
}

func TestLeaderAnswersForAMember(t *testing.T) {
	leader, follower := &fake{seed: 1000}, &fake{err: freshet.Errorf(freshet.KindNotLeader, "test", "", "not me")}
	l := start(t, leader, nil, rpc.ServerOptions{})
	m := start(t, follower, leaderAt(l.addr), rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, m.addr)
	for _, method := range methods() {
		args, answers, err := invoke(t.Context(), c, method, 7)
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		did := leader.last()
		compare(t, "argument", method, did.args, args, true)
		compare(t, "answer", method, answers, did.answer, false)
	}
	n := 0
	if err := c.Sync(t.Context(), "/a", false, func(freshet.SyncProgress) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("sync: %d reports, %v", n, err)
	}
	conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
	defer func() { _ = conns.Close() }()
	ns := rpc.NewForwarded(follower, rpc.NewForwarder(leaderAt(l.addr), conns))
	n = 0
	if err := ns.Sync(t.Context(), "/a", false, func(freshet.SyncProgress) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("sync in process: %d reports, %v", n, err)
	}
}

func TestTwoMembersThatMeanEachOtherDoNotLoop(t *testing.T) {
	a, b := &fake{}, &fake{}
	a.fail(freshet.Errorf(freshet.KindNotLeader, "test", "", "not me"))
	b.fail(a.err)
	other := leaderAt("")
	sb := start(t, b, &other, rpc.ServerOptions{})
	sa := start(t, a, leaderAt(sb.addr), rpc.ServerOptions{})
	other = leaderAt(sa.addr)
	c := dial(t, rpc.DialOptions{NoRetry: true}, sa.addr)
	for _, method := range methods() {
		if _, _, err := invoke(t.Context(), c, method, 7); !freshet.IsKind(err, freshet.KindNotLeader) {
			t.Errorf("%s: got %v", method, err)
		}
		if a.count(method) != 1 || b.count(method) != 1 {
			t.Errorf("%s: asked %d and %d times", method, a.count(method), b.count(method))
		}
	}
	err := c.Sync(t.Context(), "/a", false, func(freshet.SyncProgress) error { return nil })
	if !freshet.IsKind(err, freshet.KindNotLeader) || a.count("Sync") != 1 || b.count("Sync") != 1 {
		t.Errorf("sync: %v, asked %d and %d times", err, a.count("Sync"), b.count("Sync"))
	}
}

func TestAMemberThatKnowsNoLeaderSaysTryAgain(t *testing.T) {
	f := &fake{err: freshet.Errorf(freshet.KindNotLeader, "test", "", "not me")}
	s := start(t, f, leaderAt(""), rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
	if _, err := c.Stat(t.Context(), "/a", freshet.ReadOptions{}); !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestTokenOfAFaceReachesTheLeader(t *testing.T) {
	seed := 1
	var token freshet.Token
	fill(reflect.ValueOf(&token).Elem(), &seed)
	leader, follower := &fake{}, &fake{err: freshet.Errorf(freshet.KindNotLeader, "test", "", "not me")}
	l := start(t, leader, nil, rpc.ServerOptions{})
	m := start(t, follower, leaderAt(l.addr), rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, m.addr)
	if _, err := c.Stat(metadata.AppendToOutgoingContext(t.Context(), rpc.AfterKey, token.String()), "/a", freshet.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := leader.last().args[1].(freshet.ReadOptions).After; got != token { //nolint:forcetypeassert // the test's own
		t.Errorf("got %v, want %v", got, token)
	}
}
