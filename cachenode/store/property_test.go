package store_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
)

// TestAnythingGoes does random things to three tiers and holds the store after each
// of them to what it promises: no tier takes more than it may, what the node was
// told is what there is, and whatever is read is right.
func TestAnythingGoes(t *testing.T) {
	t.Parallel()
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, memory(4*room), dirs(store.SSD, 4*room, a, b), dirs(store.HDD, 6*room, c))
		defer w.s.Clear()
		draw := func(rt *rapid.T) freshet.BlockID { return block(rapid.IntRange(1, 30).Draw(rt, "file")) }
		removed := map[freshet.BlockID]bool{}
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				id := draw(rt)
				err := w.tryPut(id)
				if err == nil {
					removed[id] = false
				} else if !freshet.IsKind(err, freshet.KindExist, freshet.KindExhausted, freshet.KindUnavailable) {
					rt.Fatal(err)
				}
			},
			"read": func(rt *rapid.T) {
				w.clock.Advance(time.Second)
				id := draw(rt)
				if err := w.read(id); err == nil && removed[id] {
					rt.Fatalf("block %v was removed", id)
				}
			},
			"remove": func(rt *rapid.T) {
				id := draw(rt)
				w.s.Remove(id)
				removed[id] = true
			},
			"pin":     func(rt *rapid.T) { w.s.Pin(rapid.Bool().Draw(rt, "only"), draw(rt).File) },
			"shed":    func(*rapid.T) { w.s.Shed(t.Context()) },
			"promote": func(*rapid.T) { w.s.Promote() },
			"fail": func(rt *rapid.T) {
				w.setFault(rapid.SampledFrom([]string{a, b, c}).Draw(rt, "dir"), syscall.EIO)
			},
			"mend": func(*rapid.T) {
				for _, d := range []string{a, b, c} {
					w.setFault(d, nil)
				}
			},
			"check": func(rt *rapid.T) {
				w.s.Check(rapid.Bool().Draw(rt, "again"))
				clear(removed) // what was removed while its directory was away comes back with it
			},
			"": func(rt *rapid.T) { w.invariants(rt) },
		})
		check(t, w.s.Close())
	})
}

func (w *world) invariants(rt *rapid.T) {
	for _, st := range w.s.Status() {
		if st.Used < 0 || st.Used > st.Capacity {
			rt.Fatalf("%s: %d bytes of %d are taken", st.Kind, st.Used, st.Capacity)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	told := 0
	for _, have := range w.have {
		if have {
			told++
		}
	}
	list := w.s.List()
	if len(list) != told {
		rt.Fatalf("the node was told of %d blocks and has %d", told, len(list))
	}
	for _, b := range list {
		if !w.have[b.ID] || b.Length != length {
			rt.Fatalf("the node was not told of %v", b)
		}
	}
}

// TestRunUnderLoad lets readers, writers and removals meet the moving of blocks and
// a directory that comes and goes. Afterwards what was removed for good is gone.
func TestRunUnderLoad(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	s, err := store.Open([]store.Tier{memory(5 * room), dirs(store.SSD, 8*room, a, b), dirs(store.HDD, 12*room, t.TempDir())},
		store.Options{PromoteReads: 1, CheckEvery: time.Millisecond})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	ctx, cancel := context.WithCancel(t.Context())
	var run, work sync.WaitGroup
	run.Go(func() { check(t, s.Run(ctx)) })
	for g := range 4 {
		work.Go(func() {
			w := &world{t: t, s: s}
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 300 {
				id := block(1 + rnd.IntN(40))
				switch {
				case rnd.IntN(20) == 0:
					s.Remove(id)
				case w.read(id) != nil:
					_ = w.tryPut(id) // another may be faster, or all may be in use
				}
			}
		})
	}
	work.Wait()
	for n := 1; n <= 40; n++ {
		s.Remove(block(n))
	}
	cancel()
	run.Wait()
	if list := s.List(); len(list) != 0 || s.Used() != 0 {
		t.Errorf("%d bytes and blocks %v are left", s.Used(), list)
	}
}
