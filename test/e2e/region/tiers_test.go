package region_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestTiersOnADiskThatRunsFullAndFails: a node with memory and a small disk, on which
// somebody else takes all space, and which can't be written at last. Reads and writes of
// files go on, and operators see what is wrong.
func TestTiersOnADiskThatRunsFullAndFails(t *testing.T) {
	disk, lake := t.TempDir(), t.TempDir()
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=16m"); err != nil {
		child.Lacks(t, "the right to mount", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := e2e.NewBareWorld(t, e2e.Dir(lake), nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: func(int) []config.Tier {
		return []config.Tier{{Kind: "memory", Size: "4MiB"}, {Kind: "ssd", Path: filepath.Join(disk, "cache"), Size: "64MiB"}}
	}})
	w.A.Mount(t, "/lake", "file://"+lake, nil)
	w.A.CLI(t, "policy", "set", "/lake", "--block-size", "64KiB").Want(t, 0)
	const size = 1 << 20
	files := map[string][]byte{}
	write := func(name string) {
		t.Helper()
		files[name] = e2e.Content(name, 1, size)
		mustWrite(t, w.A, name, files[name])
	}
	readAll := func(when string) {
		t.Helper()
		for name, content := range files {
			got, _, err := w.A.Read(t.Context(), name, client.Whole())
			if err != nil || string(got) != string(content) {
				t.Errorf("%s: %s: %d bytes, %v", when, name, len(got), err)
			}
		}
	}
	for i := range 12 {
		write(fmt.Sprintf("f%d", i))
	}
	readAll("with space")
	state := func(want string) {
		t.Helper()
		if err := fleet.Poll(t.Context(), e2e.Patience, "the disk to be "+want, func(ctx context.Context) error {
			nodes, err := w.A.S.Nodes(ctx)
			if err != nil {
				return err
			}
			if len(nodes) != 1 || len(nodes[0].Directories) != 2 || nodes[0].Directories[1].State != want || nodes[0].Directories[0].State != "serving" {
				return fmt.Errorf("%+v", nodes)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	state("serving")

	other := filepath.Join(disk, "other")
	if err := os.WriteFile(other, make([]byte, 32<<20), 0o600); err == nil {
		t.Fatal("32 MiB on a disk of 16")
	}
	for i := range 12 { // what is written pushes blocks from memory to the disk
		write(fmt.Sprintf("g%d", i))
		if i%4 == 3 { // and what it gives way is taken
			_ = os.WriteFile(other, make([]byte, 32<<20), 0o600) //nolint:errcheck // it is meant to fail
		}
	}
	readAll("without space")

	where := filepath.Join(disk, "cache", "tmp") // where new blocks are written
	if err := syscall.Mount("none", where, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		write(fmt.Sprintf("h%d", i))
	}
	state("failed")
	readAll("without the disk")
	w.A.CLI(t, "cluster", "nodes").Want(t, 0, "DIRECTORY", "failed", filepath.Join(disk, "cache"))

	if err := errors.Join(syscall.Unmount(where, 0), os.Remove(other)); err != nil {
		t.Fatal(err)
	}
	state("serving")
	readAll("with the disk again")
}

// TestANodeLeaves while files are read and written: drained, decommissioned, refused,
// and taken back.
func TestANodeLeaves(t *testing.T) {
	lake := t.TempDir()
	w := e2e.NewBareWorld(t, e2e.Dir(lake), nil, e2e.Options{Lone: true, Coordinators: 3, Nodes: 2})
	w.A.Mount(t, "/lake", "file://"+lake, nil)
	w.A.CLI(t, "policy", "set", "/lake", "--pinned").Want(t, 0)
	for i := range 6 {
		mustWrite(t, w.A, fmt.Sprint("f", i), e2e.Content(fmt.Sprint("f", i), 1, 100_000))
	}
	w.A.CLI(t, "cluster", "drain", "n1", "--dry-run").Want(t, 0, "would be")
	err := fleet.Poll(t.Context(), e2e.Patience, "the leader to have heard all nodes", func(context.Context) error {
		ran := w.A.CLI(t, "cluster", "drain", "nobody")
		if ran.Code == freshet.ExitUnavailable {
			return errors.New(ran.Err)
		}
		ran.Want(t, 3)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "cluster", "decommission", "n1").Want(t, 4, "drain it first")
	w.A.CLI(t, "cluster", "drain", "n1", "--wait", "--timeout", "60s").Want(t, 0, "drained")
	w.A.CLI(t, "cluster", "drain", "n2").Want(t, 4, "no other cache node")
	for i := range 6 {
		mustWrite(t, w.A, fmt.Sprint("g", i), e2e.Content(fmt.Sprint("g", i), 1, 100_000))
		x, err := w.A.S.Explain(t.Context(), w.A.At(fmt.Sprint("f", i)), false)
		if err != nil || len(x.Blocks) != 1 {
			t.Errorf("f%d: %+v, %v", i, x.Blocks, err)
		}
	}
	w.A.CLI(t, "cluster", "decommission", "n1").Want(t, 0, "decommissioned")
	for i := range 6 {
		for _, name := range []string{fmt.Sprint("f", i), fmt.Sprint("g", i)} {
			got, _, err := w.A.Read(t.Context(), name, client.Whole())
			if err != nil || string(got) != string(e2e.Content(name, 1, 100_000)) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
	w.A.CLI(t, "cluster", "nodes").Want(t, 0, "decommissioned")
	w.A.CLI(t, "cluster", "drain", "n1", "--undo").Want(t, 0, "serving")
	if err := fleet.Poll(t.Context(), e2e.Patience, "the node to serve again", func(ctx context.Context) error {
		c, err := w.A.S.Cluster(ctx)
		if err == nil && c.LiveNodes != 2 {
			err = fmt.Errorf("%d nodes live", c.LiveNodes)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func mustWrite(t *testing.T, r *e2e.Region, name string, data []byte) {
	t.Helper()
	if _, err := r.Write(t.Context(), name, data); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
