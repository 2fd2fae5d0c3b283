package coordinator_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

func TestAWriteIsServedAsWrittenWithoutALook(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		m := w.leader()
		n := w.node(m, "n1")
		w.store.Put("d/old", []byte("x"))
		w.list(m, "/data/d")
		op := freshet.OpID(uuid.New())
		a, err := m.BeginWrite(w.Context(), freshet.BeginWriteQuery{Op: op, Path: "/data/d/f"})
		if err != nil || a.Ticket.Node != n || a.Ticket.Target.Key != "d/f" {
			w.Fatalf("%+v, %v", a, err)
		}
		w.statKind(m, "/data/d/f", freshet.KindNotExist) // invisible until it is complete
		if x, err := m.Explain(w.Context(), "/data/d/f", false); err != nil || len(x.Intents) != 1 {
			w.Errorf("explain: %+v, %v", x.Intents, err)
		}
		if err := m.Permit(w.Context(), freshet.PermitQuery{Op: op, Node: n.ID, Incarnation: 1, Length: -1}); err != nil {
			w.Fatal(err)
		}
		up, err := w.store.FS("").Create(w.Context(), "d/f", ufs.CreateOptions{Op: op, Size: 5})
		if err != nil {
			w.Fatal(err)
		}
		if _, err := up.Write([]byte("hello")); err != nil {
			w.Fatal(err)
		}
		st, err := up.Commit(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		done, err := m.Complete(w.Context(), op, freshet.Written{Length: 5, ModTime: st.ModTime, Fingerprint: st.Fingerprint})
		if err != nil || done.Token.IsZero() {
			w.Fatalf("%+v, %v", done, err)
		}
		calls := w.asked(func() {
			st, err := m.Stat(w.Context(), "/data/d/f", freshet.ReadOptions{After: done.Token})
			if err != nil || st.Info.Length != 5 || st.Info.FileID != a.Ticket.File {
				w.Errorf("stat: %+v, %v", st.Info, err)
			}
			if got := w.list(m, "/data/d"); !slices.Equal(got, []string{"/data/d/f", "/data/d/old"}) {
				w.Errorf("listed %v", got)
			}
		})
		if calls != 0 {
			w.Errorf("the storage was asked %d times", calls)
		}
		heads, _ := m.Heads()
		b, err := m.Records(heads[0].Domain, 0, 10)
		if err != nil || len(b.Records) != 1 || b.Records[0].Key != "/d/f" || b.Records[0].Kind != invalidation.KindCreate {
			w.Errorf("published %+v, %v", b.Records, err)
		}
	})
}

func TestAStorageThatHangsBlocksNobodyBeyondItsDeadline(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("f", []byte("one"))
		w.store.Put("g", []byte("one"))
		m := w.leader()
		w.stat(m, "/data/g")
		w.onStep(func(string, string) error {
			time.Sleep(time.Minute)
			return nil
		})
		ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		patient := make(chan error, 1)
		go func() {
			_, err := m.Stat(w.Context(), "/data/f", freshet.ReadOptions{})
			patient <- err
		}()
		synctest.Wait()
		hasty := make(chan error, 1)
		go func() { // shares the look, and leaves it
			_, err := m.Stat(ctx, "/data/f", freshet.ReadOptions{})
			hasty <- err
		}()
		w.stat(m, "/data/g") // what is fresh is served meanwhile
		if d := time.Since(start); d != 0 {
			w.Errorf("a hot read took %v", d)
		}
		w.wantKind(<-hasty, freshet.KindDeadline)
		if d := time.Since(start); d != 3*time.Second {
			w.Errorf("the hasty reader waited %v", d)
		}
		w.wantKind(<-patient, freshet.KindUnavailable) // not its own deadline: the storage is slow
	})
}

func TestMetricsTellWhatSyncsDo(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	inBubble(t, settings{metrics: reg}, func(w *world) {
		for _, k := range []string{"a", "b", "c"} {
			w.store.Put("d/"+k, []byte("x"))
		}
		m := w.leader()
		w.list(m, "/data/d")
		w.store.Put("d/a", []byte("xy"))
		w.store.Remove("d/b")
		if err := m.Sync(w.Context(), "/data/d", false, func(freshet.SyncProgress) error { return nil }); err != nil {
			w.Fatal(err)
		}
		for result, want := range map[string]float64{"added": 3, "changed": 1, "removed": 1, "failed": 0} {
			// The directory's own entry was added by the look at it.
			got := value(w, reg, "freshet_sync_entries_total", "result", result)
			if result == "added" {
				got--
			}
			if got != want {
				w.Errorf("%s: %v, want %v", result, got, want)
			}
		}
		if got := value(w, reg, "freshet_coordinator_leader", "", ""); got != 1 {
			w.Errorf("leader: %v", got)
		}
	})
}

// value returns the value of a metric.
func value(w *world, reg *prometheus.Registry, name, label, is string) float64 {
	w.Helper()
	families, err := reg.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			match := label == ""
			for _, p := range m.GetLabel() {
				match = match || (p.GetName() == label && p.GetValue() == is)
			}
			if f.GetName() == name && match {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	w.Fatalf("no metric %s", name)
	return 0
}

func TestRetention(t *testing.T) {
	t.Parallel()
	head := func(low, high uint64) invalidation.Head { return invalidation.Head{Low: low, High: high} }
	r := coordinator.Retention{Records: 100, Most: 1000, Age: time.Hour}
	for name, c := range map[string]struct {
		head      invalidation.Head
		aged, ack uint64
		live      bool
		want      uint64
	}{
		"short":                       {head(1, 50), 50, 0, false, 1},
		"by number":                   {head(1, 500), 500, 0, false, 401},
		"by age":                      {head(1, 500), 300, 0, false, 301},
		"young":                       {head(1, 500), 0, 0, false, 1},
		"for a subscriber":            {head(1, 500), 500, 200, true, 201},
		"a subscriber at the end":     {head(1, 500), 500, 500, true, 401},
		"a subscriber too far behind": {head(1, 5000), 5000, 10, true, 4001},
		"too many young ones":         {head(1, 5000), 0, 0, false, 4001},
		"never back":                  {head(450, 500), 0, 0, true, 450},
	} {
		if got := r.Low(c.head, c.aged, c.ack, c.live); got != c.want {
			t.Errorf("%s: the first to stay is %d, want %d", name, got, c.want)
		}
	}
}
