package tier_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// TestPinnedBlocksAreNotEvicted fills a tier many times over, under each policy.
func TestPinnedBlocksAreNotEvicted(t *testing.T) {
	t.Parallel()
	const length, room = 10_000, 10 * 12_000
	for _, policy := range tier.Policies() {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			onBoth(t, tier.Options{Capacity: room, Policy: policy}, func(t *testing.T, tr *tier.Tier) {
				holds := func(file freshet.FileID) bool {
					_, ok := tr.Stat(freshet.BlockID{File: file})
					return ok
				}
				for file := freshet.FileID(1); file <= 3; file++ {
					put(t, tr, freshet.BlockID{File: file}, length)
				}
				tr.Pin(false, 1, 2)
				tr.Pin(false) // nothing new
				for file := freshet.FileID(100); file < 150; file++ {
					put(t, tr, freshet.BlockID{File: file}, length)
				}
				if !holds(1) || !holds(2) || holds(3) {
					t.Errorf("held: %t, %t, and %t, which is not pinned", holds(1), holds(2), holds(3))
				}
				if n := tr.Pinned(); n < 2*length || n > 3*length {
					t.Errorf("%d bytes are pinned", n)
				}
				tr.Pin(true, 2) // and no other
				for file := freshet.FileID(200); file < 250; file++ {
					put(t, tr, freshet.BlockID{File: file}, length)
					mustGet(t, tr, freshet.BlockID{File: file}, length) // worth more than what nobody reads
				}
				if holds(1) || !holds(2) {
					t.Errorf("held: %t, which is pinned no more, and %t", holds(1), holds(2))
				}
				// What is pinned can be dropped when its version is not wanted any more.
				tr.Remove(freshet.BlockID{File: 2})
				if holds(2) || tr.Pinned() != 0 {
					t.Error("a pinned block could not be removed")
				}
			})
		})
	}
}

func TestATierFullOfPinnedBlocksTakesNoOther(t *testing.T) {
	t.Parallel()
	const length = 10_000
	onBoth(t, tier.Options{Capacity: 52_000}, func(t *testing.T, tr *tier.Tier) {
		var files []freshet.FileID
		for file := freshet.FileID(1); file <= 3; file++ {
			put(t, tr, freshet.BlockID{File: file}, length)
			files = append(files, file)
		}
		tr.Pin(false, files...)
		if err := tryPut(tr, freshet.BlockID{File: 9}, 3*length); !freshet.IsKind(err, freshet.KindExhausted) {
			t.Errorf("got %v", err)
		}
		for _, file := range files {
			mustGet(t, tr, freshet.BlockID{File: file}, length)
		}
	})
}
