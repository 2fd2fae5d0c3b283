package coordinator_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs/mem"
)

// lengthOf returns the length that is served.
func (w *world) lengthOf(m *member, p string) int64 {
	w.Helper()
	return w.stat(m, p).Info.Length
}

func TestAChangeBehindOurBackIsSeenWithoutAnyInterval(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		w.heard(m, "/data", true)
		w.list(m, "/data/d")
		if w.lengthOf(m, "/data/d/f") != 3 {
			t.Error("not the first version")
		}
		time.Sleep(time.Hour) // nothing is asked by time
		if n := w.asked(func() { w.list(m, "/data/d"); w.stat(m, "/data/d/f") }); n != 0 {
			t.Errorf("asked the storage %d times though nothing was told", n)
		}
		w.store.Put("d/f", []byte("three"))
		f.tell(invalidation.KindContent, "/d/f")
		w.store.Put("d/new", []byte("x"))
		f.tell(invalidation.KindCreate, "/d/new")
		synctest.Wait()
		if got := w.lengthOf(m, "/data/d/f"); got != 5 {
			t.Errorf("served %d bytes", got)
		}
		if got := w.list(m, "/data/d"); !slices.Contains(got, "/data/d/new") {
			t.Errorf("listed %v", got)
		}
		w.store.Remove("d/f")
		f.tell(invalidation.KindDelete, "/d/f")
		synctest.Wait()
		w.statKind(m, "/data/d/f", freshet.KindNotExist)
		if st := w.mountAt(m, "/data").ActiveSync; st.Lag < 0 || st.SinceNotice < 0 || st.Source != "feed://lake" || !st.Complete {
			t.Errorf("status %+v", st)
		}
	})
}

func TestWhatWasToldOfNobodysPartEntersNoLog(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake/x", freshet.Never))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		m := w.leader()
		w.heard(m, "/data", true)
		if n := w.entries(m, func() {
			for i := range 100 {
				f.tell(invalidation.KindContent, fmt.Sprintf("/y/f%d", i))
				synctest.Wait()
			}
		}); n != 0 {
			t.Errorf("%d log entries", n)
		}
	})
}

func TestDuplicatesOfOurOwnWritesAndDisorderDoNoHarm(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		m := w.leader()
		w.heard(m, "/data", true)
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/own"}); err != nil {
			t.Fatal(err)
		}
		heads, _ := m.Heads()
		for range 3 {
			f.tell(invalidation.KindMkdir, "/own")
			f.tell(invalidation.KindDelete, "/gone/before")
			f.tell(invalidation.KindCreate, "/own")
		}
		synctest.Wait()
		if st := w.stat(m, "/data/own"); st.Info.Type != freshet.TypeDirectory {
			t.Errorf("%+v", st.Info)
		}
		// What a storage tells, and what looks find then, is not published.
		time.Sleep(time.Minute)
		if after, _ := m.Heads(); !slices.Equal(heads, after) {
			t.Errorf("published: %v, before %v", after, heads)
		}
	})
}

func TestAGapMarksEverything(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.heard(m, "/data", true)
		w.lengthOf(m, "/data/f")
		f.set(func() { f.down = errDown })
		a := w.heard(m, "/data", false)
		for _, want := range []string{"notifications of feed://lake", "not heard since", "the storage is down", "seen after 1m0s"} {
			if !strings.Contains(a.DegradedReason, want) {
				t.Errorf("%q does not say %q", a.DegradedReason, want)
			}
		}
		w.store.Put("f", []byte("three"))
		f.tell(invalidation.KindContent, "/f")
		f.purge()
		f.set(func() { f.down = nil })
		w.heard(m, "/data", true)
		if got := w.lengthOf(m, "/data/f"); got != 5 {
			t.Errorf("served %d bytes after a gap", got)
		}
	})
}

func TestADeafLeaderFallsBackToTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		level    freshet.Level
		interval time.Duration
		want     time.Duration // after which a change is seen
	}{
		"interval":   {freshet.LevelInterval, 10 * time.Minute, 10 * time.Minute},
		"invalidate": {freshet.LevelInvalidate, -1, time.Minute},
		"shorter":    {freshet.LevelInvalidate, 20 * time.Second, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFeed("feed://lake", true)
			seed := active(mount("/data", "mem://lake", freshet.Interval(c.interval)))
			seed.Level = &c.level
			inBubble(t, settings{seeds: []freshet.MountChange{seed}, feed: f}, func(w *world) { deafLeader(w, f, c.want) })
		})
	}
}

func deafLeader(w *world, f *feed, want time.Duration) {
	w.store.Put("f", []byte("one"))
	m := w.leader()
	if !strings.Contains(w.mountAt(m, "/data").DegradedReason, "notifications of") {
		w.heard(m, "/data", true) // it was quick
	}
	w.heard(m, "/data", true)
	w.lengthOf(m, "/data/f")
	time.Sleep(time.Hour)
	if n := w.asked(func() { w.lengthOf(m, "/data/f") }); n != 0 {
		w.Errorf("asked %d times while the interval is suspended", n)
	}
	x, err := m.Explain(w.Context(), "/data/f", false)
	if err != nil || !strings.Contains(x.NextCheck, "feed://lake tells") || x.ActiveSync == nil || x.Freshness.Degraded {
		w.Errorf("explain: %q, %+v, %v", x.NextCheck, x.ActiveSync, err)
	}
	f.set(func() { f.mute = true })
	w.heard(m, "/data", false)
	x, err = m.Explain(w.Context(), "/data/f", false)
	for _, text := range []string{"notifications of feed://lake are not heard", "said nothing", "changes are seen after " + freshet.Interval(want).String()} {
		if err != nil || !strings.Contains(x.Freshness.DegradedReason, text) {
			w.Errorf("explain: %q does not say %q: %v", x.Freshness.DegradedReason, text, err)
		}
	}
	if !strings.Contains(x.NextCheck, "degraded: "+freshet.Interval(want).String()) {
		w.Errorf("next check %q", x.NextCheck)
	}
	if !strings.Contains(x.Remedy, "mount show /data") {
		w.Errorf("remedy: %q", x.Remedy)
	}
	s, err := m.Cluster(w.Context())
	if err != nil || !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "mount /data is degraded") }) {
		w.Errorf("problems %q, %v", s.Problems, err)
	}
	w.lengthOf(m, "/data/f") // by time, once
	w.store.Put("f", []byte("three"))
	time.Sleep(want)
	if got := w.lengthOf(m, "/data/f"); got != 5 {
		w.Errorf("served %d bytes after %s", got, want)
	}
}

func TestASourceThatMayMissChangesSuspendsNothing(t *testing.T) {
	t.Parallel()
	f := newFeed("sqs:https://q", false)
	f.queue = true
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Interval(time.Minute)))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.heard(m, "/data", true)
		w.lengthOf(m, "/data/f")
		w.store.Put("f", []byte("three"))
		f.tell(invalidation.KindContent, "/f")
		synctest.Wait()
		if got := w.lengthOf(m, "/data/f"); got != 5 {
			t.Errorf("a notice was not believed: %d bytes", got)
		}
		w.store.Put("f", []byte("sevenly")) // nobody tells
		time.Sleep(time.Minute)
		if got := w.lengthOf(m, "/data/f"); got != 7 {
			t.Errorf("the interval was suspended: %d bytes", got)
		}
	})
}

func TestPoliciesAndRequestsApplyAlthoughTheSourceIsHeard(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Interval(time.Minute)))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		w.store.Put("hot/f", []byte("one"))
		m := w.leader()
		w.heard(m, "/data", true)
		if _, err := m.SetPolicy(w.Context(), freshet.SyncPolicy{Path: "/data/hot", Interval: freshet.Interval(time.Second)}, false); err != nil {
			t.Fatal(err)
		}
		w.lengthOf(m, "/data/hot/f")
		time.Sleep(time.Second)
		if n := w.asked(func() { w.lengthOf(m, "/data/hot/f") }); n != 1 {
			t.Errorf("the policy asked %d times", n)
		}
		if n := w.asked(func() {
			_, err := m.Stat(w.Context(), "/data/hot/f", freshet.ReadOptions{SyncInterval: at(0)})
			if err != nil {
				t.Error(err)
			}
		}); n != 1 {
			t.Errorf("the request asked %d times", n)
		}
	})
}

// TestC1ALoadInFlightDuringANoticeIsNotInstalled holds a storage's answer back
// until the change that made it old was told.
func TestC1ALoadInFlightDuringANoticeIsNotInstalled(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.heard(m, "/data", true)
		reached, resume := make(chan struct{}), make(chan struct{})
		w.fault().afterStat(func() {
			close(reached)
			<-resume
		})
		var wg sync.WaitGroup
		wg.Go(func() { w.stat(m, "/data/f") })
		<-reached
		w.store.Put("f", []byte("three"))
		f.tell(invalidation.KindContent, "/f")
		synctest.Wait()
		close(resume)
		wg.Wait()
		if got := w.lengthOf(m, "/data/f"); got != 5 {
			t.Errorf("the old version was installed: %d bytes", got)
		}
	})
}

func TestANewLeaderGoesOnFromTheCursor(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
	inBubble(t, settings{members: 3, seeds: seeds, feed: f}, func(w *world) {
		for i := range 50 {
			w.store.Put(fmt.Sprintf("f%d", i), []byte("one"))
		}
		m := w.leader()
		w.heard(m, "/data", true)
		w.list(m, "/data")
		f.tell(invalidation.KindContent, "/f0")
		synctest.Wait()
		w.lengthOf(m, "/data/f0")
		w.halt(m)
		// While nobody leads, or somebody else has just begun to, something changes.
		w.store.Put("f1", []byte("three"))
		f.tell(invalidation.KindContent, "/f1")
		m = w.leader()
		w.heard(m, "/data", true)
		synctest.Wait()
		if got := w.lengthOf(m, "/data/f1"); got != 5 {
			t.Errorf("served %d bytes", got)
		}
		// No full sync was needed: the other files are as fresh as they were.
		if n := w.asked(func() { w.lengthOf(m, "/data/f7") }); n != 0 {
			t.Errorf("a new leader looked %d times at what did not change", n)
		}
		if _, watching, cursors := f.counts(); watching != 1 || !slices.Equal(cursors, []uint64{1}) {
			t.Errorf("%d watches, begun at %v", watching, cursors)
		}
	})
}

func TestMountsComeAndGo(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	seeds := []freshet.MountChange{active(mount("/a", "mem://lake/a", freshet.Never)), mount("/b", "mem://lake/b", freshet.Never)}
	inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
		w.store.Put("b/f", []byte("one"))
		m := w.leader()
		w.heard(m, "/a", true)
		w.lengthOf(m, "/b/f")
		w.store.Put("b/f", []byte("three")) // nobody of ours hears it
		yes, no := true, false
		if _, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/b", ActiveSync: &yes}); err != nil {
			t.Fatal(err)
		}
		w.heard(m, "/b", true)
		if got := w.lengthOf(m, "/b/f"); got != 5 {
			t.Errorf("what was loaded before anybody listened is trusted: %d bytes", got)
		}
		if watches, watching, _ := f.counts(); watches != 1 || watching != 1 {
			t.Errorf("%d watches, %d at once", watches, watching)
		}
		// The mount whose storage is watched goes: the other takes over, and loses nothing.
		if _, err := m.RemoveMount(w.Context(), "/a", freshet.RemoveMountOptions{}); err != nil {
			t.Fatal(err)
		}
		w.store.Put("b/f", []byte("sevenly"))
		f.tell(invalidation.KindContent, "/b/f")
		w.heard(m, "/b", true)
		w.await("the change is seen", func() bool { return w.lengthOf(m, "/b/f") == 7 })
		if _, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/b", ActiveSync: &no}); err != nil {
			t.Fatal(err)
		}
		w.await("nobody watches", func() bool { _, watching, _ := f.counts(); return watching == 0 })
		if a := w.mountAt(m, "/b"); a.ActiveSync != nil || a.Degraded {
			t.Errorf("%+v", a)
		}
		// And back: its cursor is gone, so everything is marked.
		w.lengthOf(m, "/b/f")
		w.store.Put("b/f", []byte("x"))
		f.tell(invalidation.KindContent, "/b/f")
		if _, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/b", ActiveSync: &yes}); err != nil {
			t.Fatal(err)
		}
		w.heard(m, "/b", true)
		if got := w.lengthOf(m, "/b/f"); got != 1 {
			t.Errorf("served %d bytes", got)
		}
	})
}

func TestActiveSyncIsRefusedWhereItIsNotPossible(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		yes := true
		_, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data", ActiveSync: &yes})
		w.wantKind(err, freshet.KindUnsupported)
		for _, want := range []string{"hdfs://", "file://", "events=sqs:URL", "events=webhook"} {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	})
	f := newFeed("", true)
	inBubble(t, settings{feed: f}, func(w *world) {
		m := w.leader()
		yes := true
		_, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data", ActiveSync: &yes})
		w.wantKind(err, freshet.KindInvalid)
		if err != nil && !strings.Contains(err.Error(), "events=sqs:URL") {
			t.Errorf("%q does not name the option", err)
		}
		f.set(func() {
			f.source.ID = "sqs:https://q"
			f.fitness = freshet.Errorf(freshet.KindInvalid, "check source", "", "the bucket does not tell the queue")
		})
		_, err = m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data", ActiveSync: &yes})
		w.wantKind(err, freshet.KindInvalid)
		f.set(func() { f.fitness = nil })
		if _, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data", ActiveSync: &yes}); err != nil {
			t.Fatal(err)
		}
		w.heard(m, "/data", true)
		// Somebody takes the notifications of the bucket away.
		f.set(func() {
			f.fitness = freshet.Errorf(freshet.KindInvalid, "check source", "", "the bucket does not tell the queue")
		})
		time.Sleep(time.Minute)
		if a := w.heard(m, "/data", false); !strings.Contains(a.DegradedReason, "does not tell the queue") {
			t.Errorf("%q", a.DegradedReason)
		}
	})
}

// TestWhatAStorageDidNotTellIsMarkedBeforeItIsHeardAgain changes a storage while it
// does not tell its source, which goes on to be heard.
func TestWhatAStorageDidNotTellIsMarkedBeforeItIsHeardAgain(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
	unfit := freshet.Errorf(freshet.KindInvalid, "check source", "", "the bucket does not tell the queue")
	for name, ends := range map[string]bool{"another mount is watched": false, "the watch ends": true} {
		t.Run(name, func(t *testing.T) {
			f := newFeed("feed://lake", true)
			inBubble(t, settings{seeds: seeds, feed: f}, func(w *world) {
				w.store.Put("f", []byte("one"))
				m := w.leader()
				w.heard(m, "/data", true)
				if got := w.lengthOf(m, "/data/f"); got != 3 {
					t.Errorf("served %d bytes", got)
				}
				f.set(func() {
					f.fitness = unfit
					if ends {
						f.fitness, f.down = nil, unfit
					}
				})
				time.Sleep(2 * time.Minute)
				w.heard(m, "/data", false)
				w.store.Put("f", []byte("three"))
				f.set(func() { f.fitness, f.down = nil, nil })
				w.heard(m, "/data", true)
				if got := w.lengthOf(m, "/data/f"); got != 5 {
					t.Errorf("served %d bytes of what nobody told", got)
				}
			})
		})
	}
}

// TestS1NothingStaysStaleOfWhatAStorageTells lets another program change the
// storage, which tells of it late, twice, in another order, with breaks, under
// leaders that come and go. When all is quiet every path is what the storage has.
func TestS1NothingStaysStaleOfWhatAStorageTells(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			f := newFeed("feed://lake", seed%2 == 0)
			f.queue = seed%4 == 3
			f.wild = rand.New(rand.NewPCG(seed, 7))
			seeds := []freshet.MountChange{active(mount("/data", "mem://lake", freshet.Never))}
			mode := []mem.Mode{mem.Object, mem.Local}[seed/2%2]
			inBubble(t, settings{mode: mode, members: 3, seeds: seeds, feed: f}, func(w *world) { whatAStorageTells(w, f, seed) })
		})
	}
}

func whatAStorageTells(w *world, f *feed, seed uint64) {
	w.leader()
	var mu sync.Mutex
	delays := rand.New(rand.NewPCG(seed, 1))
	w.onStep(func(string, string) error {
		mu.Lock()
		d := time.Duration(delays.IntN(30)) * time.Millisecond
		mu.Unlock()
		time.Sleep(d)
		return nil
	})
	var wg sync.WaitGroup
	until := time.Now().Add(20 * time.Second)
	run := func(n uint64, pause int, fn func(rng *rand.Rand)) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, n))
			for time.Now().Before(until) {
				fn(rng)
				time.Sleep(time.Duration(rng.IntN(pause)) * time.Millisecond)
			}
		})
	}
	run(2, 60, func(rng *rand.Rand) {
		key := w.randomKey(rng)
		if rng.IntN(3) == 0 {
			if w.store.Remove(key) {
				f.tell(invalidation.KindDelete, "/"+key)
				// Of flat storages the directories that it may have taken along are told too.
				f.tell(invalidation.KindContent, "/"+key[:3])
				f.tell(invalidation.KindContent, "/"+key[:1])
			}
			return
		}
		w.store.Put(key, []byte(strings.Repeat("y", rng.IntN(100))))
		f.tell(invalidation.KindCreate, "/"+key)
	})
	for i := range uint64(3) {
		run(3+i, 60, func(rng *rand.Rand) { w.readAnywhere(rng) })
	}
	run(8, 8000, func(rng *rand.Rand) {
		switch m := w.leader(); rng.IntN(3) {
		case 0:
			_, _ = m.TransferLeadership(w.Context(), "") // it may not lead any more
		case 1:
			if !f.queue { // a queue loses nothing
				f.purge()
			}
		default:
			f.set(func() { f.down = errDown })
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
			f.set(func() { f.down = nil })
		}
	})
	wg.Wait()
	w.onStep(nil)
	time.Sleep(10 * time.Second) // whoever is to lead leads
	w.await("the storage is heard", func() bool {
		mounts, _, err := w.leader().Mounts(w.Context(), "/data")
		return err == nil && mounts[0].ActiveSync.Heard
	})
	f.mu.Lock()
	f.wild = nil
	f.mu.Unlock()
	time.Sleep(time.Minute) // all is told
	w.agrees(w.leader())
}

// readAnywhere looks at whoever leads; nobody may.
func (w *world) readAnywhere(rng *rand.Rand) {
	p := freshet.Path("/data/" + w.randomKey(rng))
	for _, m := range w.members {
		if _, leads := m.Leading(); !leads {
			continue
		}
		var err error
		switch rng.IntN(3) {
		case 0:
			_, err = m.List(w.Context(), freshet.ListQuery{Path: p.Parent()})
		case 1:
			_, err = m.List(w.Context(), freshet.ListQuery{Path: "/data", Recursive: true})
		default:
			_, err = m.Stat(w.Context(), p, freshet.ReadOptions{})
		}
		if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindNotLeader, freshet.KindUnavailable) {
			w.Errorf("read %s: %v", p, err)
		}
	}
}

func TestAbandonedUploadsAreEndedNowAndThen(t *testing.T) {
	t.Parallel()
	f := newFeed("feed://lake", true)
	reg := prometheus.NewRegistry()
	inBubble(t, settings{feed: f, metrics: reg}, func(w *world) {
		m := w.leader()
		time.Sleep(90 * time.Minute)
		f.set(func() { f.cleaning = errDown }) // the next one fails, and the one after is made all the same
		time.Sleep(2 * time.Hour)
		yes := true
		if _, err := m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data", ReadOnly: &yes}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		f.mu.Lock()
		defer f.mu.Unlock()
		if want := []time.Duration{24 * time.Hour, 24 * time.Hour, 24 * time.Hour}; !slices.Equal(f.cleaned, want) {
			t.Errorf("cleaned %v, want %v", f.cleaned, want)
		}
		if n := counted(t, reg, "freshet_coordinator_cleaned_uploads_total"); n != 6 {
			t.Errorf("counted %v uploads", n)
		}
	})
}

func TestOnlyTheLeaderTakesWhatIsPosted(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Never)}
	seeds[0].Options = map[string]string{"domain": "s3://b"}
	inBubble(t, settings{members: 3, seeds: seeds}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.lengthOf(m, "/data/f")
		w.store.Put("f", []byte("three"))
		post := freshet.EventPost{Trusted: true, Body: []byte(`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"f"}}}]}`)}
		for _, o := range w.members {
			if o != m {
				_, err := o.PostEvents(w.Context(), post)
				w.wantKind(err, freshet.KindNotLeader)
			}
		}
		if got := w.lengthOf(m, "/data/f"); got != 3 {
			t.Errorf("%d bytes before anything was posted", got)
		}
		if a, err := m.PostEvents(w.Context(), post); err != nil || a.Marked != 1 {
			t.Errorf("%+v, %v", a, err)
		}
		if got := w.lengthOf(m, "/data/f"); got != 5 {
			t.Errorf("%d bytes after it was posted", got)
		}
	})
}

// counted returns the value of a counter without labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("%s is not there", name)
	return 0
}
