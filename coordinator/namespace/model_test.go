package namespace_test

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

type ownOp struct {
	op      int
	effect  effect
	landed  bool
	after   *namespace.Entry
	intent  namespace.Intent
	zombie  bool // an attempt is on its way that can land until the quarantine ends
	settled bool // resolved, or completed as uncertain: in quarantine
}

type foreignOp struct {
	effect effect
	seq    int // in the peer's log; 0: not published yet
}

type loading struct {
	key    string
	list   bool
	start  uint64
	read   bool
	entry  *namespace.Entry
	kids   map[string]*namespace.Entry
	exists bool
}

// version is what a file ID names for ever.
type version struct{ content, blockSize int64 }

// world is one cluster under test, another that only writes, and the storage.
type world struct {
	*cluster
	fs      *storage
	log     *peerLog
	foreign []*foreignOp
	ops     []*ownOp
	nextOp  int
	loads   []*loading
	content map[freshet.FileID]version
	sentTo  int // records delivered
	// records is how many records each operation must have left in the own log.
	records map[freshet.OpID]int
}

func keyUniverse() []string {
	keys := []string{"d", "e", "x", "d/e", "d/x", "d/y", "e/x", "d/e/x", "d/e/y"}
	sort.Strings(keys)
	return keys
}

func pathOf(key string) freshet.Path {
	if key == "" {
		return "/m"
	}
	return freshet.Path("/m/" + key)
}

func drawEffect(t *rapid.T) effect {
	keys := keyUniverse()
	e := effect{
		kind:    rapid.SampledFrom([]namespace.OpKind{namespace.OpWrite, namespace.OpWrite, namespace.OpMkdir, namespace.OpRemove, namespace.OpRename}).Draw(t, "kind"),
		key:     rapid.SampledFrom(keys).Draw(t, "key"),
		content: rapid.IntRange(1, 4).Draw(t, "content"),
	}
	if e.kind == namespace.OpRename {
		e.key2 = rapid.SampledFrom(keys).Draw(t, "key2")
	}
	return e
}

func (w *world) foreignEffect(t *rapid.T) {
	e := drawEffect(t)
	if e.apply(w.fs) {
		w.foreign = append(w.foreign, &foreignOp{effect: e})
	}
}

func (w *world) foreignPublish(*rapid.T) {
	for _, f := range w.foreign {
		if f.seq != 0 {
			continue
		}
		kinds := map[namespace.OpKind]invalidation.Kind{
			namespace.OpWrite: invalidation.KindContent, namespace.OpMkdir: invalidation.KindMkdir,
			namespace.OpRemove: invalidation.KindDelete, namespace.OpRename: invalidation.KindRename,
		}
		r := invalidation.Record{Kind: kinds[f.effect.kind], Key: "/" + f.effect.key}
		if f.effect.key2 != "" {
			r.Key2, r.Recursive = "/"+f.effect.key2, true
		}
		if f.effect.kind == namespace.OpWrite {
			r.Fingerprint = fileEntry("", f.effect.content).Fingerprint
		}
		w.log.add(r)
		f.seq = len(w.log.records)
		return
	}
}

func (w *world) deliver(t *rapid.T) {
	n := len(w.log.records)
	if n == 0 {
		t.Skip("nothing to deliver")
	}
	after := rapid.IntRange(0, n).Draw(t, "after")
	end := rapid.IntRange(after, n).Draw(t, "end")
	res := w.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: w.log.batch(after, end)}})
	if want := max(w.sentTo, end); after <= w.sentTo && end > w.sentTo {
		w.sentTo = want
	}
	if res.Position.Applied != uint64(w.sentTo) {
		t.Fatalf("applied %d after [%d,%d), want %d", res.Position.Applied, after, end, w.sentTo)
	}
}

func (w *world) hint(t *rapid.T) {
	if n := len(w.log.records); n > 0 {
		i := rapid.IntRange(0, n-1).Draw(t, "record")
		w.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: w.log.records[i : i+1]}})
	}
}

func (w *world) begin(t *rapid.T) {
	e := drawEffect(t)
	w.nextOp++
	cmd := &namespace.Begin{Op: opID(w.nextOp), Kind: e.kind, Path: pathOf(e.key), Recursive: e.kind == namespace.OpRemove, At: epochTime}
	if e.key2 != "" {
		cmd.Path2 = pathOf(e.key2)
	}
	if r := w.do(namespace.Command{Begin: cmd}); r.Err == nil {
		w.ops = append(w.ops, &ownOp{op: w.nextOp, effect: e, intent: r.Intent})
	}
}

func (w *world) anyOp(t *rapid.T, ok func(*ownOp) bool) *ownOp {
	var fit []*ownOp
	for _, o := range w.ops {
		if ok(o) {
			fit = append(fit, o)
		}
	}
	if len(fit) == 0 {
		t.Skip("no such operation")
	}
	return fit[rapid.IntRange(0, len(fit)-1).Draw(t, "op")]
}

func (w *world) end(o *ownOp) {
	w.ops = slices.DeleteFunc(w.ops, func(p *ownOp) bool { return p == o })
}

func (w *world) land(t *rapid.T) {
	o := w.anyOp(t, func(o *ownOp) bool { return !o.landed && !o.settled })
	if !o.effect.apply(w.fs) {
		w.must(namespace.Command{Abort: &namespace.Abort{Op: opID(o.op), Definite: true}})
		w.end(o)
		return
	}
	o.landed, o.after = true, o.effect.after(w.fs)
}

func (w *world) finish(t *rapid.T) {
	o := w.anyOp(t, func(o *ownOp) bool { return o.landed && !o.settled })
	uncertain := rapid.IntRange(0, 3).Draw(t, "uncertain") == 0
	r := w.must(namespace.Command{Complete: &namespace.Complete{Op: opID(o.op), Entry: o.after, Uncertain: uncertain, At: epochTime}})
	if r.Installed && uncertain {
		t.Fatalf("an uncertain completion was installed")
	}
	w.records[opID(o.op)]++
	if uncertain {
		o.settled, o.zombie = true, true
		return
	}
	w.end(o)
}

func (w *world) giveUp(t *rapid.T) {
	o := w.anyOp(t, func(o *ownOp) bool { return !o.settled })
	seen := o.effect.after(w.fs)
	ours := o.landed && o.effect.kind == namespace.OpWrite && seen != nil && o.after != nil && seen.Fingerprint == o.after.Fingerprint
	w.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(o.op), Known: true, Observed: seen, Ours: ours, At: epochTime}})
	w.records[opID(o.op)]++
	o.settled, o.zombie = true, true
}

// zombieLands is an attempt of an operation in quarantine that takes effect.
func (w *world) zombieLands(t *rapid.T) {
	o := w.anyOp(t, func(o *ownOp) bool { return o.zombie })
	o.effect.apply(w.fs)
	o.zombie = false
}

func (w *world) quarantineEnds(t *rapid.T) {
	o := w.anyOp(t, func(o *ownOp) bool { return o.settled })
	w.endQuarantine(o)
}

func (w *world) endQuarantine(o *ownOp) {
	w.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: opID(o.op), At: epochTime}})
	w.records[opID(o.op)]++
	w.end(o)
}

func (w *world) startLoad(t *rapid.T) {
	l := &loading{start: w.s.Applied(), list: rapid.Bool().Draw(t, "list")}
	keys := keyUniverse()
	if l.list {
		keys = []string{"", "", "d", "e", "d/e"}
	}
	l.key = rapid.SampledFrom(keys).Draw(t, "key")
	w.loads = append(w.loads, l)
}

func (w *world) anyLoad(t *rapid.T, read bool) *loading {
	var fit []*loading
	for _, l := range w.loads {
		if l.read == read {
			fit = append(fit, l)
		}
	}
	if len(fit) == 0 {
		t.Skip("no such load")
	}
	return fit[rapid.IntRange(0, len(fit)-1).Draw(t, "load")]
}

func (w *world) readLoad(t *rapid.T) { w.fetch(w.anyLoad(t, false)) }

func (w *world) fetch(l *loading) {
	l.read = true
	if l.list && w.fs.isDir(l.key) {
		l.kids, l.exists = w.fs.list(l.key), true
		return
	}
	l.list = false
	l.entry = w.fs.stat(l.key)
}

func (w *world) commitLoad(t *rapid.T) { w.install(w.anyLoad(t, true)) }

func (w *world) install(l *loading) {
	w.loads = slices.DeleteFunc(w.loads, func(o *loading) bool { return o == l })
	if !l.list {
		w.loadAt(pathOf(l.key), l.start, l.entry)
		return
	}
	held, err := w.s.List(pathOf(l.key), "", 0)
	if err != nil {
		w.t.Fatalf("list: %v", err)
	}
	var removes []string
	for _, c := range held {
		if l.kids[c.Name] == nil {
			removes = append(removes, c.Name)
		}
	}
	var entries []*namespace.Entry
	for _, name := range slices.Sorted(maps.Keys(l.kids)) {
		entries = append(entries, l.kids[name])
	}
	w.listAt(pathOf(l.key), l.start, removes, entries...)
}

func (w *world) mark(t *rapid.T) {
	key := rapid.SampledFrom(append(keyUniverse(), "")).Draw(t, "key")
	w.must(namespace.Command{Mark: &namespace.Mark{Path: pathOf(key), Recursive: rapid.Bool().Draw(t, "recursive")}})
}

func (w *world) reset(*rapid.T) {
	if w.sentTo = len(w.log.records); w.sentTo > 0 {
		w.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: peer, Head: w.log.head()}})
	}
}

func (w *world) purge(t *rapid.T) {
	w.must(namespace.Command{Purge: &namespace.Purge{Limit: rapid.IntRange(1, 5).Draw(t, "limit")}})
}

// excused reports whether a difference at an entry or a listing is one that the
// protocol allows: an effect whose record was not applied yet.
func (w *world) excused(touches func(effect) bool) bool {
	for _, f := range w.foreign {
		if (f.seq == 0 || f.seq > w.sentTo) && touches(f.effect) {
			return true
		}
	}
	for _, o := range w.ops {
		if o.landed && !o.settled && touches(o.effect) {
			return true
		}
	}
	return false
}

// check holds the state to S1: what is servable equals the storage, but for an
// excuse. It also holds every file ID to one content and one size of blocks for ever.
func (w *world) check() {
	for _, key := range append(keyUniverse(), "") {
		l := w.look(pathOf(key))
		now := w.fs.stat(key)
		touches := func(e effect) bool { return e.touches(key, w.fs.flat) }
		switch {
		case l.Found && l.Info.Type == freshet.TypeFile && l.Info.FileID != 0:
			v := version{l.Info.Length, l.Info.BlockSize}
			if old, ok := w.content[l.Info.FileID]; ok && old != v {
				w.t.Fatalf("file ID %d of %s names %+v and %+v", l.Info.FileID, key, old, v)
			}
			w.content[l.Info.FileID] = v
		}
		switch {
		case l.Uncachable || (key == ""):
		case l.Found && l.Servable(0):
			if !same(l.Info, now) && !w.excused(touches) {
				w.t.Fatalf("%s is served as %s/%d, the storage has %s: %+v", key, l.Info.Type, l.Info.Length, describe(now), l)
			}
		case l.KnownAbsent && l.Absent.Servable(0):
			if now != nil && !w.excused(touches) {
				w.t.Fatalf("%s is served as absent, the storage has %s: %+v", key, describe(now), l)
			}
		}
		w.checkListing(key, l)
	}
}

func same(i freshet.Info, e *namespace.Entry) bool {
	if e == nil || i.Type != e.Type {
		return false
	}
	return i.Type == freshet.TypeDirectory || i.Length == e.Length
}

func describe(e *namespace.Entry) string {
	if e == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s/%d", e.Type, e.Length)
}

func (w *world) checkListing(key string, l namespace.Lookup) {
	if !l.Found || !l.Listing.Complete || !l.Listing.Servable(0) || l.Listing.Uncachable {
		return
	}
	if w.excused(func(e effect) bool { return e.touchesListing(key, w.fs.flat) }) {
		return
	}
	held, err := w.s.List(pathOf(key), "", 0)
	if err != nil {
		w.t.Fatalf("list: %v", err)
	}
	now := w.fs.list(key)
	names := map[string]bool{}
	for _, c := range held {
		names[c.Name] = true
		if e := now[c.Name]; e == nil || e.Type != c.Info.Type {
			// An entry that needs a sync is looked at before it is listed.
			if !c.Servable(0) {
				continue
			}
			w.t.Fatalf("the listing of %q has %s as %s, the storage has %s: %+v", key, c.Name, c.Info.Type, describe(e), l.Listing)
		}
	}
	for name := range now {
		if !names[name] {
			w.t.Fatalf("the listing of %q lacks %s: %+v", key, name, l.Listing)
		}
	}
}

// settle lets everything end and holds the state to the storage without excuse.
func (w *world) settle(t *rapid.T) {
	for len(w.ops) > 0 {
		o := w.ops[0]
		switch {
		case o.settled:
			w.endQuarantine(o)
		case o.landed:
			w.must(namespace.Command{Complete: &namespace.Complete{Op: opID(o.op), Entry: o.after, At: epochTime}})
			w.records[opID(o.op)]++
			w.end(o)
		default:
			w.must(namespace.Command{Abort: &namespace.Abort{Op: opID(o.op), Definite: true}})
			w.end(o)
		}
	}
	for range w.foreign {
		w.foreignPublish(t)
	}
	w.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: w.log.batch(w.sentTo, len(w.log.records))}})
	w.sentTo = len(w.log.records)
	w.check()
	for len(w.loads) > 0 {
		l := w.loads[0]
		if !l.read {
			w.fetch(l)
		}
		w.install(l)
		w.check()
	}
	w.checkLiveness()
	w.checkLog()
}

// checkLog holds the own log to S2, S3 and S9: it is dense, its chain fits, each
// operation that can have had an effect has a record after it, one more if it was
// in quarantine, and nothing else has any.
func (w *world) checkLog() {
	b, err := w.s.Records(domain, 0, 1<<20)
	if err != nil {
		w.t.Fatalf("records: %v", err)
	}
	got := map[freshet.OpID]int{}
	chain := b.AfterHash
	for i, r := range b.Records {
		if r.Seq != uint64(i)+1 {
			w.t.Fatalf("record %d has number %d", i+1, r.Seq)
		}
		chain = chain.Next(r)
		got[r.Op]++
	}
	if h := w.s.Heads()[0]; h.High != uint64(len(b.Records)) || h.Hash != chain {
		w.t.Fatalf("the head %+v does not fit %d records", h, len(b.Records))
	}
	if !maps.Equal(got, w.records) {
		w.t.Fatalf("records of operations: %v, want %v", got, w.records)
	}
}

// checkLiveness loads everything once and finds it servable: no mark sticks.
func (w *world) checkLiveness() {
	for _, dir := range []string{"", "d", "e", "d/e"} {
		l := &loading{key: dir, list: true, start: w.s.Applied()}
		w.fetch(l)
		w.install(l)
	}
	for _, key := range keyUniverse() {
		l := &loading{key: key, start: w.s.Applied()}
		w.fetch(l)
		w.install(l)
	}
	w.check()
	for _, key := range keyUniverse() {
		if now := w.fs.stat(key); now != nil && !w.servable(pathOf(key)) {
			w.t.Fatalf("%s is not servable after a load: %+v", key, w.look(pathOf(key)))
		}
	}
	for _, dir := range []string{"", "d", "e", "d/e"} {
		if w.fs.isDir(dir) {
			w.wantListing(pathOf(dir), true)
		}
	}
}

func newWorld(t *rapid.T, flat bool, twin kv.Store) *world {
	c := &cluster{t: t, s: open(t, kv.NewMemory())}
	if twin != nil {
		c.twin = open(t, twin)
	}
	c.found(mountOf("/m", "/"))
	c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}})
	return &world{cluster: c, fs: newStorage(flat), log: &peerLog{who: peer}, content: map[freshet.FileID]version{}, records: map[freshet.OpID]int{}}
}

// expire drops facts of any age, as a ttl does: nothing wrong may follow from it.
func (w *world) expire(t *rapid.T) {
	dir := rapid.SampledFrom([]string{"", "d", "e", "d/e"}).Draw(t, "dir")
	var names []string
	for _, key := range keyUniverse() {
		if path.Dir("/"+key) == "/"+dir || (dir == "" && !strings.Contains(key, "/")) {
			names = append(names, path.Base(key))
		}
	}
	before := rapid.Uint64Range(0, w.i+1).Draw(t, "before")
	w.cluster.expire(pathOf(dir), before, names...)
}

// resize changes the size of blocks of a path and what is below it.
func (w *world) resize(t *rapid.T) {
	key := rapid.SampledFrom(append(keyUniverse(), "")).Draw(t, "key")
	size := rapid.SampledFrom([]string{"64KiB", "1MiB", "64MiB"}).Draw(t, "size")
	w.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: namespace.Version}})
	w.policy(pathOf(key), setting(freshet.PropertyBlockSize, size))
}

func (w *world) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"foreignEffect": w.foreignEffect, "foreignPublish": w.foreignPublish, "deliver": w.deliver, "hint": w.hint,
		"begin": w.begin, "land": w.land, "finish": w.finish, "giveUp": w.giveUp, "zombieLands": w.zombieLands, "quarantineEnds": w.quarantineEnds,
		"startLoad": w.startLoad, "startLoad2": w.startLoad, "readLoad": w.readLoad, "readLoad2": w.readLoad, "commitLoad": w.commitLoad, "commitLoad2": w.commitLoad,
		"mark": w.mark, "reset": w.reset, "purge": w.purge, "expire": w.expire, "resize": w.resize,
		"": func(*rapid.T) { w.check() },
	}
}

// TestS1ServableEqualsStorageOrIsExcused holds random interleavings of loads,
// own operations with their failures, and another cluster's changes to the
// protocol's main promise, on both kinds of storage.
func TestS1ServableEqualsStorageOrIsExcused(t *testing.T) {
	for _, flat := range []bool{false, true} {
		t.Run(fmt.Sprintf("flat=%t", flat), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, flat, nil)
				t.Repeat(w.actions())
				w.settle(t)
			})
		})
	}
}

// TestMembersAgree feeds one log to a member in memory and to one on disk that
// is replaced by a dump of the other in the middle: their states are equal.
func TestMembersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, err := pebblekv.Open("db", pebblekv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatalf("open pebble: %v", err)
		}
		defer store.Close()
		w := newWorld(t, rapid.Bool().Draw(t, "flat"), store)
		actions := w.actions()
		actions["dump"] = func(*rapid.T) { w.replaceTwin() }
		actions[""] = func(*rapid.T) {}
		t.Repeat(actions)
		w.wantEqual()
		w.replaceTwin()
		w.settle(t)
		w.wantEqual()
	})
}

func (w *world) replaceTwin() {
	var b bytes.Buffer
	at, err := w.s.Dump(&b)
	if err != nil || at != w.i {
		w.t.Fatalf("dump at %d: %v", at, err)
	}
	if err := w.twin.Restore(&b); err != nil {
		w.t.Fatalf("restore: %v", err)
	}
}

func (w *world) wantEqual() {
	a, err := w.s.Hash()
	if err != nil {
		w.t.Fatalf("hash: %v", err)
	}
	b, err := w.twin.Hash()
	if err != nil {
		w.t.Fatalf("hash: %v", err)
	}
	if a != b {
		w.t.Fatalf("members differ at %d", w.i)
	}
}
