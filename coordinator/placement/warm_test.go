package placement_test

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

func TestSpreadNamesWhoHoldsABlockAndWhoCouldTakeIt(t *testing.T) {
	t.Parallel()
	n := placement.New(placement.Options{})
	now := time.Minute
	block := freshet.BlockID{File: 7, Index: 1}
	beat := func(id freshet.NodeID, rack, zone string, capacity, used int64, takes bool, held ...freshet.BlockID) {
		t.Helper()
		h := freshet.Heartbeat{
			Node: freshet.Node{ID: id, Name: "n-" + string(id), Host: "h-" + string(id)}, Rack: rack, Zone: zone, Capacity: capacity, Used: used,
			Incarnation: 1, Full: true, TakesWarms: takes, Tier: "memory",
		}
		for _, b := range held {
			h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: 10})
		}
		if _, err := n.Heartbeat(h, true, now); err != nil {
			t.Fatal(err)
		}
	}
	beat("a", "r1", "z1", 1000, 0, true, block, freshet.BlockID{File: 7, Index: 0})
	beat("b", "r1", "z1", 1000, 0, true)
	beat("c", "r2", "z1", 1000, 995, true) // full
	beat("d", "r3", "z2", 1000, 0, true)
	beat("e", "r3", "z2", 1000, 0, false) // of an older release
	beat("f", "r9", "z9", 5, 0, true)     // too small
	ids := func(all []placement.Candidate) (out string) {
		for _, c := range all {
			out += string(c.ID)
		}
		return out
	}
	for i, tc := range []struct {
		place      freshet.CachePlace
		held, free string
	}{
		{freshet.CachePlace{}, "a", "dcb"}, // the farthest first, then the other rack
		{freshet.CachePlace{Zone: "z1"}, "a", "cb"},
		{freshet.CachePlace{Zone: "z2"}, "", "d"},
		{freshet.CachePlace{Node: "n-b"}, "", "b"},
		{freshet.CachePlace{Node: "b", Rack: "r1"}, "", "b"},
		{freshet.CachePlace{Host: "h-a"}, "a", ""},
		{freshet.CachePlace{Rack: "r3", Zone: "z1"}, "", ""},
	} {
		s := n.Spread(block, 10, tc.place, now)
		if ids(s.Held) != tc.held || ids(s.Free) != tc.free {
			t.Errorf("%d: %s: held %q, free %q; want %q, %q", i, tc.place, ids(s.Held), ids(s.Free), tc.held, tc.free)
		}
		if len(s.Free) > 0 && (len(s.From) != 1 || s.From[0].ID != "a") {
			t.Errorf("%d: from %+v", i, s.From)
		}
	}
	if s := n.Spread(freshet.BlockID{File: 8}, 10, freshet.CachePlace{}, now); len(s.Held) != 0 || len(s.Free) != 4 || s.Free[0].ID == "c" {
		t.Errorf("of a block that nobody holds, the full node is the first: %+v", s)
	}
	if got, ready := n.Takers(freshet.CachePlace{}, now); got != 5 || ready != 5 {
		t.Errorf("%d nodes take warms, %d at once", got, ready)
	}
	if got, _ := n.Takers(freshet.CachePlace{Zone: "z2"}, now); got != 1 {
		t.Errorf("%d nodes of z2 take warms", got)
	}
	if !n.Exists(freshet.CachePlace{Zone: "z2"}, now) || n.Exists(freshet.CachePlace{Zone: "z7"}, now) || !n.Exists(freshet.CachePlace{}, now) {
		t.Error("it is not known which places there are")
	}
	if fresh := placement.New(placement.Options{}); !fresh.Exists(freshet.CachePlace{Zone: "z7"}, time.Second) {
		t.Error("a leader that has heard of nobody yet knows that a zone does not exist")
	}
	shares, count, bytes := n.Shares(7, 2, freshet.CachePlace{}, now)
	if len(shares) != 1 || shares[0] != (freshet.NodeShare{Node: "n-a", Tier: "memory", Blocks: 2, Bytes: 20}) || count != 2 || bytes != 20 {
		t.Errorf("shares %+v, %d blocks, %d bytes", shares, count, bytes)
	}
	if _, count, _ = n.Shares(7, 1, freshet.CachePlace{}, now); count != 1 {
		t.Errorf("of the first block: %d", count)
	}
	n.FreeFiles(7)
	if copies, _ := n.Copies(7, false, now); copies != 0 {
		t.Errorf("%d copies stay", copies)
	}
	if copies, bytes := n.Copies(7, true, now); copies != 2 || bytes != 20 {
		t.Errorf("%d copies of %d bytes go", copies, bytes)
	}
	if s := n.Spread(block, 10, freshet.CachePlace{}, now); len(s.Held) != 0 {
		t.Errorf("what is to be freed counts as held: %+v", s)
	}
	if s := n.Spread(block, 10, freshet.CachePlace{}, now+time.Hour); len(s.Held)+len(s.Free) != 0 {
		t.Errorf("dead nodes count: %+v", s)
	}
}
