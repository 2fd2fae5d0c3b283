package placement_test

import (
	"slices"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// TestKeepers: only live nodes with disks that stay, the farthest from those that have
// the file first, then those with room.
func TestKeepers(t *testing.T) {
	n := placement.New(placement.Options{})
	n.SetRoles([]placement.Role{{ID: "drains", Role: freshet.RoleDraining}})
	beat := func(id freshet.NodeID, host, rack string, used int64, change func(*freshet.Heartbeat)) {
		t.Helper()
		h := freshet.Heartbeat{
			Node: freshet.Node{ID: id, Name: string(id), Host: host}, Incarnation: 1, Rack: rack, Zone: "z", Full: true,
			Used: used, Capacity: 1000, Keeps: true, Durable: true,
			Added: []freshet.BlockReport{{ID: freshet.BlockID{File: 7}, Length: 10}},
		}
		if change != nil {
			change(&h)
		}
		if _, err := n.Heartbeat(h, true, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	beat("writer", "h1", "r1", 0, nil)
	beat("same host", "h1", "r1", 0, nil)
	beat("same rack", "h2", "r1", 0, nil)
	beat("full", "h3", "r2", 990, nil)
	beat("far", "h4", "r2", 0, nil)
	beat("memory", "h5", "r3", 0, func(h *freshet.Heartbeat) { h.Durable = false })
	beat("older", "h6", "r4", 0, func(h *freshet.Heartbeat) { h.Keeps = false })
	beat("drains", "h7", "r5", 0, nil)
	ids := func(nodes []freshet.Node) (out []freshet.NodeID) {
		for _, at := range nodes {
			out = append(out, at.ID)
		}
		return out
	}
	if got := n.KeeperCount(time.Second); got != 5 {
		t.Errorf("%d nodes can keep files", got)
	}
	for key := range uint64(20) {
		got := ids(n.Keepers([]freshet.NodeID{"writer"}, 100, key, 9, time.Second))
		// The second one is in the rack of one of the first two, wherever it is.
		if len(got) != 4 || got[0] != "far" || slices.Contains(got, "writer") || got[3] != "same host" {
			t.Fatalf("key %d: %q", key, got)
		}
	}
	if got := n.Keepers([]freshet.NodeID{"writer"}, 100, 1, 2, time.Second); len(got) != 2 {
		t.Errorf("of two: %v", got)
	}
	n.SetKept(map[freshet.NodeID]int64{"far": 901})
	if got := ids(n.Keepers([]freshet.NodeID{"writer"}, 100, 1, 9, time.Second)); len(got) != 4 || got[3] != "far" {
		t.Errorf("with one that keeps too much: %q", got)
	}
	live, staying := n.Standing(7, 10, []freshet.NodeID{"drains", "writer", "gone"}, time.Second)
	if !slices.Equal(ids(live), []freshet.NodeID{"drains", "writer"}) || !slices.Equal(ids(staying), []freshet.NodeID{"writer"}) {
		t.Errorf("live %v, staying %v", ids(live), ids(staying))
	}
	if live, _ := n.Standing(7, 11, []freshet.NodeID{"writer"}, time.Second); len(live) != 0 {
		t.Errorf("a part of it counts: %v", live)
	}
	if got := n.KeeperCount(time.Minute); got != 0 {
		t.Errorf("%d silent nodes count", got)
	}
}
