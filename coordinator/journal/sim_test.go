package journal_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
)

// cluster is a cluster in memory, for a bubble.
type cluster struct {
	t       *testing.T
	net     *journal.MemoryNetwork
	tune    func(*journal.Options)
	members []*member
}

type member struct {
	id     string
	memory *journal.Memory
	state  *register
	j      *journal.Journal
	cancel context.CancelFunc
	begun  <-chan struct{} // closed when Run has begun to take part
	ended  chan error
}

// newCluster founds a cluster of n members and starts them.
func newCluster(t *testing.T, n int, tune func(*journal.Options)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: &journal.MemoryNetwork{}, tune: tune}
	var servers []journal.Server
	for i := range n {
		id := fmt.Sprintf("m%d", i)
		c.members = append(c.members, &member{id: id, memory: journal.NewMemory(), state: &register{}})
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
			c.stop(m)
		}
		time.Sleep(5 * time.Second) // fake time: raft ends without waiting for a transfer whose message is on its way
	})
	return c
}

func (c *cluster) open(m *member) {
	c.t.Helper()
	opts := journal.Options{ID: m.id, Advertise: m.id, Memory: m.memory, Network: c.net}
	if os.Getenv("JOURNAL_TEST_LOG") != "" {
		opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("member", m.id)
	}
	if c.tune != nil {
		c.tune(&opts)
	}
	j, err := journal.Open(opts, m.state)
	if err != nil {
		c.t.Fatal(err)
	}
	m.j = j
}

func (c *cluster) run(m *member) {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, make(chan error, 1)
	_, m.begun = m.j.Leadership()
	go func() { m.ended <- m.j.Run(ctx) }()
}

// stop ends a member in order.
func (c *cluster) stop(m *member) {
	if m.cancel == nil {
		return
	}
	m.cancel()
	m.cancel = nil
	if err := <-m.ended; err != nil {
		c.t.Errorf("member %s: %v", m.id, err)
	}
}

// crash takes a member off the network and brings it back later as if its process
// had been killed: only what was flushed or written to the log is left. Its former
// self is stopped first without anybody hearing of it.
func (c *cluster) crash(m *member) {
	c.net.Isolate(m.id)
	kept := m.state.crash()
	c.kill(m)
	m.state = kept
}

func (c *cluster) kill(m *member) {
	m.cancel()
	m.cancel = nil
	if err := <-m.ended; !errors.Is(err, errKilled) {
		c.t.Errorf("member %s: %v", m.id, err)
	}
}

// revive starts a member that was crashed or stopped.
func (c *cluster) revive(m *member) {
	c.net.HealAll()
	c.open(m)
	c.run(m)
}

// leader waits until one of the members leads and may answer.
func (c *cluster) leader(among ...*member) *member {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if m := c.leads(among...); m != nil {
			return m
		}
		time.Sleep(10 * time.Millisecond) // fake time
	}
	c.t.Fatal("no leader within 30 s")
	return nil
}

// leads returns a member that leads and may answer, nil if there is none.
func (c *cluster) leads(among ...*member) *member {
	if len(among) == 0 {
		among = c.members
	}
	for _, m := range among {
		if m.cancel == nil {
			continue
		}
		if _, ok := m.j.Leading(); ok {
			return m
		}
	}
	return nil
}

func (c *cluster) others(than *member) []*member {
	return slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return m == than })
}

// settle waits until all running members have applied the same.
func (c *cluster) settle() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		l := c.leader()
		index, err := l.j.ReadBarrier(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		same := true
		for _, m := range c.members {
			if m.cancel == nil {
				continue
			}
			if err := journal.WaitApplied(ctx, m.j, index); err != nil {
				c.t.Fatalf("%s: %v", m.id, err)
			}
			same = same && m.state.hash() == l.state.hash()
		}
		if same {
			return
		}
		if time.Sleep(20 * time.Millisecond); ctx.Err() != nil { // fake time
			c.t.Fatal("the states of the members stay different")
		}
	}
}

func (m *member) put(t *testing.T, values ...uint64) {
	t.Helper()
	for _, v := range values {
		res, err := m.j.Propose(t.Context(), put(v))
		if err != nil || res[0].Err != nil || res[0].Epoch != v {
			t.Fatalf("propose %d at %s: %+v, %v", v, m.id, res, err)
		}
	}
}

func TestMembersAgree(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, n, nil)
				l := c.leader()
				for v := range uint64(100) {
					l.put(t, v+1)
				}
				c.settle()
				if got := len(l.state.list()); got != 100 {
					t.Errorf("%d values, want 100", got)
				}
				for _, m := range c.others(l) {
					_, err := m.j.Propose(t.Context(), put(7))
					var hint *journal.NotLeaderError
					if !freshet.IsKind(err, freshet.KindNotLeader) || !errors.As(err, &hint) || hint.ID != l.id || journal.OutcomeUnknown(err) {
						t.Errorf("propose at a follower: %v", err)
					}
					if _, err := m.j.ReadBarrier(t.Context()); !freshet.IsKind(err, freshet.KindNotLeader) {
						t.Errorf("read at a follower: %v", err)
					}
					if _, err := m.j.Verify(t.Context()); !freshet.IsKind(err, freshet.KindNotLeader) {
						t.Errorf("strict read at a follower: %v", err)
					}
				}
			})
		})
	}
}

func TestResultsBelongToTheirCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		l := c.leader()
		var wg sync.WaitGroup
		for g := range uint64(300) { // more than one batch
			wg.Go(func() {
				v := 10*g + 1
				res, err := l.j.Propose(t.Context(), put(v), put(0), put(v+1))
				if err != nil || len(res) != 3 {
					t.Errorf("propose: %v", err)
					return
				}
				if res[0].Epoch != v || !errors.Is(res[1].Err, freshet.KindInvalid) || res[2].Epoch != v+1 || res[0].Index != res[2].Index {
					t.Errorf("results of %d: %+v", v, res)
				}
			})
		}
		wg.Wait()
		c.settle()
	})
}

func TestLeaderLossAndReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		old := c.leader()
		old.put(t, 1)
		term, _ := old.j.Leading()
		_, changed := old.j.Leadership()
		c.net.Isolate(old.id)
		start := time.Now()
		_, err := old.j.Propose(t.Context(), put(2))
		if !freshet.IsKind(err, freshet.KindUnavailable) || !journal.OutcomeUnknown(err) {
			t.Errorf("propose without a quorum: %v", err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("the old leader gave up after %v", d)
		}
		<-changed
		<-term.Done()
		next := c.leader(c.others(old)...)
		next.put(t, 3)
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("the next acknowledgement came after %v", d)
		}
		if _, err := old.j.ReadBarrier(t.Context()); !freshet.IsKind(err, freshet.KindNotLeader) {
			t.Errorf("read at the old leader: %v", err)
		}
		c.net.HealAll()
		c.settle()
		if got := next.state.list(); !slices.Equal(got, []uint64{1, 3}) {
			t.Errorf("values %v: 2 was never acknowledged by a quorum", got)
		}
	})
}

func TestDeadlineOfAProposal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *journal.Options) { o.InFlight = 1 })
		l := c.leader()
		c.net.Isolate(l.id)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := l.j.Propose(ctx, put(1))
		if !freshet.IsKind(err, freshet.KindDeadline) || !journal.OutcomeUnknown(err) {
			t.Errorf("an entry that was on its way: %v", err)
		}
		// One entry is on its way; what waits behind it can be withdrawn.
		ctx2, cancel2 := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel2()
		_, err = l.j.Propose(ctx2, put(3))
		if !freshet.IsKind(err, freshet.KindDeadline) || journal.OutcomeUnknown(err) {
			t.Errorf("a proposal that was withdrawn: %v", err)
		}
		c.net.HealAll()
		c.settle()
		if slices.Contains(c.leader().state.list(), 3) {
			t.Error("a withdrawn proposal was applied")
		}
	})
}

func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *journal.Options) { o.QueueLimit, o.InFlight = 8, 1 })
		l := c.leader()
		c.net.Isolate(l.id)
		var exhausted, other atomic.Int64
		var wg sync.WaitGroup
		for v := range uint64(40) {
			wg.Go(func() {
				_, err := l.j.Propose(t.Context(), put(v+1))
				if freshet.IsKind(err, freshet.KindExhausted) && !journal.OutcomeUnknown(err) {
					exhausted.Add(1)
				} else {
					other.Add(1)
				}
			})
		}
		wg.Wait()
		if exhausted.Load() == 0 || other.Load() < 8 {
			t.Errorf("%d were refused, %d were not", exhausted.Load(), other.Load())
		}
	})
}

func TestCrashedMembersReturn(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, n, nil)
				v := uint64(0)
				for range 5 {
					l := c.leader()
					for range 20 {
						v++
						l.put(t, v)
					}
					c.crash(l)
					c.revive(l)
				}
				c.settle()
				if got := len(c.leader().state.list()); got != int(v) {
					t.Errorf("%d values, %d were acknowledged", got, v)
				}
			})
		})
	}
}

// The log is truncated, a member lags behind it and is brought up to date by a dump
// of the live state, which is newer than the marker.
func TestLaggingMemberGetsADump(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *journal.Options) {
			o.SnapshotEvery, o.SnapshotAfter, o.TrailingLogs = time.Second, 20, 10
		})
		l := c.leader()
		l.put(t, 1)
		lag := c.others(l)[0]
		c.crash(lag)
		c.net.HealAll()
		for v := range uint64(200) {
			l.put(t, v+2)
			time.Sleep(50 * time.Millisecond) // fake time, for snapshots to come
		}
		// One may be made: the first snapshot can come within the heartbeat after
		// the crash, while the member still passes for a live one.
		before := l.state.dumped()
		if before > 1 {
			t.Errorf("the state was dumped %d times: for local snapshots, or for a member that is dead", before)
		}
		c.revive(lag)
		c.settle()
		if l.state.dumped() == before {
			t.Error("the member that lagged got no dump: was the log truncated?")
		}
		// The member restarts from what it received.
		c.crash(lag)
		c.revive(lag)
		l = c.leader()
		l.put(t, 1000)
		c.settle()
		if got := len(lag.state.list()); got != 202 {
			t.Errorf("%d values, want 202", got)
		}
	})
}

// A voter that restarts has forgotten the leader it answered; it must not help to
// elect another while that one's lease runs.
func TestRestartedVoterOutwaitsTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		c.leader()
		m := c.others(c.leader())[0]
		c.crash(m)
		start := time.Now()
		c.revive(m)
		<-m.begun
		if d := time.Since(start); d < 500*time.Millisecond {
			t.Errorf("the member took part after %v, a lease lasts up to 375 ms", d)
		}
	})
}

func TestTransferEndsTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		old := c.leader()
		old.put(t, 1)
		target := c.others(old)[1]
		if err := old.j.TransferLeadership(t.Context(), target.id); err != nil {
			t.Fatal(err)
		}
		if l := c.leader(); l != target {
			t.Errorf("%s leads, want %s", l.id, target.id)
		}
		if _, err := old.j.ReadBarrier(t.Context()); !freshet.IsKind(err, freshet.KindNotLeader) {
			t.Errorf("read at the old leader: %v", err)
		}
		if err := target.j.TransferLeadership(t.Context(), "nobody"); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("transfer to nobody: %v", err)
		}
	})
}

func TestMembersAreAddedAndRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		l := c.leader()
		l.put(t, 1)
		if err := l.j.Remove(t.Context(), l.id); !freshet.IsKind(err, freshet.KindConflict) {
			t.Errorf("remove the last voter: %v", err)
		}
		for i := 1; i < 5; i++ {
			id := fmt.Sprintf("m%d", i)
			m := &member{id: id, memory: journal.NewMemory(), state: &register{}}
			c.members = append(c.members, m)
			c.open(m)
			c.run(m)
			<-m.begun
			if err := l.j.AddVoter(t.Context(), journal.Server{ID: id, Addr: id}); err != nil {
				t.Fatal(err)
			}
			l.put(t, uint64(i+1))
			if _, err := l.j.ReadBarrier(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.settle()
		peers, err := c.leader().j.Peers()
		if err != nil || len(peers) != 5 || !peers[0].Leader || !peers[4].Voter || !peers[4].LastContactKnown {
			t.Errorf("peers %+v, %v", peers, err)
		}
		if err := l.j.Remove(t.Context(), "m9"); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("remove nobody: %v", err)
		}
		gone := c.members[4]
		if err := l.j.Remove(t.Context(), gone.id); err != nil {
			t.Fatal(err)
		}
		c.stop(gone)
		// The leader removes itself: another leads.
		if err := l.j.Remove(t.Context(), l.id); err != nil {
			t.Fatal(err)
		}
		next := c.leader(c.members[1:4]...)
		next.put(t, 100)
		if _, err := l.j.ReadBarrier(t.Context()); err == nil {
			t.Error("a removed leader answered")
		}
	})
}

// No seed may show a read that misses what was acknowledged before it began,
// whatever the delays, cuts, crashes and transfers.
func TestReadsAreLinearizable(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { checkReads(t, seed) })
		})
	}
}

func checkReads(t *testing.T, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	size := 3
	if seed%3 == 2 {
		size = 5
	}
	c := newCluster(t, size, func(o *journal.Options) {
		o.SnapshotEvery, o.SnapshotAfter, o.TrailingLogs = 2*time.Second, 50, 20
	})
	var mu sync.Mutex // guards jitter and the members' journals
	jitter := rand.New(rand.NewPCG(seed, 2))
	c.net.SetDelay(func(string, string) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if jitter.IntN(50) == 0 {
			return time.Duration(jitter.IntN(600)) * time.Millisecond
		}
		return time.Duration(jitter.IntN(8)) * time.Millisecond
	})
	var acked, reads, writes, turns atomic.Uint64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	each := func(do func(*member, *journal.Journal, *register)) {
		for _, m := range c.members {
			wg.Go(func() {
				for ctx.Err() == nil {
					mu.Lock()
					j, state := m.j, m.state
					mu.Unlock()
					do(m, j, state)
					time.Sleep(3 * time.Millisecond)
				}
			})
		}
	}
	var value atomic.Uint64
	each(func(_ *member, j *journal.Journal, _ *register) {
		res, err := j.Propose(ctx, put(value.Add(1)))
		if err != nil {
			return
		}
		writes.Add(1)
		for index := res[0].Index; ; {
			old := acked.Load()
			if index <= old || acked.CompareAndSwap(old, index) {
				return
			}
		}
	})
	each(func(m *member, j *journal.Journal, state *register) {
		before := acked.Load()
		strict := turns.Add(1)%4 == 0
		read := j.ReadBarrier
		if strict {
			read = j.Verify
		}
		index, err := read(ctx)
		if err != nil {
			return
		}
		reads.Add(1)
		if index < before || state.Applied() < index {
			t.Errorf("a read at %s (strict %v) saw %d of %d, %d was acknowledged before it", m.id, strict, state.Applied(), index, before)
		}
	})
	for range 25 {
		time.Sleep(time.Duration(200+rnd.IntN(2500)) * time.Millisecond)
		m := c.members[rnd.IntN(size)]
		switch rnd.IntN(6) {
		case 0, 1:
			if l := c.leads(); l != nil {
				c.net.Isolate(l.id)
			}
		case 2:
			c.net.Cut(c.members[rnd.IntN(size)].id, m.id)
		case 3:
			if l := c.leads(); l != nil {
				_ = l.j.TransferLeadership(ctx, "")
			}
		case 4: // the process is killed and restarts at once
			c.net.Isolate(m.id)
			kept := m.state.crash()
			c.kill(m)
			mu.Lock()
			m.state = kept
			c.revive(m)
			mu.Unlock()
		case 5:
			c.net.HealAll()
		}
	}
	c.net.HealAll()
	c.net.SetDelay(nil)
	cancel()
	wg.Wait()
	c.settle()
	if reads.Load() < 100 || writes.Load() < 100 {
		t.Errorf("only %d reads and %d writes: the test shows nothing", reads.Load(), writes.Load())
	}
	t.Logf("seed %d: %d reads, %d writes", seed, reads.Load(), writes.Load())
}
