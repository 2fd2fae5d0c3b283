// Package bustest owns the tests of the bus that hold over any transport: worlds
// of clusters that write, lose contact, restart and lose logs, and what must be
// true when quiet returns. It knows no socket: a Transport brings them.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/invalidation"
)

// Lake and Sea are the domains of the tests.
var (
	Lake = freshet.DomainID{'l', 'a', 'k', 'e'}
	Sea  = freshet.DomainID{'s', 'e', 'a'}
)

// Transport connects the members of a world.
type Transport interface {
	// Address returns the address of a member, the same each time.
	Address(cluster string, member int) string
	// Listen serves a member at its address until stop is called.
	Listen(addr string, h membus.Handler) (stop func())
	// Dialer returns a cluster's way to others, without faults.
	Dialer() crosscluster.Dialer
	// Gossip returns a member's way into the pool, with faults; nil for none.
	Gossip(cluster, addr string, member int) crosscluster.Gossip
}

// World is a set of clusters.
type World struct {
	T     testing.TB
	Net   *membus.Network
	Order *membus.Order
	Log   *slog.Logger
	// Slack is added to every limit: what a busy machine may take longer, where time
	// and sockets are real.
	Slack time.Duration

	transport Transport
	sites     []*Site
	ctx       context.Context //nolint:containedctx // a test's world lives as long as the test
	cancel    context.CancelFunc
	running   sync.WaitGroup
}

// Site is one cluster with its members.
type Site struct {
	*membus.Cluster
	Name     string
	ID       freshet.ClusterID
	world    *World
	epoch    uint64
	nodes    []*node
	peers    []crosscluster.PeerConfig
	noGossip bool
	registry *prometheus.Registry
	writes   int
}

type node struct {
	addr string
	bus  *crosscluster.Bus
	stop func()
}

// NewWorld returns a world without clusters.
func NewWorld(t testing.TB, net *membus.Network, transport Transport) *World {
	t.Helper()
	w := &World{T: t, Net: net, Order: &membus.Order{}, transport: transport}
	w.Log = slog.New(strict{slog.DiscardHandler, t})
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// strict fails the test at every error that is logged: a part that stopped and was
// started again, for example.
type strict struct {
	slog.Handler
	t testing.TB
}

// Enabled implements slog.Handler.
func (s strict) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (s strict) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		var text strings.Builder
		r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&text, " %s", a); return true })
		s.t.Errorf("logged: %s%s", r.Message, &text)
	}
	if s.Handler.Enabled(ctx, r.Level) {
		return s.Handler.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (s strict) WithAttrs(attrs []slog.Attr) slog.Handler {
	return strict{s.Handler.WithAttrs(attrs), s.t}
}

// LogTo also writes the log there.
func (w *World) LogTo(h slog.Handler) { w.Log = slog.New(strict{h, w.T}) }

// Close stops all members and waits for them.
func (w *World) Close() {
	for _, s := range w.sites {
		for i := range s.nodes {
			s.Stop(i)
		}
	}
	w.cancel()
	w.running.Wait()
	for _, s := range w.sites {
		s.Lead(-1) // ends the leadership's context
	}
}

// SiteOptions shape a Site.
type SiteOptions struct {
	Members  int // 1 if zero
	NoGossip bool
	Peers    []*Site // configured statically
	Domains  []freshet.DomainID
}

// Site adds a cluster that mounts the options' domains, Lake if there are none.
// Its members do not run yet.
func (w *World) Site(name string, o SiteOptions) *Site {
	if len(o.Domains) == 0 {
		o.Domains = []freshet.DomainID{Lake}
	}
	s := &Site{Name: name, ID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)), world: w, epoch: 1, noGossip: o.NoGossip, registry: prometheus.NewRegistry()}
	s.Cluster = membus.NewCluster(invalidation.Publisher{Cluster: s.ID, Name: name, Epoch: s.epoch}, w.Order)
	s.MountAll(o.Domains...)
	for i := range max(1, o.Members) {
		s.nodes = append(s.nodes, &node{addr: w.transport.Address(name, i)})
		w.Net.Place(s.nodes[i].addr, name, s.ID)
	}
	for _, p := range o.Peers {
		s.Peer(p)
	}
	w.sites = append(w.sites, s)
	return s
}

// Peer configures a cluster; before Start.
func (s *Site) Peer(p *Site) {
	config := crosscluster.PeerConfig{Cluster: p.Name}
	for _, n := range p.nodes {
		config.Addresses = append(config.Addresses, n.addr)
	}
	s.peers = append(s.peers, config)
}

// MountAll mounts the root of each domain.
func (s *Site) MountAll(domains ...freshet.DomainID) {
	var roots []crosscluster.Root
	for _, d := range domains {
		roots = append(roots, crosscluster.Root{Domain: d, Key: "/", Authority: strings.TrimRight(string(d[:]), "\x00")})
	}
	s.Mount(roots...)
}

// Rebuild gives the site a new, empty state with another cluster ID. Its members
// must not run.
func (s *Site) Rebuild(id freshet.ClusterID, domains ...freshet.DomainID) {
	s.Lead(-1)
	s.ID, s.writes = id, 0
	s.Cluster = membus.NewCluster(invalidation.Publisher{Cluster: id, Name: s.Name, Epoch: 1}, s.world.Order)
	s.MountAll(domains...)
	for _, n := range s.nodes {
		s.world.Net.Place(n.addr, s.Name, id)
	}
}

// Start runs a member's bus.
func (s *Site) Start(i int) {
	w, n := s.world, s.nodes[i]
	options := crosscluster.Options{
		Advertise: n.addr, Peers: s.peers, Logger: w.Log.With("site", fmt.Sprint(s.Name, i)), Registerer: s.registry,
		Addresses: func() []string {
			var out []string
			for _, n := range s.nodes {
				out = append(out, n.addr)
			}
			return out
		},
	}
	if !s.noGossip {
		options.Gossip = w.transport.Gossip(s.Name, n.addr, i)
	}
	n.bus = crosscluster.New(s.Member(i, fmt.Sprint("c", i)), w.Net.Guard(s.Name, w.transport.Dialer()), options)
	deaf := w.transport.Listen(n.addr, n.bus)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	w.running.Go(func() {
		defer close(ended)
		if err := n.bus.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			w.T.Errorf("%s %d: %v", s.Name, i, err)
		}
	})
	n.stop = func() {
		deaf()
		cancel()
		<-ended
		n.stop = nil
	}
}

// StartAll runs all members, of which the first leads.
func (s *Site) StartAll() {
	s.Lead(0)
	for i := range s.nodes {
		s.Start(i)
	}
}

// Stop ends a member's bus, if it runs.
func (s *Site) Stop(i int) {
	if stop := s.nodes[i].stop; stop != nil {
		stop()
	}
}

// Bus returns a member's bus.
func (s *Site) Bus(i int) *crosscluster.Bus { return s.nodes[i].bus }

// Put writes changes of the keys in the domain.
func (s *Site) Put(d freshet.DomainID, keys ...string) uint64 {
	var seq uint64
	for _, key := range keys {
		seq = s.Write(d, invalidation.Record{Kind: invalidation.KindContent, Key: key})
		s.writes++
	}
	return seq
}

// Bump gives the cluster a new epoch.
func (s *Site) Bump() {
	s.epoch++
	s.SetEpoch(s.epoch)
}

// Until waits until cond holds, and fails the test with what it returned last if
// it does not within the limit.
func (w *World) Until(limit time.Duration, cond func() string) {
	w.T.Helper()
	deadline := time.NewTimer(limit + w.Slack)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		why := cond()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			w.T.Fatalf("after %s: %s", limit+w.Slack, why)
		}
	}
}

// Holds fails the test if cond returns something within the time. What it returns
// after it, where a busy machine looks late, says nothing.
func (w *World) Holds(limit time.Duration, cond func() string) {
	w.T.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < limit; <-tick.C {
		if why := cond(); why != "" && time.Since(begun) < limit {
			w.T.Fatal(why)
		}
	}
}

// Level says in what receiver is not level with publisher in the domain, "" if it
// is: at the same position of the same log, in contact, with a mark for each
// change that is not older than it.
func Level(receiver, publisher *Site, d freshet.DomainID) string {
	head := publisher.Head(d)
	sub, ok := receiver.Position(publisher.ID, d)
	who := receiver.Name + " of " + publisher.Name
	switch {
	case !ok:
		return who + ": no subscription"
	case sub.Applied != head.High || sub.Hash != head.Hash || sub.State != invalidation.StateSynced:
		return fmt.Sprintf("%s: at %d (%s), head is %d", who, sub.Applied, sub.State, head.High)
	}
	if lost := receiver.AnyLost(d); len(lost) > 0 {
		return fmt.Sprintf("%s: lost: %q", who, lost)
	}
	for key, order := range publisher.Written(d) {
		if !receiver.MarkedSince(d, key, order) {
			return fmt.Sprintf("%s: %s changed and was not marked", who, key)
		}
	}
	return ""
}

// Quiet waits until every cluster is level with every other in the domains that
// both mount.
func (w *World) Quiet(limit time.Duration) {
	w.T.Helper()
	w.Until(limit, func() string {
		for _, r := range w.sites {
			for _, p := range w.sites {
				for _, d := range shared(r, p) {
					if why := Level(r, p, d); why != "" {
						return why
					}
				}
			}
		}
		return ""
	})
	for _, s := range w.sites {
		sum := 0
		for _, d := range []freshet.DomainID{Lake, Sea} {
			sum += int(s.Head(d).High)
		}
		if sum != s.writes {
			w.T.Errorf("S9: %s made %d changes, its logs hold %d: it published what it applied", s.Name, s.writes, sum)
		}
	}
}

func shared(r, p *Site) []freshet.DomainID {
	if r == p {
		return nil
	}
	mine, _ := r.Member(0, "").Roots()
	theirs, _ := p.Member(0, "").Roots()
	var out []freshet.DomainID
	for _, m := range mine {
		if slices.ContainsFunc(theirs, func(t crosscluster.Root) bool { return t.Domain == m.Domain && !t.ReadOnly }) {
			out = append(out, m.Domain)
		}
	}
	return out
}

// Counter returns the value of a counter of the site's buses, summed over its
// labels that hold the word; "" for all.
func (s *Site) Counter(name, word string) float64 {
	families, err := s.registry.Gather()
	if err != nil {
		s.world.T.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if word == "" || strings.Contains(m.String(), `"`+word+`"`) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
