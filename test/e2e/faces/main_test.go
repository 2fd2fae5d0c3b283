// Package faces_test drives a region by its command line and its REST interface as
// users do: what they answer, what they refuse and with which code, and that what
// is refused changes nothing.
package faces_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// TestFaces shares one small region over a directory.
func TestFaces(t *testing.T) {
	w := e2e.NewDirWorld(t, e2e.Options{Lone: true, Coordinators: 3, Nodes: 1, Mount: func(_ string, m *config.Mount) { m.Path = "/" }})
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"files by command line", cliFiles},
		{"copies by command line", cliCopies},
		{"cluster by command line", cliCluster},
		{"configuration", cliConfig},
		{"apply", cliApply},
		{"data by REST", restData},
		{"metadata by REST", restMeta},
		{"bad paths", badPaths},
		{"bad operations", badOperations},
		{"hostile entries of a directory", hostileEntries},
		{"bad mounts", badMounts},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
	if err := w.A.EqualsStorage(t.Context()); err != nil {
		t.Error(err)
	}
}

// names returns the storage's names as one line.
func names(t *testing.T, w *e2e.World) string {
	t.Helper()
	tree, err := w.Storage.Tree(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(slices.Sorted(maps.Keys(tree)), " ")
}

// unchanged fails if f changes the names of the storage.
func unchanged(t *testing.T, w *e2e.World, f func()) {
	t.Helper()
	before := names(t, w)
	f()
	if after := names(t, w); after != before {
		t.Errorf("it changed the storage:\nbefore %s\nafter  %s", before, after)
	}
}
