package placement_test

import (
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
)

func keepers(durable bool, ids ...freshet.NodeID) []freshet.Heartbeat {
	all := beats(ids...)
	for i := range all {
		all[i].Keeps, all[i].Durable = true, durable
	}
	return all
}

// TestWhatWasAcknowledgedIsThereAtOnce and not only when the node reports it: a file that
// is not in the storage would pass for lost meanwhile.
func TestWhatWasAcknowledgedIsThereAtOnce(t *testing.T) {
	t.Parallel()
	y := newYard(t, freshet.Replication{}, keepers(true, "a", "b")...)
	y.seconds(6)
	const length, size = 2*blockBytes + 1, blockBytes
	whole := func() string {
		return fmt.Sprint(y.n.Whole(7, length, []freshet.NodeID{"a", "b"}, y.now))
	}
	if got := whole(); got != "map[]" {
		t.Fatalf("before, %s have all of it", got)
	}
	y.n.Acknowledged("a", 7, length, size)
	y.n.Acknowledged("nobody", 7, length, size)
	if got := whole(); got != "map[a:1]" {
		t.Errorf("%s have all of it, want a", got)
	}
	for i := range uint32(3) {
		if got := holders(y.n, block(7, i), "", y.now); len(got) != 1 || got[0].ID != "a" {
			t.Errorf("block %d is held by %v, want a", i, names(got))
		}
	}
	before := y.n.Totals(y.now).Blocks
	h := y.nodes["a"].beat
	for i, n := range []int64{size, size, 1} {
		h.Added = append(h.Added, freshet.BlockReport{ID: block(7, uint32(i)), Length: n})
	}
	if _, err := y.n.Heartbeat(h, true, y.now); err != nil {
		t.Fatal(err)
	}
	if got := y.n.Totals(y.now).Blocks; got != before || before != 3 {
		t.Errorf("%d blocks are counted, after the report %d; want 3", before, got)
	}
	h.Added, h.Removed = nil, []freshet.BlockID{block(7, 1)}
	if _, err := y.n.Heartbeat(h, true, y.now); err != nil {
		t.Fatal(err)
	}
	if got := whole(); got != "map[]" {
		t.Errorf("without a block, %s have all of it", got)
	}
}

// TestADiskKeepsRatherThanMemory, of nodes that are equally near.
func TestADiskKeepsRatherThanMemory(t *testing.T) {
	t.Parallel()
	nodes := append(keepers(false, "a", "b", "c"), keepers(true, "d")...)
	y := newYard(t, freshet.Replication{}, nodes...)
	y.seconds(2)
	for key := range uint64(100) {
		if at, _, ok := y.n.Keeper("", freshet.Locality{}, key, false, y.now); !ok || at.ID != "d" {
			t.Fatalf("%q keeps, want d", at.ID)
		}
	}
	if at, _, _ := y.n.Keeper("", freshet.Locality{Host: "host-a"}, 1, false, y.now); at.ID != "a" {
		t.Errorf("on the host of a, %q keeps", at.ID)
	}
	if at, _, _ := y.n.Keeper("", freshet.Locality{Host: "host-a"}, 1, true, y.now); at.ID != "d" {
		t.Errorf("on the host of a, %q keeps durably", at.ID)
	}
}
