package placement_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

const sec = time.Second

func beat(id freshet.NodeID, inc uint64) freshet.Heartbeat {
	return freshet.Heartbeat{Node: freshet.Node{ID: id, Name: "name-" + string(id), Host: "host-" + string(id), GRPC: "addr-" + string(id)}, Incarnation: inc, Capacity: 100, Tier: "disk"}
}

// holders returns the live nodes that hold the block, as host sees them.
func holders(n *placement.Nodes, id freshet.BlockID, host string, now time.Duration) []freshet.Node {
	return n.Locate(id.File, id.Index, id.Index, freshet.Locality{Host: host}, now)[0].Nodes
}

// fetcher returns the node that should fetch the block, if any lives.
func fetcher(n *placement.Nodes, id freshet.BlockID, now time.Duration) (freshet.Node, bool) {
	node := n.Locate(id.File, id.Index, id.Index, freshet.Locality{}, now)[0].Fetch
	return node, node.ID != ""
}

func full(id freshet.NodeID, inc uint64, blocks ...freshet.BlockID) freshet.Heartbeat {
	h := beat(id, inc)
	h.Full = true
	for _, b := range blocks {
		h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: 10})
	}
	return h
}

func tell(t *testing.T, n *placement.Nodes, h freshet.Heartbeat, sameTerm bool, now time.Duration) placement.Report {
	t.Helper()
	r, err := n.Heartbeat(h, sameTerm, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func names(nodes []freshet.Node) []freshet.NodeID {
	var ids []freshet.NodeID
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

func block(file freshet.FileID, i uint32) freshet.BlockID {
	return freshet.BlockID{File: file, Index: i}
}

func TestFullReportsAndDeltas(t *testing.T) {
	n := placement.New(placement.Options{})
	n.Reset(100 * sec)
	if r := tell(t, n, beat("a", 1), true, 100*sec); !r.New || !r.NeedFull {
		t.Errorf("a new node without a full report: %+v", r)
	}
	if r := tell(t, n, full("a", 1, block(1, 0), block(1, 1)), false, 101*sec); r.NeedFull || r.New {
		t.Errorf("a full report: %+v", r)
	}
	delta := beat("a", 1)
	delta.Removed, delta.Added = []freshet.BlockID{block(1, 0)}, []freshet.BlockReport{{ID: block(1, 700), Length: 5}}
	if r := tell(t, n, delta, false, 102*sec); !r.NeedFull {
		t.Error("a delta to what another leader was told was taken")
	}
	if got := n.CachedBytes(1, 102*sec); got != 20 {
		t.Errorf("%d bytes after a refused delta, want 20", got)
	}
	if r := tell(t, n, delta, true, 102*sec); !r.NeedFull {
		t.Error("a delta was taken although a full report is due")
	}
	tell(t, n, full("a", 1, block(1, 0), block(1, 1)), true, 103*sec)
	tell(t, n, delta, true, 104*sec)
	if got := n.CachedBytes(1, 104*sec); got != 15 {
		t.Errorf("%d bytes after a delta, want 15", got)
	}
	got := n.Blocks(1, 104*sec)
	if len(got) != 2 || got[0].Index != 1 || got[1].Index != 700 || got[1].Nodes[0] != "name-a" {
		t.Errorf("blocks %+v", got)
	}
	// A restart empties the node until it reports in full; an older run is refused.
	if r := tell(t, n, beat("a", 2), true, 105*sec); !r.Restarted || !r.NeedFull || n.CachedBytes(1, 105*sec) != 0 {
		t.Errorf("restart: %+v, %d bytes", r, n.CachedBytes(1, 105*sec))
	}
	if _, err := n.Heartbeat(beat("a", 1), true, 106*sec); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("an older run: %v", err)
	}
	if _, err := n.Heartbeat(freshet.Heartbeat{}, true, 106*sec); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("no node: %v", err)
	}
}

func TestNodeIsDeadAfterSilence(t *testing.T) {
	n := placement.New(placement.Options{})
	n.Reset(-7 * sec)
	if p := n.Presence("a", -4*sec); p.Known || p.Live || p.Silence != 3*sec {
		t.Errorf("unknown: %+v", p)
	}
	tell(t, n, full("a", 1, block(1, 0)), true, -4*sec)
	tell(t, n, full("b", 1, block(1, 0)), true, 0)
	if p := n.Presence("a", 1*sec-1); !p.Live || p.Beats != 1 {
		t.Errorf("%+v", p)
	}
	if got := names(holders(n, block(1, 0), "", 1*sec-1)); len(got) != 2 {
		t.Errorf("holders %v", got)
	}
	if p := n.Presence("a", 1*sec); p.Live || !p.Known || p.Silence != 5*sec {
		t.Errorf("%+v", p)
	}
	if got := names(holders(n, block(1, 0), "host-a", 1*sec)); !slices.Equal(got, []freshet.NodeID{"b"}) {
		t.Errorf("holders %v", got)
	}
	if node, _, ok := n.Writer("a", freshet.Locality{}, 1, 1*sec); !ok || node.ID != "b" {
		t.Errorf("writer %v", node.ID)
	}
	list := n.List(1 * sec)
	if len(list) != 2 || list[0].Live || !list[1].Live || list[0].SinceHeartbeat != 5*sec || list[0].Blocks != 1 {
		t.Errorf("%+v", list)
	}
	if got := n.Totals(1 * sec); got.Live != 1 || got.Dead != 1 || got.Blocks != 1 {
		t.Errorf("%+v", got)
	}
	// A new run under a new ID, at the same place, takes the old one's: a node in
	// memory keeps no identity.
	again := full("c", 1)
	again.Node.Name, again.Node.GRPC = "name-a", "addr-a"
	tell(t, n, again, true, 1*sec)
	if list := n.List(1 * sec); len(list) != 2 || n.Presence("a", 1*sec).Known {
		t.Errorf("%+v", list)
	}
	// Its number is given to the next node, which holds nothing of it.
	if got := names(holders(n, block(1, 0), "", 1*sec)); !slices.Equal(got, []freshet.NodeID{"b"}) {
		t.Errorf("holders %v", got)
	}
	// One that was silent for very long is forgotten when another comes.
	tell(t, n, full("d", 1), true, 2*3600*sec)
	if list := n.List(2 * 3600 * sec); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

func TestNearestFirst(t *testing.T) {
	n := placement.New(placement.Options{})
	place := map[freshet.NodeID][2]string{"same": {"r1", "z1"}, "rack": {"r1", "z1"}, "zone": {"r2", "z1"}, "far": {"r1", "z2"}}
	for id, p := range place {
		h := full(id, 1, block(1, 0))
		h.Rack, h.Zone = p[0], p[1]
		tell(t, n, h, true, 0)
	}
	if got := names(holders(n, block(1, 0), "host-same", 0)); !slices.Equal(got, []freshet.NodeID{"same", "rack", "zone", "far"}) {
		t.Errorf("order %v", got)
	}
	for key := range uint64(50) {
		if node, inc, ok := n.Writer("", freshet.Locality{Host: "host-zone"}, key, 0); !ok || node.ID != "zone" || inc != 1 {
			t.Fatalf("writer %v", node.ID)
		}
	}
	if node, _, _ := n.Writer("far", freshet.Locality{Host: "host-zone"}, 1, 0); node.ID != "far" {
		t.Errorf("the preferred node was not taken: %v", node.ID)
	}
	spots := n.Locate(1, 0, 1, freshet.Locality{Host: "host-rack"}, 0)
	if len(spots) != 2 || spots[0].Nodes[0].ID != "rack" || len(spots[1].Nodes) != 0 || spots[1].Fetch.ID == "" {
		t.Errorf("%+v", spots)
	}
}

func TestRendezvousMovesOnlyTheShareOfWhoLeft(t *testing.T) {
	n := placement.New(placement.Options{})
	ids := []freshet.NodeID{"a", "b", "c", "big"}
	for _, id := range ids {
		h := full(id, 1)
		if id == "big" {
			h.Capacity = 300
		}
		tell(t, n, h, true, 0)
	}
	const blocks = 12000
	before := make([]freshet.NodeID, blocks)
	share := map[freshet.NodeID]int{}
	for i := range before {
		node, ok := fetcher(n, block(freshet.FileID(i/8), uint32(i%8)), 0)
		if !ok {
			t.Fatal("nobody")
		}
		before[i] = node.ID
		share[node.ID]++
	}
	for id, got := range share {
		want := blocks / 6
		if id == "big" {
			want = blocks / 2
		}
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("%s has %d of %d blocks, want about %d", id, got, blocks, want)
		}
	}
	for _, id := range []freshet.NodeID{"b", "c", "big"} { // a falls silent
		h := beat(id, 1)
		if id == "big" {
			h.Capacity = 300
		}
		tell(t, n, h, true, 4*sec)
	}
	for i := range before {
		node, _ := fetcher(n, block(freshet.FileID(i/8), uint32(i%8)), 6*sec)
		if node.ID == "a" || (before[i] != "a" && node.ID != before[i]) {
			t.Fatalf("block %d moved from %s to %s", i, before[i], node.ID)
		}
	}
}

func TestBlocksToFree(t *testing.T) {
	n := placement.New(placement.Options{})
	tell(t, n, full("a", 1, block(1, 0), block(1, 300), block(2, 0)), true, 0)
	tell(t, n, full("b", 1, block(1, 0)), true, 0)
	n.FreeFiles(1, 99)
	if got := n.ToFree("a", 10); !slices.Equal(got, []freshet.BlockID{block(1, 0), block(1, 300)}) {
		t.Errorf("a is to free %v", got)
	}
	if got := n.ToFree("a", 1); len(got) != 1 {
		t.Errorf("more than the limit: %v", got)
	}
	n.FreeBlocks("b", []freshet.BlockID{block(7, 7)})
	if got := n.ToFree("b", 10); len(got) != 2 {
		t.Errorf("b is to free %v", got)
	}
	h := beat("a", 1)
	h.Removed = []freshet.BlockID{block(1, 0)}
	tell(t, n, h, true, sec)
	if got := n.ToFree("a", 10); !slices.Equal(got, []freshet.BlockID{block(1, 300)}) {
		t.Errorf("a is still to free %v", got)
	}
	tell(t, n, full("a", 1, block(2, 0)), true, sec)
	if got := n.ToFree("a", 10); len(got) != 0 || n.ToFree("nobody", 10) != nil {
		t.Errorf("after a full report: %v", got)
	}
}

// TestDamageIsRememberedAndEvicted: what nodes found stays known, within bounds, until
// the version is evicted; what a node fetched anew is not evicted again.
func TestDamageIsRememberedAndEvicted(t *testing.T) {
	n := placement.New(placement.Options{})
	tell(t, n, full("b", 1, block(1, 0)), true, 0)
	tell(t, n, full("a", 1, block(1, 0), block(1, 1)), true, 0)
	h := beat("b", 1)
	h.Damaged = []freshet.BlockID{block(1, 0)}
	tell(t, n, h, true, sec)
	h = beat("a", 1)
	h.Damaged = []freshet.BlockID{block(1, 0), block(1, 1)}
	tell(t, n, h, true, 2*sec)
	if d := n.Damage(1, 5*sec); d.Blocks != 3 || !slices.Equal(d.Nodes, []string{"name-a", "name-b"}) || d.Ago != 3*sec {
		t.Errorf("damage: %+v", d)
	}
	n.Evict(1)
	if d := n.Damage(1, 5*sec); d.Blocks != 0 || d.Nodes != nil {
		t.Errorf("after the eviction: %+v", d)
	}
	h = beat("a", 1)
	h.Added = []freshet.BlockReport{{ID: block(1, 1), Length: 1}}
	tell(t, n, h, true, 3*sec)
	if a, b := n.ToFree("a", 10), n.ToFree("b", 10); !slices.Equal(a, []freshet.BlockID{block(1, 0)}) || !slices.Equal(b, a) {
		t.Errorf("to free: %v, %v", a, b)
	}
	h = beat("a", 1)
	for f := range freshet.FileID(2000) {
		h.Damaged = append(h.Damaged, block(f+10, 0))
	}
	tell(t, n, h, true, 4*sec)
	if first, last := n.Damage(10, 5*sec), n.Damage(2009, 5*sec); first.Blocks != 0 || last.Blocks != 1 {
		t.Errorf("bounds: %+v, %+v", first, last)
	}
	n.Reset(0)
	if d := n.Damage(2009, 0); d.Blocks != 0 {
		t.Errorf("after a reset: %+v", d)
	}
}

// TestIndexAgainstModel compares the index with plain maps under random reports.
func TestIndexAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := placement.New(placement.Options{})
		model := map[freshet.NodeID]map[freshet.BlockID]bool{}
		ids := []freshet.NodeID{"a", "b", "c"}
		gen := rapid.Custom(func(t *rapid.T) freshet.BlockID {
			return block(freshet.FileID(rapid.IntRange(1, 3).Draw(t, "file")), rapid.SampledFrom([]uint32{0, 1, 255, 256, 511, 70000, 1<<32 - 1}).Draw(t, "index"))
		})
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "node")
			h := beat(id, 1)
			h.Full = model[id] == nil || rapid.IntRange(0, 9).Draw(t, "full") == 0
			if h.Full {
				model[id] = map[freshet.BlockID]bool{}
			}
			h.Removed = rapid.SliceOfN(gen, 0, 4).Draw(t, "removed")
			for _, b := range h.Removed {
				delete(model[id], b)
			}
			for _, b := range rapid.SliceOfN(gen, 0, 4).Draw(t, "added") {
				h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: 10})
				model[id][b] = true
			}
			if _, err := n.Heartbeat(h, true, 0); err != nil {
				t.Fatal(err)
			}
			compare(t, n, model)
		}
	})
}

func compare(t *rapid.T, n *placement.Nodes, model map[freshet.NodeID]map[freshet.BlockID]bool) {
	for file := freshet.FileID(1); file <= 3; file++ {
		want := map[freshet.BlockID]int{}
		for _, held := range model {
			for b := range held {
				if b.File == file {
					want[b]++
				}
			}
		}
		if got := n.CachedBytes(file, 0); got != int64(10*len(want)) {
			t.Fatalf("file %d: %d bytes, want %d blocks", file, got, len(want))
		}
		found := n.Blocks(file, 0)
		if len(found) != len(want) || !slices.IsSortedFunc(found, func(a, b freshet.ExplainedBlock) int { return int(int64(a.Index) - int64(b.Index)) }) {
			t.Fatalf("file %d: %+v, want %v", file, found, want)
		}
		for _, b := range found {
			id := block(file, b.Index)
			if len(b.Nodes) != want[id] || len(holders(n, id, "", 0)) != want[id] {
				t.Fatalf("block %v: %v, want %d", id, b.Nodes, want[id])
			}
		}
	}
	for _, st := range n.List(0) {
		if st.Blocks != int64(len(model[st.Node.ID])) {
			t.Fatalf("%s counts %d blocks, has %d", st.Node.ID, st.Blocks, len(model[st.Node.ID]))
		}
	}
}

// TestMemoryPerBlock bounds what a block costs: of small files, and of a big one.
func TestMemoryPerBlock(t *testing.T) {
	const blocks = 200_000
	for name, id := range map[string]func(i int) freshet.BlockID{
		"small files": func(i int) freshet.BlockID { return block(freshet.FileID(i+1), 0) },
		"big file":    func(i int) freshet.BlockID { return block(1, uint32(i)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := beat("a", 1)
			h.Full = true
			for i := range blocks {
				h.Added = append(h.Added, freshet.BlockReport{ID: id(i), Length: 1})
			}
			before := heap()
			n := placement.New(placement.Options{})
			tell(t, n, h, true, 0)
			per := (heap() - before) / blocks
			t.Logf("%d bytes per block", per)
			if most := map[string]int64{"small files": 160, "big file": 40}[name]; per > most {
				t.Errorf("%d bytes per block, want at most %d", per, most)
			}
			runtime.KeepAlive(n)
			runtime.KeepAlive(h)
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // a heap is smaller
}

func BenchmarkLocate(b *testing.B) {
	n := placement.New(placement.Options{})
	for i := range 8 {
		h := full(freshet.NodeID(fmt.Sprint(i)), 1)
		for j := range 1000 {
			h.Added = append(h.Added, freshet.BlockReport{ID: block(freshet.FileID(j+1), 0), Length: 1})
		}
		if _, err := n.Heartbeat(h, true, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n.Locate(freshet.FileID(i%1000+1), 0, 0, freshet.Locality{Host: "host-3"}, 0)
	}
}

// TestAReportInParts: what a node holds is known when the last part came, not before; the
// parts are one heartbeat; and a report that was cut off counts for nothing.
func TestAReportInParts(t *testing.T) {
	n := placement.New(placement.Options{})
	part := func(more bool, blocks ...freshet.BlockID) freshet.Heartbeat {
		h := full("a", 1, blocks...)
		h.Full, h.More, h.Continued = false, more, true
		return h
	}
	first := full("a", 1, block(1, 0))
	first.More = true
	now := 10 * sec
	wants := func(what string, heard bool, beats uint64, bytes int64) {
		t.Helper()
		if n.AllHeard(now) != heard || n.Settled(now) != heard || n.Ended([]freshet.NodeID{"a"}, now) != heard {
			t.Errorf("%s: all was heard: %v, %v, %v, want %v", what, n.AllHeard(now), n.Settled(now), n.Ended([]freshet.NodeID{"a"}, now), heard)
		}
		if p := n.Presence("a", now); p.Beats != beats || n.CachedBytes(1, now) != bytes {
			t.Errorf("%s: %d heartbeats and %d bytes, want %d and %d", what, p.Beats, n.CachedBytes(1, now), beats, bytes)
		}
	}
	tell(t, n, first, false, now)
	wants("the first part", false, 1, 10)
	tell(t, n, part(true, block(1, 1)), true, now)
	wants("the second part", false, 1, 20)
	tell(t, n, part(false, block(1, 2)), true, now)
	wants("the last part", true, 1, 30)
	delta := beat("a", 1)
	delta.More = true
	if r := tell(t, n, delta, true, now); r.NeedFull {
		t.Error("changes in parts are asked for anew")
	}
	tell(t, n, part(false, block(1, 3)), true, now)
	wants("changes in parts", true, 2, 40)

	now += time.Minute // long after it registered
	tell(t, n, first, true, now)
	wants("anew", false, 3, 10)
	if r := tell(t, n, beat("a", 1), true, now); !r.NeedFull {
		t.Error("a report that was cut off was taken for all")
	}
	if r := tell(t, n, part(false, block(1, 1)), true, now); !r.NeedFull {
		t.Error("the rest of a report that was cut off was taken")
	}
	tell(t, n, full("a", 1, block(1, 0), block(1, 1)), true, now)
	wants("in one part", true, 5, 20)
	tell(t, n, first, true, now)
	if r := tell(t, n, part(false, block(1, 1)), false, now); !r.NeedFull {
		t.Error("a part of what another leader was told was taken")
	}
	for range 2 * int(time.Minute/sec) { // one that never gets through holds up nobody for ever
		now += sec
		tell(t, n, first, true, now)
	}
	if n.AllHeard(now) || !n.Settled(now) {
		t.Errorf("after two minutes: all was heard: %v, others wait: %v", n.AllHeard(now), !n.Settled(now))
	}
}
