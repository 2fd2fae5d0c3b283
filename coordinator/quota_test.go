package coordinator_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
)

// wantQuota waits until a quota is counted and has that usage.
func (w *world) wantQuota(m *member, p freshet.Path, entries, bytes int64) freshet.Quota {
	w.Helper()
	var q freshet.Quota
	for deadline := time.Now().Add(time.Minute); ; {
		all, err := m.Quotas(w.Context(), "")
		if err != nil {
			w.Fatal(err)
		}
		if at := slices.IndexFunc(all, func(q freshet.Quota) bool { return q.Path == p }); at >= 0 {
			if q = all[at]; !q.Counting {
				break
			}
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s is not counted: %+v", p, q)
		}
		<-time.After(10 * time.Millisecond) // of the bubble's clock
	}
	if q.UsedEntries != entries || q.UsedBytes != bytes {
		w.Fatalf("%s: %d entries and %d bytes are used, want %d and %d", p, q.UsedEntries, q.UsedBytes, entries, bytes)
	}
	return q
}

func (w *world) mustQuota(m *member, p freshet.Path, entries, bytes int64) {
	w.Helper()
	if _, err := m.SetQuota(w.Context(), freshet.QuotaChange{Path: p, MaxEntries: entries, MaxBytes: bytes}); err != nil {
		w.Fatal(err)
	}
}

func TestAQuotaCountsWhatIsThereAndRefusesWhatExceedsIt(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for i := range 30 {
			w.store.Put(fmt.Sprintf("q/d%d/f", i%3)+fmt.Sprint(i), []byte("0123456789"))
		}
		m := w.leader()
		synctest.Wait() // until it carries out operations
		w.pages(m, "/data", 1000, true)
		w.mustQuota(m, "/data/q", 36, 10_000)
		w.wantQuota(m, "/data/q", 33, 300)
		w.pages(m, "/data", 1000, true) // what a look finds again changes nothing
		w.wantQuota(m, "/data/q", 33, 300)

		_, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/q/a/b/c/d", Parents: true})
		w.wantKind(err, freshet.KindExhausted)
		if n := len(w.store.Snapshot()); n != 30 {
			t.Errorf("something reached the storage: %d objects", n)
		}
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/q/a/b", Parents: true}); err != nil {
			t.Fatal(err)
		}
		w.wantQuota(m, "/data/q", 35, 300)

		// What a sync finds is counted and never refused.
		for i := range 5 {
			w.store.Put(fmt.Sprintf("q/found%d", i), []byte("0123456789"))
		}
		always := freshet.Always
		if _, err := m.List(w.Context(), freshet.ListQuery{Path: "/data/q", Options: freshet.ReadOptions{SyncInterval: &always}}); err != nil {
			t.Fatal(err)
		}
		w.wantQuota(m, "/data/q", 40, 350)
		_, err = m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/q/more"})
		w.wantKind(err, freshet.KindExhausted)

		// What was removed makes room at once.
		if _, err := m.Remove(w.Context(), freshet.RemoveQuery{Path: "/data/q/d0", Recursive: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/q/more"}); err != nil {
			t.Errorf("there is room after a removal: %v", err)
		}
		w.wantQuota(m, "/data/q", 30, 250)
	})
}

func TestAQuotaRefusesATreeThatMovesIn(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		for i := range 10 {
			w.store.Put(fmt.Sprintf("from/d/f%d", i), []byte("0123456789"))
		}
		w.store.Put("to/x", []byte("x"))
		m := w.leader()
		synctest.Wait() // until it carries out operations
		w.pages(m, "/data", 1000, true)
		w.mustQuota(m, "/data/to", 0, 100)
		w.mustQuota(m, "/data/from", 100, 0)
		w.wantQuota(m, "/data/from", 11, 100)
		_, err := m.Rename(w.Context(), freshet.RenameQuery{Path: "/data/from/d", Target: "/data/to/d"})
		w.wantKind(err, freshet.KindExhausted)
		w.mustQuota(m, "/data/to", 0, 101)
		if _, err := m.Rename(w.Context(), freshet.RenameQuery{Path: "/data/from/d", Target: "/data/to/d"}); err != nil {
			t.Fatal(err)
		}
		w.wantQuota(m, "/data/to", 12, 101)
		w.wantQuota(m, "/data/from", 0, 0)
	})
}

func TestQuotasAreKeptAcrossLeadersAndChangedByTheirPath(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{members: 3}, func(w *world) {
		w.store.Put("a/b/f", []byte("0123456789"))
		m := w.leader()
		synctest.Wait() // until it carries out operations
		w.pages(m, "/data", 1000, true)
		w.mustQuota(m, "/data", 100, 0)
		w.mustQuota(m, "/data/a", 10, 0)
		w.halt(m)
		m = w.leader()
		w.wantQuota(m, "/data", 3, 10)
		all, err := m.Quotas(w.Context(), "/data/a/b/f")
		if err != nil || len(all) != 2 || all[0].Path != "/data" || all[1].Path != "/data/a" || all[1].Origin != "operator" {
			t.Errorf("%+v, %v", all, err)
		}
		dry, err := m.SetQuota(w.Context(), freshet.QuotaChange{Path: "/data/a", MaxBytes: 5, DryRun: true})
		if err != nil || dry.MaxBytes != 5 || dry.UsedBytes != 10 {
			t.Errorf("%+v, %v", dry, err)
		}
		if q := w.wantQuota(m, "/data/a", 2, 10); q.MaxEntries != 10 || q.MaxBytes != 0 {
			t.Errorf("a dry run changed the quota: %+v", q)
		}
		for _, c := range []freshet.QuotaChange{{Path: "/data"}, {Path: "/data", MaxBytes: -1}} {
			_, err := m.SetQuota(w.Context(), c)
			w.wantKind(err, freshet.KindInvalid)
		}
		_, err = m.RemoveQuota(w.Context(), freshet.QuotaRemoval{Path: "/data/a/b"})
		w.wantKind(err, freshet.KindNotExist)
		if q, err := m.RemoveQuota(w.Context(), freshet.QuotaRemoval{Path: "/data/a"}); err != nil || q.UsedBytes != 10 {
			t.Errorf("%+v, %v", q, err)
		}
		w.wantQuota(m, "/data", 3, 10)
	})
}

// TestAClusterIsFoundedWithQuotas of its configuration: they count and refuse from
// the first entry on, and what is wrong is refused before anything runs.
func TestAClusterIsFoundedWithQuotas(t *testing.T) {
	t.Parallel()
	founded := func(o *coordinator.Options) {
		o.Quotas = []freshet.QuotaChange{{Path: "/data/q", MaxEntries: 1}}
	}
	inBubble(t, settings{members: 3, options: founded}, func(w *world) {
		m := w.leader()
		if _, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/q/a", Parents: true}); err != nil {
			t.Fatal(err)
		}
		_, err := m.Mkdir(w.Context(), freshet.MkdirQuery{Path: "/data/q/b"})
		w.wantKind(err, freshet.KindExhausted)
		all, err := m.Quotas(w.Context(), "")
		if err != nil || len(all) != 1 || all[0].Origin != freshet.OriginConfig || all[0].SetAt.IsZero() || all[0].UsedEntries != 1 {
			t.Errorf("quotas: %+v, %v", all, err)
		}
		_, err = m.SetQuota(w.Context(), freshet.QuotaChange{Path: "/data/r", MaxEntries: 1, Origin: freshet.OriginMount})
		w.wantKind(err, freshet.KindInvalid)
	})
}
