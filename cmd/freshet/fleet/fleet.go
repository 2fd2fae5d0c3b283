// Package fleet owns clusters of child processes on this machine, with a network
// between them that can be cut and delayed. The demonstration and the end-to-end
// tests run on it; nothing in it knows what a coordinator does.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/rpc/local"
)

// Spec describes the clusters.
type Spec struct {
	Binary   string // path of freshet
	Dir      string // for data, configuration and logs
	Env      []string
	Clusters []ClusterSpec
	// Gossip joins all clusters to one pool; else they know each other by fixed
	// addresses only.
	Gossip bool
	// GossipKey is a reference to the key of the pool.
	GossipKey string
	LogLevel  string
	// TLS, if set, gives every server its certificate.
	TLS TLSFor
}

// TLSFor names the files of a server; role is "coordinator" or "cachenode", or
// "client" for Connect.
type TLSFor func(cluster, role, name string) config.TLS

// ClusterSpec describes one cluster.
type ClusterSpec struct {
	Name         string
	Coordinators int // 1, 3 or 5
	Nodes        int
	Mounts       []config.Mount
	Sync         []config.SyncRule
	Heartbeat    time.Duration
	Metadata     config.Metadata
	// Tier of the nodes: "memory" or "disk" (default).
	Tier     string
	TierSize string
	// UploadMemory bounds the parts of uploads of each node; "" is the default.
	UploadMemory string
	// Tiers returns the tiers of a node, counted from 0, if set.
	Tiers func(node int) []config.Tier
	Alone bool // not on the bus
	// Sockets gives each node a Unix socket.
	Sockets bool
	Auth    config.Auth
}

// Fleet is the running clusters.
type Fleet struct {
	Clusters []*Cluster

	relays []*Relay
}

// Cluster is one running cluster.
type Cluster struct {
	Name         string
	Coordinators []*Process
	Nodes        []*Process
	// Clients are the client addresses of the coordinators, HTTP their REST
	// addresses, NodeHTTP the data addresses of the nodes.
	Clients, HTTP, NodeHTTP []string
	// Bus are the relays that all traffic of other clusters to this one takes:
	// Streams carry its records, Gossip the pool's datagrams and streams.
	Bus, Streams, Gossip []*Relay

	// Local says how Connect reads blocks on this host; only with ClusterSpec.Sockets
	// there is something to be read so.
	Local local.Options
	// Sockets are the nodes' Unix sockets, if they have any.
	Sockets []string

	tls TLSFor
}

// Build writes the configuration of all servers and opens the relays. It starts
// no server.
func Build(ctx context.Context, spec Spec) (*Fleet, error) {
	f := &Fleet{}
	layouts := make([]*layout, len(spec.Clusters))
	ports := &ports{}
	for i := range spec.Clusters {
		layouts[i] = newLayout(&spec.Clusters[i], ports)
	}
	if ports.err != nil {
		return nil, ports.err
	}
	for i, l := range layouts {
		c, err := l.build(ctx, &spec, layouts, i)
		if err != nil {
			f.Close()
			return nil, err
		}
		f.Clusters = append(f.Clusters, c)
		f.relays = append(f.relays, c.Bus...)
	}
	return f, nil
}

// Start starts all servers and waits until each cluster has a leader and its
// nodes.
func (f *Fleet) Start(ctx context.Context) error {
	for _, c := range f.Clusters {
		for _, p := range c.Processes() {
			if err := p.Start(); err != nil {
				return err
			}
		}
	}
	for _, c := range f.Clusters {
		if err := c.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close stops all servers in order, and the relays.
func (f *Fleet) Close() {
	for _, c := range f.Clusters {
		for _, p := range c.Nodes {
			_ = p.Signal(15) // all at once; awaited below
		}
	}
	for _, c := range f.Clusters {
		for _, p := range c.Nodes {
			_ = p.Stop(15 * time.Second) // it was killed if it did not stop
		}
		for _, p := range c.Coordinators {
			_ = p.Signal(15) // as above
		}
	}
	for _, c := range f.Clusters {
		for _, p := range c.Coordinators {
			_ = p.Stop(15 * time.Second) // as above
		}
	}
	for _, r := range f.relays {
		r.Close()
	}
}

// Processes returns all servers of a cluster.
func (c *Cluster) Processes() []*Process {
	return append(append([]*Process(nil), c.Coordinators...), c.Nodes...)
}

// Cut cuts the cluster off from the others; Heal ends that.
func (c *Cluster) Cut() {
	for _, r := range c.Bus {
		r.Cut()
	}
}

// Heal lets the traffic of other clusters through again.
func (c *Cluster) Heal() {
	for _, r := range c.Bus {
		r.Heal()
	}
}

// Session is a connection of a client to a cluster.
type Session struct {
	*rpc.Coordinator

	Files *client.Client
	// Local counts reads by descriptors.
	Local *local.Pool
	close func() error
}

// Connect returns a client's connection.
func (c *Cluster) Connect() (*Session, error) {
	var id *rpc.Identity
	if c.tls != nil {
		var err error
		files := c.tls(c.Name, "client", "")
		if id, err = rpc.LoadIdentity(rpc.TLSFiles{CA: files.CA, Cert: files.Cert, Key: files.Key}); err != nil {
			return nil, err
		}
	}
	conn, err := rpc.Dial(c.Clients, rpc.DialOptions{TLS: id.Client(), MaxBackoff: 200 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	nodes := rpc.NewConns(rpc.DialOptions{TLS: id.Client(), MaxMessage: rpc.MaxDataMessage, NoRetry: true, MaxBackoff: 200 * time.Millisecond})
	coord := rpc.NewCoordinator(conn)
	pool := local.New(rpc.NewNodePool(nodes), c.Local)
	return &Session{
		Coordinator: coord, Files: client.New(coord, pool, client.Options{}), Local: pool,
		close: func() error { return errors.Join(pool.Close(), conn.Close(), nodes.Close()) },
	}, nil
}

// Close ends the connection.
func (s *Session) Close() error { return s.close() }

// AwaitCached waits until nodes have told that they hold so many bytes of the file
// at p, limit at most: a block goes on to be stored when its reader has what it
// wanted, and who asks for it meanwhile is served by the same fetch.
func (s *Session) AwaitCached(ctx context.Context, p freshet.Path, size int64, limit time.Duration) error {
	return Poll(ctx, limit, "the blocks of "+p.Base()+" to be cached", func(ctx context.Context) error {
		st, err := s.Stat(ctx, p, freshet.ReadOptions{})
		if err == nil && st.CachedBytes != size {
			err = fmt.Errorf("%d bytes are cached, not %d", st.CachedBytes, size)
		}
		return err
	})
}

// AwaitReady waits until the cluster has a leader and all its running nodes.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	s, err := c.Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	return Poll(ctx, 30*time.Second, fmt.Sprintf("cluster %s to be ready", c.Name), func(ctx context.Context) error {
		st, err := s.Cluster(ctx)
		if err != nil {
			return c.deadOr(err)
		}
		running := int64(0)
		for _, n := range c.Nodes {
			if n.Running() {
				running++
			}
		}
		members := 0
		for _, m := range st.Members {
			if m.GRPC != "" {
				members++
			}
		}
		if st.Leader == "" || st.LiveNodes < running || members < len(c.Coordinators) {
			return c.deadOr(fmt.Errorf("leader %q, %d of %d nodes live, %d of %d members known", st.Leader, st.LiveNodes, running, members, len(c.Coordinators)))
		}
		return nil
	})
}

// deadOr adds the log of a server that ended by itself.
func (c *Cluster) deadOr(err error) error {
	for _, p := range c.Processes() {
		if !p.Running() && p.done != nil {
			select {
			case <-p.done:
				return fmt.Errorf("%w; %s does not run, its log ends:\n%s", err, p.Name, p.Tail(10))
			default:
			}
		}
	}
	return err
}

// Leader returns the coordinator that leads.
func (c *Cluster) Leader(ctx context.Context) (*Process, error) {
	s, err := c.Connect()
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	var leader *Process
	err = Poll(ctx, 20*time.Second, "a leader of cluster "+c.Name, func(ctx context.Context) error {
		st, err := s.Cluster(ctx)
		if err != nil {
			return err
		}
		for i, p := range c.Coordinators {
			if memberName(i) == st.Leader && p.Running() {
				leader = p
				return nil
			}
		}
		return fmt.Errorf("leader is %q", st.Leader)
	})
	return leader, err
}

// Poll calls f until it returns nil, at most for the time given.
func Poll(ctx context.Context, limit time.Duration, what string, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error // what f said before its time was up
	for {
		one, done := context.WithTimeout(ctx, 5*time.Second)
		err := f(one)
		done()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return freshet.Errorf(freshet.KindDeadline, "wait", "", "for %s, in vain for %s: %w", what, limit, last)
		}
	}
}

// Between its choice and its use a port is nobody's: single servers of tests take
// theirs from highPort on (see test/child).
const lowPort, highPort = 12000, 22000

// ports picks free ports below the ephemeral range, where the kernel would give
// them to others.
type ports struct {
	used map[int]bool
	err  error
}

func (p *ports) addr() string {
	if p.used == nil {
		p.used = map[int]bool{}
	}
	for range 500 {
		port := lowPort + rand.IntN(highPort-lowPort) //nolint:gosec // any free port will do
		if p.used[port] || !free(port) {
			continue
		}
		p.used[port] = true
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	p.err = freshet.Errorf(freshet.KindExhausted, "pick port", "", "no free port between %d and %d", lowPort, highPort)
	return ""
}

func free(port int) bool {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr) //nolint:noctx // at once
	if err != nil {
		return false
	}
	u, err := net.ListenPacket("udp", addr) //nolint:noctx // at once
	if err == nil {
		err = u.Close()
	}
	return l.Close() == nil && err == nil
}

func memberName(i int) string { return "c" + strconv.Itoa(i+1) }
func nodeName(i int) string   { return "n" + strconv.Itoa(i+1) }

func memberDir(spec *Spec, cluster, name string) string {
	return filepath.Join(spec.Dir, cluster, name)
}

// AwaitLeader waits until a coordinator other than old leads.
func (c *Cluster) AwaitLeader(ctx context.Context, old *Process) error {
	return Poll(ctx, 20*time.Second, "another leader of cluster "+c.Name, func(ctx context.Context) error {
		p, err := c.Leader(ctx)
		if err == nil && p == old {
			err = fmt.Errorf("%s still leads", p.Name)
		}
		return err
	})
}
