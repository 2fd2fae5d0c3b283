package namespace

import (
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// before is what was true of one key of an operation before its completion
// marked it.
type before struct {
	key    string
	held   bool
	clean  bool // nothing else can have changed the key since the operation began
	listed bool // the parent's listing was servable
}

func (t *txn) before(in *intent, m *mount, key string) before {
	c := t.walk(m, key)
	b := before{key: key, held: c.held()}
	if p := c.parent(); p >= 0 {
		b.listed = c.listed(p)
	}
	b.clean = !in.Shared && t.need(m, key, &c) <= in.Started
	if n := c.entry(); n != nil {
		b.clean = b.clean && n.validFrom <= in.Started
		if n.dir && in.spansBelow() {
			b.clean = b.clean && n.newest() <= in.Started
		}
	}
	return b
}

func (t *txn) complete(c *Complete) Result {
	in := t.intents[c.Op]
	if in == nil || in.State == IntentQuarantine { // else it can't have ended before
		if o, ok := t.outcome(c.Op); ok {
			return Result{Done: true, Completed: o.Completed}
		}
	}
	if in == nil {
		return Result{Err: unknownOp("complete", c.Op)}
	}
	if (c.Entry == nil) != (in.Kind == OpRemove) {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, "complete", in.Path, "a %s that ends with an entry: %t", in.Kind, c.Entry != nil)}
	}
	if in.Keeps() {
		return t.completeKept(in, c)
	}
	sure := !c.Uncertain && in.State != IntentQuarantine
	m := t.mountByID(in.Mount)
	definite := sure && m != nil && m.Generation == in.Generation
	var res Result
	bound, doubt, kind := false, false, in.recordKind()
	if m != nil {
		src := t.before(in, m, in.Key)
		if in.Kind == OpWrite && !src.held {
			kind = invalidation.KindCreate
		}
		switch {
		case in.Persist != 0 && (m.Generation != in.Generation || in.State == IntentQuarantine && t.files.rows[in.Persist] == nil):
			// It is in another storage, or was replaced, and the leader looks for what it left.
			t.mark(m, in.Key, false)
		case in.Persist != 0:
			res.Installed = t.completePersist(in, m, c.Entry, definite)
		case in.Kind == OpRemove:
			res.Installed = t.completeRemove(in, m, src, definite)
		case in.Kind == OpRename:
			res.Installed = t.completeRename(in, m, src, c.Entry, definite)
			t.layUnderCopies(in, c.Beneath)
		default:
			res.Installed, bound, doubt = t.completeEntry(in, m, src, c.Entry, definite)
		}
	}
	token := t.publish(in, kind, c.Entry, c.At.UTC())
	res.Completed = freshet.Completed{Info: t.completedInfo(in, m, c.Entry, res.Installed), Token: token}
	if sure && !doubt {
		t.endIntent(in, bound)
	} else {
		in.Done = in.Done || sure
		t.quarantine(in, bound)
	}
	t.saveOutcome(in.Op, res.Completed)
	return res
}

// completeEntry ends a write, mkdir or change of attributes: it marks the key,
// and installs the entry as servable if nothing else can have changed it since
// the operation began. If something may have, the entry keeps what a later load
// found, or takes ours, and needs a sync either way. doubt says that a newer version, not in
// the storage yet, lies over it or over what another operation left at the same time.
func (t *txn) completeEntry(in *intent, m *mount, was before, e *Entry, definite bool) (installed, bound, doubt bool) {
	c := t.walk(m, in.Key)
	later := c.entry() != nil && c.last().validFrom > in.Started
	if t.holds(c.entry()) && !c.last().dir && in.Kind != OpWrite { // which no word of the storage makes stale
		later = false
	}
	if later && in.Kind == OpWrite && m.Generation == in.Generation && t.unpersistedAt(c.entry()) != nil {
		if doubt = in.Shared; !doubt && in.State != IntentQuarantine {
			t.layUnder(m, in.Key, e.Fingerprint)
		}
	}
	bound = !later && t.adopt(in, m, e)
	t.layChanged(in, m, e)
	t.mark(m, in.Key, in.Recursive)
	if !definite || !was.clean || later {
		return false, bound && in.File != 0, doubt
	}
	c = t.walk(m, in.Key)
	if c.entry() == nil || c.last().dir != (e.Type == freshet.TypeDirectory) {
		return false, false, false
	}
	t.edit(c.at[len(c.at)-1]).validFrom = t.i
	t.keepListing(&c, was)
	return true, bound && in.File != 0, false
}

// adopt puts the entry that an effect of ours left into the tree, without a word
// on whether it is still current.
func (t *txn) adopt(in *intent, m *mount, e *Entry) bool {
	dir := e.Type == freshet.TypeDirectory
	if c := t.walk(m, in.Key); c.entry() != nil && c.last().dir != dir {
		if in.Key == "" || c.last().newest() > in.Started || t.holds(c.last()) {
			return false
		}
		t.dropSince(m, in.Key, in.Started)
	}
	if in.State == IntentQuarantine && in.Kind == OpWrite && m.Generation == in.Generation {
		t.replaceKept(m, in, in.Key)
	}
	p, ok := t.reach(m, in.Key, in.Started)
	if !ok {
		return false
	}
	if t.get(p) == nil {
		c := t.walk(m, in.Key)
		t.create(p, &inode{dir: dir, mtime: noTime}, t.need(m, in.Key, &c))
	}
	n := t.edit(p)
	if in.File == 0 {
		t.assign(p, n, e, true, named{m, in.Key})
		return true
	}
	if n.file != in.File {
		t.unbind(n.file)
		n.file = in.File
		t.bind(p, n.file)
	}
	n.loaded, n.length, n.mtime = true, e.Length, nanos(e.ModTime)
	n.attr = attr{owner: e.Owner, group: e.Group, mode: e.Mode, meta: e.Fingerprint.Meta}
	n.content, n.change = e.Fingerprint.Content, e.Fingerprint.Change
	n.blockSize = storedBlockSize(in.BlockSize)
	return true
}

// keepListing keeps the listing that has c's entry servable over a mark of which
// the whole effect is known: what it lists now is what the storage would list.
// Listings in flight are still refused.
func (t *txn) keepListing(c *chain, was before) {
	if p := c.parent(); was.listed && p >= 0 {
		t.edit(c.at[p]).listFrom = t.i
	}
}

// completeRemove ends a removal. The entry goes if nothing else can have changed
// it, or something below it, since the operation began. What is not in the storage
// goes in any case, and only now: what the storage had beneath it was never to be seen.
func (t *txn) completeRemove(in *intent, m *mount, was before, definite bool) bool {
	t.discardRemoved(m, in)
	t.mark(m, in.Key, true)
	if !definite || !was.clean {
		return false
	}
	t.dropSince(m, in.Key, t.i)
	c := t.walk(m, in.Key)
	t.keepListing(&c, was)
	return true
}

// completeRename ends a rename: the record moves with all below it, which needs
// a sync; the entry itself is servable at its new place.
func (t *txn) completeRename(in *intent, m *mount, src before, e *Entry, definite bool) bool {
	dst := t.before(in, m, in.Key2)
	t.mark(m, in.Key, true)
	t.mark(m, in.Key2, true)
	if !definite || !src.clean || !dst.clean {
		if m.Generation == in.Generation {
			t.replaceKept(m, in, in.Key2)
			t.carry(m, in, e)
		}
		return false
	}
	c := t.walk(m, in.Key)
	n := c.entry()
	if n != nil && n.dir != (e.Type == freshet.TypeDirectory) {
		return false
	}
	t.dropSince(m, in.Key2, t.i)
	to, ok := t.reach(m, in.Key2, t.i)
	if !ok {
		return false
	}
	switch {
	case n == nil:
		t.create(to, &inode{dir: e.Type == freshet.TypeDirectory, mtime: noTime}, t.i)
	default:
		t.move(c.at[len(c.at)-1], to)
		t.remember(mountKey{m.ID, in.Key}, t.i, true)
		if n.dir {
			t.moved(m, in.Key, in.Key2, n.id)
		}
	}
	moved := t.edit(to)
	if u := t.unpersistedAt(moved); u != nil { // what the storage moved lies beneath
		t.lay(u, in.movedFrom(u.Beneath, e))
	}
	t.assign(to, moved, e, true, named{m, in.Key2})
	moved.self, moved.validFrom = t.i, t.i
	if moved.dir {
		moved.subtree, moved.below = t.i, t.i
	}
	from, at := t.walk(m, in.Key), t.walk(m, in.Key2)
	t.keepListing(&from, src)
	t.keepListing(&at, dst)
	return true
}

// move puts the row of an entry to another place; what is below a directory
// follows, for it hangs on the directory's ID.
func (t *txn) move(from, to place) {
	n := new(inode)
	*n = *t.get(from)
	t.moveUnpersisted(n, from, to)
	t.put(from, nil)
	t.put(to, n)
	if n.dir {
		t.set(t.keys.u64(tableDir, n.id), to.encode())
	} else if n.file != 0 {
		t.bind(to, n.file)
	}
}

func (in *intent) recordKind() invalidation.Kind {
	switch in.Kind {
	case OpWrite:
		return invalidation.KindContent
	case OpMkdir:
		return invalidation.KindMkdir
	case OpRemove:
		return invalidation.KindDelete
	case OpRename:
		return invalidation.KindRename
	case OpSetAttr:
		return invalidation.KindMeta
	}
	return invalidation.KindSubtree
}

// completedInfo is what the writer is told. Without an entry in the tree, or
// with one that something newer changed, it is what the effect itself left.
func (t *txn) completedInfo(in *intent, m *mount, e *Entry, installed bool) freshet.Info {
	p, key := in.Path, in.Key
	if in.Kind == OpRename {
		p, key = in.Path2, in.Key2
	}
	if installed && e != nil {
		if c := t.walk(m, key); c.entry() != nil {
			return infoOf(p, c.last(), m.ID)
		}
	}
	info := freshet.Info{Path: p, Mount: in.Mount}
	if e != nil {
		n := inode{
			dir: e.Type == freshet.TypeDirectory, mtime: nanos(e.ModTime), length: e.Length,
			attr: attr{owner: e.Owner, group: e.Group, mode: e.Mode, meta: e.Fingerprint.Meta}, content: e.Fingerprint.Content, change: e.Fingerprint.Change,
		}
		info = infoOf(p, &n, in.Mount)
	}
	return info
}

// publish appends the record of an operation and marks the other mounts that it
// concerns.
func (t *txn) publish(in *intent, kind invalidation.Kind, e *Entry, at time.Time) freshet.Token {
	var fp fingerprint.Fingerprint
	if e != nil {
		fp = e.Fingerprint
	}
	r := invalidation.Record{
		Kind: kind, Key: domainKey(in.Root, in.Key), Recursive: in.Recursive || in.Kind == OpRename,
		Fingerprint: fp, Op: in.Op, PublishedAt: at,
	}
	if in.Kind == OpRename {
		r.Key2 = domainKey(in.Root, in.Key2)
	}
	token := t.appendRecord(in.Domain, r)
	all := in.spansBelow()
	t.markDomain(in.Domain, r.Key, all, in.Mount)
	if r.Key2 != "" {
		t.markDomain(in.Domain, r.Key2, all, in.Mount)
	}
	return token
}
