package namespace

import (
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

// Lines returns the paths on whose lines, which are the path itself and what is above
// and below it, the commands may change whether and as what a file is served, or who may
// read it. It is asked before they are proposed and may name more than they will touch,
// never less. What an operation that is not known here would touch is not named: its end
// is refused.
func (s *State) Lines(cmds []Command) []freshet.Path {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := liner{s: s, cmds: cmds, seen: map[freshet.Path]struct{}{}}
	for i := range cmds {
		if !l.entries(&cmds[i]) && !l.operation(&cmds[i]) && !l.settings(&cmds[i]) {
			l.add(freshet.Root)
		}
	}
	return l.all
}

type liner struct {
	s    *State
	cmds []Command
	all  []freshet.Path
	seen map[freshet.Path]struct{}
}

func (l *liner) add(p freshet.Path) {
	if _, ok := l.seen[p]; !ok {
		l.seen[p] = struct{}{}
		l.all = append(l.all, p)
	}
}

// entries adds what a command that loads or marks touches; false if it is none.
func (l *liner) entries(c *Command) bool {
	switch {
	case c.LoadEntry != nil:
		if e := c.LoadEntry.Entry; e == nil || !l.sameDir(c.LoadEntry.Path, e) {
			l.add(c.LoadEntry.Path)
		}
	case c.LoadListing != nil:
		dir := c.LoadListing.Dir
		for i := range c.LoadListing.Upserts {
			e := &c.LoadListing.Upserts[i]
			if p := dir.Join(e.Name); !l.sameDir(p, e) {
				l.add(p)
			}
		}
		l.children(dir, c.LoadListing.Removes)
	case c.Expire != nil:
		l.children(c.Expire.Dir, c.Expire.Names)
	case c.Mark != nil:
		l.add(c.Mark.Path)
	case c.Invalidate != nil:
		l.records(c.Invalidate.Batch.Domain, c.Invalidate.Batch.Records)
	case c.Hint != nil:
		l.records(c.Hint.Domain, c.Hint.Records)
	default:
		return false
	}
	return true
}

func (l *liner) children(dir freshet.Path, names []string) {
	for _, name := range names {
		l.add(dir.Join(name))
	}
}

// sameDir reports whether an entry that was found is a directory that is held as one
// already and belongs to whom it did: nothing changes for the files below it.
func (l *liner) sameDir(p freshet.Path, e *Entry) bool {
	if e.Type != freshet.TypeDirectory {
		return false
	}
	r := l.s.resolve(p)
	if r.mount == nil {
		return false
	}
	c := l.s.chain()
	defer l.s.chains.Put(c)
	if l.s.walk(r.mount, r.key, c) != nil {
		return false
	}
	n := c.entry()
	return n != nil && n.dir && n.loaded && n.attr.owner == e.Owner && n.attr.group == e.Group && n.attr.mode == e.Mode
}

func (l *liner) records(d freshet.DomainID, records []invalidation.Record) {
	for i := range records {
		r := &records[i]
		if r.Kind == invalidation.KindAll {
			l.domain(d, "/")
			continue
		}
		l.domain(d, r.Key)
		if r.Key2 != "" {
			l.domain(d, r.Key2)
		}
	}
}

// domain adds a key of a domain in every mount that it concerns.
func (l *liner) domain(d freshet.DomainID, key string) {
	for _, m := range l.s.mounts {
		if m.Domain != d {
			continue
		}
		if rel, _, ok := m.match(key, true); ok {
			l.add(m.at(rel))
		}
	}
}

// operation adds what a command of an operation touches; false if it is none. Before it
// ends an operation changes nothing that is served, and an end without an effect does
// not either.
func (l *liner) operation(c *Command) bool {
	switch {
	case c.Begin != nil, c.Permit != nil, c.Abort != nil:
	case c.Complete != nil:
		l.ends(c.Complete.Op)
	case c.Resolve != nil:
		l.ends(c.Resolve.Op)
	case c.EndQuarantine != nil:
		l.ends(c.EndQuarantine.Op)
	case c.MoveUnpersisted != nil:
		l.begun(c.MoveUnpersisted.Path)
		l.begun(c.MoveUnpersisted.Path2)
	default:
		return false
	}
	return true
}

func (l *liner) ends(op freshet.OpID) {
	if in := l.s.intents[op]; in != nil {
		for _, key := range in.keys() {
			l.domain(in.Domain, domainKey(in.Root, key))
		}
		return
	}
	for i := range l.cmds {
		if b := l.cmds[i].Begin; b != nil && b.Op == op {
			l.begun(b.Path)
			if b.Path2 != "" {
				l.begun(b.Path2)
			}
		}
	}
}

// begun adds the path of an operation that begins with the same commands.
func (l *liner) begun(p freshet.Path) {
	l.add(p)
	if r := l.s.resolve(p); r.mount != nil {
		l.domain(r.mount.Domain, domainKey(r.mount.DomainKey, r.key))
	}
}

// settings adds what a command about settings touches; false if it may be anything.
func (l *liner) settings(c *Command) bool {
	switch {
	case c.AddMount != nil:
		l.add(c.AddMount.Mount.Path)
	case c.UpdateMount != nil:
		l.add(c.UpdateMount.Mount.Path)
	case c.RemoveMount != nil:
		l.add(c.RemoveMount.Path)
	case c.SetPolicy != nil:
		l.add(c.SetPolicy.Path)
	case c.RemovePolicy != nil:
		l.add(c.RemovePolicy.Path)
	case c.ChangePolicy != nil:
		l.add(c.ChangePolicy.Path)
	default:
		return c.touchesNothing()
	}
	return true
}

// touchesNothing reports whether no file is served otherwise after the command.
func (c *Command) touchesNothing() bool {
	return c.SetMember != nil || c.RemoveMember != nil || c.SetVersion != nil || c.SetLeases != nil ||
		c.SetQuota != nil || c.RemoveQuota != nil || c.CountQuotas != nil ||
		c.StartSync != nil || c.EndSync != nil || c.ForgetWatch != nil ||
		c.StartWarm != nil || c.EndWarm != nil || c.SetNodeRole != nil ||
		c.QueuePersist != nil || c.StopPersist != nil || c.PersistFailed != nil ||
		c.Compact != nil || c.Purge != nil || c.ForgetOps != nil
}

// SetLeases says for how long clients may keep answers at most; 0 is not at all. A leader
// grants nothing longer, and its successor waits for that long before it changes
// anything, or until all Holders have said that they keep nothing: they are the only
// sessions under which anybody does. No Holders are anybody.
type SetLeases struct {
	Length  time.Duration     `codec:"l"`
	Holders []freshet.LeaseID `codec:"h,omitempty"`
}

func (t *txn) setLeases(c *SetLeases) Result {
	if c.Length < 0 {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, "set leases", "", "a length of %s", c.Length)}
	}
	t.meta.Leases, t.meta.Holders = c.Length, c.Holders
	return Result{}
}

// Leases returns for how long clients may keep answers at most, and who may. The caller
// must not change it.
func (s *State) Leases() SetLeases {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return SetLeases{Length: s.meta.Leases, Holders: s.meta.Holders}
}
