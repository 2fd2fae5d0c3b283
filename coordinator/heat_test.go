package coordinator_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// TestWhatIsReadMuchGetsCopies that nodes are ordered to make, as many as the policies of
// the path allow; what was made so goes again when the reads end.
func TestWhatIsReadMuchGetsCopies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		policy []string
		heat   placement.HeatOptions
		reads  uint32 // a second
		before int    // copies, one at first
		want   int
	}{
		{name: "hardly read", reads: 50, before: 1, want: 1},
		{name: "read much", reads: 350, before: 1, want: 2},
		{name: "read very much", reads: 5000, before: 1, want: 3},
		{name: "at most one", policy: []string{"replication_max", "1"}, reads: 5000, before: 1, want: 1},
		{name: "at most two", policy: []string{"replication_max", "2"}, reads: 5000, before: 1, want: 2},
		{name: "at least two", policy: []string{"replication_min", "2"}, reads: 5000, before: 2, want: 3},
		{name: "a policy wants more", policy: []string{"replication_min", "4"}, reads: 5000, before: 4, want: 4},
		{name: "more by the settings", heat: placement.HeatOptions{Copies: 4}, reads: 5000, before: 1, want: 4},
		{name: "busier by the settings", heat: placement.HeatOptions{Reads: 10_000}, reads: 5000, before: 1, want: 1},
		{name: "off by the settings", heat: placement.HeatOptions{Copies: 1}, reads: 5000, before: 1, want: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			inBubble(t, settings{metrics: reg}, func(w *world) {
				w.store.Put("d/f", []byte("content"))
				w.store.Put("d/g", []byte("content of another"))
				w.store.Put("e/f", []byte("content where no policy is"))
				m := w.leader()
				m.SetPlacement(placement.Options{Heat: c.heat})
				if len(c.policy) > 0 {
					w.setPolicy(m, "/data/d", c.policy...)
				}
				f := newFleet(w, "n1", "n2", "n3", "n4", "n5")
				hot, other := f.hold("n1", w.stat(m, "/data/d/f").Info), f.hold("n1", w.stat(m, "/data/d/g").Info)
				free, freely := f.hold("n1", w.stat(m, "/data/e/f").Info), c.want
				if len(c.policy) > 0 {
					freely = 3
				}
				f.seconds(m, 12)
				f.want(hot, c.before, "not read yet")
				f.nodes["n1"].hot = []freshet.BlockHeat{{ID: hot, Reads: c.reads}, {ID: free, Reads: c.reads}, {ID: other, Reads: 5}}
				f.seconds(m, 12)
				f.want(hot, c.want, "while it is read")
				f.want(other, c.before, "what is hardly read")
				f.want(free, freely, "where no policy is")
				if n := gauge(w, reg, "freshet_coordinator_hot_copies"); n != float64(c.want-c.before+freely-1) {
					t.Errorf("the gauge tells of %v copies", n)
				}
				f.nodes["n1"].hot = nil
				f.seconds(m, 30)
				f.want(hot, c.want, "soon afterwards")
				f.seconds(m, 60)
				f.want(hot, c.before, "not read any more")
				f.want(free, 1, "not read any more where no policy is")
				if n := gauge(w, reg, "freshet_coordinator_hot_copies"); n != 0 {
					t.Errorf("the gauge tells of %v copies that are left", n)
				}
			})
		})
	}
}

// TestHeatLeavesWhatMayNotBeCopied: of a version that was invalidated no copies are made,
// however much it is read, until the storage has been asked.
func TestHeatLeavesWhatMayNotBeCopied(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	inBubble(t, settings{metrics: reg}, func(w *world) {
		w.store.Put("f", []byte("content"))
		m := w.leader()
		f := newFleet(w, "n1", "n2", "n3")
		b := f.hold("n1", w.stat(m, "/data/f").Info)
		f.seconds(m, 10)
		if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: "/data/f"}}); err != nil {
			w.Fatal(err)
		}
		f.nodes["n1"].hot = []freshet.BlockHeat{{ID: b, Reads: 5000}}
		f.seconds(m, 12)
		f.want(b, 1, "invalidated")
		if n := gauge(w, reg, "freshet_coordinator_hot_copies"); n != 0 {
			w.Errorf("%v copies were ordered", n)
		}
		if info := w.stat(m, "/data/f").Info; info.FileID != b.File {
			w.Fatal("the version changed")
		}
		f.seconds(m, 4)
		f.want(b, 3, "it was asked for")
		w.setPolicy(m, "/data", "replication_max", "1")
		f.seconds(m, 4)
		f.want(b, 1, "at most one while it is read")
	})
}

// TestCoolingLeavesWhatAPolicyWantsMeanwhile: copies that were made because a block was read
// much count for a least number that was set later, and none of those is made anew.
func TestCoolingLeavesWhatAPolicyWantsMeanwhile(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("content"))
		m := w.leader()
		f := newFleet(w, "n1", "n2", "n3", "n4")
		b := f.hold("n1", w.stat(m, "/data/f").Info)
		f.seconds(m, 10)
		f.nodes["n1"].hot = []freshet.BlockHeat{{ID: b, Reads: 5000}}
		f.seconds(m, 12)
		f.want(b, 3, "while it is read")
		f.nodes["n1"].hot = nil
		w.setPolicy(m, "/data", "replication_min", "2")
		f.seconds(m, 120)
		f.want(b, 2, "not read any more")
		made := 0
		for _, at := range f.nodes {
			made += len(at.copied)
		}
		if made != 2 {
			w.Errorf("%d copies were made", made)
		}
	})
}
