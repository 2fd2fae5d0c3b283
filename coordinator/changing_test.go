package coordinator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
	"github.com/freshet-io/freshet/ufs/mem"
)

// foreigner changes a storage behind the cluster's back.
type foreigner struct {
	testing.TB
	fs  ufs.FS
	rng *rand.Rand
}

// key returns one of few keys, at most four levels deep, so that files and
// directories get into each other's way and one name begins with another.
func (f *foreigner) key() string {
	names := []string{"a", "a-", "a0", "b", "c"}
	var parts []string
	for range 1 + f.rng.IntN(4) {
		parts = append(parts, names[f.rng.IntN(len(names))])
	}
	return strings.Join(parts, "/")
}

// change makes one change; many can't be made, and that is fine.
func (f *foreigner) change(ctx context.Context) {
	var err error
	switch key := f.key(); f.rng.IntN(10) {
	case 0, 1:
		err = f.fs.Remove(ctx, key, ufs.RemoveOptions{Recursive: true})
	case 2:
		_, err = f.fs.Rename(ctx, key, f.key())
	case 3:
		_, err = f.fs.Mkdir(ctx, key, ufs.MkdirOptions{Existing: true})
	default:
		err = f.write(ctx, key)
	}
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict, freshet.KindInvalid) {
		f.Error(err)
	}
}

func (f *foreigner) write(ctx context.Context, key string) error {
	out, err := f.fs.Create(ctx, key, ufs.CreateOptions{Op: freshet.OpID(uuid.New()), Size: -1})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(out, strings.Repeat("x", f.rng.IntN(200))); err != nil {
		return err
	}
	_, err = out.Commit(ctx)
	return err
}

// holds returns what the storage has: the length by path, -1 of a directory.
func (f *foreigner) holds(mount string) map[string]int64 {
	f.Helper()
	out := map[string]int64{}
	for st, err := range f.fs.List(context.Background(), "", ufs.ListOptions{Recursive: true}) {
		if err != nil {
			f.Fatal(err)
		}
		p := freshet.Path(mount + "/" + st.Key)
		if hidden(out, p.Parent()) {
			continue
		}
		if n, ok := out[string(p)]; ok && n >= 0 {
			continue
		}
		if out[string(p)] = st.Length; st.IsDir() {
			out[string(p)] = -1
		}
	}
	return out
}

// hidden reports whether a file is in the way of a directory, which a storage of
// objects may have: what is below it can't be named.
func hidden(files map[string]int64, dir freshet.Path) bool {
	for ; !dir.IsRoot(); dir = dir.Parent() {
		if n, ok := files[string(dir)]; ok && n >= 0 {
			return true
		}
	}
	return false
}

// served returns what a cluster serves without asking the storage.
func served(t testing.TB, m *coordinator.Coordinator, mount string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	q := freshet.ListQuery{Path: freshet.Path(mount), Recursive: true, Options: freshet.ReadOptions{SyncInterval: at(time.Duration(freshet.Never))}}
	for {
		page, err := m.List(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			if out[string(e.Path)] = e.Length; e.Type == freshet.TypeDirectory {
				out[string(e.Path)] = -1
			}
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return out
		}
	}
}

func sameTree(t testing.TB, got, want map[string]int64) {
	t.Helper()
	for p, n := range want {
		if g, ok := got[p]; !ok || g != n {
			t.Errorf("%s: the storage has %d, the cluster %d (%v)", p, n, g, ok)
		}
	}
	for p, n := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: the storage does not have it, the cluster %d", p, n)
		}
	}
}

func quiet(freshet.SyncProgress) error { return nil }

// TestASyncOfAChangingStorageEndsEqual lets others change a storage while it is
// synced again and again, and read. After quiet one more sync makes the cluster
// hold exactly what the storage has.
func TestASyncOfAChangingStorageEndsEqual(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		for _, mode := range []mem.Mode{mem.Object, mem.Local} {
			t.Run(fmt.Sprintf("mem%d/seed%d", mode, seed), func(t *testing.T) {
				narrow := func(o *coordinator.Options) {
					o.Sync.Frontier = 1 + int(seed%3)*5
					o.Sync.SegmentPages = 1 + int(seed%4) // flat listings of several segments, some of which are given up
					o.Sync.Parallel = 1 + int(seed%8)
				}
				inBubble(t, settings{mode: mode, options: narrow}, func(w *world) {
					m := w.leader()
					f := &foreigner{TB: w, fs: w.store.FS(""), rng: rand.New(rand.NewPCG(seed, 7))}
					var mu sync.Mutex
					delays := rand.New(rand.NewPCG(seed, 8))
					w.onStep(func(string, string) error {
						mu.Lock()
						d := time.Duration(delays.IntN(20)) * time.Millisecond
						mu.Unlock()
						time.Sleep(d)
						return nil
					})
					f.disturb(m.Coordinator, "/data", 120, func() { time.Sleep(5 * time.Millisecond) })
					w.onStep(nil)
					if err := m.Sync(w.Context(), "/data", true, quiet); err != nil {
						w.Fatal(err)
					}
					var got map[string]int64
					if n := w.asked(func() { got = served(w, m.Coordinator, "/data") }); n != 0 {
						w.Errorf("after the sync the storage was asked %d times", n)
					}
					sameTree(w, got, f.holds("/data"))
				})
			})
		}
	}
}

func TestASyncOfAChangingDirectoryEndsEqual(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			dir := t.TempDir()
			fs, err := local.Opener{}.Open(ufs.Spec{URI: "file://" + dir}, ufs.Environment{})
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close() //nolint:errcheck // nothing of it is used afterwards
			c := localCluster(t, dir, freshet.Never)
			f := &foreigner{TB: t, fs: fs, rng: rand.New(rand.NewPCG(seed, 9))}
			f.disturb(c, "", 150, func() { time.Sleep(time.Millisecond) })
			if err := c.Sync(t.Context(), "/", true, quiet); err != nil {
				t.Fatal(err)
			}
			sameTree(t, served(t, c, "/"), rooted(f.holds("")))
		})
	}
}

func rooted(m map[string]int64) map[string]int64 {
	delete(m, "/")
	return m
}

// disturb makes so many changes while two sync and one reads, until each of them
// saw the storage change.
func (f *foreigner) disturb(c *coordinator.Coordinator, mount string, changes int, pause func()) {
	root := freshet.Path(mount + "/")
	if mount != "" {
		root = freshet.Path(mount)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	repeat := func(fn func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := fn(); err != nil && ctx.Err() == nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict) {
					f.Error(err)
				}
				pause()
			}
		})
	}
	for range 2 {
		repeat(func() error { return c.Sync(ctx, root, true, quiet) })
	}
	repeat(func() error {
		_, err := c.List(ctx, freshet.ListQuery{Path: root, Recursive: true, Options: freshet.ReadOptions{SyncInterval: at(10 * time.Millisecond)}})
		return err
	})
	for range changes {
		f.change(ctx)
		pause()
	}
	stop()
	wg.Wait()
}

func TestASyncCountsWhatChanged(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{mode: mem.Local}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		sync := func(p freshet.Path, recursive bool) (last freshet.SyncProgress) {
			w.Helper()
			if err := m.Sync(w.Context(), p, recursive, func(pr freshet.SyncProgress) error { last = pr; return nil }); err != nil {
				w.Error(err)
			}
			return last
		}
		if got := sync("/data/d/f", false); got.Entries != 1 || got.Changed != 1 || !got.Done {
			w.Errorf("a file that was not held: %+v", got)
		}
		if got := sync("/data/d/f", false); got.Entries != 1 || got.Changed != 0 {
			w.Errorf("a file that did not change: %+v", got)
		}
		w.store.Put("d/f", []byte("three"))
		if got := sync("/data/d/f", false); got.Entries != 1 || got.Changed != 1 {
			w.Errorf("a file that changed: %+v", got)
		}
		sync("/data", true)
		w.store.Put("d/f", []byte("fourteen"))
		w.store.Put("d/g", []byte("x"))
		if got := sync("/data", true); got.Changed != 2 || got.Directories != 2 || got.Failed != 0 {
			w.Errorf("a tree in which two changed: %+v", got)
		}
	})
}
