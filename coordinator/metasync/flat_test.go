package metasync_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// byDirectory is a storage that can't list a tree at once.
type byDirectory struct{ ufs.FS }

func (f byDirectory) Features() ufs.Features {
	feat := f.FS.Features()
	feat.FlatList = false
	return feat
}

// byPage is a storage that begins at its start, or at a page that it came by.
type byPage struct {
	ufs.FS
	size int
}

func (f byPage) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	at, after := opts.Position, opts.StartAfter
	if at == nil {
		at = new(ufs.Position)
	}
	return func(yield func(ufs.Status, error) bool) {
		opts.StartAfter = ""
		if after >= at.After {
			opts.StartAfter = at.Token
		}
		n := 0
		for st, err := range f.FS.List(ctx, dir, opts) {
			key := st.SortKey()
			if n++; err == nil && n%f.size == 0 {
				at.Token, at.After = key, key
			}
			if (err != nil || key > after) && !yield(st, err) {
				return
			}
		}
	}
}

// holds returns all that the state has below /m: what it says of each path.
func (b *bed) holds() map[freshet.Path]string {
	b.Helper()
	out := map[freshet.Path]string{}
	var read func(dir freshet.Path)
	read = func(dir freshet.Path) {
		l, err := b.state.Lookup(dir)
		if err != nil {
			b.Fatal(err)
		}
		out[dir] = fmt.Sprintf("complete %v special %v", l.Listing.Complete, l.Listing.Special)
		children, err := b.state.List(dir, "", 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range children {
			if c.Info.Type == freshet.TypeDirectory {
				read(c.Info.Path)
			} else {
				out[c.Info.Path] = fmt.Sprint(c.Info.Length, c.Info.Fingerprint)
			}
		}
	}
	read("/m")
	return out
}

func (b *bed) sync(maxAge freshet.Interval) (last freshet.SyncProgress, err error) {
	b.Helper()
	err = b.Sync(b.Context(), "/m", metasync.SyncOptions{Recursive: true, MaxAge: maxAge}, func(p freshet.SyncProgress) error { last = p; return nil })
	return last, err
}

func (b *bed) mustSync(maxAge freshet.Interval) freshet.SyncProgress {
	b.Helper()
	p, err := b.sync(maxAge)
	if err != nil || !p.Done || p.Failed != 0 {
		b.Fatalf("%+v, %v", p, err)
	}
	return p
}

func (b *bed) lists(fn func()) int {
	before := b.store.Calls()["list"]
	fn()
	return b.store.Calls()["list"] - before
}

func (b *bed) applied() uint64 { return b.state.Applied() }

func TestATreeOfSmallDirectoriesCostsARequestPerPage(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	for i := range 10_000 {
		b.store.Put(fmt.Sprintf("d%02d/e%02d/f%d", i/1000, i/10%100, i%10), []byte("x"))
	}
	var p freshet.SyncProgress
	const entries = 11_010 // with 10 directories and 1,000 in them
	if n := b.lists(func() { p = b.mustSync(freshet.Always) }); n > entries/1000+2 {
		t.Errorf("%d requests", n)
	}
	if p.Directories != 1011 || p.Entries != entries+1 || p.Changed != entries {
		t.Errorf("%+v", p)
	}
	before := b.applied()
	if n := b.lists(func() { p = b.mustSync(freshet.Always) }); n > entries/1000+2 || p.Changed != 0 || p.Entries != entries+1 {
		t.Errorf("%d requests, %+v", n, p)
	}
	if n := b.applied() - before; n != 0 {
		t.Errorf("a sync in which nothing changed made %d log entries", n)
	}
	b.free("all is fresh", func() { b.list("/m/d07/e42"); b.present("/m/d03/e14/f1"); b.absent("/m/d03/e14/g") })
	b.store.Put("d03/e14/g", []byte("new"))
	b.store.Remove("d04/e00/f3")
	b.clock.Advance(time.Second)
	if p = b.mustSync(freshet.Always); p.Changed != 2 {
		t.Errorf("one came and one went: %+v", p)
	}
	b.present("/m/d03/e14/g")
	b.absent("/m/d04/e00/f3")
}

// clutter changes a storage: names that begin with one another, markers, files
// beside directories of their name.
func clutter(rng *rand.Rand, stores ...*mem.Store) {
	names := []string{"a", "a!", "a-", "a.", "a0", "b", "é", "zz"}
	for range 40 {
		var parts []string
		for range 1 + rng.IntN(5) {
			parts = append(parts, names[rng.IntN(len(names))])
		}
		key := strings.Join(parts, "/")
		if rng.IntN(6) == 0 {
			key += "/" // a marker
		}
		remove, body := rng.IntN(3) == 0, make([]byte, rng.IntN(3))
		for _, s := range stores {
			if remove {
				s.Remove(key)
			} else {
				s.Put(key, body)
			}
		}
	}
}

// TestAFlatListingFindsWhatListingsByDirectoryFind changes two equal storages, of
// which one is listed flat, in portions that are given up or not, and the other by
// directory: after each sync both states say the same. Every other one can't begin at
// a name.
func TestAFlatListingFindsWhatListingsByDirectoryFind(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 21))
		opts := metasync.Options{SegmentPages: 1 + rng.IntN(3), Parallel: 1 + rng.IntN(6)}
		storage := mem.Options{PageSize: 1 + rng.IntN(8)}
		flat, plain := newBedOn(t, opts, storage), newBedOn(t, opts, storage)
		plain.wrap = func(fs ufs.FS) ufs.FS { return byDirectory{fs} }
		if seed%2 == 1 {
			flat.wrap = func(fs ufs.FS) ufs.FS { return byPage{fs, storage.PageSize} }
		}
		for round := range 6 {
			clutter(rng, flat.store, plain.store)
			flat.clock.Advance(time.Second)
			plain.clock.Advance(time.Second)
			got, want := flat.mustSync(freshet.Always), plain.mustSync(freshet.Always)
			got.Current, want.Current = "", ""
			if got != want {
				t.Errorf("seed %d, round %d: progress %+v, by directory %+v", seed, round, got, want)
			}
			if f, p := versionless(flat.holds()), versionless(plain.holds()); !maps.Equal(f, p) {
				t.Fatalf("seed %d, round %d: held %v, by directory %v", seed, round, f, p)
			}
			before := flat.applied()
			if again := flat.mustSync(freshet.Always); again.Changed != 0 || flat.applied() != before {
				t.Errorf("seed %d, round %d: a second sync changed %+v", seed, round, again)
			}
			flat.free("after a sync", func() { flat.all("/m") })
		}
	}
}

// versionless leaves out the names of versions, which are a storage's own.
func versionless(m map[freshet.Path]string) map[freshet.Path]string {
	for p, s := range m {
		if !strings.HasPrefix(s, "complete") {
			m[p], _, _ = strings.Cut(s, " ")
		}
	}
	return m
}

// all lists everything below dir.
func (b *bed) all(dir freshet.Path) {
	b.Helper()
	infos, _, err := b.Children(b.Context(), dir, "", 1<<20, b.rule)
	if err != nil {
		b.Fatal(err)
	}
	for _, i := range infos {
		if i.Type == freshet.TypeDirectory {
			b.all(i.Path)
		}
	}
}

func TestAFlatListingOfLargeDirectoriesIsGivenUpAtNoCost(t *testing.T) {
	t.Parallel()
	opts := metasync.Options{SegmentPages: 2}
	flat, plain := newBedOn(t, opts, mem.Options{PageSize: 10}), newBedOn(t, opts, mem.Options{PageSize: 10})
	plain.wrap = func(fs ufs.FS) ufs.FS { return byDirectory{fs} }
	for i := range 2000 {
		key := fmt.Sprintf("x/d%d/f%03d", i/200, i%200)
		flat.store.Put(key, []byte("x"))
		plain.store.Put(key, []byte("x"))
	}
	var got, want freshet.SyncProgress
	n := flat.lists(func() { got = flat.mustSync(freshet.Always) })
	by := plain.lists(func() { want = plain.mustSync(freshet.Always) })
	if got.Entries != want.Entries || got.Directories != want.Directories || got.Changed != want.Changed {
		t.Errorf("%+v, by directory %+v", got, want)
	}
	if n > by+by/20 {
		t.Errorf("%d requests, by directory %d", n, by)
	}
}

// TestAListingThatGoesOnByPagesDoesNotBeginAgain: where the storage can't begin at a
// name, portions cost no more than that each may end in the middle of a page, and what
// is given up is asked for again once.
func TestAListingThatGoesOnByPagesDoesNotBeginAgain(t *testing.T) {
	t.Parallel()
	const pages, segment = 2000 / 10, 2
	for what, c := range map[string]struct {
		key  func(i int) string
		most int
	}{
		"one directory":     {func(i int) string { return fmt.Sprintf("f%04d", i) }, pages + 2},
		"large directories": {func(i int) string { return fmt.Sprintf("x/d%d/f%03d", i/200, i%200) }, pages + pages/10 + 3*segment},
		"small directories": {func(i int) string { return fmt.Sprintf("d%04d/f", i) }, 2*pages + 2*pages/segment},
	} {
		for _, recursive := range []bool{true, false} {
			b := newBedOn(t, metasync.Options{SegmentPages: segment}, mem.Options{PageSize: 10})
			b.wrap = func(fs ufs.FS) ufs.FS {
				if !recursive {
					fs = byDirectory{fs}
				}
				return byPage{fs, 10}
			}
			for i := range 2000 {
				b.store.Put(c.key(i), []byte("x"))
			}
			if !recursive && what == "small directories" {
				c.most += 2000 // each of them
			}
			if n := b.lists(func() { b.mustSync(freshet.Always) }); n > c.most {
				t.Errorf("%s, flat %v: %d requests, want at most %d", what, recursive, n, c.most)
			}
		}
	}
}

// TestAListingOutOfOrderIsMadeAnewByDirectory: of a tree that is listed out of order
// nothing is taken for gone.
func TestAListingOutOfOrderIsMadeAnewByDirectory(t *testing.T) {
	t.Parallel()
	b := newBedOn(t, metasync.Options{SegmentPages: 2}, mem.Options{PageSize: 10})
	for i := range 200 {
		b.store.Put(fmt.Sprintf("d%d/e%03d/f", i/20, i), []byte("x"))
	}
	for _, n := range []int{0, 1, 15, 20, 21, 300} {
		var listed atomic.Int64
		b.wrap = func(fs ufs.FS) ufs.FS { return disorderly{fs, int64(n), &listed} }
		b.clock.Advance(time.Second)
		if p := b.mustSync(freshet.Always); len(b.holds()) != 411 || listed.Load() <= int64(n) {
			t.Errorf("after %d entries: %+v, %d held, %d listed", n, p, len(b.holds()), listed.Load())
		}
	}
}

// disorderly lists one directory of a tree too late, which is found out after n
// entries.
type disorderly struct {
	ufs.FS
	n      int64
	listed *atomic.Int64
}

func (f disorderly) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	if !opts.Recursive {
		return f.FS.List(ctx, dir, opts)
	}
	return func(yield func(ufs.Status, error) bool) {
		for st, err := range f.FS.List(ctx, dir, opts) {
			if f.listed.Add(1) > f.n {
				yield(ufs.Status{}, freshet.Errorf(freshet.KindUnsupported, "list", "", "out of order"))
				return
			}
			if !strings.HasPrefix(st.Key, "d0/e003") && !yield(st, err) {
				return
			}
		}
	}
}

func TestDirectoriesThatMaxAgeSparesAreNotListedFlat(t *testing.T) {
	t.Parallel()
	b := newBed(t, metasync.Options{})
	for i := range 5000 {
		b.store.Put(fmt.Sprintf("d%02d/e%d/f%02d", i/100, i/20%5, i%20), []byte("x"))
	}
	b.mustSync(freshet.Always)
	b.clock.Advance(time.Minute)
	b.must(namespace.Command{Mark: &namespace.Mark{Path: "/m"}})
	var p freshet.SyncProgress
	if n := b.lists(func() { p = b.mustSync(freshet.Interval(time.Hour)) }); n != 1 || p.Fresh != 300 || p.Directories != 301 {
		t.Errorf("one directory was marked: %d requests, %+v", n, p)
	}
	b.must(namespace.Command{Mark: &namespace.Mark{Path: "/m", Recursive: true}})
	if n := b.lists(func() { p = b.mustSync(freshet.Interval(time.Hour)) }); n > 7 || p.Fresh != 0 || p.Directories != 301 {
		t.Errorf("all were marked: %d requests, %+v", n, p)
	}
	b.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/d07", Recursive: true}})
	if n := b.lists(func() { p = b.mustSync(freshet.Interval(time.Hour)) }); n != 2 || p.Fresh != 294 || p.Directories != 301 { // the mount's listing, and the tree at once
		t.Errorf("one tree was marked: %d requests, %+v", n, p)
	}
}

func TestAFlatListingThatFailsGoesOnByDirectory(t *testing.T) {
	t.Parallel()
	down := freshet.Errorf(freshet.KindUnavailable, "list", "", "down")
	for at := 1; at < 12; at++ {
		b := newBedOn(t, metasync.Options{SegmentPages: 4, Parallel: 1}, mem.Options{PageSize: 10})
		for i := range 80 {
			b.store.Put(fmt.Sprintf("d%d/e%d/f%d", i/20, i/4%5, i%4), []byte("x"))
		}
		n := 0
		fail := func(once bool) func(step, key string) error {
			n = 0
			return func(step, _ string) error {
				if step != "list" {
					return nil
				}
				if n++; n == at || (n > at && !once) {
					return down
				}
				return nil
			}
		}
		b.onStep(fail(false))
		p, err := b.sync(freshet.Always)
		if !errors.Is(err, freshet.KindUnavailable) || p.Failed == 0 {
			t.Errorf("failing for good at %d: %+v, %v", at, p, err)
		}
		held := len(b.holds())
		b.onStep(fail(true))
		if p = b.mustSync(freshet.Always); p.Directories != 25 || p.Entries != 105 {
			t.Errorf("failing once at %d: %+v", at, p)
		}
		if now := len(b.holds()); now != 105 || held > now {
			t.Errorf("failing at %d: held %d, then %d", at, held, now)
		}
		b.onStep(fail(false))
		if _, err := b.sync(freshet.Always); err == nil || len(b.holds()) != 105 {
			t.Errorf("a storage that fails at %d took away: %v", at, err)
		}
	}
}

// cancelled is a storage that goes on only when a listing knows of its end, once that
// has been asked for: who waits for a sync ends it, and may be slow.
type cancelled struct {
	ufs.FS
	asked *atomic.Bool
}

func (f cancelled) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		for st, err := range f.FS.List(ctx, dir, opts) {
			if f.asked.Load() {
				<-ctx.Done()
			}
			if !yield(st, err) {
				return
			}
		}
	}
}

func TestAFlatListingCanBeCancelled(t *testing.T) {
	t.Parallel()
	b := newBedOn(t, metasync.Options{SegmentPages: 2}, mem.Options{PageSize: 10})
	var asked atomic.Bool
	b.wrap = func(fs ufs.FS) ufs.FS { return cancelled{fs, &asked} }
	for i := range 1000 {
		b.store.Put(fmt.Sprintf("d%03d/f", i), []byte("x"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var lists atomic.Int64 // several run at once
	b.onStep(func(step, _ string) error {
		if step == "list" && lists.Add(1) == 50 {
			asked.Store(true)
			cancel()
		}
		return nil
	})
	err := b.Sync(ctx, "/m", metasync.SyncOptions{Recursive: true}, func(freshet.SyncProgress) error { return nil })
	if !freshet.IsKind(err, freshet.KindDeadline) {
		t.Errorf("%v", err)
	}
	b.onStep(nil)
	asked.Store(false)
	if held := len(b.holds()); held < 100 || held > 1500 {
		t.Errorf("%d are held after a sync that was cancelled in the middle", held)
	}
	if p := b.mustSync(freshet.Always); p.Directories != 1001 || len(b.holds()) != 2001 {
		t.Errorf("%+v", p)
	}
}
