package placement_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// TestNodeNextToTheReaderTakesACopy: it is named if others hold the block, and none of
// its host does.
func TestNodeNextToTheReaderTakesACopy(t *testing.T) {
	n := placement.New(placement.Options{DeadAfter: 5 * sec})
	n.Reset(100 * sec)
	tell(t, n, full("a", 1, block(1, 0), block(1, 1)), false, 100*sec)
	tell(t, n, full("b", 1, block(1, 1)), false, 100*sec)
	for _, c := range []struct {
		host  string
		block uint32
		via   freshet.NodeID
	}{
		{"host-b", 0, "b"}, {"host-b", 1, ""}, {"host-b", 2, ""}, {"host-a", 0, ""}, {"", 0, ""}, {"host-x", 0, ""},
	} {
		if got := n.Locate(1, c.block, c.block, freshet.Locality{Host: c.host}, 101*sec)[0].Via; got.ID != c.via {
			t.Errorf("block %d from %q goes through %q, want %q", c.block, c.host, got.ID, c.via)
		}
	}
	tell(t, n, full("a", 1, block(1, 0)), false, 110*sec)
	if got := n.Locate(1, 0, 0, freshet.Locality{Host: "host-b"}, 110*sec)[0].Via; got.ID != "" {
		t.Errorf("a dead node is named: %+v", got)
	}
}
