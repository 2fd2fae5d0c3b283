package coordinator_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs/mem"
)

var errDown = freshet.Errorf(freshet.KindUnavailable, "call", "", "the storage is down")

func TestStatLoadsOnceAndThenAsksNobody(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("a/f", []byte("one"))
		m := w.leader()
		st := w.stat(m, "/data/a/f")
		if st.Info.Length != 3 || st.Info.FromCache || st.Info.FileID == 0 {
			w.Errorf("first: %+v", st.Info)
		}
		if n := w.asked(func() { st = w.stat(m, "/data/a/f") }); n != 0 || !st.Info.FromCache {
			w.Errorf("the second stat asked the storage %d times: %+v", n, st)
		}
		if st.Freshness.Interval != freshet.Never || st.Freshness.Rule != "/data" || !st.Freshness.Fresh {
			w.Errorf("freshness: %+v", st.Freshness)
		}
	})
}

func TestTimeBasedSyncFindsAChangeAfterItsIntervalAndNotBefore(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.stat(m, "/data/f")
		time.Sleep(30 * time.Second)
		w.store.Put("f", []byte("three"))
		time.Sleep(30*time.Second - time.Nanosecond)
		var st freshet.Status
		if n := w.asked(func() { st = w.stat(m, "/data/f") }); n != 0 || st.Info.Length != 3 {
			w.Errorf("before the interval: %d calls, %+v", n, st.Info)
		}
		time.Sleep(time.Nanosecond)
		if n := w.asked(func() { st = w.stat(m, "/data/f") }); n != 1 || st.Info.Length != 5 {
			w.Errorf("after the interval: %d calls, %+v", n, st.Info)
		}
	})
}

func TestAgeCountsFromTheStartOfTheLook(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.onStep(func(step, _ string) error {
			if step == "stat" {
				time.Sleep(20 * time.Second)
			}
			return nil
		})
		w.stat(m, "/data/f")
		w.onStep(nil)
		time.Sleep(40 * time.Second) // a minute after the look began, 40 s after its answer
		if n := w.asked(func() { w.stat(m, "/data/f") }); n != 1 {
			w.Errorf("asked the storage %d times", n)
		}
	})
}

func TestAnUnchangedSyncProposesNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for _, k := range []string{"a", "b/1", "b/2", "c-", "c/1"} {
			w.store.Put("d/"+k, []byte(k))
		}
		m := w.leader()
		sync := func() {
			if err := m.Sync(w.Context(), "/data", true, func(freshet.SyncProgress) error { return nil }); err != nil {
				w.Error(err)
			}
		}
		if n := w.entries(m, sync); n == 0 {
			w.Error("the first sync changed nothing")
		}
		w.stat(m, "/data")
		if n := w.entries(m, sync); n != 0 {
			w.Errorf("an unchanged sync made %d log entries", n)
		}
		always := freshet.Always
		n := w.entries(m, func() {
			for _, p := range []freshet.Path{"/data/d/a", "/data/d/b", "/data/d/b/1"} {
				if _, err := m.Stat(w.Context(), p, freshet.ReadOptions{SyncInterval: &always}); err != nil {
					w.Error(err)
				}
			}
		})
		if n != 0 {
			w.Errorf("looks at unchanged entries made %d log entries", n)
		}
	})
}

func TestADirectorySyncIsOneListCallPerPage(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for i := range 35 { // pages of 10
			w.store.Put("d/f"+string(rune('a'+i/10))+string(rune('0'+i%10)), []byte("x"))
		}
		m := w.leader()
		before := w.store.Calls()
		if got := w.list(m, "/data/d"); len(got) != 35 || !slices.IsSorted(got) {
			w.Errorf("listed %v", got)
		}
		after := w.store.Calls()
		if n := after["list"] - before["list"]; n != 4 {
			w.Errorf("%d list calls for 4 pages", n)
		}
		if n := after["stat"] - before["stat"]; n != 0 {
			w.Errorf("%d stats", n)
		}
		n := w.asked(func() {
			w.stat(m, "/data/d/fa0")
			w.statKind(m, "/data/d/missing", freshet.KindNotExist)
			w.list(m, "/data/d")
		})
		if n != 0 {
			w.Errorf("what the listing told was asked again: %d calls", n)
		}
	})
}

func TestAnOutageIsNeverNotFound(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errDown, freshet.Errorf(freshet.KindPermission, "call", "", "denied"), errors.New("odd")} {
		inBubble(t, settings{}, func(w *world) {
			w.store.Put("d/f", []byte("one"))
			m := w.leader()
			w.onStep(func(string, string) error { return cause })
			want := freshet.KindOf(cause)
			for range 2 {
				w.statKind(m, "/data/d/f", want)
				w.statKind(m, "/data/d", want)
				_, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d"})
				w.wantKind(err, want)
			}
			w.onStep(nil)
			if st := w.stat(m, "/data/d/f"); st.Info.Length != 3 {
				w.Errorf("after the outage: %+v", st.Info)
			}
		})
	}
}

func TestAFailedSyncIsNoSuccess(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		w.list(m, "/data/d")
		time.Sleep(time.Minute)
		w.onStep(func(string, string) error { return errDown })
		w.statKind(m, "/data/d/f", freshet.KindUnavailable)
		_, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d"})
		w.wantKind(err, freshet.KindUnavailable)
		err = m.Sync(w.Context(), "/data/d", true, func(freshet.SyncProgress) error { return nil })
		w.wantKind(err, freshet.KindUnavailable)
		w.onStep(nil)
		w.store.Put("d/f", []byte("three"))
		if st := w.stat(m, "/data/d/f"); st.Info.Length != 5 {
			w.Errorf("the failed look counted: %+v", st)
		}
	})
}

func TestAListingThatBreaksInTheMiddleRemovesNothing(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for i := range 25 {
			w.store.Put("d/f"+string(rune('a'+i)), []byte("x"))
		}
		m := w.leader()
		w.list(m, "/data/d")
		pages := 0
		w.onStep(func(step, _ string) error {
			if step == "list" {
				if pages++; pages == 2 {
					return errDown
				}
			}
			return nil
		})
		err := m.Sync(w.Context(), "/data/d", false, func(freshet.SyncProgress) error { return nil })
		w.wantKind(err, freshet.KindUnavailable)
		w.onStep(nil)
		if got := w.list(m, "/data/d"); len(got) != 25 {
			w.Errorf("%d entries are left", len(got))
		}
	})
}

func TestListingFollowsTheStorage(t *testing.T) {
	t.Parallel()
	for _, mode := range []mem.Mode{mem.Object, mem.Local} {
		always := freshet.Always
		inBubble(t, settings{mode: mode}, func(w *world) {
			m := w.leader()
			check := func(want ...string) {
				w.Helper()
				page, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d", Options: freshet.ReadOptions{SyncInterval: &always}})
				if err != nil {
					w.Fatal(err)
				}
				if got := pathsOf(page); !slices.Equal(got, want) {
					w.Errorf("mode %d: got %v, want %v", mode, got, want)
				}
			}
			for _, k := range []string{"a/1", "a-", "a.b/1", "b", "z"} {
				w.store.Put("d/"+k, []byte("x"))
			}
			check("/data/d/a", "/data/d/a-", "/data/d/a.b", "/data/d/b", "/data/d/z")
			w.store.Remove("d/a-")
			w.store.Remove("d/z")
			w.store.Put("d/c", []byte("x"))
			check("/data/d/a", "/data/d/a.b", "/data/d/b", "/data/d/c")
			if mode == mem.Local {
				return
			}
			w.store.Remove("d/a/1") // a directory becomes a file, and a file a directory
			w.store.Put("d/a", []byte("file"))
			w.store.Remove("d/b")
			w.store.Put("d/b/1", []byte("x"))
			check("/data/d/a", "/data/d/a.b", "/data/d/b", "/data/d/c")
			if st := w.stat(m, "/data/d/a"); st.Info.Type != freshet.TypeFile {
				w.Errorf("a: %+v", st.Info)
			}
			if st := w.stat(m, "/data/d/b"); st.Info.Type != freshet.TypeDirectory {
				w.Errorf("b: %+v", st.Info)
			}
			if got := w.list(m, "/data/d/b"); !slices.Equal(got, []string{"/data/d/b/1"}) {
				w.Errorf("b: %v", got)
			}
		})
	}
}

func TestReadersShareALook(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		w.onStep(func(step, _ string) error {
			if step == "stat" {
				time.Sleep(time.Second)
			}
			return nil
		})
		n := w.asked(func() {
			for range 10 {
				go func() {
					if _, err := m.Stat(w.Context(), "/data/f", freshet.ReadOptions{}); err != nil {
						w.Error(err)
					}
				}()
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
		})
		if n != 1 {
			w.Errorf("%d looks", n)
		}
	})
}

func TestC27AlwaysJoinsNoLookThatBeganBefore(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		m := w.leader()
		always := freshet.Always
		get := func() int64 {
			st, err := m.Stat(w.Context(), "/data/f", freshet.ReadOptions{SyncInterval: &always})
			if err != nil {
				w.Error(err)
			}
			return st.Info.Length
		}
		get()
		answered := make(chan struct{})
		first := true
		w.onStep(func(step, _ string) error {
			if step == "read" || step != "stat" {
				return nil
			}
			if first {
				first = false
				close(answered)
				time.Sleep(10 * time.Second)
			}
			return nil
		})
		go get()
		<-answered
		time.Sleep(time.Second)
		w.store.Put("f", []byte("three"))
		var n int64
		calls := w.asked(func() { n = get() })
		if n != 5 || calls != 1 {
			w.Errorf("got the version of %d bytes after %d looks", n, calls)
		}
	})
}

func TestC11ABigDirectoryIsListedInSegmentsWithoutExtraCalls(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		const n = 405 // 41 pages of 10, in segments of 16 pages
		for i := range n {
			w.store.Put(fmt.Sprintf("d/f%03d", i), []byte("one"))
		}
		m := w.leader()
		p := newPeer(w, m)
		pages := 0
		w.onStep(func(step, _ string) error {
			if step != "list" {
				return nil
			}
			if pages++; pages == 10 { // in the first segment: an entry of a later one changes
				w.store.Put("d/f400", []byte("three"))
				p.publish(invalidation.KindContent, "/d/f400")
			}
			return nil
		})
		if err := m.Sync(w.Context(), "/data/d", false, func(freshet.SyncProgress) error { return nil }); err != nil {
			w.Fatal(err)
		}
		if pages != 41 {
			w.Errorf("%d list calls for 41 pages", pages)
		}
		if k := w.asked(func() {
			if st := w.stat(m, "/data/d/f400"); st.Info.Length != 5 {
				w.Errorf("f400: %+v", st.Info)
			}
		}); k != 0 {
			w.Errorf("what a later segment read was asked again: %d calls", k)
		}
		w.onStep(nil)
		before := w.store.Calls()["list"]
		if got := w.pages(m, "/data/d", 100, false); len(got) != n {
			w.Errorf("%d entries", len(got))
		}
		if k := w.store.Calls()["list"] - before; k != 41 { // the mark left the listing as a whole in doubt
			w.Errorf("%d list calls", k)
		}
	})
}

func TestAClusterWithoutMounts(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{seeds: []freshet.MountChange{}}, func(w *world) {
		w.store.Put("f", []byte("x"))
		m := w.leader()
		if got := w.list(m, "/"); len(got) != 0 {
			w.Errorf("listed %v", got)
		}
		w.statKind(m, "/f", freshet.KindNotExist)
		if _, err := m.AddMount(w.Context(), mount("/", "mem://lake", freshet.Never)); err != nil {
			w.Fatal(err)
		}
		if got := w.list(m, "/"); !slices.Equal(got, []string{"/f"}) {
			w.Errorf("listed %v", got)
		}
		if err := m.Sync(w.Context(), "/", true, func(freshet.SyncProgress) error { return nil }); err != nil {
			w.Error(err)
		}
	})
}
