package namespace_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

func content(key string, c int) invalidation.Record {
	return invalidation.Record{Kind: invalidation.KindContent, Key: key, Fingerprint: fileEntry("", c).Fingerprint}
}

func TestC1CompletionNeverInstallsOverNewerEvent(t *testing.T) {
	c, log := subscribed(t)
	c.load("/m/f", fileEntry("f", 1))
	c.begin(1, namespace.OpWrite, "/m/f")
	c.publish(log, content("/f", 2))
	if r := c.complete(1, fileEntry("f", 3)); r.Installed || r.Completed.Token.Seq != 1 {
		t.Fatalf("completion was installed over a newer event: %+v", r)
	}
	c.want("/m/f", false)
	c.load("/m/f", fileEntry("f", 2))
	c.want("/m/f", true)
}

func TestC1CompletionNeverInstallsOverNewerLoad(t *testing.T) {
	c := newCluster(t)
	c.begin(1, namespace.OpWrite, "/m/f")
	c.loadAt("/m/f", c.i, fileEntry("f", 9))
	c.load("/m/f", fileEntry("f", 9))
	if r := c.complete(1, fileEntry("f", 3)); r.Installed {
		t.Fatal("completion was installed over a load that began later")
	}
	if l := c.want("/m/f", false); l.Info.Length != 9 {
		t.Fatalf("the loaded entry was replaced: %+v", l.Info)
	}
}

func TestOverlappingWritersAreNeverServable(t *testing.T) {
	for name, second := range map[string]namespace.Begin{
		"same key":            {Kind: namespace.OpWrite, Path: "/m/d/f"},
		"removal above":       {Kind: namespace.OpRemove, Path: "/m/d", Recursive: true},
		"rename of ancestor":  {Kind: namespace.OpRename, Path: "/m/d", Path2: "/m/e"},
		"rename to the key":   {Kind: namespace.OpRename, Path: "/m/g", Path2: "/m/d/f"},
		"rename to its place": {Kind: namespace.OpRename, Path: "/m/g", Path2: "/m/d"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.begin(1, namespace.OpWrite, "/m/d/f")
			second.Op = opID(2)
			c.must(namespace.Command{Begin: &second})
			if r := c.complete(1, fileEntry("f", 1)); r.Installed {
				t.Fatal("the first was installed")
			}
			e := fileEntry("f", 2)
			if second.Kind == namespace.OpRemove {
				e = nil
			}
			if r := c.complete(2, e); r.Installed {
				t.Fatal("the second was installed")
			}
		})
	}
	c := newCluster(t)
	c.begin(1, namespace.OpWrite, "/m/d/f")
	c.begin(2, namespace.OpWrite, "/m/d/g")
	if !c.complete(1, fileEntry("f", 1)).Installed || !c.complete(2, fileEntry("g", 2)).Installed {
		t.Fatal("writers of different keys hinder each other")
	}
}

// TestC2EveryMarkRefusesLoadsInFlight runs every command that invalidates
// between the start of a load and its commit.
func TestC2EveryMarkRefusesLoadsInFlight(t *testing.T) {
	marks := map[string]func(*cluster, *peerLog){
		"complete": func(c *cluster, _ *peerLog) {
			c.begin(1, namespace.OpWrite, "/m/d/f")
			c.complete(1, fileEntry("f", 2))
		},
		"complete rename": func(c *cluster, _ *peerLog) {
			c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpRename, Path: "/m/x", Path2: "/m/d/f"}})
			c.complete(1, fileEntry("f", 2))
		},
		"complete removal above": func(c *cluster, _ *peerLog) {
			c.begin(1, namespace.OpRemove, "/m/d")
			c.complete(1, nil)
		},
		"record":       func(c *cluster, l *peerLog) { c.publish(l, content("/d/f", 2)) },
		"equal record": func(c *cluster, l *peerLog) { c.publish(l, content("/d/f", 1)) },
		"removal above": func(c *cluster, l *peerLog) {
			c.publish(l, invalidation.Record{Kind: invalidation.KindDelete, Key: "/d"})
		},
		"rename to": func(c *cluster, l *peerLog) {
			c.publish(l, invalidation.Record{Kind: invalidation.KindRename, Key: "/x", Key2: "/d", Recursive: true})
		},
		"all": func(c *cluster, l *peerLog) { c.publish(l, invalidation.Record{Kind: invalidation.KindAll, Key: "/"}) },
		"hint": func(c *cluster, _ *peerLog) {
			c.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Records: []invalidation.Record{content("/d/f", 2)}}})
		},
		"reset": func(c *cluster, l *peerLog) {
			c.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: peer, Head: l.head()}})
		},
		"forget": func(c *cluster, _ *peerLog) {
			c.must(namespace.Command{ForgetSub: &namespace.ForgetSub{Cluster: peer.Cluster}})
		},
		"operator": func(c *cluster, _ *peerLog) { c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/d/f"}}) },
		"operator above": func(c *cluster, _ *peerLog) {
			c.must(namespace.Command{Mark: &namespace.Mark{Path: "/", Recursive: true}})
		},
		"epoch":       func(c *cluster, _ *peerLog) { c.must(namespace.Command{BumpEpoch: &namespace.BumpEpoch{}}) },
		"publish all": func(c *cluster, _ *peerLog) { c.must(namespace.Command{PublishAll: &namespace.PublishAll{}}) },
		"gap": func(c *cluster, l *peerLog) {
			l.add(content("/other", 1))
			l.add(content("/d/f", 2))
			c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: l.batch(1, 2)}})
		},
		"resolve": func(c *cluster, _ *peerLog) {
			c.begin(1, namespace.OpWrite, "/m/d/f")
			c.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(1)}})
		},
		"settings": func(c *cluster, _ *peerLog) {
			m, _ := c.s.MountAt("/m")
			m.URI += "?x"
			c.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m}})
		},
		"remount": func(c *cluster, _ *peerLog) {
			c.must(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: "/m"}})
			c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: mountOf("/m", "/")}})
		},
	}
	for name, mark := range marks {
		for _, held := range []bool{true, false} {
			t.Run(name+map[bool]string{true: "/held", false: "/not held"}[held], func(t *testing.T) {
				c, log := subscribed(t)
				if held {
					c.load("/m/d", dirEntry("d"))
					c.load("/m/d/f", fileEntry("f", 1))
				}
				m, _ := c.s.MountAt("/m")
				start := c.s.Applied()
				mark(c, log)
				cmd := namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: "/m/d/f", Start: start, Entry: fileEntry("f", 1)}
				if r := c.must(namespace.Command{LoadEntry: &cmd}); r.Installed {
					t.Fatal("a load that began before the mark was installed")
				}
				list := namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: "/m/d", Start: start, ListStart: start, Complete: true, Upserts: []namespace.Entry{*fileEntry("f", 1)}}
				if r := c.must(namespace.Command{LoadListing: &list}); r.Installed || len(r.Rejected) != 1 {
					t.Fatalf("a listing that began before the mark was installed: %+v", r)
				}
			})
		}
	}
}

func TestC3EqualFingerprintKeepsOnlyWhatIsServable(t *testing.T) {
	c, log := subscribed(t)
	c.listAt("/m", c.i, nil, fileEntry("f", 1), fileEntry("g", 1))
	id := c.look("/m/f").Info.FileID
	c.publish(log, content("/f", 1))
	if l := c.want("/m/f", true); l.Info.FileID != id {
		t.Fatal("the version changed")
	}
	c.wantListing("/m", true)

	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/f"}})
	c.publish(log, content("/f", 1))
	c.want("/m/f", false) // it never clears a mark
	c.wantListing("/m", false)

	// Two records of one batch: the first is equal, the second is not.
	c.load("/m/g", fileEntry("g", 1))
	log.add(content("/g", 1))
	log.add(content("/g", 2))
	n := len(log.records)
	c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: log.batch(n-2, n)}})
	c.want("/m/g", false)

	// The same, with another path of the directory.
	c.listAt("/m", c.i, nil, fileEntry("f", 1), fileEntry("g", 2))
	log.add(content("/g", 2))
	log.add(content("/new", 1))
	n = len(log.records)
	c.must(namespace.Command{Invalidate: &namespace.Invalidate{Batch: log.batch(n-2, n)}})
	c.want("/m/g", true)
	c.wantListing("/m", false)
}

func TestC3ListingNeverInstallsAChildOverItsMark(t *testing.T) {
	c, log := subscribed(t)
	c.load("/m/f", fileEntry("f", 1))
	start := c.i
	c.publish(log, content("/f", 2))
	if r := c.listAt("/m", start, nil, fileEntry("f", 1), fileEntry("g", 1)); len(r.Rejected) != 1 || r.Rejected[0] != "f" || r.Installed {
		t.Fatalf("%+v", r)
	}
	c.want("/m/f", false)
	c.want("/m/g", true)
}

func TestC4OlderLoadNeverReplacesANewerOne(t *testing.T) {
	c := newCluster(t)
	old := c.i
	c.load("/m/other", fileEntry("other", 1))
	c.load("/m/f", fileEntry("f", 2))
	if c.loadAt("/m/f", old, fileEntry("f", 1)) {
		t.Fatal("an older load replaced a newer one")
	}
	c.load("/m/f", nil)
	if c.loadAt("/m/f", old, fileEntry("f", 1)) {
		t.Fatal("an older load brought back what a newer one did not find")
	}
	c.listAt("/m", c.i, nil, fileEntry("other", 1))
	if c.loadAt("/m/never", old, fileEntry("never", 1)) {
		t.Fatal("an older load installed what a newer listing did not find")
	}
}

func TestC4RecursiveMarkNeedsNoWalk(t *testing.T) {
	c := newCluster(t)
	c.listAt("/m/d/e", c.i, nil, fileEntry("f", 1), fileEntry("g", 1))
	c.want("/m/d/e/f", true)
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m", Recursive: true}})
	c.want("/m/d/e/f", false)
	c.wantListing("/m/d/e", false)
	if n := len(c.last.Freed); n != 0 {
		t.Fatalf("a mark freed %d files", n)
	}
}

func TestC5LoadOfAnotherGenerationIsRefused(t *testing.T) {
	c := newCluster(t)
	m, _ := c.s.MountAt("/m")
	m.URI = "s3://b/?region=z"
	c.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m}})
	r := c.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: "/m/f", Start: c.i, Entry: fileEntry("f", 1)}})
	if r.Installed {
		t.Fatal("a load of the old storage was installed")
	}
}

func TestC5RenameMarksWhatIsBelow(t *testing.T) {
	c := newCluster(t)
	c.load("/m/d", dirEntry("d"))
	c.load("/m/d/f", fileEntry("f", 1))
	id := c.look("/m/d/f").Info.FileID
	c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpRename, Path: "/m/d", Path2: "/m/e", Recursive: true}})
	start := c.i
	if r := c.complete(1, dirEntry("e")); !r.Installed {
		t.Fatalf("%+v", r)
	}
	c.want("/m/e", true)
	l := c.want("/m/e/f", false)
	if l.Info.FileID != id || c.look("/m/d/f").Found {
		t.Fatalf("the child did not move with its version: %+v", l.Info)
	}
	if c.loadAt("/m/d/f", start, fileEntry("f", 1)) || c.loadAt("/m/e/g", start, fileEntry("g", 1)) {
		t.Fatal("a load below a renamed directory was installed")
	}
	c.load("/m/e/f", fileEntry("f", 1))
	if l := c.want("/m/e/f", true); l.Info.FileID != id {
		t.Fatal("an equal fingerprint lost the version")
	}
}

func TestC6ChangeBelowUnknownDirectoriesMarksTheirListings(t *testing.T) {
	c, log := subscribed(t)
	c.listAt("/m", c.i, nil, fileEntry("x", 1))
	c.wantListing("/m", true)
	if l := c.look("/m/d"); !l.KnownAbsent || !l.Absent.Servable(0) {
		t.Fatalf("%+v", l)
	}
	c.publish(log, content("/d/e/f", 1)) // the publisher knew the directories
	c.wantListing("/m", false)
	if l := c.look("/m/d"); l.KnownAbsent && l.Absent.Servable(0) {
		t.Fatal("d is still known to be absent")
	}
	c.want("/m/x", true)
}

func TestC6StructuralDirectoriesAreDoubted(t *testing.T) {
	c, log := subscribed(t)
	c.load("/m/d/e/f", fileEntry("f", 1)) // d and e are held for f's sake only
	start := c.i
	c.publish(log, content("/d/e/g", 1))
	if c.loadAt("/m/d", start, nil) || c.loadAt("/m/d/e", start, nil) {
		t.Fatal("a load from before the change removed a directory that it may have made")
	}
}

func TestC6FileInTheWayIsDoubted(t *testing.T) {
	c, log := subscribed(t)
	c.listAt("/m", c.i, nil, fileEntry("d", 1))
	c.publish(log, content("/d/f", 1)) // d has become a directory
	c.want("/m/d", false)
	c.wantListing("/m", false)
}

func TestC7OneRecordMarksEveryMountItConcerns(t *testing.T) {
	c := &cluster{t: t, s: open(t, newMemory())}
	c.found(mountOf("/m", "/a"), mountOf("/n", "/b"))
	c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}})
	log := &peerLog{who: peer}
	c.load("/m/f", fileEntry("f", 1))
	c.load("/n/g", fileEntry("g", 1))
	c.load("/n/h", fileEntry("h", 1))
	c.publish(log, invalidation.Record{Kind: invalidation.KindRename, Key: "/a/f", Key2: "/b/g"})
	c.want("/m/f", false)
	c.want("/n/g", false)
	c.want("/n/h", true)
}

func TestC8SyncNeverRemovesMountPointsOrUnfinishedFiles(t *testing.T) {
	c := newCluster(t)
	nested := mountOf("/m/a/b", "/")
	nested.Domain = freshet.DomainID{8}
	c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: nested}})
	in := c.begin(1, namespace.OpWrite, "/m/new")
	if c.look("/m/new").Found || c.look("/m/new").PendingWriters != 1 {
		t.Fatal("a file being written is visible, or its writer is not")
	}
	c.listAt("/m", c.i, []string{"a", "new"}, fileEntry("x", 1))
	c.listAt("/m/a", c.i, []string{"b"})
	for _, p := range []freshet.Path{"/m/a", "/m/a/b"} {
		if l := c.look(p); !l.Found || l.Info.Type != freshet.TypeDirectory {
			t.Fatalf("%s is gone: %+v", p, l)
		}
	}
	children, err := c.s.List("/m/a", "", 0)
	if err != nil || len(children) != 1 || !children[0].Info.MountPoint {
		t.Fatalf("%+v, %v", children, err)
	}
	c.complete(1, fileEntry("new", 5))
	if l := c.look("/m/new"); !l.Found || l.Info.FileID != in.File {
		t.Fatalf("the finished file is not there: %+v", l)
	}
}

func TestC9MetadataChangeKeepsTheVersion(t *testing.T) {
	c, log := subscribed(t)
	e := fileEntry("f", 1)
	e.Mode, e.Fingerprint.Meta = 0o644, "u,g,644"
	c.load("/m/f", e)
	id := c.look("/m/f").Info.FileID
	changed := *e
	changed.Mode, changed.Fingerprint.Meta = 0o600, "u,g,600"
	c.publish(log, invalidation.Record{Kind: invalidation.KindMeta, Key: "/f", Fingerprint: changed.Fingerprint})
	if len(c.last.Freed) != 0 {
		t.Fatal("a change of the mode freed blocks")
	}
	c.want("/m/f", false)
	c.load("/m/f", &changed)
	if l := c.want("/m/f", true); l.Info.FileID != id || l.Info.Mode != 0o600 {
		t.Fatalf("%+v", l.Info)
	}
	c.publish(log, invalidation.Record{Kind: invalidation.KindMeta, Key: "/f", Fingerprint: changed.Fingerprint})
	c.want("/m/f", true)
}

func TestC10BlocksSurviveAReset(t *testing.T) {
	c, log := subscribed(t)
	c.load("/m/f", fileEntry("f", 1))
	id := c.look("/m/f").Info.FileID
	c.must(namespace.Command{ResetSub: &namespace.ResetSub{Publisher: peer, Head: log.head()}})
	c.want("/m/f", false)
	if !c.s.FileLive([]freshet.FileID{id})[0] {
		t.Fatal("a reset freed the blocks")
	}
	c.load("/m/f", fileEntry("f", 1))
	if c.want("/m/f", true).Info.FileID != id {
		t.Fatal("unchanged content got a new version")
	}
	// A record that names another version frees them at once.
	c.publish(log, content("/f", 2))
	if len(c.last.Freed) != 1 || c.last.Freed[0] != id || c.s.FileLive([]freshet.FileID{id})[0] {
		t.Fatalf("freed %v, want %d", c.last.Freed, id)
	}
	if l := c.want("/m/f", false); l.Info.FileID != 0 {
		t.Fatalf("%+v", l.Info)
	}
	c.load("/m/f", fileEntry("f", 2))
	second := c.want("/m/f", true).Info.FileID
	if second == id || second == 0 {
		t.Fatal("a new content kept the version")
	}
	c.publish(log, invalidation.Record{Kind: invalidation.KindDelete, Key: "/f"})
	if len(c.last.Freed) != 1 || c.last.Freed[0] != second {
		t.Fatalf("freed %v, want %d", c.last.Freed, second)
	}
}

func TestC11PagesCommitEntryByEntry(t *testing.T) {
	c, log := subscribed(t)
	m, _ := c.s.MountAt("/m")
	first := c.i
	page := func(start uint64, complete bool, entries ...namespace.Entry) namespace.Result {
		return c.must(namespace.Command{LoadListing: &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: "/m", Start: start, ListStart: first, Complete: complete, Upserts: entries}})
	}
	page(first, false, *fileEntry("a", 1))
	c.wantListing("/m", false)
	second := c.i
	c.publish(log, content("/b", 2))
	if r := page(second, true, *fileEntry("b", 1), *fileEntry("c", 1)); r.Installed || len(r.Rejected) != 1 {
		t.Fatalf("%+v", r)
	}
	c.want("/m/a", true)
	c.want("/m/c", true)
	if c.look("/m/b").Found {
		t.Fatal("b is held")
	}
	c.wantListing("/m", false)
	first = c.i
	if r := page(first, true, *fileEntry("b", 2)); !r.Installed {
		t.Fatalf("%+v", r)
	}
	c.wantListing("/m", true)
}

// A listing that special entries were left out of proves no absence, however the
// entry was found; one without them does again.
func TestSpecialEntriesAreNotAbsent(t *testing.T) {
	c := newCluster(t)
	m, _ := c.s.MountAt("/m")
	list := func(special bool) {
		t.Helper()
		cmd := &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: "/m", Start: c.i, ListStart: c.i, Complete: true, Special: special}
		cmd.Upserts = []namespace.Entry{*fileEntry("f", 1), *fileEntry("g", 1)}
		if r := c.must(namespace.Command{LoadListing: cmd}); !r.Installed {
			t.Fatalf("%+v", r)
		}
		c.wantListing("/m", true)
	}
	find := func(p freshet.Path) {
		t.Helper()
		if r := c.must(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: p, Start: c.i, Special: true}}); !r.Installed {
			t.Fatalf("%+v", r)
		}
	}
	wantAbsent := func(p freshet.Path, want bool) {
		t.Helper()
		if l := c.look(p); l.Found || l.KnownAbsent != want {
			t.Fatalf("%s is found: %v, known as absent: %v, want %v", p, l.Found, l.KnownAbsent, want)
		}
	}
	list(false)
	wantAbsent("/m/pipe", true)
	list(true)
	wantAbsent("/m/pipe", false)
	wantAbsent("/m/out/below", false)
	list(false)
	wantAbsent("/m/pipe", true)
	find("/m/f") // a file that was replaced
	wantAbsent("/m/f", false)
	c.wantListing("/m", true)
	c.want("/m/g", true)
	list(false)
	find("/m/pipe") // one that came since the listing
	wantAbsent("/m/pipe", false)
}

func TestC1RemovalNeverHidesWhatAppearedBelow(t *testing.T) {
	c, log := subscribed(t)
	c.listAt("/m", c.i, nil, dirEntry("d"))
	c.begin(1, namespace.OpRemove, "/m/d")
	c.publish(log, content("/d/new", 1)) // after the removal, on a flat storage
	if r := c.complete(1, nil); r.Installed {
		t.Fatal("the removal was installed over a newer event below")
	}
	if l := c.look("/m/d"); l.KnownAbsent && l.Absent.Servable(0) {
		t.Fatalf("d is served as absent: %+v", l)
	}
	c.wantListing("/m", false)
}

func TestC1RenameNeverInstallsOverNewerEventAtItsTarget(t *testing.T) {
	c, log := subscribed(t)
	c.listAt("/m", c.i, nil, fileEntry("a", 1), fileEntry("b", 2))
	c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpRename, Path: "/m/a", Path2: "/m/b"}})
	c.publish(log, content("/b", 3))
	if r := c.complete(1, fileEntry("b", 1)); r.Installed {
		t.Fatal("the rename was installed")
	}
	c.want("/m/a", false)
	c.want("/m/b", false)
	c.wantListing("/m", false)
}
