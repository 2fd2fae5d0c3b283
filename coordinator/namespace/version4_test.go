package namespace_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// The files of testdata/version-4 were written by the code as it was when 4 was the
// highest version, by written4, and are never written again. golden.txt begins with
// the hash that this code gave the state.
const version4 = "testdata/version-4"

// written4 is a state of version 4, with something in every table that it had.
func written4(c *cluster) {
	written(c)
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: 4}})
	for _, s := range []namespace.PolicySetting{
		setting(freshet.PropertyBlockSize, "1MiB"), setting(freshet.PropertyWriteType, "through"), setting(freshet.PropertyPinned, "true"),
		setting(freshet.PropertyReplicationMin, "2"),
	} {
		c.must(namespace.Command{ChangePolicy: &namespace.ChangePolicy{Path: "/m/four", Set: []namespace.PolicySetting{s}}})
	}
	c.must(namespace.Command{SetQuota: &namespace.SetQuota{Path: "/m/four", MaxEntries: 100, MaxBytes: 1 << 30, Origin: "operator", At: epochTime}})
	c.must(namespace.Command{StartSync: &namespace.StartSync{Op: opID(20), Path: "/m/four", Recursive: true, MaxAge: freshet.Never, At: epochTime}})
	c.listAt("/m/four", c.i, nil, fileEntry("a", 21), fileEntry("b", 22), dirEntry("d"))
	c.load("/m/four/d/x", fileEntry("x", 23))
	for i, p := range []freshet.Path{"/m/four/a", "/m/four/new", "/m/four/d/y"} {
		c.must(namespace.Command{Begin: &namespace.Begin{Op: opID(10 + i), Kind: namespace.OpWrite, Path: p, At: epochTime, Owner: "ada", Group: "staff", Node: "n1", Incarn: 3}})
	}
	c.complete(10, fileEntry("a", 24))
	c.must(namespace.Command{Permit: &namespace.Permit{Op: opID(11), Node: "n1", Incarn: 3}})
	m := mountOf("/ro", "/")
	m.URI, m.Domain = "s3://another/", freshet.DomainID{9}
	c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: m}})
	m, _ = c.s.MountAt("/ro")
	m.ReadOnly = true
	c.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m, SameStorage: true}})
}

// want4 holds a state to what the old code saw in it, and to its hash.
func want4(t *testing.T, s *namespace.State) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(version4, "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(fmt.Sprintf("hash %x\n", h)+golden(t, s, writtenDomains, 30), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("line %d differs:\n%s\nwant\n%s", i+1, strings.Join(got[min(i, len(got)):min(i+1, len(got))], ""), line)
		}
	}
	if v := s.Version(); v != 4 {
		t.Fatalf("version %d is in force", v)
	}
	if u := s.UnpersistedTotals(); u.Files != 0 {
		t.Fatalf("%+v are unpersisted", u)
	}
}

// log4 is the log that made the state, as the old code encoded it.
func log4(t *testing.T) [][]byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(version4, "log.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for line := range strings.FieldsSeq(string(raw)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func replay4(t *testing.T, s *namespace.State) uint64 {
	t.Helper()
	index := uint64(0)
	for _, b := range log4(t) {
		cmds, err := namespace.DecodeBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		index++
		for _, r := range first(s.Apply(index, cmds)) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	return index
}

// raise puts the version of this release in force and uses what came with it, in a
// state of version 4 and in a twin that was made by its log: they stay equal. It
// returns the cluster, whose first member is the twin.
func raise(t *testing.T, s *namespace.State) *cluster {
	t.Helper()
	c := &cluster{t: t, s: open(t, kv.NewMemory()), twin: s}
	c.i = replay4(t, c.s)
	wantEqualStates(t, c.s, s)
	c.must(namespace.Command{SetVersion: &namespace.SetVersion{Version: namespace.Version}})
	for i := range 3 { // new, over a version that the storage has, and one below a new directory
		c.keepFile(1+i, []freshet.Path{"/m/kept/new", "/m/kept/a", "/m/kept/deep/er/f"}[i], freshet.MustCache)
	}
	c.keepFile(4, "/m/async", freshet.AsyncThrough)
	for _, f := range c.kept() {
		if f.Path == "/m/async" {
			if r := c.persistBegin(5, f); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	c.must(namespace.Command{PersistFailed: &namespace.PersistFailed{Op: keptOp(5), Error: "no", Next: epochTime.Add(time.Hour)}})
	c.must(namespace.Command{MoveUnpersisted: &namespace.MoveUnpersisted{Op: keptOp(6), Path: "/m/kept/new", Path2: "/m/kept/newer", Start: c.s.Applied()}})
	c.must(namespace.Command{SetNodeRole: &namespace.NodeRole{ID: "n1", Name: "one", Role: freshet.RoleDraining, At: epochTime}})
	c.must(namespace.Command{SetLeases: &namespace.SetLeases{Length: 2 * time.Second}})
	c.policy("/m/four", setting(freshet.PropertyWriteType, "async_through"))
	// What the old release had begun ends.
	c.complete(12, fileEntry("y", 31))
	c.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: opID(4), At: epochTime}})
	wantEqualStates(t, c.s, s)
	return c
}

// wantRaised looks at what raise has made.
func wantRaised(t *testing.T, s *namespace.State) {
	t.Helper()
	c := &cluster{t: t, s: s}
	paths := map[freshet.Path]bool{}
	for _, f := range c.kept() {
		paths[f.Path] = true
		if l := c.look(f.Path); !l.Found || !l.Unpersisted {
			t.Errorf("%s is %+v", f.Path, l)
		}
	}
	if len(paths) != 4 || !paths["/m/kept/newer"] || !paths["/m/kept/a"] || !paths["/m/kept/deep/er/f"] || !paths["/m/async"] {
		t.Errorf("unpersisted are %v", paths)
	}
	if s.Version() != namespace.Version {
		t.Errorf("version %d is in force", s.Version())
	}
}

// TestAStoreOfVersion4IsOpened: as it is, with all that version 5 adds to it, and after
// a restart with that.
func TestAStoreOfVersion4IsOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(version4, "store"))); err != nil {
		t.Fatal(err)
	}
	var twin *namespace.State
	for _, what := range []string{"as it was", "raised", "after a restart"} {
		store, err := pebblekv.Open(dir, pebblekv.Options{CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, store)
		t.Log(what)
		switch {
		case twin != nil:
			wantEqualStates(t, twin, s)
			wantRaised(t, s)
		default:
			want4(t, s)
			if what == "raised" {
				twin = raise(t, s).s
				wantRaised(t, s)
			}
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestADumpOfVersion4IsRestored(t *testing.T) {
	t.Parallel()
	raised := raise(t, restored(t, version4, want4))
	var b bytes.Buffer
	if _, err := raised.s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	again := open(t, kv.NewMemory())
	if err := again.Restore(&b); err != nil {
		t.Fatal(err)
	}
	wantEqualStates(t, raised.s, again)
	wantRaised(t, again)
}

func TestALogOfVersion4MakesTheSameState(t *testing.T) {
	t.Parallel()
	s := open(t, kv.NewMemory())
	replay4(t, s)
	want4(t, s)
	c := newCluster(t) // the same commands, encoded by this release
	written4(c)
	want4(t, c.s)
	for i, b := range log4(t) { // and nothing in it needs more than its version
		cmds, err := namespace.DecodeBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		for j := range cmds {
			if n := namespace.Needs(&cmds[j]); n > 4 {
				t.Errorf("entry %d needs version %d", i, n)
			}
		}
	}
}
