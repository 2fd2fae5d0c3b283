package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// checked is what a check told.
type checked struct {
	last  freshet.CheckProgress
	diffs []freshet.Difference
	err   error
}

// words are the differences as "CLASS PATH", "~" before those that are excused.
func (c *checked) words() []string {
	var out []string
	for _, d := range c.diffs {
		word := d.Class + " " + string(d.Path)
		if !d.Served {
			word = "~" + word
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return out
}

func (w *world) check(m *member, q freshet.CheckQuery) checked {
	w.Helper()
	before := w.store.Snapshot()
	c := w.checkWhileItChanges(m, q)
	if !maps.EqualFunc(before, w.store.Snapshot(), slices.Equal) {
		w.Error("the check changed the storage")
	}
	return c
}

func (w *world) checkWhileItChanges(m *member, q freshet.CheckQuery) checked {
	w.Helper()
	var c checked
	c.err = m.Check(w.Context(), q, func(r freshet.CheckReport) error {
		if r.Difference != nil {
			c.diffs = append(c.diffs, *r.Difference)
		}
		c.last = r.Progress
		return nil
	})
	if c.err == nil && !c.last.Done {
		w.Error("the last report is not done")
	}
	return c
}

func everything(p freshet.Path) freshet.CheckQuery {
	return freshet.CheckQuery{Path: p, Recursive: true, All: true}
}

func (w *world) wantDifferences(c checked, want ...string) {
	w.Helper()
	if c.err != nil {
		w.Fatal(c.err)
	}
	slices.Sort(want)
	if got := c.words(); !slices.Equal(got, want) {
		w.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// load reads everything below the mount.
func (w *world) load(m *member) {
	w.Helper()
	if _, err := m.List(w.Context(), freshet.ListQuery{Path: "/data", Recursive: true}); err != nil {
		w.Fatal(err)
	}
}

// tamper loads a tree and then changes the storage behind the cluster's back in
// every way.
func (w *world) tamper(m *member) []string {
	for _, key := range []string{"d/same", "d/content", "d/gone", "d/file-to-dir", "d/dir-to-file/x", "d/lost/a", "d/lost/b/c", "e/same", "d/a-b", "d/a/x", "d/a0"} {
		w.store.Put(key, []byte(key))
	}
	w.load(m)
	w.store.Put("d/content", []byte("another"))
	w.store.Remove("d/gone")
	w.store.Remove("d/file-to-dir")
	w.store.Put("d/file-to-dir/y", []byte("y"))
	if err := w.store.FS("").Remove(w.Context(), "d/dir-to-file", ufs.RemoveOptions{Recursive: true}); err != nil {
		w.Fatal(err)
	}
	w.store.Put("d/dir-to-file", []byte("z"))
	if err := w.store.FS("").Remove(w.Context(), "d/lost", ufs.RemoveOptions{Recursive: true}); err != nil {
		w.Fatal(err)
	}
	w.store.Put("d/new", []byte("new"))
	w.store.Put("e/new/f", []byte("new"))
	return []string{
		"content /data/d/content", "only-cache /data/d/gone", "type /data/d/file-to-dir", "type /data/d/dir-to-file", "only-cache /data/d/dir-to-file/x",
		"only-cache /data/d/lost", "only-cache /data/d/lost/a", "only-cache /data/d/lost/b", "only-cache /data/d/lost/b/c",
		"only-storage /data/d/new", "only-storage /data/e/new",
	}
}

func excused(words []string) []string {
	var out []string
	for _, w := range words {
		out = append(out, "~"+w)
	}
	return out
}

func TestCheckFindsEachClassOfDifferenceAndSaysWhatAReaderWouldGet(t *testing.T) {
	t.Parallel()
	for _, mode := range []mem.Mode{mem.Object, mem.Local} {
		inBubble(t, settings{mode: mode}, func(w *world) {
			m := w.leader()
			want := w.tamper(m)
			c := w.check(m, everything("/data"))
			w.wantDifferences(c, want...)
			if c.last.Served != int64(len(want)) || c.last.Excused != 0 || c.last.Failed != 0 {
				w.Errorf("counted %+v", c.last)
			}
			for _, d := range c.diffs {
				if (d.Cached == nil) != (d.Class == freshet.DifferenceOnlyStorage) || (d.Storage == nil) != (d.Class == freshet.DifferenceOnlyCache) || d.Reason == "" {
					w.Errorf("%+v", d)
				}
			}
			// What it calls served is what a reader gets.
			if st := w.stat(m, "/data/d/content"); st.Info.Length != int64(len("d/content")) {
				w.Errorf("the reader got %+v", st.Info)
			}
			w.statKind(m, "/data/d/new", freshet.KindNotExist)
			w.stat(m, "/data/d/lost/b/c")
			// Shallow, and one entry.
			w.wantDifferences(w.check(m, freshet.CheckQuery{Path: "/data/e"}), "only-storage /data/e/new")
			w.wantDifferences(w.check(m, everything("/data/d/content")), "content /data/d/content")
			w.wantDifferences(w.check(m, everything("/data/d/same")))
			// After a mark everything is excused, and counted.
			if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: "/data", Recursive: true}}); err != nil {
				w.Fatal(err)
			}
			w.wantDifferences(w.check(m, everything("/data")), excused(want)...)
			q := everything("/data")
			q.All = false
			if c := w.check(m, q); len(c.diffs) != 0 || c.last.Excused != int64(len(want)) || c.last.Served != 0 {
				w.Errorf("told %v, counted %+v", c.words(), c.last)
			}
		})
	}
}

func TestCheckOfAnIntervalExcusesWhatIsOldEnoughToBeLookedAt(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		m := w.leader()
		want := w.tamper(m)
		time.Sleep(20 * time.Second)
		c := w.check(m, everything("/data"))
		w.wantDifferences(c, want...)
		if r := c.diffs[0].Reason; !strings.Contains(r, "in 40s or later looks") || !strings.Contains(r, "mount /data") {
			w.Errorf("the reason is %q", r)
		}
		time.Sleep(40 * time.Second)
		w.wantDifferences(w.check(m, everything("/data")), excused(want)...)
	})
}

func TestCheckOfMetadataAndBlocks(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{mode: mem.Local}, func(w *world) {
		w.store.Put("d/f", []byte("123"))
		w.store.Put("d/g", []byte("123"))
		m := w.leader()
		w.load(m)
		mode := uint32(0o600)
		for _, key := range []string{"d", "d/f"} {
			if _, err := w.store.FS("").SetAttr(w.Context(), key, ufs.Attr{Mode: &mode}); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second) // the leader knows what all nodes hold
		n := w.node(m, "n1")
		file := w.stat(m, "/data/d/g").Info.FileID
		report := func(length int64) {
			w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Added: []freshet.BlockReport{{ID: freshet.BlockID{File: file}, Length: length}}})
		}
		report(2)
		w.wantDifferences(w.check(m, everything("/data")), "metadata /data/d", "metadata /data/d/f", "~blocks /data/d/g")
		report(3)
		w.wantDifferences(w.check(m, everything("/data/d")), "metadata /data/d", "metadata /data/d/f")
		if c := w.check(m, freshet.CheckQuery{Path: "/data", Recursive: true, Repair: true}); c.last.Repaired != 2 {
			w.Errorf("%v, %+v", c.words(), c.last)
		}
		w.wantDifferences(w.check(m, everything("/data")))
		if st := w.stat(m, "/data/d/f"); st.Info.Mode != 0o600 {
			w.Errorf("after the repair %+v", st.Info)
		}
	})
}

// TestCheckNamesDamagedBlocks that nodes found, and a repair has the nodes drop what
// they hold of the version.
func TestCheckNamesDamagedBlocks(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", []byte("123"))
		m := w.leader()
		w.load(m)
		n := w.node(m, "n1")
		b := freshet.BlockID{File: w.stat(m, "/data/d/f").Info.FileID}
		term := w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Full: true, Added: []freshet.BlockReport{{ID: b, Length: 3}}}).Term
		w.wantDifferences(w.check(m, everything("/data")))
		if r := w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Term: term, Damaged: []freshet.BlockID{b}}); len(r.Free) != 0 {
			w.Errorf("to free: %v", r.Free)
		}
		c := w.check(m, everything("/data"))
		w.wantDifferences(c, "~blocks /data/d/f")
		if r := c.diffs[0].Reason; !strings.Contains(r, "1 damaged blocks") || !strings.Contains(r, "n1") {
			w.Errorf("the reason is %q", r)
		}
		if c := w.check(m, freshet.CheckQuery{Path: "/data", Recursive: true, Repair: true}); c.last.Repaired != 1 || !c.diffs[0].Repaired {
			w.Errorf("%v, %+v", c.words(), c.last)
		}
		if r := w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Term: term}); !slices.Equal(r.Free, []freshet.BlockID{b}) {
			w.Errorf("to free: %v", r.Free)
		}
		w.beat(m, freshet.Heartbeat{Node: n, Incarnation: 1, Term: term, Removed: []freshet.BlockID{b}})
		w.wantDifferences(w.check(m, everything("/data")))
	})
}

func TestRepairMakesTheCacheAgreeAndTouchesNothingElse(t *testing.T) {
	t.Parallel()
	for _, mode := range []mem.Mode{mem.Object, mem.Local} {
		inBubble(t, settings{mode: mode}, func(w *world) {
			m := w.leader()
			want := w.tamper(m)
			c := w.check(m, freshet.CheckQuery{Path: "/data", Recursive: true, Repair: true})
			if c.err != nil || c.last.Repaired == 0 || c.last.Repaired != c.last.Served+c.last.Excused {
				w.Errorf("%v, %+v: %v, want the repair of %v", c.words(), c.last, c.err, want)
			}
			for _, d := range c.diffs {
				if !d.Repaired || d.RepairError != "" {
					w.Errorf("not repaired: %+v", d)
				}
			}
			w.wantDifferences(w.check(m, everything("/data")))
			heads, _ := m.Heads()
			for _, h := range heads {
				if h.High != 0 {
					w.Errorf("the repair published %d records", h.High)
				}
			}
			if st := w.stat(m, "/data/d/content"); st.Info.Length != int64(len("another")) {
				w.Errorf("content: %+v", st.Info)
			}
			w.statKind(m, "/data/d/lost/b/c", freshet.KindNotExist)
			if got := w.list(m, "/data/d/file-to-dir"); !slices.Equal(got, []string{"/data/d/file-to-dir/y"}) {
				w.Errorf("listed %v", got)
			}
			if n := w.asked(func() { w.stat(m, "/data/d/new"); w.list(m, "/data/d") }); n != 0 {
				w.Errorf("what was repaired is looked at again: %d calls", n)
			}
		})
	}
}

func TestWhatWasNeverLoadedIsNoDifference(t *testing.T) {
	t.Parallel()
	alone := func(o *coordinator.Options) { o.Sync.Prefetch.Off = true } // 50 lookups in a row load all
	inBubble(t, settings{options: alone}, func(w *world) {
		for i := range 60 {
			w.store.Put(fmt.Sprintf("many/f%02d", i), []byte("x"))
		}
		w.store.Put("d/f", []byte("x"))
		w.store.Put("d/g", []byte("x"))
		m := w.leader()
		c := w.check(m, everything("/data"))
		w.wantDifferences(c)
		if c.last.NotLoaded != 1 {
			w.Errorf("%+v", c.last)
		}
		w.stat(m, "/data/d/f") // alone: neither d nor its listing was read
		w.store.Put("d/f", []byte("xx"))
		n := w.asked(func() { c = w.check(m, everything("/data")) })
		w.wantDifferences(c, "content /data/d/f")
		if n > 2 || c.last.NotLoaded != 2 {
			w.Errorf("%d calls, %+v", n, c.last)
		}
		for i := range 50 { // more than are asked for one by one
			w.stat(m, fmt.Sprintf("/data/many/f%02d", i))
		}
		w.store.Remove("many/f03")
		n = w.asked(func() { c = w.check(m, everything("/data/many")) })
		w.wantDifferences(c, "only-cache /data/many/f03")
		if n > 10 {
			w.Errorf("%d calls", n)
		}
		w.statKind(m, "/data/none", freshet.KindNotExist)
		if c := w.check(m, everything("/data/none")); !errors.Is(c.err, freshet.KindNotExist) {
			w.Errorf("of what is nowhere: %v", c.err)
		}
		if c := w.check(m, everything("/elsewhere")); !errors.Is(c.err, freshet.KindNotExist) || c.last.Done {
			w.Errorf("of what is not mounted: %v", c.err)
		}
		if c := w.check(m, everything("/data/many/f59")); c.err != nil || c.last.NotLoaded != 1 {
			w.Errorf("of what is only in the storage: %+v, %v", c.last, c.err)
		}
	})
}

func TestCheckSkipsWhatCantBeShownAndGoesIntoNestedMounts(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake/a", freshet.Never), mount("/data/deep/in", "mem://lake/b", freshet.Never)}
	inBubble(t, settings{mode: mem.Local, seeds: seeds}, func(w *world) {
		for _, key := range []string{"a/f", "a/pipe", "a/odd\x00name", "b/g", "a/deep/in/hidden"} {
			w.store.Put(key, []byte("x"))
		}
		w.fault().special("pipe", "fifo")
		m := w.leader()
		w.load(m)
		c := w.check(m, everything("/"))
		w.wantDifferences(c)
		if c.last.Skipped == 0 {
			w.Errorf("%+v", c.last)
		}
		w.store.Put("b/g", []byte("xx"))
		w.store.Remove("a/f")
		w.wantDifferences(w.check(m, everything("/")), "only-cache /data/f", "content /data/deep/in/g")
		w.fault().special("g", "socket")
		w.wantDifferences(w.check(m, everything("/data/deep")), "type /data/deep/in/g")
		c = w.check(m, freshet.CheckQuery{Path: "/", Recursive: true, Repair: true})
		if c.err != nil || c.last.Repaired != 2 {
			w.Errorf("%+v %v %v", c.diffs, c.last, c.err)
		}
		w.wantDifferences(w.check(m, everything("/")))
	})
}

func TestAnOutageIsNoDifference(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		w.tamper(m)
		w.onStep(func(string, string) error { return errDown })
		for _, q := range []freshet.CheckQuery{everything("/"), everything("/data/d/content"), {Path: "/data", Recursive: true, Repair: true}} {
			c := w.check(m, q)
			if !errors.Is(c.err, freshet.KindUnavailable) || len(c.diffs) != 0 || c.last.Done {
				w.Errorf("%+v: %v, %+v", q, c.err, c)
			}
		}
		// One directory that may not be read does not keep the rest from being compared.
		w.onStep(func(step, key string) error {
			if step == "list" && strings.HasPrefix(key, "d") {
				return freshet.Errorf(freshet.KindPermission, "list", "", "denied")
			}
			return nil
		})
		c := w.check(m, everything("/data"))
		if !errors.Is(c.err, freshet.KindPermission) || !slices.Equal(c.words(), []string{"only-storage /data/e/new"}) || c.last.Failed == 0 || !c.last.Done {
			w.Errorf("%v, %v, %+v", c.err, c.words(), c.last)
		}
	})
}

func TestTheLimitAndTheCallerEndACheck(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		w.tamper(m)
		q := everything("/data")
		q.Limit = 3
		c := w.check(m, q)
		if c.err != nil || len(c.diffs) != 3 || !c.last.Limited {
			w.Errorf("%v, %+v, %v", c.words(), c.last, c.err)
		}
		gone := errors.New("the caller is gone")
		err := m.Check(w.Context(), everything("/data"), func(freshet.CheckReport) error { return gone })
		if !errors.Is(err, gone) {
			w.Errorf("after a failed report: %v", err)
		}
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		if err := m.Check(ctx, everything("/data"), func(freshet.CheckReport) error { return nil }); err == nil {
			w.Error("a check outlived its caller")
		}
	})
}

// TestNoFalseAlarmWhileTheStorageChanges checks a storage again and again that is
// changed by this cluster, and by another program under paths that were marked
// before: nothing of it is ever served in an old version. When all is quiet again
// cache and storage agree.
func TestNoFalseAlarmWhileTheStorageChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		mode := []mem.Mode{mem.Object, mem.Local}[seed%2]
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			late := &late{rng: rand.New(rand.NewPCG(seed, 1))}
			options := func(o *coordinator.Options) { o.Wrap = func(fs ufs.FS) ufs.FS { return lateFS{fs, late} } }
			inBubble(t, settings{mode: mode, options: options}, func(w *world) { noFalseAlarm(w, late, seed) })
		})
	}
}

// late makes the answers of a storage come some time after what they tell of.
type late struct {
	mu  sync.Mutex
	on  bool
	rng *rand.Rand
}

func (l *late) set(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on = on
}

func (l *late) wait(most int) {
	l.mu.Lock()
	d := time.Duration(0)
	if l.on {
		d = time.Duration(l.rng.IntN(most)) * time.Millisecond
	}
	l.mu.Unlock()
	time.Sleep(d)
}

type lateFS struct {
	ufs.FS
	*late
}

func (f lateFS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	defer f.wait(100)
	return f.FS.Stat(ctx, key)
}

func (f lateFS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	defer f.wait(20)
	return f.FS.Mkdir(ctx, key, opts)
}

func (f lateFS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	defer f.wait(20)
	return f.FS.Rename(ctx, from, to)
}

func (f lateFS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	defer f.wait(20)
	return f.FS.Remove(ctx, key, opts)
}

func noFalseAlarm(w *world, late *late, seed uint64) {
	for _, key := range []string{"a/x/f0", "a/y/f1", "b/x/f2", "c/x/f3", "own/e/f", "own/d/z"} {
		w.store.Put(key, []byte("first"))
	}
	m := w.leader()
	w.load(m)
	late.set(true)
	var wg sync.WaitGroup
	until := time.Now().Add(time.Second)
	run := func(n uint64, fn func(rng *rand.Rand)) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, n))
			for time.Now().Before(until) {
				fn(rng)
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			}
		})
	}
	run(2, func(rng *rand.Rand) { // another program, whose changes are announced
		key := w.randomKey(rng)
		if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: freshet.Path("/data/" + key)}}); err != nil {
			w.Error(err)
		}
		if rng.IntN(3) == 0 {
			w.store.Remove(key)
		} else {
			w.store.Put(key, []byte(strings.Repeat("y", rng.IntN(100))))
		}
	})
	run(3, func(rng *rand.Rand) { w.own(m, rng) })
	run(4, func(rng *rand.Rand) { w.own(m, rng) })
	run(5, func(*rand.Rand) { // what this cluster changes alone is always fresh
		if _, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/own", Recursive: true}); err != nil && !errors.Is(err, freshet.KindNotExist) {
			w.Error(err)
		}
	})
	for i := range uint64(2) {
		run(6+i, func(*rand.Rand) {
			if c := w.checkWhileItChanges(m, everything("/data")); c.err != nil || c.last.Served != 0 {
				w.Errorf("false alarm: %v, %v", c.words(), c.err)
				for _, d := range c.diffs {
					w.Logf("%+v", d)
				}
			}
		})
	}
	wg.Wait()
	late.set(false)
	w.check(m, freshet.CheckQuery{Path: "/data", Recursive: true, Repair: true})
	w.wantDifferences(w.check(m, everything("/data")))
}

// own changes directories through the cluster.
func (w *world) own(m *member, rng *rand.Rand) {
	dir := freshet.Path(fmt.Sprintf("/data/own/%c/%c", 'a'+rng.IntN(3), 'a'+rng.IntN(3)))
	var err error
	switch rng.IntN(4) {
	case 0:
		_, err = m.Remove(w.Context(), freshet.RemoveQuery{Path: dir, Recursive: true})
	case 1:
		_, err = m.Rename(w.Context(), freshet.RenameQuery{Path: dir, Target: dir.Parent() + "-moved"})
	default:
		_, err = m.Mkdir(w.Context(), freshet.MkdirQuery{Path: dir, Parents: true})
	}
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict, freshet.KindUnavailable) {
		w.Error(err)
	}
}

func TestCheckSaysThatNewsIsOnItsWay(t *testing.T) {
	t.Parallel()
	var hooks settings
	hooks.hooks.Publishers = func(freshet.DomainID) []freshet.PublisherStatus {
		return []freshet.PublisherStatus{{Cluster: "us-east", Head: 12, Applied: 9}}
	}
	inBubble(t, hooks, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.load(m)
		w.store.Put("f", []byte("three"))
		c := w.check(m, everything("/data"))
		w.wantDifferences(c, "content /data/f")
		if !strings.Contains(c.diffs[0].Reason, "3 changes that us-east published") {
			w.Errorf("%+v", c.diffs[0])
		}
	})
}

func TestCheckLooksAgainAtWhatWasLoadedWhileItLooked(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", []byte("1"))
		m := w.leader()
		w.load(m)
		w.store.Put("d/f", []byte("22"))
		w.fault().afterStat(func() { // the check has asked, and does not know the answer yet
			w.store.Put("d/f", []byte("333"))
			if _, err := m.Invalidate(w.Context(), namespace.Command{Mark: &namespace.Mark{Path: "/data/d/f"}}); err != nil {
				w.Error(err)
			}
			w.stat(m, "/data/d/f")
		})
		w.wantDifferences(w.checkWhileItChanges(m, everything("/data/d/f")))
		if st := w.stat(m, "/data/d/f"); st.Info.Length != 3 {
			w.Errorf("%+v", st.Info)
		}
	})
}

func TestCheckComparesWhatReadersAreToldDoesNotExist(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("d/f", []byte("1"))
		m := w.leader()
		w.statKind(m, "/data/d/none", freshet.KindNotExist)
		w.statKind(m, "/data/d/never", freshet.KindNotExist)
		w.wantDifferences(w.check(m, everything("/data")))
		w.store.Put("d/none", []byte("22"))
		if n := w.asked(func() { w.statKind(m, "/data/d/none", freshet.KindNotExist) }); n != 0 {
			w.Fatalf("what was absent is looked at %d times: this test has lost its matter", n)
		}
		w.wantDifferences(w.check(m, everything("/data")), "only-storage /data/d/none")
		w.wantDifferences(w.check(m, everything("/data/d/none")), "only-storage /data/d/none")
		w.wantDifferences(w.check(m, freshet.CheckQuery{Path: "/data"}))
		if c := w.check(m, freshet.CheckQuery{Path: "/data", Recursive: true, Repair: true}); c.last.Repaired != 1 {
			w.Errorf("%+v", c)
		}
		w.wantDifferences(w.check(m, everything("/data")))
		if st := w.stat(m, "/data/d/none"); st.Info.Length != 2 {
			w.Errorf("%+v", st.Info)
		}
	})
}
