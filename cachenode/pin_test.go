package cachenode_test

import (
	"testing"

	"github.com/freshet-io/freshet"
)

// TestTheLeaderSaysWhatIsPinned: with what a node adds, and all anew with a full
// report, whose revision it repeats from then on.
func TestTheLeaderSaysWhatIsPinned(t *testing.T) {
	t.Parallel()
	bubble(t, settings{}, func(t *testing.T, b *bed) {
		if _, err := b.write(b.ticket(1), random(150_000, 1)); err != nil {
			t.Fatal(err)
		}
		b.leader.set(func() { b.leader.reply.PinRevision, b.leader.reply.Pinned = 4, []freshet.FileID{1} })
		if hb := b.nextBeat(); hb.Full || hb.PinRevision != 0 {
			t.Errorf("%+v", hb)
		}
		if b.blocks.Pinned() == 0 {
			t.Error("nothing is pinned")
		}
		if hb := b.nextBeat(); hb.PinRevision != 0 {
			t.Errorf("the revision of a report that was not full was kept: %+v", hb)
		}
		b.leader.set(func() { b.leader.unsatisfied, b.leader.reply.Pinned = 2, nil })
		b.nextBeat()
		if hb := b.leader.last(); !hb.Full || b.blocks.Pinned() == 0 {
			t.Errorf("the answer to a part of a full report let what is pinned go: %+v", hb)
		}
		b.nextBeat()
		if hb := b.nextBeat(); hb.Full || hb.PinRevision != 4 {
			t.Errorf("after a full report: %+v", hb)
		}
		if n := b.blocks.Pinned(); n != 0 {
			t.Errorf("%d bytes are still pinned", n)
		}
	})
}
