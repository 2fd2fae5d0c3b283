package placement_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// TestWhatANodeTookIsReadAtOnce: between the word that a file is complete and the node's
// next heartbeat the file can be read, and the run of a node that has ended counts for
// nothing.
func TestWhatANodeTookIsReadAtOnce(t *testing.T) {
	n := placement.New(placement.Options{})
	tell(t, n, full("a", 2), true, 0)
	h := beat("a", 2)
	h.Keeps = true
	tell(t, n, h, true, sec)
	n.Took("a", 1, 7, 25, 10) // an earlier run
	n.Took("b", 1, 7, 25, 10) // nobody
	if got := holders(n, block(7, 0), "", sec); len(got) != 0 {
		t.Fatalf("held by %v", got)
	}
	n.Took("a", 2, 7, 25, 10)
	for i := range uint32(3) {
		if got := holders(n, block(7, i), "", sec); len(got) != 1 || got[0].ID != "a" {
			t.Errorf("block %d is held by %v", i, got)
		}
	}
	if got := holders(n, block(7, 3), "", sec); len(got) != 0 {
		t.Errorf("a block that is not there is held by %v", got)
	}
	if w := n.Whole(7, 25, []freshet.NodeID{"a"}, sec); w["a"] != 2 {
		t.Errorf("whole on %v", w)
	}
	h.Added = []freshet.BlockReport{{ID: block(7, 0), Length: 10}} // said again, by its heartbeat
	tell(t, n, h, true, sec)
	if got := n.List(sec)[0].Blocks; got != 3 {
		t.Errorf("%d blocks are counted", got)
	}
	tell(t, n, full("a", 3), true, sec)
	if got := holders(n, block(7, 0), "", sec); len(got) != 0 {
		t.Errorf("held after a restart without it by %v", got)
	}
}
