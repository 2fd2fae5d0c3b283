package unpersisted_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// filesIn returns the files of a node's cache directory, in or below a directory of it.
func filesIn(t *testing.T, p *fleet.Process, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(filepath.Dir(p.Config), "blocks", dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// blockWith returns the file of the block in which the node keeps these bytes, and where
// in it they are; "" if it does not.
func blockWith(t *testing.T, p *fleet.Process, has []byte) (path string, at int) {
	t.Helper()
	for _, path := range filesIn(t, p, "blocks") {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the node may move it away
			t.Fatal(err)
		}
		if at := bytes.Index(b, has); at >= 0 {
			return path, at
		}
	}
	return "", -1
}

// flip changes one byte in the middle of these, where the node keeps them.
func flip(t *testing.T, p *fleet.Process, has []byte) {
	t.Helper()
	path, at := blockWith(t, p, has)
	if path == "" {
		t.Fatalf("%s does not have the bytes", p.Name)
	}
	at += len(has) / 2
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{has[len(has)/2] ^ 1}, int64(at))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTheOnlyCopyIsDamaged: no wrong byte is read, and everybody says that the file is
// damaged and what to do, rather than to bring back a node that is there.
func TestTheOnlyCopyIsDamaged(t *testing.T) {
	w, _ := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	r := w.A
	data := e2e.Content("f", 1, 3*block+1000)
	keepOn(t, r, "f", data, freshet.MustCache, 1)
	flip(t, r.Nodes[0], data[block+5000:block+5100])

	first := r.CLI(t, "fs", "cat", string(r.At("f")))
	if first.Code == 0 || len(first.Out) > block || !strings.HasPrefix(string(data), first.Out) || !strings.Contains(first.Err, "damage") {
		t.Errorf("the read that met the damage: exit code %d, %d bytes: %s", first.Code, len(first.Out), first.Err)
	}
	status := e2e.Ran{}
	e2e.Seen(t, "the status tells of the damage", func(context.Context) error {
		if status = r.CLI(t, "cluster", "status"); status.Code != freshet.ExitUnhealthy || !strings.Contains(status.Out, "damage") {
			return fmt.Errorf("exit code %d: %s%s", status.Code, status.Out, status.Err)
		}
		return nil
	})
	status.Want(t, freshet.ExitUnhealthy, "damaged bytes, 1 of them", "n1", "fs rm", "quarantine")
	explained := r.CLI(t, "explain", string(r.At("f"))).Want(t, 0, "lost", "damaged on n1", "fs rm "+string(r.At("f")), "quarantine")
	read := r.CLI(t, "fs", "cat", string(r.At("f")))
	if read.Want(t, freshet.ExitUnavailable, "damaged on n1", "quarantine"); !strings.HasPrefix(string(data), read.Out) {
		t.Error("wrong bytes were read")
	}
	e2e.Seen(t, "the log tells of the damage", func(context.Context) error {
		log := r.Coordinators[0].Tail(100)
		if !strings.Contains(log, "damaged_on=[n1]") || strings.Contains(log, "comes back") {
			return errors.New(log)
		}
		return nil
	})
	persisted := r.CLI(t, "persist", "--wait", string(r.At("f"))).Want(t, freshet.ExitPartly, "lost")
	for _, ran := range []e2e.Ran{first, status, explained, read, persisted} {
		if strings.Contains(ran.Out+ran.Err, "bring back") {
			t.Errorf("the node is there: %s%s", ran.Out, ran.Err)
		}
	}
	if aside := filesIn(t, r.Nodes[0], "quarantine"); len(aside) != 1 {
		t.Errorf("%q are in quarantine, not the one block", aside)
	}

	again := e2e.Content("f", 2, 2*block)
	keepOn(t, r, "f", again, freshet.MustCache, 1)
	e2e.Seen(t, "what is written again is read", e2e.Shows(r, "f", again))
	r.CLI(t, "persist", "--wait", string(r.At("f"))).Want(t, 0)
	e2e.Seen(t, "the cluster is well", func(context.Context) error {
		if ran := r.CLI(t, "cluster", "status"); ran.Code != 0 {
			return fmt.Errorf("exit code %d: %s%s", ran.Code, ran.Out, ran.Err)
		}
		return nil
	})
}

// TestOneOfTwoCopiesIsDamaged: the file is read, and persisted, from the other one.
func TestOneOfTwoCopiesIsDamaged(t *testing.T) {
	w, dir := world(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 2})
	r := w.A
	data := e2e.Content("f", 1, 3*block+1000)
	keepOn(t, r, "f", data, freshet.MustCache, 2)
	s := copies(t, r)
	if len(s.Files) != 1 || len(s.Files[0].Nodes) != 2 {
		t.Fatalf("after the acknowledgement: %+v", s)
	}
	loc, err := r.S.Files.Locate(t.Context(), freshet.LocateQuery{Path: r.At("f"), Length: int64(len(data))})
	if err != nil {
		t.Fatal(err)
	}
	bad := nodeOf(t, r, loc.Blocks[1].Nodes[0].Name) // whom readers ask first
	some := data[block+5000 : block+5100]
	flip(t, bad, some)
	for range 20 { // at once, without a try that fails
		if err := e2e.Shows(r, "f", data)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if aside := filesIn(t, bad, "quarantine"); len(aside) != 1 {
		t.Errorf("%q are in quarantine: the damage was not met", aside)
	}
	e2e.Seen(t, "the damaged copy is made anew", func(context.Context) error {
		s := copies(t, r)
		if s.Lost > 0 {
			t.Errorf("told as lost: %+v", s)
		}
		if path, _ := blockWith(t, bad, some); path == "" || len(s.Files) != 1 || s.Files[0].LiveReplicas != 2 {
			return fmt.Errorf("the block is in %q: %+v", path, s)
		}
		return nil
	})
	r.CLI(t, "persist", "--wait", string(r.At("f"))).Want(t, 0)
	if err := inStorage(dir, "f", data)(t.Context()); err != nil {
		t.Error(err)
	}
	e2e.Seen(t, "the file is read once it is in the storage", e2e.Shows(r, "f", data))
}
