package namespace

import (
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
)

// intent is an Intent with what its end needs even if the mount is gone by then.
type intent struct {
	Intent
	Domain freshet.DomainID
	Root   string // domain key of the mount's root
	// Shared says that another operation on the same key overlapped in time:
	// neither completion tells what the storage holds now.
	Shared bool
	// NeedEntries and NeedBytes are reserved of the quotas that count its path.
	NeedEntries int64 `codec:"qe,omitempty"`
	NeedBytes   int64 `codec:"qb,omitempty"`
}

// outcome is what is kept of an operation that ended.
type outcome struct {
	Index     uint64
	Completed freshet.Completed
}

// spansBelow reports whether the operation may touch what lies below its keys.
func (in *intent) spansBelow() bool {
	return in.Recursive || in.Kind == OpRemove || in.Kind == OpRename
}

// keys returns the keys that the operation changes.
func (in *Intent) keys() []string {
	if in.Kind == OpRename {
		return []string{in.Key, in.Key2}
	}
	return []string{in.Key}
}

func (in *intent) overlaps(o *intent) bool {
	if in.Domain != o.Domain {
		return false
	}
	for _, a := range in.keys() {
		for _, b := range o.keys() {
			a, b := domainKey(in.Root, a), domainKey(o.Root, b)
			if a == b || (in.spansBelow() && below(a, b)) || (o.spansBelow() && below(b, a)) {
				return true
			}
		}
	}
	return false
}

// within reports whether key is dir or lies below it.
func within(dir, key string) bool { return key == dir || below(dir, key) }

// below reports whether key lies strictly below dir.
func below(dir, key string) bool {
	if dir == "/" || dir == "" {
		return len(key) > len(dir)
	}
	return len(key) > len(dir) && key[len(dir)] == '/' && strings.HasPrefix(key, dir)
}

func (x *index) insertIntent(in *intent) {
	x.intents[in.Op] = in
	for _, key := range in.keys() {
		k := mountKey{in.Mount, key}
		x.writers[k] = append(x.writers[k], in)
	}
	if in.File != 0 {
		x.uploads[in.File] = in.Op
	}
	if in.Persist != 0 {
		x.files.persists[in.Persist] = in.Op
	}
	if in.spansBelow() {
		x.wide++
	}
	if in.State == IntentQuarantine {
		x.zombies[in.Op] = in
	}
	x.quotas.reserve(in, 1)
}

func (x *index) deleteIntent(in *intent) {
	delete(x.intents, in.Op)
	for _, key := range in.keys() {
		k := mountKey{in.Mount, key}
		x.writers[k] = slices.DeleteFunc(x.writers[k], func(o *intent) bool { return o == in })
		if len(x.writers[k]) == 0 {
			delete(x.writers, k)
		}
	}
	delete(x.uploads, in.File)
	if in.Persist != 0 && x.files.persists[in.Persist] == in.Op {
		delete(x.files.persists, in.Persist)
	}
	if in.spansBelow() {
		x.wide--
	}
	delete(x.zombies, in.Op)
	x.quotas.reserve(in, -1)
}

func (t *txn) saveIntent(in *intent) {
	t.pack = packIntent(t.pack[:0], in)
	t.set(t.opKey(tableIntent, in.Op), t.pack)
}

// endIntent forgets an intent; a file ID that was not bound becomes free.
func (t *txn) endIntent(in *intent, bound bool) {
	t.deleteIntent(in)
	t.del(t.opKey(tableIntent, in.Op))
	if !bound && in.File != 0 {
		t.changes.Freed = append(t.changes.Freed, in.File)
	}
}

// quarantine keeps an intent whose effect may still land.
func (t *txn) quarantine(in *intent, bound bool) {
	t.deleteIntent(in)
	if !bound && in.File != 0 {
		t.changes.Freed = append(t.changes.Freed, in.File)
	}
	in.State, in.Resolved, in.File = IntentQuarantine, t.i, 0
	t.insertIntent(in)
	t.saveIntent(in)
	t.changes.Intents = true
}

// share marks the intents that overlap with a new one, and the new one.
func (t *txn) share(in *intent) {
	meet := func(o *intent) {
		if o == in || !in.overlaps(o) {
			return
		}
		in.Shared = true
		if !o.Shared {
			o.Shared = true
			t.saveIntent(o)
		}
	}
	if in.spansBelow() || t.wide > 0 {
		for _, o := range t.intents {
			meet(o)
		}
		return
	}
	for _, key := range in.keys() {
		for _, o := range t.writers[mountKey{in.Mount, key}] {
			meet(o)
		}
	}
}

func (t *txn) begin(c *Begin) Result {
	if c.Op.IsZero() {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, "begin", c.Path, "the operation has no ID")}
	}
	if o, ok := t.outcome(c.Op); ok {
		return Result{Done: true, Completed: o.Completed}
	}
	if in := t.intents[c.Op]; in != nil {
		return Result{Intent: in.Intent}
	}
	m, key, err := t.checkBegin(c, c.Path)
	if err != nil {
		return Result{Err: err}
	}
	in := &intent{Intent: Intent{Begin: *c, Started: t.i, State: IntentUploading, Mount: m.ID, Generation: m.Generation, Key: key}, Domain: m.Domain, Root: m.DomainKey}
	if c.Kind == OpRename {
		if in.Key2, err = t.checkRename(c, m); err != nil {
			return Result{Err: err}
		}
	}
	switch {
	case c.Persist != 0:
		err = t.checkPersist(c, m, key)
	case in.Keeps():
		err = t.checkUnpersisted(c)
	}
	if err == nil && c.Persist == 0 { // what is unpersisted is counted already
		err = t.admit(in, m)
	}
	if err == nil {
		err = t.holdPersists(in, m)
	}
	if err != nil {
		return Result{Err: err}
	}
	if c.Kind == OpWrite && in.BlockSize == 0 {
		length := int64(0) // the node that takes the bytes ends an upload that becomes too long
		if c.Length != nil {
			length = *c.Length
		}
		in.BlockSize = t.blockSize(named{m, key}, length)
	}
	if in.BlockSize == 0 {
		in.BlockSize = freshet.DefaultBlockSize
	}
	if c.Node == "" {
		in.State = IntentMayPublish
	}
	if c.Kind == OpWrite && c.Persist == 0 {
		in.File = t.newFile()
	}
	t.share(in)
	t.insertIntent(in)
	t.saveIntent(in)
	return Result{Intent: in.Intent}
}

// checkBegin refuses what the state knows to be impossible for an operation at
// p, which is its path or a rename's target.
func (t *txn) checkBegin(c *Begin, p freshet.Path) (*mount, string, error) {
	op := c.Kind.String()
	if canonical, err := freshet.ParsePath(string(p)); err != nil || canonical != p {
		return nil, "", freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", p)
	}
	if err := p.CheckWritable(); err != nil {
		return nil, "", freshet.Wrap(op, p, err)
	}
	r := t.resolve(p)
	switch {
	case c.Kind < OpWrite || c.Kind > OpSetAttr:
		return nil, "", freshet.Errorf(freshet.KindInvalid, op, p, "unknown operation %d", c.Kind)
	case c.BlockSize != 0 && (c.BlockSize < freshet.MinBlockSize || c.BlockSize > freshet.MaxBlockSize):
		return nil, "", freshet.Errorf(freshet.KindInvalid, op, p, "the block size is %d bytes, it must be between %d and %d", c.BlockSize, freshet.MinBlockSize, freshet.MaxBlockSize)
	case (r.point() || r.virtual() || p.IsRoot()) && c.Kind == OpMkdir:
		return nil, "", freshet.Errorf(freshet.KindExist, op, p, "the directory exists")
	case r.point():
		return nil, "", freshet.Errorf(freshet.KindConflict, op, p, "%s is a mount point: unmount it instead", p)
	case r.virtual():
		return nil, "", freshet.Errorf(freshet.KindConflict, op, p, "mount points lie below %s: unmount them first", p)
	case r.mount == nil:
		return nil, "", freshet.Errorf(freshet.KindNotExist, op, p, "no storage is mounted there")
	case r.mount.ReadOnly:
		return nil, "", freshet.Errorf(freshet.KindPermission, op, p, "the mount at %s is read-only", r.mount.Path)
	}
	ch := t.walk(r.mount, r.key)
	k := len(ch.ino) - 1
	switch n := ch.last(); {
	case !ch.held() && !n.dir && (ch.servable(k) || t.holds(n)):
		return nil, "", freshet.Errorf(freshet.KindConflict, op, p, "%s is a file, not a directory", r.mount.at(strings.TrimSuffix(strings.TrimSuffix(r.key, ch.rest), "/")))
	case ch.held() && c.Kind == OpWrite && n.dir && (ch.present(k) || t.holds(n)):
		return nil, "", freshet.Errorf(freshet.KindConflict, op, p, "%s is a directory", p)
	case ch.held() && t.holds(n) && n.dir && c.Kind == OpRemove && !c.Recursive:
		return nil, "", NotEmpty(op, p)
	case ch.held() && t.holds(n) && !n.dir && c.Kind == OpMkdir:
		return nil, "", freshet.Errorf(freshet.KindExist, op, p, "a file is there")
	case ch.held() && t.holds(n) && !n.dir && c.Kind == OpSetAttr:
		return nil, "", freshet.Errorf(freshet.KindConflict, op, p, "the file is not in the storage yet: have it persisted first, with \"freshet persist --wait %s\"", p)
	}
	return r.mount, r.key, nil
}

func (t *txn) checkRename(c *Begin, from *mount) (string, error) {
	m, key, err := t.checkBegin(c, c.Path2)
	switch {
	case err != nil:
		return "", err
	case m != from:
		return "", freshet.Errorf(freshet.KindUnsupported, "rename", c.Path, "%s is on another mount: copy and remove instead", c.Path2)
	case c.Path.Contains(c.Path2) || c.Path2.Contains(c.Path):
		return "", freshet.Errorf(freshet.KindInvalid, "rename", c.Path, "the target %s is the source, contains it or lies below it", c.Path2)
	}
	return key, nil
}

// String returns the word for k.
func (k OpKind) String() string {
	names := []string{"operation", "write", "mkdir", "remove", "rename", "set attributes"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// String returns the word for s.
func (s IntentState) String() string {
	names := []string{"unknown", "uploading", "may publish", "quarantine"}
	if int(s) < len(names) {
		return names[s]
	}
	return names[0]
}

func (t *txn) permit(c *Permit) Result {
	in := t.intents[c.Op]
	switch {
	case in == nil:
		return Result{Err: unknownOp("permit", c.Op)}
	case in.Node != c.Node || in.Incarn != c.Incarn:
		return Result{Err: freshet.Errorf(freshet.KindConflict, "permit", in.Path, "operation %s belongs to another run of a node", c.Op)}
	case in.State == IntentQuarantine:
		return Result{Err: freshet.Errorf(freshet.KindConflict, "permit", in.Path, "operation %s was given up: abort the upload", c.Op)}
	}
	if in.Keeps() {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, "permit", in.Path, "a %s write does not touch the storage", in.Write)}
	}
	if o := t.publishes(in); o != nil {
		return Result{Err: freshet.Errorf(freshet.KindUnavailable, "permit", in.Path, "operation %s is writing the file to the storage at this moment: try again", o.Op)}
	}
	if c.Length != nil && in.Persist == 0 {
		if err := t.admitLength(in, *c.Length); err != nil {
			return Result{Err: err}
		}
	}
	in.State, in.Sealed = IntentMayPublish, c.Sealed
	t.saveIntent(in)
	return Result{Intent: in.Intent}
}

// publishes returns another write of the same file that has a permit, if one of the two
// persists a version: a storage may look whether it still has what that replaces and replace
// it in two steps, and what was acknowledged between them would be lost.
func (t *txn) publishes(in *intent) *intent {
	for _, o := range t.writers[mountKey{in.Mount, in.Key}] {
		if o != in && o.Kind == OpWrite && o.State == IntentMayPublish && (o.Persist != 0 || in.Persist != 0) {
			return o
		}
	}
	return nil
}

func (t *txn) abort(c *Abort) Result {
	in := t.intents[c.Op]
	switch {
	case in == nil:
		return Result{Err: unknownOp("abort", c.Op)}
	case in.State == IntentQuarantine, in.State == IntentMayPublish && !c.Definite:
		return Result{Err: freshet.Errorf(freshet.KindConflict, "abort", in.Path, "operation %s may have changed the storage: resolve it", c.Op)}
	}
	t.endIntent(in, false)
	return Result{}
}

func unknownOp(op string, id freshet.OpID) error {
	return freshet.Errorf(freshet.KindNotExist, op, "", "operation %s is not known: it ended, or never began", id)
}
