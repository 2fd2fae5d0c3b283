package coordinator_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
)

// pages lists p in pages of that size and checks their sizes.
func (w *world) pages(m *member, p string, size int, recursive bool) []string {
	w.Helper()
	var all []string
	q := freshet.ListQuery{Path: freshet.Path(p), PageSize: size, Recursive: recursive}
	for range 1000 {
		page, err := m.List(w.Context(), q)
		if err != nil {
			w.Fatal(err)
		}
		if len(page.Entries) > size {
			w.Fatalf("%d entries on a page of %d", len(page.Entries), size)
		}
		all = append(all, pathsOf(page)...)
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return all
		}
	}
	w.Fatal("the pages do not end")
	return nil
}

func TestPagesOfAnySizeGiveTheSameListing(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		rng := rand.New(rand.NewPCG(1, 2))
		names := []string{"a", "a-", "a-b", "a.b", "a0", "ab", "b", "c-d", "c"}
		want := map[string]bool{}
		for range 120 {
			key := ""
			for depth := 1 + rng.IntN(4); depth > 0; depth-- {
				key += "/" + names[rng.IntN(len(names))]
			}
			key += fmt.Sprintf("/f%d", rng.IntN(20))
			w.store.Put(key[1:], []byte("x"))
			for p := freshet.Path("/data" + key); p != "/data"; p = p.Parent() {
				want[string(p)] = true
			}
		}
		var sorted []string
		for p := range want {
			sorted = append(sorted, p)
		}
		slices.Sort(sorted)
		m := w.leader()
		for _, size := range []int{1, 2, 3, 7, 50, 1000} {
			if got := w.pages(m, "/data", size, true); !slices.Equal(got, sorted) {
				w.Fatalf("pages of %d: got %d paths, want %d:\n%v\n%v", size, len(got), len(sorted), got, sorted)
			}
		}
		flat := w.pages(m, "/data", 1000, false)
		for _, size := range []int{1, 2, 5} {
			if got := w.pages(m, "/data", size, false); !slices.Equal(got, flat) || !slices.IsSorted(got) {
				w.Errorf("flat pages of %d: %v", size, got)
			}
		}
	})
}

func TestPagingListsADirectoryOnce(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Always)}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		for i := range 8 {
			w.store.Put(fmt.Sprintf("d/f%d", i), []byte("x"))
		}
		m := w.leader()
		if n := w.asked(func() { w.pages(m, "/data/d", 2, false) }); n != 1 {
			w.Errorf("flat: %d calls", n)
		}
		if n := w.asked(func() { w.pages(m, "/data/d", 2, true) }); n != 1 {
			w.Errorf("recursive: %d calls", n)
		}
	})
}

func TestAMalformedPageTokenIsInvalid(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for i := range 3 {
			w.store.Put(fmt.Sprintf("d/f%d", i), []byte("x"))
		}
		m := w.leader()
		page, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d", PageSize: 1})
		if err != nil || page.NextPageToken == "" {
			w.Fatalf("%+v, %v", page, err)
		}
		enc := base64.RawURLEncoding.EncodeToString
		for _, token := range []string{"x", "!!", enc([]byte("f")), enc([]byte("f../x")), enc([]byte("fa/b")), enc([]byte("q")), enc([]byte("f/a")), enc([]byte("fa\x00"))} {
			_, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d", PageToken: token})
			w.wantKind(err, freshet.KindInvalid)
		}
		_, err = m.List(w.Context(), freshet.ListQuery{Path: "/data/d", PageToken: page.NextPageToken, Recursive: true})
		w.wantKind(err, freshet.KindInvalid)
		_, err = m.List(w.Context(), freshet.ListQuery{Path: "/data/d/f0"})
		w.wantKind(err, freshet.KindConflict)
		_, err = m.List(w.Context(), freshet.ListQuery{Path: "/data/none"})
		w.wantKind(err, freshet.KindNotExist)
	})
}

func FuzzPageToken(f *testing.F) {
	f.Add("", "/d", false)
	f.Add(base64.RawURLEncoding.EncodeToString([]byte("fa")), "/d", false)
	f.Add(base64.RawURLEncoding.EncodeToString([]byte("ra/b")), "/", true)
	f.Fuzz(func(t *testing.T, token, dir string, recursive bool) {
		p, err := freshet.ParsePath(dir)
		if err != nil {
			return
		}
		q := freshet.ListQuery{Path: p, PageToken: token, Recursive: recursive}
		rel, err := coordinator.ParsePageToken(q)
		if err != nil {
			if !freshet.IsKind(err, freshet.KindInvalid) {
				t.Errorf("%q: %v", token, err)
			}
			return
		}
		if rel != "" && coordinator.PageToken(q, freshet.Path(strings.TrimSuffix(string(p), "/")+"/"+rel)) != strings.TrimRight(token, "\r\n") {
			again, err := coordinator.ParsePageToken(freshet.ListQuery{Path: p, Recursive: recursive, PageToken: coordinator.PageToken(q, freshet.Path(strings.TrimSuffix(string(p), "/")+"/"+rel))})
			if err != nil || again != rel {
				t.Errorf("%q means %q, and back %q, %v", token, rel, again, err)
			}
		}
	})
}

func TestLocate(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", make([]byte, 100))
		w.store.Put("empty", nil)
		m := w.leader()
		locate := func(q freshet.LocateQuery) (freshet.Location, error) { return m.Locate(w.Context(), q) }
		_, err := locate(freshet.LocateQuery{Path: "/data/d/f", Length: -1})
		w.wantKind(err, freshet.KindUnavailable) // no node
		if loc, err := locate(freshet.LocateQuery{Path: "/data/empty", Length: -1}); err != nil || len(loc.Blocks) != 0 {
			w.Errorf("an empty file: %+v, %v", loc, err)
		}
		n := w.node(m, "n1")
		loc, err := locate(freshet.LocateQuery{Path: "/data/d/f", Offset: 10, Length: 500})
		if err != nil {
			w.Fatal(err)
		}
		b := loc.Blocks
		if !loc.Cacheable || loc.Source.Key != "d/f" || !loc.Source.Fingerprint.Equal(loc.Info.Fingerprint) || len(b) != 1 ||
			b[0].ID != (freshet.BlockID{File: loc.Info.FileID}) || b[0].Offset != 0 || b[0].Length != 100 || b[0].Fetch != n || len(b[0].Nodes) != 0 {
			w.Errorf("located %+v", loc)
		}
		w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Added: []freshet.BlockReport{{ID: b[0].ID, Length: 100}}})
		if loc, err = locate(freshet.LocateQuery{Path: "/data/d/f", Length: -1}); err != nil || !slices.Equal(loc.Blocks[0].Nodes, []freshet.Node{n}) {
			w.Errorf("with a holder: %+v, %v", loc, err)
		}
		_, err = locate(freshet.LocateQuery{Path: "/data/d"})
		w.wantKind(err, freshet.KindConflict)
		_, err = locate(freshet.LocateQuery{Path: "/data/d/f", Offset: 101})
		w.wantKind(err, freshet.KindInvalid)
		_, err = locate(freshet.LocateQuery{Path: "/data/none"})
		w.wantKind(err, freshet.KindNotExist)

		// A version that the storage refused is looked at again, once.
		stale := loc.Info.Fingerprint.String()
		w.store.Put("d/f", make([]byte, 7))
		if loc, err = locate(freshet.LocateQuery{Path: "/data/d/f", Length: -1}); err != nil || loc.Info.Length != 100 {
			w.Errorf("before the refusal: %+v, %v", loc.Info, err)
		}
		calls := w.asked(func() {
			for range 2 {
				if loc, err = locate(freshet.LocateQuery{Path: "/data/d/f", Length: -1, StaleFingerprint: stale}); err != nil || loc.Info.Length != 7 {
					w.Errorf("after the refusal: %+v, %v", loc.Info, err)
				}
			}
		})
		if calls != 1 {
			w.Errorf("%d looks", calls)
		}
		time.Sleep(10 * time.Second) // the node is silent
		_, err = locate(freshet.LocateQuery{Path: "/data/d/f", Length: -1})
		w.wantKind(err, freshet.KindUnavailable)
	})
}
