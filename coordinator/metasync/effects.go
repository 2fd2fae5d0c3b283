package metasync

import (
	"context"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Effects is a way to the log that sees the cluster's own operations go by, and
// counts the completion of one as a validation of the entry that it left.
//
// What age is right? The entry that a completion installs was in the storage at
// the moment at which the effect took place. Nobody knows that moment; it lies
// between the sending of the effect and its acknowledgement. Another program may
// have written since, even before the acknowledgement came: so an age that counts
// from the acknowledgement, or from the completion, could be less than the time
// for which the entry has been outdated. Counted from before the effect was sent
// the age is never less than that, as the age of a look counts from before its
// question. The latest such moment that the leader knows is that of the permit,
// without which no cache node begins an effect; what the coordinator does itself
// begins after its intent. The first attempt of either counts, for its answer may
// have got lost.
//
// The same holds for the index: the storage held the entry at a moment after the
// intent was applied. So a validation by an own effect has the index of its
// intent; whether anything newer covers the entry is for the state to say, as
// ever. A completion that the state does not install, because something else may
// have changed the path meanwhile or the outcome is not sure, validates nothing.
type Effects struct {
	s       *Syncer
	propose func(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error)

	mu   sync.Mutex
	open map[freshet.OpID]effect
}

// effect is what is known of an operation before its effect is sent.
type effect struct {
	mem    *memory
	record record // index 0: the intent is not known to have been applied
}

// maxEffects bounds the operations that are noted. It is above the number that
// may be open; one that is not noted validates nothing.
const maxEffects = 20_000

// Effects returns a way to the log for what changes storages.
func (s *Syncer) Effects(propose func(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error)) *Effects {
	return &Effects{s: s, propose: propose, open: map[freshet.OpID]effect{}}
}

// Propose replicates the commands.
func (e *Effects) Propose(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	for i := range cmds {
		if op, ok := sends(&cmds[i]); ok {
			e.begin(op)
		}
	}
	results, err := e.propose(ctx, cmds...)
	if err != nil {
		return results, err // it may be applied later: what is noted stays, and is right then too
	}
	for i := range cmds {
		e.settle(&cmds[i], &results[i])
	}
	return results, nil
}

// sends returns the operation whose effect may be sent once the command was
// applied.
func sends(cmd *namespace.Command) (freshet.OpID, bool) {
	switch {
	case cmd.Permit != nil:
		return cmd.Permit.Op, true
	case cmd.Begin != nil && cmd.Begin.Node == "":
		return cmd.Begin.Op, true
	}
	return freshet.OpID{}, false
}

// begin notes the time, unless an earlier one is noted.
func (e *Effects) begin(op freshet.OpID) {
	mem := e.s.mem.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if old, ok := e.open[op]; ok && old.mem == mem {
		return
	}
	if len(e.open) >= maxEffects {
		clear(e.open)
	}
	e.open[op] = effect{mem: mem, record: record{at: e.s.opts.Clock.Elapsed(), began: mem.next()}}
}

// settle takes what the state said of a command.
func (e *Effects) settle(cmd *namespace.Command, res *namespace.Result) {
	switch {
	case res.Err != nil:
	case cmd.Permit != nil:
		e.applied(cmd.Permit.Op, res.Intent.Started)
	case cmd.Begin != nil && cmd.Begin.Node == "":
		e.applied(cmd.Begin.Op, res.Intent.Started)
	case cmd.Complete != nil:
		if f := e.end(cmd.Complete.Op); f.record.known() && res.Installed && cmd.Complete.Entry != nil {
			f.mem.validated(res.Completed.Info.Path, f.record)
		}
	case cmd.PersistFailed != nil:
		e.end(cmd.PersistFailed.Op)
	case cmd.Abort != nil:
		e.end(cmd.Abort.Op)
	case cmd.Resolve != nil:
		e.end(cmd.Resolve.Op)
	}
}

func (e *Effects) applied(op freshet.OpID, started uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f, ok := e.open[op]; ok {
		f.record.index = started
		e.open[op] = f
	}
}

func (e *Effects) end(op freshet.OpID) effect {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.open[op]
	delete(e.open, op)
	return f
}
