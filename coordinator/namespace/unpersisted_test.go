package namespace_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

func keptOp(n int) freshet.OpID { return freshet.OpID{5, byte(n >> 8), byte(n)} }

// keepFile writes a file that stays on node n1, and returns its version.
func (c *cluster) keepFile(n int, p freshet.Path, w freshet.WriteType) freshet.FileID {
	c.t.Helper()
	b := c.must(namespace.Command{Begin: &namespace.Begin{Op: keptOp(n), Kind: namespace.OpWrite, Path: p, Node: "n1", Incarn: 1, Write: w, At: epochTime}})
	e := &namespace.Entry{Name: p.Base(), Type: freshet.TypeFile, Length: int64(n), ModTime: epochTime, Mode: 0o644}
	c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(n), Entry: e, At: epochTime}})
	return b.Intent.File
}

// keepOn writes a file that three nodes keep, of which two were asked for.
func (c *cluster) keepOn(n int, p freshet.Path, nodes ...freshet.NodeID) (freshet.FileID, namespace.Result) {
	c.t.Helper()
	b := c.must(namespace.Command{Begin: &namespace.Begin{
		Op: keptOp(n), Kind: namespace.OpWrite, Path: p, Node: "n1", Incarn: 1, Write: freshet.MustCache, At: epochTime, Replicas: 2,
	}})
	e := &namespace.Entry{Name: p.Base(), Type: freshet.TypeFile, Length: int64(n), ModTime: epochTime, Mode: 0o644}
	return b.Intent.File, c.do(namespace.Command{Complete: &namespace.Complete{Op: keptOp(n), Entry: e, At: epochTime, Nodes: nodes}})
}

// TestAFileOfSeveralNodes becomes visible only if as many keep it as were asked for, and
// others may come to keep it later.
func TestAFileOfSeveralNodes(t *testing.T) {
	c := newCluster(t)
	for i, nodes := range [][]freshet.NodeID{nil, {"n1"}, {"n1", "n1"}, {"n1", ""}} {
		id, r := c.keepOn(10+i, "/m/f", nodes...)
		if !freshet.IsKind(r.Err, freshet.KindInvalid) || len(c.kept()) != 0 {
			t.Errorf("kept by %q: %+v", nodes, r)
		}
		c.must(namespace.Command{Abort: &namespace.Abort{Op: keptOp(10 + i)}})
		if over := c.s.Release(c.s.Identity().Cluster, []freshet.FileID{id}); !slices.Equal(over, []freshet.FileID{id}) {
			t.Errorf("of what never was, nothing is released: %v", over)
		}
	}
	id, r := c.keepOn(1, "/m/f", "n1", "n2", "n1", "n3")
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	if f := c.kept()[0]; !slices.Equal(f.Nodes, []freshet.NodeID{"n1", "n2", "n3"}) || f.Promised() != 2 {
		t.Errorf("the row is %+v", f)
	}
	for _, n := range []freshet.NodeID{"n4", "n2", "n4"} {
		c.must(namespace.Command{AddKeeper: &namespace.AddKeeper{File: id, Node: n}})
	}
	if f := c.kept()[0]; !slices.Equal(f.Nodes, []freshet.NodeID{"n1", "n2", "n3", "n4"}) {
		t.Errorf("after others came: %+v", f)
	}
	c.kind(namespace.Command{AddKeeper: &namespace.AddKeeper{File: id}}, freshet.KindInvalid)
	c.removeKept(90, "/m/f")
	c.kind(namespace.Command{AddKeeper: &namespace.AddKeeper{File: id, Node: "n5"}}, freshet.KindNotExist)
	if over := c.s.Release(c.s.Identity().Cluster, []freshet.FileID{id}); !slices.Equal(over, []freshet.FileID{id}) {
		t.Errorf("released: %v", over)
	}
	c.keepFile(2, "/m/g", freshet.MustCache)
	if f := c.kept()[0]; f.Promised() != 1 || !slices.Equal(f.Nodes, []freshet.NodeID{"n1"}) {
		t.Errorf("one that names no number: %+v", f)
	}
	if n := namespace.Needs(&namespace.Command{AddKeeper: &namespace.AddKeeper{}}); n != namespace.VersionUnpersisted {
		t.Errorf("it needs version %d", n)
	}
	set := namespace.ChangePolicy{Path: "/m", Set: []namespace.PolicySetting{{Property: freshet.PropertyDurableReplicas, Value: "3"}}}
	if n := namespace.Needs(&namespace.Command{ChangePolicy: &set}); n != namespace.VersionUnpersisted {
		t.Errorf("the policy needs version %d", n)
	}
	c.must(namespace.Command{ChangePolicy: &set})
	if e, _ := c.s.EffectiveAt("/m/d/f"); e.Replicas != 3 {
		t.Errorf("what applies: %+v", e)
	}
}

func (c *cluster) kept() []namespace.UnpersistedFile {
	c.t.Helper()
	all, err := c.s.Unpersisted(0, nil)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return all
}

func (c *cluster) persistBegin(n int, f namespace.UnpersistedFile) namespace.Result {
	return c.do(namespace.Command{Begin: &namespace.Begin{
		Op: keptOp(n), Kind: namespace.OpWrite, Path: f.Path, Node: "n1", Incarn: 1, Write: freshet.AsyncThrough, At: epochTime, Persist: f.File,
	}})
}

func (c *cluster) removeBegin(n int, p freshet.Path) namespace.Result {
	return c.do(namespace.Command{Begin: &namespace.Begin{Op: keptOp(n), Kind: namespace.OpRemove, Path: p, Recursive: true, At: epochTime}})
}

// removeKept removes what is at p.
func (c *cluster) removeKept(n int, p freshet.Path) {
	c.t.Helper()
	if r := c.removeBegin(n, p); r.Err != nil {
		c.t.Fatalf("remove %s: %v", p, r.Err)
	}
	c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(n), At: epochTime}})
}

// TestWhatIsRemovedIsThereUntilItIsGone: as long as a removal has not ended, the newest
// version is served, not what the storage has, or no longer has, beneath it.
func TestWhatIsRemovedIsThereUntilItIsGone(t *testing.T) {
	for name, end := range map[string]namespace.Command{
		"done":              {Complete: &namespace.Complete{Op: keptOp(3), At: epochTime}},
		"done, seen late":   {Complete: &namespace.Complete{Op: keptOp(3), At: epochTime, Uncertain: true}},
		"found to be gone":  {Resolve: &namespace.Resolve{Op: keptOp(3), Known: true, Ended: true, At: epochTime}},
		"not done":          {Abort: &namespace.Abort{Op: keptOp(3), Definite: true}},
		"found to be there": {Resolve: &namespace.Resolve{Op: keptOp(3), Known: true, Ended: true, Observed: fileEntry("f", 9), At: epochTime}},
		"not known":         {Resolve: &namespace.Resolve{Op: keptOp(3), At: epochTime}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.load("/m/f", fileEntry("f", 9))
			id := c.keepFile(1, "/m/f", freshet.AsyncThrough)
			if r := c.persistBegin(2, c.kept()[0]); r.Err != nil {
				t.Fatal(r.Err)
			}
			if r := c.removeBegin(3, "/m/f"); r.Err != nil {
				t.Fatal(r.Err)
			}
			if _, ok := c.s.Intent(keptOp(2)); ok {
				t.Error("it is still being persisted")
			}
			if r := c.persistBegin(4, c.kept()[0]); !freshet.IsKind(r.Err, freshet.KindConflict) {
				t.Errorf("it can be persisted meanwhile: %v", r.Err)
			}
			c.load("/m/f", nil) // the storage has removed it
			c.load("/m/f", fileEntry("f", 9))
			if l := c.look("/m/f"); !l.Unpersisted || l.Info.FileID != id {
				t.Errorf("while it is removed: %+v", l)
			}
			c.must(end)
			l, gone := c.look("/m/f"), end.Complete != nil || name == "found to be gone"
			if l.Unpersisted == gone || len(c.kept()) == 1 == gone {
				t.Errorf("at the end: %+v", l)
			}
			if r := c.persistBegin(5, namespace.UnpersistedFile{Unpersisted: namespace.Unpersisted{File: id}, Path: "/m/f"}); (r.Err == nil) == gone {
				t.Errorf("it is persisted then: %v", r.Err)
			}
		})
	}
}

// TestWhatIsNotInTheStorageFollowsARename: a rename without an answer, of which the
// storage shows that it happened, has taken the newest version along.
func TestWhatIsNotInTheStorageFollowsARename(t *testing.T) {
	beneath, other := fileEntry("g", 9), fileEntry("g", 8)
	for name, test := range map[string]struct {
		file freshet.Path
		from freshet.Path
		seen *namespace.Entry
		gone bool // from its source
		want freshet.Path
	}{
		"a file, moved":              {"/m/f", "/m/f", beneath, true, "/m/g"},
		"a file, not moved":          {"/m/f", "/m/f", nil, false, "/m/f"},
		"a file, copied":             {"/m/f", "/m/f", beneath, false, "/m/f"},
		"a file, another there":      {"/m/f", "/m/f", other, true, "/m/f"},
		"a directory, moved":         {"/m/d/f", "/m/d", dirEntry("g"), true, "/m/g/f"},
		"a directory, not moved":     {"/m/d/f", "/m/d", nil, false, "/m/d/f"},
		"a directory, another there": {"/m/d/f", "/m/d", dirEntry("g"), false, "/m/d/f"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.load(test.file, fileEntry("f", 9))
			c.keepFile(1, test.file, freshet.AsyncThrough)
			c.must(namespace.Command{Begin: &namespace.Begin{
				Op: keptOp(2), Kind: namespace.OpRename, Path: test.from, Path2: "/m/g", Recursive: test.file != test.from, At: epochTime,
			}})
			c.must(namespace.Command{Resolve: &namespace.Resolve{Op: keptOp(2), Known: true, Ended: true, Observed: test.seen, Moved: test.gone, At: epochTime}})
			f := c.kept()
			if len(f) != 1 || f[0].Path != test.want || !f[0].Beneath.SameContent(beneath.Fingerprint) {
				t.Errorf("it is %+v", f)
			}
			if l := c.look(test.want); !l.Unpersisted {
				t.Errorf("at %s: %+v", test.want, l)
			}
			if test.want != test.file && c.look(test.file).Found {
				t.Errorf("something is at %s still", test.file)
			}
		})
	}
}

// TestC8WhatIsNotInTheStorageIsNotTheStoragesToRemove: no load, listing, record, mark
// or expiry touches an unpersisted file, or the directories above it.
func TestC8WhatIsNotInTheStorageIsNotTheStoragesToRemove(t *testing.T) {
	c := newCluster(t)
	id := c.keepFile(1, "/m/d/f", freshet.MustCache)
	c.load("/m/d/f", nil)
	c.load("/m/d/f", fileEntry("f", 9))
	c.load("/m/d", nil)
	c.load("/m/d", fileEntry("d", 3))
	m, _ := c.s.MountAt("/m")
	for _, dir := range []freshet.Path{"/m", "/m/d"} {
		now := c.s.Applied()
		c.must(namespace.Command{LoadListing: &namespace.LoadListing{
			Mount: m.ID, Generation: m.Generation, Dir: dir, Start: now, ListStart: now, Removes: []string{"d", "f"}, Complete: true,
		}})
	}
	c.must(namespace.Command{Expire: &namespace.Expire{Mount: m.ID, Generation: m.Generation, Dir: "/m/d", Names: []string{"f"}, Before: 1 << 40}})
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m", Recursive: true}})
	l := c.look("/m/d/f")
	if !l.Found || !l.Unpersisted || l.Info.FileID != id || !l.Servable(0) || l.Info.Length != 1 {
		t.Fatalf("the file is %+v", l)
	}
	if l := c.look("/m/d"); !l.Found || !l.Unpersisted || l.Info.Type != freshet.TypeDirectory {
		t.Fatalf("the directory is %+v", l)
	}
	if live := c.s.FileLive([]freshet.FileID{id}); !live[0] {
		t.Error("its blocks would be freed")
	}
	if over := c.s.Release(c.s.Identity().Cluster, []freshet.FileID{id, id + 1, id - 1}); !slices.Equal(over, []freshet.FileID{id - 1}) && len(over) != 0 {
		t.Errorf("released: %v", over)
	}
	c.kind(namespace.Command{Begin: &namespace.Begin{Op: keptOp(9), Kind: namespace.OpRemove, Path: "/m/d", At: epochTime}}, freshet.KindConflict)
	c.kind(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: "/m"}}, freshet.KindConflict)
	if heads := c.s.Heads(); len(heads) != 1 || heads[0].High != 0 {
		t.Errorf("something was published: %+v", heads)
	}
}

// TestWaiting: a file waits since it was queued, which may be long after it was
// acknowledged, and until it was persisted.
func TestWaiting(t *testing.T) {
	c := newCluster(t)
	async := c.keepFile(1, "/m/a", freshet.AsyncThrough)
	id := c.keepFile(2, "/m/f", freshet.MustCache)
	queue := func(after time.Duration, want time.Duration) {
		t.Helper()
		c.must(namespace.Command{QueuePersist: &namespace.QueuePersist{Files: []freshet.FileID{async, id}, At: epochTime.Add(after)}})
		for _, f := range c.kept() {
			since := f.Since
			if f.File == id {
				since = epochTime.Add(want)
			}
			if !f.Queued || !f.Waits().Equal(since) {
				t.Errorf("%s waits since %v, want %v", f.Path, f.Waits(), since)
			}
		}
	}
	queue(24*time.Hour, 24*time.Hour)
	queue(48*time.Hour, 24*time.Hour) // again
}

func TestPersisting(t *testing.T) {
	c := newCluster(t)
	id := c.keepFile(1, "/m/f", freshet.AsyncThrough)
	if r := c.persistBegin(2, c.kept()[0]); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := c.persistBegin(3, c.kept()[0]); !freshet.IsKind(r.Err, freshet.KindConflict) {
		t.Errorf("it is persisted twice at a time: %v", r.Err)
	}
	c.must(namespace.Command{PersistFailed: &namespace.PersistFailed{Op: keptOp(2), Error: "no", Next: epochTime.Add(time.Hour)}})
	if f := c.kept()[0]; f.Attempts != 1 || f.Error != "no" || !f.Next.Equal(epochTime.Add(time.Hour)) || !f.Persisting.IsZero() {
		t.Errorf("after a failure: %+v", f)
	}
	c.must(namespace.Command{QueuePersist: &namespace.QueuePersist{Files: []freshet.FileID{id}}})
	if r := c.persistBegin(4, c.kept()[0]); r.Err != nil {
		t.Fatal(r.Err)
	}
	c.must(namespace.Command{Permit: &namespace.Permit{Op: keptOp(4), Node: "n1", Incarn: 1}})
	if r := c.removeBegin(90, "/m/f"); !freshet.IsKind(r.Err, freshet.KindUnavailable) {
		t.Errorf("what may be on its way is removed: %+v", r)
	}
	e := fileEntry("f", 1)
	e.Length = 1
	r := c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(4), Entry: e, At: epochTime}})
	if l := c.look("/m/f"); !r.Installed || r.Completed.Token.Seq != 1 || l.Unpersisted || l.Info.FileID != id || l.Info.Fingerprint != e.Fingerprint || !l.Servable(0) {
		t.Errorf("persisted: %+v, %+v", r, l)
	}
	if over := c.s.Release(c.s.Identity().Cluster, []freshet.FileID{id}); !slices.Equal(over, []freshet.FileID{id}) {
		t.Errorf("released: %v", over)
	}
	for _, other := range []freshet.ClusterID{{}, {99}} { // which numbers its versions alike
		if over := c.s.Release(other, []freshet.FileID{id}); len(over) != 0 {
			t.Errorf("released of cluster %s: %v", other, over)
		}
	}
	// The next version knows what lies beneath it.
	c.keepFile(5, "/m/f", freshet.MustCache)
	if f := c.kept()[0]; f.Beneath != e.Fingerprint || f.Queued {
		t.Errorf("beneath: %+v", f)
	}
}

func TestUnpersistedIsRenamedAndRemoved(t *testing.T) {
	c := newCluster(t)
	c.keepFile(1, "/m/a/f", freshet.AsyncThrough)
	c.keepFile(2, "/m/a/g", freshet.AsyncThrough)
	c.persistBegin(3, c.kept()[0])
	c.must(namespace.Command{MoveUnpersisted: &namespace.MoveUnpersisted{Op: keptOp(4), Path: "/m/a/f", Path2: "/m/b", Start: c.s.Applied()}})
	if _, ok := c.s.Intent(keptOp(3)); ok {
		t.Error("it is still persisted under its old name")
	}
	if f := c.kept(); f[0].Path != "/m/b" || c.look("/m/a/f").Found {
		t.Errorf("after a rename: %+v", f)
	}
	// The directory moves, with a mark that makes everything uncertain but that.
	c.must(namespace.Command{Begin: &namespace.Begin{Op: keptOp(5), Kind: namespace.OpRename, Path: "/m/a", Path2: "/m/c", Recursive: true, At: epochTime}})
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m", Recursive: true}})
	c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(5), Entry: dirEntry("c"), At: epochTime}})
	if f := c.kept(); f[1].Path != "/m/c/g" {
		t.Errorf("after a rename of the directory: %+v", f)
	}
	c.removeKept(90, "/m/c")
	if f := c.kept(); len(f) != 1 || f[0].Path != "/m/b" {
		t.Errorf("after the directory went: %+v", f)
	}
	c.removeKept(91, "/m/b")
	if f := c.kept(); len(f) != 0 || c.s.UnpersistedTotals() != (namespace.UnpersistedTotals{}) {
		t.Errorf("left: %+v, %+v", f, c.s.UnpersistedTotals())
	}
}

// TestARenameReplacesWhatIsNotInTheStorage: the client was told that the file at the
// target was replaced. It is, whatever else happened at the same time, whether the storage
// has the source or not; but what was written after the rename began stays.
func TestARenameReplacesWhatIsNotInTheStorage(t *testing.T) {
	for _, kept := range []bool{false, true} {
		for _, disturbed := range []string{"", "/m/f", "/m/g"} {
			c := newCluster(t)
			c.load("/m/f", fileEntry("f", 7))
			c.keepFile(1, "/m/g", freshet.AsyncThrough)
			var id freshet.FileID
			if kept {
				id = c.keepFile(2, "/m/f", freshet.AsyncThrough)
			}
			c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpRename, Path: "/m/f", Path2: "/m/g", At: epochTime}})
			if disturbed != "" {
				c.must(namespace.Command{Mark: &namespace.Mark{Path: freshet.Path(disturbed)}})
			}
			c.complete(1, fileEntry("g", 8))
			all := c.kept()
			if kept && (len(all) != 1 || all[0].File != id || all[0].Path != "/m/g" || all[0].Beneath != fileEntry("", 8).Fingerprint) || !kept && len(all) != 0 {
				t.Errorf("%t, %s: after the rename %+v", kept, disturbed, all)
			}
			if l := c.look("/m/g"); l.Unpersisted != kept || disturbed == "/m/g" && !kept && l.Found && l.Servable(0) {
				t.Errorf("%t, %s: the target is %+v", kept, disturbed, l)
			}
		}
	}
	c := newCluster(t)
	c.load("/m/f", fileEntry("f", 7))
	c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpRename, Path: "/m/f", Path2: "/m/g", At: epochTime}})
	id := c.keepFile(1, "/m/g", freshet.AsyncThrough)
	c.complete(1, fileEntry("g", 8))
	if all := c.kept(); len(all) != 1 || all[0].File != id {
		t.Errorf("what was written since is %+v", all)
	}
}

// TestUnpersistedModel holds the table, over random commands, to a plain map of paths,
// and what a restart reads of it to what it was.
func TestUnpersistedModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := kv.NewMemory()
		c := &cluster{t: t, s: open(t, store)}
		c.found(mountOf("/m", "/"))
		model := map[freshet.Path]freshet.FileID{}
		keepers := map[freshet.FileID]map[freshet.NodeID]bool{}
		n := 0
		paths := rapid.SampledFrom([]freshet.Path{"/m/a", "/m/d/a", "/m/d/b", "/m/d/e/a", "/m/x/a"})
		dirs := rapid.SampledFrom([]freshet.Path{"/m/d", "/m/d/e", "/m/x"})
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				n++
				p := paths.Draw(t, "path")
				model[p] = c.keepFile(n, p, freshet.AsyncThrough)
				keepers[model[p]] = map[freshet.NodeID]bool{"n1": true}
			},
			"write on two nodes": func(t *rapid.T) {
				n++
				p := paths.Draw(t, "path")
				id, r := c.keepOn(n, p, "n1", "n2")
				if r.Err != nil {
					t.Fatalf("%v", r.Err)
				}
				model[p], keepers[id] = id, map[freshet.NodeID]bool{"n1": true, "n2": true}
			},
			"another node": func(t *rapid.T) {
				all := c.kept()
				if len(all) == 0 {
					return
				}
				f := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
				node := rapid.SampledFrom([]freshet.NodeID{"n1", "n2", "n3"}).Draw(t, "node")
				c.must(namespace.Command{AddKeeper: &namespace.AddKeeper{File: f.File, Node: node}})
				keepers[f.File][node] = true
			},
			"look":                func(t *rapid.T) { c.load(paths.Draw(t, "path"), nil) },
			"look at a directory": func(t *rapid.T) { c.load(dirs.Draw(t, "dir"), nil) },
			"remove": func(t *rapid.T) {
				p := rapid.OneOf(paths, dirs).Draw(t, "path")
				n++
				if r := c.removeBegin(n, p); r.Err != nil {
					return
				}
				c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(n), At: epochTime}})
				for q := range model {
					if p.Contains(q) {
						delete(model, q)
					}
				}
			},
			"move": func(t *rapid.T) {
				n++
				p, q := paths.Draw(t, "from"), paths.Draw(t, "to")
				if r := c.do(namespace.Command{MoveUnpersisted: &namespace.MoveUnpersisted{Op: keptOp(n), Path: p, Path2: q, Start: c.s.Applied()}}); r.Err == nil {
					model[q] = model[p]
					delete(model, p)
				}
			},
			"persist": func(t *rapid.T) {
				all := c.kept()
				if len(all) == 0 {
					return
				}
				n++
				f := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
				if r := c.persistBegin(n, f); r.Err != nil {
					t.Fatalf("%v", r.Err)
				}
				e := fileEntry(f.Path.Base(), n)
				e.Length = f.Length
				if rapid.Bool().Draw(t, "succeeds") {
					c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(n), Entry: e, At: epochTime}})
					delete(model, f.Path)
					return
				}
				c.must(namespace.Command{Abort: &namespace.Abort{Op: keptOp(n), Definite: true}})
			},
			"restart": func(*rapid.T) {
				before, _ := c.s.Hash()
				c.s = open(c.t, store)
				if after, _ := c.s.Hash(); after != before {
					t.Fatalf("a restart changed the state")
				}
			},
			"": func(t *rapid.T) {
				all := c.kept()
				if len(all) != len(model) {
					t.Fatalf("%d files are unpersisted, want %v", len(all), model)
				}
				for _, f := range all {
					l := c.look(f.Path)
					if model[f.Path] != f.File || !l.Unpersisted || !l.Servable(0) || l.Info.FileID != f.File {
						t.Fatalf("%+v is %+v, want %v", f, l, model)
					}
					for _, node := range f.Nodes {
						if !keepers[f.File][node] || len(f.Nodes) != len(keepers[f.File]) || len(f.Nodes) < f.Promised() {
							t.Fatalf("%+v, want %v", f, keepers[f.File])
						}
					}
					for d := f.Path.Parent(); d != "/m"; d = d.Parent() {
						if !c.look(d).Unpersisted {
							t.Fatalf("nothing is said to be below %s", d)
						}
					}
				}
				for _, d := range []freshet.Path{"/m/d", "/m/d/e", "/m/x"} {
					below := false
					for p := range model {
						below = below || d.Contains(p)
					}
					if c.look(d).Unpersisted != below {
						t.Fatalf("%s: %+v, want %v", d, c.look(d), model)
					}
				}
			},
		})
	})
}

// TestARefusalOverWhatLiesBeneathNoMore is no conflict: the upload was to replace what the
// storage had when it was ordered, and a change of attributes gave that another change time.
func TestARefusalOverWhatLiesBeneathNoMore(t *testing.T) {
	c := newCluster(t)
	at := fileEntry("f", 7)
	at.Fingerprint = fingerprint.Fingerprint{Content: "local:1", Change: "1", Meta: "m"}
	c.load("/m/f", at)
	c.must(namespace.Command{Begin: &namespace.Begin{Op: keptOp(1), Kind: namespace.OpSetAttr, Path: "/m/f", At: epochTime}})
	c.keepFile(2, "/m/f", freshet.AsyncThrough)
	if r := c.persistBegin(3, c.kept()[0]); r.Err != nil {
		t.Fatal(r.Err)
	}
	c.must(namespace.Command{Permit: &namespace.Permit{Op: keptOp(3), Node: "n1", Incarn: 1}})
	now := *at
	now.Fingerprint.Change = "2"
	c.must(namespace.Command{Complete: &namespace.Complete{Op: keptOp(1), Entry: &now, At: epochTime}})
	refuse := func(n int) namespace.UnpersistedFile {
		t.Helper()
		c.must(namespace.Command{PersistFailed: &namespace.PersistFailed{Op: keptOp(n), Error: "another version", Conflict: true, Next: epochTime.Add(time.Hour)}})
		return c.kept()[0]
	}
	if f := refuse(3); f.Conflict || !f.Next.IsZero() || f.Beneath != now.Fingerprint {
		t.Errorf("refused over what was beneath before: %+v", f)
	}
	if r := c.persistBegin(4, c.kept()[0]); r.Err != nil {
		t.Fatal(r.Err)
	}
	if f := refuse(4); !f.Conflict || f.Next.IsZero() {
		t.Errorf("refused over what is beneath: %+v", f)
	}
}
