package cli_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

// syncs are those of a cluster whose syncs take two questions.
type syncs struct {
	mu    sync.Mutex
	jobs  []freshet.SyncJob
	asked int
	down  int // so many questions are not answered
	// onAsk, if not nil, is called with each question about one sync, which does not end then.
	onAsk func()
}

func (s *syncs) StartSync(_ context.Context, q freshet.SyncQuery) (freshet.SyncJob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := freshet.SyncJob{ID: uint64(len(s.jobs) + 1), Path: q.Path, Recursive: q.Recursive, MaxAge: q.MaxAge, State: freshet.SyncRunning, StartedAt: time.Unix(1, 0)}
	s.jobs = append(s.jobs, j)
	return j, nil
}

func (s *syncs) SyncJobs(_ context.Context, id uint64, _ freshet.Path) ([]freshet.SyncJob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == 0 {
		return s.jobs, nil
	}
	if id > uint64(len(s.jobs)) {
		return nil, freshet.Errorf(freshet.KindNotExist, "sync status", "", "there is no such sync")
	}
	if s.down > 0 {
		s.down--
		return nil, freshet.Errorf(freshet.KindNotLeader, "sync status", "", "an election")
	}
	s.asked++
	if s.onAsk != nil {
		s.onAsk()
		return s.jobs[id-1 : id], nil
	}
	j := &s.jobs[id-1]
	if s.asked > 1 && !j.State.Ended() {
		j.State = freshet.SyncDone
		j.Progress = freshet.SyncProgress{Directories: 3, Fresh: 1, Entries: 70, Changed: 2, Elapsed: time.Second, Done: true}
		switch string(j.Path) {
		case "/part":
			j.State, j.Progress.Failed, j.Kind, j.Error = freshet.SyncFailed, 1, freshet.KindUnavailable, "the storage is down"
		case "/none":
			j.State, j.Progress, j.Kind, j.Error = freshet.SyncFailed, freshet.SyncProgress{}, freshet.KindNotExist, "does not exist"
		}
	}
	return s.jobs[id-1 : id], nil
}

func (s *syncs) CancelSync(_ context.Context, id uint64) (freshet.SyncJob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[id-1].State = freshet.SyncCancelled
	return s.jobs[id-1], nil
}

func TestSyncsWithoutTheirCaller(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	expect := func(code int, args []string, want ...string) {
		t.Helper()
		c.syncs.asked = 0
		r := run(c, "", args...)
		if r.code != code {
			t.Errorf("%q: exit code %d, want %d: %s%s", args, r.code, code, r.out, r.err)
		}
		for _, text := range want {
			if !strings.Contains(r.out+r.err, text) {
				t.Errorf("%q does not say %q: %s%s", args, text, r.out, r.err)
			}
		}
	}
	c.syncs.down = 1
	expect(0, []string{"sync", "now", "/d", "--recursive", "--max-age", "10m"}, "SPARED", "done", "70", "sync 1 ")
	expect(freshet.ExitPartly, []string{"sync", "now", "/part", "--recursive"}, "failed", "1 directory could not be checked", "the storage is down")
	expect(3, []string{"sync", "now", "/none", "--recursive"}, "does not exist")
	expect(0, []string{"sync", "now", "/d", "--recursive", "--async", "-o", "json"}, `"id"`, `"running"`)
	expect(2, []string{"sync", "now", "/d", "--async"}, "--recursive")
	expect(2, []string{"sync", "now", "/d", "--max-age", "1m"}, "--recursive")
	expect(2, []string{"sync", "now", "/d", "--recursive", "--max-age", "5 parsecs"}, "parsecs")
	expect(0, []string{"sync", "status"}, "/part", "/none", "running", "ERROR", "the storage is down")
	expect(0, []string{"sync", "status", "/d", "-o", "json"}, `"10m0s"`)
	expect(3, []string{"sync", "status", "77"}, "no such sync")
	expect(2, []string{"sync", "status", "d"}, "neither the number of a sync")
	expect(2, []string{"sync", "cancel", "/d"}, "sync status /d")
	expect(0, []string{"sync", "cancel", "4", "--dry-run"}, "running")
	expect(0, []string{"sync", "cancel", "4"}, "cancelled")
	expect(0, []string{"sync", "cancel", "4", "--dry-run"}, "cancelled")
	expect(4, []string{"sync", "cancel", "1", "--dry-run"}, "ended before")
}
