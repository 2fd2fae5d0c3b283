package namespace

import (
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Bounds of the warms that the state knows.
const (
	maxRunningWarms = 100
	keptEndedWarms  = 50
)

// WarmJob is a warm that goes on without its caller. How far it is is the leader's
// knowledge; the state has the result.
type WarmJob struct {
	ID    uint64            `codec:"id"`
	Query freshet.WarmQuery `codec:"q"`
	At    time.Time         `codec:"t"`
	// State is empty until the warm has ended.
	State    freshet.SyncState    `codec:"s"`
	EndedAt  time.Time            `codec:"e"`
	Progress freshet.WarmProgress `codec:"p"`
	Kind     uint8                `codec:"k"`
	Error    string               `codec:"m"`
}

// StartWarm records a warm that is to be made. The same Op again returns the same
// job while the state knows it. KindExhausted if too many have not ended.
type StartWarm struct {
	Query freshet.WarmQuery `codec:"q"`
	At    time.Time         `codec:"t"`
}

// EndWarm records how a warm ended; ID, State, EndedAt and the result are taken from
// Job. KindNotExist if the state does not know it, KindConflict if it ended before.
// Of those that ended the last ones are kept.
type EndWarm struct {
	Job WarmJob `codec:"j"`
}

// WarmJobs returns the warms that the state knows, in the order in which they were
// started.
func (s *State) WarmJobs() []WarmJob {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.warmsInOrder()
}

func (x *index) warmsInOrder() []WarmJob {
	all := make([]WarmJob, 0, len(x.warms))
	for _, id := range slices.Sorted(maps.Keys(x.warms)) {
		all = append(all, x.warms[id])
	}
	return all
}

func (t *txn) startWarm(c *StartWarm) Result {
	const op = "start warm"
	for _, one := range c.Query.Paths {
		if p, err := freshet.ParsePath(string(one)); err != nil || p != one {
			return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", one)}
		}
	}
	if err := c.Query.Normalize(); err != nil {
		return Result{Err: err}
	}
	running := 0
	for _, j := range t.warmsInOrder() {
		if c.Query.Op != (freshet.OpID{}) && j.Query.Op == c.Query.Op {
			return Result{Warm: j}
		}
		if j.State == "" {
			running++
		}
	}
	if running >= maxRunningWarms {
		return Result{Err: freshet.Errorf(freshet.KindExhausted, op, "", "%d warms have not ended; wait for them or cancel some", running)}
	}
	j := WarmJob{ID: t.i, Query: c.Query, At: c.At.UTC()}
	for _, taken := t.warms[j.ID]; taken; _, taken = t.warms[j.ID] {
		j.ID++ // another one of the same log entry
	}
	t.saveWarm(j)
	return Result{Warm: j}
}

func (t *txn) endWarm(c *EndWarm) Result {
	const op = "end warm"
	j, ok := t.warms[c.Job.ID]
	switch {
	case !ok:
		return Result{Err: freshet.Errorf(freshet.KindNotExist, op, "", "there is no warm %d", c.Job.ID)}
	case j.State != "":
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, "", "the warm %d has ended before: %s", j.ID, j.State), Warm: j}
	case !c.Job.State.Ended() || c.Job.State == "":
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "%q is not how a warm ends", string(c.Job.State))}
	}
	end := c.Job
	end.Query, end.At, end.EndedAt = j.Query, j.At, end.EndedAt.UTC()
	t.saveWarm(end)
	var ended []uint64
	for _, j := range t.warmsInOrder() {
		if j.State != "" {
			ended = append(ended, j.ID)
		}
	}
	for len(ended) > keptEndedWarms {
		delete(t.warms, ended[0])
		t.del(t.keys.u64(tableWarm, ended[0]))
		ended = ended[1:]
	}
	return Result{Warm: end}
}

func (t *txn) saveWarm(j WarmJob) {
	t.warms[j.ID] = j
	t.setRow(t.keys.u64(tableWarm, j.ID), &j)
	t.changes.Jobs = true
}

func (x *index) readWarm(_, value []byte) error {
	var j WarmJob
	if err := decode(value, &j); err != nil {
		return err
	}
	x.warms[j.ID] = j
	return nil
}
