package coordinator_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs/mem"
)

// job returns a sync as it is now.
func (w *world) job(m *member, id uint64) freshet.SyncJob {
	w.Helper()
	jobs, err := m.SyncJobs(w.Context(), id, "")
	if err != nil || len(jobs) != 1 {
		w.Fatalf("sync %d: %v, %v", id, jobs, err)
	}
	return jobs[0]
}

// startSync starts a recursive sync of the mount.
func (w *world) startSync(m *member, maxAge freshet.Interval) uint64 {
	w.Helper()
	j, err := m.StartSync(w.Context(), freshet.SyncQuery{Path: "/data", Recursive: true, MaxAge: maxAge})
	if err != nil {
		w.Fatal(err)
	}
	return j.ID
}

// ended waits for the end of a sync, whoever leads.
func (w *world) ended(id uint64) freshet.SyncJob {
	w.Helper()
	for range 600 {
		m := w.leader()
		if jobs, err := m.SyncJobs(w.Context(), id, ""); err == nil && jobs[0].State.Ended() {
			return jobs[0]
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.Fatalf("sync %d does not end", id)
	return freshet.SyncJob{}
}

// wide fills the storage with so many directories of two files.
func (w *world) wide(dirs int) {
	for i := range dirs {
		w.store.Put(fmt.Sprintf("d%03d/f", i), []byte("x"))
		w.store.Put(fmt.Sprintf("d%03d/g", i), []byte("y"))
	}
}

// slow lets every list call take that long.
func (w *world) slow(d time.Duration) {
	w.onStep(func(step, _ string) error {
		if step == "list" {
			time.Sleep(d)
		}
		return nil
	})
}

func TestASyncGoesOnWithoutItsCaller(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.wide(40)
		m := w.leader()
		w.slow(time.Second)
		q := freshet.SyncQuery{Op: freshet.OpID(uuid.New()), Path: "/data", Recursive: true}
		j, err := m.StartSync(w.Context(), q)
		if err != nil {
			w.Fatal(err)
		}
		if again, err := m.StartSync(w.Context(), q); err != nil || again.ID != j.ID {
			w.Errorf("the same call again started %+v, %v", again, err)
		}
		time.Sleep(3 * time.Second)
		now := w.job(m, j.ID)
		if now.State != freshet.SyncRunning || now.Progress.Entries == 0 || now.Progress.Entries >= 120 || now.Progress.Elapsed < 2*time.Second {
			w.Errorf("in the middle: %+v", now)
		}
		end := w.ended(j.ID)
		if end.State != freshet.SyncDone || !end.Progress.Done || end.Progress.Directories != 41 || end.Progress.Entries != 121 || end.EndedAt.IsZero() {
			w.Errorf("at the end: %+v", end)
		}
		w.onStep(nil)
		w.store.Put("d001/h", []byte("z"))
		if end := w.ended(w.startSync(m, freshet.Always)); end.Progress.Changed != 1 {
			w.Errorf("one entry came: %+v", end)
		}
		for p, want := range map[freshet.Path]int{"": 2, "/": 2, "/data": 2, "/data/d001": 2, "/other": 0} {
			if jobs, err := m.SyncJobs(w.Context(), 0, p); err != nil || len(jobs) != want {
				w.Errorf("%d syncs concern %q, want %d: %v", len(jobs), p, want, err)
			}
		}
		_, err = m.SyncJobs(w.Context(), 12345, "")
		w.wantKind(err, freshet.KindNotExist)
		none, err := m.StartSync(w.Context(), freshet.SyncQuery{Path: "/data/none", Recursive: true})
		if err != nil {
			w.Fatal(err)
		}
		if end := w.ended(none.ID); end.State != freshet.SyncFailed || end.Kind != freshet.KindNotExist || end.Error == "" {
			w.Errorf("of what does not exist: %+v", end)
		}
	})
}

func TestACancelledSyncEndsAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.wide(40)
		m := w.leader()
		w.slow(time.Second)
		id := w.startSync(m, freshet.Always)
		time.Sleep(2500 * time.Millisecond)
		j, err := m.CancelSync(w.Context(), id)
		if err != nil || j.State != freshet.SyncCancelled || j.Progress.Entries == 0 {
			w.Errorf("cancelled: %+v, %v", j, err)
		}
		time.Sleep(2 * time.Second)
		if n := w.asked(func() { time.Sleep(10 * time.Second) }); n != 0 {
			w.Errorf("a cancelled sync asked the storage %d times", n)
		}
		if j, err = m.CancelSync(w.Context(), id); err != nil || j.State != freshet.SyncCancelled {
			w.Errorf("cancelled again: %+v, %v", j, err)
		}
		w.slow(0)
		id = w.startSync(m, freshet.Always)
		w.ended(id)
		_, err = m.CancelSync(w.Context(), id)
		w.wantKind(err, freshet.KindConflict)
		_, err = m.CancelSync(w.Context(), id+1000)
		w.wantKind(err, freshet.KindNotExist)
	})
}

// TestASyncSurvivesAChangeOfLeader ends the leader in the middle of a sync of a
// storage that others change: the next leader starts it anew, and when it ends
// after quiet the cluster holds what the storage has.
func TestASyncSurvivesAChangeOfLeader(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			inBubble(t, settings{members: 3, mode: mem.Mode(seed % 2)}, func(w *world) {
				w.wide(40)
				m := w.leader()
				f := &foreigner{TB: w, fs: w.store.FS(""), rng: rand.New(rand.NewPCG(seed, 11))}
				lists := 1 + f.rng.IntN(9)
				var n atomic.Int64
				reached := make(chan struct{})
				w.onStep(func(step, _ string) error {
					if step == "list" {
						time.Sleep(50 * time.Millisecond)
						if n.Add(1) == int64(lists) {
							close(reached)
						}
					}
					return nil
				})
				id := w.startSync(m, freshet.Always)
				var wg sync.WaitGroup
				wg.Go(func() {
					for range 20 {
						f.change(w.Context())
						time.Sleep(5 * time.Millisecond)
					}
				})
				<-reached
				w.halt(m)
				wg.Wait() // quiet, long before there is a new leader
				next := w.leader()
				if next == m {
					w.Fatal("a member that was stopped leads")
				}
				if end := w.ended(id); end.State != freshet.SyncDone {
					w.Fatalf("under the next leader: %+v", end)
				}
				w.onStep(nil)
				sameTree(w, served(w, next.Coordinator, "/data"), f.holds("/data"))
			})
		})
	}
}

func TestADirectoryThatWasListedRecentlyIsSpared(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{mode: mem.Local}, func(w *world) {
		w.wide(20)
		w.store.Put("d003/deep/f", []byte("x"))
		m := w.leader()
		p := newPeer(w, m)
		all := w.ended(w.startSync(m, freshet.Always))
		if all.Progress.Directories != 22 || all.Progress.Fresh != 0 {
			w.Errorf("at first: %+v", all)
		}
		time.Sleep(time.Minute)
		w.list(m, "/data/d007")
		always := freshet.Always
		if _, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/d009", Options: freshet.ReadOptions{SyncInterval: &always}}); err != nil {
			w.Fatal(err)
		}
		// One subtree is old, of one entry another cluster said that it changed.
		w.store.Put("d003/deep/g", []byte("new"))
		w.store.Put("d005/f", []byte("changed"))
		p.publish(invalidation.KindContent, "/d005/f")
		w.store.Put("d007/f", []byte("unnoticed")) // nobody said so: it is young enough
		var end freshet.SyncJob
		n := w.asked(func() { end = w.ended(w.startSync(m, freshet.Interval(time.Hour))) })
		if end.Progress.Fresh != 21 || end.Progress.Changed != 1 || n != 1 {
			w.Errorf("of an hour: %d calls, %+v", n, end)
		}
		if st := w.stat(m, "/data/d005/f"); st.Info.Length != 7 {
			w.Errorf("what was marked: %+v", st.Info)
		}
		end = w.ended(w.startSync(m, freshet.Interval(30*time.Second)))
		if end.Progress.Fresh != 2 || end.Progress.Changed != 2 { // d005 and d009 were listed since
			w.Errorf("of half a minute: %+v", end)
		}
		if st := w.stat(m, "/data/d003/deep/g"); st.Info.Length != 3 {
			w.Errorf("what came: %+v", st.Info)
		}
	})
}

func TestWhoMayShareASync(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		maxAge freshet.Interval
		mark   bool
		lists  int
	}{
		{"whoever is content with what began before", freshet.Interval(time.Hour), false, 5},
		{"nobody whose call came later", freshet.Always, false, 10},
		{"nobody after a mark below", freshet.Interval(time.Hour), true, 6}, // the marked directory is listed again
	} {
		inBubble(t, settings{mode: mem.Local}, func(w *world) {
			w.wide(4)
			m := w.leader()
			p := newPeer(w, m)
			w.slow(time.Second)
			before := w.store.Calls()["list"]
			first := w.startSync(m, freshet.Always)
			time.Sleep(1500 * time.Millisecond)
			if tc.mark {
				w.store.Put("d001/new", []byte("x"))
				p.publish(invalidation.KindCreate, "/d001/new")
			}
			second := w.startSync(m, tc.maxAge)
			one, two := w.ended(first), w.ended(second)
			if one.State != freshet.SyncDone || two.State != freshet.SyncDone {
				w.Errorf("%s: %+v, %+v", tc.name, one, two)
			}
			if n := w.store.Calls()["list"] - before; n != tc.lists {
				w.Errorf("%s: %d lists, want %d", tc.name, n, tc.lists)
			}
			synctest.Wait()
		})
	}
}
