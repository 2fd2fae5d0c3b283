package journal

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
)

const opRead = "read barrier"

// ReadBarrier returns an index such that a read of the state, once the state has
// applied it, is linearizable: it sees every change that was acknowledged before
// the call. On this member the state has applied it already. Normally it costs no
// message: see the package's comment. Only the leader answers, after the first
// barrier of its term; others return KindNotLeader.
func (j *Journal) ReadBarrier(ctx context.Context) (uint64, error) {
	s := j.session.Load()
	if s == nil {
		return 0, unavailable(opRead, errStopped)
	}
	t := s.leadership.current()
	if t == nil {
		return 0, j.notLeader(opRead)
	}
	if j.contacts.leased(t.term, j.opts.LeaseFor) {
		j.metrics.leaseReads.Add(1)
		return j.machine.applied.Load(), nil
	}
	return j.Verify(ctx)
}

// Verify is ReadBarrier in the strict mode: it trusts no clock rate, and answers
// only after a quorum has taken this member for the leader after the call. Calls
// that wait at the same time share a round of messages.
func (j *Journal) Verify(ctx context.Context) (uint64, error) {
	s := j.session.Load()
	if s == nil {
		return 0, unavailable(opRead, errStopped)
	}
	r := s.verifier.join()
	if r == nil {
		return 0, unavailable(opRead, errStopped)
	}
	select {
	case <-r.done:
		return r.applied, r.err
	case <-ctx.Done():
		return 0, ended(opRead, ctx)
	}
}

// verifier runs rounds: while one runs, those who come wait for the next.
type verifier struct {
	j    *Journal
	s    *session
	mu   sync.Mutex
	next *round // has not begun; nil if nobody waits for one
	busy bool   // a goroutine runs rounds
	shut bool
	wg   sync.WaitGroup
}

type round struct {
	done    chan struct{}
	applied uint64
	err     error
}

// join returns a round that begins after the call, nil if the journal stops.
func (v *verifier) join() *round {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shut {
		return nil
	}
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
	}
	if !v.busy {
		v.busy = true
		v.wg.Go(v.run)
	}
	return v.next
}

func (v *verifier) run() {
	for {
		v.mu.Lock()
		r := v.next
		v.next = nil
		v.busy = r != nil
		v.mu.Unlock()
		if r == nil {
			return
		}
		r.applied, r.err = v.verify()
		v.j.metrics.verifyRounds.Add(1)
		close(r.done)
	}
}

// close waits for the rounds that have begun.
func (v *verifier) close() {
	v.mu.Lock()
	v.shut = true
	v.mu.Unlock()
	v.wg.Wait()
}

// verify is one round. Raft's own answer is not enough, see the package's comment;
// but asking for it makes every replicator send a heartbeat at once.
func (v *verifier) verify() (uint64, error) {
	t := v.s.leadership.current()
	if t == nil {
		return 0, v.j.notLeader(opRead)
	}
	contacts := v.j.contacts
	applied, since := v.j.machine.applied.Load(), contacts.clock.Elapsed()
	for {
		next := contacts.next()
		if contacts.confirmed(t.term, since) {
			break
		}
		if err := v.j.await(v.s.raft.VerifyLeader()); err != nil {
			return 0, v.refused(err)
		}
		if contacts.confirmed(t.term, since) {
			break
		}
		select {
		case <-next:
		case <-time.After(v.j.opts.Heartbeat / 10):
		case <-t.ctx.Done():
			return 0, v.j.notLeader(opRead)
		}
	}
	if v.s.raft.State() != raft.Leader {
		return 0, v.j.notLeader(opRead)
	}
	return applied, nil
}

func (v *verifier) refused(err error) error {
	if own, ok := errors.AsType[*freshet.Error](err); ok { // the journal failed
		return unavailable(opRead, own)
	}
	return v.j.notLeader(opRead)
}
