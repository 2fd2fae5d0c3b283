package unpersisted_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
)

// keep writes a file that stays on a node.
func keep(t *testing.T, r *e2e.Region, name string, data []byte, w freshet.WriteType) freshet.Completed {
	t.Helper()
	return keepWith(t, r, name, data, client.WriteOptions{Write: w})
}

func keepWith(t *testing.T, r *e2e.Region, name string, data []byte, opts client.WriteOptions) freshet.Completed {
	t.Helper()
	opts.Length = int64(len(data))
	done, err := r.S.Files.Write(t.Context(), r.At(name), bytes.NewReader(data), opts)
	if err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
	return done
}

// inStorage is nil if the storage holds these very bytes.
func inStorage(dir, name string, want []byte) func(context.Context) error {
	return func(context.Context) error {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("the storage holds %d other bytes at %s", len(got), name)
		}
		return err
	}
}

func notInStorage(t *testing.T, dir, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
		t.Errorf("%s is in the storage: %v", name, err)
	}
}

type status struct {
	Count, Queued, Failed, Conflicts, Lost int `json:",string"`
	Files                                  []struct{ Path, State, Error string }
}

func pending(t *testing.T, r *e2e.Region) status {
	t.Helper()
	var s status
	r.CLI(t, "persist", "status", "-o", "json").Want(t, 0).JSON(t, &s)
	return s
}

// drained is nil when everything is in the storage. Who is asked may not have a leader
// at the moment.
func drained(t *testing.T, r *e2e.Region) func(context.Context) error {
	return func(context.Context) error {
		ran := r.CLI(t, "persist", "status", "-o", "json")
		if ran.Code != 0 {
			return fmt.Errorf("exit code %d: %s", ran.Code, ran.Err)
		}
		var s status
		if ran.JSON(t, &s); s.Count > 0 {
			return fmt.Errorf("not in the storage: %+v", s)
		}
		return nil
	}
}

func world(t *testing.T, opts e2e.Options) (*e2e.World, string) {
	dir := ""
	mount := opts.Mount
	opts.Mount = func(region string, m *config.Mount) {
		dir = m.UFS[len("file://"):]
		if mount != nil {
			mount(region, m)
		}
	}
	w := e2e.NewDirWorld(t, opts)
	return w, dir
}

// TestMustCache: a file is visible and complete, survives the death of its node, and is
// in the storage only once somebody wants that.
func TestMustCache(t *testing.T) {
	w, dir := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	r := w.A
	one, two := e2e.Content("new/one", 1, 300_000), e2e.Content("two", 1, 70_000)
	keep(t, r, "new/one", one, freshet.MustCache)
	e2e.Put(t, r, "two", two)
	over := e2e.Content("two", 2, 90_000)
	keep(t, r, "two", over, freshet.MustCache)
	keep(t, r, "empty", nil, freshet.MustCache)
	e2e.Seen(t, "the new version is read", e2e.Shows(r, "two", over))
	e2e.Seen(t, "a new file is read", e2e.Shows(r, "new/one", one))
	notInStorage(t, dir, "new/one")
	if err := inStorage(dir, "two", two)(t.Context()); err != nil {
		t.Error(err)
	}

	// A look at the storage, which has neither, changes nothing.
	r.CLI(t, "sync", "now", string(r.Root), "--recursive").Want(t, 0)
	r.CLI(t, "fs", "ls", string(r.At("new")), "--sync-interval", "always").Want(t, 0, "one")
	e2e.Seen(t, "a new file is read after a sync", e2e.Shows(r, "new/one", one))

	n := r.Nodes[0]
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	e2e.Seen(t, "the loss is told", func(context.Context) error {
		if s := pending(t, r); s.Lost != 2 && s.Lost != 3 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	r.CLI(t, "cluster", "status").Want(t, freshet.ExitUnhealthy, "neither in the storage nor on a live cache node", "n1")
	r.CLI(t, "fs", "cat", string(r.At("new/one"))).Want(t, freshet.ExitUnavailable, "not in the storage", "n1")
	r.CLI(t, "explain", string(r.At("new/one"))).Want(t, 0, "not in the storage", "lost", "not in the storage yet, last invalidated")
	r.CLI(t, "cluster", "decommission", "n1").Want(t, freshet.ExitConflict, "3 files", "not in the storage")
	r.CLI(t, "cluster", "decommission", "n1", "--force", "--dry-run").Want(t, 0, "3 files", "not in the storage", "--undo")
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	e2e.Seen(t, "the file is back with its node", e2e.Shows(r, "new/one", one))
	e2e.Seen(t, "the overwritten file is back with its node", e2e.Shows(r, "two", over))

	late := e2e.Content("late", 1, 50_000)
	keep(t, r, "late", late, freshet.MustCache)
	if s := pending(t, r); s.Lost > 0 { // though the node has not reported it yet
		t.Errorf("what was just written passes for lost: %+v", s)
	}
	r.CLI(t, "persist", "--wait", string(r.At("late"))).Want(t, 0)
	if err := inStorage(dir, "late", late)(t.Context()); err != nil {
		t.Error(err)
	}

	r.CLI(t, "fs", "mv", string(r.At("new/one")), string(r.At("new/uno"))).Want(t, 0)
	r.CLI(t, "fs", "mv", string(r.At("new")), string(r.At("old"))).Want(t, 0)
	r.CLI(t, "fs", "rm", string(r.At("empty"))).Want(t, 0)
	r.CLI(t, "persist", "--recursive", "--wait", string(r.Root)).Want(t, 0)
	for name, want := range map[string][]byte{"old/uno": one, "two": over} {
		if err := inStorage(dir, name, want)(t.Context()); err != nil {
			t.Error(err)
		}
		e2e.Seen(t, name+" is read once it is in the storage", e2e.Shows(r, name, want))
	}
	for _, name := range []string{"new/one", "new/uno", "old/one", "empty"} {
		notInStorage(t, dir, name)
	}
}

// TestAsyncThrough: files get to the storage by themselves, whoever dies, under the
// name that they have by then; and the other region sees them then.
func TestAsyncThrough(t *testing.T) {
	w, dir := world(t, e2e.Options{})
	r := w.A
	wants := map[string][]byte{}
	for i := range 12 {
		name := fmt.Sprintf("d/f%02d", i)
		wants[name] = e2e.Content(name, 1, 150_000+i)
		keep(t, r, name, wants[name], freshet.AsyncThrough)
		if i == 4 {
			leader, err := r.Leader(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := leader.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := r.AwaitLeader(t.Context(), leader); err != nil {
				t.Fatal(err)
			}
			if err := leader.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range r.Nodes {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	e2e.Seen(t, "everything gets to the storage", drained(t, r))
	for name, want := range wants {
		if err := inStorage(dir, name, want)(t.Context()); err != nil {
			t.Error(err)
		}
		e2e.Seen(t, "the other region has "+name, e2e.Shows(w.B, name, want))
	}
}

// TestAConflictIsTold: what somebody else has put into the storage is not replaced.
func TestAConflictIsTold(t *testing.T) {
	w, dir := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	r := w.A
	ours, theirs := e2e.Content("f", 1, 50_000), e2e.Content("f", 2, 60_000)
	keep(t, r, "f", ours, freshet.MustCache)
	if err := os.WriteFile(filepath.Join(dir, "f"), theirs, 0o644); err != nil {
		t.Fatal(err)
	}
	r.CLI(t, "persist", "--wait", string(r.At("f"))).Want(t, freshet.ExitPartly, "conflict")
	if err := inStorage(dir, "f", theirs)(t.Context()); err != nil {
		t.Error(err)
	}
	e2e.Seen(t, "ours is kept", e2e.Shows(r, "f", ours))
	r.CLI(t, "explain", string(r.At("f"))).Want(t, 0, "--overwrite")
	r.CLI(t, "persist", "--overwrite", "--wait", string(r.At("f"))).Want(t, 0)
	if err := inStorage(dir, "f", ours)(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestStorageAway: while the storage can't be written, files are acknowledged and wait;
// a full cache makes writers fail with a reason, and nothing is dropped.
func TestStorageAway(t *testing.T) {
	tiers := t.TempDir()
	w, dir := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: func(int) []config.Tier {
		return []config.Tier{{Kind: "disk", Path: filepath.Join(tiers, "cache"), Size: "8MiB"}}
	}})
	r := w.A
	kept := map[string][]byte{"d/f": e2e.Content("d/f", 1, 40_000)}
	const size = 1_250_000
	for i := range 6 { // and there is no room for a seventh
		name := fmt.Sprintf("d/more%d", i)
		kept[name] = e2e.Content(name, 1, size)
	}
	for name, data := range kept {
		keep(t, r, name, data, freshet.MustCache)
	}
	// A writer waits for room that may come. Now the leader knows that there is none.
	e2e.Seen(t, "the leader has counted the files", func(context.Context) error {
		told := fmt.Sprintf("freshet_unpersisted_bytes %g\n", float64(6*size+len(kept["d/f"])))
		if body := e2e.HTTP(t, "GET", "http://"+r.HTTP[0]+"/metrics", "").Body; !strings.Contains(body, told) {
			return fmt.Errorf("no %q among %d bytes of metrics", told, len(body))
		}
		return nil
	})
	// A file in the place of the directory, since permissions don't stop the superuser.
	if err := os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "d"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.CLI(t, "persist", string(r.At("d/f"))).Want(t, 0)
	fails := func(n int) func(context.Context) error {
		return func(context.Context) error {
			if s := pending(t, r); s.Failed+s.Conflicts != n || s.Count != len(kept) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		}
	}
	e2e.Seen(t, "the failure is told", fails(1))

	e2e.Seen(t, "a file for which there is no room is refused", func(ctx context.Context) error {
		_, err := r.S.Files.Write(ctx, r.At("d/refused"), bytes.NewReader(make([]byte, size)), client.WriteOptions{Length: size, Write: freshet.MustCache})
		switch {
		case err == nil || !strings.Contains(err.Error(), "nothing was written"):
			t.Fatalf("a file for which there is no room: %v", err)
		case freshet.IsKind(err, freshet.KindUnavailable) && strings.Contains(err.Error(), "not heard from all cache nodes"):
			return err // the leader has just begun
		case !freshet.IsKind(err, freshet.KindExhausted) || !strings.Contains(err.Error(), "persist status"):
			t.Fatalf("a file for which there is no room: %v", err)
		}
		return nil
	})
	if err := e2e.Lacks(r, "d/refused")(t.Context()); err != nil {
		t.Errorf("it was refused: %v", err)
	}
	for range 2 { // what is only cached finds no room either, and takes none from what is kept
		through := e2e.Content("through", 1, 3<<20)
		e2e.Put(t, r, "through", through)
		e2e.Seen(t, "what is in the storage is read past the cache", e2e.Shows(r, "through", through))
	}
	for name, want := range kept {
		e2e.Seen(t, name+" is read from the full cache", e2e.Shows(r, name, want))
	}
	r.CLI(t, "persist", "--recursive", string(r.At("d"))).Want(t, 0)
	e2e.Seen(t, "all failures are told", fails(len(kept)))

	if err := os.Remove(filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	e2e.Seen(t, "it gets to the storage when that works again", drained(t, r))
	for name, want := range kept {
		if err := inStorage(dir, name, want)(t.Context()); err != nil {
			t.Error(err)
		}
	}
	last := e2e.Content("d/last", 1, 1<<20)
	e2e.Seen(t, "there is room again", func(ctx context.Context) error {
		_, err := r.S.Files.Write(ctx, r.At("d/last"), bytes.NewReader(last), client.WriteOptions{Length: int64(len(last)), Write: freshet.MustCache})
		return err
	})
}
