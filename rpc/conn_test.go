package rpc_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// deadAddress is one where nobody listens: no server gets that port.
const deadAddress = "127.0.0.1:1"

func TestTheFirstAddressThatAnswersIsUsed(t *testing.T) {
	first, second := &fake{}, &fake{listener: listen(t)}
	s1 := start(t, first, nil, rpc.ServerOptions{})
	// The second is tried too if the first is slow to answer: it is silent so far.
	c := dial(t, rpc.DialOptions{}, deadAddress, s1.addr, second.listener.Addr().String())
	if _, err := c.Cluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first.count("Cluster") != 1 || second.count("Cluster") != 0 {
		t.Errorf("asked %d and %d times", first.count("Cluster"), second.count("Cluster"))
	}
	s1.stop()
	start(t, second, nil, rpc.ServerOptions{})
	if _, err := c.Cluster(t.Context()); err != nil || second.count("Cluster") != 1 {
		t.Errorf("after the first is gone: %v, the second was asked %d times", err, second.count("Cluster"))
	}
}

func TestNobodyAnswers(t *testing.T) {
	c := dial(t, rpc.DialOptions{NoRetry: true}, deadAddress)
	_, err := c.Cluster(t.Context())
	if !freshet.IsKind(err, freshet.KindUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
	if _, err := rpc.Dial(nil, rpc.DialOptions{}); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("no address: %v", err)
	}
}

func TestDeadlineOfACall(t *testing.T) {
	hung, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Close() }()
	c := dial(t, rpc.DialOptions{}, hung.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Cluster(ctx); !freshet.IsKind(err, freshet.KindDeadline) {
		t.Errorf("got %v", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	f := &fake{}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
	_, err := c.JoinPeers(t.Context(), []string{strings.Repeat("x", 5<<20)})
	if !freshet.IsKind(err, freshet.KindExhausted) || f.count("JoinPeers") != 0 {
		t.Errorf("5 MiB on the control port: %v", err)
	}
	if _, err := c.JoinPeers(t.Context(), []string{strings.Repeat("x", 3<<20)}); err != nil {
		t.Errorf("3 MiB: %v", err)
	}
}

func TestConnsKeepOneConnectionPerAddress(t *testing.T) {
	conns := rpc.NewConns(rpc.DialOptions{})
	get := func(addr string) any {
		c, err := conns.Get(addr)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := get("127.0.0.1:1"), get("127.0.0.1:2")
	if a == b || get("127.0.0.1:1") != a {
		t.Error("one connection per address expected")
	}
	conns.Keep([]string{"127.0.0.1:2"})
	if get("127.0.0.1:2") != b || get("127.0.0.1:1") == a {
		t.Error("Keep must close the others only")
	}
	if err := conns.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conns.Get("127.0.0.1:1"); !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestLargeReportsAreSplit(t *testing.T) {
	const added, removed = 250_000, 120_000
	var got []freshet.Heartbeat
	needFull := false
	f := &fake{heartbeat: func(h freshet.Heartbeat) freshet.HeartbeatReply {
		got = append(got, h)
		return freshet.HeartbeatReply{
			Term: 9, NeedFull: needFull, Free: []freshet.BlockID{{File: freshet.FileID(len(got))}}, Settled: []freshet.OpID{{byte(len(got))}},
		}
	}}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
	h := freshet.Heartbeat{
		Node: freshet.Node{ID: "n"}, Term: 8, Full: true, Finished: []freshet.FinishedOp{{Op: freshet.OpID{1}}}, Cluster: freshet.ClusterID{5},
		Hot: []freshet.BlockHeat{{Reads: 3}}, Damaged: []freshet.BlockID{{File: 7}},
	}
	for i := range added {
		h.Added = append(h.Added, freshet.BlockReport{ID: freshet.BlockID{File: 1 << 60, Index: uint32(i)}, Length: 64 << 20})
	}
	for i := range removed {
		h.Removed = append(h.Removed, freshet.BlockID{File: 1<<60 + 1, Index: uint32(i)})
	}
	reply, err := c.Heartbeat(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	na, nr := 0, 0
	for i, part := range got {
		if part.Full != (i == 0) || (len(part.Finished) > 0) != (i == 0) {
			t.Errorf("part %d: full %t, %d finished", i, part.Full, len(part.Finished))
		}
		if (len(part.Hot) > 0) != (i == 0) || (len(part.Damaged) > 0) != (i == 0) {
			t.Errorf("part %d: reads of %d blocks, %d damaged ones", i, len(part.Hot), len(part.Damaged))
		}
		if part.Continued != (i > 0) || part.More != (na+nr+len(part.Added)+len(part.Removed) < added+removed) {
			t.Errorf("part %d: continued %t, more %t", i, part.Continued, part.More)
		}
		if part.Cluster != h.Cluster {
			t.Errorf("part %d is of cluster %s", i, part.Cluster)
		}
		if len(part.Removed) > 0 && na > 0 {
			t.Errorf("part %d removes blocks after others were added", i)
		}
		for j, b := range part.Added {
			if b != h.Added[na+j] {
				t.Fatalf("part %d: block %d is %v", i, j, b)
			}
		}
		na, nr = na+len(part.Added), nr+len(part.Removed)
	}
	if na != added || nr != removed || len(got) != 4 {
		t.Errorf("%d added and %d removed in %d parts", na, nr, len(got))
	}
	if len(reply.Free) != 4 || len(reply.Settled) != 4 {
		t.Errorf("the answer lacks those of some parts: %+v", reply)
	}
	got, needFull = nil, true
	if _, err := c.Heartbeat(t.Context(), h); err != nil || len(got) != 1 {
		t.Errorf("a leader that needs all anew was sent %d parts, %v", len(got), err)
	}
}

// A call whose storage was asked in vain often enough is not repeated; what has
// not been repeated yet is.
func TestRepeatedInVainIsNotRepeated(t *testing.T) {
	f := &fake{}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{}, s.addr)
	for want, err := range map[int]error{
		5: freshet.Errorf(freshet.KindUnavailable, "stat", "/a", "the storage is down"),
		1: &freshet.Error{Op: "stat", Path: "/a", Kind: freshet.KindUnavailable, Err: vain{}},
	} {
		f.fail(err)
		before := f.count("Stat")
		_, got := c.Stat(t.Context(), "/a", freshet.ReadOptions{})
		if n := f.count("Stat") - before; n != want || !freshet.IsKind(got, freshet.KindUnavailable) {
			t.Errorf("%v: %d calls, %v, want %d calls and unavailable", err, n, got, want)
		}
	}
}

// vain is the error of a storage that was asked as often as its budget allows.
type vain struct{}

func (vain) Error() string  { return "the storage is down" }
func (vain) Repeated() bool { return true }
