package namespace_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// The files of testdata/format-1 were written by the code as it was before a store
// said its format, and are never written again: log.txt has the entries of a log in
// hexadecimal, store and dump the state that they made, and golden.txt what that
// code saw in it.
const format1 = "testdata/format-1"

func wantGolden(t *testing.T, s *namespace.State) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(format1, "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(golden(t, s, writtenDomains, writtenOps), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("line %d differs:\n%s\nwant\n%s", i+1, strings.Join(got[min(i, len(got)):min(i+1, len(got))], ""), line)
		}
	}
}

// goesOn holds a state that was read from an old form to one that this release made
// by the same log: they stay equal whatever comes.
func goesOn(t *testing.T, s *namespace.State) {
	t.Helper()
	fresh := &cluster{t: t, s: open(t, kv.NewMemory()), twin: s}
	fresh.i = replay(t, fresh.s)
	wantEqualStates(t, fresh.s, s)
	fresh.must(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: opID(4), At: epochTime}})
	fresh.complete(2, fileEntry("new", 1))
	fresh.load("/m/kept/empty/x", fileEntry("x", 1))
	fresh.must(namespace.Command{Purge: &namespace.Purge{}})
	wantEqualStates(t, fresh.s, s)
}

func wantEqualStates(t *testing.T, a, b *namespace.State) {
	t.Helper()
	x, errX := a.Hash()
	y, errY := b.Hash()
	if errX != nil || errY != nil || x != y {
		t.Fatalf("the states differ: %x at %d, %x at %d; %v, %v", x[:8], a.Applied(), y[:8], b.Applied(), errX, errY)
	}
}

// replay applies the old log and returns its last index.
func replay(t *testing.T, s *namespace.State) uint64 {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(format1, "log.txt"))
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	for line := range strings.FieldsSeq(string(raw)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
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

func first[A, B any](a A, _ B) A { return a }

func TestFormat1StoreIsUpgraded(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(format1, "store"))); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"first opening", "second opening"} {
		store, err := pebblekv.Open(dir, pebblekv.Options{CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, store)
		t.Log(what)
		wantGolden(t, s)
		if l, ok, err := store.Get([]byte{0}); err != nil || !ok || !bytes.Equal(l, []byte{1, namespace.Format}) {
			t.Fatalf("the store says %v of its format, %v", l, err)
		}
		if what == "second opening" {
			goesOn(t, s)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFormat1DumpIsRestored(t *testing.T) {
	t.Parallel()
	goesOn(t, restored(t, format1, wantGolden))
}

// restored restores the dump of a directory over a state that has a mount, holds it to
// want before and after a crash, and returns the latter.
func restored(t *testing.T, dir string, want func(*testing.T, *namespace.State)) *namespace.State {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "dump"))
	if err != nil {
		t.Fatal(err)
	}
	store := kv.NewMemory()
	c := &cluster{t: t, s: open(t, store)}
	c.found(mountOf("/other", "/"))
	if err := c.s.Restore(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	want(t, c.s)
	s := open(t, store.Crash())
	want(t, s)
	return s
}

func TestFormat1LogMakesTheSameState(t *testing.T) {
	t.Parallel()
	s := open(t, kv.NewMemory())
	replay(t, s)
	wantGolden(t, s)
	c := newCluster(t) // the same commands, encoded by this release
	written(c)
	wantGolden(t, c.s)
	wantEqualStates(t, s, c.s)
}

func TestNewerFormatsAreRefused(t *testing.T) {
	t.Parallel()
	store := kv.NewMemory()
	c := &cluster{t: t, s: open(t, store)}
	c.found(mountOf("/m", "/"))
	want, err := c.s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !freshet.IsKind(err, freshet.KindUnsupported) || !strings.Contains(err.Error(), "written by a newer version") {
			t.Errorf("%s: %v", what, err)
		}
	}
	var b bytes.Buffer
	if _, err := c.s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	newer := append([]byte("freshet-state-3\n"), b.Bytes()[16:]...)
	refused("dump", c.s.Restore(bytes.NewReader(newer)))
	_, err = namespace.DecodeBatch([]byte{namespace.Format + 1, 0x90})
	refused("entry", err)
	for what, cmd := range map[string]map[string]any{
		"kind of command": {"teleport": map[string]any{"p": "/m"}},
		"field":           {"mark": map[string]any{"p": "/m", "sideways": true}},
	} {
		var raw []byte
		h := &codec.MsgpackHandle{WriteExt: true}
		if err := codec.NewEncoderBytes(&raw, h).Encode([]map[string]any{cmd}); err != nil {
			t.Fatal(err)
		}
		cmds, err := namespace.DecodeBatch(append([]byte{namespace.Format}, raw...))
		refused(what, err)
		if cmds != nil {
			t.Errorf("%s: %+v was read", what, cmds)
		}
	}
	if got, err := c.s.Hash(); err != nil || got != want {
		t.Fatalf("the state changed: %v", err)
	}
	batch := store.NewBatch()
	if err := batch.Set([]byte{0}, []byte{1, namespace.Format + 1}); err != nil {
		t.Fatal(err)
	}
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
	_, err = namespace.Open(store, namespace.Options{})
	refused("store", err)
}
