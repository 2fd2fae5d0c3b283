package busrpc_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/bustest"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/rpc/busrpc"
)

// ports are the addresses that worlds which run at the same time have taken, also
// while nobody listens there.
type ports struct {
	mu    sync.Mutex
	taken map[string]bool
}

// take finds a port below those that outgoing connections get, and that tests of
// other packages give their servers; "" if none is free.
func (p *ports) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 100 {
		addr := fmt.Sprint("127.0.0.1:", 9000+rand.IntN(3000))
		if p.taken[addr] || !free(addr) {
			continue
		}
		if p.taken == nil {
			p.taken = map[string]bool{}
		}
		p.taken[addr] = true
		return addr
	}
	return ""
}

// sockets is the bus over gRPC and serf on loopback.
type sockets struct {
	t     testing.TB
	net   *membus.Network
	key   []byte
	ports *ports

	mu        sync.Mutex
	addresses map[string]string // place → bus address
	gossip    map[string]string // place → gossip address
}

func newSockets(t testing.TB, n *membus.Network, p *ports) *sockets {
	t.Helper()
	return &sockets{t: t, net: n, key: []byte("0123456789abcdef"), ports: p, addresses: map[string]string{}, gossip: map[string]string{}}
}

// Address reserves a port for a member: what listens there comes and goes.
func (s *sockets) Address(cluster string, member int) string {
	return s.reserve(s.addresses, fmt.Sprint(cluster, member))
}

// reserve finds a port for a place.
func (s *sockets) reserve(in map[string]string, place string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in[place] == "" {
		if in[place] = s.ports.take(); in[place] == "" {
			s.t.Fatal("no free port")
		}
	}
	return in[place]
}

func free(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	u.Close()
	return true
}

func (s *sockets) Listen(addr string, h membus.Handler) func() {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	server := grpc.NewServer()
	busrpc.Register(server, h)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(l); err != nil {
			s.t.Error(err)
		}
	}()
	return func() {
		server.Stop()
		<-ended
	}
}

func (s *sockets) Dialer() crosscluster.Dialer {
	return func(_ context.Context, addr string) (crosscluster.Peer, error) {
		return busrpc.Dial(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
}

func (s *sockets) Gossip(cluster, _ string, member int) crosscluster.Gossip {
	bind := s.reserve(s.gossip, fmt.Sprint(cluster, member))
	var join []string
	s.mu.Lock()
	for _, a := range s.gossip {
		join = append(join, a)
	}
	s.mu.Unlock()
	options := crosscluster.SerfOptions{Bind: bind, Join: join, Key: s.key}
	if os.Getenv("FRESHET_TEST_LOG") != "" {
		options.Logger = slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return s.net.GuardGossip(cluster, crosscluster.NewSerf(options))
}

func world(t testing.TB, p *ports) *bustest.World {
	t.Helper()
	n := membus.NewNetwork(1)
	w := bustest.NewWorld(t, n, newSockets(t, n, p))
	w.Slack = 3 * time.Minute
	if os.Getenv("FRESHET_TEST_LOG") != "" {
		w.LogTo(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(w.Close)
	return w
}

// The suite of the bus holds over real sockets too.
func TestSuite(t *testing.T) {
	all := new(ports)
	for _, tt := range bustest.Suite() {
		t.Run(tt.Name, func(t *testing.T) {
			t.Parallel()
			tt.Run(world(t, all))
		})
	}
}

// TestSimulation does random things to three clusters over real sockets, by seed.
func TestSimulation(t *testing.T) {
	all := new(ports)
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			bustest.Simulate(world(t, all), seed, 10*time.Second)
		})
	}
}

// BenchmarkMarkLatency is the time from a change's acknowledgement in one cluster
// to its mark in another, over loopback and with a round trip of 80 ms. The
// clusters' states are in memory: what their own logs cost comes on top.
func BenchmarkMarkLatency(b *testing.B) {
	for name, delay := range map[string]time.Duration{"loopback": 0, "rtt=80ms": 40 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			w := world(b, new(ports))
			w.Net.Set("east", "west", membus.Faults{Delay: delay})
			east, west := w.Pair(bustest.SiteOptions{})
			w.Quiet(30 * time.Second)
			took := make([]time.Duration, 0, b.N)
			for i := range b.N {
				key := fmt.Sprint("/k", i)
				order := w.Order.Next()
				began := time.Now()
				east.Put(bustest.Lake, key)
				for {
					changed := west.Changed()
					if west.MarkedSince(bustest.Lake, key, order) {
						break
					}
					<-changed
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkStream is the rate of change records from one cluster to two others.
func BenchmarkStream(b *testing.B) {
	w := world(b, new(ports))
	east, west := w.Pair(bustest.SiteOptions{NoGossip: true})
	north := w.Site("north", bustest.SiteOptions{NoGossip: true})
	north.Peer(east)
	north.StartAll()
	wait := func(s *bustest.Site, seq uint64) {
		for {
			changed := s.Changed()
			if sub, _ := s.Position(east.ID, bustest.Lake); sub.Applied >= seq {
				return
			}
			<-changed
		}
	}
	seq := east.Put(bustest.Lake, "/warm")
	wait(west, seq)
	wait(north, seq)
	keys := make([]string, b.N)
	for i := range keys {
		keys[i] = fmt.Sprintf("/warehouse/table/day=2026-01-%02d/part-%09d.parquet", i%30, i)
	}
	b.ResetTimer()
	for chunk := range slices.Chunk(keys, 256) {
		seq = east.Put(bustest.Lake, chunk...)
	}
	wait(west, seq)
	wait(north, seq)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
