package coordinator_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
)

// chosen lists with a query in pages of that size.
func (w *world) chosen(m *member, q freshet.ListQuery, size int) []string {
	w.Helper()
	all := []string{}
	q.PageSize = size
	for range 2000 {
		page, err := m.List(w.Context(), q)
		if err != nil {
			w.Fatalf("%+v: %v", q, err)
		}
		for _, p := range pathsOf(page) {
			all = append(all, q.Path.Rel(freshet.Path(p)))
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return all
		}
	}
	w.Fatal("the pages do not end")
	return nil
}

func TestPrefixAndStartAfterSelectFromTheListing(t *testing.T) {
	t.Parallel()
	// Nothing was listed before each of the calls: where to begin must not depend
	// on what is held.
	for _, interval := range []freshet.Interval{freshet.Never, freshet.Always} {
		inBubble(t, settings{seeds: []freshet.MountChange{mount("/data", "mem://lake", interval)}}, func(w *world) {
			rng := rand.New(rand.NewPCG(3, 4))
			names := []string{"a", "a-", "a-b", "a.b", "a0", "ab", "b", "é"}
			set := map[string]bool{}
			for range 60 {
				key := names[rng.IntN(len(names))]
				for depth := rng.IntN(3); depth > 0; depth-- {
					key += "/" + names[rng.IntN(len(names))]
				}
				key += fmt.Sprintf("/f%d", rng.IntN(4))
				w.store.Put(key, []byte("x"))
				for p := freshet.Path("/" + key); p != "/"; p = p.Parent() {
					set[string(p[1:])] = true
				}
			}
			all := make([]string, 0, len(set))
			for p := range set {
				all = append(all, p)
			}
			slices.Sort(all)
			m := w.leader()
			parts := []string{"", "a", "a-", "a-b/f", "a/", "a/a", "a/ab/f1", "ab/zz", "b0", "é", "zz", "a/a/a/a/a", "f", "!"}
			for range 120 {
				q := freshet.ListQuery{Path: "/data", Recursive: true, Prefix: parts[rng.IntN(len(parts))], StartAfter: parts[rng.IntN(len(parts))]}
				want := []string{}
				for _, p := range all {
					if strings.HasPrefix(p, q.Prefix) && (q.StartAfter == "" || p > q.StartAfter) {
						want = append(want, p)
					}
				}
				if got := w.chosen(m, q, []int{1, 3, 1000}[rng.IntN(3)]); !slices.Equal(got, want) {
					w.Fatalf("prefix %q after %q: got %q, want %q", q.Prefix, q.StartAfter, got, want)
				}
				q.Recursive = false
				if strings.Contains(q.Prefix+q.StartAfter, "/") {
					_, err := m.List(w.Context(), q)
					w.wantKind(err, freshet.KindInvalid)
					continue
				}
				want = slices.DeleteFunc(want, func(p string) bool { return strings.Contains(p, "/") })
				if got := w.chosen(m, q, []int{1, 2, 1000}[rng.IntN(3)]); !slices.Equal(got, want) {
					w.Fatalf("flat, prefix %q after %q: got %q, want %q", q.Prefix, q.StartAfter, got, want)
				}
			}
		})
	}
}

func TestASelectionThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", []byte("x"))
		m := w.leader()
		for _, q := range []freshet.ListQuery{
			{Path: "/data", Recursive: true, Prefix: "/d"},
			{Path: "/data", Recursive: true, StartAfter: "d//f"},
			{Path: "/data", Prefix: "d/f"},
			{Path: "/data", StartAfter: "\xff"},
		} {
			_, err := m.List(w.Context(), q)
			w.wantKind(err, freshet.KindInvalid)
		}
		for _, prefix := range []string{"d/f/", "no/", "./x", "../"} {
			if got := w.chosen(m, freshet.ListQuery{Path: "/data", Recursive: true, Prefix: prefix}, 10); len(got) != 0 {
				w.Errorf("prefix %q: %q", prefix, got)
			}
		}
		_, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/none", Recursive: true, Prefix: "a/b"})
		w.wantKind(err, freshet.KindNotExist)
		_, err = m.List(w.Context(), freshet.ListQuery{Path: "/data/d/f", Recursive: true, Prefix: "a/b"})
		w.wantKind(err, freshet.KindConflict)
	})
}
