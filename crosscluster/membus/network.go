// Package membus owns a bus in memory: clusters with a reference state, calls
// between their members without sockets, a gossip pool without packets, and the
// faults that tests put between clusters. It decides nothing about the protocol,
// and works inside a testing/synctest bubble.
package membus

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// Faults are what happens between two clusters, in one direction.
type Faults struct {
	// Cut breaks all calls and streams, and refuses new ones.
	Cut bool
	// Hang lets calls and streams go on without anything arriving.
	Hang  bool
	Delay time.Duration // of calls and streams, one way
	// Drop and Repeat are the shares of batches that a stream loses or delivers
	// twice, which no transport does but a defective publisher might.
	Drop, Repeat float64
	// Loss, Duplicate and Corrupt are the shares of gossip payloads that are
	// lost, delivered twice, or damaged; 1 is all of them.
	Loss, Duplicate, Corrupt float64
	// Jitter delays each gossip payload by up to so much, which reorders them.
	Jitter time.Duration
}

// Handler is what a member answers to the members of other clusters:
// *crosscluster.Bus.
type Handler interface {
	Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error)
	Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error)
	Pull(ctx context.Context, req *busv1.PullRequest, send func(*busv1.PullResponse) error) error
	Subscribe(ctx context.Context, recv func() (*busv1.SubscribeRequest, error), send func(*busv1.SubscribeResponse) error) error
	Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error)
}

// Network connects members in memory and puts faults between clusters. The order
// of its random decisions comes from the seed. It is safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	faults  map[[2]string]Faults
	places  map[string]string // address → cluster
	ids     map[freshet.ClusterID]string
	members map[string]*endpoint // by address
	pool    map[string]*gossip   // by address
	changed chan struct{}        // closed when faults or members change
}

type endpoint struct {
	handler Handler
	down    chan struct{}
}

// NewNetwork returns a network without members and faults.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rnd:    rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), //nolint:gosec // repeatable on purpose
		faults: map[[2]string]Faults{}, places: map[string]string{}, ids: map[freshet.ClusterID]string{},
		members: map[string]*endpoint{}, pool: map[string]*gossip{}, changed: make(chan struct{}),
	}
}

func (n *Network) touch() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Place says to which cluster an address and a cluster ID belong.
func (n *Network) Place(addr, cluster string, id freshet.ClusterID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.places[addr], n.ids[id] = cluster, cluster
}

// Attach lets a member answer at an address until the returned function is
// called, which breaks its calls and streams.
func (n *Network) Attach(addr string, h Handler) (detach func()) {
	e := &endpoint{handler: h, down: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members[addr] = e
	n.touch()
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		close(e.down)
		if n.members[addr] == e {
			delete(n.members, addr)
		}
		n.touch()
	})
}

// Set puts faults between two clusters, in both directions.
func (n *Network) Set(a, b string, f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults[[2]string{a, b}], n.faults[[2]string{b, a}] = f, f
	n.touch()
}

// SetOneWay puts faults in front of what goes from one cluster to another: calls
// and streams that it opens, and gossip that it sends.
func (n *Network) SetOneWay(from, to string, f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults[[2]string{from, to}] = f
	n.touch()
}

// Heal takes all faults away.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.faults)
	n.touch()
}

// between returns the faults from a cluster to an address, and a channel that is
// closed when they may have changed.
func (n *Network) between(from, addr string) (Faults, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.faults[[2]string{from, n.places[addr]}], n.changed
}

func (n *Network) chance(p float64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return p > 0 && n.rnd.Float64() < p
}

func (n *Network) upTo(d time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d <= 0 {
		return 0
	}
	return time.Duration(n.rnd.Int64N(int64(d)))
}

func unavailable(what string) error {
	return freshet.Errorf(freshet.KindUnavailable, "call", "", "%s", what)
}

// reach returns a connection to a member of this process.
func (n *Network) reach(addr string) (crosscluster.Peer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.members[addr]
	if !ok {
		return nil, unavailable("nobody answers at " + addr)
	}
	return &direct{e}, nil
}

// Guard puts the network's faults in front of a Dialer.
func (n *Network) Guard(from string, dial crosscluster.Dialer) crosscluster.Dialer {
	return func(ctx context.Context, addr string) (crosscluster.Peer, error) {
		g := &guard{network: n, from: from, addr: addr}
		if err := g.pass(ctx); err != nil {
			return nil, err
		}
		peer, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		g.inner = peer
		return g, nil
	}
}

// direct calls a member of this process.
type direct struct{ to *endpoint }

// context returns one that also ends when the member goes.
func (d *direct) context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-d.to.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (d *direct) gone() bool {
	select {
	case <-d.to.down:
		return true
	default:
		return false
	}
}

func call[Q, R any](ctx context.Context, d *direct, fn func(context.Context, Q) (R, error), req Q) (R, error) {
	var zero R
	if d.gone() {
		return zero, unavailable("the member is gone")
	}
	ctx, cancel := d.context(ctx)
	defer cancel()
	resp, err := fn(ctx, req)
	if d.gone() {
		return zero, unavailable("the member is gone")
	}
	return resp, err
}

func (d *direct) Hello(ctx context.Context, req *busv1.HelloRequest) (*busv1.HelloResponse, error) {
	return call(ctx, d, d.to.handler.Hello, req)
}

func (d *direct) Poll(ctx context.Context, req *busv1.PollRequest) (*busv1.PollResponse, error) {
	return call(ctx, d, d.to.handler.Poll, req)
}

func (d *direct) Goodbye(ctx context.Context, req *busv1.GoodbyeRequest) (*busv1.GoodbyeResponse, error) {
	return call(ctx, d, d.to.handler.Goodbye, req)
}

func (d *direct) Pull(ctx context.Context, req *busv1.PullRequest, receive func(*busv1.PullResponse) error) error {
	_, err := call(ctx, d, func(ctx context.Context, req *busv1.PullRequest) (struct{}, error) {
		return struct{}{}, d.to.handler.Pull(ctx, req, receive)
	}, req)
	return err
}

func (d *direct) Subscribe(ctx context.Context, requests <-chan *busv1.SubscribeRequest, receive func(*busv1.SubscribeResponse) error) error {
	_, err := call(ctx, d, func(ctx context.Context, _ struct{}) (struct{}, error) {
		recv := func() (*busv1.SubscribeRequest, error) {
			select {
			case req := <-requests:
				return req, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return struct{}{}, d.to.handler.Subscribe(ctx, recv, receive)
	}, struct{}{})
	return err
}

func (d *direct) Close() error { return nil }

// gossip is one member's part of the pool.
type gossip struct {
	network *Network
	cluster string
	addr    string
	self    crosscluster.Member
	deliver func([]byte)
}

// Gossip returns a member's way into the pool.
func (n *Network) Gossip(cluster, addr string) crosscluster.Gossip {
	return &gossip{network: n, cluster: cluster, addr: addr}
}

// Run implements crosscluster.Gossip.
func (g *gossip) Run(ctx context.Context, self crosscluster.Member, deliver func([]byte)) error {
	n := g.network
	n.mu.Lock()
	g.self, g.deliver = self, deliver
	n.pool[g.addr] = g
	n.touch()
	n.mu.Unlock()
	<-ctx.Done()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pool[g.addr] == g {
		delete(n.pool, g.addr)
	}
	g.deliver = nil
	n.touch()
	return nil
}

// Announce implements crosscluster.Gossip.
func (g *gossip) Announce(self crosscluster.Member) error {
	g.network.mu.Lock()
	defer g.network.mu.Unlock()
	g.self = self
	g.network.touch()
	return nil
}

// Members implements crosscluster.Gossip.
func (g *gossip) Members() ([]crosscluster.Member, <-chan struct{}) {
	n := g.network
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []crosscluster.Member
	for _, other := range n.pool {
		if n.faults[[2]string{other.cluster, g.cluster}].Loss < 1 {
			out = append(out, other.self)
		}
	}
	slices.SortFunc(out, func(a, b crosscluster.Member) int { return strings.Compare(a.Bus, b.Bus) })
	return out, n.changed
}

// Publish implements crosscluster.Gossip.
func (g *gossip) Publish(payload []byte, _ bool) error {
	n := g.network
	n.mu.Lock()
	others := make([]*gossip, 0, len(n.pool))
	for _, addr := range slices.Sorted(keys(n.pool)) {
		if addr != g.addr {
			others = append(others, n.pool[addr])
		}
	}
	n.mu.Unlock()
	for _, other := range others {
		n.pass(g.cluster, other.cluster, slices.Clone(payload), func(p []byte) {
			n.mu.Lock()
			deliver := other.deliver
			n.mu.Unlock()
			if deliver != nil {
				deliver(p)
			}
		})
	}
	return nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// pass delivers a payload with the faults between two clusters.
func (n *Network) pass(from, to string, payload []byte, deliver func([]byte)) {
	n.mu.Lock()
	f := n.faults[[2]string{from, to}]
	n.mu.Unlock()
	if n.chance(f.Loss) {
		return
	}
	times := 1
	if n.chance(f.Duplicate) {
		times = 2
	}
	if n.chance(f.Corrupt) && len(payload) > 0 {
		payload = slices.Clone(payload)
		payload[int(n.upTo(time.Duration(len(payload))))] ^= 1 << n.upTo(8)
	}
	for range times {
		if d := time.Millisecond + n.upTo(f.Jitter); d > 0 {
			time.AfterFunc(d, func() { deliver(payload) })
		}
	}
}

// GuardGossip puts the network's faults in front of what a member of a cluster
// hears from the pool.
func (n *Network) GuardGossip(cluster string, inner crosscluster.Gossip) crosscluster.Gossip {
	return &guardedGossip{Gossip: inner, network: n, cluster: cluster}
}

type guardedGossip struct {
	crosscluster.Gossip
	network *Network
	cluster string
}

// Run implements crosscluster.Gossip.
func (g *guardedGossip) Run(ctx context.Context, self crosscluster.Member, deliver func([]byte)) error {
	return g.Gossip.Run(ctx, self, func(payload []byte) {
		var id freshet.ClusterID
		if len(payload) > 2+len(id) {
			copy(id[:], payload[2:]) // after magic and version
		}
		g.network.mu.Lock()
		from := g.network.ids[id]
		g.network.mu.Unlock()
		g.network.pass(from, g.cluster, payload, deliver)
	})
}
