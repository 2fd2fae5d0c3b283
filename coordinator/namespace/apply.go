package namespace

import (
	"github.com/freshet-io/freshet"
)

// apply runs one command. A command that fails has changed nothing.
func (t *txn) apply(c *Command) Result {
	if c.Once == nil {
		return t.applyOne(c)
	}
	if _, done := t.outcome(*c.Once); done {
		return Result{Done: true}
	}
	r := t.applyOne(c)
	if r.Err == nil {
		t.saveOutcome(*c.Once, freshet.Completed{})
	}
	return r
}

func (t *txn) applyOne(c *Command) Result {
	if !c.staged() {
		t.exclusive()
	}
	t.cause = t.causeOf(c)
	t.steps.free()
	switch {
	case c.LoadEntry != nil:
		return t.loadEntry(c.LoadEntry)
	case c.LoadListing != nil:
		return t.loadListing(c.LoadListing)
	case c.Mark != nil:
		return t.operatorMark(c.Mark)
	case c.Begin != nil:
		return t.begin(c.Begin)
	case c.Permit != nil:
		return t.permit(c.Permit)
	case c.Complete != nil:
		return t.complete(c.Complete)
	case c.Abort != nil:
		return t.abort(c.Abort)
	case c.Resolve != nil:
		return t.resolveIntent(c.Resolve)
	case c.EndQuarantine != nil:
		return t.endQuarantine(c.EndQuarantine)
	case c.Invalidate != nil:
		return t.invalidate(c.Invalidate)
	case c.Hint != nil:
		return t.hint(c.Hint)
	}
	if r, ok := t.applyPersist(c); ok {
		return r
	}
	return t.applyRare(c)
}

// applyPersist applies what concerns unpersisted files alone.
func (t *txn) applyPersist(c *Command) (Result, bool) {
	switch {
	case c.MoveUnpersisted != nil:
		return t.renameUnpersisted(c.MoveUnpersisted), true
	case c.QueuePersist != nil:
		return t.queuePersist(c.QueuePersist), true
	case c.StopPersist != nil:
		return t.stopPersists(c.StopPersist), true
	case c.PersistFailed != nil:
		return t.persistFailed(c.PersistFailed), true
	case c.AddKeeper != nil:
		return t.addKeeper(c.AddKeeper), true
	}
	return Result{}, false
}

// staged reports whether all that the command changes is changed as a copy. These
// are the commands that come by the thousand when a storage is synced.
func (c *Command) staged() bool {
	return c.LoadEntry != nil || c.LoadListing != nil || c.Mark != nil || c.Purge != nil
}

func (t *txn) applyRare(c *Command) Result {
	switch {
	case c.Bootstrap != nil:
		return t.bootstrap(c.Bootstrap)
	case c.BumpEpoch != nil:
		return t.bumpEpoch(c.BumpEpoch)
	case c.SetMember != nil:
		return t.setMember(c.SetMember)
	case c.RemoveMember != nil:
		return t.removeMember(c.RemoveMember)
	case c.SetVersion != nil:
		return t.setVersion(c.SetVersion)
	case c.SetNodeRole != nil:
		return t.setNodeRole(c.SetNodeRole)
	case c.SetLeases != nil:
		return t.setLeases(c.SetLeases)
	case c.AddMount != nil:
		return t.addMount(c.AddMount)
	case c.UpdateMount != nil:
		return t.updateMount(c.UpdateMount)
	case c.RemoveMount != nil:
		return t.removeMount(c.RemoveMount)
	case c.SetPolicy != nil:
		return t.setPolicy(c.SetPolicy)
	case c.RemovePolicy != nil:
		return t.removePolicy(c.RemovePolicy)
	case c.ChangePolicy != nil:
		return t.changePolicy(c.ChangePolicy)
	case c.Expire != nil:
		return t.expire(c.Expire)
	case c.SetQuota != nil:
		return t.setQuota(c.SetQuota)
	case c.RemoveQuota != nil:
		return t.removeQuota(c.RemoveQuota)
	case c.CountQuotas != nil:
		return Result{More: t.countQuotas(c.CountQuotas.Limit)}
	case c.ResetSub != nil:
		return t.resetSub(c.ResetSub)
	case c.BeginSub != nil:
		return t.beginSub(c.BeginSub)
	case c.ForgetSub != nil:
		return t.forgetSub(c.ForgetSub)
	case c.ForgetWatch != nil:
		return t.forgetWatch(c.ForgetWatch)
	case c.StartSync != nil:
		return t.startSync(c.StartSync)
	case c.EndSync != nil:
		return t.endSync(c.EndSync)
	case c.StartWarm != nil:
		return t.startWarm(c.StartWarm)
	case c.EndWarm != nil:
		return t.endWarm(c.EndWarm)
	case c.PublishAll != nil:
		return t.publishAll(c.PublishAll)
	case c.Compact != nil:
		return t.compact(c.Compact)
	case c.Purge != nil:
		return Result{More: t.purge(c.Purge.Limit)}
	case c.ForgetOps != nil:
		return t.forgetOps(c.ForgetOps)
	}
	return Result{Err: freshet.Errorf(freshet.KindInvalid, "apply", "", "a command without content: was it written by a newer release?")}
}

func (t *txn) bootstrap(c *Bootstrap) Result {
	const op = "bootstrap"
	switch {
	case t.meta.Cluster != (freshet.ClusterID{}):
		return Result{Err: freshet.Errorf(freshet.KindExist, op, "", "the cluster %s was founded before", t.meta.Name), Epoch: t.meta.Epoch}
	case c.Cluster == (freshet.ClusterID{}):
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "the cluster needs an ID")}
	}
	var planned []*mount
	for _, fm := range c.Mounts {
		if err := checkMount(fm, planned); err != nil {
			return Result{Err: err}
		}
		planned = append(planned, &mount{Mount: fm})
	}
	for i := range c.Policies {
		if err := checkPolicy(op, &c.Policies[i]); err != nil {
			return Result{Err: err}
		}
	}
	for i := range c.Quotas {
		if err := c.Quotas[i].check(); err != nil {
			return Result{Err: err}
		}
	}
	t.meta.Cluster, t.meta.Name, t.meta.Epoch = c.Cluster, c.Name, max(c.Epoch, 1)
	t.changes.Epoch = true
	for _, m := range planned {
		t.attach(m.Mount)
	}
	for i := range c.Policies {
		t.savePolicy(&c.Policies[i])
	}
	for i := range c.Quotas {
		t.setQuota(&c.Quotas[i]) // was checked
	}
	return Result{Epoch: t.meta.Epoch}
}

// bumpEpoch is due after acknowledged log entries may have been lost. What they
// said of the storage is lost with them, so that everything needs a sync.
func (t *txn) bumpEpoch(c *BumpEpoch) Result {
	t.meta.Epoch = max(t.meta.Epoch+1, c.Floor)
	t.changes.Epoch = true
	for _, m := range t.mounts {
		t.mark(m, "", true)
	}
	return Result{Epoch: t.meta.Epoch}
}

func (t *txn) setMember(c *Member) Result {
	if c.ID == "" {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, "set member", "", "the member has no ID")}
	}
	t.members[c.ID] = *c
	t.setRow(t.keys.text(tableMember, c.ID), c)
	t.changes.Members = true
	return Result{}
}

func (t *txn) removeMember(c *RemoveMember) Result {
	if _, ok := t.members[c.ID]; !ok {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "remove member", "", "%q is not a member", c.ID)}
	}
	delete(t.members, c.ID)
	t.del(t.keys.text(tableMember, c.ID))
	t.changes.Members = true
	return Result{}
}
