package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// parallelSyncs is how many syncs without a caller run at once; the others wait in
// the order in which they were started.
const parallelSyncs = 8

// syncJobs are the syncs without a caller that run on this member while it leads.
type syncJobs struct {
	mu      sync.Mutex
	running map[uint64]*runningSync
}

type runningSync struct {
	cancel context.CancelFunc

	mu       sync.Mutex
	progress freshet.SyncProgress
}

func (r *runningSync) report(p freshet.SyncProgress) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress = p
	return nil
}

func (r *runningSync) seen() freshet.SyncProgress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress
}

// StartSync starts a sync that goes on without the caller, and through changes of
// the leader: a new one starts it anew.
func (c *Coordinator) StartSync(ctx context.Context, q freshet.SyncQuery) (freshet.SyncJob, error) {
	if err := c.prepare(ctx, q.Path, freshet.ReadOptions{}); err != nil {
		return freshet.SyncJob{}, err
	}
	results, err := c.propose(ctx, namespace.Command{StartSync: &namespace.StartSync{
		Op: q.Op, Path: q.Path, Recursive: q.Recursive, MaxAge: q.MaxAge, At: c.clock.Now().UTC(),
	}})
	if err != nil {
		return freshet.SyncJob{}, err
	}
	return c.jobs.show(&results[0].Sync), nil
}

// SyncJobs returns the syncs that run and the last ones that ended, in the order
// in which they were started: all, the one of an ID that is not 0, or those that
// concern a path that is not "".
func (c *Coordinator) SyncJobs(ctx context.Context, id uint64, p freshet.Path) ([]freshet.SyncJob, error) {
	if p != "" {
		if err := checkPath(p); err != nil {
			return nil, err
		}
	}
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	var out []freshet.SyncJob
	for _, j := range c.state.SyncJobs() {
		if (id == 0 || j.ID == id) && (p == "" || p.Contains(j.Path) || (j.Recursive && j.Path.Contains(p))) {
			out = append(out, c.jobs.show(&j))
		}
	}
	if id != 0 && len(out) == 0 {
		return nil, freshet.Errorf(freshet.KindNotExist, "sync status", "", "there is no sync %d: it never was, or is older than the last ones that are kept", id)
	}
	return out, nil
}

// CancelSync ends a sync. What it found until then stays found. One that was
// cancelled before stays so, without an error.
func (c *Coordinator) CancelSync(ctx context.Context, id uint64) (freshet.SyncJob, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.SyncJob{}, err
	}
	end := namespace.SyncJob{ID: id, State: freshet.SyncCancelled, EndedAt: c.clock.Now().UTC()}
	if r := c.jobs.get(id); r != nil {
		end.Count(r.seen())
	}
	results, err := c.propose(ctx, namespace.Command{EndSync: &namespace.EndSync{Job: end}})
	if err != nil && (len(results) == 0 || results[0].Sync.State != freshet.SyncCancelled) {
		return freshet.SyncJob{}, err
	}
	return c.jobs.show(&results[0].Sync), nil
}

func (s *syncJobs) get(id uint64) *runningSync {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

func (s *syncJobs) set(running map[uint64]*runningSync) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
}

// show returns a sync as users see it.
func (s *syncJobs) show(j *namespace.SyncJob) freshet.SyncJob {
	out := freshet.SyncJob{
		ID: j.ID, Path: j.Path, Recursive: j.Recursive, MaxAge: j.MaxAge, State: j.State, StartedAt: j.At, EndedAt: j.EndedAt,
		Kind: freshet.Kind(j.Kind), Error: j.Error,
		Progress: freshet.SyncProgress{
			Directories: j.Directories, Fresh: j.Fresh, Entries: j.Entries, Changed: j.Changed, Failed: j.Failed,
			Elapsed: j.Elapsed, Done: j.State == freshet.SyncDone,
		},
	}
	if j.State == "" {
		out.State = freshet.SyncQueued
		if r := s.get(j.ID); r != nil {
			out.State, out.Progress = freshet.SyncRunning, r.seen()
			out.Progress.Done = false // that is recorded first
		}
	}
	return out
}

// runSyncJobs makes the syncs that the state knows and that have not ended, until
// the term ends. Then they stay for the next leader.
func (c *Coordinator) runSyncJobs(ctx context.Context) error {
	var wg sync.WaitGroup
	c.jobs.set(map[uint64]*runningSync{})
	defer c.jobs.set(nil)
	defer wg.Wait()
	for {
		changed := c.watch.jobs.wait()
		c.startSyncJobs(ctx, &wg)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// startSyncJobs starts what may run now, and ends what was cancelled.
func (c *Coordinator) startSyncJobs(ctx context.Context, wg *sync.WaitGroup) {
	c.jobs.mu.Lock()
	defer c.jobs.mu.Unlock()
	for _, j := range c.state.SyncJobs() {
		r := c.jobs.running[j.ID]
		switch {
		case j.State != "" && r != nil:
			r.cancel()
		case j.State == "" && r == nil && len(c.jobs.running) < parallelSyncs:
			job, cancel := context.WithCancel(ctx)
			r = &runningSync{cancel: cancel}
			c.jobs.running[j.ID] = r
			wg.Go(func() {
				defer cancel()
				c.runSyncJob(ctx, job, j, r)
				c.jobs.mu.Lock()
				delete(c.jobs.running, j.ID)
				c.jobs.mu.Unlock()
				c.watch.jobs.raise() // there is room for the next
			})
		}
	}
}

// runSyncJob makes one sync and records how it ended, unless the term ended.
func (c *Coordinator) runSyncJob(term, job context.Context, j namespace.SyncJob, r *runningSync) {
	opts := metasync.SyncOptions{Recursive: j.Recursive, MaxAge: j.MaxAge}
	err := c.sync.Sync(metasync.WithClass(job, metasync.ClassBackground), j.Path, opts, r.report)
	if job.Err() != nil || freshet.IsKind(err, freshet.KindNotLeader) {
		return // it was cancelled, or is the next leader's
	}
	end := namespace.SyncJob{ID: j.ID, State: freshet.SyncDone, EndedAt: c.clock.Now().UTC()}
	end.Count(r.seen())
	if err != nil {
		end.State, end.Kind, end.Error = freshet.SyncFailed, uint8(freshet.KindOf(err)), err.Error()
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		_, err := c.propose(term, namespace.Command{EndSync: &namespace.EndSync{Job: end}})
		if err == nil || term.Err() != nil || freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict, freshet.KindNotLeader) {
			return
		}
		c.log.Warn("the end of a sync could not be recorded; it is tried again", "sync", j.ID, "error", err)
		select {
		case <-c.clock.After(wait):
		case <-term.Done():
			return
		}
	}
}
