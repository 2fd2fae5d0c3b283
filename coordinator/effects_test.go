package coordinator_test

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

func TestAnOwnChangeNeedsNoLookWithinTheInterval(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		w.list(m, "/data/d")
		time.Sleep(40 * time.Second)
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/d/new"}); err != nil {
			w.Fatal(err)
		}
		x, err := m.Explain(w.Context(), "/data/d/new", false)
		if err != nil || x.Freshness.Age > time.Second {
			w.Errorf("right after: %+v, %v", x.Freshness, err)
		}
		time.Sleep(40 * time.Second) // the listing is older than the interval, what was made is not
		if n := w.asked(func() { w.stat(m, "/data/d/new") }); n != 0 {
			w.Errorf("asked the storage %d times for what was made 40s ago", n)
		}
		time.Sleep(20 * time.Second)
		if n := w.asked(func() { w.stat(m, "/data/d/new") }); n != 1 {
			w.Errorf("asked the storage %d times for what was made a minute ago", n)
		}
	})
}
