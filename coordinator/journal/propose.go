package journal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// proposal is the commands of one call, encoded by their caller.
type proposal struct {
	data  []byte
	count int
	term  uint64 // in which it may be proposed; 0 is any
	state atomic.Int32
	done  chan outcome // of length 1
}

// The states of a proposal.
const (
	queued    = iota // may be withdrawn
	taken            // its entry is on its way
	withdrawn        // nobody waits; nothing will be done
)

type outcome struct {
	results []namespace.Result
	err     error
}

// batcher joins what queued up into entries.
type batcher struct {
	j     *Journal
	raft  *raft.Raft
	queue chan *proposal
	bytes atomic.Int64  // of what is queued
	turn  chan struct{} // holds one value: the right to take from queue and to propose
	over  chan struct{} // closed when nobody takes any more

	carry *proposal // taken from queue, did not fit; belongs to who has the turn
}

func newBatcher(j *Journal, r *raft.Raft) *batcher {
	b := &batcher{
		j: j, raft: r, queue: make(chan *proposal, j.opts.QueueLimit),
		turn: make(chan struct{}, 1), over: make(chan struct{}),
	}
	b.turn <- struct{}{}
	return b
}

const opPropose = "propose"

// Propose replicates the commands, in their order and in one log entry, and
// returns a result for each: what the state said when it applied them. A command
// that the state refuses is a result with an Err, not an error of Propose.
//
// Errors: KindNotLeader (the cause is a *NotLeaderError), KindExhausted when too
// much waits already, KindInvalid when the commands are too large for one entry,
// KindUnavailable and KindDeadline; OutcomeUnknown says of each whether the
// commands may still be applied. A result is returned only after a quorum has the
// entry on disk and this member's state has applied it. Safe for concurrent use.
func (j *Journal) Propose(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	return j.ProposeIn(ctx, 0, cmds...)
}

// ProposeIn is Propose by the leader of a term: if this member leads in another term by the
// time at which the commands enter the log, even if it was elected again, they are refused
// with KindNotLeader. So whoever made sure of something that holds for a term only, and was
// paused since, changes nothing.
func (j *Journal) ProposeIn(ctx context.Context, term uint64, cmds ...namespace.Command) ([]namespace.Result, error) {
	if len(cmds) == 0 {
		return nil, nil
	}
	s := j.session.Load()
	if s == nil {
		return nil, unavailable(opPropose, errStopped)
	}
	if s.raft.State() != raft.Leader { // spares the queue; Raft itself decides
		return nil, j.notLeader(opPropose)
	}
	if j.opts.Gate != nil {
		if err := j.opts.Gate(cmds); err != nil {
			return nil, err
		}
	}
	data, err := namespace.EncodeBatch(cmds)
	if err != nil {
		return nil, freshet.Wrap(opPropose, "", err)
	}
	if len(data) > MaxProposalBytes {
		return nil, freshet.Errorf(freshet.KindInvalid, opPropose, "",
			"%d commands have %d bytes, one entry takes %d: split them", len(cmds), len(data), MaxProposalBytes)
	}
	start := time.Now()
	p := &proposal{data: data, count: len(cmds), term: term, done: make(chan outcome, 1)}
	if err := s.batcher.enqueue(p); err != nil {
		j.metrics.proposed(err, 0, start)
		return nil, err
	}
	out := s.batcher.wait(ctx, p)
	j.metrics.proposed(out.err, len(cmds), start)
	return out.results, out.err
}

// Settle waits until all commands whose proposal has ended were applied by this member,
// or never will be: also those of which Propose said that the outcome is unknown. An
// error means that this is not known in the present term.
func (j *Journal) Settle(ctx context.Context) error {
	s := j.session.Load()
	if s == nil {
		return unavailable(opPropose, errStopped)
	}
	// Who takes from the queue hands what it took to Raft before it gives the turn back.
	select {
	case <-s.batcher.turn:
		s.batcher.turn <- struct{}{}
	case <-ctx.Done():
		return ended(opPropose, ctx)
	case <-s.batcher.over:
		return unavailable(opPropose, errStopped)
	}
	return j.await(s.raft.Barrier(0))
}

// enqueue refuses what would make the queue longer than it may be.
func (b *batcher) enqueue(p *proposal) error {
	size := int64(len(p.data))
	if b.bytes.Add(size) <= b.j.opts.QueueBytes {
		select {
		case b.queue <- p:
			return nil
		default:
		}
	}
	b.bytes.Add(-size)
	return freshet.Errorf(freshet.KindExhausted, opPropose, "", "too many changes wait for the log; try again later")
}

func (b *batcher) wait(ctx context.Context, p *proposal) outcome {
	var cause error
	select {
	case out := <-p.done:
		return out
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-b.over:
		cause = errStopped
	}
	if p.state.CompareAndSwap(queued, withdrawn) {
		if ctx.Err() != nil {
			return outcome{err: ended(opPropose, ctx)}
		}
		return outcome{err: unavailable(opPropose, cause)}
	}
	select {
	case out := <-p.done: // it was just answered
		return out
	default:
	}
	return outcome{err: unknown(opPropose, cause)}
}

// work takes batches and proposes them until ctx ends, and returns when its last
// entry was answered.
func (b *batcher) work(ctx context.Context) error {
	for {
		select {
		case <-b.turn:
		case <-ctx.Done():
			return nil
		}
		batch := b.take(ctx)
		if batch == nil {
			b.turn <- struct{}{}
			return nil
		}
		future := b.raft.ApplyLog(raft.Log{Data: encodeEntry(batch), Extensions: termMark(batch[0].term)}, 0)
		b.turn <- struct{}{}
		b.j.metrics.entry(batch)
		err := b.j.await(future)
		b.deliver(batch, future, err)
	}
}

// take waits for a proposal and adds what is queued behind it, nil if ctx ends.
func (b *batcher) take(ctx context.Context) []*proposal {
	var batch []*proposal
	count, size := 0, 0
	add := func(p *proposal) bool {
		if len(batch) > 0 && (count+p.count > b.j.opts.MaxBatch || size+len(p.data) > softEntryBytes || p.term != batch[0].term) {
			b.carry = p
			return false
		}
		b.bytes.Add(-int64(len(p.data)))
		if p.state.CompareAndSwap(queued, taken) {
			batch = append(batch, p)
			count, size = count+p.count, size+len(p.data)
		}
		return count < b.j.opts.MaxBatch
	}
	if p := b.carry; p != nil {
		b.carry = nil
		add(p)
	}
	for len(batch) == 0 {
		select {
		case p := <-b.queue:
			add(p)
		case <-ctx.Done():
			return nil
		}
	}
	for count < b.j.opts.MaxBatch && b.carry == nil {
		select {
		case p := <-b.queue:
			if !add(p) {
				return batch
			}
		default:
			return batch
		}
	}
	return batch
}

// deliver gives each caller its part of the answer.
func (b *batcher) deliver(batch []*proposal, future raft.ApplyFuture, err error) {
	var results []namespace.Result
	if err == nil {
		switch response := future.Response().(type) {
		case []namespace.Result:
			results = response
		case error:
			err = unknown(opPropose, response) // committed, but this member could not apply it
		default:
			err = unknown(opPropose, fmt.Errorf("a response of type %T", response))
		}
	} else if refused := b.j.refused(opPropose, err); refused != nil {
		err = refused
	} else {
		err = unknown(opPropose, err)
	}
	total := 0
	for _, p := range batch {
		total += p.count
	}
	switch {
	case err != nil || len(results) == total:
	case len(results) == 0 && batch[0].term != 0:
		err = b.j.notLeader(opPropose) // see checkTerm
	default:
		err = unknown(opPropose, errors.New("the entry has another number of commands than was proposed"))
	}
	for _, p := range batch {
		if err != nil {
			p.done <- outcome{err: err}
			continue
		}
		p.done <- outcome{results: results[:p.count:p.count]}
		results = results[p.count:]
	}
}
