package store_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
)

// hanging lets accesses to directories hang.
type hanging struct {
	mu    sync.Mutex
	until map[string]chan struct{}
}

func (h *hanging) fault(dir, _ string) error {
	h.mu.Lock()
	wait := h.until[dir]
	h.mu.Unlock()
	if wait != nil {
		<-wait
	}
	return nil
}

func (h *hanging) hang(dir string) (release func()) {
	c := make(chan struct{})
	h.mu.Lock()
	h.until = map[string]chan struct{}{dir: c}
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		h.until = nil
		h.mu.Unlock()
		close(c)
	}
}

// TestADiskThatHangsHoldsUpNothingElse: a directory that does not answer leaves
// service after a while. Meanwhile, and while it is away, all others are read and
// written, and blocks are removed and move; when it answers it comes back.
func TestADiskThatHangsHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{}
		s, err := store.Open([]store.Tier{dirs(store.SSD, 6*room, a, b), dirs(store.HDD, 20*room, c)}, store.Options{Fault: h.fault})
		check(t, err)
		w := &world{t: t, s: s}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { check(t, s.Run(ctx)) })
		w.put(1, 2, 3, 4)
		inA := blocksOf(t, s, a, b)
		release := h.hang(a)

		began := time.Now()
		for _, id := range inA[a] {
			if err := w.read(id); !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindCorrupt, freshet.KindNotExist) {
				t.Errorf("a read of the directory that hangs gives %v", err)
			}
		}
		if took := time.Since(began); took < 15*time.Second || took > 20*time.Second {
			t.Errorf("reads were given up after %v", took)
		}
		began = time.Now()
		for _, id := range inA[b] {
			check(t, w.read(id))
		}
		w.put(5, 6)
		s.Remove(inA[a][0])
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the other directories waited %v", took)
		}
		synctest.Wait()
		if st := s.Status()[0]; st.Dirs[0].State != "failed" || st.Dirs[1].State != "serving" {
			t.Errorf("the directories are %+v", st.Dirs)
		}
		for n := 10; n < 20; n++ { // more than b holds: blocks move down
			w.put(n)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			check(t, w.read(block(n)))
		}
		if st := s.Status()[1]; st.Used == 0 {
			t.Error("no block moved down")
		}
		release()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if st := s.Status()[0]; st.Dirs[0].State != "serving" {
			t.Errorf("the directory answers and is %+v", st.Dirs[0])
		}
		for _, id := range inA[a][1:] {
			check(t, w.read(id))
		}

		release = h.hang(c) // what hangs does not keep Run from ending
		_ = w.read(block(10))
		cancel()
		run.Wait()
		release()
		synctest.Wait()
		check(t, s.Close())
	})
}

// blocksOf says in which of two directories blocks are.
func blocksOf(t *testing.T, s *store.Store, paths ...string) map[string][]freshet.BlockID {
	t.Helper()
	in := map[string][]freshet.BlockID{}
	for _, r := range s.List() {
		in[s.Where(r.ID)] = append(in[s.Where(r.ID)], r.ID)
	}
	for _, p := range paths {
		if len(in[p]) == 0 {
			t.Fatalf("%s has no block: %v", p, in)
		}
	}
	return in
}
