package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/coordinator/warming"
)

// parallelWarms is how many warms run at once; the others wait in the order in which
// they were started.
const parallelWarms = 4

// warmJobs are the warms that run on this member while it leads.
type warmJobs struct {
	engine *warming.Engine

	mu      sync.Mutex
	running map[uint64]*runningWarm
}

type runningWarm struct {
	cancel context.CancelFunc
	job    *warming.Job
}

func (w *warmJobs) init(c *Coordinator) {
	background := func(ctx context.Context) context.Context { return metasync.WithClass(ctx, metasync.ClassBackground) }
	w.engine = warming.New(warming.Deps{
		Stat: func(ctx context.Context, p freshet.Path) (freshet.Info, error) {
			st, err := c.Stat(background(ctx), p, freshet.ReadOptions{})
			return st.Info, err
		},
		List: func(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
			return c.List(background(ctx), q)
		},
		Locate: func(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
			return c.Locate(background(ctx), q)
		},
		Spread: func(b freshet.BlockID, length int64, place freshet.CachePlace) placement.Spread {
			return c.nodes.Spread(b, length, place, c.clock.Elapsed())
		},
		Held: func(file freshet.FileID, blocks int64, place freshet.CachePlace) int64 {
			_, held, _ := c.nodes.Shares(file, blocks, place, c.clock.Elapsed())
			return held
		},
		Live:  func(id freshet.NodeID) bool { return c.nodes.Presence(id, c.clock.Elapsed()).Live },
		Clock: c.clock,
	})
}

// answerWarms completes the answer to a heartbeat with what the node is to bring.
func (c *Coordinator) answerWarms(h *freshet.Heartbeat, r *freshet.HeartbeatReply) {
	c.warms.engine.Report(h.Node.ID, h.Warmed)
	if h.TakesWarms && !r.NeedFull {
		r.Warm = c.warms.engine.Orders(h.Node.ID)
	}
}

// StartWarm starts to bring files into the cache. It goes on without the caller, and
// through changes of the leader: a new one begins anew, and skips what is cached.
func (c *Coordinator) StartWarm(ctx context.Context, q freshet.WarmQuery) (freshet.WarmJob, error) {
	const op = "warm"
	if err := q.Normalize(); err != nil {
		return freshet.WarmJob{}, err
	}
	for _, p := range q.Paths {
		if err := c.prepare(ctx, p, freshet.ReadOptions{}); err != nil {
			return freshet.WarmJob{}, err
		}
		if _, err := c.Stat(ctx, p, freshet.ReadOptions{}); err != nil {
			return freshet.WarmJob{}, err
		}
	}
	switch n, _ := c.nodes.Takers(q.Place, c.clock.Elapsed()); {
	case n == 0:
		return freshet.WarmJob{}, freshet.Errorf(freshet.KindUnavailable, op, "", "no live cache node that takes warms fits: %s; see 'freshet cluster nodes'", q.Place)
	case n < q.Replicas:
		return freshet.WarmJob{}, freshet.Errorf(freshet.KindUnavailable, op, "", "%d copies of each block are asked for, and %d cache nodes live that could take one (%s)", q.Replicas, n, q.Place)
	}
	results, err := c.propose(ctx, namespace.Command{StartWarm: &namespace.StartWarm{Query: q, At: c.clock.Now().UTC()}})
	if err != nil {
		return freshet.WarmJob{}, err
	}
	return c.warms.show(&results[0].Warm), nil
}

// WarmJobs returns the warms that run and the last ones that ended, in the order in
// which they were started: all, or the one of an ID that is not 0.
func (c *Coordinator) WarmJobs(ctx context.Context, id uint64) ([]freshet.WarmJob, error) {
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	var out []freshet.WarmJob
	for _, j := range c.state.WarmJobs() {
		if id == 0 || j.ID == id {
			out = append(out, c.warms.show(&j))
		}
	}
	if id != 0 && len(out) == 0 {
		return nil, freshet.Errorf(freshet.KindNotExist, "warm status", "", "there is no warm %d: it never was, or is older than the last ones that are kept", id)
	}
	return out, nil
}

// CancelWarm ends a warm. What it brought stays. One that was cancelled before stays
// so, without an error.
func (c *Coordinator) CancelWarm(ctx context.Context, id uint64) (freshet.WarmJob, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.WarmJob{}, err
	}
	end := namespace.WarmJob{ID: id, State: freshet.SyncCancelled, EndedAt: c.clock.Now().UTC()}
	if r := c.warms.get(id); r != nil {
		end.Progress = r.job.Progress()
	}
	results, err := c.propose(ctx, namespace.Command{EndWarm: &namespace.EndWarm{Job: end}})
	if err != nil && (len(results) == 0 || results[0].Warm.State != freshet.SyncCancelled) {
		return freshet.WarmJob{}, err
	}
	return c.warms.show(&results[0].Warm), nil
}

func (w *warmJobs) get(id uint64) *runningWarm {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[id]
}

func (w *warmJobs) set(running map[uint64]*runningWarm) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = running
}

// show returns a warm as users see it.
func (w *warmJobs) show(j *namespace.WarmJob) freshet.WarmJob {
	out := freshet.WarmJob{
		ID: j.ID, Query: j.Query, State: j.State, StartedAt: j.At, EndedAt: j.EndedAt, Progress: j.Progress,
		Kind: freshet.Kind(j.Kind), Error: j.Error,
	}
	if j.State == "" {
		out.State = freshet.SyncQueued
		if r := w.get(j.ID); r != nil {
			out.State, out.Progress = freshet.SyncRunning, r.job.Progress()
		}
	}
	return out
}

// runWarms makes the warms that the state knows and that have not ended, until the
// term ends. Then they stay for the next leader.
func (c *Coordinator) runWarms(ctx context.Context) error {
	var wg sync.WaitGroup
	until := c.clock.Elapsed() + takersWithin
	c.warms.set(map[uint64]*runningWarm{})
	defer c.warms.set(nil)
	defer wg.Wait()
	wg.Go(func() { _ = c.warms.engine.Run(ctx) }) // it has no errors
	for {
		changed := c.watch.jobs.wait()
		c.startWarms(ctx, &wg, until)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// startWarms starts what may run now, and ends what was cancelled. Those that start wait
// for nodes until the given reading of the clock.
func (c *Coordinator) startWarms(ctx context.Context, wg *sync.WaitGroup, until time.Duration) {
	w := &c.warms
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range c.state.WarmJobs() {
		r := w.running[j.ID]
		switch {
		case j.State != "" && r != nil:
			r.cancel()
		case j.State == "" && r == nil && len(w.running) < parallelWarms:
			job, cancel := context.WithCancel(ctx)
			r = &runningWarm{cancel: cancel, job: w.engine.NewJob(j.Query)}
			w.running[j.ID] = r
			wg.Go(func() {
				defer cancel()
				c.runWarm(ctx, job, &j, r, until)
				w.mu.Lock()
				delete(w.running, j.ID)
				w.mu.Unlock()
				c.watch.jobs.raise() // there is room for the next
			})
		}
	}
}

// runWarm makes one warm and records how it ended, unless the term ended.
func (c *Coordinator) runWarm(term, job context.Context, j *namespace.WarmJob, r *runningWarm, until time.Duration) {
	if c.awaitReports(job) != nil || c.awaitTakers(job, &j.Query, until) != nil {
		return
	}
	err := r.job.Run(job)
	if job.Err() != nil || freshet.IsKind(err, freshet.KindNotLeader) {
		return // it was cancelled, or is the next leader's
	}
	end := namespace.WarmJob{ID: j.ID, State: freshet.SyncDone, EndedAt: c.clock.Now().UTC(), Progress: r.job.Progress()}
	switch {
	case err != nil:
		end.State, end.Kind, end.Error = freshet.SyncFailed, uint8(freshet.KindOf(err)), err.Error()
	case end.Progress.Failed > 0:
		end.State = freshet.SyncFailed
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		_, err := c.propose(term, namespace.Command{EndWarm: &namespace.EndWarm{Job: end}})
		if err == nil || term.Err() != nil || freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict, freshet.KindNotLeader) {
			return
		}
		c.log.Warn("the end of a warm could not be recorded; it is tried again", "warm", j.ID, "error", err)
		select {
		case <-c.clock.After(wait):
		case <-term.Done():
			return
		}
	}
}

// takersWithin is how long since its beginning a leader has warms wait for the nodes that
// are to carry them out: after a restart of all they may come later than it.
const takersWithin = time.Minute

// awaitReports waits until this leader knows what the nodes hold, some seconds at the
// beginning of its term. The error is that ctx ended.
func (c *Coordinator) awaitReports(ctx context.Context) error {
	return c.awaitNodes(ctx, c.nodes.Settled)
}

// awaitTakers waits until enough nodes for a warm have told what they hold, or until
// the leader has waited for long enough: then it fails for what is lacking. The error is
// that ctx ended.
func (c *Coordinator) awaitTakers(ctx context.Context, q *freshet.WarmQuery, until time.Duration) error {
	return c.awaitNodes(ctx, func(now time.Duration) bool {
		_, ready := c.nodes.Takers(q.Place, now)
		return ready >= q.Replicas || now >= until
	})
}

// settlePause is how often is looked what the nodes have told.
const settlePause = 100 * time.Millisecond

func (c *Coordinator) awaitNodes(ctx context.Context, enough func(now time.Duration) bool) error {
	for !enough(c.clock.Elapsed()) {
		select {
		case <-c.clock.After(settlePause):
		case <-ctx.Done():
			return &freshet.Error{Op: "await cache nodes", Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
		}
	}
	return nil
}
