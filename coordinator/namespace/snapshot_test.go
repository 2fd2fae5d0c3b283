package namespace_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

// busy returns a cluster with something in every table.
func busy(t tester) *cluster {
	t.Helper()
	c := newCluster(t)
	c.must(namespace.Command{BeginSub: &namespace.BeginSub{Publisher: peer, Domain: domain}})
	c.must(namespace.Command{SetMember: &namespace.Member{ID: "1", Name: "a", Raft: "127.0.0.1:1", GRPC: "127.0.0.1:2"}})
	c.must(namespace.Command{SetPolicy: &namespace.Policy{Path: "/m/d", Interval: freshet.Always, Origin: "operator", SetAt: epochTime}})
	c.listAt("/m/d", c.i, nil, fileEntry("f", 1), fileEntry("g", 2), dirEntry("e"))
	c.load("/m/d/e/x", fileEntry("x", 3))
	c.begin(1, namespace.OpWrite, "/m/d/f")
	c.complete(1, fileEntry("f", 4))
	c.begin(2, namespace.OpWrite, "/m/new")
	c.begin(3, namespace.OpRemove, "/m/d/e")
	c.complete(3, nil)
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/unknown/path", Recursive: true}})
	c.begin(4, namespace.OpWrite, "/m/zombie")
	c.must(namespace.Command{Resolve: &namespace.Resolve{Op: opID(4), At: epochTime}})
	c.listen("/live", 17)
	c.must(namespace.Command{Hint: &namespace.Hint{Domain: freshet.DomainID{17}, Source: "feed://live", Cursor: []byte("at 5"), Covers: []uint64{2}}})
	return c
}

// view is what others can see of a state.
func viewOf(t tester, s *namespace.State) map[string]any {
	t.Helper()
	v := map[string]any{
		"applied": s.Applied(), "identity": s.Identity(), "members": s.Members(), "policies": s.Policies(),
		"intents": s.Intents(), "heads": s.Heads(), "subs": s.Subscriptions(),
		"cursors": s.WatchCursors(),
	}
	v["mounts"], v["revision"] = s.Mounts()
	for _, p := range []freshet.Path{"/", "/m", "/m/d", "/m/d/f", "/m/d/e", "/m/zombie", "/m/unknown/path"} {
		l, err := s.Lookup(p)
		if err != nil {
			t.Fatalf("lookup %s: %v", p, err)
		}
		v["lookup "+string(p)] = l
		children, err := s.List(p, "", 0)
		if err != nil {
			t.Fatalf("list %s: %v", p, err)
		}
		v["list "+string(p)] = children
	}
	done, ok, err := s.OpResult(opID(1))
	v["outcome"] = []any{done, ok, err}
	records, err := s.Records(domain, 0, 0)
	v["records"] = []any{records, err}
	return v
}

func TestReopenAndRestoreKeepEverything(t *testing.T) {
	store := kv.NewMemory()
	c := busy(t)
	var b bytes.Buffer
	if at, err := c.s.Dump(&b); err != nil || at != c.i {
		t.Fatalf("dump at %d: %v", at, err)
	}
	restored := open(t, store)
	if err := restored.Restore(bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	same := func(name string, s *namespace.State) {
		want := viewOf(t, c.s)
		for what, v := range viewOf(t, s) {
			if !reflect.DeepEqual(v, want[what]) {
				t.Errorf("%s: %s is\n%+v, want\n%+v", name, what, v, want[what])
			}
		}
	}
	same("restored", restored)
	reopened := open(t, store.Crash()) // a restore is durable
	same("reopened", reopened)
	// They also go on alike.
	c.twin = reopened
	c.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: opID(4), At: epochTime}})
	c.complete(2, fileEntry("new", 1))
	for c.must(namespace.Command{Purge: &namespace.Purge{Limit: 1}}).More {
		continue
	}
	c.must(namespace.Command{ForgetOps: &namespace.ForgetOps{Index: c.i}})
	a, errA := c.s.Hash()
	z, errZ := reopened.Hash()
	if a != z || errA != nil || errZ != nil {
		t.Fatalf("the states differ: %v, %v", errA, errZ)
	}
}

func TestCrashIsRepairedByTheLog(t *testing.T) {
	store := kv.NewMemory()
	s := open(t, store)
	c := &cluster{t: t, s: s}
	c.found(mountOf("/m", "/"))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	at := c.i
	entries := [][]namespace.Command{
		{{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpWrite, Path: "/m/f", At: epochTime}}},
		{{Complete: &namespace.Complete{Op: opID(1), Entry: fileEntry("f", 1), At: epochTime}}},
	}
	replay := func(s *namespace.State) {
		for i, cmds := range entries {
			s.Apply(at+uint64(i)+1, cmds)
		}
	}
	replay(s)
	want, err := s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, store.Crash())
	if again.Applied() != at {
		t.Fatalf("at %d after the crash, want %d", again.Applied(), at)
	}
	replay(again)
	replay(again) // applied entries are skipped
	if got, err := again.Hash(); err != nil || got != want {
		t.Fatalf("the log did not repair the state: %v", err)
	}
}

func dumpOf(t tester) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := busy(t).s.Dump(&b); err != nil {
		t.Fatalf("dump: %v", err)
	}
	return b.Bytes()
}

func TestRestoreRefusesWhatIsDamaged(t *testing.T) {
	whole := dumpOf(t)
	c := newCluster(t)
	want, err := c.s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, i int, b []byte) {
		if err := c.s.Restore(bytes.NewReader(b)); !freshet.IsKind(err, freshet.KindCorrupt) {
			t.Fatalf("%s at %d: error %v", what, i, err)
		}
	}
	for i := range whole {
		try("truncated", i, whole[:i])
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		try("flipped", i, flipped)
	}
	try("longer", len(whole), append(bytes.Clone(whole), 0))
	if got, err := c.s.Hash(); err != nil || got != want {
		t.Fatalf("the state changed: %v", err)
	}
	c.want("/m", false)
	if err := c.s.Restore(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(dumpOf(f))
	f.Add([]byte("freshet-state-1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCluster(t)
		want, err := c.s.Hash()
		if err != nil {
			t.Fatal(err)
		}
		if c.s.Restore(bytes.NewReader(b)) == nil {
			return
		}
		if got, err := c.s.Hash(); err != nil || got != want {
			t.Fatalf("a dump that was refused changed the state: %v", err)
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	for _, cmds := range [][]namespace.Command{
		nil,
		{{Bootstrap: &namespace.Bootstrap{Name: "a", Epoch: 3, Mounts: []freshet.Mount{mountOf("/m", "/")}, At: epochTime}}},
		{{Begin: &namespace.Begin{Op: opID(1), Kind: namespace.OpWrite, Path: "/m/f"}}, {Purge: &namespace.Purge{Limit: 3}}},
		{{Complete: &namespace.Complete{Op: opID(1), Entry: fileEntry("f", 1), At: epochTime}}},
		{{Invalidate: &namespace.Invalidate{Batch: invalidation.Batch{After: 3, Records: []invalidation.Record{content("/f", 1)}}}}},
	} {
		b, err := namespace.EncodeBatch(cmds)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cmds, err := namespace.DecodeBatch(b)
		if err != nil {
			if !freshet.IsKind(err, freshet.KindCorrupt, freshet.KindUnsupported) {
				t.Fatalf("error %v", err)
			}
			return
		}
		// Whatever was decoded can be applied: with errors, never with a panic.
		c := newCluster(t)
		c.i++
		c.s.Apply(c.i, cmds)
		if err := c.s.Err(); err != nil {
			t.Fatal(err)
		}
		again, err := namespace.EncodeBatch(cmds)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := namespace.DecodeBatch(again); err != nil {
			t.Fatal(err)
		}
	})
}

// broken is a store whose batches can't be committed once it is told so.
type broken struct {
	kv.Store
	now bool
}

type brokenBatch struct{ kv.Batch }

var errDisk = errors.New("no space left on device")

func (b *broken) NewBatch() kv.Batch {
	if b.now {
		return brokenBatch{b.Store.NewBatch()}
	}
	return b.Store.NewBatch()
}

func (brokenBatch) Commit() error { return errDisk }

func TestFailureOfTheStoreStopsTheState(t *testing.T) {
	store := &broken{Store: kv.NewMemory()}
	s := open(t, store)
	c := &cluster{t: t, s: s}
	c.found(mountOf("/m", "/"))
	store.now = true
	r, _ := s.Apply(2, []namespace.Command{{Mark: &namespace.Mark{Path: "/m"}}})
	if !errors.Is(r[0].Err, errDisk) || !errors.Is(s.Err(), errDisk) {
		t.Fatalf("%v, %v", r[0].Err, s.Err())
	}
	if _, err := s.Lookup("/m"); err == nil {
		t.Fatal("a state that failed answers")
	}
	if _, err := s.Dump(io.Discard); err == nil {
		t.Fatal("a state that failed is dumped")
	}
	store.now = false
	again := open(t, store)
	if again.Applied() != 1 {
		t.Fatalf("applied is %d", again.Applied())
	}
}
