package journal_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet/coordinator/journal"
)

// A dead leader has a successor soon after the silence that is tolerated, not after a
// multiple of it; one that is slow but within that time stays the leader.
func TestASilentLeaderIsReplacedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const heartbeat = time.Second
		c := newCluster(t, 3, func(o *journal.Options) { o.Heartbeat = heartbeat })
		c.net.SetDelay(func(_, _ string) time.Duration { return time.Millisecond })
		var took []time.Duration
		for v := range uint64(21) {
			l := c.leader()
			l.put(t, v+1)
			c.settle()
			begun := time.Now()
			c.crash(l)
			c.net.HealAll()
			c.leader(c.others(l)...)
			took = append(took, time.Since(begun))
			c.revive(l)
			c.settle()
		}
		slices.Sort(took)
		if median := took[len(took)/2]; median > heartbeat*3/2 {
			t.Errorf("half of the dead leaders had no successor after %v: %v", median, took)
		}
		l := c.leader()
		c.net.SetDelay(func(_, _ string) time.Duration { return heartbeat / 5 })
		before, _ := l.j.Leadership()
		time.Sleep(time.Minute) // fake time
		if after, _ := l.j.Leadership(); after.Term != before.Term || !after.Leading {
			t.Errorf("a slow network cost the leadership: %+v, then %+v", before, after)
		}
	})
}
