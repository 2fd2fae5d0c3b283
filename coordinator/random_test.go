package coordinator_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs/mem"
)

// TestS1NothingStaysStale lets another cluster and this one change the storage
// while readers look, with every call to the storage taking its time. When all
// is quiet every path must be what the storage has, without a forced sync.
func TestS1NothingStaysStale(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		for _, mode := range []mem.Mode{mem.Object, mem.Local} {
			t.Run(fmt.Sprintf("mode%d/seed%d", mode, seed), func(t *testing.T) {
				inBubble(t, settings{mode: mode}, func(w *world) { nothingStaysStale(w, seed) })
			})
		}
	}
}

func nothingStaysStale(w *world, seed uint64) {
	m := w.leader()
	p := newPeer(w, m)
	if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/own"}); err != nil {
		w.Fatal(err)
	}
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
	until := time.Now().Add(3 * time.Second)
	run := func(n uint64, fn func(rng *rand.Rand)) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, n))
			for time.Now().Before(until) {
				fn(rng)
				time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
			}
		})
	}
	run(2, func(rng *rand.Rand) { w.foreign(p, rng) })
	for i := range uint64(3) {
		run(3+i, func(rng *rand.Rand) { w.read(m, rng) })
	}
	run(9, func(rng *rand.Rand) {
		dir := freshet.Path("/data/own/" + string(rune('a'+rng.IntN(4))))
		var err error
		if rng.IntN(2) == 0 {
			_, err = m.Mkdir(w.Context(), freshet.MkdirQuery{Path: dir, Parents: true})
		} else {
			_, err = m.Remove(w.Context(), freshet.RemoveQuery{Path: dir, Recursive: true})
		}
		if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict) {
			w.Error(err)
		}
	})
	wg.Wait()
	w.onStep(nil)
	w.agrees(m)
}

// foreign changes the storage as another cluster would, and publishes it.
func (w *world) foreign(p *peer, rng *rand.Rand) {
	key := w.randomKey(rng)
	switch rng.IntN(3) {
	case 0:
		if w.store.Remove(key) {
			p.publish(invalidation.KindDelete, "/"+key)
		}
	case 1:
		if _, ok := w.store.Snapshot()[key]; ok {
			w.store.Put(key, []byte(strings.Repeat("x", rng.IntN(100))))
			p.publish(invalidation.KindContent, "/"+key)
			return
		}
		fallthrough
	default:
		w.store.Put(key, []byte(strings.Repeat("y", rng.IntN(100))))
		p.publish(invalidation.KindCreate, "/"+key)
	}
}

func (w *world) randomKey(rng *rand.Rand) string {
	return fmt.Sprintf("%c/%c/f%d", 'a'+rng.IntN(3), 'a'+rng.IntN(3), rng.IntN(4))
}

func (w *world) read(m *member, rng *rand.Rand) {
	p := freshet.Path("/data/" + w.randomKey(rng))
	var err error
	switch rng.IntN(4) {
	case 0:
		_, err = m.List(w.Context(), freshet.ListQuery{Path: p.Parent()})
	case 1:
		_, err = m.List(w.Context(), freshet.ListQuery{Path: "/data", Recursive: true})
	case 2:
		_, err = m.Stat(w.Context(), p.Parent(), freshet.ReadOptions{})
	default:
		_, err = m.Stat(w.Context(), p, freshet.ReadOptions{})
	}
	if err != nil && !errors.Is(err, freshet.KindNotExist) {
		w.Errorf("read %s: %v", p, err)
	}
}

// agrees checks that the cluster serves what the storage has: all of it and
// nothing else, each file in its present version.
func (w *world) agrees(m *member) {
	w.Helper()
	want := w.store.Snapshot()
	for key, data := range want {
		st, err := m.Stat(w.Context(), freshet.Path("/data/"+key), freshet.ReadOptions{})
		if err != nil || st.Info.Length != int64(len(data)) {
			w.Errorf("%s has %d bytes, not %d: %v", key, st.Info.Length, len(data), err)
		}
	}
	for _, d := range []string{"a", "b", "c"} {
		for _, e := range []string{"a", "b", "c"} {
			for f := range 4 {
				key := fmt.Sprintf("%s/%s/f%d", d, e, f)
				if _, ok := want[key]; !ok {
					w.statKind(m, "/data/"+key, freshet.KindNotExist)
				}
			}
		}
	}
	page, err := m.List(w.Context(), freshet.ListQuery{Path: "/data", Recursive: true})
	if err != nil {
		w.Fatal(err)
	}
	var files, keys []string
	for _, e := range page.Entries {
		if e.Type == freshet.TypeFile {
			files = append(files, strings.TrimPrefix(string(e.Path), "/data/"))
			if e.Length != int64(len(want[files[len(files)-1]])) {
				w.Errorf("the listing has %d bytes for %s", e.Length, e.Path)
			}
		}
	}
	for key := range want {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if !slices.Equal(files, keys) {
		w.Errorf("listed %v, the storage has %v", files, keys)
	}
	always := freshet.Always
	again, err := m.List(w.Context(), freshet.ListQuery{Path: "/data", Recursive: true, Options: freshet.ReadOptions{SyncInterval: &always}})
	if err != nil || !slices.Equal(pathsOf(page), pathsOf(again)) {
		w.Errorf("directories differ: served %v, the storage has %v: %v", pathsOf(page), pathsOf(again), err)
	}
}
