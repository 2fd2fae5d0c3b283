package namespace_test

import (
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// TestPurgeIsTheSameAfterARestart purges trees on two members, one of which starts
// again between any two steps, while more is removed: where a member goes on must
// not be seen in its state.
func TestPurgeIsTheSameAfterARestart(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 7, 100} {
		store := kv.NewMemory()
		c := newCluster(t)
		c.twin = open(t, store)
		c.twin.Apply(1, []namespace.Command{{Bootstrap: &namespace.Bootstrap{Cluster: selfID, Name: "self", Epoch: 1, Mounts: []freshet.Mount{mountOf("/m", "/")}, At: epochTime}}})
		m, _ := c.s.MountAt("/m")
		empty := c.s.Stats().Entries
		for d := range 4 {
			for _, sub := range []string{"", "/x", "/y"} {
				cmd := &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: freshet.Path(fmt.Sprintf("/m/d%d%s", d, sub)), Start: c.i, ListStart: c.i, Complete: true}
				for f := range 5 {
					cmd.Upserts = append(cmd.Upserts, *fileEntry(fmt.Sprintf("f%d", f), f))
				}
				if r := c.must(namespace.Command{LoadListing: cmd}); len(r.Rejected) > 0 {
					t.Fatalf("%+v", r)
				}
			}
		}
		remove := func(d int) {
			c.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: freshet.Path(fmt.Sprintf("/m/d%d", d)), Start: c.i}})
		}
		// The directory made last is removed first: the others, with lower IDs, come
		// before it while it is being purged.
		remove(3)
		for step := 0; c.must(namespace.Command{Purge: &namespace.Purge{Limit: limit}}).More || step < 3; step++ {
			if step < 3 {
				remove(step)
			}
			c.twin = open(t, store)
			a, errA := c.s.Hash()
			b, errB := c.twin.Hash()
			if a != b || errA != nil || errB != nil {
				t.Fatalf("limit %d, step %d: the states differ: %v, %v", limit, step, errA, errB)
			}
		}
		if st := c.s.Stats(); st.Entries != empty || st.Trash != 0 {
			t.Errorf("limit %d: %d entries are left of %d, %d directories in the trash", limit, st.Entries, empty, st.Trash)
		}
	}
}
