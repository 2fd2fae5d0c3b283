package scale_test

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/offheap"
)

// stateCache is what raft.state_cache would be.
const stateCache = 64 << 20

// member is a coordinator's state with its store and its log.
type member struct {
	t       *testing.T
	store   *pebblekv.Store
	reads   *countingStore
	state   *namespace.State
	journal *journal.Journal
	cancel  context.CancelFunc
	ended   chan error
	opened  time.Duration // that store and state took to open
}

// startMember opens what is in dir, or founds it.
func startMember(t *testing.T, dir string, found bool) *member {
	t.Helper()
	m := &member{t: t, ended: make(chan error, 1)}
	var err error
	begun := time.Now()
	entries, store := coordinator.SplitMemory(stateCache)
	if m.store, err = pebblekv.Open(filepath.Join(dir, "state"), pebblekv.Options{CacheBytes: store}); err != nil {
		t.Fatal(err)
	}
	m.reads = &countingStore{Store: m.store}
	if m.state, err = namespace.Open(m.reads, namespace.Options{CacheBytes: entries, Alloc: offheap.New().Alloc}); err != nil {
		t.Fatal(err)
	}
	m.opened = time.Since(begun)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Snapshots come early and little log is kept behind them, so that the log is
	// truncated many times even in the short test.
	m.journal, err = journal.Open(journal.Options{
		ID: "m", Dir: filepath.Join(dir, "raft"), Listener: ln, NoSync: true,
		Identity:      func() freshet.ClusterID { return m.state.Identity().Cluster },
		SnapshotEvery: time.Second, SnapshotAfter: 128, TrailingLogs: 64,
	}, m.state)
	if err != nil {
		t.Fatal(err)
	}
	if found {
		if err := m.journal.Bootstrap([]journal.Server{{ID: "m", Addr: ln.Addr().String()}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() { m.ended <- m.journal.Run(ctx) }()
	m.lead()
	return m
}

// lead waits until the member leads.
func (m *member) lead() {
	m.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		view, changed := m.journal.Leadership()
		if view.Leading {
			return
		}
		select {
		case <-changed:
		case err := <-m.ended:
			m.t.Fatalf("the log ended: %v", err)
		case <-deadline:
			m.t.Fatal("the only member does not lead")
		}
	}
}

// stop ends the member in order.
func (m *member) stop() {
	m.t.Helper()
	m.cancel()
	if err := <-m.ended; err != nil {
		m.t.Fatal(err)
	}
	if err := m.store.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// propose has one command applied. It is safe for use by many goroutines.
func (m *member) propose(cmd namespace.Command) (namespace.Result, error) {
	res, err := m.journal.Propose(m.t.Context(), cmd)
	if err != nil {
		return namespace.Result{}, err
	}
	return res[0], res[0].Err
}

func (m *member) must(cmd namespace.Command) namespace.Result {
	m.t.Helper()
	r, err := m.propose(cmd)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// found gives the cluster its identity and a mount at /m.
func (m *member) found() {
	m.t.Helper()
	m.must(namespace.Command{Bootstrap: &namespace.Bootstrap{
		Cluster: uuid.New(), Name: "scale", Epoch: 1, At: epoch,
		Mounts: []freshet.Mount{{Path: "/m", URI: "file:///m", Level: freshet.LevelInterval, Interval: freshet.Never, DomainKey: "/"}},
	}})
}

// countingStore counts the rows that were read, by table.
type countingStore struct {
	kv.Store
	rows [256]atomic.Int64
}

// table is the second byte of each key but the shortest.
func (c *countingStore) count(key []byte) {
	if len(key) > 1 {
		c.rows[key[1]].Add(1)
		return
	}
	c.rows[0].Add(1)
}

func (c *countingStore) Get(key []byte) ([]byte, bool, error) {
	c.count(key)
	return c.Store.Get(key)
}

func (c *countingStore) Scan(start, end []byte, fn func(key, value []byte) bool) error {
	return c.Store.Scan(start, end, func(key, value []byte) bool {
		c.count(key)
		return fn(key, value)
	})
}

// take returns the counts since the last call.
func (c *countingStore) take() map[byte]int64 {
	counts := map[byte]int64{}
	for table := range c.rows {
		if n := c.rows[table].Swap(0); n > 0 {
			counts[byte(table)] = n
		}
	}
	return counts
}
