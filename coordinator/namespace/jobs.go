package namespace

import (
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Bounds of the syncs that the state knows.
const (
	maxRunningSyncs = 1000
	keptEndedSyncs  = 50
)

// SyncJob is a sync that goes on without its caller. What it found so far is the
// leader's knowledge; the state has the result.
type SyncJob struct {
	ID        uint64           `codec:"id"`
	Op        freshet.OpID     `codec:"op"`
	Path      freshet.Path     `codec:"p"`
	Recursive bool             `codec:"r"`
	MaxAge    freshet.Interval `codec:"a"`
	At        time.Time        `codec:"t"`
	// State is empty until the sync has ended.
	State       freshet.SyncState `codec:"s"`
	EndedAt     time.Time         `codec:"e"`
	Elapsed     time.Duration     `codec:"l"`
	Directories int64             `codec:"d"`
	Fresh       int64             `codec:"f"`
	Entries     int64             `codec:"n"`
	Changed     int64             `codec:"c"`
	Failed      int64             `codec:"x"`
	Kind        uint8             `codec:"k"`
	Error       string            `codec:"m"`
}

// Count sets what a sync found.
func (j *SyncJob) Count(p freshet.SyncProgress) {
	j.Directories, j.Fresh, j.Entries, j.Changed, j.Failed, j.Elapsed = p.Directories, p.Fresh, p.Entries, p.Changed, p.Failed, p.Elapsed
}

// StartSync records a sync that is to be made. The same Op again returns the same
// job while the state knows it. KindExhausted if too many have not ended.
type StartSync struct {
	Op        freshet.OpID     `codec:"op"`
	Path      freshet.Path     `codec:"p"`
	Recursive bool             `codec:"r"`
	MaxAge    freshet.Interval `codec:"a"`
	At        time.Time        `codec:"t"`
}

// EndSync records how a sync ended; ID, State, EndedAt and the result are taken
// from Job. KindNotExist if the state does not know it, KindConflict if it ended
// before. Of those that ended the last ones are kept.
type EndSync struct {
	Job SyncJob `codec:"j"`
}

// SyncJobs returns the syncs that the state knows, in the order in which they
// were started.
func (s *State) SyncJobs() []SyncJob {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.jobsInOrder()
}

func (x *index) jobsInOrder() []SyncJob {
	all := make([]SyncJob, 0, len(x.jobs))
	for _, id := range slices.Sorted(maps.Keys(x.jobs)) {
		all = append(all, x.jobs[id])
	}
	return all
}

func (t *txn) startSync(c *StartSync) Result {
	const op = "start sync"
	if p, err := freshet.ParsePath(string(c.Path)); err != nil || p != c.Path {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", c.Path)}
	}
	running := 0
	for _, j := range t.jobsInOrder() {
		if c.Op != (freshet.OpID{}) && j.Op == c.Op {
			return Result{Sync: j}
		}
		if j.State == "" {
			running++
		}
	}
	if running >= maxRunningSyncs {
		return Result{Err: freshet.Errorf(freshet.KindExhausted, op, c.Path, "%d syncs have not ended; wait for them or cancel some", running)}
	}
	j := SyncJob{ID: t.i, Op: c.Op, Path: c.Path, Recursive: c.Recursive, MaxAge: c.MaxAge, At: c.At.UTC()}
	for _, taken := t.jobs[j.ID]; taken; _, taken = t.jobs[j.ID] {
		j.ID++ // another one of the same log entry
	}
	t.saveJob(j)
	return Result{Sync: j}
}

func (t *txn) endSync(c *EndSync) Result {
	const op = "end sync"
	j, ok := t.jobs[c.Job.ID]
	switch {
	case !ok:
		return Result{Err: freshet.Errorf(freshet.KindNotExist, op, "", "there is no sync %d", c.Job.ID)}
	case j.State != "":
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, j.Path, "the sync %d has ended before: %s", j.ID, j.State), Sync: j}
	case !c.Job.State.Ended() || c.Job.State == "":
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, j.Path, "%q is not how a sync ends", string(c.Job.State))}
	}
	end := c.Job
	end.Op, end.Path, end.Recursive, end.MaxAge, end.At = j.Op, j.Path, j.Recursive, j.MaxAge, j.At
	end.EndedAt = end.EndedAt.UTC()
	t.saveJob(end)
	var ended []uint64
	for _, j := range t.jobsInOrder() {
		if j.State != "" {
			ended = append(ended, j.ID)
		}
	}
	for len(ended) > keptEndedSyncs {
		delete(t.jobs, ended[0])
		t.del(t.keys.u64(tableJob, ended[0]))
		ended = ended[1:]
	}
	return Result{Sync: end}
}

func (t *txn) saveJob(j SyncJob) {
	t.jobs[j.ID] = j
	t.setRow(t.keys.u64(tableJob, j.ID), &j)
	t.changes.Jobs = true
}

func (x *index) readJob(_, value []byte) error {
	var j SyncJob
	if err := decode(value, &j); err != nil {
		return err
	}
	x.jobs[j.ID] = j
	return nil
}
