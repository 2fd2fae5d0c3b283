package placement_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/placement"
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
	y.n.Acknowledged("a", 0, 7, length, size)
	y.n.Acknowledged("nobody", 0, 7, length, size)
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
		if at, _, ok := y.n.Keeper(placement.Keep{Key: key}, y.now); !ok || at.ID != "d" {
			t.Fatalf("%q keeps, want d", at.ID)
		}
	}
	if at, _, _ := y.n.Keeper(placement.Keep{Caller: freshet.Locality{Host: "host-a"}, Key: 1}, y.now); at.ID != "a" {
		t.Errorf("on the host of a, %q keeps", at.ID)
	}
	if at, _, _ := y.n.Keeper(placement.Keep{Caller: freshet.Locality{Host: "host-a"}, Key: 1, Durable: true}, y.now); at.ID != "d" {
		t.Errorf("on the host of a, %q keeps durably", at.ID)
	}
}

// TestWhoHasRoomKeeps, whoever is nearest or preferred, and beside what it keeps already.
func TestWhoHasRoomKeeps(t *testing.T) {
	t.Parallel()
	nodes := append(keepers(true, "a", "b"), keepers(false, "m")...)
	nodes[0].Capacity, nodes[1].Capacity, nodes[2].Capacity = 1000, 2000, 500
	nodes[1].Directories = []freshet.CacheDirectory{
		{Tier: "memory", State: "serving", Capacity: 900},
		{Tier: "ssd", State: "serving", Capacity: 500},
		{Tier: "hdd", State: "full", Capacity: 500, Used: 300},
		{Tier: "hdd", State: "failed", Capacity: 100},
	}
	near := freshet.Locality{Host: "host-m"}
	for _, c := range []struct {
		name string
		kept map[freshet.NodeID]int64
		keep placement.Keep
		want []freshet.NodeID
	}{
		{"it fits the nearest", nil, placement.Keep{Caller: near, Length: 500}, []freshet.NodeID{"m"}},
		{"too long for the nearest", nil, placement.Keep{Caller: near, Length: 501}, []freshet.NodeID{"a", "b"}},
		{"too long for the preferred", nil, placement.Keep{Preferred: "m", Length: 501}, []freshet.NodeID{"a", "b"}},
		{"memory and failed disks count for nothing", nil, placement.Keep{Preferred: "b", Length: 801}, []freshet.NodeID{"a"}},
		{"disks count", nil, placement.Keep{Preferred: "b", Length: 800}, []freshet.NodeID{"b"}},
		{"for nobody", nil, placement.Keep{Length: 1001}, nil},
		{"not beside what it keeps", map[freshet.NodeID]int64{"a": 901}, placement.Keep{Preferred: "a", Length: 100}, []freshet.NodeID{"b"}},
		{"beside what it keeps", map[freshet.NodeID]int64{"a": 900}, placement.Keep{Preferred: "a", Length: 100}, []freshet.NodeID{"a"}},
		{"the disks are full", map[freshet.NodeID]int64{"a": 1000, "b": 800}, placement.Keep{Length: 100}, []freshet.NodeID{"m"}},
		{"all are full", map[freshet.NodeID]int64{"a": 1000, "b": 800}, placement.Keep{Length: 1, Durable: true}, nil},
		{"an empty file", map[freshet.NodeID]int64{"a": 1000, "b": 800}, placement.Keep{Preferred: "a", Durable: true}, []freshet.NodeID{"a"}},
		{"what leaves is not counted", map[freshet.NodeID]int64{"a": 1000, "b": 800}, placement.Keep{Length: 1, Durable: true, Fixed: map[freshet.NodeID]int64{"a": 1000}}, []freshet.NodeID{"b"}},
		{"of unknown length, where there is most room", map[freshet.NodeID]int64{"b": 500}, placement.Keep{Length: -1}, []freshet.NodeID{"a"}},
		{"of unknown length, as near", nil, placement.Keep{Caller: near, Length: -1}, []freshet.NodeID{"m"}},
		{"of unknown length, for nobody", map[freshet.NodeID]int64{"a": 1000, "b": 800, "m": 500}, placement.Keep{Length: -1}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t, freshet.Replication{}, nodes...)
			y.seconds(2)
			y.n.SetKept(c.kept)
			got := map[freshet.NodeID]bool{}
			for key := range uint64(50) {
				c.keep.Key = key
				if at, _, ok := y.n.Keeper(c.keep, y.now); ok {
					got[at.ID] = true
				}
			}
			if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, c.want) {
				t.Errorf("%q keep it, want %q", ids, c.want)
			}
		})
	}
}

// TestWhatIsPromisedTakesRoom until it is known what is kept.
func TestWhatIsPromisedTakesRoom(t *testing.T) {
	t.Parallel()
	nodes := keepers(true, "a")
	nodes[0].Capacity = 1000
	y := newYard(t, freshet.Replication{}, nodes...)
	y.seconds(2)
	free := func() int64 {
		rooms, others := y.n.Rooms(placement.Keep{Durable: true}, y.now)
		if len(rooms) != 1 || rooms[0].Capacity != 1000 || others {
			t.Fatalf("%+v, others %v", rooms, others)
		}
		return rooms[0].Free
	}
	y.n.Promise("a", 300)
	y.n.Promise("a", 300)
	if got := free(); got != 400 {
		t.Errorf("%d free", got)
	}
	y.n.SetKept(map[freshet.NodeID]int64{"a": 2000})
	if got := free(); got != 0 {
		t.Errorf("%d free", got)
	}
	y.now += time.Minute
	if rooms, others := y.n.Rooms(placement.Keep{Durable: true}, y.now); len(rooms) != 0 || !others {
		t.Errorf("%+v, others %v, when it is silent", rooms, others)
	}
}

// TestWhoHasEnded: what was in memory is gone when another run of each node was heard, and
// not while one is silent alone.
func TestWhoHasEnded(t *testing.T) {
	n := placement.New(placement.Options{})
	memory, disk := full("m", 1), full("d", 1)
	memory.Keeps, disk.Keeps, disk.Durable = true, true, true
	tell(t, n, memory, true, 0)
	tell(t, n, disk, true, 0)
	for want, ids := range map[bool][]freshet.NodeID{true: {"m"}, false: {"m", "d"}} {
		if got := n.InMemory(ids); got != want {
			t.Errorf("%v in memory: %v", ids, got)
		}
	}
	if n.InMemory([]freshet.NodeID{"nobody"}) {
		t.Error("nobody has it in memory")
	}
	ended := func(now time.Duration, want bool, name string) {
		t.Helper()
		ids := []freshet.NodeID{"m"}
		if got := n.Ended(ids, now); got != want {
			t.Errorf("after %v it has ended: %v", now, got)
		}
		if got := n.Named(ids); !slices.Equal(got, []string{name}) {
			t.Errorf("after %v it is %q", now, got)
		}
	}
	ended(time.Second, true, "name-m") // it has told what it has
	ended(time.Minute, false, "name-m")
	again := full("m2", 1)
	again.Node.Name, again.Node.GRPC = memory.Node.Name, memory.Node.GRPC
	tell(t, n, again, true, time.Minute)
	ended(time.Minute, true, "name-m")
	n.Reset(time.Minute) // the next time that this member leads
	ended(time.Minute, true, "name-m")
	if n.Ended([]freshet.NodeID{"m", "d"}, time.Minute) || n.Ended([]freshet.NodeID{"nobody"}, time.Minute) {
		t.Error("one that is silent has ended")
	}
}

// TestWhatAnEarlierRunAcknowledgedIsNotThere: the run of a node that has ended counts for
// nothing, before the restart and after it.
func TestWhatAnEarlierRunAcknowledgedIsNotThere(t *testing.T) {
	n := placement.New(placement.Options{})
	tell(t, n, full("a", 2), true, 0)
	h := beat("a", 2)
	h.Keeps = true
	tell(t, n, h, true, sec)
	n.Acknowledged("a", 1, 7, 25, 10) // an earlier run
	n.Acknowledged("b", 1, 7, 25, 10) // nobody
	if got := holders(n, block(7, 0), "", sec); len(got) != 0 {
		t.Fatalf("held by %v", got)
	}
	n.Acknowledged("a", 2, 7, 25, 10)
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
