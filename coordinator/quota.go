package coordinator

import (
	"context"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

const (
	opQuotaGet = "quota show"
	opQuotaSet = "quota set"
	opQuotaDel = "quota unset"
)

// Quotas returns all quotas in order of their paths, or those that count the entry
// at p, and that of p itself, if p is not empty.
func (c *Coordinator) Quotas(ctx context.Context, p freshet.Path) ([]freshet.Quota, error) {
	if err := c.barrier(ctx); err != nil {
		return nil, err
	}
	if p != "" {
		if err := checkPath(p); err != nil {
			return nil, err
		}
	}
	return c.quotas(p)
}

func (c *Coordinator) quotas(p freshet.Path) ([]freshet.Quota, error) {
	held, err := c.state.Quotas()
	if err != nil {
		return nil, freshet.Wrap(opQuotaGet, p, err)
	}
	all := make([]freshet.Quota, 0, len(held))
	for i := range held {
		if p == "" || held[i].Path.Contains(p) {
			all = append(all, quotaOf(&held[i]))
		}
	}
	return all, nil
}

func quotaOf(q *namespace.QuotaStatus) freshet.Quota {
	return freshet.Quota{
		Path: q.Path, MaxEntries: q.MaxEntries, MaxBytes: q.MaxBytes, UsedEntries: q.Used.Entries, UsedBytes: q.Used.Bytes,
		ReservedEntries: q.Reserved.Entries, ReservedBytes: q.Reserved.Bytes, Counting: q.Counting, Origin: q.Origin, SetAt: q.SetAt,
	}
}

// quotaAt returns the quota of exactly one path.
func (c *Coordinator) quotaAt(p freshet.Path) (freshet.Quota, bool, error) {
	held, err := c.state.Quotas()
	if err != nil {
		return freshet.Quota{}, false, err
	}
	at := slices.IndexFunc(held, func(q namespace.QuotaStatus) bool { return q.Path == p })
	if at < 0 {
		return freshet.Quota{}, false, nil
	}
	return quotaOf(&held[at]), true, nil
}

// SetQuota sets the limits of a path, or replaces them. What is there already is
// counted in the background; until that is done the usage is less than what is
// there, and Counting says so.
func (c *Coordinator) SetQuota(ctx context.Context, q freshet.QuotaChange) (freshet.Quota, error) {
	none := freshet.Quota{}
	if err := c.barrier(ctx); err != nil {
		return none, err
	}
	if err := checkPath(q.Path); err != nil {
		return none, err
	}
	if err := q.Normalize(); err != nil {
		return none, err
	}
	ctx = freshet.WithOp(ctx, q.Op)
	now := c.clock.Now().UTC()
	if q.DryRun {
		one, _, err := c.quotaAt(q.Path)
		one.Path, one.MaxEntries, one.MaxBytes, one.Origin, one.SetAt = q.Path, q.MaxEntries, q.MaxBytes, q.Origin, now
		return one, err
	}
	set := quotaCommand(&q, now)
	if _, err := c.propose(ctx, namespace.Command{SetQuota: &set}); err != nil {
		return none, freshet.Wrap(opQuotaSet, q.Path, err)
	}
	one, ok, err := c.quotaAt(q.Path)
	if err == nil && !ok { // removed again at once
		one = freshet.Quota{Path: q.Path, MaxEntries: q.MaxEntries, MaxBytes: q.MaxBytes, Origin: q.Origin, SetAt: now}
	}
	return one, err
}

// quotaCommand makes the command of a change that was normalized.
func quotaCommand(q *freshet.QuotaChange, now time.Time) namespace.SetQuota {
	return namespace.SetQuota{Path: q.Path, MaxEntries: q.MaxEntries, MaxBytes: q.MaxBytes, Origin: q.Origin, At: now}
}

// seedQuota makes a quota that founds a cluster.
func (c *Coordinator) seedQuota(q freshet.QuotaChange) (namespace.SetQuota, error) {
	setDefault(&q.Origin, freshet.OriginConfig)
	err := checkPath(q.Path)
	if err == nil {
		err = q.Normalize()
	}
	return quotaCommand(&q, c.clock.Now().UTC()), err
}

// RemoveQuota removes the quota of exactly one path and returns it.
func (c *Coordinator) RemoveQuota(ctx context.Context, r freshet.QuotaRemoval) (freshet.Quota, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.Quota{}, err
	}
	ctx = freshet.WithOp(ctx, r.Op)
	if done, err := c.repeated(ctx); done || err != nil {
		return freshet.Quota{Path: r.Path}, err
	}
	one, ok, err := c.quotaAt(r.Path)
	if err == nil && !ok {
		err = freshet.Errorf(freshet.KindNotExist, opQuotaDel, r.Path, "no quota is set for exactly this path; see \"freshet quota ls\"")
	}
	if err != nil || r.DryRun {
		return one, err
	}
	_, err = c.propose(ctx, namespace.Command{RemoveQuota: &namespace.RemoveQuota{Path: r.Path}})
	return one, freshet.Wrap(opQuotaDel, r.Path, err)
}

// countLimit is how many entries one command counts: few enough that nobody waits
// for it.
const countLimit = 1000

// countQuotas does a page of what is to be counted.
func (c *Coordinator) countQuotas(ctx context.Context) (more bool, err error) {
	if due, err := c.state.Uncounted(); err != nil || !due {
		return false, err
	}
	r, err := c.one(ctx, namespace.Command{CountQuotas: &namespace.CountQuotas{Limit: countLimit}})
	return r.More, err
}

// makeRoomPages bounds what an operation that a quota refuses does itself before
// it believes that: 200,000 entries.
const makeRoomPages = 200

// makeRoom takes off what was removed, and counts what was moved, if err may be a
// quota's refusal; true if it is worth another try.
func (c *Coordinator) makeRoom(ctx context.Context, err error) bool {
	if !freshet.IsKind(err, freshet.KindExhausted) {
		return false
	}
	// The leader's own housekeeping may have been quicker: with quotas one more try is
	// due in any case.
	held, qerr := c.state.Quotas()
	if qerr != nil || len(held) == 0 {
		return false
	}
	for range makeRoomPages {
		due, cerr := c.state.Uncounted()
		trash := c.state.Stats().Trash > 0
		if cerr != nil || (!due && !trash) {
			return cerr == nil
		}
		if due {
			if _, cerr := c.countQuotas(ctx); cerr != nil {
				return false
			}
		}
		if trash {
			if _, perr := c.one(ctx, namespace.Command{Purge: &namespace.Purge{Limit: purgeLimit}}); perr != nil {
				return false
			}
		}
	}
	return true
}
