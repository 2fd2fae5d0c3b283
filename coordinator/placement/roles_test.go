package placement_test

import (
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

func (y *yard) drain(id freshet.NodeID, role freshet.NodeRole) {
	n := y.nodes[id].beat.Node
	y.n.SetRoles([]placement.Role{{ID: n.ID, Name: n.Name, GRPC: n.GRPC, Role: role}})
}

// TestADrainingNodeGivesAndTakesNothing: it is read from last, takes no uploads and no
// blocks, its copies do not count, and what only it has is copied if that is wanted.
func TestADrainingNodeGivesAndTakesNothing(t *testing.T) {
	t.Parallel()
	y := newYard(t, freshet.Replication{Min: 1}, beats("a", "b", "c")...)
	for i := range uint32(20) {
		y.put("a", block(1, i))
	}
	y.put("b", block(1, 0))
	y.seconds(10)
	if got := y.holding(block(1, 5)); got != "a" {
		t.Fatalf("with nobody draining the block is copied: %q", got)
	}
	y.drain("a", freshet.RoleDraining)
	if n := holders(y.n, block(1, 0), "host-a", y.now); n[0].ID != "b" || n[1].ID != "a" {
		t.Errorf("it is read from %v", names(n))
	}
	for key := range uint64(50) {
		if w, _, _ := y.n.Writer("a", freshet.Locality{Host: "host-a"}, key, y.now); w.ID == "a" {
			t.Fatal("it takes an upload")
		}
		if f, _ := fetcher(y.n, block(2, uint32(key)), y.now); f.ID == "a" {
			t.Fatal("it is to fetch a block")
		}
	}
	if s := y.n.Holdings("a", 1, y.now); len(s) != 1 || s[0].Blocks != 19 || s[0].Bytes != 19*blockBytes {
		t.Errorf("alone it has %+v", s)
	}
	y.seconds(10)
	if s := y.n.Holdings("a", 1, y.now); len(s) != 0 {
		t.Errorf("it is drained, and alone it has %+v", s)
	}
	for i := range uint32(20) {
		if got := y.holding(block(1, i)); got != "a b" && got != "a c" {
			t.Errorf("block %d is held by %q", i, got)
		}
	}
	y.n.Reset(y.now) // another leader has the roles too
	y.seconds(3)
	if _, draining := y.n.Draining("a", y.now); !draining {
		t.Error("a new leader does not know")
	}
	y.drain("a", freshet.RoleServing)
	if some, _ := y.n.Draining("a", y.now); some {
		t.Error("it still drains")
	}
}

// TestADecommissionedNodeIsRefused, also if it comes back with another ID.
func TestADecommissionedNodeIsRefused(t *testing.T) {
	t.Parallel()
	y := newYard(t, freshet.Replication{}, beats("a", "b")...)
	y.put("a", block(1, 0))
	y.seconds(3)
	y.drain("a", freshet.RoleDecommissioned)
	if n := holders(y.n, block(1, 0), "", y.now); len(n) != 0 {
		t.Errorf("readers are sent to %v", names(n))
	}
	again := y.nodes["a"].beat
	again.Node.ID = "another"
	for _, h := range []freshet.Heartbeat{y.nodes["a"].beat, again} {
		if _, err := y.n.Heartbeat(h, true, y.now); !freshet.IsKind(err, freshet.KindPermission) {
			t.Errorf("%s: %v", h.Node.ID, err)
		}
	}
	if l := y.n.List(y.now); len(l) != 2 || l[0].Role != freshet.RoleDecommissioned || l[0].Live {
		t.Errorf("listed: %+v", l)
	}
	y.drain("a", freshet.RoleServing)
	y.seconds(3)
	if n := holders(y.n, block(1, 0), "", y.now); len(n) != 1 {
		t.Errorf("it serves again, readers are sent to %v", names(n))
	}
}

func TestPoliciesChooseFetcherAndWriter(t *testing.T) {
	t.Parallel()
	n := placement.New(placement.Options{})
	for i := range 6 {
		h := full(freshet.NodeID(fmt.Sprint(i)), 1)
		h.Rack, h.Zone, h.Capacity = fmt.Sprint("r", i/2), fmt.Sprint("z", i/4), 1000
		if h.Used = 999; i == 5 {
			h.Used = 0
		}
		tell(t, n, h, true, 0)
	}
	count := func(policy string, at freshet.Locality) (fetch, write map[freshet.NodeID]int) {
		n.SetPolicy(policy)
		fetch, write = map[freshet.NodeID]int{}, map[freshet.NodeID]int{}
		for k := range uint32(300) {
			fetch[n.Locate(1, k, k, at, 0)[0].Fetch.ID]++
			w, _, _ := n.Writer("", at, uint64(k), 0)
			write[w.ID]++
		}
		return fetch, write
	}
	on0 := freshet.Locality{Host: "host-0"}
	if f, w := count(placement.PolicyRendezvous, on0); len(f) != 6 || w["0"] != 300 {
		t.Errorf("rendezvous: %v fetch, %v write", f, w)
	}
	if f, w := count(placement.PolicyLocal, on0); f["0"] != 300 || w["0"] != 300 {
		t.Errorf("local first: %v fetch, %v write", f, w)
	}
	inRack := freshet.Locality{Host: "elsewhere", Rack: "r1", Zone: "z0"}
	if f, w := count(placement.PolicyLocal, inRack); f["2"]+f["3"] != 300 || f["2"] < 90 || f["3"] < 90 || w["2"]+w["3"] != 300 {
		t.Errorf("in a rack: %v fetch, %v write", f, w)
	}
	if f, _ := count(placement.PolicyLocal, freshet.Locality{Zone: "z1"}); f["4"]+f["5"] != 300 {
		t.Errorf("in a zone: %v fetch", f)
	}
	if f, w := count(placement.PolicyAvailable, on0); f["5"] < 250 || w["5"] < 250 {
		t.Errorf("most available: %v fetch, %v write", f, w)
	}
}

// TestHotBlocksGetMoreCopies, which take turns, as many as their reads need and bounds
// allow, and let them go when they are read less.
func TestHotBlocksGetMoreCopies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		bounds freshet.Replication
		reads  uint32
		heat   placement.HeatOptions
		want   int
	}{
		{"few reads", freshet.Replication{}, 150, placement.HeatOptions{}, 1},
		{"some reads", freshet.Replication{}, 350, placement.HeatOptions{}, 2},
		{"many reads", freshet.Replication{}, 5000, placement.HeatOptions{}, 3},
		{"another bound", freshet.Replication{}, 5000, placement.HeatOptions{Copies: 4}, 4},
		{"the policy's bound", freshet.Replication{Max: 2}, 5000, placement.HeatOptions{Copies: 4}, 2},
		{"off", freshet.Replication{}, 5000, placement.HeatOptions{Copies: 1}, 1},
		{"a policy wants more", freshet.Replication{Min: 4}, 5000, placement.HeatOptions{}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t, c.bounds, beats("a", "b", "c", "d", "e")...)
			y.n.SetHeat(c.heat)
			hot, cold := block(1, 0), block(1, 1)
			y.put("a", hot, cold)
			y.seconds(6)
			run := func(seconds int, reads uint32) {
				for range seconds {
					y.nodes["a"].beat.Hot = []freshet.BlockHeat{{ID: hot, Reads: reads}, {ID: cold, Reads: 5}}
					y.second()
					for _, h := range y.n.Hot() {
						y.n.Heat(h.ID, c.bounds, true, y.now)
					}
				}
			}
			copies := func(b freshet.BlockID) int { return len(holders(y.n, b, "", y.now)) }
			run(12, c.reads)
			if n := copies(hot); n != c.want {
				t.Errorf("%d copies, want %d", n, c.want)
			}
			if n := copies(cold); n != max(c.bounds.Min, 1) {
				t.Errorf("%d copies of a block that is hardly read", n)
			}
			if c.want > 1 && c.bounds.Min == 0 {
				first := map[freshet.NodeID]int{}
				for range 12 {
					first[holders(y.n, hot, "", y.now)[0].ID]++
				}
				if len(first) != c.want {
					t.Errorf("readers are sent to %v first", first)
				}
			}
			run(30, 0)
			if n := copies(hot); n != c.want {
				t.Errorf("after half a minute %d copies are left of %d", n, c.want)
			}
			run(100, 0)
			if n := copies(hot); n != max(c.bounds.Min, 1) {
				t.Errorf("%d copies are left", n)
			}
			if blocks, made := y.n.HeatTotals(); blocks+made+len(y.n.Hot()) != 0 {
				t.Errorf("%d blocks and %d copies are left in the books", blocks, made)
			}
		})
	}
}

// TestHeatOfADeadNodeEnds: what it read last keeps no copies.
func TestHeatOfADeadNodeEnds(t *testing.T) {
	t.Parallel()
	y := newYard(t, freshet.Replication{}, beats("a", "b", "c")...)
	y.put("a", block(1, 0))
	y.seconds(6)
	y.nodes["a"].beat.Hot = []freshet.BlockHeat{{ID: block(1, 0), Reads: 5000}}
	step := func(n int) {
		for range n {
			y.second()
			for _, h := range y.n.Hot() {
				y.n.Heat(h.ID, freshet.Replication{}, true, y.now)
			}
		}
	}
	step(10)
	y.nodes["a"].down = true
	step(150)
	if l := y.n.Hot(); len(l) != 0 {
		t.Errorf("still hot: %+v", l)
	}
	if n := len(holders(y.n, block(1, 0), "", y.now)); n != 1 {
		t.Errorf("%d copies are left, want the last one", n)
	}
}
