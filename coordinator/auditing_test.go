package coordinator_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
)

func audited(perSecond float64) func(*coordinator.Options) {
	return func(o *coordinator.Options) { o.Audit.PerSecond = perSecond }
}

func TestTheAuditIsOffUnlessItIsAskedFor(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		w.tamper(m)
		if n := w.asked(func() { time.Sleep(time.Hour) }); n != 0 {
			w.Errorf("the storage was asked %d times", n)
		}
	})
}

func TestTheAuditCountsWhatIsServedWithoutAnExcuse(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	seeds := []freshet.MountChange{mount("/data", "mem://lake/a", freshet.Never), mount("/timed", "mem://lake/b", freshet.Interval(1000*time.Hour))}
	inBubble(t, settings{seeds: seeds, metrics: reg, options: audited(1)}, func(w *world) {
		m := w.leader()
		for _, key := range []string{"a/f", "a/g", "a/h", "b/f"} {
			w.store.Put(key, []byte("1"))
		}
		w.list(m, "/data")
		w.list(m, "/timed")
		count := func(window string) float64 {
			return value(w, reg, "freshet_consistency_violations_total", "window", window)
		}
		time.Sleep(10 * time.Minute)
		before := value(w, reg, "freshet_audit_entries_total", "", "")
		if count("0s") != 0 || before == 0 {
			w.Errorf("%v violations in %v entries of what agrees", count("0s"), before)
		}
		calls := w.asked(func() { time.Sleep(10 * time.Minute) })
		if n := value(w, reg, "freshet_audit_entries_total", "", "") - before; n > 600 || n < 100 || calls > 600 {
			w.Errorf("%v entries and %d calls in ten minutes at one entry a second", n, calls)
		}
		w.store.Put("a/f", []byte("22")) // nobody is told
		w.store.Put("b/f", []byte("22")) // which the interval allows
		time.Sleep(5 * time.Minute)
		if count("0s") == 0 || count("1m") == 0 {
			w.Errorf("%v found, %v of them again", count("0s"), count("1m"))
		}
		if st := w.stat(m, "/data/f"); st.Info.Length != 1 {
			w.Errorf("the audit repaired: %+v", st.Info)
		}
		if err := m.Sync(w.Context(), "/data", true, func(freshet.SyncProgress) error { return nil }); err != nil {
			w.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		before = count("0s")
		time.Sleep(time.Hour)
		if count("0s") != before {
			w.Errorf("%v violations of what agrees again, or is allowed", count("0s")-before)
		}
	})
}
