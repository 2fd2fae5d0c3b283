package ops_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

var (
	seeds = flag.Int("ops.seeds", 60, "how many random schedules to run on each kind of storage")
	first = flag.Int64("ops.seed", 1, "the first seed")
)

// TestS2AnyScheduleOfCrashesIsPublished runs random operations with random crashes
// of leaders and nodes, lost answers, late effects and outages of the storage, and
// wants a record after every effect, and nothing outdated served.
func TestS2AnyScheduleOfCrashesIsPublished(t *testing.T) {
	for seed := *first; seed < *first+int64(*seeds); seed++ {
		for name, mode := range map[string]mem.Mode{"object": mem.Object, "local": mem.Local} {
			t.Run(fmt.Sprintf("%s seed %d", name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSchedule(t, mode, seed)
					for range 60 {
						s.step()
					}
					s.heal()
					if t.Failed() {
						t.Logf("replay with -args -ops.seed=%d -ops.seeds=1\n%s", seed, s.trace)
					}
				})
			})
		}
	}
}

type schedule struct {
	*world
	rnd     *rand.Rand
	l       *leader
	nodes   []*node
	quietly map[*node]bool // it sends no heartbeats
	uploads map[*upload]int
	running int
	ended   chan struct{}
	point   string // at which the leader dies
	skip    int
	late    []chan struct{}
	trace   string
}

func newSchedule(t *testing.T, mode mem.Mode, seed int64) *schedule {
	s := &schedule{
		world: newWorld(t, mode, 15*time.Second), rnd: rand.New(rand.NewPCG(uint64(seed), 0)), //nolint:gosec // a seed to replay
		quietly: map[*node]bool{}, uploads: map[*upload]int{}, ended: make(chan struct{}, 1000),
	}
	for _, key := range keys() {
		if s.rnd.IntN(2) == 0 && key != "d" && key != "e" {
			s.put(key, key)
		}
	}
	s.elect()
	for _, id := range []freshet.NodeID{"n1", "n2"} {
		s.nodes = append(s.nodes, s.node(id, s.l))
	}
	return s
}

func keys() []string { return []string{"f", "g", "d", "d/x", "d/y", "e", "e/x", "e/y"} }

func (s *schedule) path() freshet.Path { return freshet.Path("/m/" + keys()[s.rnd.IntN(len(keys()))]) }

func (s *schedule) note(format string, args ...any) {
	s.trace += fmt.Sprintf(format, args...) + "\n"
}

func (s *schedule) elect() {
	var l *leader
	l = s.lead(ops.Options{UnknownLifetime: 15 * time.Second, StartWithin: 10 * time.Second, EffectTimeout: 5 * time.Second, Hook: func(p string, _ freshet.OpID) {
		s.mu.Lock()
		hit := p == s.point && l == s.l
		if hit && s.skip > 0 {
			s.skip--
			hit = false
		}
		if hit {
			s.point = ""
		}
		s.mu.Unlock()
		if hit {
			l.die()
		}
	}})
	s.mu.Lock()
	s.l = l
	s.mu.Unlock()
	for _, n := range s.nodes {
		n.to = l
	}
}

func (s *schedule) step() {
	switch s.rnd.IntN(12) {
	case 0, 1, 2:
		s.beginUpload()
	case 3, 4, 5, 6:
		s.advanceUpload()
	case 7, 8:
		s.ownOperation()
	case 9:
		s.fault()
	case 10:
		s.crash()
	case 11:
		d := time.Duration(1+s.rnd.IntN(8)) * time.Second
		s.note("%v pass", d)
		s.pass(d)
	}
	if s.rnd.IntN(3) > 0 {
		s.pass(time.Duration(s.rnd.IntN(400)) * time.Millisecond)
	}
	synctest.Wait()
	if s.l.died() {
		s.note("election")
		s.elect()
	}
}

// pass lets time pass; the nodes that speak send their heartbeats.
func (s *schedule) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		<-time.After(min(d, time.Second))
		for _, n := range s.nodes {
			synctest.Wait() // what a tick or the beat before began may have killed the leader
			if s.l.died() {
				s.elect()
			}
			if !s.quietly[n] {
				n.beat()
			}
		}
	}
}

func (s *schedule) beginUpload() {
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	p := s.path()
	a, err := s.l.BeginWrite(context.Background(), freshet.BeginWriteQuery{Path: p, Node: n.id})
	s.note("begin %s at %s: %v", p, n.id, err)
	if err != nil {
		return
	}
	for _, m := range s.nodes {
		if m.id == a.Ticket.Node.ID {
			s.uploads[&upload{n: m, ticket: a.Ticket}] = int(m.inc)
		}
	}
}

// advanceUpload takes one upload a random number of steps further.
func (s *schedule) advanceUpload() {
	for u, inc := range s.uploads {
		if uint64(inc) != u.n.inc {
			delete(s.uploads, u) // its process has died
			return
		}
		s.advance(u)
		return
	}
}

func (s *schedule) advance(u *upload) {
	ctx, op := context.Background(), u.ticket.Op
	end := func(f *freshet.FinishedOp) {
		delete(s.uploads, u)
		delete(u.n.active, op)
		if f != nil {
			u.n.finished[op] = *f
		}
	}
	if u.writer == nil {
		w, err := u.n.fs.Create(ctx, u.ticket.Target.Key, createOptions(op))
		s.note("create %s: %v", u.ticket.Path, err)
		if err != nil {
			end(&freshet.FinishedOp{Op: op})
			return
		}
		u.writer, u.n.active[op] = w, true
		if _, err := w.Write([]byte(op.String())); err != nil {
			end(&freshet.FinishedOp{Op: op})
		}
		return
	}
	if err := u.permit(); err != nil {
		s.note("permit %s: %v", u.ticket.Path, err)
		_ = u.writer.Abort(ctx)
		if freshet.IsKind(err, freshet.KindUnavailable, freshet.KindNotLeader) {
			end(&freshet.FinishedOp{Op: op, Uncertain: true}) // it may have been permitted before
		} else {
			end(nil)
		}
		return
	}
	if s.rnd.IntN(3) == 0 {
		return // permitted; the effect comes with the next step
	}
	wr, err := u.commit()
	s.note("commit %s: %v", u.ticket.Path, err)
	switch {
	case freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable):
		end(&freshet.FinishedOp{Op: op, Uncertain: true})
		return
	case err != nil:
		end(&freshet.FinishedOp{Op: op})
		return
	}
	end(&freshet.FinishedOp{Op: op, Written: &wr})
	if s.rnd.IntN(2) == 0 {
		_, err := s.l.Complete(ctx, op, wr)
		s.note("complete %s: %v", u.ticket.Path, err)
	}
}

func (s *schedule) ownOperation() {
	p, q := s.path(), s.path()
	l, what := s.l, s.rnd.IntN(4)
	s.running++
	s.note("operation %d on %s, %s", what, p, q)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		switch what {
		case 0:
			_, _ = l.Mkdir(ctx, freshet.MkdirQuery{Path: p, Parents: true}) // any outcome will do
		case 1:
			_, _ = l.Remove(ctx, freshet.RemoveQuery{Path: p, Recursive: true})
		default:
			_, _ = l.Rename(ctx, freshet.RenameQuery{Path: p, Target: q, Overwrite: true})
		}
		s.ended <- struct{}{}
	}()
}

func (s *schedule) fault() {
	calls := []fault.Op{fault.OpMkdir, fault.OpRename, fault.OpRemove, fault.OpCommit, fault.OpStat, fault.OpAbortUp}
	op := calls[s.rnd.IntN(len(calls))]
	r := fault.Rule{Op: op, Times: 1, Err: freshet.Errorf(freshet.KindDeadline, "call", "", "no answer")}
	changes := op != fault.OpStat && op != fault.OpAbortUp
	switch s.rnd.IntN(3) {
	case 0:
		r.Uncertain = changes
	case 1:
		if changes {
			late := make(chan struct{})
			s.late = append(s.late, late)
			r.Late = late
			delay := time.Duration(s.rnd.IntN(12)) * time.Second
			time.AfterFunc(delay, func() { close(late) })
		}
	}
	s.note("fault %+v", r)
	if op == fault.OpCommit {
		s.nodes[s.rnd.IntN(len(s.nodes))].fs.Add(r)
	} else {
		s.l.fs.Add(r)
	}
}

func (s *schedule) crash() {
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	switch s.rnd.IntN(5) {
	case 0:
		s.note("leader dies")
		s.l.die()
	case 1:
		points := []string{ops.PointBegin, ops.PointEffect, ops.PointComplete, ops.PointDone, ops.PointResolve}
		point, skip := points[s.rnd.IntN(len(points))], s.rnd.IntN(2)
		s.note("leader will die at %s", point)
		s.mu.Lock()
		s.point, s.skip = point, skip
		s.mu.Unlock()
	case 2:
		s.note("%s restarts", n.id)
		n.restart()
	case 3:
		s.note("%s falls silent or speaks again", n.id)
		s.quietly[n] = !s.quietly[n]
	case 4:
		left := 1 + s.rnd.IntN(4)
		s.note("outage after %d steps", left)
		s.freezeAfter(s.steps() + left)
		time.AfterFunc(time.Duration(1+s.rnd.IntN(15))*time.Second, func() { s.freezeAfter(0) })
	}
}

// heal ends all faults and waits for quiet.
func (s *schedule) heal() {
	s.note("heal")
	s.mu.Lock()
	s.point = ""
	s.mu.Unlock()
	s.quietly = map[*node]bool{}
	for _, n := range s.nodes {
		n.fs.Clear()
		n.restart()
	}
	s.l.fs.Clear()
	s.pass(20 * time.Second)
	for range s.running {
		<-s.ended
	}
	for _, n := range s.nodes {
		n.fs.Wait()
	}
	s.l.fs.Wait()
	deadline := time.Now().Add(90 * time.Second)
	for len(s.state.Intents()) > 0 && time.Now().Before(deadline) {
		s.pass(time.Second)
	}
	if in := s.state.Intents(); len(in) > 0 {
		s.t.Errorf("not resolved: %+v", in)
	}
	s.checkPublished()
	s.checkServable(keys()...)
}
