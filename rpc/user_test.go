package rpc_test

import (
	"context"
	"slices"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// TestTheUserOfACallIsHandedOn: the leader hears in whose name a call was made that
// came by another member, whether of one answer or a stream, and never the name of
// the member that handed it on.
func TestTheUserOfACallIsHandedOn(t *testing.T) {
	var heard []string
	leader := &fake{seen: func(ctx context.Context) {
		name, err := rpc.User(ctx)
		if err != nil {
			name = err.Error()
		}
		heard = append(heard, name)
	}}
	l := start(t, leader, nil, rpc.ServerOptions{})
	follower := &fake{err: freshet.Errorf(freshet.KindNotLeader, "", "", "no")}
	f := startBetween(t, follower, leaderAt(l.addr), rpc.ServerOptions{}, rpc.DialOptions{NoRetry: true})
	ask := func(ctx context.Context, c *rpc.Coordinator) {
		t.Helper()
		if _, err := c.Stat(ctx, "/a", freshet.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.List(ctx, freshet.ListQuery{Path: "/a"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Sync(ctx, "/a", false, func(freshet.SyncProgress) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range []string{l.addr, f.addr} {
		c := dial(t, rpc.DialOptions{User: "alice"}, addr)
		ask(t.Context(), c)
		named, err := rpc.WithUsers(t.Context(), "bob")
		if err != nil {
			t.Fatal(err)
		}
		ask(named, c) // a call's own name goes before that of the connection
		ask(t.Context(), dial(t, rpc.DialOptions{}, addr))
		if want := []string{"alice", "alice", "alice", "bob", "bob", "bob", "", "", ""}; !slices.Equal(heard, want) {
			t.Errorf("by %s the leader heard %q, want %q", addr, heard, want)
		}
		heard = nil
	}
	// Several names stay several, for the leader to refuse.
	two, err := rpc.WithUsers(t.Context(), "alice", "root")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, rpc.DialOptions{User: "carol"}, f.addr).Stat(two, "/a", freshet.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(heard) != 1 || heard[0] != "identify caller: the call names 2 users: give one" {
		t.Errorf("of two names the leader heard %q", heard)
	}
	if _, err := rpc.WithUsers(t.Context(), "a\nb"); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("a name that could not be sent: %v", err)
	}
	if _, err := rpc.Dial([]string{l.addr}, rpc.DialOptions{User: "a b"}); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("a connection of a name that is none: %v", err)
	}
}
