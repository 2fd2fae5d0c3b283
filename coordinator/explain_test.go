package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/deep/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		p := newPeer(w, m)
		explain := func(path freshet.Path, check bool, verdict string, texts ...string) freshet.Explanation {
			w.Helper()
			var x freshet.Explanation
			n := w.entries(m, func() {
				var err error
				if x, err = m.Explain(w.Context(), path, check); err != nil {
					w.Fatal(err)
				}
			})
			if n != 0 {
				w.Errorf("explain %s made %d log entries", path, n)
			}
			all := x.Reason + "|" + x.NextCheck + "|" + x.LastValidation + "|" + x.Remedy
			if x.Verdict != verdict {
				w.Errorf("%s is %s (%s), want %s", path, x.Verdict, all, verdict)
			}
			for _, text := range texts {
				if !strings.Contains(all, text) {
					w.Errorf("%s: %q does not say %q", path, all, text)
				}
			}
			return x
		}
		explain("/elsewhere", false, "absent", "no storage is mounted", "freshet mount add /elsewhere")
		explain("/deep", false, "fresh", "mount points lie below")
		explain("/deep/data", false, "stale", "a storage is mounted here", "never read completely")
		if n := w.asked(func() { explain("/deep/data/d/f", false, "unknown", "never read") }); n != 0 {
			w.Errorf("explain asked the storage %d times", n)
		}
		x := explain("/deep/data/d/f", true, "unknown", "never read")
		if x.Storage == nil || !x.Storage.Exists || x.Storage.SameContent {
			w.Errorf("the storage's view: %+v", x.Storage)
		}
		w.list(m, "/deep/data/d")
		time.Sleep(20 * time.Second)
		x = explain("/deep/data/d/f", true, "fresh", "20s ago", "in 40s or later", "every 1m0s")
		if !x.Storage.SameContent || !x.Storage.SameMeta || x.Info.Length != 3 || x.Mount.Path != "/deep/data" || len(x.Publishers) != 1 {
			w.Errorf("fresh: %+v", x)
		}
		explain("/deep/data/d/none", false, "absent", "complete listing of /deep/data/d does not have it")
		w.store.Put("d/late", []byte("behind its back"))
		explain("/deep/data/d/late", true, "absent", "reads say that it does not exist", "freshet sync now /deep/data/d/late")
		w.store.Remove("d/late")
		explain("/deep/data/d", false, "unknown", "only something below")
		w.store.Put("d/f", []byte("three"))
		explain("/deep/data/d/f", true, "fresh", "freshet sync now /deep/data/d/f")
		p.publish(invalidation.KindContent, "/d/f")
		explain("/deep/data/d/f", false, "stale", "it was invalidated at log index", "next access")
		w.stat(m, "/deep/data/d/f")
		time.Sleep(time.Minute)
		explain("/deep/data/d/f", false, "stale", "as old as the sync interval allows")
		m.Lost(p.pub, p.dom, true, "silent")
		if x := explain("/deep/data/d/f", false, "stale", "peers ls", "degraded"); !x.Freshness.Degraded || x.Freshness.DegradedReason != "us-east is out of contact: silent" {
			w.Errorf("not degraded: %+v", x.Freshness)
		}
		w.onStep(func(string, string) error { return errDown })
		if x := explain("/deep/data/d/f", true, "stale", "the storage can't be asked"); x.Storage.Error == "" {
			w.Errorf("no error: %+v", x.Storage)
		}
	})
}

// TestExplainNamesWhatAppliesAndWhoSetIt: each property from the path that sets it,
// and the quotas that count the entry.
func TestExplainNamesWhatAppliesAndWhoSetIt(t *testing.T) {
	t.Parallel()
	seeds := []freshet.MountChange{mount("/data", "mem://lake", freshet.Interval(time.Minute))}
	inBubble(t, settings{seeds: seeds}, func(w *world) {
		w.store.Put("d/f", []byte("one"))
		m := w.leader()
		outer := policy("/", "write_type", "through", "sync_interval", "5s")
		outer.Origin = "terraform"
		for _, ch := range []freshet.PolicyChange{outer, policy("/data/d", "ttl", "1h", "pinned", "true"), policy("/data/other", "ttl", "2h")} {
			if _, err := m.ChangePolicy(w.Context(), ch); err != nil {
				t.Fatal(err)
			}
		}
		w.mustQuota(m, "/data", 10, 0)
		w.mustQuota(m, "/data/other", 10, 0)
		w.stat(m, "/data/d/f")
		x, err := m.Explain(w.Context(), "/data/d/f", false)
		if err != nil {
			t.Fatal(err)
		}
		// The mount's interval hides the one above it.
		want := "sync_interval=1m0s@/data by mount; consistency=invalidate@/data by mount; write_type=through@/ by terraform; " +
			"ttl=1h0m0s@/data/d by operator; ttl_action=free@ by default; pinned=true@/data/d by operator; block_size=64MiB@ by default; replication_min=0@ by default; replication_max=0@ by default; durable_replicas=1@ by default"
		if got := settings2text(x.Effective); got != want {
			t.Errorf("applies:\n%s\nwant:\n%s", got, want)
		}
		if len(x.Quotas) != 1 || x.Quotas[0].Path != "/data" || x.Quotas[0].MaxEntries != 10 {
			t.Errorf("quotas: %+v", x.Quotas)
		}
		if x, err = m.Explain(w.Context(), "/elsewhere", false); err != nil || len(x.Effective) != 10 || len(x.Quotas) != 0 {
			t.Errorf("where nothing is mounted: %+v, %v", x, err)
		}
	})
}
