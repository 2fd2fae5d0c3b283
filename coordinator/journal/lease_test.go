package journal_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/internal/clock"
)

// jumping is the real clock of a machine that can be suspended.
type jumping struct {
	clock.Real
	slept atomic.Int64
}

func (j *jumping) Elapsed() time.Duration { return j.Real.Elapsed() + time.Duration(j.slept.Load()) }

// reads reports whether a read at the member is answered at once, and its error if
// it is not.
func reads(t *testing.T, m *member) (atOnce bool, err error) {
	t.Helper()
	start := time.Now()
	_, err = m.j.ReadBarrier(t.Context())
	return err == nil && time.Since(start) == 0, err
}

func TestLeaseIsShort(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wait, sleep time.Duration
		leased      bool
	}{
		"at once":                     {0, 0, true},
		"before it ends":              {100 * time.Millisecond, 0, true},
		"after it ended":              {390 * time.Millisecond, 0, false},
		"the machine was suspended":   {0, time.Second, false},
		"it slept less than a lease":  {0, 50 * time.Millisecond, true},
		"it slept for a part of that": {150 * time.Millisecond, 300 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				now := &jumping{}
				cl := newCluster(t, 3, func(o *journal.Options) { o.Clock = now })
				l := cl.leader()
				l.put(t, 1)
				time.Sleep(time.Second) // fake time: heartbeats are under way
				cl.net.Isolate(l.id)
				time.Sleep(c.wait)
				now.slept.Add(int64(c.sleep))
				if _, leads := l.j.Leading(); !leads {
					t.Fatal("Raft gave the leadership up already, so the test shows nothing")
				}
				atOnce, err := reads(t, l)
				if atOnce != c.leased || (!c.leased && !freshet.IsKind(err, freshet.KindNotLeader)) {
					t.Errorf("answered at once: %v, %v", atOnce, err)
				}
			})
		})
	}
}

// Raft's own confirmation counts the answer to a call that was sent before; here
// such an answer is on its way while no new call gets through.
func TestVerifyIgnoresAnswersToEarlierCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		l := c.leader()
		l.put(t, 1)
		answering := make(chan string, 100)
		c.net.SetDelay(func(from, to string) time.Duration {
			if to != l.id {
				return 0
			}
			select {
			case answering <- from:
			default:
			}
			return 300 * time.Millisecond
		})
		<-answering
		time.Sleep(time.Millisecond) // fake time: the call was sent before Verify begins
		for _, m := range c.others(l) {
			c.net.Cut(l.id, m.id)
		}
		if _, err := l.j.Verify(t.Context()); !freshet.IsKind(err, freshet.KindNotLeader) {
			t.Errorf("%v, want KindNotLeader", err)
		}
	})
}

// After a transfer was begun a voter may pass over the leader, so the leader that
// stays asks a quorum for every read.
func TestFailedTransferEndsTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		l := c.leader()
		l.put(t, 1)
		if atOnce, err := reads(t, l); !atOnce {
			t.Fatalf("no lease before the transfer: %v", err)
		}
		time.Sleep(time.Second) // fake time: all members are up to date
		target := c.others(l)[0]
		led := l.j.Term()
		for _, m := range c.members { // the order arrives, but the target reaches nobody
			if m != target {
				c.net.Cut(target.id, m.id)
			}
		}
		if err := l.j.TransferLeadership(t.Context(), target.id); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Fatalf("transfer to a member that can't win: %v", err)
		}
		time.Sleep(2 * time.Second) // fake time: heartbeats go on
		if c.leads() != l || l.j.Term() != led {
			t.Fatal("the leader did not stay, so the test shows nothing")
		}
		c.net.Isolate(l.id)
		if atOnce, _ := reads(t, l); atOnce {
			t.Error("the leader answered without asking a quorum")
		}
	})
}

// A new leader answers only when the first barrier of its term has been applied.
func TestC18NoAnswerBeforeTheBarrier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		old := c.leader()
		old.put(t, 1, 2, 3)
		// Messages to and from the next leader's followers are slow, so its barrier is.
		c.net.SetDelay(func(string, string) time.Duration { return 200 * time.Millisecond })
		before := old.state.Applied()
		c.net.Isolate(old.id)
		for {
			for _, m := range c.others(old) {
				index, err := m.j.ReadBarrier(t.Context())
				if err == nil {
					if index < before || m.state.Applied() < before {
						t.Errorf("%s answered with %d, %d was acknowledged", m.id, index, before)
					}
					return
				}
				if !freshet.IsKind(err, freshet.KindNotLeader) {
					t.Fatal(err)
				}
			}
			time.Sleep(5 * time.Millisecond) // fake time
		}
	})
}
