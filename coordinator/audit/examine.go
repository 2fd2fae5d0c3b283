package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// examined is what was found out about one path.
type examined struct {
	held, exists bool
	cached       *freshet.Info // of what is held and does not differ
	difference   *freshet.Difference
}

// attempts is how often a path is looked at that changes while it is looked at.
const attempts = 5

// examine asks the storage about p, between two reads of the state that say the
// same: what changed meanwhile, by an operation or by a mark, differs from nothing.
func (r *run) examine(ctx context.Context, p freshet.Path) (examined, error) {
	for range attempts {
		before, err := r.Sync.Inspect(p, r.Rule)
		if err != nil {
			return examined{}, err
		}
		if l := &before.Lookup; !l.HasMount || l.MountPoint || l.Virtual {
			return examined{held: l.Found}, nil // the storage has no say
		}
		busy := r.Busy(p)
		st, exists, err := r.Sync.Ask(ctx, &before.Lookup)
		if err != nil {
			return examined{}, err
		}
		if err := r.Barrier(ctx); err != nil {
			return examined{}, err
		}
		after, err := r.Sync.Inspect(p, r.Rule)
		if err != nil {
			return examined{}, err
		}
		if !unchanged(&before, &after) {
			continue
		}
		e, err := r.judge(p, &after, &st, exists)
		if err != nil || e.difference == nil {
			return e, err
		}
		if e.difference.Served && (busy || r.Busy(p)) {
			e.difference.Served, e.difference.Reason = false, "an operation on it has not ended"
		}
		return e, nil
	}
	return examined{held: true, exists: true}, nil // it changes all the time: nothing is certain
}

// unchanged reports whether two inspections of a path say the same of it.
func unchanged(a, b *metasync.Inspection) bool {
	x, y := &a.Lookup, &b.Lookup
	return x.Found == y.Found && x.Placeholder == y.Placeholder && x.Freshness == y.Freshness && x.KnownAbsent == y.KnownAbsent &&
		x.Absent == y.Absent && x.Info.Type == y.Info.Type && x.Info.FileID == y.Info.FileID && x.Info.Fingerprint == y.Info.Fingerprint &&
		x.Mount.ID == y.Mount.ID && x.Mount.Generation == y.Mount.Generation && x.Uncachable == y.Uncachable && x.PendingWriters == y.PendingWriters
}

// judge compares what is held with what the storage said.
func (r *run) judge(p freshet.Path, in *metasync.Inspection, st *ufs.Status, exists bool) (examined, error) {
	l := &in.Lookup
	e := examined{held: l.Found && !l.Placeholder, exists: exists}
	d := &freshet.Difference{Path: p}
	if exists {
		d.Storage = &freshet.Info{
			Path: p, Type: st.Type, Length: st.Length, ModTime: st.ModTime, Owner: st.Owner, Group: st.Group, Mode: st.Mode,
			Fingerprint: st.Fingerprint, Mount: l.Mount.ID,
		}
	}
	verdict := in.Entry
	switch {
	case !e.held && !exists, l.Placeholder:
		return e, nil
	case !e.held:
		return r.unheld(e, d, in, st)
	}
	info := l.Info
	d.Cached = &info
	if l.Unpersisted {
		return r.unpersisted(e, d, l)
	}
	d.Class = class(&info, d.Storage, st)
	if d.Class == "" {
		e.cached = &info
		return e, nil
	}
	d.Served = verdict.Fresh
	d.Reason = r.reason(in, verdict)
	e.difference = d
	return e, nil
}

// unpersisted judges what is not in the storage yet: that it is not there is no
// difference, but what somebody else has put in its place is.
func (r *run) unpersisted(e examined, d *freshet.Difference, l *namespace.Lookup) (examined, error) {
	if d.Storage == nil || l.Info.Type == freshet.TypeDirectory && d.Storage.Type == freshet.TypeDirectory {
		return e, nil
	}
	if d.Storage.Type == l.Info.Type && d.Storage.Fingerprint.SameContent(l.Beneath) {
		return e, nil
	}
	d.Class, d.Served = freshet.DifferenceContent, true
	d.Reason = "the file is not in the storage yet, which holds another version than when it was written: it can't be persisted without --overwrite"
	e.difference = d
	return e, nil
}

// unheld judges what the storage has and the state does not: it is a difference
// only if a complete listing lacks it.
func (r *run) unheld(e examined, d *freshet.Difference, in *metasync.Inspection, st *ufs.Status) (examined, error) {
	if st.Special != "" {
		return e, nil
	}
	parent, err := r.Sync.Inspect(d.Path.Parent(), r.Rule)
	if err != nil {
		return e, err
	}
	listed := !d.Path.IsRoot() && parent.Lookup.Listing.Complete && parent.Lookup.Mount.ID == in.Lookup.Mount.ID
	if !listed && !in.Lookup.KnownAbsent && !in.Absent.Fresh {
		return e, nil // nobody was told that it does not exist
	}
	verdict := in.Absent
	if listed && !in.Absent.Fresh && (parent.Listing.Fresh || !in.Lookup.KnownAbsent) {
		verdict = parent.Listing
	}
	d.Class = freshet.DifferenceOnlyStorage
	d.Served = in.Absent.Fresh || (listed && parent.Listing.Fresh)
	d.Reason = r.reason(in, verdict)
	e.difference = d
	return e, nil
}

// class returns the class of a difference, "" if there is none.
func class(cached, storage *freshet.Info, st *ufs.Status) string {
	switch {
	case storage == nil:
		return freshet.DifferenceOnlyCache
	case st.Special != "" || cached.Type != storage.Type:
		return freshet.DifferenceType
	}
	content, meta := metasync.SameContent(cached, storage)
	switch {
	case !content:
		return freshet.DifferenceContent
	case !meta:
		return freshet.DifferenceMetadata
	}
	return ""
}

// reason says why what differs would be served, or why it would not.
func (r *run) reason(in *metasync.Inspection, v metasync.Verdict) string {
	l := &in.Lookup
	if !v.Fresh {
		return v.Why()
	}
	if coming := r.Coming(&l.Mount); coming != "" {
		return coming
	}
	every := r.Rule(l)
	if every < 0 {
		return "nothing told of the change, and no interval makes a read look (never, by " + rule(in) + ")"
	}
	left := max(time.Duration(every)-max(v.Age, 0), 0).Round(time.Millisecond)
	return fmt.Sprintf("within the sync interval: a read in %s or later looks (%s, by %s)", left, every, rule(in))
}

func rule(in *metasync.Inspection) string {
	l := &in.Lookup
	if l.Rule.Mount || l.Rule.Path == "" {
		return fmt.Sprintf("mount %s", l.Mount.Path)
	}
	return fmt.Sprintf("policy of %s", l.Rule.Path)
}

// blocks compares the cached blocks of a version with what it can have, and tells
// what nodes found damaged. No such block is ever served; a repair evicts all of the
// version, so that the next reads fetch them anew.
func (r *run) blocks(info *freshet.Info) {
	if info == nil || info.FileID == 0 {
		return
	}
	size := info.BlockSize
	wrong := 0
	for _, b := range r.Blocks(info.FileID) {
		if at := int64(b.Index) * size; at >= info.Length || b.Length != min(size, info.Length-at) {
			wrong++
		}
	}
	var reasons []string
	if wrong > 0 {
		reasons = append(reasons, fmt.Sprintf("%d cached blocks are of a wrong size: a node checks each block as it opens it, and fetches a wrong one anew", wrong))
	}
	if d := r.Damage(info.FileID); d.Blocks > 0 {
		reasons = append(reasons, fmt.Sprintf("%d damaged blocks were found by their checksums on %s, the last one %s ago, and dropped: they are fetched anew; look at that disk",
			d.Blocks, strings.Join(d.Nodes, ", "), d.Ago.Round(time.Second)))
	}
	if len(reasons) == 0 {
		return
	}
	held := *info
	if r.q.Repair {
		r.Evict(info.FileID)
	}
	r.found(&freshet.Difference{
		Path: info.Path, Class: freshet.DifferenceBlocks, Cached: &held, Repaired: r.q.Repair, Reason: strings.Join(reasons, "; "),
	})
}

// conclude reports a difference, after its repair if that is wanted, and reports
// whether it was repaired.
func (r *run) conclude(ctx context.Context, d *freshet.Difference) bool {
	if r.q.Repair {
		if why := r.repair(ctx, d.Path); why == "" {
			d.Repaired = true
		} else {
			d.RepairError = why
		}
	}
	r.found(d)
	return d.Repaired
}

// repair makes the cache agree about a path, the way any invalidation does: a mark,
// and a look. It returns why it could not.
func (r *run) repair(ctx context.Context, p freshet.Path) string {
	if r.Busy(p) {
		return "an operation on it has not ended"
	}
	if err := r.Mark(ctx, p); err != nil {
		return err.Error()
	}
	_, err := r.Sync.Entry(ctx, p, metasync.Fixed(freshet.Never))
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict, freshet.KindPermission) {
		return err.Error()
	}
	e, err := r.examine(ctx, p)
	switch {
	case err != nil:
		return err.Error()
	case e.difference != nil && e.difference.Served:
		return "it still differs: " + e.difference.Reason
	case e.difference != nil:
		return "it changed meanwhile, and the next read looks: " + e.difference.Reason
	}
	return ""
}
