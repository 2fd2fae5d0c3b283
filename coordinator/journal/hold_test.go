package journal_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/coordinator/journal"
)

// A member needs a copy, and sending one takes longer than it takes the others to
// append and forget a whole log: the part that the member will need has to stay, or
// it gets one copy after another and never arrives.
func TestTheLogWaitsForAMemberThatIsBroughtUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Pointer[string]
		c := newCluster(t, 3, func(o *journal.Options) {
			o.SnapshotEvery, o.SnapshotAfter, o.TrailingLogs = time.Second, 20, 10
			o.Heartbeat, o.LeaderLease = 8*time.Second, 6*time.Second
		})
		l := c.leader()
		l.put(t, 1)
		lag := c.others(l)[0]
		c.crash(lag)
		c.net.HealAll()
		for v := range uint64(100) {
			l.put(t, v+2)
			time.Sleep(100 * time.Millisecond) // fake time, for snapshots to come
		}
		slow.Store(&lag.id)
		c.net.SetDelay(func(_, to string) time.Duration {
			if to == *slow.Load() {
				return 5 * time.Second // in which 50 entries are appended
			}
			return 0
		})
		before := l.state.dumped()
		c.revive(lag)
		value := uint64(1000)
		for deadline := time.Now().Add(50 * time.Second); time.Now().Before(deadline); value++ {
			l.put(t, value)
			time.Sleep(100 * time.Millisecond) // fake time
		}
		if n := l.state.dumped() - before; n == 0 || n > 2 {
			t.Errorf("%d copies were made", n)
		}
		// Later the log is truncated again.
		none := "nobody"
		slow.Store(&none)
		for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); value++ {
			l.put(t, value)
			time.Sleep(500 * time.Millisecond) // fake time
		}
		c.settle()
		if first, last := journal.LogRange(l.j); last-first > 100 {
			t.Errorf("the log goes from %d to %d: it is held for ever", first, last)
		}
	})
}
