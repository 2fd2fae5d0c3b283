package cachenode_test

import (
	"testing"
	"testing/synctest"

	"github.com/freshet-io/freshet"
)

// ordered is the order to copy the only block of a file.
func (b *bed) ordered(file freshet.FileID, key string, st freshet.Info) freshet.BlockCopy {
	return freshet.BlockCopy{
		Block:  freshet.Block{ID: freshet.BlockID{File: file}, Length: st.Length},
		Source: freshet.Source{Mount: 1, Key: key, Fingerprint: st.Fingerprint},
	}
}

// TestCopiesAreFetchedAsTheLeaderOrders, each order once as long as it is named.
func TestCopiesAreFetchedAsTheLeaderOrders(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		if !b.leader.last().TakesCopies {
			t.Error("the leader does not know that copies are taken")
		}
		done, err := b.write(b.ticket(1), random(1000, 1))
		check(t, err)
		b.nextBeat()
		b.blocks.Clear()
		good, bad := b.ordered(1, "f", done.Info), b.ordered(2, "nothing", done.Info)
		b.leader.set(func() { b.leader.reply.Copy = []freshet.BlockCopy{good, bad} })
		for range 4 {
			b.nextBeat()
			synctest.Wait()
		}
		if _, ok := b.blocks.Stat(good.Block.ID); !ok {
			t.Error("the block was not fetched")
		}
		if got := b.metric("freshet_copied_blocks_total"); got["copied"] != 1 || got["failed"] != 1 {
			t.Errorf("while the orders are named: %v", got)
		}
		// What the leader named no more and names again is tried again.
		b.leader.set(func() { b.leader.reply.Copy = nil })
		b.nextBeat()
		b.leader.set(func() { b.leader.reply.Copy = []freshet.BlockCopy{bad} })
		b.nextBeat()
		synctest.Wait()
		if got := b.metric("freshet_copied_blocks_total"); got["copied"] != 1 || got["failed"] != 2 {
			t.Errorf("after they were named again: %v", got)
		}
		if got := b.metric("freshet_reads_total"); got["ufs"] != 0 {
			t.Errorf("copies count as reads: %v", got)
		}
	})
}
