package pathtree_test

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/pathtree"
)

// paths are few enough that lines meet.
func paths() *rapid.Generator[freshet.Path] {
	return rapid.Custom(func(t *rapid.T) freshet.Path {
		p := freshet.Root
		for range rapid.IntRange(0, 4).Draw(t, "depth") {
			p = p.Join(rapid.SampledFrom([]string{"a", "b", "ab", "a.b"}).Draw(t, "name"))
		}
		return p
	})
}

func collect(walk func(freshet.Path, func(freshet.Path, int) bool), p freshet.Path) map[freshet.Path]int {
	got := map[freshet.Path]int{}
	walk(p, func(q freshet.Path, v int) bool {
		if _, twice := got[q]; twice {
			v = -1
		}
		got[q] = v
		return true
	})
	return got
}

// TestAgainstAMap holds a tree to a map that is searched as a whole.
func TestAgainstAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var tree pathtree.Tree[int]
		model := map[freshet.Path]int{}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			p := paths().Draw(t, "path")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				tree.Set(p, i)
				model[p] = i
			case 2:
				tree.Delete(p)
				delete(model, p)
			}
			q := paths().Draw(t, "asked")
			line, above := map[freshet.Path]int{}, map[freshet.Path]int{}
			for r, v := range model {
				if r.Contains(q) {
					above[r] = v
				}
				if r.Contains(q) || q.Contains(r) {
					line[r] = v
				}
			}
			if got := collect(tree.Line, q); !maps.Equal(got, line) {
				t.Fatalf("the line of %s: %v, want %v", q, got, line)
			}
			if got := collect(tree.Above, q); !maps.Equal(got, above) {
				t.Fatalf("at and above %s: %v, want %v", q, got, above)
			}
			got, ok := tree.Get(q)
			if want, has := model[q]; got != want || ok != has || tree.Len() != len(model) {
				t.Fatalf("%s: %d %v of %d, want %d %v of %d", q, got, ok, tree.Len(), want, has, len(model))
			}
		}
		for _, p := range slices.Collect(maps.Keys(model)) {
			tree.Delete(p)
		}
		if tree.Len() != 0 || len(collect(tree.Line, freshet.Root)) != 0 {
			t.Fatalf("%d are left", tree.Len())
		}
	})
}

func TestAWalkStops(t *testing.T) {
	t.Parallel()
	var tree pathtree.Tree[int]
	for _, p := range []freshet.Path{"/", "/a", "/a/b", "/a/b/c", "/a/d"} {
		tree.Set(p, 1)
	}
	for want := 1; want <= 5; want++ {
		n := 0
		tree.Line("/a", func(freshet.Path, int) bool { n++; return n < want })
		if n != want {
			t.Errorf("%d were shown, %d were enough", n, want)
		}
	}
}
