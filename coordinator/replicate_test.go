package coordinator_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// fleet is cache nodes that do what a leader tells them, each second.
type fleet struct {
	w     *world
	nodes map[freshet.NodeID]*carrier
}

type carrier struct {
	held    map[freshet.BlockID]int64
	changed map[freshet.BlockID]struct{}
	term    uint64
	full    bool // asked for
	down    bool
	copied  []freshet.BlockCopy
	active  []freshet.OpID
	hot     []freshet.BlockHeat // what it is read between two heartbeats
}

func newFleet(w *world, ids ...freshet.NodeID) *fleet {
	f := &fleet{w: w, nodes: map[freshet.NodeID]*carrier{}}
	for _, id := range ids {
		f.nodes[id] = &carrier{full: true, held: map[freshet.BlockID]int64{}, changed: map[freshet.BlockID]struct{}{}}
	}
	return f
}

// hold lets a node have the whole of a file of one block.
func (f *fleet) hold(id freshet.NodeID, info freshet.Info) freshet.BlockID {
	b := freshet.BlockID{File: info.FileID}
	f.nodes[id].held[b] = info.Length
	f.nodes[id].changed[b] = struct{}{}
	return b
}

func (f *fleet) seconds(m *member, n int) {
	f.w.Helper()
	for range n {
		time.Sleep(time.Second) // the bubble's
		for _, id := range slices.Sorted(maps.Keys(f.nodes)) {
			if !f.nodes[id].down {
				f.beat(m, id)
			}
		}
	}
}

func (f *fleet) beat(m *member, id freshet.NodeID) {
	f.w.Helper()
	at := f.nodes[id]
	h := freshet.Heartbeat{
		Node: freshet.Node{ID: id, Name: string(id), GRPC: string(id) + ":7410", Host: string(id)}, Incarnation: 1, Term: at.term, Full: at.full,
		Capacity: 1 << 30, TakesCopies: true, Active: at.active, Hot: at.hot,
	}
	for b, n := range at.held {
		_, changed := at.changed[b]
		if h.Used += n; at.full || changed {
			h.Added = append(h.Added, freshet.BlockReport{ID: b, Length: n})
		}
	}
	for b := range at.changed {
		if _, held := at.held[b]; !held {
			h.Removed = append(h.Removed, b)
		}
	}
	clear(at.changed)
	r := f.w.beat(m, h)
	at.full, at.term = r.NeedFull || (r.Term != at.term && !at.full), r.Term
	for _, b := range r.Free {
		if _, held := at.held[b]; held {
			delete(at.held, b)
			at.changed[b] = struct{}{}
		}
	}
	for _, o := range r.Copy {
		for _, from := range o.Block.Nodes {
			n, held := f.nodes[from.ID].held[o.Block.ID]
			if !held || f.nodes[from.ID].down || from.ID == id {
				continue
			}
			if n != o.Block.Length || o.Block.Offset != 0 || o.Source.Mount == 0 || !o.Source.Fingerprint.Known() {
				f.w.Errorf("order %+v of a block of %d bytes", o, n)
			}
			at.held[o.Block.ID] = n
			at.changed[o.Block.ID] = struct{}{}
			at.copied = append(at.copied, o)
			break
		}
	}
}

// holders returns which live nodes hold the block.
func (f *fleet) holders(b freshet.BlockID) string {
	var ids []string
	for id, at := range f.nodes {
		if _, held := at.held[b]; held && !at.down {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func (f *fleet) want(b freshet.BlockID, copies int, when string) {
	f.w.Helper()
	if got := f.holders(b); len(strings.Fields(got)) != copies {
		f.w.Errorf("%s: held by %q, want %d copies", when, got, copies)
	}
}

func gauge(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, fam := range all {
		if fam.GetName() == name {
			return fam.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

const shortGauge = "freshet_coordinator_underreplicated_blocks"

// TestReplicationFollowsThePolicy through its life: set, a dead node, too few nodes,
// changed, inherited, a file that moves, removed.
func TestReplicationFollowsThePolicy(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	inBubble(t, settings{metrics: reg}, func(w *world) {
		for _, key := range []string{"hot/a", "hot/cool/b", "cold/c"} {
			w.store.Put(key, []byte("content of "+key))
		}
		m := w.leader()
		f := newFleet(w, "n1", "n2", "n3")
		info := func(p string) freshet.Info { return w.stat(m, p).Info }
		a, b, c := f.hold("n1", info("/data/hot/a")), f.hold("n1", info("/data/hot/cool/b")), f.hold("n1", info("/data/cold/c"))
		f.seconds(m, 10)
		for _, id := range []freshet.BlockID{a, b, c} {
			f.want(id, 1, "without a policy")
		}
		asked := w.calls()
		w.setPolicy(m, "/data/hot", "replication_min", "2")
		w.setPolicy(m, "/data/hot/cool", "replication_min", "0")
		f.seconds(m, 4)
		f.want(a, 2, "with a policy")
		f.want(b, 1, "below another policy")
		f.want(c, 1, "outside of it")
		f.nodes["n1"].down = true
		f.seconds(m, 10)
		f.want(a, 2, "after a node died")
		f.nodes["n2"].down = true
		f.seconds(m, 10)
		f.want(a, 1, "with one node")
		x, err := m.Explain(w.Context(), "/data/hot/a", false)
		if err != nil || x.Replication == nil || x.Replication.Min != 2 || x.Replication.Short != 1 || !strings.Contains(x.Replication.Reason, "only 1 cache nodes") {
			w.Errorf("explain with one node: %+v, %v", x.Replication, err)
		}
		if n := gauge(w, reg, shortGauge); n != 1 {
			w.Errorf("%v blocks are short", n)
		}
		f.nodes["n1"].down, f.nodes["n2"].down = false, false
		f.seconds(m, 4)
		if n := gauge(w, reg, shortGauge); n != 0 {
			w.Errorf("%v blocks are short", n)
		}
		w.setPolicy(m, "/data/hot", "replication_min", "0", "replication_max", "1")
		f.seconds(m, 4)
		f.want(a, 1, "at most one")
		if _, err := m.Rename(w.Context(), freshet.RenameQuery{Path: "/data/cold/c", Target: "/data/hot/c"}); err != nil {
			w.Fatal(err)
		}
		w.setPolicy(m, "/data/hot", "replication_min", "3", "replication_max", "0")
		f.seconds(m, 4)
		f.want(a, 3, "at least three")
		if n := w.calls() - asked; n > 4 { // by the rename
			w.Errorf("the storage was asked %d times", n)
		}
		if _, err := m.ChangePolicy(w.Context(), freshet.PolicyChange{Path: "/data/hot", Replace: true}); err != nil {
			w.Fatal(err)
		}
		f.nodes["n3"].down = true
		f.seconds(m, 10)
		f.want(a, 2, "without a policy a dead node is not replaced")
	})
}

// TestReplicationLeavesWhatIsNotLive: neither a version that was invalidated nor one
// that was replaced is copied.
func TestReplicationLeavesWhatIsNotLive(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		f := newFleet(w, "n1", "n2")
		f.seconds(m, 10)
		old := f.hold("n1", w.stat(m, "/data/f").Info)
		if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: "/data/f"}}); err != nil {
			w.Fatal(err)
		}
		w.setPolicy(m, "/data", "replication_min", "2")
		f.seconds(m, 10)
		f.want(old, 1, "invalidated")
		x, err := m.Explain(w.Context(), "/data/f", false)
		if err != nil || x.Replication == nil || x.Replication.Short != 1 || !strings.Contains(x.Replication.Reason, "invalidated") {
			w.Errorf("explain: %+v, %v", x.Replication, err)
		}
		w.store.Put("f", []byte("two, longer"))
		next := w.stat(m, "/data/f").Info
		f.seconds(m, 3)
		f.want(old, 0, "replaced")
		if next.FileID == old.File {
			w.Fatal("the version did not change")
		}
		f.want(f.hold("n2", next), 1, "at first")
		f.seconds(m, 4)
		f.want(freshet.BlockID{File: next.FileID}, 2, "the new version")
		for id, at := range f.nodes {
			for _, o := range at.copied {
				if o.Block.ID == old {
					w.Errorf("%s was ordered to copy %+v", id, o)
				}
			}
		}
	})
}

// TestReplicationWaitsForAnUpload: the blocks of a version are reported before the
// version is live.
func TestReplicationWaitsForAnUpload(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		f := newFleet(w, "n1", "n2")
		w.setPolicy(m, "/data", "replication_min", "2")
		f.seconds(m, 10)
		op := freshet.OpID(uuid.New())
		begun, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Op: op, Path: "/data/f"})
		if err != nil {
			w.Fatal(err)
		}
		node := begun.Ticket.Node.ID
		f.nodes[node].active = []freshet.OpID{op}
		b := f.hold(node, freshet.Info{FileID: begun.Ticket.File, Length: 3})
		f.seconds(m, 20)
		f.want(b, 1, "while it is written")
		if err := m.Permit(w.Context(), freshet.PermitQuery{Op: op, Node: node, Incarnation: 1, Length: 3}); err != nil {
			w.Fatal(err)
		}
		up, err := w.store.FS("").Create(w.Context(), "f", ufs.CreateOptions{Op: op, Size: 3})
		if err != nil {
			w.Fatal(err)
		}
		if _, err := up.Write([]byte("new")); err != nil {
			w.Fatal(err)
		}
		st, err := up.Commit(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		if _, err := m.Complete(w.Context(), op, freshet.Written{Length: 3, ModTime: st.ModTime, Fingerprint: st.Fingerprint}); err != nil {
			w.Fatal(err)
		}
		f.seconds(m, 4)
		f.want(b, 2, "written")
	})
}

// TestReplicationGoesOnUnderANewLeader, which first hears what all nodes hold.
func TestReplicationGoesOnUnderANewLeader(t *testing.T) {
	t.Parallel()
	var announced *world
	inBubble(t, settings{members: 3, world: &announced, hooks: announcing(&announced)}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m, _ := w.inForce(namespace.Version)
		w.setPolicy(m, "/data", "replication_min", "2")
		f := newFleet(w, "n1", "n2", "n3")
		b := f.hold("n1", w.stat(m, "/data/f").Info)
		f.seconds(m, 12)
		f.want(b, 2, "at first")
		w.halt(m)
		next := w.leader()
		f.seconds(next, 12)
		f.want(b, 2, "nothing died")
		for id, at := range f.nodes {
			if _, held := at.held[b]; held {
				f.nodes[id].down = true
				break
			}
		}
		f.seconds(next, 12)
		f.want(b, 2, "after a node died")
	})
}

// TestBoundsOfCopiesMayNotCross where that can be told; where paths above and below
// each other set them apart, the least number wins.
func TestBoundsOfCopiesMayNotCross(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		f := newFleet(w, "n1", "n2", "n3")
		w.setPolicy(m, "/data/d", "replication_max", "2")
		_, err := m.ChangePolicy(w.Context(), policy("/data/d", "replication_min", "3"))
		w.wantKind(err, freshet.KindInvalid)
		_, err = m.ChangePolicy(w.Context(), policy("/data/d/e", "replication_min", "3"))
		w.wantKind(err, freshet.KindInvalid)
		w.setPolicy(m, "/data", "replication_min", "3")
		w.setPolicy(m, "/data/d", "ttl", "1h") // is of something else
		b := f.hold("n1", w.stat(m, "/data/d/f").Info)
		f.seconds(m, 12)
		f.want(b, 3, "at least three, at most two")
		x, err := m.Explain(w.Context(), "/data/d/f", false)
		if err != nil || x.Replication == nil || x.Replication.Short != 0 || !strings.Contains(x.Replication.Reason, "wins: 3 to 3 copies") {
			w.Errorf("explain: %+v, %v", x.Replication, err)
		}
		_, err = m.ChangePolicy(w.Context(), policy("/data/d", "replication_max", "1"))
		w.wantKind(err, freshet.KindInvalid)
		if _, err = m.ChangePolicy(w.Context(), freshet.PolicyChange{Path: "/data/d", Replace: true}); err != nil {
			w.Error(err)
		}
		if x, err := m.Explain(w.Context(), "/data/d/f", false); err != nil || fmt.Sprint(x.Replication.Replication) != "{3 0}" || x.Replication.Reason != "" {
			w.Errorf("explain: %+v, %v", x.Replication, err)
		}
	})
}
