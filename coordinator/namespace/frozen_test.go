package namespace_test

import (
	"bytes"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

func TestHashAsOfAnIndex(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	hashes := map[uint64][32]byte{}
	note := func() {
		h, err := c.s.Hash()
		if err != nil {
			t.Fatal(err)
		}
		hashes[c.s.Applied()] = h
	}
	note()
	got := map[uint64][]*namespace.Frozen{} // by what was asked for
	ask := func(index uint64) func() bool {
		return c.s.At(index, func(f *namespace.Frozen, err error) {
			if err != nil {
				t.Fatal(err)
			}
			got[index] = append(got[index], f)
		})
	}
	start := c.i
	for _, ahead := range []uint64{0, 1, 2, 2, 3, 5} { // 5 is in a gap, see below
		ask(start + ahead)
	}
	withdrawn := ask(start + 2)
	if !withdrawn() || withdrawn() {
		t.Error("a call that waits was withdrawn otherwise than once")
	}
	if ask(start)() {
		t.Error("a call that was answered was withdrawn")
	}
	for range 4 {
		c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/x"}})
		note()
	}
	c.i += 3 // entries that are no commands
	c.must(namespace.Command{Mark: &namespace.Mark{Path: "/m/x"}})
	want := map[uint64]uint64{start: start, start + 1: start + 1, start + 2: start + 2, start + 3: start + 3, start + 5: start + 4}
	for asked, applied := range want {
		if len(got[asked]) == 0 {
			t.Fatalf("the call for %d was not answered", asked)
		}
		for _, f := range got[asked] {
			if h, err := f.Hash(); err != nil || f.Applied != applied || h != hashes[applied] {
				t.Errorf("asked for %d: the hash of %d, %v", asked, f.Applied, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if len(got[start+2]) != 2 {
		t.Errorf("%d answers for two calls, of three, that were not withdrawn", len(got[start+2]))
	}
}

func TestInspectDump(t *testing.T) {
	t.Parallel()
	c := busy(t)
	var b bytes.Buffer
	if _, err := c.s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	info, err := namespace.InspectDump(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := c.s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	if info.Cluster != selfID || info.Name != "self" || info.Applied != c.i || info.Format != namespace.Format || info.Hash != hash ||
		info.Rows("entries") != c.s.Stats().Entries || info.Rows("mounts") != 2 || info.Rows("intents") != 2 || info.Rows("state") != 1 || info.Rows("nothing") != 0 {
		t.Errorf("%+v", info)
	}
	for i := range b.Len() {
		if _, err := namespace.InspectDump(bytes.NewReader(b.Bytes()[:i])); !freshet.IsKind(err, freshet.KindCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// TestRefoundedStateGivesNothingOutTwice restores a snapshot into a cluster that has
// gone on: mounts that it makes then have numbers that no process knows.
func TestRefoundedStateGivesNothingOutTwice(t *testing.T) {
	t.Parallel()
	live := newCluster(t)
	var b bytes.Buffer
	if _, err := live.s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	live.must(namespace.Command{SetMember: &namespace.Member{ID: "new", Raft: "r"}})
	for i := range byte(3) {
		m := live.listen("/x", 20+i)
		live.must(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: m.Path}})
	}
	last := live.listen("/y", 30)
	live.load("/m/f", fileEntry("f", 1))

	s := open(t, kv.NewMemory())
	if err := s.Restore(bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	r := live.s.Refounding(live.i+100, 5, epochTime)
	if err := s.Refound(r); err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, s: s, i: r.Index}
	if id := s.Identity(); id.Cluster != selfID || id.Epoch != 5 || s.Applied() != r.Index || len(s.Members()) != 1 || s.Members()[0].ID != "new" {
		t.Errorf("%+v at %d, members %+v", id, s.Applied(), s.Members())
	}
	if _, revision := s.Mounts(); revision != r.Index {
		t.Errorf("the mount table has revision %d", revision)
	}
	if m := c.listen("/z", 31); m.ID <= last.ID || m.Generation <= last.Generation {
		t.Errorf("a new mount has %d/%d, %d/%d was given out", m.ID, m.Generation, last.ID, last.Generation)
	}
	if head := s.Heads()[0]; head.High != 1 {
		t.Errorf("%d records", head.High)
	}
	if err := s.Refound(r); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("again at the same index: %v", err)
	}
	if err := open(t, kv.NewMemory()).Refound(r); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("an empty state: %v", err)
	}
}

// A snapshot of a cluster that listened to this one: it must not listen to itself,
// and the same number of a mount must not name two storages.
func TestRefoundedStateOfAnotherCluster(t *testing.T) {
	t.Parallel()
	theirs := busy(t) // listens to peer
	var b bytes.Buffer
	if _, err := theirs.s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	s := open(t, kv.NewMemory())
	if err := s.Restore(&b); err != nil {
		t.Fatal(err)
	}
	err := s.Refound(namespace.Refounding{Index: 1000, Cluster: peer.Cluster, Name: "peer", Epoch: 9, LastMount: 7, LastGen: 70, At: epochTime})
	if err != nil {
		t.Fatal(err)
	}
	if subs := s.Subscriptions(); len(subs) != 0 {
		t.Errorf("it listens to itself: %+v", subs)
	}
	mounts, _ := s.Mounts()
	for _, m := range mounts {
		if m.Generation <= 70 {
			t.Errorf("mount %s has generation %d, which another storage had", m.Path, m.Generation)
		}
	}
	if id := s.Identity(); id.Cluster != peer.Cluster || id.Name != "peer" || id.Epoch < 9 {
		t.Errorf("%+v", id)
	}
}

func FuzzInspectDump(f *testing.F) {
	f.Add(dumpOf(f))
	f.Add([]byte("freshet-state-2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := namespace.InspectDump(bytes.NewReader(b))
		if err != nil {
			if !freshet.IsKind(err, freshet.KindCorrupt, freshet.KindUnsupported) {
				t.Fatalf("error %v", err)
			}
			return
		}
		// What is whole for the inspection is so for the restore, but for its rows.
		s := open(t, kv.NewMemory())
		if s.Restore(bytes.NewReader(b)) == nil && info.Format == namespace.Format {
			if h, err := s.Hash(); err != nil || h != info.Hash {
				t.Fatalf("hash %x, %x was said, %v", h, info.Hash, err)
			}
		}
	})
}
