package ops_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/mem"
)

// keeper is a node with a disk that keeps files which are in no storage.
func (w *world) keeper(id freshet.NodeID, to *leader) *node {
	n := w.node(id, to)
	n.keeps = true
	n.beat()
	return n
}

// hold has nodes report the only block of a file.
func hold(file freshet.FileID, length int64, nodes ...*node) {
	for _, n := range nodes {
		n.blocks[freshet.BlockID{File: file}] = length
		n.told = false
		n.beat()
	}
}

// TestAFileIsDurableOnSeveralNodes: the ticket names the nodes, a completion with fewer
// is refused, and when one is lost a further node is ordered to take a copy, by the next
// leader too.
func TestAFileIsDurableOnSeveralNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		a, b := w.keeper("n1", l), w.keeper("n2", l)
		w.node("memory", l)
		ctx := context.Background()
		q := freshet.BeginWriteQuery{Op: freshet.OpID{5}, Path: "/m/f", Node: "n1", Write: freshet.MustCache, DurableReplicas: 3}
		_, err := l.BeginWrite(ctx, q)
		kind(t, err, freshet.KindUnavailable, "asks for 3 cache nodes")
		if len(w.state.Intents()) != 0 {
			t.Error("an operation began")
		}
		q.DurableReplicas = 2
		u := a.begin(q)
		if u.ticket.DurableReplicas != 2 || len(u.ticket.Keepers) != 1 || u.ticket.Keepers[0].ID != "n2" {
			t.Errorf("the ticket is %+v", u.ticket)
		}
		file := u.ticket.File
		wr := freshet.Written{Length: 3, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(file)), Nodes: []freshet.NodeID{"n1", "n1"}}
		_, err = l.Complete(ctx, q.Op, wr)
		kind(t, err, freshet.KindInvalid, "2 were promised")
		wr.Nodes = []freshet.NodeID{"n1", "n2"}
		if _, err = l.Complete(ctx, q.Op, wr); err != nil {
			t.Fatal(err)
		}
		hold(file, 3, a, b)
		row := func() []freshet.NodeID {
			f, ok := w.state.UnpersistedOf(file)
			if !ok || f.Promised() != 2 {
				t.Fatalf("the row is %+v", f)
			}
			return f.Nodes
		}
		if got := row(); !slices.Equal(got, wr.Nodes) {
			t.Errorf("kept by %v", got)
		}
		l = w.lead(ops.Options{})
		b.to = l
		c := w.keeper("n3", l)
		order := func() []freshet.KeepOrder { // n1 is not heard any more
			b.beat()
			c.beat()
			return c.reply.Keep
		}
		var orders []freshet.KeepOrder
		for range 20 {
			<-time.After(time.Second)
			if orders = order(); len(orders) > 0 {
				break
			}
		}
		if len(orders) != 1 || orders[0].File != file || orders[0].Length != 3 || len(orders[0].Nodes) != 1 || orders[0].Nodes[0].ID != "n2" {
			t.Fatalf("ordered: %+v", orders)
		}
		if len(b.reply.Keep) != 0 {
			t.Errorf("who has it is ordered: %+v", b.reply.Keep)
		}
		f, _ := w.state.UnpersistedOf(file)
		if s, at := l.StateOf(&f); s != freshet.UnpersistedKept || !at.Short(&f) {
			t.Errorf("the file is %s, %+v", s, at)
		}
		hold(file, 3, c)
		c.took = []freshet.FileID{file}
		c.beat()
		c.took = nil
		if got := row(); !slices.Equal(got, []freshet.NodeID{"n1", "n2", "n3"}) {
			t.Errorf("kept by %v", got)
		}
		f, _ = w.state.UnpersistedOf(file)
		if s, at := l.StateOf(&f); s != freshet.UnpersistedKept || at.Short(&f) || len(c.reply.Keep) != 0 || !l.KeptWithout(&f, "n1") || l.KeptWithout(&f, "n2") {
			t.Errorf("after the copy the file is %s, %+v, ordered %+v", s, at, c.reply.Keep)
		}
	})
}

// TestAnOrderLeavesALostNode: the node that was ordered to take the place of a lost one is
// lost, too, and another one takes it without waiting for what can't come.
func TestAnOrderLeavesALostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		a, b := w.keeper("n1", l), w.keeper("n2", l)
		u := a.begin(freshet.BeginWriteQuery{Op: freshet.OpID{5}, Path: "/m/f", Node: "n1", Write: freshet.MustCache, DurableReplicas: 2})
		file := u.ticket.File
		wr := freshet.Written{Length: 3, ModTime: time.Now(), Fingerprint: fingerprint.Unpersisted(uint64(file)), Nodes: []freshet.NodeID{"n1", "n2"}}
		if _, err := l.Complete(t.Context(), freshet.OpID{5}, wr); err != nil {
			t.Fatal(err)
		}
		hold(file, 3, a, b)
		c, d := w.keeper("n3", l), w.keeper("n4", l)
		ordered := func(who ...*node) int { // n1 is not heard any more
			for range 20 {
				<-time.After(time.Second)
				b.beat()
				for i, n := range who {
					if n.beat(); len(n.reply.Keep) > 0 {
						return i
					}
				}
			}
			t.Fatal("nobody is ordered to take a copy")
			return -1
		}
		rest := []*node{c, d}
		at := ordered(rest...)
		ordered(rest[1-at])
	})
}

// TestANodeKeepsWhatIsOfAnotherCluster, whose versions have numbers that here are of
// versions that have ended; it does not count as a node of this one.
func TestANodeKeepsWhatIsOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mem.Local, time.Minute)
		l := w.lead(ops.Options{})
		a := w.keeper("n1", l)
		u := a.begin(freshet.BeginWriteQuery{Op: freshet.OpID{5}, Path: "/m/f", Node: "n1", Write: freshet.MustCache})
		if err := l.Abort(t.Context(), freshet.OpID{5}, true); err != nil {
			t.Fatal(err)
		}
		h := freshet.Heartbeat{Node: freshet.Node{ID: "n2", Name: "two"}, Incarnation: 1, Full: true, Keeps: true, Durable: true, Kept: []freshet.FileID{u.ticket.File}}
		if r, err := l.Heartbeat(t.Context(), h); err != nil || len(r.Released) != 0 {
			t.Errorf("released %v to a node of no cluster, %v", r.Released, err)
		}
		h.Cluster = freshet.ClusterID{99}
		h.Node.ID = "n3"
		if r, err := l.Heartbeat(t.Context(), h); !freshet.IsKind(err, freshet.KindConflict) || len(r.Released) != 0 || !strings.Contains(err.Error(), "two keeps files of cluster") {
			t.Errorf("released %v, %v", r.Released, err)
		}
		if l.nodes.Presence("n3", 0).Known {
			t.Error("a node of another cluster is one of this")
		}
		h.Kept = nil // it drops what it has when it joins
		if r, err := l.Heartbeat(t.Context(), h); err != nil || r.Cluster == h.Cluster {
			t.Errorf("%v", err)
		}
		h.Cluster, h.Kept = a.reply.Cluster, []freshet.FileID{u.ticket.File}
		if r, err := l.Heartbeat(t.Context(), h); err != nil || !slices.Equal(r.Released, h.Kept) {
			t.Errorf("released %v, %v", r.Released, err)
		}
	})
}

// TestADirectoryWithKeptFilesIsNotReplaced: the storage may not know of it, and says
// nothing against a rename to it.
func TestADirectoryWithKeptFilesIsNotReplaced(t *testing.T) {
	each(t, func(t *testing.T, mode mem.Mode) {
		w := newWorld(t, mode, time.Minute)
		w.put("d/x", "x")
		l := w.lead(ops.Options{})
		n := w.keeper("n1", l)
		length := int64(3)
		keepFile(t, l, freshet.BeginWriteQuery{Op: freshet.OpID{1}, Path: "/m/q/f", Write: freshet.MustCache, Length: &length}, map[freshet.NodeID]*node{"n1": n})
		_, err := l.Rename(context.Background(), freshet.RenameQuery{Path: "/m/d", Target: "/m/q", Overwrite: true})
		kind(t, err, freshet.KindExist, "never replaced")
		if all, err := l.Kept(); err != nil || len(all) != 1 {
			t.Errorf("kept are %+v, %v", all, err)
		}
	})
}
