package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

func TestExplainSaysWhenAnAbsentPathWasLookedAt(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		w.statKind(m, "/data/none", freshet.KindNotExist)
		time.Sleep(20 * time.Second)
		for _, p := range []freshet.Path{"/data/none", "/data/none/below"} {
			x, err := m.Explain(w.Context(), p, false)
			if err != nil || x.Verdict != "absent" || !strings.Contains(x.Reason, "looked at 20s ago") || !strings.Contains(x.Reason, "/data/none") || !strings.Contains(x.NextCheck, "in 40s") {
				w.Errorf("%s: %+v, %v", p, x, err)
			}
		}
		time.Sleep(40 * time.Second)
		if x, err := m.Explain(w.Context(), "/data/none", false); err != nil || x.Verdict == "absent" {
			w.Errorf("after a minute: %+v, %v", x, err)
		}
	})
}

// TestAbsentPathsFollowRecordsAndLeaders has what makes a path exist come from
// another cluster, and from a client through a new leader.
func TestAbsentPathsFollowRecordsAndLeaders(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		m := w.leader()
		p := newPeer(w, m)
		w.statKind(m, "/data/d/f", freshet.KindNotExist)
		if n := w.asked(func() { w.statKind(m, "/data/d/f", freshet.KindNotExist) }); n != 0 {
			w.Errorf("asked %d times for what is known to be absent", n)
		}
		w.store.Put("d/f", []byte("one"))
		p.publish(invalidation.KindCreate, "/d/f")
		w.stat(m, "/data/d/f")
		w.statKind(m, "/data/new", freshet.KindNotExist)
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/new/deep", Parents: true}); err != nil {
			w.Fatal(err)
		}
		w.stat(m, "/data/new")
		w.stat(m, "/data/new/deep")
		w.statKind(m, "/data/gone", freshet.KindNotExist)
		w.halt(m)
		other := w.leader()
		if n := w.asked(func() { w.statKind(other, "/data/gone", freshet.KindNotExist) }); n == 0 {
			w.Error("a new leader knows what an earlier one looked at")
		}
	})
}
