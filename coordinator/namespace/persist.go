package namespace

import (
	"path"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// MoveUnpersisted renames an unpersisted file of which the storage has no earlier
// version, so that it is persisted under its new name. Beneath is what the storage
// holds there, unknown: nothing. An entry at Path2 is replaced. KindUnavailable while
// something may be on its way to the storage at either path, or if one of them changed
// since Start, before which the storage was not asked.
type MoveUnpersisted struct {
	Op      freshet.OpID            `codec:"op"`
	Path    freshet.Path            `codec:"p"`
	Path2   freshet.Path            `codec:"p2"`
	Beneath fingerprint.Fingerprint `codec:"b"`
	Start   uint64                  `codec:"s"`
}

// QueuePersist has unpersisted files persisted, as soon as may be: those that failed
// are tried again. Beneath, if Overwrite is set, is what the storage holds instead of
// what it was thought to hold.
type QueuePersist struct {
	Files     []freshet.FileID        `codec:"f"`
	Overwrite bool                    `codec:"o,omitempty"`
	Beneath   fingerprint.Fingerprint `codec:"b,omitempty"`
	At        time.Time               `codec:"t,omitempty"`
}

// StopPersist withdraws the uploads of unpersisted files at and below the paths that
// may not have been published yet. More says that there are others.
type StopPersist struct {
	Paths []freshet.Path `codec:"p"`
}

// PersistFailed ends an upload of an unpersisted file that had no effect. It stays
// in the queue and is tried again from Next on.
type PersistFailed struct {
	Op       freshet.OpID `codec:"op"`
	Error    string       `codec:"e"`
	Conflict bool         `codec:"c"`
	Next     time.Time    `codec:"x"`
}

// Keeps reports whether what the operation writes stays on the nodes.
func (in *Intent) Keeps() bool {
	return in.Kind == OpWrite && in.Persist == 0 && in.Write.Keeps()
}

// checkPersist refuses to persist what is not the unpersisted file at the path.
func (t *txn) checkPersist(c *Begin, m *mount, key string) error {
	ch := t.walk(m, key)
	switch u := t.unpersistedAt(ch.entry()); {
	case u == nil || u.File != c.Persist:
		return freshet.Errorf(freshet.KindConflict, "persist", c.Path, "the file was persisted, replaced, moved or removed")
	case !t.files.persists[c.Persist].IsZero():
		return freshet.Errorf(freshet.KindConflict, "persist", c.Path, "it is being persisted")
	}
	for _, in := range t.intents {
		// What had an unknown outcome is not waited for: the storage was looked at.
		if in.Mount == m.ID && in.State != IntentQuarantine && in.TakesAway(key) {
			return freshet.Errorf(freshet.KindConflict, "persist", c.Path, "a %s of %s has not ended", in.Kind, in.Path)
		}
	}
	return nil
}

// TakesAway reports whether the operation removes, moves or replaces what is at key, a
// directory's key with all below it.
func (in *Intent) TakesAway(key string) bool {
	if in.Kind != OpRemove && in.Kind != OpRename {
		return false
	}
	return slices.ContainsFunc(in.keys(), func(k string) bool { return within(k, key) })
}

// holdPersists withdraws the uploads of unpersisted files that an operation is about to
// remove, move or replace: none begins again before it ends. KindUnavailable if one may
// be published at this moment.
func (t *txn) holdPersists(in *intent, m *mount) error {
	if in.Kind != OpRemove && in.Kind != OpRename {
		return nil
	}
	for _, key := range in.keys() {
		if !t.stopPersistsUnder(m, key) {
			return freshet.Errorf(freshet.KindUnavailable, in.Kind.String(), in.Path, "a file there is on its way to the storage: try again")
		}
	}
	return nil
}

// stopPersistsUnder withdraws the uploads of unpersisted files at and below key that may
// not have been published yet; false if there are others. Those of versions that were
// replaced since count too: one that is published after its path was moved or removed would
// be there again, and one that was published before lies beneath what has replaced it. Not
// so one in quarantine, as little as another write of unknown outcome: that may last long.
func (t *txn) stopPersistsUnder(m *mount, key string) bool {
	var files []freshet.FileID
	for file, op := range t.files.persists {
		in := t.intents[op]
		replaced := in.State == IntentQuarantine && t.files.rows[file] == nil
		if !replaced && in.Mount == m.ID && within(key, in.Key) {
			files = append(files, file)
		}
	}
	slices.Sort(files) // alike on all members
	all := true
	for _, file := range files {
		all = t.stopPersist(file) && all
	}
	return all && !t.doubtUnder(m, key)
}

// doubtUnder reports whether it is about to be looked at what acknowledged writes left
// beneath unpersisted files at and below key: moved before, they would leave it behind.
func (t *txn) doubtUnder(m *mount, key string) bool {
	if len(t.files.rows) == 0 {
		return false
	}
	for _, in := range t.intents {
		if !in.Done || in.Mount != m.ID || !within(key, in.Key) {
			continue
		}
		c := t.walk(m, in.Key)
		if t.unpersistedAt(c.entry()) != nil {
			return true
		}
	}
	return false
}

// completeKept ends a write whose bytes lie on cache nodes: the file becomes visible
// here, and nothing is published. What covers the path in the storage is remembered,
// for nothing else may be replaced when the file is persisted.
func (t *txn) completeKept(in *intent, c *Complete) Result {
	const op = "write"
	m := t.mountByID(in.Mount)
	switch {
	case m == nil || m.Generation != in.Generation:
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, in.Path, "the mount was removed or got another storage while the file was written")}
	case c.Entry == nil || c.Entry.Type != freshet.TypeFile || c.Entry.Length < 0:
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, in.Path, "a write that ends without a file")}
	}
	if err := t.admitLength(in, c.Entry.Length); err != nil {
		return Result{Err: err}
	}
	was := t.before(in, m, in.Key)
	ch := t.walk(m, in.Key)
	if n := ch.entry(); n != nil && n.dir {
		if in.Key == "" || n.newest() > in.Started || t.holds(n) || ch.present(len(ch.ino)-1) {
			return Result{Err: freshet.Errorf(freshet.KindConflict, op, in.Path, "%s is a directory", in.Path)}
		}
		t.dropSince(m, in.Key, in.Started)
	}
	p, ok := t.reach(m, in.Key, in.Started)
	if !ok {
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, in.Path, "a file is where a directory above %s should be", in.Path)}
	}
	u := Unpersisted{
		File: in.File, Since: c.At.UTC(), Length: c.Entry.Length, Queued: in.Write == freshet.AsyncThrough, Next: time.Time{},
		Memory: c.Memory,
	}
	if u.Nodes = distinct(c.Nodes); len(u.Nodes) == 0 {
		u.Nodes = []freshet.NodeID{in.Node}
	}
	if len(u.Nodes) < in.Replicas {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, in.Path, "the file is durable on %d nodes, and %d were promised", len(u.Nodes), in.Replicas)}
	}
	if in.Replicas > 1 {
		u.Replicas = in.Replicas
	}
	switch n := t.get(p); {
	case n == nil:
		held := t.walk(m, in.Key)
		t.create(p, &inode{mtime: noTime}, t.need(m, in.Key, &held))
	case t.unpersistedAt(n) != nil:
		u.Beneath = t.unpersistedAt(n).Beneath
	default:
		u.Beneath = n.fingerprint()
	}
	t.mark(m, in.Key, false)
	n := t.edit(p)
	t.unbind(n.file)
	n.file = in.File
	t.bind(p, n.file)
	n.loaded, n.length, n.mtime, n.blockSize = true, c.Entry.Length, nanos(c.Entry.ModTime), storedBlockSize(in.BlockSize)
	fp := fingerprint.Unpersisted(uint64(in.File))
	n.attr = attr{owner: c.Entry.Owner, group: c.Entry.Group, mode: c.Entry.Mode, meta: fp.Meta}
	n.content, n.change = fp.Content, fp.Change
	n.validFrom = t.i
	t.keepUnpersisted(p, u)
	ch = t.walk(m, in.Key)
	t.keepListing(&ch, was)
	res := Result{Installed: true, Completed: freshet.Completed{Info: t.completedInfo(in, m, c.Entry, true)}}
	t.endIntent(in, true)
	t.saveOutcome(in.Op, res.Completed)
	return res
}

// completePersist ends the upload of an unpersisted file: it is an ordinary file from
// then on, unless it was replaced or removed meanwhile.
func (t *txn) completePersist(in *intent, m *mount, e *Entry, definite bool) bool {
	was := t.before(in, m, in.Key)
	t.mark(m, in.Key, false)
	c := t.walk(m, in.Key)
	n := c.entry()
	switch u := t.unpersistedAt(n); {
	case u == nil:
		return false
	case u.File != in.Persist: // a newer version, that of ours lies beneath
		t.lay(u, e.Fingerprint)
		return true
	}
	p := c.at[len(c.at)-1]
	n = t.edit(p)
	n.mtime = nanos(e.ModTime)
	n.attr = attr{owner: e.Owner, group: e.Group, mode: e.Mode, meta: e.Fingerprint.Meta}
	n.content, n.change = e.Fingerprint.Content, e.Fingerprint.Change
	t.forgetUnpersisted(in.Persist)
	t.changes.Persisted = append(t.changes.Persisted, in.Persist)
	if !definite || !was.clean {
		return false
	}
	n.validFrom = t.i
	t.keepListing(&c, was)
	return true
}

// NotEmpty is what the removal of a directory with unpersisted files is refused with, unless
// it is recursive.
func NotEmpty(op string, p freshet.Path) error {
	return freshet.Errorf(freshet.KindConflict, op, p, "the directory is not empty: it holds files that are not in the storage yet; remove it recursively")
}

func (t *txn) renameUnpersisted(c *MoveUnpersisted) Result {
	const op = "rename"
	if o, ok := t.outcome(c.Op); ok {
		return Result{Done: true, Completed: o.Completed}
	}
	begin := Begin{Op: c.Op, Kind: OpRename, Path: c.Path, Path2: c.Path2}
	m, key, err := t.checkBegin(&begin, c.Path)
	if err != nil {
		return Result{Err: err}
	}
	key2, err := t.checkRename(&begin, m)
	if err != nil {
		return Result{Err: err}
	}
	in := &intent{Intent: Intent{Begin: begin, Started: t.i, Mount: m.ID, Generation: m.Generation, Key: key, Key2: key2}, Domain: m.Domain, Root: m.DomainKey}
	dst := t.before(in, m, key2)
	c1, c2 := t.walk(m, key), t.walk(m, key2)
	n, u := c1.entry(), t.unpersistedAt(c1.entry())
	switch old := c2.entry(); {
	case u == nil || u.Beneath.Known():
		return Result{Err: freshet.Errorf(freshet.KindUnavailable, op, c.Path, "the file was persisted or replaced meanwhile: try again")}
	case old != nil && old.dir && (c2.present(len(c2.ino)-1) || t.holds(old)):
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, c.Path2, "is a directory; a file can't replace it")}
	case !t.calm(in, m, c.Start) || t.holdPersists(in, m) != nil:
		return Result{Err: freshet.Errorf(freshet.KindUnavailable, op, c.Path, "a file there is on its way to the storage, or was a moment ago: try again")}
	}
	moved := *u
	moved.Beneath = c.Beneath
	if o := t.unpersistedAt(c2.entry()); o != nil {
		moved.Beneath = o.Beneath
	}
	moved.Queued, moved.Next, moved.Conflict = u.Queued, time.Time{}, false
	in.MoveBytes = n.length
	if err := t.admit(in, m); err != nil {
		return Result{Err: err}
	}
	t.mark(m, key, false)
	t.mark(m, key2, false)
	t.dropSince(m, key2, t.i-1)
	to, ok := t.reach(m, key2, t.i)
	if !ok {
		return Result{Err: freshet.Errorf(freshet.KindConflict, op, c.Path2, "a file is where a directory above it should be")}
	}
	c1 = t.walk(m, key)
	t.move(c1.at[len(c1.at)-1], to)
	t.remember(mountKey{m.ID, key}, t.i, false)
	moved.at = to
	t.saveUnpersisted(&moved)
	t.edit(to).validFrom = t.i
	at := t.walk(m, key2)
	if path.Dir(key) != path.Dir(key2) { // of what is at the source now, only the storage knows
		t.keepListing(&at, dst)
	}
	res := Result{Installed: true, Completed: freshet.Completed{Info: infoOf(c.Path2, at.last(), m.ID)}}
	t.saveOutcome(c.Op, res.Completed)
	return res
}

// replaceKept drops the unpersisted file at key that an operation has replaced, though nothing
// else of the operation is certain: no word of the storage would, and its version would be
// shown for ever. One that is newer than the operation stays.
func (t *txn) replaceKept(m *mount, in *intent, key string) {
	c := t.walk(m, key)
	if u := t.unpersistedAt(c.entry()); u != nil && c.last().validFrom <= in.Started {
		t.discardFile(m, u)
	}
}

// carry moves the unpersisted files at and below the source of a rename of which nothing
// else is certain.
func (t *txn) carry(m *mount, in *intent, e *Entry) {
	t.layUnder(m, in.Key2, e.Fingerprint) // a newer one, which was written there meanwhile
	for _, u := range t.unpersistedUnder(m, in.Key) {
		if t.get(u.at).validFrom > in.Started { // it is where it was written, over nothing
			t.lay(u, fingerprint.Fingerprint{})
			continue
		}
		key := t.keyOf(u.at)
		to, ok := t.reach(m, in.Key2+key[len(in.Key):], t.i)
		if !ok {
			continue
		}
		there := t.carryFile(m, u, to)
		if there == nil {
			continue
		}
		beneath := u.Beneath // which the storage moved
		if key == in.Key {
			beneath = in.movedFrom(u.Beneath, e)
		}
		t.lay(there, beneath)
	}
}

// movedFrom returns what lies beneath a file at the target of a rename, if beneath did at
// its source: what the storage moved, unless that was another version already.
func (in *intent) movedFrom(beneath fingerprint.Fingerprint, e *Entry) fingerprint.Fingerprint {
	if in.Source != nil && in.Source.Known() && !in.Source.SameContent(beneath) {
		return beneath
	}
	return e.Fingerprint
}

// layUnder notes that an operation of our own left beneath at key, or nothing if it is
// unknown: an unpersisted file there is to be persisted over that.
func (t *txn) layUnder(m *mount, key string, beneath fingerprint.Fingerprint) {
	c := t.walk(m, key)
	if u := t.unpersistedAt(c.entry()); u != nil && u.Beneath != beneath {
		t.lay(u, beneath)
	}
}

// putOff has an upload tried again after a while: its file got its name, but that is not
// known to be durable.
func (t *txn) putOff(file freshet.FileID, at time.Time) {
	u := t.files.rows[file]
	if u == nil {
		return
	}
	next := *u
	next.Next = at.UTC().Add(next.Backoff())
	next.Attempts++
	next.Error = "it was written, but is not known to be durable"
	t.saveUnpersisted(&next)
}

// layChanged notes what a change of attributes left of the version beneath an unpersisted
// file, which was written while the change was under way.
func (t *txn) layChanged(in *intent, m *mount, e *Entry) {
	c := t.walk(m, in.Key)
	if u := t.unpersistedAt(c.entry()); u != nil && in.Kind == OpSetAttr && m.Generation == in.Generation && e.Fingerprint.Moved(u.Beneath) {
		t.layUnder(m, in.Key, e.Fingerprint)
	}
}

// layUnderCopies notes what a rename left under the unpersisted files that came with it.
func (t *txn) layUnderCopies(in *intent, all []Beneath) {
	for _, b := range all {
		if u := t.files.rows[b.File]; u != nil && below(in.Key2, t.keyOf(u.at)) {
			t.lay(u, b.Fingerprint)
		}
	}
}

// lay notes that an unpersisted file lies over another version in the storage. A conflict
// with the one before is over, and an upload that is to replace that is withdrawn.
func (t *txn) lay(u *unpersisted, beneath fingerprint.Fingerprint) {
	now := *u
	now.Beneath, now.Conflict, now.Next, now.Laid = beneath, false, time.Time{}, t.i
	t.saveUnpersisted(&now)
	t.stopPersist(u.File)
}

// carryFile moves an unpersisted file and returns the one that is there then: another, if
// that was written since the rename began, and so has replaced what came. It stays, with
// nil, if a directory that others lie below was made in its way meanwhile.
func (t *txn) carryFile(m *mount, u *unpersisted, to place) *unpersisted {
	old := t.get(to)
	newer := t.unpersistedAt(old)
	switch {
	case newer != nil:
		t.discardFile(m, u)
		return newer
	case t.holds(old):
		return nil
	case old != nil:
		t.detach(to)
	}
	t.move(u.at, to)
	t.edit(to).validFrom = t.i
	return t.files.rows[u.File]
}

func (t *txn) queuePersist(c *QueuePersist) Result {
	var res Result
	for _, id := range c.Files {
		u := t.files.rows[id]
		if u == nil {
			continue
		}
		due := *u
		if !u.Queued && !c.At.IsZero() {
			due.Asked = c.At.UTC()
		}
		due.Queued, due.Next = true, time.Time{}
		if c.Overwrite {
			due.Beneath, due.Conflict, due.Laid = c.Beneath, false, t.i
		}
		t.saveUnpersisted(&due)
		if c.Overwrite { // what was ordered before is to replace something else
			t.stopPersist(id)
		}
		res.Dropped++
	}
	return res
}

func (t *txn) stopPersists(c *StopPersist) Result {
	var res Result
	for _, p := range c.Paths {
		if r := t.resolve(p); r.mount != nil {
			res.More = !t.stopPersistsUnder(r.mount, r.key) || res.More
		}
	}
	return res
}

func (t *txn) persistFailed(c *PersistFailed) Result {
	in := t.intents[c.Op]
	switch {
	case in == nil:
		return Result{Err: unknownOp("persist", c.Op)}
	case in.Persist == 0 || in.State == IntentQuarantine:
		return Result{Err: freshet.Errorf(freshet.KindConflict, "persist", in.Path, "operation %s is not the upload of an unpersisted file: %s", c.Op, in.State)}
	}
	if u := t.files.rows[in.Persist]; u != nil {
		failed := *u
		failed.Attempts++
		failed.Error, failed.Conflict, failed.Next = c.Error, c.Conflict, c.Next.UTC()
		if u.Laid > in.Started { // it was to replace what does not lie beneath any more
			failed.Conflict, failed.Next = false, time.Time{}
		}
		t.saveUnpersisted(&failed)
	}
	t.endIntent(in, false)
	return Result{}
}

// checkUnpersisted refuses one more unpersisted file than may be.
func (t *txn) checkUnpersisted(c *Begin) error {
	if len(t.files.rows) < MaxUnpersisted {
		return nil
	}
	return freshet.Errorf(freshet.KindExhausted, "write", c.Path,
		"%d files are not in the storage yet, the most that may be: wait until some are, have them persisted, or write with cache_through", MaxUnpersisted)
}

// setsKeeping reports whether a policy's setting makes such writes, or is about them.
func setsKeeping(s PolicySetting) bool {
	if s.Property == freshet.PropertyDurableReplicas {
		return true
	}
	if s.Property != freshet.PropertyWriteType {
		return false
	}
	w, err := freshet.ParseWriteType(s.Value)
	return err == nil && w.Keeps()
}
