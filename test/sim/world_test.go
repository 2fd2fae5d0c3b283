package sim_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/crosscluster/membus"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/retry"
)

// dice are random decisions that many goroutines take.
type dice struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

func newDice(seed, stream uint64) *dice {
	return &dice{rnd: rand.New(rand.NewPCG(seed, stream))} //nolint:gosec // repeatable on purpose
}

func (d *dice) float() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rnd.Float64()
}

func (d *dice) upTo(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.rnd.Int64N(int64(most)))
}

func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rnd.IntN(n)
}

// bubbleClock counts from the beginning of the bubble, so that its readings are
// as those of a machine: above zero.
type bubbleClock struct {
	clock.Real
	start time.Time
}

func (c bubbleClock) Elapsed() time.Duration { return time.Hour + time.Since(c.start) }

// world is all there is in a bubble.
type world struct {
	t      testing.TB
	start  time.Time
	clock  bubbleClock
	chance *dice // decisions of the surroundings
	net    *membus.Network
	bucket *bucket
	open   ufs.Openers
	sites  []*site
	calls  sync.WaitGroup // calls whose caller may have gone
	story  story

	settings settings
	hist     history
	scratch  string // for disks
	kept     struct{ hits, dropped float64 }
	stay     struct{ owed, lost, conflicts int } // files that were not in the storage, when all was quiet
}

// settings shape a world.
type settings struct {
	seed    uint64
	mode    mem.Mode
	members []int // of each site
	nodes   int
	prefix  []string      // of each site in the bucket
	records uint64        // kept in a log; 0: the default
	latency time.Duration // of the storage, at most, one way
	rebuild bool          // a cluster is made anew once
	leases  bool          // clients keep answers
	kept    bool          // some files stay on nodes at first
}

var siteNames = []string{"west", "east", "north"}

func newWorld(t testing.TB, s settings) *world {
	t.Helper()
	w := &world{t: t, start: time.Now(), chance: newDice(s.seed, 1), net: membus.NewNetwork(s.seed), settings: s}
	w.clock = bubbleClock{start: w.start}
	w.story.start, w.scratch = w.start, scratchDir(t)
	w.hist.init(w)
	w.bucket = newBucket(w, s.mode)
	w.open = ufs.Openers{mem.Opener{"lake": w.bucket.store}}
	for i, n := range s.members {
		w.sites = append(w.sites, newSite(w, siteNames[i], s.prefix[i], n, s))
	}
	for _, a := range w.sites {
		for _, b := range w.sites {
			if a != b {
				a.peers = append(a.peers, crosscluster.PeerConfig{Cluster: b.name, Addresses: b.addresses()})
			}
		}
	}
	for _, s := range w.sites {
		s.begin()
		if w.settings.leases {
			s.beginKeepers(w)
		}
	}
	return w
}

// note writes a line of the timeline.
func (w *world) note(format string, args ...any) { w.story.add(format, args...) }

// until waits until why returns "", and fails with what it returned last if it
// does not within the limit.
func (w *world) until(limit time.Duration, what string, why func() string) bool {
	w.t.Helper()
	last := ""
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if last = why(); last == "" {
			return true
		}
	}
	w.violation("", "%s: after %s still: %s", what, limit, last)
	return false
}

// close stops everything.
func (w *world) close() {
	w.net.Heal()
	for _, s := range w.sites {
		s.setMood(mood{})
		s.endKeepers(w)
		s.end()
	}
	w.calls.Wait()
	w.bucket.late.Wait()
}

// process is what a crash kills.
type process struct {
	w    *world
	site *site
	name string
	gone chan struct{}
	once sync.Once
	mute atomic.Bool // it does not reach its leader
}

func (p *process) kill() { p.once.Do(func() { close(p.gone) }) }

func (p *process) dead() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// site is one cluster.
type site struct {
	w       *world
	name    string
	prefix  string // key of the mount's root in the bucket: "/" or "/a"
	path    freshet.Path
	records uint64
	peers   []crosscluster.PeerConfig
	raft    *journal.MemoryNetwork
	domain  freshet.DomainID
	keep    keepers

	mu       sync.Mutex
	feeling  mood
	members  []*member
	nodes    []*node
	first    int            // member to ask first
	restarts sync.WaitGroup // of cache nodes
	ending   bool
	logs     map[freshet.ClusterID]*siteLog
	absent   int       // odd while the mount is not there; grows at each change
	rebuilt  time.Time // when the cluster was made anew, if it was
	wiped    time.Time // when a disk was lost, the last time
	dropping int       // what drops files that are not in the storage goes on
	drop     time.Time // when it was over, the last time
}

func newSite(w *world, name, prefix string, members int, s settings) *site {
	out := &site{
		w: w, name: name, prefix: prefix, path: freshet.Path("/mnt/" + name), records: s.records, raft: &journal.MemoryNetwork{},
		logs: map[freshet.ClusterID]*siteLog{},
	}
	canonical, err := w.open.Parse(ufs.Spec{URI: "mem://lake"})
	if err != nil {
		w.t.Fatal(err)
	}
	out.domain = canonical.Domain()
	for i := range members {
		m := &member{site: out, index: i, addr: fmt.Sprintf("%s/%d", name, i), raft: fmt.Sprintf("%s-c%d", name, i)}
		m.log, m.kv = journal.NewMemory(), kv.NewMemory()
		out.members = append(out.members, m)
	}
	for i := range s.nodes {
		out.nodes = append(out.nodes, &node{site: out, name: fmt.Sprintf("%s-n%d", name, i), disk: w.newDisk()})
	}
	return out
}

// mount is never looked at by time, but while a publisher is out of contact.
func (s *site) mount() freshet.MountChange {
	uri, never, degraded := "mem://lake"+strings.TrimSuffix(s.prefix, "/"), freshet.Never, freshet.Interval(5*time.Second)
	return freshet.MountChange{Path: s.path, URI: &uri, Interval: &never, DegradedInterval: &degraded}
}

// changed says that the mount comes or goes.
func (s *site) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent++
}

// mounted returns a number that is the same as long as the mount is there.
func (s *site) mounted() (number int, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.absent, s.absent%2 == 0
}

func (s *site) addresses() []string {
	var out []string
	for _, m := range s.members {
		out = append(out, m.addr)
	}
	return out
}

func (s *site) mood() mood {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeling
}

func (s *site) setMood(m mood) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.latency == 0 {
		m.latency = s.w.settings.latency
	}
	s.feeling = m
}

func (s *site) begin() {
	s.setMood(mood{})
	for _, m := range s.members {
		m.start(m.index == 0)
	}
	for _, n := range s.nodes {
		n.start()
	}
}

func (s *site) end() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.restarts.Wait()
	for _, n := range s.nodes {
		n.stop()
	}
	for _, m := range s.members {
		m.halt()
	}
	for _, n := range s.nodes {
		n.past.Wait()
	}
}

// key returns the key in the bucket of a path, and back.
func (s *site) key(p freshet.Path) string {
	rel := s.path.Rel(p)
	switch {
	case rel == "":
		return s.prefix
	case s.prefix == "/":
		return "/" + rel
	}
	return s.prefix + "/" + rel
}

// storeKey returns the key in the bucket of one that is relative to the mount.
func (s *site) storeKey(rel string) string {
	if s.prefix == "/" {
		return "/" + rel
	}
	return strings.TrimSuffix(s.prefix+"/"+rel, "/")
}

func (s *site) pathOf(key string) freshet.Path {
	if key == s.prefix {
		return s.path
	}
	return s.path.Join(strings.TrimPrefix(strings.TrimPrefix(key, s.prefix), "/"))
}

// leader returns the member that leads and answers, nil if none does.
func (s *site) leader() *member {
	for _, m := range s.members {
		if c := m.running(); c != nil {
			if _, ok := c.Leading(); ok {
				return m
			}
		}
	}
	return nil
}

// waitLeader waits until there is one.
func (s *site) waitLeader() *coordinator.Coordinator {
	s.w.t.Helper()
	var m *member
	if !s.w.until(2*time.Minute, s.name+" has a leader", func() string {
		if m = s.leader(); m == nil {
			return "no member leads"
		}
		return ""
	}) {
		s.w.t.FailNow()
	}
	return m.running()
}

// member is one coordinator with its disk.
type member struct {
	site  *site
	index int
	addr  string // on the bus
	raft  string
	log   *journal.Memory
	kv    *kv.Memory
	// metrics are those of its processes.
	metrics []*prometheus.Registry

	mu   sync.Mutex
	c    *coordinator.Coordinator
	p    *process
	quit func(crashed bool)
}

// registry makes that of a new process.
func (m *member) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.metrics = append(m.metrics, r)
	return r
}

// region is a coordinator as the bus sees it.
type region struct{ *coordinator.Coordinator }

func (r region) Identity() crosscluster.Identity {
	return crosscluster.Identity{Publisher: r.Publisher(), Node: r.Node()}
}

func (r region) Roots() ([]crosscluster.Root, <-chan struct{}) {
	own, changed := r.Coordinator.Roots()
	roots := make([]crosscluster.Root, len(own))
	for i, root := range own {
		roots[i] = crosscluster.Root(root)
	}
	return roots, changed
}

func (m *member) running() *coordinator.Coordinator {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.p == nil || m.p.dead() {
		return nil
	}
	return m.c
}

func (m *member) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p
}

func (m *member) start(founder bool) {
	s, w := m.site, m.site.w
	p := &process{w: w, site: s, name: m.raft, gone: make(chan struct{})}
	log := slog.New(&w.story).With("at", m.raft)
	opts := coordinator.Options{
		Cluster: s.name,
		Member:  namespace.Member{ID: m.raft, Name: m.raft, Raft: m.raft, GRPC: m.raft + ":7400", Bus: m.addr},
		Journal: journal.Options{Memory: m.log, Network: s.raft, Advertise: m.raft, SnapshotEvery: 5 * time.Second, SnapshotAfter: 150, TrailingLogs: 60},
		Mounts:  []freshet.MountChange{s.mount()},
		Wrap:    func(fs ufs.FS) ufs.FS { return retry.New(&flaky{fs, p}, retry.Options{}) },
		Tick:    time.Second,
	}
	if w.settings.leases {
		opts.Leases.Length = leaseLength
	}
	if s.records > 0 {
		opts.Retention = coordinator.Retention{Records: s.records, Age: 5 * time.Second, Most: s.records}
	}
	if founder {
		for _, other := range s.members {
			opts.Found = append(opts.Found, journal.Server{ID: other.raft, Addr: other.raft})
		}
	}
	c, err := coordinator.New(opts, coordinator.Deps{Store: m.kv, Openers: w.open, Clock: w.clock, Log: log, Metrics: m.registry()})
	if err != nil {
		w.t.Fatal(err)
	}
	bus := m.bus(c, log)
	hooks := coordinator.Hooks{Nudge: bus.Nudge, Acked: lowestAck(bus), Announce: func(ctx context.Context, _ string, self freshet.Member) error {
		_, err := call(ctx, s, func(c *coordinator.Coordinator) (freshet.ClusterID, error) {
			id, _, err := c.JoinRaft(ctx, self, s.name)
			return id, err
		})
		return err
	}}
	c.Attach(hooks)
	m.run(c, bus, p)
}

func lowestAck(bus *crosscluster.Bus) func(freshet.DomainID) (uint64, bool) {
	return func(domain freshet.DomainID) (low uint64, some bool) {
		peers := bus.Peers()
		for i := range peers {
			for _, d := range peers[i].Domains {
				if d.Domain == domain && peers[i].Stream && (!some || d.Acknowledged < low) {
					low, some = d.Acknowledged, true
				}
			}
		}
		return low, some
	}
}

func (m *member) bus(c *coordinator.Coordinator, log *slog.Logger) *crosscluster.Bus {
	s, net := m.site, m.site.w.net
	t := membus.Transport{Network: net}
	return crosscluster.New(region{c}, net.Guard(s.name, t.Dialer()), crosscluster.Options{
		Addresses: c.BusAddresses, Advertise: m.addr, Peers: s.peers, Gossip: t.Gossip(s.name, m.addr, m.index), Clock: s.w.clock, Logger: log,
	})
}

// run runs a coordinator and its bus.
func (m *member) run(c *coordinator.Coordinator, bus *crosscluster.Bus, p *process) {
	s, w := m.site, m.site.w
	w.net.Place(m.addr, s.name, c.Publisher().Cluster)
	deaf := membus.Transport{Network: w.net}.Listen(m.addr, bus)
	ctx, cancel := context.WithCancel(context.Background())
	busCtx, busCancel := context.WithCancel(context.Background())
	done, busDone := make(chan error, 1), make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	go func() { busDone <- bus.Run(busCtx) }()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c, m.p = c, p
	m.quit = func(crashed bool) {
		deaf()
		busCancel()
		if err := <-busDone; err != nil && !errors.Is(err, context.Canceled) && !crashed {
			w.violation("", "bus of %s: %v", m.raft, err)
		}
		cancel()
		if err := <-done; err != nil && !crashed {
			w.violation("", "%s: %v", m.raft, err)
		}
		p.kill()
	}
}

func (m *member) take() func(bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	quit := m.quit
	m.quit = nil
	return quit
}

// halt stops a member in order.
func (m *member) halt() {
	if quit := m.take(); quit != nil {
		quit(false)
	}
}

// crash ends a member as if it had been killed: only what was flushed or is in
// its log remains.
func (m *member) crash() {
	quit := m.take()
	if quit == nil {
		return
	}
	m.process().kill()
	m.site.raft.Isolate(m.raft)
	m.kv = m.kv.Crash()
	quit(true)
	m.site.healMember(m.raft)
}

func (m *member) stopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.quit == nil
}

func (s *site) healMember(addr string) {
	for _, other := range s.members {
		s.raft.Heal(addr, other.raft)
		s.raft.Heal(other.raft, addr)
	}
}
