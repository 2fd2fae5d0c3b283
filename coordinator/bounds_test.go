package coordinator_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/ufs"
)

// bounded is a storage that takes bounds.
type bounded struct {
	ufs.FS
	to *bounds
}

type bounds struct {
	mu  sync.Mutex
	now []ufs.Guards
}

func (f bounded) Adjust(g ufs.Guards) {
	f.to.mu.Lock()
	defer f.to.mu.Unlock()
	f.to.now = append(f.to.now, g)
}

// last returns the bounds that hold; not ok if none were given yet.
func (b *bounds) last() (g ufs.Guards, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.now) == 0 {
		return g, false
	}
	return b.now[len(b.now)-1], true
}

// TestBoundsOfAMountChangeWhileASyncRuns: they reach the storage that is open, and
// nothing that is known or under way is lost for it.
func TestBoundsOfAMountChangeWhileASyncRuns(t *testing.T) {
	t.Parallel()
	var given bounds
	inBubble(t, settings{options: func(o *coordinator.Options) {
		o.WrapMount = func(_ freshet.Mount, fs ufs.FS) ufs.FS { return bounded{fs, &given} }
	}}, func(w *world) {
		w.wide(40)
		m := w.leader()
		before := w.stat(m, "/data/d001/f")
		w.slow(time.Second)
		id := w.startSync(m, freshet.Always)
		time.Sleep(3500 * time.Millisecond) // between two pages
		change := func(options map[string]string) (freshet.MountAnswer, error) {
			return m.UpdateMount(w.Context(), freshet.MountChange{Path: "/data", Options: options})
		}
		n := w.asked(func() {
			a, err := change(map[string]string{ufs.OptionMaxRequestsPerSecond: "50", ufs.OptionMaxConcurrentRequests: "4"})
			if err != nil || a.Mount.Generation != 1 || a.Mount.Options[ufs.OptionMaxRequestsPerSecond] != "50" {
				w.Errorf("%+v, %v", a, err)
			}
		})
		if n != 0 {
			w.Errorf("a change of bounds asked the storage %d times", n)
		}
		_, err := change(map[string]string{ufs.OptionMaxRequestsPerSecond: "fast"})
		w.wantKind(err, freshet.KindInvalid)
		if end := w.ended(id); end.State != freshet.SyncDone || end.Progress.Failed != 0 || end.Progress.Directories != 41 {
			w.Errorf("the sync beside it: %+v", end)
		}
		if g, ok := given.last(); !ok || g.RequestsPerSecond != 50 || g.ConcurrentRequests != 4 {
			w.Errorf("the open storage has %+v (%v)", g, ok)
		}
		if n := w.asked(func() {
			if st := w.stat(m, "/data/d001/f"); st.Info.FileID != before.Info.FileID {
				w.Errorf("another version: %+v", st.Info)
			}
		}); n != 0 {
			w.Errorf("what was known was asked for again, %d times", n)
		}
		if _, err := change(map[string]string{ufs.OptionMaxRequestsPerSecond: ""}); err != nil {
			w.Error(err)
		}
		for g, _ := given.last(); g.RequestsPerSecond != 0; g, _ = given.last() {
			select {
			case <-time.After(time.Millisecond):
			case <-w.Context().Done():
				w.Fatal(context.Cause(w.Context()))
			}
		}
		a, err := change(map[string]string{ufs.OptionMaxOpLifetime: "1h"})
		if err != nil || a.Mount.Generation == 1 {
			w.Errorf("another option is another generation: %+v, %v", a.Mount, err)
		}
	})
}
