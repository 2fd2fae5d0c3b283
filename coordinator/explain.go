package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
)

// The verdicts of Explain.
const (
	verdictFresh      = "fresh"
	verdictStale      = "stale"
	verdictUnknown    = "unknown"
	verdictAbsent     = "absent"
	verdictUncachable = "uncachable"
)

// Explain says all that this cluster knows of the freshness of p, without
// changing anything; with check it asks the storage too and compares.
func (c *Coordinator) Explain(ctx context.Context, p freshet.Path, check bool) (freshet.Explanation, error) {
	if err := c.prepare(ctx, p, freshet.ReadOptions{}); err != nil {
		return freshet.Explanation{}, err
	}
	in, err := c.sync.Inspect(p, c.ruleOf(nil))
	if err != nil {
		return freshet.Explanation{}, err
	}
	l := &in.Lookup
	x := freshet.Explanation{Path: p}
	fact := c.explainVerdict(&x, &in)
	x.Freshness = c.freshness(l, fact, nil)
	x.ValidFrom, x.Need = fact.Valid, fact.Need
	if l.HasMount {
		m := l.Mount
		x.Mount = &m
		x.ActiveSync = c.activeStatus(&m)
	}
	if l.Found {
		info := l.Info
		x.Info = &info
	}
	if x.Stamps, err = c.stamps(p); err != nil {
		return x, err
	}
	c.explainAge(&x, fact)
	x.NextCheck = c.nextCheck(l, fact)
	x.RuleOrigin = ruleOrigin(l)
	x.Effective = effectiveSettings(lineOf(c.policies(), p))
	if x.Quotas, err = c.quotas(p); err != nil {
		return x, err
	}
	x.Publishers = c.publishers(l)
	if l.Found && l.Info.FileID != 0 {
		blocks := c.nodes.Blocks(l.Info.FileID, c.clock.Elapsed())
		x.Blocks, x.MoreBlocks = first(blocks)
		x.Replication = c.explainCopies(l, blocks)
	}
	x.Intents, x.Operations = c.ops.Unresolved(p), c.ops.Operations(0, ops.Concerns(p))
	if check && l.HasMount {
		x.Storage = c.storageView(ctx, p, &in)
	}
	x.Remedy = remedy(&x, l)
	if reason, what := c.explainKept(l); reason != "" {
		x.Reason, x.Remedy = reason, what
	}
	return x, nil
}

// maxExplained bounds the blocks of an explanation and the nodes that are named in
// them, so that it fits into a message.
const maxExplained = 16_384

// first returns the first blocks of all, as many as an explanation can name, and how
// many are left.
func first(all []freshet.ExplainedBlock) (some []freshet.ExplainedBlock, more int) {
	named := 0
	for i := range all {
		if named += 1 + len(all[i].Nodes); named > maxExplained {
			return all[:i], len(all) - i
		}
	}
	return all, 0
}

// explainVerdict sets verdict and reason and returns the fact that they are
// about.
func (c *Coordinator) explainVerdict(x *freshet.Explanation, in *metasync.Inspection) metasync.Verdict {
	l := &in.Lookup
	dir := l.Found && l.Info.Type == freshet.TypeDirectory
	say := func(verdict, format string, args ...any) {
		x.Verdict, x.Reason = verdict, fmt.Sprintf(format, args...)
	}
	switch {
	case !l.HasMount && !l.Virtual:
		say(verdictAbsent, "no storage is mounted at or above this path")
		return metasync.Verdict{Fresh: true, Age: -1}
	case l.Uncachable:
		say(verdictUncachable, "an operation with an unknown outcome can still change the path in the storage: every read asks the storage")
		return in.Entry
	case l.MountPoint || l.Virtual:
		what := "mount points lie below it"
		if l.MountPoint {
			what = "a storage is mounted here"
		}
		if l.HasMount && !in.Listing.Fresh {
			say(verdictStale, "the directory exists because %s; its listing will be read from the storage at the next access: %s", what, in.Listing.Why())
			return in.Listing
		}
		say(verdictFresh, "the directory exists because %s", what)
		return in.Listing
	case l.Found && !l.Placeholder && in.Entry.Fresh:
		if dir && !in.Listing.Fresh {
			say(verdictFresh, "the directory itself is fresh; its listing will be read from the storage at the next access: %s", in.Listing.Why())
			return in.Entry
		}
		say(verdictFresh, "nothing that covers the path was invalidated since it was last found to agree with the storage%s", within(in.Entry))
		return in.Entry
	case l.Found && !l.Placeholder:
		say(verdictStale, "the next access asks the storage: %s", in.Entry.Why())
		return in.Entry
	case in.Absent.Fresh && in.Absent.LookedAt != "":
		say(verdictAbsent, "absent: looked at %s ago: the storage had nothing at %s", in.Absent.Age.Round(time.Millisecond), in.Absent.LookedAt)
		return in.Absent
	case l.KnownAbsent && in.Absent.Fresh:
		say(verdictAbsent, "the complete listing of %s does not have it%s", l.AbsentAt, within(in.Absent))
		return in.Absent
	case l.Placeholder:
		say(verdictUnknown, "only something below it was read so far: the next access asks the storage")
		return in.Entry
	}
	say(verdictUnknown, "the path was never read: the next access asks the storage")
	return in.Entry
}

func within(v metasync.Verdict) string {
	if v.Age < 0 {
		return ""
	}
	return fmt.Sprintf(", %s ago", v.Age.Round(time.Millisecond))
}

func (c *Coordinator) explainAge(x *freshet.Explanation, v metasync.Verdict) {
	own, written := c.marks.ownAt(x.Path, v.Valid)
	switch {
	case written && !own.at.IsZero():
		x.ValidatedAt = own.at.UTC()
		x.LastValidation = fmt.Sprintf("written by this cluster %s ago (operation %s)", c.clock.Now().Sub(own.at).Round(time.Millisecond), own.Cause.Op)
	case v.Age >= 0:
		x.ValidatedAt = c.clock.Now().Add(-v.Age).UTC()
		x.LastValidation = fmt.Sprintf("a look at the storage that began %s ago", v.Age.Round(time.Millisecond))
	case v.Valid == namespace.Unshakable:
		x.LastValidation = "none: the storage does not have this version yet"
	case v.Valid > 0 && v.Loaded:
		x.LastValidation = fmt.Sprintf("loaded or written at log index %d; when is not known to the present leader", v.Valid)
	default:
		x.LastValidation = "never"
	}
}

func (c *Coordinator) nextCheck(l *namespace.Lookup, v metasync.Verdict) string {
	e := c.rule(l, nil)
	origin := fmt.Sprintf("policy of %s", l.Rule.Path)
	if l.Rule.Mount || l.Rule.Path == "" {
		origin = fmt.Sprintf("mount %s", l.Mount.Path)
	}
	if e.degraded != "" {
		origin += ", degraded"
	}
	switch {
	case !l.HasMount:
		return "never: no storage is involved"
	case !v.Fresh:
		return fmt.Sprintf("at the next access (%s: %s)", origin, e.interval)
	case e.suspended && e.interval < 0:
		return fmt.Sprintf("when %s tells of a change (%s: its interval is suspended while that is heard)", c.active.Status(l.Mount.ID, c.term.Load()).Source, origin)
	case e.interval < 0:
		return fmt.Sprintf("when it is invalidated (%s: never by time)", origin)
	case e.interval == freshet.Always:
		return fmt.Sprintf("at every access (%s: always)", origin)
	}
	return fmt.Sprintf("at the first access in %s or later (%s: every %s)", (time.Duration(e.interval) - max(v.Age, 0)).Round(time.Millisecond), origin, e.interval)
}

// ruleOrigin says who set the rule that gives the interval.
func ruleOrigin(l *namespace.Lookup) string {
	switch {
	case !l.HasMount:
		return ""
	case l.Rule.Mount || l.Rule.Path == "":
		return "mount by " + nameOr(l.Mount.Origin, "unknown")
	}
	return "policy by " + nameOr(l.Rule.Origin, "unknown")
}

// publishers returns the positions in the logs of the path's domain.
func (c *Coordinator) publishers(l *namespace.Lookup) []freshet.PublisherStatus {
	if !l.HasMount {
		return nil
	}
	if hook := c.hooks.Load().Publishers; hook != nil {
		return hook(l.Mount.Domain)
	}
	var out []freshet.PublisherStatus
	for _, s := range c.state.Subscriptions() {
		if s.Domain == l.Mount.Domain {
			out = append(out, freshet.PublisherStatus{
				Cluster: s.Publisher.Name, ID: s.Publisher.Cluster, Epoch: s.Publisher.Epoch, Domain: s.Domain,
				Applied: s.Applied, State: s.State.String(), SinceContact: -1,
			})
		}
	}
	return out
}

// storageView asks the storage and compares its answer with what is held.
func (c *Coordinator) storageView(ctx context.Context, p freshet.Path, in *metasync.Inspection) *freshet.StorageView {
	l := &in.Lookup
	st, exists, err := c.sync.Ask(ctx, l)
	if err != nil {
		return &freshet.StorageView{Error: err.Error()}
	}
	v := &freshet.StorageView{Exists: exists}
	if !exists {
		v.SameContent = !l.Found
		v.SameMeta = v.SameContent
		return v
	}
	v.Info = freshet.Info{
		Path: p, Type: st.Type, Length: st.Length, ModTime: st.ModTime, Owner: st.Owner, Group: st.Group, Mode: st.Mode,
		Fingerprint: st.Fingerprint, Mount: l.Mount.ID,
	}
	if l.Found {
		v.SameContent, v.SameMeta = metasync.SameContent(&l.Info, &v.Info)
	}
	if st.Special != "" {
		v.Error = "is " + st.Special + ", which Freshet does not serve"
	}
	return v
}

// remedy says what a person can do, "" if there is nothing to be done.
func remedy(x *freshet.Explanation, l *namespace.Lookup) string {
	p := string(x.Path)
	s := x.Storage
	differs := s != nil && s.Error == "" && l.Found && !(s.Exists && s.SameContent && s.SameMeta) && !l.MountPoint && !l.Virtual
	switch {
	case s != nil && s.Error != "" && !s.Exists:
		return "the storage can't be asked: check it and its credentials; nothing is served from it as absent meanwhile"
	case differs && x.Verdict == verdictFresh:
		return fmt.Sprintf("the storage differs from what is served: something wrote to it without a cluster on the bus. Run `freshet sync now %s`, and set an interval (`freshet sync set %s --interval 1m`) if that is to be expected", p, p)
	case s != nil && s.Exists && s.Error == "" && x.Verdict == verdictAbsent && l.HasMount:
		return fmt.Sprintf("the storage has it, and reads say that it does not exist: something wrote to the storage without a cluster on the bus. Run `freshet sync now %s`, and set an interval (`freshet sync set %s --interval 1m`) if that is to be expected", p, p)
	case x.Freshness.Degraded && x.ActiveSync != nil && !x.ActiveSync.Heard:
		return fmt.Sprintf("check why %s is not heard (`freshet mount show %s`); until then entries are checked by time", x.ActiveSync.Source, l.Mount.Path)
	case x.Freshness.Degraded:
		return "check the connection to the publishers named above (`freshet peers ls`); until then entries are checked by time"
	case x.Verdict == verdictUncachable:
		return "wait: the path is cached again when nothing of the operation can land any more"
	case x.Verdict == verdictAbsent && !l.HasMount:
		return fmt.Sprintf("mount a storage: `freshet mount add %s URI`", p)
	}
	return ""
}
