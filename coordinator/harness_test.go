package coordinator_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// world is a storage in memory and the members of one cluster over it.
type world struct {
	*testing.T
	store   *mem.Store
	openers ufs.Openers
	net     *journal.MemoryNetwork
	members []*member
	faults  *faults

	mu   sync.Mutex
	hook func(step, key string) error
}

// member is one coordinator with its disk.
type member struct {
	*coordinator.Coordinator
	id   string
	log  *journal.Memory
	kv   *kv.Memory
	dir  string
	stop context.CancelFunc
	done chan error
}

type settings struct {
	members int
	mode    mem.Mode
	seeds   []freshet.MountChange
	options func(*coordinator.Options)
	hooks   coordinator.Hooks
	world   **world // told of the world before its members start
	metrics prometheus.Registerer
	cluster string     // eu-west by default
	store   *mem.Store // of another world
	feed    *feed      // what the storage tells of changes, if it does
	disk    string     // a single member's log is on disk here, outside of a bubble
}

// inBubble runs a test on a cluster in a bubble of fake time.
func inBubble(t *testing.T, s settings, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		defer w.close()
		test(w)
	})
}

func newWorld(t *testing.T, s settings) *world {
	t.Helper()
	w := &world{T: t, net: &journal.MemoryNetwork{}, faults: &faults{specials: map[string]string{}}}
	w.store = mem.New(mem.Options{Mode: s.mode, PageSize: 10, Hook: func(step, key string) error {
		w.mu.Lock()
		hook := w.hook
		w.mu.Unlock()
		if hook != nil {
			return hook(step, key)
		}
		return nil
	}})
	if s.store != nil {
		w.store = s.store
	}
	w.openers = ufs.Openers{mem.Opener{"lake": w.store}}
	if s.feed != nil {
		w.openers = ufs.Openers{telling{w.openers[0], s.feed}}
	}
	if s.world != nil {
		*s.world = w
	}
	if s.seeds == nil {
		s.seeds = []freshet.MountChange{mount("/data", "mem://lake", freshet.Never)}
	}
	n := max(s.members, 1)
	var found []journal.Server
	for i := range n {
		id := fmt.Sprintf("c%d", i+1)
		found = append(found, journal.Server{ID: id, Addr: id})
		w.members = append(w.members, &member{id: id, log: journal.NewMemory(), kv: kv.NewMemory()})
	}
	for i, m := range w.members {
		w.start(m, s, found, i == 0)
	}
	return w
}

func (w *world) start(m *member, s settings, found []journal.Server, founder bool) {
	w.Helper()
	opts := coordinator.Options{
		Cluster: cmp.Or(s.cluster, "eu-west"),
		Member:  namespace.Member{ID: m.id, Name: m.id, Raft: m.id, GRPC: m.id + ":7400"},
		Journal: journal.Options{Memory: m.log, Network: w.net, Advertise: m.id},
		Mounts:  s.seeds,
		Wrap:    func(fs ufs.FS) ufs.FS { return &faulty{fs, w.faults} },
	}
	if s.disk != "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.Fatal(err)
		}
		m.dir, opts.Journal = s.disk, journal.Options{Dir: s.disk, Listener: l, Heartbeat: 200 * time.Millisecond}
	}
	if founder {
		opts.Found = found
	}
	if s.options != nil {
		s.options(&opts)
	}
	c, err := coordinator.New(opts, coordinator.Deps{Store: m.kv, Openers: w.openers, Log: slog.New(slog.DiscardHandler), Metrics: s.metrics})
	if err != nil {
		w.Fatal(err)
	}
	c.Attach(s.hooks)
	ctx, cancel := context.WithCancel(context.Background())
	m.Coordinator, m.stop, m.done = c, cancel, make(chan error, 1)
	go func() { m.done <- c.Run(ctx) }()
}

// sibling returns another cluster over the same storage.
func (w *world) sibling(s settings) *world {
	w.Helper()
	s.store = w.store
	return newWorld(w.T, s)
}

// halt stops a member in order.
func (w *world) halt(m *member) {
	w.Helper()
	m.stop()
	if err := <-m.done; err != nil {
		w.Error(err)
	}
	m.stop = nil
}

func (w *world) close() {
	for _, m := range w.members {
		if m.stop != nil {
			w.halt(m)
		}
	}
}

// leader waits until one member leads and answers.
func (w *world) leader() *member {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		for _, m := range w.members {
			if m.stop == nil {
				continue
			}
			if _, ok := m.Leading(); ok {
				return m
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-w.Context().Done():
		}
	}
	w.Fatal("no member leads")
	return nil
}

// onStep sets what the storage does at each step.
func (w *world) onStep(hook func(step, key string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

// calls returns how often the storage was asked, but for the probes of mounts.
func (w *world) calls() int {
	n := w.store.Calls()
	return n["stat"] + n["list"]
}

// asked returns how often the storage is asked while fn runs.
func (w *world) asked(fn func()) int {
	before := w.calls()
	fn()
	return w.calls() - before
}

// entries returns how many log entries fn makes.
func (w *world) entries(m *member, fn func()) uint64 {
	w.Helper()
	before := w.applied(m)
	fn()
	return w.applied(m) - before
}

func (w *world) applied(m *member) uint64 {
	w.Helper()
	s, err := m.Cluster(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return s.AppliedIndex
}

func (w *world) stat(m *member, p string) freshet.Status {
	w.Helper()
	st, err := m.Stat(w.Context(), freshet.Path(p), freshet.ReadOptions{})
	if err != nil {
		w.Fatalf("stat %s: %v", p, err)
	}
	return st
}

func (w *world) wantKind(err error, k freshet.Kind) {
	w.Helper()
	if !errors.Is(err, k) {
		w.Errorf("got %v, want an error of kind %s", err, k)
	}
}

func (w *world) statKind(m *member, p string, k freshet.Kind) {
	w.Helper()
	_, err := m.Stat(w.Context(), freshet.Path(p), freshet.ReadOptions{})
	w.wantKind(err, k)
}

func (w *world) list(m *member, p string) []string {
	w.Helper()
	page, err := m.List(w.Context(), freshet.ListQuery{Path: freshet.Path(p)})
	if err != nil {
		w.Fatalf("list %s: %v", p, err)
	}
	return pathsOf(page)
}

func pathsOf(page freshet.ListPage) []string {
	var out []string
	for _, e := range page.Entries {
		out = append(out, string(e.Path))
	}
	return out
}

func mount(p, uri string, interval freshet.Interval) freshet.MountChange {
	return freshet.MountChange{Path: freshet.Path(p), URI: &uri, Interval: &interval}
}

func at(d time.Duration) *freshet.Interval {
	i := freshet.Interval(d)
	return &i
}
