package coordinator_test

import (
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// TestDrainMovesWhatPoliciesKeep: of a draining node the blocks of pinned paths and of
// those with a replication_min are copied, and no others; the next leader goes on; a
// node that is drained may go, and comes back when that is undone.
func TestDrainMovesWhatPoliciesKeep(t *testing.T) {
	t.Parallel()

	var all *world
	inBubble(t, settings{members: 3, world: &all, hooks: announcing(&all)}, func(w *world) {
		for _, key := range []string{"pinned/a", "kept/b", "plain/c"} {
			w.store.Put(key, []byte("content of "+key))
		}
		m, _ := w.inForce(namespace.Version)
		f := newFleet(w, "n1", "n2")
		info := func(p string) freshet.Info { return w.stat(m, p).Info }
		a, b, c := f.hold("n1", info("/data/pinned/a")), f.hold("n1", info("/data/kept/b")), f.hold("n1", info("/data/plain/c"))
		w.setPolicy(m, "/data/pinned", "pinned", "true")
		w.setPolicy(m, "/data/kept", "replication_min", "1")
		f.seconds(m, 10)
		drain := func(q freshet.DrainChange) freshet.NodeDrain {
			w.Helper()
			d, err := m.DrainNode(w.Context(), q)
			if err != nil {
				w.Fatal(err)
			}
			return d
		}
		if d := drain(freshet.DrainChange{Node: "n1", DryRun: true}); d.State() != "draining" || d.LeftBlocks != 2 || len(d.WaitsFor) != 1 {
			w.Errorf("a dry run says %+v", d)
		}
		if d, err := m.Drain(w.Context(), "n1"); err != nil || d.State() != "serving" || d.LeftBlocks != 2 {
			w.Errorf("after a dry run: %+v, %v", d, err)
		}
		if _, err := m.DecommissionNode(w.Context(), freshet.Decommission{Node: "n1"}); !freshet.IsKind(err, freshet.KindConflict) {
			w.Errorf("a node that serves can be decommissioned: %v", err)
		}
		f.nodes["n2"].down = true
		f.seconds(m, 6)
		if _, err := m.DrainNode(w.Context(), freshet.DrainChange{Node: "n1"}); !freshet.IsKind(err, freshet.KindConflict) {
			w.Errorf("the last node can be drained: %v", err)
		}
		if _, err := m.DrainNode(w.Context(), freshet.DrainChange{Node: "n7"}); !freshet.IsKind(err, freshet.KindNotExist) {
			w.Errorf("a node that is not there: %v", err)
		}
		f.nodes["n2"].down = false
		f.seconds(m, 2)
		drain(freshet.DrainChange{Node: "n1"})

		w.halt(m) // the next leader goes on
		m = w.leader()
		if _, err := m.DrainNode(w.Context(), freshet.DrainChange{Node: "n7"}); !freshet.IsKind(err, freshet.KindUnavailable) {
			w.Errorf("a leader that has just begun knows of no such node: %v", err)
		}
		undecided := func(when, why string, kind freshet.Kind) {
			w.Helper()
			d, err := m.Drain(w.Context(), "n1")
			if err != nil || d.State() != "draining" || !strings.Contains(strings.Join(d.WaitsFor, "; "), why) {
				w.Errorf("%s: %+v, %v", when, d, err)
			}
			if _, err := m.DecommissionNode(w.Context(), freshet.Decommission{Node: "n1", DryRun: true}); !freshet.IsKind(err, kind) {
				w.Errorf("%s it can be decommissioned: %v", when, err)
			}
		}
		undecided("before the leader has heard of it", "the leader has just begun", freshet.KindUnavailable)
		f.seconds(m, 1)
		undecided("before it has told what it holds", "the leader has just begun", freshet.KindUnavailable)
		f.nodes["n1"].down = true
		f.seconds(m, 6)
		undecided("while it does not answer", "does not answer", freshet.KindConflict)
		f.nodes["n1"].down = false
		f.seconds(m, 12)
		d := drain(freshet.DrainChange{Node: "n1"})
		if d.State() != "drained" || d.LeftBlocks != 0 || d.Blocks != 3 {
			w.Errorf("after a change of the leader: %+v", d)
		}
		for _, id := range []freshet.BlockID{a, b} {
			f.want(id, 2, "drained")
		}
		f.want(c, 1, "without a policy")

		done, err := m.DecommissionNode(w.Context(), freshet.Decommission{Node: "n1"})
		if err != nil || done.State() != "decommissioned" {
			w.Fatalf("%+v, %v", done, err)
		}
		_, err = m.Heartbeat(w.Context(), freshet.Heartbeat{Node: freshet.Node{ID: "n1", Name: "n1", GRPC: "n1:7410"}, Incarnation: 2, Full: true})
		if !freshet.IsKind(err, freshet.KindPermission) || !strings.Contains(err.Error(), "--undo") {
			w.Errorf("it comes back: %v", err)
		}
		if d := drain(freshet.DrainChange{Node: "n1", Undo: true}); d.State() != "serving" {
			w.Errorf("undone: %+v", d)
		}
		f.nodes["n1"].full = true
		f.seconds(m, 3)
		if d, err := m.Drain(w.Context(), "n1"); err != nil || d.State() != "serving" || !d.Live || d.Blocks != 3 {
			w.Errorf("it serves again: %+v, %v", d, err)
		}
	})
}
