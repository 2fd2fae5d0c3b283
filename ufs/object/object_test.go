package object_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "r o+o%t/é/"

func TestConformance(t *testing.T) {
	for name, set := range map[string]func(*flat){
		"plain":       func(*flat) {},
		"empty pages": func(s *flat) { s.shortPages, s.noAfter = true, true },
		"repeats":     func(s *flat) { s.repeats = true },
		"folders":     func(s *flat) { s.folders, s.limits.DirObjects, s.noAfter = true, true, true },
		"segmented": func(s *flat) {
			s.folders, s.limits.DirObjects, s.limits.Segmented = true, true, true
		},
		"segmented, unsaid": func(s *flat) { s.folders, s.limits.DirObjects, s.unsaid = true, true, true },
		"in order": func(s *flat) {
			s.limits.Concurrency, s.limits.MaxParts, s.limits.DeleteBatch, s.limits.SinglePut = 1, 0, 1, s.limits.PartSize
		},
		"promises nothing": func(s *flat) { s.limits.AbortEndsEffects = false },
	} {
		t.Run(name, func(t *testing.T) { conformance(t, set) })
	}
}

func conformance(t *testing.T, set func(*flat)) {
	var mu sync.Mutex
	stores := map[ufs.FS]*flat{}
	storeOf := func(fs ufs.FS) *flat {
		mu.Lock()
		defer mu.Unlock()
		return stores[fs]
	}
	open := func(s *flat) ufs.FS {
		fs := object.New(s, object.Options{Root: root})
		mu.Lock()
		defer mu.Unlock()
		stores[fs] = s
		return fs
	}
	failing := func(kind freshet.Kind) func(*testing.T) ufs.FS {
		return func(*testing.T) ufs.FS {
			s := newFlat()
			set(s)
			s.fail = func(string, string) error { return object.Errorf(kind, "injected") }
			return open(s)
		}
	}
	ufstest.Run(t, ufstest.Harness{
		Quiet: true,
		New: func(*testing.T) ufs.FS {
			s := newFlat()
			set(s)
			s.objects["elsewhere"] = entry{}
			return open(s)
		},
		Again: func(_ *testing.T, fs ufs.FS) ufs.FS { return open(storeOf(fs)) },
		Outside: func(t *testing.T, fs ufs.FS) ufstest.Outside {
			s := storeOf(fs)
			return ufstest.Outside{
				Put: func(key string, data []byte) error {
					_, err := s.Put(t.Context(), root+key, data, object.PutOptions{})
					return err
				},
				Remove: func(key string) error { return s.Delete(t.Context(), []string{root + key}) },
			}
		},
		Denied:    failing(freshet.KindPermission),
		Down:      failing(freshet.KindUnavailable),
		Throttled: failing(freshet.KindExhausted),
		Stalled: func(*testing.T) ufs.FS {
			s := newFlat()
			set(s)
			s.stalled = true
			return open(s)
		},
		Large: 1<<20 + 12345,
		Many:  2000,
	})
}

func put(t testing.TB, s *flat, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := s.Put(context.Background(), name, []byte("x"), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func names(t testing.TB, fs ufs.FS, dir string, opts ufs.ListOptions) []string {
	t.Helper()
	all := []string{}
	for st, err := range fs.List(context.Background(), dir, opts) {
		if err != nil {
			t.Fatalf("list %q: %v", dir, err)
		}
		all = append(all, st.SortKey())
	}
	return all
}

// portions lists the root n entries at a time, going on from where the last
// portion ended.
func portions(t testing.TB, fs ufs.FS, n int, opts ufs.ListOptions) (all []string) {
	t.Helper()
	opts.Position = new(ufs.Position)
	for {
		before := len(all)
		for st, err := range fs.List(context.Background(), "", opts) {
			if err != nil {
				t.Fatal(err)
			}
			if all = append(all, st.SortKey()); len(all) == before+n {
				break
			}
		}
		if len(all) < before+n {
			return all
		}
		opts.StartAfter = all[len(all)-1]
	}
}

func write(ctx context.Context, fs ufs.FS, key string, data []byte, opts ufs.CreateOptions) (ufs.Status, error) {
	w, err := fs.Create(ctx, key, opts)
	if err != nil {
		return ufs.Status{}, err
	}
	if _, err = w.Write(data); err == nil {
		var st ufs.Status
		if st, err = w.Commit(ctx); err == nil {
			return st, nil
		}
	}
	return ufs.Status{}, errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
}

// Names that no path can have are skipped and counted; the rest of their
// directories stays visible.
func TestNamesWithoutAPath(t *testing.T) {
	s, skips := newFlat(), object.NewSkips(prometheus.NewRegistry())
	put(t, s, "p/a", "p/a/x", "p/a//y", "p/b/../c", "p/b/./c", "p//z", "p/d/", "p/e\x01f", "p/g/\x7f/h", "p/g/i", "p/bad\xff", "p/.freshet.tmp/x",
		"p/n/"+strings.Repeat("n", 256), "p/n/short", "q")
	fs := object.New(s, object.Options{Root: "p/", Skips: skips})
	want := []string{"a", "a/", "b/", "d/", "g/", "n/"}
	if got := names(t, fs, "", ufs.ListOptions{}); !slices.Equal(got, want) {
		t.Errorf("list: %q, want %q", got, want)
	}
	want = []string{"a", "a/", "a/x", "b/", "d/", "g/", "g/i", "n/", "n/short"}
	if got := names(t, fs, "", ufs.ListOptions{Recursive: true}); !slices.Equal(got, want) {
		t.Errorf("recursive: %q, want %q", got, want)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(skips)
	families, err := reg.Gather()
	if err != nil || families[0].GetMetric()[0].GetCounter().GetValue() != 3+8 {
		t.Errorf("counted %v, %v", families, err)
	}
	if object.NewSkips(reg) != skips {
		t.Error("a second driver has a counter of its own")
	}
}

// Objects that stand for directories come at the place of the directory, not at
// that of their name, also across pages and when a listing is resumed.
func TestFoldersAreInOrder(t *testing.T) {
	for name, set := range map[string]func(*flat){
		"plain":             func(*flat) {},
		"segmented":         func(s *flat) { s.limits.Segmented = true },
		"segmented, unsaid": func(s *flat) { s.unsaid = true },
	} {
		t.Run(name, func(t *testing.T) { foldersAreInOrder(t, set) })
	}
}

func foldersAreInOrder(t *testing.T, set func(*flat)) {
	s := newFlat()
	s.folders, s.limits.DirObjects = true, true
	set(s)
	for _, dir := range []string{"d/", "d!/", "d-e/", "e/", "d-e/in/", "z/"} {
		if err := s.Mark(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "d-x", "d!-", "d/a", "e0", "d-e/in-x")
	fs := object.New(s, object.Options{})
	want := []string{"d!-", "d!/", "d-e/", "d-e/in-x", "d-e/in/", "d-x", "d/", "d/a", "e/", "e0", "z/"}
	for page := range 4 {
		got := names(t, fs, "", ufs.ListOptions{Recursive: true, PageSize: page})
		if !slices.Equal(got, want) {
			t.Errorf("page %d: %q, want %q", page, got, want)
		}
		for i, after := range want {
			if got := names(t, fs, "", ufs.ListOptions{Recursive: true, PageSize: page, StartAfter: after}); !slices.Equal(got, want[i+1:]) {
				t.Errorf("page %d after %q: %q, want %q", page, after, got, want[i+1:])
			}
		}
		for n := 1; n < len(want); n++ {
			if got := portions(t, fs, n, ufs.ListOptions{Recursive: true, PageSize: page}); !slices.Equal(got, want) {
				t.Errorf("page %d, %d at a time: %q, want %q", page, n, got, want)
			}
		}
	}
	if _, err := fs.Rename(t.Context(), "d-e", "moved"); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, fs, "moved", ufs.ListOptions{}), []string{"moved/in-x", "moved/in/"}; !slices.Equal(got, want) {
		t.Errorf("after the move: %q, want %q", got, want)
	}
	if err := fs.Remove(t.Context(), "z", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := write(t.Context(), fs, "e", []byte("x"), ufs.CreateOptions{Size: 1}); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("a file over the directory e: %v", err)
	}
}

// A server that lists what it should not is an outage, not a short listing.
func TestBadListings(t *testing.T) {
	for name, page := range map[string]object.Page{
		"other prefix":     {Objects: []object.Object{{Name: "elsewhere"}}},
		"other prefix dir": {Prefixes: []string{"elsewhere/"}},
		"same token":       {Next: "again"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{flat: newFlat(), name: name, page: page}
			fs := object.New(s, object.Options{Root: "p/"})
			var last error
			for _, err := range fs.List(t.Context(), "", ufs.ListOptions{}) {
				last = err
			}
			if !freshet.IsKind(last, freshet.KindUnavailable) {
				t.Errorf("got %v, want unavailable", last)
			}
		})
	}
}

// To ask again, behind the last entry, a server whose pages are out of order would
// be to leave out what comes too late: it is told so for good, by a later portion too.
func TestPagesOutOfOrder(t *testing.T) {
	for _, portion := range []int{1, 2, 100} {
		s := &scripted{flat: newFlat()}
		s.limits.DirObjects = true
		fs := object.New(s, object.Options{Root: "p/"})
		opts, n := ufs.ListOptions{Position: new(ufs.Position)}, 0
		var last error
		for last == nil && n < 10 {
			before := n
			for st, err := range fs.List(t.Context(), "", opts) {
				if last = err; err == nil {
					n, opts.StartAfter = n+1, st.SortKey()
				}
				if n == before+portion {
					break
				}
			}
		}
		if !freshet.IsKind(last, freshet.KindUnsupported) || n != 1 {
			t.Errorf("%d at a time: %v after %d entries", portion, last, n)
		}
	}
}

// A listing that goes on costs a page more at most, whatever came before.
func TestRequestsOfPortions(t *testing.T) {
	s := newFlat()
	s.folders, s.limits.DirObjects, s.noAfter = true, true, true
	for i := range 100 {
		put(t, s, fmt.Sprintf("d%02d/f", i), fmt.Sprintf("f%02d", i))
	}
	fs := object.New(s, object.Options{})
	if !fs.Features().FlatList {
		t.Error("the tree is not listed at once")
	}
	for _, c := range []struct {
		portion, requests int
		opts              ufs.ListOptions
	}{
		{300, 21, ufs.ListOptions{Recursive: true}}, // and once to see that nothing follows
		{30, 30, ufs.ListOptions{Recursive: true}},
		{40, 30, ufs.ListOptions{}},
		{7, 60, ufs.ListOptions{}},
	} {
		clear(s.calls)
		c.opts.PageSize = 10
		if got := portions(t, fs, c.portion, c.opts); len(got) != 200+100*strings.Count(fmt.Sprint(c.opts.Recursive), "true") || s.calls["list"] > c.requests {
			t.Errorf("%+v: %d entries by %d requests", c, len(got), s.calls["list"])
		}
	}
}

// scripted answers listings wrongly: with page or, without a name, backwards.
type scripted struct {
	*flat
	name string
	page object.Page
}

func (s *scripted) List(_ context.Context, req object.ListRequest) (object.Page, error) {
	if s.name != "" {
		return s.page, nil
	}
	n, _ := strconv.Atoi(req.Token)
	return object.Page{Objects: []object.Object{{Name: fmt.Sprintf("p/%d", 9-n)}}, Next: strconv.Itoa(n + 1)}, nil
}

// Directories do not vanish with their last child, however many are removed at a
// time.
func TestDirectoryOutlivesConcurrentRemovals(t *testing.T) {
	s := newFlat()
	fs := object.New(s, object.Options{Root: root})
	for round := range 20 {
		dir := fmt.Sprint("d", round)
		for i := range 8 {
			put(t, s, fmt.Sprintf("%s%s/f%d", root, dir, i))
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := fs.Remove(t.Context(), fmt.Sprintf("%s/f%d", dir, i), ufs.RemoveOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st, err := fs.Stat(t.Context(), dir); err != nil || !st.IsDir() {
			t.Fatalf("round %d: %+v, %v", round, st, err)
		}
	}
}

// A move that fails anywhere goes on where it ended, and leaves nothing behind.
func TestRenameResumes(t *testing.T) {
	for _, folders := range []bool{false, true} {
		for after := 0; ; after++ {
			s := newFlat()
			s.folders, s.limits.DirObjects = folders, folders
			fs := object.New(s, object.Options{Root: root})
			if _, err := fs.Mkdir(t.Context(), "a/empty", ufs.MkdirOptions{}); err != nil {
				t.Fatal(err)
			}
			for i := range 12 {
				put(t, s, fmt.Sprintf("%sa/s%d/f", root, i))
			}
			n := 0
			s.fail = func(call, _ string) error {
				if call == "head" || call == "list" || call == "get" {
					return nil
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if n++; n > after {
					return object.Errorf(freshet.KindDeadline, "injected")
				}
				return nil
			}
			before := names(t, fs, "a", ufs.ListOptions{Recursive: true})
			_, err := fs.Rename(t.Context(), "a", "b")
			s.fail = nil
			if err == nil {
				break
			}
			if !freshet.IsKind(err, freshet.KindDeadline) {
				t.Fatalf("after %d: %v", after, err)
			}
			if _, err := fs.Rename(t.Context(), "a", "b"); err != nil {
				t.Fatalf("after %d, the second call: %v", after, err)
			}
			got := names(t, fs, "b", ufs.ListOptions{Recursive: true})
			for i := range before {
				before[i] = "b" + before[i][1:]
			}
			if !slices.Equal(got, before) {
				t.Errorf("after %d: got %q, want %q", after, got, before)
			}
			if got := names(t, fs, "", ufs.ListOptions{}); !slices.Equal(got, []string{"b/"}) {
				t.Errorf("after %d: left %q", after, got)
			}
			for name := range s.objects {
				if strings.Contains(name, ufs.TempPrefix) {
					t.Errorf("after %d: left %q", after, name)
				}
			}
		}
	}
}

// An effect without an answer is told apart from one that was refused.
func TestOutcomeOfCommit(t *testing.T) {
	small, large := make([]byte, 10), make([]byte, 600<<10)
	for _, c := range []struct {
		call      string
		err       error
		data      []byte
		commit    freshet.Kind
		uncertain bool
	}{
		{"put", object.Errorf(freshet.KindDeadline, "reset"), small, freshet.KindDeadline, true},
		{"put", object.Errorf(freshet.KindDeadline, "late: %w", ufs.ErrNotSent), small, freshet.KindDeadline, false},
		{"put", object.Errorf(freshet.KindUnavailable, "refused"), small, freshet.KindUnavailable, false},
		{"put", object.Errorf(freshet.KindExhausted, "quota"), small, freshet.KindExhausted, false},
		{"put", errors.New("no route"), small, freshet.KindUnavailable, false},
		{"list", object.Errorf(freshet.KindUnavailable, "no route"), small, freshet.KindUnavailable, false}, // what is in the way
		{"part", object.Errorf(freshet.KindUnavailable, "reset"), large, freshet.KindUnavailable, false},
		{"begin", object.Errorf(freshet.KindPermission, "denied"), large, freshet.KindPermission, false},
		// The upload of an uncertain completion can be ended for certain.
		{"complete", object.Errorf(freshet.KindDeadline, "reset"), large, freshet.KindDeadline, false},
	} {
		s := newFlat()
		fs := object.New(s, object.Options{})
		s.fail = func(call, _ string) error {
			if call == c.call {
				return c.err
			}
			return nil
		}
		w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: int64(len(c.data))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = w.Write(c.data); err == nil {
			_, err = w.Commit(t.Context())
		}
		if freshet.KindOf(err) != c.commit {
			t.Errorf("%s %v: commit gives %v", c.call, c.err, err)
		}
		// What failed in Write is never committed; the outcome of a completion is not known.
		if said := errors.Is(err, ufs.ErrNotSent); said && (c.uncertain || c.call == "complete") || !said && !c.uncertain && (c.call == "put" || c.call == "list") {
			t.Errorf("%s %v: commit says not sent: %v", c.call, c.err, said)
		}
		if err := w.Abort(t.Context()); freshet.IsKind(err, freshet.KindDeadline) != c.uncertain || err != nil && !c.uncertain {
			t.Errorf("%s %v: abort gives %v", c.call, c.err, err)
		}
		s.mu.Lock()
		if len(s.uploads)+len(s.objects) != 0 {
			t.Errorf("%s %v: left %d uploads, %d objects", c.call, c.err, len(s.uploads), len(s.objects))
		}
		s.mu.Unlock()
	}
}

// What each call costs.
func TestRequests(t *testing.T) {
	s := newFlat()
	fs := object.New(s, object.Options{})
	for i := range 25 {
		put(t, s, fmt.Sprintf("d/f%02d", i))
	}
	for _, c := range []struct {
		name string
		call func() error
		want string
	}{
		{"stat", func() error { _, err := fs.Stat(t.Context(), "d/f00"); return err }, "map[head:1]"},
		{"stat of a directory", func() error { _, err := fs.Stat(t.Context(), "d"); return err }, "map[head:1 list:1]"},
		{"list", func() error { names(t, fs, "d", ufs.ListOptions{PageSize: 10}); return nil }, "map[list:3]"},
		{"small, vouched", func() error {
			_, err := write(t.Context(), fs, "d/v", []byte("x"), ufs.CreateOptions{Vouched: true, Size: 1})
			return err
		}, "map[put:1]"},
		{"small", func() error {
			_, err := write(t.Context(), fs, "d/w", []byte("x"), ufs.CreateOptions{Size: 1})
			return err
		}, "map[list:2 put:1]"},
		{"large, vouched", func() error {
			_, err := write(t.Context(), fs, "d/l", make([]byte, 1<<20), ufs.CreateOptions{Vouched: true, Size: 1 << 20})
			return err
		}, "map[begin:1 complete:1 part:4]"},
		{"remove", func() error { return fs.Remove(t.Context(), "d/v", ufs.RemoveOptions{}) }, "map[delete:1 head:1 list:1]"},
	} {
		clear(s.calls)
		if err := c.call(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := fmt.Sprint(s.calls); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Parts grow so that there are always enough of them, up to the store's largest.
func TestSizesOfParts(t *testing.T) {
	for _, c := range []struct {
		size   int64 // announced
		length int   // written
		max    int64
		fails  bool
	}{
		{-1, 3 << 20, 0, false},
		{3 << 20, 3 << 20, 0, false},
		{-1, 3 << 20, 8 << 10, true}, // 20 parts of 8 KiB are too few
	} {
		s := newFlat()
		s.limits.PartSize, s.limits.SinglePut, s.limits.MaxParts, s.limits.MaxPart = 8<<10, 8<<10, 20, c.max
		fs := object.New(s, object.Options{})
		st, err := write(t.Context(), fs, "f", make([]byte, c.length), ufs.CreateOptions{Size: c.size})
		if c.fails && !freshet.IsKind(err, freshet.KindExhausted) || !c.fails && (err != nil || st.Length != int64(c.length)) {
			t.Errorf("%+v: %+v, %v", c, st, err)
		}
	}
}
