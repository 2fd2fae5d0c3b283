package journal_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
)

// Who is the leader again is not the leader of the term before: what was made sure of in
// that term does not hold any more.
func TestAProposalOfAnEarlierTermIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		old := c.leader()
		before, _ := old.j.Leadership()
		if _, err := old.j.ProposeIn(t.Context(), before.Term, put(1)); err != nil {
			t.Fatal(err)
		}
		for next := c.others(old)[0]; ; next = old {
			if err := c.leader().j.TransferLeadership(t.Context(), next.id); err != nil {
				t.Fatal(err)
			}
			if c.leader(next); next == old {
				break
			}
		}
		now, _ := old.j.Leadership()
		if !now.Leading || now.Term <= before.Term {
			t.Fatalf("%+v, before it was %+v", now, before)
		}
		var wg sync.WaitGroup
		for v := uint64(2); v < 200; v++ { // in the same batches
			wg.Go(func() {
				term, refused := now.Term, v%3 == 0
				if refused {
					term = before.Term
				}
				_, err := old.j.ProposeIn(t.Context(), term, put(v))
				switch {
				case refused && (!freshet.IsKind(err, freshet.KindNotLeader) || journal.OutcomeUnknown(err)):
					t.Errorf("a proposal of another term: %v", err)
				case !refused && err != nil:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		check := func() {
			c.settle()
			got := c.leader().state.list()
			if len(got) != 1+198-66 || slices.ContainsFunc(got, func(v uint64) bool { return v%3 == 0 }) {
				t.Errorf("%d values %v", len(got), got)
			}
		}
		check()
		for _, m := range c.others(old) { // what is in the log can be read
			c.crash(m)
			c.revive(m)
			check()
		}
	})
}
