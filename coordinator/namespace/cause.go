package namespace

import (
	"cmp"
	"slices"

	"github.com/freshet-io/freshet"
)

// CauseKind says what made a mark.
type CauseKind uint8

// The causes.
const (
	CauseUnknown    CauseKind = iota
	CauseOperation            // an operation of this cluster ended
	CauseResolution           // the operation of a writer that died, or its quarantine, ended
	CauseRecord               // a record of another cluster
	CauseHint                 // an unverified hint of another cluster
	CauseNotice               // the storage told of a change
	CauseOperator             // a person, or a program on behalf of one
	CauseReset                // the position in another cluster's log was set anew
	CauseEpoch                // log entries may have been lost
	CauseMount                // a mount was added, changed or removed
	CauseLoad                 // what was loaded did not agree with what changed meanwhile
)

// Cause is what made a mark. Only the fields that its kind needs are set.
type Cause struct {
	Kind      CauseKind
	Op        freshet.OpID
	OpKind    OpKind
	Publisher freshet.ClusterID
	Seq       uint64
	Source    string
}

// causeOf says what the marks of a command come of. It is called before the command
// is applied: afterwards its operation may be gone.
func (t *txn) causeOf(c *Command) Cause {
	op := func(kind CauseKind, id freshet.OpID) Cause {
		cause := Cause{Kind: kind, Op: id}
		if in := t.intents[id]; in != nil {
			cause.OpKind = in.Kind
		}
		return cause
	}
	switch {
	case c.LoadEntry != nil, c.LoadListing != nil:
		return Cause{Kind: CauseLoad}
	case c.Complete != nil:
		return op(CauseOperation, c.Complete.Op)
	case c.Resolve != nil:
		return op(CauseResolution, c.Resolve.Op)
	case c.EndQuarantine != nil:
		return op(CauseResolution, c.EndQuarantine.Op)
	case c.Mark != nil:
		return Cause{Kind: CauseOperator}
	case c.Invalidate != nil:
		return Cause{Kind: CauseRecord, Publisher: c.Invalidate.Batch.Publisher}
	case c.Hint != nil && c.Hint.Source != "":
		return Cause{Kind: CauseNotice, Source: c.Hint.Source}
	case c.Hint != nil:
		return Cause{Kind: CauseHint}
	case c.ResetSub != nil:
		return Cause{Kind: CauseReset, Publisher: c.ResetSub.Publisher.Cluster, Seq: c.ResetSub.Head.High}
	case c.ForgetSub != nil:
		return Cause{Kind: CauseReset, Publisher: c.ForgetSub.Cluster}
	case c.BumpEpoch != nil:
		return Cause{Kind: CauseEpoch}
	case c.Bootstrap != nil, c.AddMount != nil, c.UpdateMount != nil, c.RemoveMount != nil:
		return Cause{Kind: CauseMount}
	}
	return Cause{}
}

// Stamp is a mark that is kept in the state.
type Stamp struct {
	Kind  string       // see freshet.StampSelf
	Path  freshet.Path // where it was set
	Index uint64
}

// Stamps returns the stamps that cover p, the newest first.
func (s *State) Stamps(p freshet.Path) ([]Stamp, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return nil, s.failed
	}
	r := s.resolve(p)
	if r.mount == nil {
		return nil, nil
	}
	c := s.chain()
	defer s.chains.Put(c)
	if err := s.walk(r.mount, r.key, c); err != nil {
		return nil, corrupt("explain", p, err)
	}
	var all []Stamp
	add := func(kind string, key string, index uint64) {
		if index > 0 {
			all = append(all, Stamp{Kind: kind, Path: r.mount.at(key), Index: index})
		}
	}
	key, last, above := "", len(c.ino)-1, uint64(0)
	for k, n := range c.ino {
		switch {
		case k == 1:
			key = c.at[k].name
		case k > 1:
			key += "/" + c.at[k].name
		}
		// An entry that came after a mark of a tree around it has that mark too: it is
		// told once, where it was set.
		self := n.self > above
		if n.subtree > above {
			add(freshet.StampRecursive, key, n.subtree)
			above = n.subtree
		}
		switch {
		case k == last && c.held():
			if self {
				add(freshet.StampSelf, key, n.self)
			}
			add(freshet.StampListing, key, n.children)
		case k == last || (k == last-1 && c.held()):
			add(freshet.StampParentListing, key, n.children)
		}
		if !c.held() {
			add(freshet.StampRemembered, key, n.missing)
		}
	}
	if !c.held() {
		add(freshet.StampRemembered, r.key, s.missing.need(r.mount.ID, r.key, nil))
	}
	slices.SortStableFunc(all, func(a, b Stamp) int { return cmp.Compare(b.Index, a.Index) })
	return all, nil
}
