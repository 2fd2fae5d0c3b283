package namespace_test

import (
	"fmt"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// wideTree loads a directory of many, in each of which is a file if files is true,
// and removes it.
func wideTree(c *cluster, name string, dirs int, files bool) {
	m, _ := c.s.MountAt("/m")
	load := func(dir freshet.Path, last bool, entries ...namespace.Entry) {
		c.must(namespace.Command{LoadListing: &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: dir, Start: c.i, ListStart: c.i, Complete: last, Upserts: entries}})
	}
	top := freshet.Path("/m/" + name)
	const page = 1000
	for from := 0; from < dirs; from += page {
		var entries []namespace.Entry
		for d := from; d < min(from+page, dirs); d++ {
			entries = append(entries, *dirEntry(fmt.Sprintf("d%06d", d)))
		}
		load(top, false, entries...)
	}
	for d := 0; files && d < dirs; d++ {
		load(top.Join(fmt.Sprintf("d%06d", d)), true, *fileEntry("f", d))
	}
	c.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: top, Start: c.i}})
}

// A directory of 200,000 is removed. What is held of the trash in memory stays small,
// and all of it is purged, also by a member that starts again in the middle.
func TestTheTrashIsNotHeldInMemory(t *testing.T) {
	t.Parallel()
	dirs := 200_000
	if testing.Short() {
		dirs = 20_000
	}
	store := kv.NewMemory()
	c := newCluster(t)
	c.twin = open(t, store)
	c.twin.Apply(1, []namespace.Command{{Bootstrap: &namespace.Bootstrap{Cluster: selfID, Name: "self", Epoch: 1, Mounts: []freshet.Mount{mountOf("/m", "/")}, At: epochTime}}})
	empty := c.s.Stats().Entries
	wideTree(c, "wide", dirs, false)
	most, restart := 0, dirs/2
	for step := 0; ; step++ {
		if step%40 == 20 { // more comes, before and behind where the purge is
			wideTree(c, fmt.Sprintf("more%d", step), 50, true)
		}
		more := c.must(namespace.Command{Purge: &namespace.Purge{Limit: 1000}}).More
		most = max(most, c.s.Stats().Trash)
		if held := max(namespace.TrashHeld(c.s), namespace.TrashHeld(c.twin)); held > 2048 {
			t.Fatalf("step %d: %d directories of the trash are in memory", step, held)
		}
		if most >= restart && c.s.Stats().Trash < restart && restart > 0 {
			restart = 0
			c.twin = open(t, store)
			if n := c.twin.Stats().Trash; n != c.s.Stats().Trash {
				t.Fatalf("after a restart %d directories are in the trash, of %d", n, c.s.Stats().Trash)
			}
		}
		if !more {
			break
		}
	}
	if most < dirs/2 {
		t.Errorf("at most %d directories were in the trash: the test shows nothing", most)
	}
	if restart != 0 {
		t.Error("the member never started again")
	}
	if st := c.s.Stats(); st.Entries != empty || st.Trash != 0 {
		t.Errorf("%d entries are left of %d, %d directories in the trash", st.Entries, empty, st.Trash)
	}
	a, errA := c.s.Hash()
	b, errB := c.twin.Hash()
	if a != b || errA != nil || errB != nil {
		t.Errorf("the states differ: %v, %v", errA, errB)
	}
}
