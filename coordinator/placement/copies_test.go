package placement_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// yard is a registry with nodes that do what they are told.
type yard struct {
	t     interface{ Fatal(args ...any) }
	n     *placement.Nodes
	now   time.Duration
	nodes map[freshet.NodeID]*store
	want  func(freshet.FileID) freshet.Replication
}

// store is a node of a yard.
type store struct {
	beat    freshet.Heartbeat
	held    map[freshet.BlockID]bool
	fresh   []freshet.BlockID // fetched since the last report
	down    bool
	lazy    bool // fetches nothing
	fetched int
}

const blockBytes = 10

func newYard(t testing.TB, want freshet.Replication, nodes ...freshet.Heartbeat) *yard {
	y := &yard{t: t, n: placement.New(placement.Options{}), nodes: map[freshet.NodeID]*store{}, want: func(freshet.FileID) freshet.Replication { return want }}
	y.now = -1000 * time.Hour // a clock may read anything
	y.n.Reset(y.now)
	y.n.Replicate(true)
	t.Cleanup(func() { y.n.Replicate(false) })
	for _, h := range nodes {
		h.TakesCopies = true
		if h.Capacity == 100 {
			h.Capacity = 1 << 20
		}
		y.nodes[h.Node.ID] = &store{beat: h, held: map[freshet.BlockID]bool{}}
	}
	return y
}

func beats(ids ...freshet.NodeID) []freshet.Heartbeat {
	var all []freshet.Heartbeat
	for _, id := range ids {
		all = append(all, beat(id, 1))
	}
	return all
}

func placed(id freshet.NodeID, rack, zone string) freshet.Heartbeat {
	h := beat(id, 1)
	h.Rack, h.Zone = rack, zone
	return h
}

func (y *yard) put(id freshet.NodeID, blocks ...freshet.BlockID) {
	for _, b := range blocks {
		y.nodes[id].held[b] = true
		y.nodes[id].fresh = append(y.nodes[id].fresh, b)
	}
}

// second lets a second pass: all report, and the leader looks at what is due.
func (y *yard) second() {
	y.now += sec
	for _, id := range slices.Sorted(maps.Keys(y.nodes)) {
		if !y.nodes[id].down {
			y.report(id)
		}
	}
	for _, p := range y.n.NextPages(1000, y.now) {
		if y.n.Keep(p, y.want(p.File()), y.now) {
			y.n.Mark(p)
		}
	}
}

func (y *yard) report(id freshet.NodeID) {
	s := y.nodes[id]
	h := s.beat
	for _, b := range s.fresh {
		if s.held[b] {
			h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: blockBytes})
		} else {
			h.Removed = append(h.Removed, b)
		}
	}
	h.Used = int64(len(s.held)) * blockBytes
	s.fresh = nil
	r, err := y.n.Heartbeat(h, true, y.now)
	if err != nil {
		y.t.Fatal(err)
	}
	if r.NeedFull {
		h.Full, h.Added, h.Removed = true, nil, nil
		for b := range s.held {
			h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: blockBytes})
		}
		if _, err := y.n.Heartbeat(h, true, y.now); err != nil {
			y.t.Fatal(err)
		}
	}
	for _, b := range y.n.ToFree(id, 100) {
		delete(s.held, b)
		s.fresh = append(s.fresh, b)
	}
	for _, o := range y.n.ToCopy(id, y.now) {
		for _, from := range o.From {
			if holder := y.nodes[from.ID]; s.lazy || from.ID == id || holder.down || !holder.held[o.Block] {
				continue
			}
			s.held[o.Block] = true
			s.fresh = append(s.fresh, o.Block)
			s.fetched++
			break
		}
	}
}

func (y *yard) seconds(n int) {
	for range n {
		y.second()
	}
}

// holding returns who, of those that live, holds the block.
func (y *yard) holding(b freshet.BlockID) string {
	var ids []string
	for id, s := range y.nodes {
		if !s.down && s.held[b] {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func TestCopiesAreKeptBetweenTheBounds(t *testing.T) {
	one := block(1, 0)
	for _, c := range []struct {
		name  string
		want  freshet.Replication
		nodes []freshet.Heartbeat
		held  []freshet.NodeID
		after string
		short int
	}{
		{"nothing is asked for", freshet.Replication{}, beats("a", "b", "c"), []freshet.NodeID{"a"}, "a", 0},
		{"one is there", freshet.Replication{Min: 1}, beats("a", "b", "c"), []freshet.NodeID{"a"}, "a", 0},
		{"nobody has it", freshet.Replication{Min: 2}, beats("a", "b", "c"), nil, "", 0},
		{"more nodes than there are", freshet.Replication{Min: 5}, beats("a", "b", "c"), []freshet.NodeID{"b"}, "a b c", 1},
		{"all", freshet.Replication{Min: 3}, beats("a", "b", "c"), []freshet.NodeID{"b"}, "a b c", 0},
		{"enough", freshet.Replication{Min: 2}, beats("a", "b", "c"), []freshet.NodeID{"a", "b", "c"}, "a b c", 0},
		{"no limit", freshet.Replication{Min: 0, Max: 0}, beats("a", "b", "c"), []freshet.NodeID{"a", "b", "c"}, "a b c", 0},
		{"the least number wins", freshet.Replication{Min: 3, Max: 1}, beats("a", "b", "c"), []freshet.NodeID{"a"}, "a b c", 0},
		{"another zone, then another rack", freshet.Replication{Min: 2}, []freshet.Heartbeat{
			placed("a", "r1", "z1"), placed("b", "r1", "z1"), placed("c", "r2", "z1"), placed("d", "r1", "z2"),
		}, []freshet.NodeID{"a"}, "a d", 0},
		{"another rack", freshet.Replication{Min: 2}, []freshet.Heartbeat{
			placed("a", "r1", "z1"), placed("b", "r1", "z1"), placed("c", "r2", "z1"),
		}, []freshet.NodeID{"a"}, "a c", 0},
		{"one of each zone stays", freshet.Replication{Min: 2, Max: 2}, []freshet.Heartbeat{
			placed("a", "r1", "z1"), placed("b", "r1", "z1"), placed("d", "r1", "z2"),
		}, []freshet.NodeID{"a", "b", "d"}, "? d", 0},
		{"the last stays", freshet.Replication{Max: 1}, beats("a", "b", "c"), []freshet.NodeID{"b"}, "b", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			y := newYard(t, c.want, c.nodes...)
			for _, id := range c.held {
				y.put(id, one)
			}
			y.seconds(12)
			got := y.holding(one)
			if got != c.after && (!strings.HasPrefix(c.after, "?") || got[1:] != c.after[1:]) {
				t.Errorf("held by %q, want %q", got, c.after)
			}
			if n := y.n.Short(); n != c.short {
				t.Errorf("%d blocks are short, want %d", n, c.short)
			}
		})
	}
}

// TestWhatStaysIsTheSameAsWhatIsFetched: of the copies beyond the most, those go that a
// reader would not be sent to.
func TestWhatStaysIsTheSameAsWhatIsFetched(t *testing.T) {
	y := newYard(t, freshet.Replication{Max: 1}, beats("a", "b", "c")...)
	for i := range uint32(30) {
		for _, id := range []freshet.NodeID{"a", "b", "c"} {
			y.put(id, block(7, i*100))
		}
	}
	y.seconds(12)
	for i := range uint32(30) {
		b := block(7, i*100)
		if best, _ := fetcher(y.n, b, y.now); y.holding(b) != string(best.ID) {
			t.Errorf("%v is held by %q, %s fetches it", b, y.holding(b), best.ID)
		}
	}
}

func TestANewLeaderWaitsForWhatTheNodesHold(t *testing.T) {
	y := newYard(t, freshet.Replication{Min: 2}, beats("a", "b", "c")...)
	y.put("a", block(1, 0))
	y.put("c", block(1, 0))
	y.nodes["c"].down = true
	y.seconds(3)
	y.nodes["c"].down = false
	y.seconds(9)
	if got := y.holding(block(1, 0)); got != "a c" {
		t.Errorf("held by %q", got)
	}
	y.n.Reset(y.now) // the next one
	y.nodes["a"].down = true
	y.seconds(3)
	y.nodes["a"].down = false
	y.seconds(9)
	if got := y.holding(block(1, 0)); got != "a c" {
		t.Errorf("after a change of leader held by %q", got)
	}
}

func TestCopiesAreMadeAnewWhenANodeDies(t *testing.T) {
	y := newYard(t, freshet.Replication{Min: 2, Max: 2}, beats("a", "b", "c")...)
	y.put("a", block(1, 0), block(1, 1), block(1, 700))
	y.seconds(12)
	y.nodes["a"].down = true
	y.seconds(12)
	for _, i := range []uint32{0, 1, 700} {
		if got := y.holding(block(1, i)); got != "b c" {
			t.Errorf("block %d is held by %q", i, got)
		}
	}
	if n := y.n.Short(); n != 0 {
		t.Errorf("%d are short", n)
	}
	// Back with what it had, there are three of each, of which one goes.
	y.nodes["a"].down = false
	y.seconds(12)
	for _, i := range []uint32{0, 1, 700} {
		if got := y.holding(block(1, i)); len(got) != 3 {
			t.Errorf("block %d is held by %q", i, got)
		}
	}
	for _, id := range []freshet.NodeID{"b", "c"} {
		y.nodes[id].down = true
	}
	y.seconds(12)
	if want := len(y.nodes["a"].held); y.n.Short() != want {
		t.Errorf("%d are short, %d are held by the only node", y.n.Short(), want)
	}
}

func TestBoundsAreChangedLive(t *testing.T) {
	want := freshet.Replication{Min: 3}
	y := newYard(t, want, beats("a", "b", "c")...)
	y.want = func(freshet.FileID) freshet.Replication { return want }
	b := block(1, 0)
	y.put("a", b)
	y.seconds(12)
	for _, c := range []struct {
		set  freshet.Replication
		held int
	}{{freshet.Replication{Max: 1}, 1}, {freshet.Replication{Min: 2, Max: 2}, 2}, {freshet.Replication{}, 2}, {freshet.Replication{Min: 3}, 3}} {
		want = c.set
		y.n.Recheck()
		y.seconds(5)
		if got := len(strings.Fields(y.holding(b))); got != c.held {
			t.Errorf("under %+v held by %q", c.set, y.holding(b))
		}
	}
	y.n.Replicate(false)
	y.nodes["a"].down = true
	y.seconds(12)
	if y.n.Short() != 0 || len(y.n.NextPages(10, y.now)) != 0 {
		t.Error("it goes on without being asked to")
	}
}

func TestOrdersAreBounded(t *testing.T) {
	y := newYard(t, freshet.Replication{Min: 2}, beats("a", "b")...)
	for i := range uint32(1000) {
		y.put("a", block(freshet.FileID(1+i%3), i))
	}
	y.nodes["b"].lazy = true
	y.seconds(10)
	if got := len(y.n.ToCopy("b", y.now)); got != 256 {
		t.Errorf("%d orders for one node", got)
	}
	y.nodes["b"].lazy = false
	y.seconds(8)
	if got := len(y.nodes["b"].held); got != 1000 || y.n.Short() != 0 {
		t.Errorf("%d of 1000 blocks were copied, %d are short", got, y.n.Short())
	}
}

// TestANodeThatDoesNotCopyIsPassedOver, after a while, for one that does.
func TestANodeThatDoesNotCopyIsPassedOver(t *testing.T) {
	y := newYard(t, freshet.Replication{Min: 2}, placed("a", "r1", "z1"), placed("b", "r2", "z1"), placed("c", "r1", "z1"))
	y.nodes["b"].lazy = true
	y.put("a", block(1, 0))
	y.seconds(60)
	if got := y.holding(block(1, 0)); got != "a" || len(y.n.ToCopy("b", y.now)) != 1 || !y.n.Ordered(1) {
		t.Errorf("after a minute held by %q", got)
	}
	y.seconds(90)
	if got := y.holding(block(1, 0)); got != "a c" {
		t.Errorf("held by %q", got)
	}
	old := newYard(t, freshet.Replication{Min: 2}, beats("a", "b")...)
	s := old.nodes["b"]
	s.beat.TakesCopies = false
	old.put("a", block(1, 0))
	old.seconds(12)
	if got := old.n.ToCopy("b", old.now); len(got) != 0 || old.n.Carriers(old.now) != 1 {
		t.Errorf("a node that does not know orders got %v", got)
	}
}

// TestAFullNodeIsFilledSlowly: where a copy pushes out another block, copying all the
// time would help nobody.
func TestAFullNodeIsFilledSlowly(t *testing.T) {
	small := beat("b", 1)
	small.Capacity = 1000 // of 100 blocks, one of which a minute
	y := newYard(t, freshet.Replication{Min: 2}, beat("a", 1), small)
	for i := range uint32(200) {
		y.put("a", block(1, i))
	}
	y.seconds(30)
	if got := y.nodes["b"].fetched; got < 100 || got > 102 {
		t.Errorf("%d blocks were copied at first", got)
	}
	before := y.nodes["b"].fetched
	y.seconds(600)
	if got := y.nodes["b"].fetched - before; got < 4 || got > 12 {
		t.Errorf("%d blocks were copied to a full node in ten minutes", got)
	}
	if y.n.Short() == 0 {
		t.Error("nothing is short")
	}
}

func TestAFileThatMovedIsLookedAt(t *testing.T) {
	y := newYard(t, freshet.Replication{}, beats("a", "b")...)
	y.put("a", block(1, 0), block(1, 900), block(2, 0))
	y.seconds(12)
	y.want = func(freshet.FileID) freshet.Replication { return freshet.Replication{Min: 2} }
	y.n.MarkFile(1)
	y.seconds(3)
	for b, want := range map[freshet.BlockID]string{block(1, 0): "a b", block(1, 900): "a b", block(2, 0): "a"} {
		if got := y.holding(b); got != want {
			t.Errorf("%v is held by %q, want %q", b, got, want)
		}
	}
	y.seconds(310) // the others by and by
	if got := y.holding(block(2, 0)); got != "a b" {
		t.Errorf("the other file is held by %q", got)
	}
	y.n.Mark(y.n.NextPages(1, y.now+time.Hour)[0])
}

// TestCopiesOfRandomHistories: whatever nodes do, no block that was held is lost by an
// order, and in the end each has as many copies as are wanted, or as there are nodes.
func TestCopiesOfRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.IntRange(0, 4).Draw(t, "min")
		want := freshet.Replication{Min: low, Max: rapid.SampledFrom([]int{0, max(low, 1), low + 1}).Draw(t, "max")}
		var hs []freshet.Heartbeat
		for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
			hs = append(hs, placed(freshet.NodeID(fmt.Sprint(i)), fmt.Sprint("r", i%2), fmt.Sprint("z", i%3)))
		}
		y := &yard{n: placement.New(placement.Options{}), nodes: map[freshet.NodeID]*store{}, t: t}
		y.want = func(freshet.FileID) freshet.Replication { return want }
		y.n.Reset(0)
		y.n.Replicate(true)
		defer y.n.Replicate(false)
		for _, h := range hs {
			h.TakesCopies, h.Capacity = true, 1<<20
			y.nodes[h.Node.ID] = &store{beat: h, held: map[freshet.BlockID]bool{}}
		}
		ids := slices.Sorted(maps.Keys(y.nodes))
		var blocks []freshet.BlockID
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := y.nodes[rapid.SampledFrom(ids).Draw(t, "node")]
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				s.down = !s.down
			case 1:
				b := block(freshet.FileID(rapid.IntRange(1, 3).Draw(t, "file")), uint32(rapid.IntRange(0, 3).Draw(t, "index")*200))
				blocks = append(blocks, b)
				y.put(s.beat.Node.ID, b)
			default:
				y.seconds(rapid.IntRange(1, 8).Draw(t, "seconds"))
			}
		}
		for _, s := range y.nodes {
			s.down = false
		}
		y.seconds(140) // orders that a node got before it fell silent have ended by then
		most := want.Max
		if most == 0 {
			most = len(ids)
		}
		for _, b := range blocks {
			if n := len(strings.Fields(y.holding(b))); n < min(max(want.Min, 1), len(ids)) || n > most {
				t.Fatalf("%v is held by %q, want %+v", b, y.holding(b), want)
			}
		}
	})
}
