package ops

import (
	"context"
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
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
// KindNotExist (nothing is mounted), KindExhausted (too many open operations),
// KindUnavailable (no live cache node, or the path is being moved or removed).
func (e *Engine) BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	l, err := e.leader(opWrite)
	if err != nil {
		return freshet.BeginWriteAnswer{}, err
	}
	if q.Write != freshet.CacheThrough && q.Write != freshet.Through {
		return freshet.BeginWriteAnswer{}, freshet.Errorf(freshet.KindUnsupported, opWrite, q.Path,
			"write type %q is not served yet: use %q or %q", q.Write, freshet.CacheThrough, freshet.Through)
	}
	q.Op = newOp(q.Op)
	in, ok := e.state.Intent(q.Op)
	if !ok {
		var done bool
		var completed freshet.Completed
		if in, completed, done, err = e.beginWrite(ctx, l, q); err != nil {
			// An operation that is done stays done, whatever would refuse it now. It
			// is asked for here only, for nearly all that begin are new.
			if completed, done, rerr := e.state.OpResult(q.Op); rerr == nil && done {
				return freshet.BeginWriteAnswer{Done: true, Completed: completed}, nil
			}
		}
		if err != nil || done {
			return freshet.BeginWriteAnswer{Done: done, Completed: completed}, err
		}
	}
	switch {
	case in.Kind != namespace.OpWrite || in.Path != q.Path:
		return freshet.BeginWriteAnswer{}, otherUse(opWrite, q.Path, in)
	case in.State == namespace.IntentQuarantine:
		return freshet.BeginWriteAnswer{}, unknownOutcome(opWrite, q.Path, q.Op)
	}
	node, ok := e.nodes.Node(in.Node)
	if !ok {
		return freshet.BeginWriteAnswer{}, freshet.Errorf(freshet.KindUnavailable, opWrite, q.Path,
			"the cache node that began this write has not been heard of; try again in a few seconds")
	}
	return freshet.BeginWriteAnswer{Ticket: ticketOf(in, node)}, nil
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

func (e *Engine) beginWrite(ctx context.Context, l *lead, q freshet.BeginWriteQuery) (namespace.Intent, freshet.Completed, bool, error) {
	fail := func(err error) (namespace.Intent, freshet.Completed, bool, error) {
		return namespace.Intent{}, freshet.Completed{}, false, err
	}
	if err := e.checkTarget(opWrite, q.Path); err != nil {
		return fail(err)
	}
	if err := l.checkFences(opWrite, q.Path); err != nil {
		return fail(err)
	}
	if !e.reserve(l) {
		return fail(freshet.Errorf(freshet.KindExhausted, opWrite, q.Path,
			"%d operations are open, the most that are allowed: finish or abort some, or wait until abandoned ones expire", e.opts.MaxIntents))
	}
	defer l.begun()
	node, incarnation, ok := e.nodes.Writer(q.Node, q.Host, binary.BigEndian.Uint64(q.Op[8:]), e.clock.Elapsed())
	if !ok {
		return fail(freshet.Errorf(freshet.KindUnavailable, opWrite, q.Path, "no live cache node: start one with \"freshet cachenode\""))
	}
	e.opts.Hook(PointBegin, q.Op)
	res, err := e.propose(ctx, namespace.Command{Begin: &namespace.Begin{
		Op: q.Op, Kind: namespace.OpWrite, Path: q.Path, Node: node.ID, Incarn: incarnation,
		Write: q.Write, BlockSize: q.BlockSize, Length: q.Length, At: e.clock.Now(), Owner: q.Owner, Group: q.Group,
	}})
	if err != nil {
		return fail(err)
	}
	if res.Done {
		return res.Intent, res.Completed, true, nil
	}
	// A rename may have begun after the first look: it would leave the file behind.
	if err := l.checkFences(opWrite, q.Path); err != nil {
		if _, aerr := e.propose(ctx, abort(q.Op, false)); aerr != nil {
			e.log.Warn("a refused write could not be withdrawn, it expires", "op", q.Op.String(), "error", aerr)
		}
		return fail(err)
	}
	return res.Intent, freshet.Completed{}, false, nil
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
func (e *Engine) Permit(ctx context.Context, op freshet.OpID, node freshet.NodeID, incarnation uint64, length int64) error {
	if _, err := e.leader(opPermit); err != nil {
		return err
	}
	at := e.nodes.Presence(node, e.clock.Elapsed())
	switch {
	case at.Known && at.Incarnation != incarnation:
		return freshet.Errorf(freshet.KindConflict, opPermit, "", "node %s runs with incarnation %d, not %d", node, at.Incarnation, incarnation)
	case !at.Live:
		return freshet.Errorf(freshet.KindUnavailable, opPermit, "", "node %s has not sent a heartbeat to this leader in time", node)
	}
	_, err := e.propose(ctx, namespace.Command{Permit: &namespace.Permit{Op: op, Node: node, Incarn: incarnation, Length: known(length)}})
	return err
}

// Complete ends an upload that the storage acknowledged. The same Op again gives
// the first outcome. KindNotExist if the operation was given up meanwhile, and its
// outcome is not known to be ours.
func (e *Engine) Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	if _, err := e.leader(opWrite); err != nil {
		return freshet.Completed{}, err
	}
	in, ok := e.state.Intent(op)
	if !ok {
		if done, ok, err := e.state.OpResult(op); err != nil || ok {
			return done, err
		}
		return freshet.Completed{}, freshet.Errorf(freshet.KindNotExist, opWrite, "", "operation %s is not known: it was given up, or never began", op)
	}
	e.opts.Hook(PointComplete, op)
	res, err := e.propose(ctx, e.complete(in, &w, false))
	if err != nil {
		return freshet.Completed{}, err
	}
	e.opts.Hook(PointDone, op)
	e.metrics.operations.WithLabelValues(in.Kind.String(), "done").Inc()
	return res.Completed, nil
}

func (e *Engine) complete(in namespace.Intent, w *freshet.Written, uncertain bool) namespace.Command {
	return namespace.Command{Complete: &namespace.Complete{
		Op: in.Op, Uncertain: uncertain, At: e.clock.Now(),
		Entry: &namespace.Entry{
			Name: in.Path.Base(), Type: freshet.TypeFile, Length: w.Length, ModTime: w.ModTime,
			Owner: w.Owner, Group: w.Group, Mode: w.Mode, Fingerprint: w.Fingerprint,
		},
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
