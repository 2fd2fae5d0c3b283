package namespace_test

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func TestSyncsAreKeptAndBounded(t *testing.T) {
	t.Parallel()
	store := kv.NewMemory()
	s, err := namespace.Open(store, namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	apply := func(cmds ...namespace.Command) []namespace.Result {
		t.Helper()
		index++
		results, _ := s.Apply(index, cmds)
		return results
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	start := func(p freshet.Path, op freshet.OpID) namespace.Command {
		return namespace.Command{StartSync: &namespace.StartSync{Op: op, Path: p, Recursive: true, MaxAge: freshet.Never, At: at}}
	}
	end := func(id uint64, state freshet.SyncState) namespace.Command {
		return namespace.Command{EndSync: &namespace.EndSync{Job: namespace.SyncJob{ID: id, State: state, Entries: 7, EndedAt: at}}}
	}
	two := apply(start("/a", freshet.OpID{1}), start("/b", freshet.OpID{}), start("/a", freshet.OpID{1}))
	if two[0].Sync.ID == two[1].Sync.ID || two[2].Sync != two[0].Sync {
		t.Errorf("started %+v, %+v and %+v", two[0].Sync, two[1].Sync, two[2].Sync)
	}
	a := two[0].Sync.ID
	for i, tc := range []struct {
		cmd  namespace.Command
		want freshet.Kind
	}{
		{start("no path", freshet.OpID{}), freshet.KindInvalid},
		{end(999, freshet.SyncDone), freshet.KindNotExist},
		{end(a, freshet.SyncRunning), freshet.KindInvalid},
		{end(a, ""), freshet.KindInvalid},
		{end(a, freshet.SyncDone), freshet.KindOK},
		{end(a, freshet.SyncCancelled), freshet.KindConflict},
	} {
		if r := apply(tc.cmd)[0]; freshet.KindOf(r.Err) != tc.want {
			t.Errorf("command %d: %v, want %v", i, r.Err, tc.want)
		}
	}
	if jobs := s.SyncJobs(); len(jobs) != 2 || jobs[0].State != freshet.SyncDone || jobs[0].Entries != 7 || jobs[0].Path != "/a" || jobs[1].State != "" {
		t.Errorf("held %+v", jobs)
	}
	for range 100 {
		id := apply(start("/c", freshet.OpID{}))[0].Sync.ID
		apply(end(id, freshet.SyncFailed))
	}
	if n := len(s.SyncJobs()); n != 51 { // one runs
		t.Errorf("%d syncs are kept", n)
	}
	for range 999 {
		if err := apply(start("/d", freshet.OpID{}))[0].Err; err != nil {
			t.Fatal(err)
		}
	}
	if err := apply(start("/d", freshet.OpID{}))[0].Err; !freshet.IsKind(err, freshet.KindExhausted) {
		t.Errorf("one too many: %v", err)
	}
	want := s.SyncJobs()
	again, err := namespace.Open(store, namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := again.SyncJobs()
	if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
		t.Errorf("opened again: %d syncs, before %d", len(got), len(want))
	}
}
