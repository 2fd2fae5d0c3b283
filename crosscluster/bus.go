package crosscluster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/invalidation"
	busv1 "github.com/freshet-io/freshet/proto/freshet/bus/v1"
)

// PeerConfig is a cluster that the operator named, with addresses of its
// cluster-to-cluster ports.
type PeerConfig struct {
	Cluster   string
	Addresses []string
}

// Options are the settings of a Bus. The zero value works: without a Gossip the
// streams carry everything, without Peers the gossip pool names them.
type Options struct {
	// Addresses returns the cluster-to-cluster addresses of the own cluster's
	// members, which others are told. Members found in the gossip pool are added.
	Addresses func() []string
	// Advertise is this member's own cluster-to-cluster address.
	Advertise string
	// Peers are the clusters known beforehand.
	Peers []PeerConfig
	// Gossip is the pool of coordinators; nil for none.
	Gossip     Gossip
	Clock      clock.Clock
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Timing of the bus.
const (
	heartbeatInterval = time.Second
	// contactTimeout is how long a publisher may be silent on all ways before
	// it counts as lost.
	contactTimeout = 3 * time.Second
	// streamTimeout is how long gossip alone excuses the lack of a verified
	// answer. It covers an election at the publisher.
	streamTimeout = 10 * time.Second
	// reorderWait is how long records that were named may take to arrive by
	// themselves where no stream is open, stallWait where one is.
	reorderWait = 100 * time.Millisecond
	stallWait   = time.Second
	watchTick   = 100 * time.Millisecond
	dialTimeout = 3 * time.Second
	callTimeout = 3 * time.Second
	minBackOff  = 50 * time.Millisecond
	maxBackOff  = 5 * time.Second
)

// Bus is this member's part of the bus. Every member answers other clusters; the
// leader also publishes to them and listens to them. Its methods are safe for
// concurrent use.
type Bus struct {
	region   Region
	dial     Dialer
	gossip   Gossip
	options  Options
	clock    clock.Clock
	log      *slog.Logger
	metrics  *metrics
	dir      *directory
	verifier *verifier
	inbox    chan []byte // gossip payloads

	mu       sync.Mutex
	overflow bool // inbox dropped something
	left     bool // Leave was called
	links    map[string]*link
}

// New returns a Bus between the own region and those that dial reaches. It starts
// nothing.
func New(region Region, dial Dialer, options Options) *Bus {
	if options.Clock == nil {
		options.Clock = clock.Real{}
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Bus{
		region: region, dial: dial, gossip: options.Gossip, options: options,
		clock: options.Clock, log: options.Logger, metrics: newMetrics(options.Registerer),
		verifier: newVerifier(region, options.Clock),
		inbox:    make(chan []byte, inboxSize),
		links:    map[string]*link{},
	}
	b.dir = newDirectory(func() invalidation.Publisher { return region.Identity().Publisher }, options.Peers)
	return b
}

// Run takes part in the bus until ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	g := run.NewGroup(ctx)
	if b.gossip != nil {
		g.Go("gossip", func(ctx context.Context) error { return b.gossip.Run(ctx, b.member(), b.deliver) })
		g.Go("gossip members", b.watchPool)
		g.Go("gossip payloads", b.receive)
	}
	g.Go("leadership", b.watchLeadership)
	return g.Wait()
}

// watchLeadership runs what only the leader does for as long as this member
// leads.
func (b *Bus) watchLeadership(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := b.region.Leadership()
		leads, leading := b.region.Leading()
		if leading {
			term, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(leads, cancel)
			err := b.lead(term)
			stop()
			cancel()
			if err != nil && ctx.Err() == nil && leads.Err() == nil {
				b.log.Error("the bus stopped and starts again", "error", err)
				if !b.pause(ctx, time.Second) {
					return nil
				}
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// lead listens to all other clusters and tells them of ours, until ctx, which
// lives as long as the leadership, ends.
func (b *Bus) lead(ctx context.Context) error {
	subs, err := b.region.Subscriptions()
	if err != nil {
		return err
	}
	b.dir.restore(subs)
	g := run.NewGroup(ctx)
	if b.gossip != nil {
		g.Go("publish frames", b.publish)
	}
	g.Go("links", func(ctx context.Context) error { return b.keepLinks(ctx, g) })
	err = g.Wait()
	b.mu.Lock()
	clear(b.links)
	b.mu.Unlock()
	return err
}

// keepLinks has one link for each known cluster.
func (b *Bus) keepLinks(ctx context.Context, g *run.Group) error {
	ending := map[string]<-chan struct{}{}
	for {
		all, changed := b.dir.list()
		b.mu.Lock()
		for _, k := range all {
			if b.links[k.name] == nil && !b.left {
				l := newLink(b, k.name, ending[k.name])
				delete(ending, k.name)
				b.links[k.name] = l
				g.Go("link to "+k.name, l.run)
			}
		}
		for name, l := range b.links {
			if !slices.ContainsFunc(all, func(k known) bool { return k.name == name }) {
				l.end()
				ending[name] = l.done
				delete(b.links, name)
			}
		}
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *Bus) link(name string) *link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.links[name]
}

// pause waits for d and reports whether ctx still lives.
func (b *Bus) pause(ctx context.Context, d time.Duration) bool {
	t := b.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// info is what we say of ourselves.
func (b *Bus) info() clusterInfo {
	roots, _ := b.region.Roots()
	addresses := []string{b.options.Advertise}
	if b.options.Addresses != nil {
		addresses = append(addresses, b.options.Addresses()...)
	}
	self := b.region.Identity()
	if b.gossip != nil {
		members, _ := b.gossip.Members()
		for _, m := range members {
			if m.ID == self.Cluster {
				addresses = append(addresses, m.Bus)
			}
		}
	}
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	addresses = slices.DeleteFunc(addresses, func(a string) bool { return a == "" })
	return clusterInfo{
		Publisher: self.Publisher, protocolMin: ProtocolMin, protocolMax: ProtocolMax,
		addresses: addresses, roots: roots,
	}
}

// member is what the gossip pool is told of us.
func (b *Bus) member() Member {
	self := b.region.Identity()
	return Member{
		Cluster: self.Name, ID: self.Cluster, Epoch: self.Epoch, Node: self.Node,
		Bus: b.options.Advertise, Protocol: ProtocolMax,
	}
}

// Nudge asks for what the publisher has and we lack in the domain, at once: a
// reader waits for it. It does not wait itself, not even for a lock under which a
// Region is called, and does nothing on a member that does not lead.
func (b *Bus) Nudge(cluster freshet.ClusterID, domain freshet.DomainID) {
	if k, ok := b.dir.byID(cluster); ok {
		if l := b.link(k.name); l != nil {
			l.nudge(domain)
		}
	}
}

// Forget drops a cluster, by its name or ID, that will not come back: what it
// published is no longer waited for, and everything that it might have changed is
// marked. KindNotExist if there is none, KindNotLeader on other members. A
// cluster that lives introduces itself again.
func (b *Bus) Forget(ctx context.Context, cluster string) error {
	const op = "forget peer"
	if _, leading := b.region.Leading(); !leading {
		return freshet.Errorf(freshet.KindNotLeader, op, "", "only the leader forgets a cluster")
	}
	subs, err := b.region.Subscriptions()
	if err != nil {
		return freshet.Wrap(op, "", err)
	}
	id, _ := uuid.Parse(cluster)
	name := cluster
	if k, ok := b.dir.byID(id); ok {
		name = k.name
	}
	_, found := b.dir.lookup(name)
	for _, s := range subs {
		if s.Publisher.Name != name && s.Publisher.Cluster != id {
			continue
		}
		found = true
		if err := b.forgetID(ctx, s.Publisher.Cluster); err != nil {
			return freshet.Wrap(op, "", err)
		}
	}
	if !found {
		return freshet.Errorf(freshet.KindNotExist, op, "", "no cluster %q is known; see freshet peers ls", cluster)
	}
	l := b.link(name)
	b.dir.forget(name) // first: else its watch finds it lost once more in between
	if l != nil {
		l.abandon()
	}
	return nil
}

// forgetID drops our positions in a cluster's logs, if there are any.
func (b *Bus) forgetID(ctx context.Context, id freshet.ClusterID) error {
	err := b.region.Forget(ctx, id)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return nil // all were dropped with the first
	}
	return err
}

// Leave tells all other clusters that ours ends its part in order, with its last
// sequence numbers, so that they do not wait for it; from then on this member
// takes no part any more. Leader. The error joins those of the clusters that could
// not be told.
func (b *Bus) Leave(ctx context.Context) error {
	verified, err := b.verifier.after(ctx)
	if err != nil {
		return freshet.Wrap("leave peers", "", err)
	}
	b.mu.Lock()
	b.left = true
	links := slices.Collect(maps.Values(b.links))
	b.mu.Unlock()
	if err := endAll(ctx, links); err != nil {
		return freshet.Wrap("leave peers", "", err)
	}
	self := b.region.Identity()
	req := &busv1.GoodbyeRequest{ClusterId: self.Cluster[:], Epoch: verified.epoch, Heads: headsToWire(verified.heads)}
	all, _ := b.dir.list()
	var errs []error
	for _, k := range all {
		if err := b.goodbye(ctx, k, req); err != nil {
			errs = append(errs, freshet.Wrap("leave "+k.name, "", err))
		}
	}
	return errors.Join(errs...)
}

// endAll ends links and waits for them: an introduction of ours that arrived
// after our goodbye would take it back.
func endAll(ctx context.Context, links []*link) error {
	for _, l := range links {
		l.end()
	}
	for _, l := range links {
		select {
		case <-l.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (b *Bus) goodbye(ctx context.Context, k known, req *busv1.GoodbyeRequest) error {
	err := freshet.Errorf(freshet.KindUnavailable, "goodbye", "", "no address of cluster %s is known", k.name)
	for _, addr := range k.addresses() {
		if err = b.goodbyeAt(ctx, addr, req); err == nil {
			return nil
		}
	}
	return err
}

func (b *Bus) goodbyeAt(ctx context.Context, addr string, req *busv1.GoodbyeRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	peer, err := b.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer func() { _ = peer.Close() }() // nothing more is expected of it
	_, err = peer.Goodbye(ctx, req)
	return err
}
