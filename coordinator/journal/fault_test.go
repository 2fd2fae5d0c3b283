package journal_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
)

var errDisk = errors.New("input/output error")

// breakable restarts a member so that its writes can be made to fail.
func (c *cluster) breakable(m *member) (log, vote *atomic.Bool) {
	c.t.Helper()
	log, vote = new(atomic.Bool), new(atomic.Bool)
	failing := func(on *atomic.Bool) func() error {
		return func() error {
			if on.Load() {
				return errDisk
			}
			return nil
		}
	}
	c.stop(m)
	c.open(m)
	journal.FailWrites(m.j, failing(log), failing(vote))
	c.run(m)
	return log, vote
}

// A leader whose log can't be written acknowledges nothing more and ends, also if
// its disk recovers; the others go on.
func TestFailedLogWriteStopsTheMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		m := c.others(c.leader())[0]
		log, _ := c.breakable(m)
		<-m.begun
		c.settle()
		time.Sleep(time.Second) // fake time: the leader knows that it is back
		if err := c.leader().j.TransferLeadership(t.Context(), m.id); err != nil {
			t.Fatal(err)
		}
		if l := c.leader(); l != m {
			t.Fatalf("%s leads", l.id)
		}
		m.put(t, 1)
		log.Store(true)
		_, err := m.j.Propose(t.Context(), put(2))
		if !freshet.IsKind(err, freshet.KindUnavailable) || !journal.OutcomeUnknown(err) {
			t.Errorf("propose on a broken disk: %v", err)
		}
		log.Store(false)
		m.cancel = nil
		if err := <-m.ended; !errors.Is(err, errDisk) || !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("run: %v", err)
		}
		c.leader().put(t, 3)
		c.settle()
		// With the disk replaced by a good one it takes part again.
		c.open(m)
		if m.j.CleanShutdown() {
			t.Error("the failure counts as a clean end")
		}
		c.run(m)
		c.settle()
	})
}

// A member whose vote can't be written ends without a panic; the others go on.
func TestFailedVoteWriteStopsTheMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		l := c.leader()
		m := c.others(l)[0]
		_, vote := c.breakable(m)
		<-m.begun
		l = c.leader()
		l.put(t, 1)
		vote.Store(true)
		if err := l.j.TransferLeadership(t.Context(), c.others(l)[0].id); err != nil && !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Fatal(err)
		}
		m.cancel = nil
		if err := <-m.ended; !errors.Is(err, errDisk) {
			t.Errorf("run: %v", err)
		}
		time.Sleep(time.Second) // fake time: raft answers for a transfer that failed before it takes proposals again
		c.leader().put(t, 2)
		c.settle()
	})
}

// The process is asked to end while proposals are on their way: each gets a true
// answer, and nothing hangs.
func TestShutdownAnswersEveryProposal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		l := c.leader()
		type answer struct {
			v   uint64
			err error
		}
		answers := make(chan answer, 1000)
		for v := range uint64(1000) {
			go func() {
				_, err := l.j.Propose(context.Background(), put(v+1))
				answers <- answer{v + 1, err}
			}()
		}
		c.stop(l)
		acked, refused := map[uint64]bool{}, map[uint64]bool{}
		for range 1000 {
			switch a := <-answers; {
			case a.err == nil:
				acked[a.v] = true
			case !journal.OutcomeUnknown(a.err):
				refused[a.v] = true
			}
		}
		next := c.leader(c.others(l)...)
		next.put(t, 5000)
		c.settle()
		present := map[uint64]bool{}
		for _, v := range next.state.list() {
			present[v] = true
			if refused[v] {
				t.Errorf("%d was refused and is there", v)
			}
		}
		for v := range acked {
			if !present[v] {
				t.Errorf("%d was acknowledged and is lost", v)
			}
		}
		t.Logf("%d acknowledged, %d refused", len(acked), len(refused))
	})
}
