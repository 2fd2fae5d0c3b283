package namespace_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func TestWarmsAreKeptAndBounded(t *testing.T) {
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
		q := freshet.WarmQuery{Op: op, Paths: []freshet.Path{p, "/more"}, Filter: freshet.CacheFilter{Include: []string{"*.csv"}, NewerThan: at.In(time.FixedZone("x", 3600))}}
		return namespace.Command{StartWarm: &namespace.StartWarm{Query: q, At: at}}
	}
	end := func(id uint64, state freshet.SyncState) namespace.Command {
		return namespace.Command{EndWarm: &namespace.EndWarm{Job: namespace.WarmJob{
			ID: id, State: state, EndedAt: at, Progress: freshet.WarmProgress{Files: 7, Failures: []freshet.FileFailure{{Path: "/a", Error: "e"}}},
		}}}
	}
	two := apply(start("/a", freshet.OpID{1}), start("/b", freshet.OpID{}), start("/a", freshet.OpID{1}))
	if two[0].Warm.ID == two[1].Warm.ID || two[2].Warm.ID != two[0].Warm.ID || two[0].Warm.Query.Replicas != 1 {
		t.Errorf("started %+v, %+v and %+v", two[0].Warm, two[1].Warm, two[2].Warm)
	}
	a := two[0].Warm.ID
	for i, tc := range []struct {
		cmd  namespace.Command
		want freshet.Kind
	}{
		{start("no path", freshet.OpID{}), freshet.KindInvalid},
		{namespace.Command{StartWarm: &namespace.StartWarm{At: at}}, freshet.KindInvalid},
		{end(999, freshet.SyncDone), freshet.KindNotExist},
		{end(a, freshet.SyncRunning), freshet.KindInvalid},
		{end(a, ""), freshet.KindInvalid},
		{end(a, freshet.SyncDone), freshet.KindOK},
		{end(a, freshet.SyncCancelled), freshet.KindConflict},
	} {
		if r := apply(tc.cmd)[0]; freshet.KindOf(r.Err) != tc.want {
			t.Errorf("command %d: %v, want %v", i, r.Err, tc.want)
		}
		if n := namespace.Needs(&tc.cmd); n != 5 {
			t.Errorf("command %d needs version %d", i, n)
		}
	}
	if jobs := s.WarmJobs(); len(jobs) != 2 || jobs[0].State != freshet.SyncDone || jobs[0].Progress.Files != 7 || jobs[0].Query.Paths[0] != "/a" || jobs[1].State != "" {
		t.Errorf("held %+v", jobs)
	}
	for range 100 {
		id := apply(start("/c", freshet.OpID{}))[0].Warm.ID
		apply(end(id, freshet.SyncFailed))
	}
	if n := len(s.WarmJobs()); n != 51 { // one runs
		t.Errorf("%d warms are kept", n)
	}
	for range 99 {
		if err := apply(start("/d", freshet.OpID{}))[0].Err; err != nil {
			t.Fatal(err)
		}
	}
	if err := apply(start("/d", freshet.OpID{}))[0].Err; !freshet.IsKind(err, freshet.KindExhausted) {
		t.Errorf("one too many: %v", err)
	}
	again, err := namespace.Open(store, namespace.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.WarmJobs(), s.WarmJobs(); !reflect.DeepEqual(got, want) {
		t.Errorf("opened again:\n%+v\nbefore:\n%+v", got[0], want[0])
	}
}
