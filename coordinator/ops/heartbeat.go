package ops

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Heartbeat takes the word of a cache node: that it lives, which blocks it holds,
// which uploads it runs and which have ended. The answer carries its lease, the
// mount table if the node has another one, the blocks to free, the uploads that
// were settled and those to abort. What a node reports as finished is completed
// here, whether or not a client ever asks (decided before the answer).
//
// KindConflict if a later run of the node has registered, or if it keeps what only it has
// of another cluster; KindNotLeader here and there.
func (e *Engine) Heartbeat(ctx context.Context, h freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	l, err := e.leader("heartbeat")
	if err != nil {
		return freshet.HeartbeatReply{}, err
	}
	id := e.state.Identity()
	if len(h.Kept) > 0 && h.Cluster != id.Cluster && h.Cluster != (freshet.ClusterID{}) {
		return freshet.HeartbeatReply{}, freshet.Errorf(freshet.KindConflict, "heartbeat", "",
			"node %s keeps files of cluster %s that are not in the storage, and these coordinators are of cluster %s: have it join that one again and persist them, or give them up: stop it and remove its cache directories",
			h.Node.Name, h.Cluster, id.Cluster)
	}
	report, err := e.nodes.Heartbeat(h, h.Term == l.term, e.clock.Elapsed())
	if err != nil {
		return freshet.HeartbeatReply{}, err
	}
	if report.New || report.Restarted {
		e.log.Info("cache node registered", "node_id", string(h.Node.ID), "name", h.Node.Name,
			"incarnation", h.Incarnation, "restarted", report.Restarted, "full", h.Full)
		l.poke()
	}
	if !report.NeedFull {
		e.freeDead(h)
	}
	reply := freshet.HeartbeatReply{
		Cluster: id.Cluster, Epoch: id.Epoch, Term: l.term, Lease: e.opts.Lease, NeedFull: report.NeedFull,
		Free: e.nodes.ToFree(h.Node.ID, e.opts.MaxFree),
	}
	mounts, revision := e.state.Mounts()
	reply.MountRevision = revision
	if h.MountRevision != revision {
		reply.Mounts = mounts
	}
	e.sawActive(l, h)
	reply.Settled, err = e.finish(ctx, l, h)
	if err != nil {
		return freshet.HeartbeatReply{}, err
	}
	reply.Abort = e.toAbort(h)
	reply.Released = e.state.Release(h.Cluster, h.Kept)
	reply.Persist = e.orders(&h)
	e.took(ctx, l, &h)
	reply.Keep = e.keepOrders(l, h.Node.ID)
	return reply, nil
}

// freeDead has the node free what it reports of versions that are not live.
func (e *Engine) freeDead(h freshet.Heartbeat) {
	if len(h.Added) == 0 {
		return
	}
	const batch = 4096
	var dead []freshet.BlockID
	for from := 0; from < len(h.Added); from += batch {
		part := h.Added[from:min(from+batch, len(h.Added))]
		ids := make([]freshet.FileID, len(part))
		for i, b := range part {
			ids[i] = b.ID.File
		}
		for i, live := range e.state.FileLive(ids) {
			if !live {
				dead = append(dead, part[i].ID)
			}
		}
	}
	e.nodes.FreeBlocks(h.Node.ID, dead)
}

// Freed has the nodes free the blocks of versions that are no longer live, as a
// change of the state named them. It may be called on any member, at any time.
func (e *Engine) Freed(files []freshet.FileID) {
	if len(files) > 0 {
		e.nodes.FreeFiles(files...)
	}
}

// own reports whether the intent is an upload of this run of the node.
func own(in namespace.Intent, h freshet.Heartbeat) bool {
	return in.Node == h.Node.ID && in.Incarn == h.Incarnation
}

// toAbort returns the active uploads that can't be published any more.
func (e *Engine) toAbort(h freshet.Heartbeat) []freshet.OpID {
	var stop []freshet.OpID
	for _, op := range h.Active {
		in, ok := e.state.Intent(op)
		if !ok || !own(in, h) || in.State == namespace.IntentQuarantine {
			stop = append(stop, op)
		}
	}
	return stop
}

// finish ends the operations that the node reports as finished, in one proposal,
// and returns those that need not be reported again.
func (e *Engine) finish(ctx context.Context, l *lead, h freshet.Heartbeat) ([]freshet.OpID, error) {
	var settled []freshet.OpID
	var cmds []namespace.Command
	var open []freshet.FinishedOp
	var doubtful []freshet.CompleteQuery
	for _, f := range h.Finished {
		in, ok := e.state.Intent(f.Op)
		switch {
		case !ok || !own(in, h) || in.State == namespace.IntentQuarantine:
			e.lateEffect(l, f, ok)
			settled = append(settled, f.Op)
		case f.Written != nil && l.held(f.Op): // reported again, if whoever asked for its end is gone
		case f.Written != nil && !f.Uncertain && e.doubtful(&in):
			doubtful = append(doubtful, freshet.CompleteQuery{Op: f.Op, Written: *f.Written})
		case f.Written != nil:
			cmds, open = append(cmds, e.complete(in, f.Written, f.Uncertain)), append(open, f)
		case !f.Uncertain && in.Persist != 0:
			cmds, open = append(cmds, e.notPersisted(&in, &f)), append(open, f)
		case !f.Uncertain:
			cmds, open = append(cmds, abort(f.Op, true)), append(open, f)
		default:
			l.force(f.Op) // reported again until the storage was looked at
		}
	}
	e.endDoubtful(l, doubtful)
	if len(cmds) == 0 {
		return settled, nil
	}
	results, err := e.journal.Propose(ctx, cmds...)
	switch {
	case freshet.IsKind(err, freshet.KindExhausted, freshet.KindUnavailable, freshet.KindDeadline):
		// It is reported again; the node keeps its lease.
		e.log.Warn("finished uploads could not be settled yet", "node_id", string(h.Node.ID), "operations", len(cmds), "error", err)
		return settled, nil
	case err != nil:
		return nil, err
	}
	for i, res := range results {
		if e.unsettled(l, open[i].Op, res.Err) {
			continue
		}
		settled = append(settled, open[i].Op)
		outcome := "done"
		if open[i].Written == nil {
			outcome = "aborted"
		}
		e.metrics.operations.WithLabelValues(namespace.OpWrite.String(), outcome).Inc()
	}
	return settled, nil
}

// unsettled has an upload resolved whose end, as its node reported it, was refused with err;
// false if it was not, or the upload is over already.
func (e *Engine) unsettled(l *lead, op freshet.OpID, err error) bool {
	if err == nil || freshet.IsKind(err, freshet.KindNotExist) {
		return false
	}
	e.log.Warn("a finished upload could not be settled, it is resolved", "op", op.String(), "error", err)
	l.force(op)
	return true
}
