package namespace

import (
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
)

func (t *txn) invalidate(c *Invalidate) Result {
	b := c.Batch
	if b.Publisher == t.meta.Cluster {
		return Result{Verdict: invalidation.VerdictIgnore} // our own, by a detour
	}
	sub := t.subs[subKey{b.Publisher, b.Domain}]
	if sub == nil {
		t.markRecords(b.Domain, b.Records, false)
		return Result{Verdict: invalidation.VerdictReset}
	}
	verdict, news, next := sub.Judge(b)
	switch verdict {
	case invalidation.VerdictApply:
		t.markRecords(b.Domain, news, true)
		t.saveSub(next)
	case invalidation.VerdictGap:
		t.markRecords(b.Domain, b.Records, false)
	case invalidation.VerdictReset:
		t.markRecords(b.Domain, b.Records, false)
		if sub.State != invalidation.StateReset {
			next = *sub
			next.State = invalidation.StateReset
			t.saveSub(next)
		}
	case invalidation.VerdictIgnore:
	}
	return Result{Verdict: verdict, Position: *t.subs[keyOf(*sub)]}
}

func (t *txn) saveSub(s invalidation.Subscription) {
	k := keyOf(s)
	t.subs[k] = &s
	t.setRow(t.keys.sub(k), &s)
	t.changes.Subs = true
}

func (t *txn) dropSub(k subKey) {
	delete(t.subs, k)
	t.del(t.keys.sub(k))
	t.changes.Subs = true
}

// markRecords marks what records name. Only those of a verified log free blocks.
func (t *txn) markRecords(d freshet.DomainID, records []invalidation.Record, verified bool) {
	for i := range records {
		t.cause.Seq, t.cause.Op = records[i].Seq, records[i].Op
		for _, m := range t.mounts {
			if m.Domain == d {
				t.markRecord(m, &records[i], verified)
			}
		}
	}
}

// markRecord marks what a record of another cluster names in m. The record's
// kind is a hint: the publisher may have known less of the storage than we do.
func (t *txn) markRecord(m *mount, r *invalidation.Record, verified bool) {
	all := r.Recursive
	switch r.Kind {
	case invalidation.KindDelete, invalidation.KindRename, invalidation.KindSubtree, invalidation.KindAll:
		all = true
	case invalidation.KindContent, invalidation.KindMeta, invalidation.KindCreate, invalidation.KindMkdir:
	}
	key := r.Key
	if r.Kind == invalidation.KindAll {
		key = "/"
	}
	if rel, all, ok := m.match(key, all); ok {
		switch {
		case r.Kind == invalidation.KindRename, all:
			t.mark(m, rel, all)
			if verified && r.Kind == invalidation.KindDelete && domainKey(m.DomainKey, rel) == key {
				t.release(m, rel)
			}
		default:
			t.markVersion(m, rel, r, verified)
		}
	}
	if r.Key2 != "" {
		if rel, all, ok := m.match(r.Key2, all); ok {
			t.mark(m, rel, all)
		}
	}
}

// markVersion marks the key of a record that names the version after the change.
// If that is the version we hold, and we held it for good, the entry and its
// place in the listing stay servable; loads in flight are refused all the same.
// If it is another, our version's blocks are of no use any more.
func (t *txn) markVersion(m *mount, key string, r *invalidation.Record, verified bool) {
	c := t.walk(m, key)
	n := c.entry()
	k := len(c.ino) - 1
	same := n != nil && !n.dir && c.servable(k) && sameVersion(n, r.Fingerprint)
	p := c.parent()
	listed := same && p >= 0 && c.listed(p)
	t.mark(m, key, false)
	if same {
		t.edit(c.at[k]).validFrom = t.i
	}
	if listed {
		t.edit(c.at[p]).listFrom = t.i
	}
	if verified && n != nil && r.Fingerprint.Known() && !n.fingerprint().SameContent(r.Fingerprint) {
		t.release(m, key)
	}
}

// release forgets the version of a file whose content is known to be gone. The
// entry stays, marked, for a load to decide on.
func (t *txn) release(m *mount, key string) {
	c := t.walk(m, key)
	if n := c.entry(); n == nil || n.dir || n.file == 0 || t.holds(n) {
		return
	}
	n := t.edit(c.at[len(c.at)-1])
	t.unbind(n.file)
	n.file = 0
}

func (t *txn) hint(c *Hint) Result {
	t.markRecords(c.Domain, c.Records, false)
	if c.Source != "" && len(c.Cursor) > 0 && t.watched(c.Domain) {
		t.saveCursor(WatchCursor{Source: c.Source, Domain: c.Domain, Cursor: c.Cursor, Covers: c.Covers})
	}
	return Result{}
}

func (t *txn) beginSub(c *BeginSub) Result {
	k := subKey{c.Publisher.Cluster, c.Domain}
	if sub := t.subs[k]; sub != nil {
		return Result{Err: freshet.Errorf(freshet.KindExist, "subscribe", "", "there is a subscription to %s already", c.Publisher.Name), Position: *sub}
	}
	if err := t.checkPublisher(c.Publisher); err != nil {
		return Result{Err: err}
	}
	t.supersede(c.Publisher)
	s := invalidation.Subscription{Publisher: c.Publisher, Domain: c.Domain, State: invalidation.StateSynced}
	t.saveSub(s)
	return Result{Position: s}
}

func (t *txn) resetSub(c *ResetSub) Result {
	k := subKey{c.Publisher.Cluster, c.Head.Domain}
	if old := t.subs[k]; old != nil && c.Publisher.Epoch < old.Publisher.Epoch {
		return Result{Verdict: invalidation.VerdictIgnore, Position: *old}
	}
	if err := t.checkPublisher(c.Publisher); err != nil {
		return Result{Err: err}
	}
	t.supersede(c.Publisher)
	t.markDomain(c.Head.Domain, "/", true, 0)
	s := invalidation.Subscription{
		Publisher: c.Publisher, Domain: c.Head.Domain, State: invalidation.StateSynced,
		Applied: c.Head.High, Hash: c.Head.Hash,
	}
	t.saveSub(s)
	return Result{Verdict: invalidation.VerdictApply, Position: s}
}

func (t *txn) checkPublisher(p invalidation.Publisher) error {
	if p.Cluster == (freshet.ClusterID{}) || p.Cluster == t.meta.Cluster {
		return freshet.Errorf(freshet.KindInvalid, "subscribe", "", "a cluster can't subscribe to itself or to one without an ID")
	}
	return nil
}

// supersede drops the positions in the logs of a cluster that had the
// publisher's name under another ID: it was made anew.
func (t *txn) supersede(p invalidation.Publisher) {
	if p.Name == "" {
		return
	}
	for _, k := range t.sortedSubs() {
		if old := t.subs[k]; old.Publisher.Name == p.Name && old.Publisher.Cluster != p.Cluster {
			t.markDomain(k.domain, "/", true, 0)
			t.dropSub(k)
		}
	}
}

func (t *txn) forgetSub(c *ForgetSub) Result {
	found := false
	for _, k := range t.sortedSubs() {
		if k.cluster == c.Cluster {
			t.markDomain(k.domain, "/", true, 0)
			t.dropSub(k)
			found = true
		}
	}
	if !found {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "forget peer", "", "cluster %s is not subscribed to", c.Cluster)}
	}
	return Result{}
}

func (x *index) sortedHeads() []freshet.DomainID {
	ds := make([]freshet.DomainID, 0, len(x.heads))
	for d := range x.heads {
		ds = append(ds, d)
	}
	slices.SortFunc(ds, compareDomains)
	return ds
}
