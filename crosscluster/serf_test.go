package crosscluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
)

// join runs a member of the pool until the test ends; its payloads come out of
// the channel.
func join(t *testing.T, name string, o crosscluster.SerfOptions) (*crosscluster.Serf, <-chan string) {
	t.Helper()
	s := crosscluster.NewSerf(o)
	ctx, cancel := context.WithCancel(context.Background())
	got, ended := make(chan string, 100), make(chan error, 1)
	self := crosscluster.Member{Cluster: name, ID: uuid.New(), Epoch: 1, Node: "c1", Bus: "127.0.0.1:7403", Protocol: 1}
	go func() {
		ended <- s.Run(ctx, self, func(p []byte) {
			select {
			case got <- string(p):
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	eventually(t, func() bool { return s.Address() != "" })
	return s, got
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("it did not happen within 20 s")
		}
	}
}

// next returns what comes out of c next; it is the zero value when c is closed.
func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	select {
	case v := <-c:
		return v
	case <-deadline.C:
		t.Fatal("nothing came within 20 s")
		panic("unreachable")
	}
}

func names(s *crosscluster.Serf) []string {
	members, _ := s.Members()
	var out []string
	for _, m := range members {
		out = append(out, m.Cluster)
	}
	slices.Sort(out)
	return out
}

func TestSerfCarriesMembersAndPayloads(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef")
	a, _ := join(t, "east", crosscluster.SerfOptions{Key: key})
	b, got := join(t, "west", crosscluster.SerfOptions{Key: key, Join: []string{a.Address()}})
	both := []string{"east", "west"}
	eventually(t, func() bool { return slices.Equal(names(a), both) && slices.Equal(names(b), both) })

	members, changed := b.Members()
	east := members[slices.IndexFunc(members, func(m crosscluster.Member) bool { return m.Cluster == "east" })]
	if east.Epoch != 1 || east.Node != "c1" || east.Bus != "127.0.0.1:7403" || east.Protocol != 1 {
		t.Errorf("member %+v", east)
	}
	east.Epoch = 9
	if err := a.Announce(east); err != nil {
		t.Fatal(err)
	}
	next(t, changed)
	eventually(t, func() bool {
		members, _ := b.Members()
		return slices.Contains(members, east)
	})

	large := strings.Repeat("x", 1000)
	for _, payload := range []string{"small", large} {
		if err := a.Publish([]byte(payload), false); err != nil {
			t.Fatal(err)
		}
		if p := next(t, got); p != payload {
			t.Errorf("got %d bytes, want %d", len(p), len(payload))
		}
	}
	// Larger ones would be taken and never sent.
	if err := a.Publish([]byte(large+"x"), false); freshet.KindOf(err) != freshet.KindInvalid {
		t.Errorf("a payload that can't be gossiped: %v", err)
	}
}

// Security 88: who does not have the key hears and says nothing.
func TestSerfWithAnotherKeyIsNotLetIn(t *testing.T) {
	t.Parallel()
	a, heard := join(t, "east", crosscluster.SerfOptions{Key: []byte("0123456789abcdef")})
	b, _ := join(t, "west", crosscluster.SerfOptions{Key: []byte("fedcba9876543210"), Join: []string{a.Address()}})
	c, _ := join(t, "north", crosscluster.SerfOptions{Join: []string{a.Address()}})
	d, _ := join(t, "south", crosscluster.SerfOptions{Key: []byte("0123456789abcdef"), Join: []string{a.Address()}})
	let := []string{"east", "south"}
	eventually(t, func() bool { return slices.Equal(names(a), let) && slices.Equal(names(d), let) }) // so there was time
	for _, s := range []*crosscluster.Serf{b, c} {
		if err := s.Publish([]byte("forged"), false); err != nil {
			t.Fatal(err)
		}
		if n := names(s); len(n) != 1 {
			t.Errorf("a member without the key sees %v", n)
		}
	}
	if err := d.Publish([]byte("true"), false); err != nil {
		t.Fatal(err)
	}
	if p := next(t, heard); p != "true" {
		t.Errorf("heard %q", p)
	}
	if n := names(a); !slices.Equal(n, let) {
		t.Errorf("members %v", n)
	}
}

// A pool whose other members are all down is joined once one of them is up.
func TestSerfJoinsWhoComesLater(t *testing.T) {
	t.Parallel()
	late := freeAddress(t)
	a, _ := join(t, "east", crosscluster.SerfOptions{Join: []string{late}})
	if n := names(a); !slices.Equal(n, []string{"east"}) {
		t.Fatalf("members %v", n)
	}
	join(t, "west", crosscluster.SerfOptions{Bind: late})
	eventually(t, func() bool { return slices.Equal(names(a), []string{"east", "west"}) })
}

func TestSerfJoinsByCommand(t *testing.T) {
	t.Parallel()
	a, _ := join(t, "east", crosscluster.SerfOptions{})
	b, _ := join(t, "west", crosscluster.SerfOptions{Bind: "localhost:0"})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	const nobody = "127.0.0.1:1" // no member gets that port
	if n, err := b.Join(ctx, []string{nobody}); n != 0 || freshet.KindOf(err) != freshet.KindUnavailable {
		t.Errorf("joined nobody: %d, %v", n, err)
	}
	if n, err := b.Join(ctx, []string{a.Address()}); n != 1 || err != nil {
		t.Errorf("joined %d: %v", n, err)
	}
	eventually(t, func() bool { return slices.Equal(names(a), []string{"east", "west"}) })
	if _, err := crosscluster.NewSerf(crosscluster.SerfOptions{}).Join(ctx, nil); freshet.KindOf(err) != freshet.KindUnavailable {
		t.Errorf("joined without running: %v", err)
	}
}

// freeAddress returns an address at which nobody listens, below the ports that
// outgoing connections get, and that tests of other packages give their servers.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprint("127.0.0.1:", 8000+rand.IntN(1000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		u.Close()
		return addr
	}
	t.Fatal("no free port")
	return ""
}

func TestSerfRefusesBadOptions(t *testing.T) {
	t.Parallel()
	member := crosscluster.Member{Cluster: "east", ID: uuid.New(), Node: "c1"}
	long := member
	long.Node = strings.Repeat("n", 600)
	tests := map[string]struct {
		options crosscluster.SerfOptions
		self    crosscluster.Member
		want    string
	}{
		"key of a wrong length": {crosscluster.SerfOptions{Key: []byte("short")}, member, "16, 24 or 32 bytes"},
		"no port":               {crosscluster.SerfOptions{Bind: "127.0.0.1"}, member, "is not host:port"},
		"port out of range":     {crosscluster.SerfOptions{Bind: "127.0.0.1:70000"}, member, "is not host:port"},
		"advertise no port":     {crosscluster.SerfOptions{Advertise: "east"}, member, "is not host:port"},
		"tags too long":         {crosscluster.SerfOptions{}, long, "more than 512"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := crosscluster.NewSerf(tt.options).Run(context.Background(), tt.self, func([]byte) {})
			if freshet.KindOf(err) != freshet.KindInvalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "short") {
				t.Errorf("the key stands in the error: %v", err)
			}
		})
	}
}
