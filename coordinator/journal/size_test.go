package journal_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// large is a command of about n bytes that a register accepts.
func large(n int) namespace.Command {
	return namespace.Command{LoadListing: &namespace.LoadListing{Dir: "/d", Upserts: []namespace.Entry{{Name: strings.Repeat("n", n)}}}}
}

// The sizes agree with a log that is appended to, cut at both ends and replaced.
func TestSizesOfEntries(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var sizes journal.LogSizes
		model := map[uint64]int64{}
		first, next := uint64(1), uint64(1)
		for step := range 500 {
			switch op := rnd.IntN(10); {
			case op < 7:
				n := rnd.IntN(1000)
				sizes.Stored(next, n)
				model[next] = int64(n + journal.EntryOverhead)
				next++
			case op < 8 && next > first: // compaction
				last := first + rnd.Uint64N(next-first)
				sizes.Deleted(first, last)
				for ; first <= last; first++ {
					delete(model, first)
				}
			case op < 9 && next > first: // a conflict with another leader
				from := first + rnd.Uint64N(next-first)
				sizes.Deleted(from, next-1)
				for ; next > from; next-- {
					delete(model, next-1)
				}
			case op == 9 && rnd.IntN(5) == 0: // a copy
				if next > first {
					sizes.Deleted(first, next-1)
				}
				clear(model)
				next += rnd.Uint64N(100)
				first = next
			}
			checkSizes(t, &sizes, model, first, next, rnd.Int64N(20_000))
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

func checkSizes(t *testing.T, sizes *journal.LogSizes, model map[uint64]int64, first, next uint64, limit int64) {
	t.Helper()
	total := int64(0)
	for _, n := range model {
		total += n
	}
	if got := sizes.Total(); got != total {
		t.Errorf("%d bytes, want %d", got, total)
	}
	want, left := uint64(0), total
	for i := first; i+1 < next && left > limit; i++ {
		left -= model[i]
		want = i
	}
	if got := sizes.Beyond(limit); got != want {
		t.Errorf("entries up to %d are beyond %d bytes, want %d", got, limit, want)
	}
}

// Three times what the limit allows is proposed in few, large entries. Neither what
// the log holds nor its file, which never shrinks, gets larger than the limit, and a
// restart knows the sizes again.
func TestTheLogIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	const limit, size = 24 << 20, 512 << 10
	n := newNode(t, "m0", t.TempDir(), func(o *journal.Options) {
		calm(o)
		o.NoSync, o.LogBytes = true, limit
		o.SnapshotEvery, o.SnapshotAfter, o.TrailingLogs = time.Hour, 1_000_000, 1_000_000
	})
	n.start(t, servers([]*node{n})...)
	lead(t, n)
	// It is cut beside the writer, who waits here for what must not last: how far ahead
	// he gets otherwise is the disk's matter.
	cut := func(to int64) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); journal.LogBytes(n.j) > to; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the log has %d bytes for a minute, the limit is %d", journal.LogBytes(n.j), limit)
			}
		}
	}
	most := int64(0)
	for range 3 * limit / size {
		if _, err := n.j.Propose(t.Context(), large(size)); err != nil {
			t.Fatal(err)
		}
		most = max(most, journal.LogBytes(n.j))
		cut(limit)
	}
	if most < limit/2 {
		t.Errorf("the log had no more than %d bytes, the limit is %d", most, limit)
	}
	cut(limit / 4 * 3) // nor is it being cut when it is read again
	info, err := os.Stat(filepath.Join(n.dir, "raft", "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("at most %d bytes of entries, %d of the file", most, info.Size())
	if info.Size() > 2*limit { // of the 3 × that were written
		t.Errorf("the file of the log has %d bytes, the limit is %d", info.Size(), limit)
	}
	n.stop(t)
	before := journal.LogBytes(n.j)
	n.listen(t)
	n.start(t)
	lead(t, n)
	if after := journal.LogBytes(n.j); after < before*99/100 || after > before*101/100 {
		t.Errorf("after the restart the log has %d bytes, before %d", after, before)
	}
}

// A member that was away while the log was cut by its bytes is brought up by a copy,
// and the log of all members stays within the limit.
func TestAMemberThatLagsBehindACutLogCatchesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, size = 1 << 20, 16 << 10
		c := newCluster(t, 3, func(o *journal.Options) {
			o.LogBytes = limit
			o.SnapshotEvery, o.SnapshotAfter, o.TrailingLogs = time.Hour, 1_000_000, 1_000_000
		})
		l := c.leader()
		l.put(t, 1)
		lag := c.others(l)[0]
		c.crash(lag)
		c.net.HealAll()
		for range 4 * limit / size {
			if _, err := l.j.Propose(t.Context(), large(size)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // fake time, in which the log is cut
			if n := journal.LogBytes(l.j); n > limit {
				t.Fatalf("the log has %d bytes, the limit is %d", n, limit)
			}
		}
		before := l.state.dumped()
		c.revive(lag)
		l.put(t, 2)
		c.settle()
		if l.state.dumped() == before {
			t.Error("the member that lagged got no copy: was the log cut?")
		}
		for _, m := range c.members {
			if n := journal.LogBytes(m.j); n > limit {
				t.Errorf("%s: the log has %d bytes, the limit is %d", m.id, n, limit)
			}
			if got := m.state.list(); len(got) != 2 {
				t.Errorf("%s: %d values, want 2", m.id, len(got))
			}
		}
	})
}

// A member to which the copy takes for ever does not make the log of the others grow
// without a bound.
func TestAHeldLogIsBoundedToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, size = 256 << 10, 16 << 10
		c := newCluster(t, 3, func(o *journal.Options) {
			o.LogBytes = limit
			o.SnapshotEvery, o.SnapshotAfter, o.TrailingLogs = time.Hour, 1_000_000, 1_000_000
			o.Heartbeat, o.LeaderLease = 8*time.Second, 6*time.Second
		})
		l := c.leader()
		l.put(t, 1)
		lag := c.others(l)[0]
		propose := func(bytes int) (most int64) {
			for range bytes / size {
				if _, err := l.j.Propose(t.Context(), large(size)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond) // fake time, in which the log is cut
				most = max(most, journal.LogBytes(l.j))
			}
			return most
		}
		c.crash(lag)
		c.net.HealAll()
		propose(4 * limit)
		c.net.SetDelay(func(_, to string) time.Duration {
			if to == lag.id {
				return 5 * time.Second
			}
			return 0
		})
		c.revive(lag)
		before := l.state.dumped()
		for deadline := time.Now().Add(10 * time.Minute); l.state.dumped() == before && time.Now().Before(deadline); {
			time.Sleep(time.Second) // fake time
		}
		if l.state.dumped() == before {
			t.Fatal("no copy is being sent")
		}
		if most := propose(8 * limit); most <= limit || most > 5*limit {
			t.Errorf("the log had up to %d bytes, the limit is %d and four times as much while it is held", most, limit)
		}
		c.net.SetDelay(nil)
		c.settle()
	})
}
