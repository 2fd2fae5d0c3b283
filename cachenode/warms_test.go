package cachenode_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/freshet-io/freshet"
)

// TestBlocksAreBroughtAsTheLeaderOrders, and what became of them is reported until the
// leader names them no more.
func TestBlocksAreBroughtAsTheLeaderOrders(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		if !b.leader.last().TakesWarms {
			t.Error("the leader does not know that blocks are brought")
		}
		done, err := b.write(b.ticket(1), random(1000, 1))
		check(t, err)
		b.nextBeat()
		b.blocks.Clear()
		good, bad := b.ordered(1, "f", done.Info), b.ordered(2, "nothing"+strings.Repeat("ж", 124), done.Info)
		b.leader.set(func() { b.leader.reply.Warm = []freshet.BlockCopy{good, bad} })
		b.nextBeat()
		synctest.Wait() // it reports by itself when all is done
		got := map[freshet.BlockID]freshet.WarmedBlock{}
		for _, r := range b.leader.last().Warmed {
			got[r.Block] = r
		}
		if r := got[good.Block.ID]; len(got) != 2 || !r.Fetched || r.Kind != freshet.KindOK {
			t.Errorf("reported %+v", got)
		}
		if r := got[bad.Block.ID]; r.Kind != freshet.KindStale || r.Error == "" || len(r.Error) > 300 || !utf8.ValidString(r.Error) {
			t.Errorf("of what the storage does not have: %+v", r)
		}
		if _, ok := b.blocks.Stat(good.Block.ID); !ok {
			t.Error("the block was not fetched")
		}
		b.nextBeat()
		if n := len(b.leader.last().Warmed); n != 2 {
			t.Errorf("%d results while the orders are named", n)
		}
		if got := b.metric("freshet_warmed_blocks_total"); got["fetched"] != 1 || got["failed"] != 1 || got["held"] != 0 {
			t.Errorf("counted %v", got)
		}
		b.leader.set(func() { b.leader.reply.Warm = nil })
		b.nextBeat()
		b.nextBeat()
		if n := len(b.leader.last().Warmed); n != 0 {
			t.Errorf("%d results after the leader heard them", n)
		}
		b.leader.set(func() { b.leader.reply.Warm = []freshet.BlockCopy{good} })
		b.nextBeat()
		synctest.Wait()
		if all := b.leader.last().Warmed; len(all) != 1 || all[0].Fetched || all[0].Kind != freshet.KindOK {
			t.Errorf("of what is there: %+v", all)
		}
		if got := b.metric("freshet_reads_total"); got["ufs"] != 0 {
			t.Errorf("warms count as reads: %v", got)
		}
	})
}
