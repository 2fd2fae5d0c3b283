package ops

import (
	"context"
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/fingerprint"
)

const (
	opWrite  = "write"
	opPermit = "permit"
)

// newOp returns an ID for an operation whose client gave none.
func newOp(id freshet.OpID) freshet.OpID {
	if id.IsZero() {
		return freshet.OpID(uuid.Must(uuid.NewV7()))
	}
	return id
}

// BeginWrite gives the ticket to write one file, or the outcome if the operation
// is done. The same Op again gets the same ticket.
//
// Errors: KindUnsupported for a write type that is not served, KindInvalid,
// KindPermission (read-only, reserved name), KindConflict (a directory or a mount
// point is there, a parent is a file, the Op was used for something else),
// KindNotExist (nothing is mounted), KindExhausted (too many open operations,
// or no node has room for what stays on nodes), KindUnavailable (no live cache node that
// can take it, or the path is being moved or removed).
func (e *Engine) BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	q.Op = newOp(q.Op)
	each, err := e.BeginWrites(ctx, []freshet.BeginWriteQuery{q})
	if err == nil {
		return each[0].Answer, each[0].Err
	}
	if done, ok := e.doneBefore(q.Op); ok {
		return done, nil
	}
	return freshet.BeginWriteAnswer{}, err
}

// BeginWrites is BeginWrite of many files by one change of the log. The error is of
// all: nothing is known to have begun.
func (e *Engine) BeginWrites(ctx context.Context, qs []freshet.BeginWriteQuery) ([]freshet.Each[freshet.BeginWriteAnswer], error) {
	l, err := e.leader(opWrite)
	if err != nil {
		return nil, err
	}
	all := make([]beginning, len(qs))
	cmds := make([]namespace.Command, 0, len(qs))
	reserved := 0
	for i, q := range qs {
		b := &all[i]
		b.q = q
		b.q.Op = newOp(q.Op)
		if q.Write > freshet.AsyncThrough {
			b.err = freshet.Errorf(freshet.KindInvalid, opWrite, q.Path, "%d is not a write type", q.Write)
			continue
		}
		if in, ok := e.state.Intent(b.q.Op); ok {
			b.in = in
			continue
		}
		if b.err = e.mayBegin(l, b.q); b.err != nil {
			continue
		}
		reserved++
		var begin *namespace.Begin
		if begin, b.err = e.beginOf(l, b.q); b.err == nil {
			b.cmd = len(cmds) + 1
			cmds = append(cmds, namespace.Command{Begin: begin})
		}
	}
	defer l.begun(reserved)
	var results []namespace.Result
	if len(cmds) > 0 {
		if results, err = e.journal.Propose(ctx, cmds...); err != nil {
			return nil, err
		}
	}
	out := make([]freshet.Each[freshet.BeginWriteAnswer], len(qs))
	for i := range all {
		b := &all[i]
		if b.cmd > 0 {
			e.began(ctx, l, b, &results[b.cmd-1])
		}
		out[i].Answer, out[i].Err = e.beginAnswer(b)
	}
	return out, nil
}

// beginning is one of the writes that begin together.
type beginning struct {
	q      freshet.BeginWriteQuery
	cmd    int // place of its command, from 1; 0: it has none
	in     namespace.Intent
	answer freshet.BeginWriteAnswer // if it is done
	err    error
}

// mayBegin refuses a write and, if it does not, has made room for it.
func (e *Engine) mayBegin(l *lead, q freshet.BeginWriteQuery) error {
	if err := e.checkTarget(opWrite, q.Path); err != nil {
		return err
	}
	if err := l.checkFences(opWrite, q.Path); err != nil {
		return err
	}
	if !e.reserve(l) {
		return freshet.Errorf(freshet.KindExhausted, opWrite, q.Path,
			"%d operations are open, the most that are allowed: finish or abort some, or wait until abandoned ones expire", e.opts.MaxIntents)
	}
	return nil
}

func (e *Engine) beginOf(l *lead, q freshet.BeginWriteQuery) (*namespace.Begin, error) {
	spread, now := binary.BigEndian.Uint64(q.Op[8:]), e.clock.Elapsed()
	caller := freshet.Locality{Host: q.Host, Rack: q.Rack, Zone: q.Zone}
	node, incarnation, ok := e.nodes.Writer(q.Node, caller, spread, now)
	replicas := 0
	if ok && q.Write.Keeps() {
		var err error
		if replicas, err = e.replicasOf(&q, now); err != nil {
			return nil, err
		}
		k := placement.Keep{Preferred: q.Node, Caller: caller, Key: spread, Length: -1, Durable: replicas > 1 || q.Write == freshet.AsyncThrough}
		if q.Length != nil {
			k.Length = *q.Length
		}
		if node, incarnation, err = e.keeperOf(l, &q, k, replicas, now); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, freshet.Errorf(freshet.KindUnavailable, opWrite, q.Path, "no live cache node that takes uploads: start one with \"freshet cachenode\"")
	}
	e.opts.Hook(PointBegin, q.Op)
	return &namespace.Begin{
		Op: q.Op, Kind: namespace.OpWrite, Path: q.Path, Node: node.ID, Incarn: incarnation,
		Write: q.Write, BlockSize: q.BlockSize, Length: q.Length, At: e.clock.Now(), Owner: q.Owner, Group: q.Group,
		Replicas: replicas,
	}, nil
}

// began takes what the state said of a Begin.
func (e *Engine) began(ctx context.Context, l *lead, b *beginning, res *namespace.Result) {
	b.in, b.err = res.Intent, res.Err
	if b.err == nil && res.Done {
		b.answer = freshet.BeginWriteAnswer{Done: true, Completed: res.Completed}
		return
	}
	if b.err != nil {
		return
	}
	// A rename may have begun after the first look: it would leave the file behind.
	if b.err = l.checkFences(opWrite, b.q.Path); b.err != nil {
		if _, aerr := e.propose(ctx, abort(b.q.Op, false)); aerr != nil {
			e.log.Warn("a refused write could not be withdrawn, it expires", "op", b.q.Op.String(), "error", aerr)
		}
	}
}

func (e *Engine) beginAnswer(b *beginning) (freshet.BeginWriteAnswer, error) {
	switch {
	case b.err != nil:
		// An operation that is done stays done, whatever would refuse it now. It
		// is asked for here only, for nearly all that begin are new.
		if done, ok := e.doneBefore(b.q.Op); ok {
			return done, nil
		}
		return freshet.BeginWriteAnswer{}, b.err
	case b.answer.Done:
		return b.answer, nil
	case b.in.Kind != namespace.OpWrite || b.in.Path != b.q.Path:
		return freshet.BeginWriteAnswer{}, otherUse(opWrite, b.q.Path, b.in)
	case b.in.State == namespace.IntentQuarantine:
		if done, ok := e.doneBefore(b.q.Op); ok {
			return done, nil
		}
		return freshet.BeginWriteAnswer{}, unknownOutcome(opWrite, b.q.Path, b.q.Op)
	}
	node, ok := e.nodes.Node(b.in.Node)
	if !ok {
		return freshet.BeginWriteAnswer{}, freshet.Errorf(freshet.KindUnavailable, opWrite, b.q.Path,
			"the cache node that began this write has not been heard of; try again in a few seconds")
	}
	t := ticketOf(b.in, node)
	e.addKeepers(&t, &b.in)
	return freshet.BeginWriteAnswer{Ticket: t}, nil
}

// doneBefore returns the outcome of an operation that has ended.
func (e *Engine) doneBefore(op freshet.OpID) (freshet.BeginWriteAnswer, bool) {
	completed, done, err := e.state.OpResult(op)
	return freshet.BeginWriteAnswer{Done: true, Completed: completed}, done && err == nil
}

func ticketOf(in namespace.Intent, node freshet.Node) freshet.Ticket {
	return freshet.Ticket{
		Op: in.Op, File: in.File, Path: in.Path, Node: node, Write: in.Write,
		Target: freshet.Source{Mount: in.Mount, Key: in.Key}, BlockSize: in.BlockSize, Owner: in.Owner, Group: in.Group,
	}
}

func otherUse(op string, p freshet.Path, in namespace.Intent) error {
	return freshet.Errorf(freshet.KindConflict, op, p, "operation ID %s is in use for another operation, %s of %s: make a new one", in.Op, in.Kind, in.Path)
}

func unknownOutcome(op string, p freshet.Path, id freshet.OpID) error {
	return freshet.Errorf(freshet.KindDeadline, op, p,
		"the outcome of operation %s is unknown: look at the path; repeat with a new operation ID if it has not happened", id)
}

func abort(op freshet.OpID, definite bool) namespace.Command {
	return namespace.Command{Abort: &namespace.Abort{Op: op, Definite: definite}}
}

// checkTarget refuses what may not be changed at all, before anything is asked.
func (e *Engine) checkTarget(op string, p freshet.Path) error {
	if err := p.CheckWritable(); err != nil {
		return freshet.Wrap(op, p, err)
	}
	m, ok := e.state.MountAt(p)
	switch {
	case ok && m.Path == p:
		return freshet.Errorf(freshet.KindConflict, op, p, "is a mount point; detach it with 'freshet mount rm'")
	case p.IsRoot():
		return freshet.Errorf(freshet.KindConflict, op, p, "is the root of the namespace")
	case !ok:
		return freshet.Errorf(freshet.KindNotExist, op, p, "no storage is mounted there")
	case m.ReadOnly:
		return freshet.Errorf(freshet.KindPermission, op, p, "the mount at %s is read-only", m.Path)
	}
	return nil
}

// known returns a length, nil if it is negative.
func known(length int64) *int64 {
	if length < 0 {
		return nil
	}
	return &length
}

// Permit allows the node to attempt the effect of an upload: after it the
// operation can't end without a record any more. KindUnavailable if the node has not been heard of in time,
// KindExhausted if the length, negative if it is not known, exceeds a quota,
// KindConflict or KindNotExist if the operation was given up or is not the
// node's: the upload must then be aborted.
func (e *Engine) Permit(ctx context.Context, q freshet.PermitQuery) error {
	errs, err := e.Permits(ctx, []freshet.PermitQuery{q})
	if err != nil {
		return err
	}
	return errs[0]
}

// Permits is Permit of many uploads by one change of the log. The error is of all.
func (e *Engine) Permits(ctx context.Context, qs []freshet.PermitQuery) ([]error, error) {
	if _, err := e.leader(opPermit); err != nil {
		return nil, err
	}
	errs := make([]error, len(qs))
	at := make([]int, 0, len(qs))
	cmds := make([]namespace.Command, 0, len(qs))
	now := e.clock.Elapsed()
	for i, q := range qs {
		seen := e.nodes.Presence(q.Node, now)
		switch {
		case seen.Known && seen.Incarnation != q.Incarnation:
			errs[i] = freshet.Errorf(freshet.KindConflict, opPermit, "", "node %s runs with incarnation %d, not %d", q.Node, seen.Incarnation, q.Incarnation)
		case !seen.Live:
			errs[i] = freshet.Errorf(freshet.KindUnavailable, opPermit, "", "node %s has not sent a heartbeat to this leader in time", q.Node)
		default:
			at = append(at, i)
			cmds = append(cmds, namespace.Command{Permit: e.permitOf(&q)})
		}
	}
	if len(cmds) == 0 {
		return errs, nil
	}
	results, err := e.journal.Propose(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	for i := range results {
		errs[at[i]] = results[i].Err
	}
	return errs, nil
}

func (e *Engine) permitOf(q *freshet.PermitQuery) *namespace.Permit {
	c := &namespace.Permit{Op: q.Op, Node: q.Node, Incarn: q.Incarnation, Length: known(q.Length)}
	if q.Sealed.Known() && e.state.Version() >= namespace.VersionUnpersisted {
		c.Sealed = &fingerprint.Fingerprint{Content: q.Sealed.Content} // the rest changes when the file appears
	}
	return c
}

// Complete ends an upload that the storage acknowledged. The same Op again gives
// the first outcome. KindNotExist if the operation was given up meanwhile, and its
// outcome is not known to be ours.
func (e *Engine) Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	each, err := e.Completes(ctx, []freshet.CompleteQuery{{Op: op, Written: w}})
	if err != nil {
		return freshet.Completed{}, err
	}
	return each[0].Answer, each[0].Err
}

// Completes is Complete of many uploads by one change of the log. The error is of
// all.
func (e *Engine) Completes(ctx context.Context, qs []freshet.CompleteQuery) ([]freshet.Each[freshet.Completed], error) {
	l, err := e.leader(opWrite)
	if err != nil {
		return nil, err
	}
	defer l.hold(qs)()
	e.lookBeneath(ctx, qs)
	out := make([]freshet.Each[freshet.Completed], len(qs))
	at := make([]int, 0, len(qs))
	cmds := make([]namespace.Command, 0, len(qs))
	for i := range qs {
		op := qs[i].Op
		in, ok := e.state.Intent(op)
		if !ok {
			out[i].Answer, out[i].Err = e.ended(op)
			continue
		}
		e.opts.Hook(PointComplete, op)
		at = append(at, i)
		c := e.complete(in, &qs[i].Written, false)
		e.acknowledged(&in, c.Complete) // before anybody can see the file
		cmds = append(cmds, c)
	}
	if len(cmds) == 0 {
		return out, nil
	}
	results, err := e.journal.Propose(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	for i := range results {
		to := &out[at[i]]
		if to.Err = results[i].Err; to.Err != nil {
			continue
		}
		to.Answer = results[i].Completed
		if in, ok := e.state.Intent(qs[at[i]].Op); ok && in.Done {
			l.poke() // it is to be looked at what is there
		}
		e.opts.Hook(PointDone, qs[at[i]].Op)
		e.metrics.written.Inc()
	}
	return out, nil
}

// ended returns the outcome of an upload of which there is no intent.
func (e *Engine) ended(op freshet.OpID) (freshet.Completed, error) {
	if done, ok, err := e.state.OpResult(op); err != nil || ok {
		return done, err
	}
	return freshet.Completed{}, freshet.Errorf(freshet.KindNotExist, opWrite, "", "operation %s is not known: it was given up, or never began", op)
}

func (e *Engine) complete(in namespace.Intent, w *freshet.Written, uncertain bool) namespace.Command {
	nodes := keepersOf(&in, w)
	return namespace.Command{Complete: &namespace.Complete{
		Op: in.Op, Uncertain: uncertain, At: e.clock.Now(),
		Entry: &namespace.Entry{
			Name: in.Path.Base(), Type: freshet.TypeFile, Length: w.Length, ModTime: w.ModTime,
			Owner: w.Owner, Group: w.Group, Mode: w.Mode, Fingerprint: w.Fingerprint,
		},
		Nodes: nodes, Memory: in.Persist == 0 && in.Write == freshet.MustCache && len(nodes) == 0 && e.nodes.InMemory([]freshet.NodeID{in.Node}),
	}}
}

// Abort ends an upload on the word of its node. definite is the storage's own
// word that there was no effect; without it an upload that may have been
// published is resolved instead, in the background. An operation that ended
// before is no error.
func (e *Engine) Abort(ctx context.Context, op freshet.OpID, definite bool) error {
	l, err := e.leader("abort")
	if err != nil {
		return err
	}
	_, err = e.propose(ctx, abort(op, definite))
	switch {
	case err == nil:
		e.metrics.operations.WithLabelValues(namespace.OpWrite.String(), "aborted").Inc()
		return nil
	case freshet.IsKind(err, freshet.KindNotExist):
		return nil
	case !freshet.IsKind(err, freshet.KindConflict):
		return err
	}
	if in, ok := e.state.Intent(op); ok && in.State == namespace.IntentMayPublish {
		l.force(op)
	}
	return nil
}

// AbortWrite ends a write on the word of its client: KindConflict if the node may
// be publishing it at this moment, KindNotExist if it is not known. The node is
// told with its next heartbeat.
func (e *Engine) AbortWrite(ctx context.Context, op freshet.OpID) error {
	l, err := e.leader("abort write")
	if err != nil {
		return err
	}
	in, ok := e.state.Intent(op)
	if ok && in.Kind != namespace.OpWrite {
		return freshet.Errorf(freshet.KindConflict, "abort write", in.Path, "operation %s is not a write but a %s: it can't be withdrawn", op, in.Kind)
	}
	if _, err = e.propose(ctx, abort(op, false)); err != nil {
		return err
	}
	if ok { // the node may be dead and never hear of it
		e.start(l, "clear an aborted upload", func(ctx context.Context) { e.clear(ctx, in) })
	}
	return nil
}
