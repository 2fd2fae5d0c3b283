package state_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// hashes is what `cluster state-hash --output json` says.
type hashes struct {
	Equal   bool `json:"equal"`
	Members []struct {
		Member string `json:"member"`
		Index  uint64 `json:"index,string"`
		Hash   string `json:"hash"`
	} `json:"members"`
}

func wantEqualStates(t *testing.T, r *e2e.Region) {
	t.Helper()
	err := fleet.Poll(t.Context(), e2e.Patience, "equal states in "+r.Name, func(context.Context) error {
		ran := r.CLI(t, "cluster", "state-hash", "-o", "json")
		switch ran.Code {
		case freshet.ExitUnhealthy:
			t.Fatalf("the members of %s differ:\n%s", r.Name, ran.Out)
		case 0:
		default:
			return fmt.Errorf("exit code %d: %s", ran.Code, ran.Err)
		}
		var h hashes
		ran.JSON(t, &h)
		if !h.Equal || len(h.Members) != 3 {
			t.Fatalf("%s: %+v", r.Name, h)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRestoreLeadsToTheTruth saves A's metadata, goes on, changes the storage behind
// the back of both regions, and restores A: both read what the storage has then.
func TestRestoreLeadsToTheTruth(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{})
	content := func(version uint64) []byte { return e2e.Content("f", version, 5000) }
	e2e.Put(t, w.A, "f", content(1))
	e2e.Put(t, w.A, "same", content(9))
	e2e.Seen(t, "the first version in B", e2e.Shows(w.B, "x/f", content(1)))

	file := filepath.Join(t.TempDir(), "a.freshet")
	w.A.CLI(t, "cluster", "snapshot", "save", file).Want(t, 0, "entries", "mounts")
	w.A.CLI(t, "cluster", "snapshot", "save", file).Want(t, freshet.ExitConflict, "exists already")
	var info struct {
		Cluster string
		Index   uint64 `json:",string"`
	}
	e2e.CLI(t, "", "cluster", "snapshot", "inspect", file, "-o", "json").Want(t, 0).JSON(t, &info)
	if info.Cluster != "a" || info.Index == 0 {
		t.Fatalf("%+v", info)
	}

	e2e.Put(t, w.A, "f", content(2))
	e2e.Put(t, w.A, "new", content(3))
	e2e.Seen(t, "the second version in B", e2e.Shows(w.B, "x/f", content(2)))
	e2e.Seen(t, "the new file in B", e2e.Shows(w.B, "x/new", content(3)))
	e2e.Seen(t, "the second version in A, which caches it", e2e.Shows(w.A, "f", content(2)))
	e2e.AwaitCached(t, w.A, "f", 5000) // a block is stored when its reader has it
	e2e.AwaitCached(t, w.B, "x/f", 5000)
	if err := w.Storage.Put(t.Context(), "x/f", content(4)); err != nil {
		t.Fatal(err)
	}
	for _, shows := range []func(context.Context) error{e2e.Shows(w.A, "f", content(2)), e2e.Shows(w.B, "x/f", content(2))} {
		if err := shows(t.Context()); err != nil {
			t.Fatalf("what changed behind the back was seen without a look: %v", err)
		}
	}

	w.A.CLI(t, "cluster", "snapshot", "restore", file, "--dry-run").Want(t, 0, "replaced")
	w.B.CLI(t, "cluster", "snapshot", "restore", file).Want(t, freshet.ExitConflict, "--force")
	damaged := filepath.Join(t.TempDir(), "damaged")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if ran := w.A.CLI(t, "cluster", "snapshot", "restore", damaged); ran.Code == 0 {
		t.Error("a damaged snapshot was restored")
	}
	if err := e2e.Shows(w.A, "f", content(2))(t.Context()); err != nil {
		t.Fatalf("a dry run, or a refusal, changed something: %v", err)
	}

	w.A.CLI(t, "cluster", "snapshot", "restore", file).Want(t, 0)
	if text := w.A.CLI(t, "cluster", "status").Out; strings.Contains(text, "no cache node is live") {
		t.Errorf("the restore has ended, and the nodes are not back: %s", text)
	}
	e2e.Seen(t, "the storage's version in A", e2e.Shows(w.A, "f", content(4)))
	e2e.Seen(t, "the storage's version in B", e2e.Shows(w.B, "x/f", content(4)))
	e2e.Seen(t, "in A what was written after the snapshot", e2e.Shows(w.A, "new", content(3)))
	wantEqualStates(t, w.A)

	// A goes on: writes there reach B, also after its leader dies.
	e2e.Put(t, w.A, "f", content(5))
	e2e.Seen(t, "a write after the restore in B", e2e.Shows(w.B, "x/f", content(5)))
	leader, err := w.A.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.A.AwaitLeader(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	// The new leader can have files written when it has heard of the nodes.
	if err := errors.Join(leader.Start(), w.A.AwaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	e2e.Put(t, w.A, "f", content(6))
	e2e.Seen(t, "a write after the kill in B", e2e.Shows(w.B, "x/f", content(6)))
	wantEqualStates(t, w.A)
	w.Converged(t)
}
