package namespace_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func (c *cluster) setQuota(p freshet.Path, entries, bytes int64) {
	c.t.Helper()
	c.must(namespace.Command{SetQuota: &namespace.SetQuota{Path: p, MaxEntries: entries, MaxBytes: bytes, Origin: "operator", At: epochTime}})
}

func (c *cluster) unsetQuota(p freshet.Path) {
	c.t.Helper()
	c.must(namespace.Command{RemoveQuota: &namespace.RemoveQuota{Path: p}})
}

// count lets the leader's work on quotas and detached trees come to its end.
func (c *cluster) count(limit int) {
	c.t.Helper()
	for range 100_000 {
		more := c.must(namespace.Command{CountQuotas: &namespace.CountQuotas{Limit: limit}}).More
		if more = c.must(namespace.Command{Purge: &namespace.Purge{Limit: limit}}).More || more; !more {
			return
		}
	}
	c.t.Fatalf("counting does not end")
}

func (c *cluster) quota(p freshet.Path) namespace.QuotaStatus {
	c.t.Helper()
	all, err := c.s.Quotas()
	if err != nil {
		c.t.Fatalf("quotas: %v", err)
	}
	for _, q := range all {
		if q.Path == p {
			return q
		}
	}
	c.t.Fatalf("no quota of %s", p)
	return namespace.QuotaStatus{}
}

func (c *cluster) wantUsed(p freshet.Path, entries, bytes int64) {
	c.t.Helper()
	if got, want := c.quota(p).Used, (namespace.Usage{Entries: entries, Bytes: bytes}); got != want {
		c.t.Fatalf("quota of %s: used %+v, want %+v", p, got, want)
	}
}

// wantTags holds the usage to the sum of what is charged, entry by entry.
func (c *cluster) wantTags() {
	c.t.Helper()
	want, err := c.s.Recount()
	if err != nil {
		c.t.Fatalf("recount: %v", err)
	}
	got := map[uint64]namespace.Usage{}
	all, err := c.s.Quotas()
	if err != nil {
		c.t.Fatalf("quotas: %v", err)
	}
	for _, q := range all {
		got[q.ID] = q.Used
	}
	if !maps.Equal(got, want) {
		c.t.Fatalf("usage is %+v, the entries are charged as %+v", got, want)
	}
}

// wantExact holds the usage to a scan of what lies below each path.
func (c *cluster) wantExact() {
	c.t.Helper()
	all, err := c.s.Quotas()
	if err != nil {
		c.t.Fatalf("quotas: %v", err)
	}
	for _, q := range all {
		want, err := c.s.CountBelow(q.Path)
		if err != nil {
			c.t.Fatalf("count: %v", err)
		}
		mounts, _ := c.s.Mounts()
		for _, m := range mounts { // CountBelow stays in the mount
			if at, ok := c.s.MountAt(q.Path); m.Path != q.Path && q.Path.Contains(m.Path) && (!ok || at.ID != m.ID) {
				more, err := c.s.CountBelow(m.Path)
				if err != nil {
					c.t.Fatalf("count: %v", err)
				}
				want.Entries, want.Bytes = want.Entries+more.Entries, want.Bytes+more.Bytes
			}
		}
		if q.Used != want || q.Counting {
			c.t.Fatalf("quota of %s: used %+v, counting %t; a scan finds %+v", q.Path, q.Used, q.Counting, want)
		}
	}
}

func (w *world) setSomeQuota(t *rapid.T) {
	p := pathOf(rapid.SampledFrom(append(keyUniverse(), "", "d", "d/e")).Draw(t, "quota"))
	if rapid.IntRange(0, 9).Draw(t, "root") == 0 {
		p = "/"
	}
	w.setQuota(p, rapid.Int64Range(0, 8).Draw(t, "entries"), rapid.Int64Range(1, 12).Draw(t, "bytes"))
}

func (w *world) unsetSomeQuota(t *rapid.T) {
	all, err := w.s.Quotas()
	if err != nil || len(all) == 0 {
		t.Skip("no quota")
	}
	w.unsetQuota(all[rapid.IntRange(0, len(all)-1).Draw(t, "which")].Path)
}

func (w *world) countSome(t *rapid.T) {
	w.must(namespace.Command{CountQuotas: &namespace.CountQuotas{Limit: rapid.IntRange(1, 3).Draw(t, "limit")}})
}

// together applies commands as one log entry: counting, loads and marks.
func (w *world) together(t *rapid.T) {
	m, _ := w.s.MountAt("/m")
	i := w.s.Applied()
	load := func() namespace.Command {
		key := rapid.SampledFrom(keyUniverse()).Draw(t, "key")
		return namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: pathOf(key), Start: i, Entry: w.fs.stat(key)}}
	}
	count := namespace.Command{CountQuotas: &namespace.CountQuotas{Limit: rapid.IntRange(1, 3).Draw(t, "limit")}}
	purge := namespace.Command{Purge: &namespace.Purge{Limit: 2}}
	set := namespace.Command{SetQuota: &namespace.SetQuota{Path: pathOf(rapid.SampledFrom(keyUniverse()).Draw(t, "quota")), MaxEntries: 5, At: epochTime}}
	w.batch(load(), count, load(), purge, set, load(), count, load())
}

// TestUsageEqualsARecount holds quotas over random histories of loads, operations
// with their failures, marks, purges and changes of quotas to two recounts: at any
// moment to what each entry is charged to, and once counting has come to its end to
// a scan of what lies below each path. A second member that is replaced by a dump
// now and then agrees.
func TestUsageEqualsARecount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.Bool().Draw(t, "flat"), kv.NewMemory())
		actions := w.actions()
		maps.Copy(actions, map[string]func(*rapid.T){
			"setQuota": w.setSomeQuota, "setQuota2": w.setSomeQuota, "unsetQuota": w.unsetSomeQuota, "count": w.countSome, "count2": w.countSome,
			"together": w.together,
			"countAll": func(*rapid.T) {
				w.count(2)
				w.wantExact()
			},
			"dump": func(*rapid.T) { w.replaceTwin() },
			"":     func(*rapid.T) { w.wantTags() },
		})
		t.Repeat(actions)
		w.wantEqual()
		w.count(3)
		w.wantTags()
		w.wantExact()
		w.reopened()
		w.settle(t)
		w.count(1000)
		w.wantExact()
		all, err := w.s.Quotas()
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range all {
			if q.Reserved != (namespace.Usage{}) {
				t.Fatalf("%+v is reserved of %s when all operations have ended", q.Reserved, q.Path)
			}
			w.unsetQuota(q.Path)
		}
		w.count(1000)
		if tags, lost := w.s.Tags(); tags != 0 {
			t.Fatalf("%d tags are left without a quota, %d of directories that are gone", tags, lost)
		}
		w.wantEqual()
	})
}

// reopened holds what is kept in memory to what a member that restarts reads.
func (w *world) reopened() {
	again := open(w.t, kv.NewMemory())
	var b strings.Builder
	if _, err := w.s.Dump(&b); err != nil {
		w.t.Fatalf("dump: %v", err)
	}
	if err := again.Restore(strings.NewReader(b.String())); err != nil {
		w.t.Fatalf("restore: %v", err)
	}
	have, err := w.s.Quotas()
	if err != nil {
		w.t.Fatalf("quotas: %v", err)
	}
	read, err := again.Quotas()
	if err != nil || fmt.Sprint(have) != fmt.Sprint(read) {
		w.t.Fatalf("after a restart the quotas are %+v, not %+v: %v", read, have, err)
	}
}

func TestQuotasAreCountedPageByPage(t *testing.T) {
	c := newCluster(t)
	for _, dir := range []string{"", "/a", "/a/b"} {
		var entries []*namespace.Entry
		for i := range 25 {
			entries = append(entries, fileEntry(fmt.Sprintf("f%02d", i), 10))
		}
		if dir != "/a/b" {
			entries = append(entries, dirEntry(string(rune('a'+strings.Count(dir, "/")))))
		}
		c.listAt(freshet.Path("/m"+dir), c.s.Applied(), nil, entries...)
	}
	c.setQuota("/m", 1000, 0)
	c.setQuota("/m/a", 0, 1<<20)
	c.wantUsed("/m", 0, 0)
	if !c.quota("/m").Counting {
		t.Error("nothing says that it is still counted")
	}
	c.must(namespace.Command{CountQuotas: &namespace.CountQuotas{Limit: 10}})
	c.wantUsed("/m", 10, 90) // the directory a and nine files
	c.wantTags()
	c.count(7)
	c.wantUsed("/m", 77, 750)
	c.wantUsed("/m/a", 51, 500)
	c.wantExact()
}

func (c *cluster) beginWrite(op int, p freshet.Path, n *int64) namespace.Result {
	c.t.Helper()
	return c.do(namespace.Command{Begin: &namespace.Begin{Op: opID(op), Kind: namespace.OpWrite, Path: p, Node: "n", Incarn: 1, Length: n, At: epochTime}})
}

func (c *cluster) permit(op int, n *int64) error {
	c.t.Helper()
	return c.do(namespace.Command{Permit: &namespace.Permit{Op: opID(op), Node: "n", Incarn: 1, Length: n}}).Err
}

func (c *cluster) wantFull(err error, words ...string) {
	c.t.Helper()
	if !freshet.IsKind(err, freshet.KindExhausted) {
		c.t.Fatalf("error %v, want kind exhausted", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			c.t.Fatalf("error %q does not say %q", err, w)
		}
	}
}

func TestAWriteThatExceedsAQuotaIsRefused(t *testing.T) {
	c := newCluster(t)
	c.listAt("/m", c.s.Applied(), nil, dirEntry("q"))
	c.listAt("/m/q", c.s.Applied(), nil, fileEntry("old", 60))
	c.setQuota("/m/q", 3, 100)
	c.count(10)

	c.wantFull(c.beginWrite(1, "/m/q/big", new(int64(41))).Err, "/m/q is exceeded", "60 of 100 bytes", "41 more", "freshet quota set")
	if err := c.beginWrite(2, "/m/q/fits", new(int64(30))).Err; err != nil {
		t.Fatal(err)
	}
	// What runs counts before it is there, and the length that is uploaded counts
	// rather than the one that was declared.
	c.wantFull(c.beginWrite(3, "/m/q/b", new(int64(11))).Err, "30 bytes are used"[:2], "reserved")
	if err := c.beginWrite(4, "/m/q/c", new(int64(0))).Err; err != nil {
		t.Fatal(err)
	}
	c.wantFull(c.beginWrite(5, "/m/q/d", new(int64(0))).Err, "1 of 3 entries are used and 2 reserved")
	c.wantFull(c.permit(4, new(int64(11))), "bytes")
	if err := c.permit(4, new(int64(10))); err != nil {
		t.Fatal(err)
	}
	c.wantFull(c.permit(2, new(int64(31))))
	if err := c.permit(2, new(int64(30))); err != nil {
		t.Fatal(err)
	}
	if r := c.complete(2, fileEntry("fits", 30)); r.Err != nil {
		t.Fatal(r.Err)
	}
	c.wantUsed("/m/q", 2, 90)
	c.must(namespace.Command{Abort: &namespace.Abort{Op: opID(4), Definite: true}})
	if r := c.quota("/m/q").Reserved; r != (namespace.Usage{}) {
		t.Errorf("%+v is reserved by operations that ended", r)
	}

	// An overwrite counts the difference.
	if err := c.beginWrite(6, "/m/q/old", new(int64(70))).Err; err != nil {
		t.Error(err)
	}
	c.wantFull(c.beginWrite(7, "/m/q/old", new(int64(61))).Err)
	c.must(namespace.Command{Abort: &namespace.Abort{Op: opID(6)}})
	if err := c.beginWrite(8, "/m/q/old", nil).Err; err != nil {
		t.Errorf("an overwrite of unknown length may shrink the file: %v", err)
	}
	c.wantFull(c.permit(8, new(int64(71))))

	// What the storage holds is counted, never refused.
	c.load("/m/q/found", fileEntry("found", 500))
	c.wantUsed("/m/q", 3, 590)
	c.wantFull(c.beginWrite(9, "/m/q/new", nil).Err)
	if err := c.beginWrite(10, "/m/q/found", new(int64(400))).Err; err != nil {
		t.Errorf("what makes a file smaller fits always: %v", err)
	}
	c.wantFull(c.do(namespace.Command{Begin: &namespace.Begin{Op: opID(11), Kind: namespace.OpMkdir, Path: "/m/q/dir", At: epochTime}}).Err, "entries")
	if err := c.do(namespace.Command{Begin: &namespace.Begin{Op: opID(12), Kind: namespace.OpMkdir, Path: "/m/other/dir", At: epochTime}}).Err; err != nil {
		t.Error(err)
	}
}

func TestNestedQuotasAllCount(t *testing.T) {
	c := newCluster(t)
	c.setQuota("/", 0, 1000)
	c.setQuota("/m/a", 100, 0)
	c.setQuota("/m/a/b", 0, 50)
	c.count(10)
	c.load("/m/a/b/f", fileEntry("f", 40))
	c.wantUsed("/", 3, 40)
	c.wantUsed("/m/a", 2, 40)
	c.wantUsed("/m/a/b", 1, 40)
	c.wantFull(c.beginWrite(1, "/m/a/b/g", new(int64(11))).Err, "/m/a/b is exceeded")
	c.setQuota("/", 0, 45)
	c.wantFull(c.beginWrite(2, "/m/a/b/g", new(int64(9))).Err, "quota of / is exceeded")
	c.unsetQuota("/")
	if err := c.beginWrite(3, "/m/a/b/g", new(int64(9))).Err; err != nil {
		t.Error(err)
	}
	c.kind(namespace.Command{RemoveQuota: &namespace.RemoveQuota{Path: "/m/a/x"}}, freshet.KindNotExist)
	c.kind(namespace.Command{SetQuota: &namespace.SetQuota{Path: "/m"}}, freshet.KindInvalid)
	c.kind(namespace.Command{SetQuota: &namespace.SetQuota{Path: "m", MaxBytes: 1}}, freshet.KindInvalid)
}

func TestARenameMovesItsUsage(t *testing.T) {
	c := newCluster(t)
	c.setQuota("/m/from", 0, 1000)
	c.setQuota("/m/to", 10, 100)
	c.listAt("/m", c.s.Applied(), nil, dirEntry("from"), dirEntry("to"))
	c.listAt("/m/from", c.s.Applied(), nil, dirEntry("d"), fileEntry("big", 101))
	c.listAt("/m/from/d", c.s.Applied(), nil, fileEntry("a", 30), fileEntry("b", 30))
	c.count(10)
	c.wantUsed("/m/from", 4, 161)

	rename := func(op int, from, to freshet.Path, entries, bytes int64) error {
		return c.do(namespace.Command{Begin: &namespace.Begin{
			Op: opID(op), Kind: namespace.OpRename, Path: from, Path2: to, Recursive: true, MoveEntries: entries, MoveBytes: bytes, At: epochTime,
		}}).Err
	}
	c.wantFull(rename(1, "/m/from/big", "/m/to/big", 0, 0), "/m/to")
	c.wantFull(rename(2, "/m/from/d", "/m/to/d", 2, 101))
	c.wantFull(rename(3, "/m/from/d", "/m/to/d", 10, 60), "entries")
	if err := rename(4, "/m/from/d", "/m/from/e", 1000, 1000); err != nil {
		t.Errorf("a move below the same quotas adds nothing: %v", err)
	}
	c.must(namespace.Command{Abort: &namespace.Abort{Op: opID(4), Definite: true}})
	if err := rename(5, "/m/from/d", "/m/to/d", 2, 60); err != nil {
		t.Fatal(err)
	}
	c.complete(5, dirEntry("d"))
	c.wantTags()
	c.count(1)
	c.wantUsed("/m/from", 1, 101)
	c.wantUsed("/m/to", 3, 60)
	c.wantExact()
}

func TestARemovedTreeLeavesTheUsageWhenItIsPurged(t *testing.T) {
	c := newCluster(t)
	c.setQuota("/m/q", 0, 100)
	c.listAt("/m/q/d", c.s.Applied(), nil, fileEntry("a", 50), fileEntry("b", 50))
	c.wantUsed("/m/q", 3, 100)
	c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpRemove, Path: "/m/q/d", Recursive: true, At: epochTime}})
	c.complete(1, nil)
	c.wantUsed("/m/q", 2, 100)
	if !c.quota("/m/q").Counting {
		t.Error("nothing says that the tree is still taken off")
	}
	c.count(1)
	c.wantUsed("/m/q", 0, 0)
	c.wantExact()
}

func TestAQuotaSpansMountsBelowIt(t *testing.T) {
	c := &cluster{t: t, s: open(t, kv.NewMemory())}
	c.found(mountOf("/m", "/"))
	c.setQuota("/", 4, 0)
	c.count(10)
	c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: func() freshet.Mount {
		m := mountOf("/n/x", "/")
		m.Domain = freshet.DomainID{8}
		return m
	}()}})
	c.load("/m/a", fileEntry("a", 1))
	c.load("/n/x/b/c", fileEntry("c", 2))
	c.wantUsed("/", 3, 3)
	c.count(10)
	c.wantExact()
	c.must(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: "/n/x"}})
	c.count(10)
	c.wantUsed("/", 1, 1)
	c.wantExact()
}
