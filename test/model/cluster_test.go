package model_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// cluster is three members in memory.
type cluster struct {
	t       *testing.T
	net     *journal.MemoryNetwork
	members []*member
}

// member is a coordinator's state and log. What of it survives a kill is the disk:
// of the state what was flushed, of the log everything.
type member struct {
	id     string
	disk   *kv.Memory
	log    *journal.Memory
	store  *mortal
	state  *counting
	j      *journal.Journal
	cancel context.CancelFunc
	ended  chan error
	dumps  atomic.Int64
}

var errKilled = errors.New("the process was killed")

// mortal is a store whose process may be killed: nothing reaches the disk then.
type mortal struct {
	*kv.Memory
	mu   sync.Mutex
	dead bool
}

// Flush implements kv.Store.
func (m *mortal) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errKilled
	}
	return m.Memory.Flush()
}

// die returns the disk as the next process finds it.
func (m *mortal) die() *kv.Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	return m.Memory.Crash()
}

// counting counts the copies that a member makes for others.
type counting struct {
	*namespace.State
	dumps *atomic.Int64
}

// Dump implements journal.State.
func (c *counting) Dump(w io.Writer) (uint64, error) {
	c.dumps.Add(1)
	return c.State.Dump(w)
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, net: &journal.MemoryNetwork{}}
	var servers []journal.Server
	for i := range 3 {
		id := fmt.Sprintf("m%d", i)
		c.members = append(c.members, &member{id: id, disk: kv.NewMemory(), log: journal.NewMemory()})
		servers = append(servers, journal.Server{ID: id, Addr: id})
	}
	for i, m := range c.members {
		c.open(m)
		if i == 0 {
			if err := m.j.Bootstrap(servers); err != nil {
				t.Fatal(err)
			}
		}
		c.run(m)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			if m.cancel == nil {
				continue // the test ended while it was dead
			}
			m.cancel()
			if err := <-m.ended; err != nil {
				t.Errorf("%s: %v", m.id, err)
			}
		}
	})
	return c
}

func (c *cluster) open(m *member) {
	c.t.Helper()
	m.store = &mortal{Memory: m.disk}
	state, err := namespace.Open(m.store, namespace.Options{CacheBytes: 64 << 10})
	if err != nil {
		c.t.Fatal(err)
	}
	m.state = &counting{state, &m.dumps}
	// A short log, so that members that were away need a copy.
	m.j, err = journal.Open(journal.Options{
		ID: m.id, Advertise: m.id, Memory: m.log, Network: c.net,
		Identity:      func() freshet.ClusterID { return state.Identity().Cluster },
		SnapshotEvery: time.Second, SnapshotAfter: 10, TrailingLogs: 5,
	}, m.state)
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) run(m *member) {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, make(chan error, 1)
	j, ended := m.j, m.ended
	go func() { ended <- j.Run(ctx) }()
}

// kill ends a member as a power failure would, lets the others go on without it for
// a while, and starts it again.
func (c *cluster) kill(m *member) {
	c.t.Helper()
	c.die(m)
	time.Sleep(2 * time.Second)
	c.revive(m)
}

func (c *cluster) die(m *member) {
	c.t.Helper()
	c.net.Isolate(m.id)
	m.disk = m.store.die()
	m.cancel()
	m.cancel = nil
	if err := <-m.ended; err == nil {
		c.t.Errorf("%s ended in order", m.id)
	}
}

func (c *cluster) revive(m *member) {
	c.t.Helper()
	c.net.HealAll()
	c.open(m)
	c.run(m)
}

// leader waits until a member leads and may answer.
func (c *cluster) leader() *member {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		for _, m := range c.members {
			if _, ok := m.j.Leading(); ok {
				return m
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatal("no leader within a minute")
	return nil
}

// commit repeats a command, which must bear it, until it is acknowledged. The kinds
// are those with which a repetition is answered.
func (c *cluster) commit(cmd namespace.Command, repeated ...freshet.Kind) {
	c.t.Helper()
	for range 100 {
		res, err := c.leader().j.Propose(c.t.Context(), cmd)
		if err == nil {
			if r := res[0].Err; r != nil && !freshet.IsKind(r, repeated...) {
				c.t.Fatalf("%+v: %v", cmd, r)
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("no acknowledgement after 100 tries")
}

// read returns the leader's state when a read of it is linearizable.
func (c *cluster) read() *namespace.State {
	c.t.Helper()
	for range 100 {
		l := c.leader()
		if _, err := l.j.ReadBarrier(c.t.Context()); err == nil {
			return l.state.State
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("no linearizable read after 100 tries")
	return nil
}

// settle waits until all members have applied the same index and holds them to
// equal states.
func (c *cluster) settle() {
	c.t.Helper()
	for range 1000 {
		index := c.read().Applied()
		hashes := map[[32]byte]bool{}
		for _, m := range c.members {
			if m.state.Applied() != index {
				break
			}
			hash, err := m.state.Hash()
			if err != nil {
				c.t.Fatal(err)
			}
			hashes[hash] = true
			if m == c.members[len(c.members)-1] {
				if len(hashes) != 1 {
					c.t.Fatalf("the members differ at index %d", index)
				}
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("the members don't reach one index")
}

func (c *cluster) dumps() int {
	n := 0
	for _, m := range c.members {
		n += int(m.dumps.Load())
	}
	return n
}
