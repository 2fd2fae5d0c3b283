package coordinator

import (
	"context"

	"github.com/freshet-io/freshet"
)

// Mkdir makes a directory in the storage.
func (c *Coordinator) Mkdir(ctx context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	return change(c, ctx, q.Path, q, c.ops.Mkdir)
}

// Rename moves an entry within its mount.
func (c *Coordinator) Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	if err := checkPath(q.Target); err != nil {
		return freshet.Completed{}, err
	}
	done, err := change(c, ctx, q.Path, q, c.ops.Rename)
	if err == nil {
		c.pins.moved()
		c.moved(&done.Info)
	}
	return done, err
}

// Remove removes an entry from the storage.
func (c *Coordinator) Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	return change(c, ctx, q.Path, q, c.ops.Remove)
}

// RemoveTree removes a tree page by page and reports progress; it stops when ctx
// ends.
func (c *Coordinator) RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error {
	if err := checkPath(q.Path); err != nil {
		return err
	}
	_, err := c.ops.RemoveTree(ctx, q, report)
	return c.leaderHint(err)
}

// PlanRename says what a Rename would do and what it costs the storage.
func (c *Coordinator) PlanRename(ctx context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	if err := checkPath(q.Target); err != nil {
		return freshet.RenamePlan{}, err
	}
	if err := checkPath(q.Path); err != nil {
		return freshet.RenamePlan{}, err
	}
	p, err := c.ops.PlanRename(ctx, q)
	return p, c.leaderHint(err)
}

// SetAttr changes owner, group or mode in the storage.
func (c *Coordinator) SetAttr(ctx context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	return change(c, ctx, q.Path, q, c.ops.SetAttr)
}

// BeginWrite gives the permission to write one file.
func (c *Coordinator) BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	if err := c.settleWrite(&q); err != nil {
		return freshet.BeginWriteAnswer{}, err
	}
	if err := checkPath(q.Path); err != nil {
		return freshet.BeginWriteAnswer{}, err
	}
	if err := c.prepareKept(ctx, &q); err != nil {
		return freshet.BeginWriteAnswer{}, c.leaderHint(err)
	}
	return change(c, ctx, q.Path, q, c.ops.BeginWrite)
}

// BeginWrites is BeginWrite of many files, whose paths must be canonical, but makes
// no room for any.
func (c *Coordinator) BeginWrites(ctx context.Context, qs []freshet.BeginWriteQuery) ([]freshet.Each[freshet.BeginWriteAnswer], error) {
	refused := make([]error, len(qs))
	taken := make([]freshet.BeginWriteQuery, 0, len(qs))
	for i := range qs {
		if refused[i] = c.settleWrite(&qs[i]); refused[i] == nil {
			taken = append(taken, qs[i])
		}
	}
	each, err := c.ops.BeginWrites(ctx, c.prepareEach(ctx, taken))
	if err != nil || len(taken) == len(qs) {
		return each, c.leaderHint(err)
	}
	all := make([]freshet.Each[freshet.BeginWriteAnswer], len(qs))
	for i := range all {
		if all[i].Err = refused[i]; all[i].Err == nil {
			all[i], each = each[0], each[1:]
		}
	}
	return all, nil
}

// settleWrite fills in what the query leaves to the policies of the path. KindInvalid
// for a write that can't be as it asks.
func (c *Coordinator) settleWrite(q *freshet.BeginWriteQuery) error {
	named := q.Write != freshet.ByPolicy
	if named && !q.Write.Keeps() && q.DurableReplicas == 0 {
		return nil
	}
	applies, _ := c.state.EffectiveAt(q.Path)
	if !named {
		q.Write = applies.Write
	}
	if err := freshet.CheckDurableReplicas(q.DurableReplicas, q.Write); err != nil {
		return freshet.Wrap("write", q.Path, err)
	}
	if q.DurableReplicas == 0 && q.Write.Keeps() {
		q.DurableReplicas = applies.Replicas
	}
	return nil
}

// change runs an operation on a path of this leader.
func change[Q, A any](c *Coordinator, ctx context.Context, p freshet.Path, q Q, do func(context.Context, Q) (A, error)) (A, error) { //nolint:revive // the receiver comes first
	var none A
	if err := checkPath(p); err != nil {
		return none, err
	}
	a, err := do(ctx, q)
	if err != nil && c.makeRoom(ctx, err) {
		a, err = do(ctx, q)
	}
	return a, c.leaderHint(err)
}

// AbortWrite gives up a write that a client began.
func (c *Coordinator) AbortWrite(ctx context.Context, op freshet.OpID) error {
	return c.leaderHint(c.ops.AbortWrite(ctx, op))
}

// Heartbeat takes the word of a cache node.
func (c *Coordinator) Heartbeat(ctx context.Context, h freshet.Heartbeat) (freshet.HeartbeatReply, error) {
	c.applyRoles()
	r, err := c.ops.Heartbeat(ctx, h)
	if err == nil {
		_, r.Draining = c.nodes.Draining(h.Node.ID, c.clock.Elapsed())
		c.answerPins(&h, &r)
		c.answerCopies(&h, &r)
		c.answerWarms(&h, &r)
	}
	return r, c.leaderHint(err)
}

// Permit allows the effect of an upload, just before it.
func (c *Coordinator) Permit(ctx context.Context, q freshet.PermitQuery) error {
	err := c.ops.Permit(ctx, q)
	if err != nil && c.makeRoom(ctx, err) {
		err = c.ops.Permit(ctx, q)
	}
	return c.leaderHint(err)
}

// Complete makes an upload that the storage acknowledged visible.
func (c *Coordinator) Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error) {
	done, err := c.ops.Complete(ctx, op, w)
	return done, c.leaderHint(err)
}

// Permits is Permit of many uploads, but makes no room for any.
func (c *Coordinator) Permits(ctx context.Context, qs []freshet.PermitQuery) ([]error, error) {
	errs, err := c.ops.Permits(ctx, qs)
	return errs, c.leaderHint(err)
}

// Completes is Complete of many uploads.
func (c *Coordinator) Completes(ctx context.Context, qs []freshet.CompleteQuery) ([]freshet.Each[freshet.Completed], error) {
	each, err := c.ops.Completes(ctx, qs)
	return each, c.leaderHint(err)
}

// Abort ends an upload without an effect.
func (c *Coordinator) Abort(ctx context.Context, op freshet.OpID, definite bool) error {
	return c.leaderHint(c.ops.Abort(ctx, op, definite))
}
