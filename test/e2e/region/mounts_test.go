package region_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestMountsWhileServing(t *testing.T) {
	w := e2e.NewS3World(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	steady := e2e.Content("steady", 1, 50_000)
	write(t, w.A, "steady", steady)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		var errs []error
		n := 0
		for ; ctx.Err() == nil && len(errs) < 3; n++ {
			data, _, err := w.A.Read(t.Context(), "steady", client.Whole())
			if _, verr := e2e.VersionOf("steady", 0, data); err != nil || verr != nil {
				errs = append(errs, fmt.Errorf("read %d: %w, %w", n, err, verr))
			}
		}
		if n == 0 {
			errs = append(errs, errors.New("nothing was read"))
		}
		served <- errors.Join(errs...)
	}()
	t.Run("add, nest, use, change, remove", func(t *testing.T) { mountLife(t, w) })
	base := t.TempDir()
	t.Run("refusals", func(t *testing.T) { mountRefusals(t, w, base) })
	t.Run("dry runs", func(t *testing.T) { mountDryRuns(t, w) })
	stop()
	if err := <-served; err != nil {
		t.Errorf("reads of another mount were disturbed: %v", err)
	}
}

// s3Options are the options that a mount of the test's server needs.
func s3Options(w *e2e.World) []string {
	return []string{"--option", "endpoint=" + w.S3.Endpoint, "--option", "region=us-east-1"}
}

func cliRead(t *testing.T, w *e2e.World, path, want string) {
	t.Helper()
	if got := w.A.CLI(t, "fs", "cat", path).Want(t, 0); got.Out != want {
		t.Errorf("%s holds %q, not %q", path, got.Out, want)
	}
}

func blocks(ctx context.Context, w *e2e.World) (int64, error) {
	nodes, err := w.A.S.Nodes(ctx)
	if err != nil || len(nodes) != 1 {
		return 0, fmt.Errorf("%d nodes: %w", len(nodes), err)
	}
	return nodes[0].Blocks, nil
}

func mountLife(t *testing.T, w *e2e.World) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("was there before"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "mount", "add", "/local", "file://"+dir).Want(t, 0, "mounted file://"+dir+" at /local")
	cliRead(t, w, "/local/there", "was there before")
	in := e2e.File(t, "in", []byte("by freshet"))
	w.A.CLI(t, "fs", "cp", "file:"+in, "/local/written").Want(t, 0)
	if b, err := os.ReadFile(filepath.Join(dir, "written")); err != nil || string(b) != "by freshet" {
		t.Errorf("in the storage: %q, %v", b, err)
	}
	w.A.CLI(t, append([]string{"mount", "add", "/local/nested", "s3://lake/y"}, s3Options(w)...)...).Want(t, 0)
	w.A.CLI(t, "fs", "cp", "file:"+in, "/local/nested/f").Want(t, 0)
	if _, err := os.Stat(filepath.Join(dir, "nested")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a nested mount reached the outer storage: %v", err)
	}
	w.A.CLI(t, "fs", "ls", "/local").Want(t, 0, "/local/nested", "/local/there", "/local/written")
	w.A.CLI(t, "fs", "mv", "/local/written", "/local/nested/moved").Want(t, freshet.ExitConflict, "mount")
	w.A.CLI(t, "fs", "rm", "-r", "/local/nested").Want(t, freshet.ExitConflict, "mount point")
	w.A.CLI(t, "mount", "update", "/local", "--read-only").Want(t, 0)
	w.A.CLI(t, "fs", "cp", "file:"+in, "/local/refused").Want(t, freshet.ExitDenied, "read-only")
	w.A.CLI(t, "fs", "rm", "/local/there").Want(t, freshet.ExitDenied, "read-only")
	w.A.CLI(t, "fs", "mkdir", "/local/refused").Want(t, freshet.ExitDenied, "read-only")
	cliRead(t, w, "/local/there", "was there before")
	w.A.CLI(t, "fs", "cp", "file:"+in, "/local/nested/still").Want(t, 0)
	w.A.CLI(t, "mount", "update", "/local", "--read-only=false").Want(t, 0)
	w.A.CLI(t, "fs", "cp", "file:"+in, "/local/allowed").Want(t, 0)

	w.A.CLI(t, "mount", "rm", "/local").Want(t, freshet.ExitConflict, "/local/nested")
	w.A.CLI(t, "mount", "rm", "/local/nested").Want(t, 0, "detached")
	w.A.CLI(t, "fs", "stat", "/local/nested/f").Want(t, freshet.ExitNotFound)
	w.A.CLI(t, "mount", "rm", "/local").Want(t, 0, "detached")
	w.A.CLI(t, "fs", "cat", "/local/there").Want(t, freshet.ExitNotFound)
	if b, err := os.ReadFile(filepath.Join(dir, "allowed")); err != nil || string(b) != "by freshet" {
		t.Errorf("detaching touched the storage: %q, %v", b, err)
	}
	err := fleet.Poll(t.Context(), e2e.Patience, "the blocks to be dropped", func(ctx context.Context) error {
		n, err := blocks(ctx, w)
		if err == nil && n != 1 { // of "steady"
			err = fmt.Errorf("%d blocks", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// mountList is the table of mounts as JSON, without the index that moves by itself.
func mountList(t *testing.T, w *e2e.World) string {
	t.Helper()
	var list struct {
		Mounts json.RawMessage `json:"mounts"`
	}
	w.A.CLI(t, "mount", "ls", "-o", "json").Want(t, 0).JSON(t, &list)
	return string(list.Mounts)
}

func mountRefusals(t *testing.T, w *e2e.World, dir string) {
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "mount", "add", "/base", "file://"+dir).Want(t, 0)
	in := e2e.File(t, "in", []byte("x"))
	w.A.CLI(t, "fs", "cp", "file:"+in, "/base/full/f").Want(t, 0)
	before := mountList(t, w)
	other := "file://" + t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"same path again", []string{"mount", "add", "/base", other}, freshet.ExitConflict, "/base"},
		{"same storage again", []string{"mount", "add", "/again", "file://" + dir}, freshet.ExitConflict, "/base"},
		{"inside a mounted storage", []string{"mount", "add", "/inner", "file://" + dir + "/sub"}, freshet.ExitConflict, "/base"},
		{"around a mounted storage", []string{"mount", "add", "/outer", "file://" + filepath.Dir(dir)}, freshet.ExitConflict, "/base"},
		{"over what exists", []string{"mount", "add", "/base/full", other}, freshet.ExitConflict, "/base/full"},
		{"over a file", []string{"mount", "add", "/base/file", other}, freshet.ExitConflict, "/base/file"},
		{"no such directory", []string{"mount", "add", "/none", "file://" + dir + "/none"}, freshet.ExitNotFound, "none"},
		{"no such bucket", append([]string{"mount", "add", "/none", "s3://no-such-bucket"}, s3Options(w)...), freshet.ExitNotFound, `bucket "no-such-bucket" does not exist`},
		{"bounded", []string{"mount", "add", "/b", other, "--consistency", "bounded"}, freshet.ExitError, "bounded"},
		{"strict", []string{"mount", "add", "/b", other, "--consistency", "strict"}, freshet.ExitError, "strict"},
		{"interval without one", []string{"mount", "add", "/b", other, "--consistency", "interval"}, freshet.ExitUsage, "interval"},
		{"update of none", []string{"mount", "update", "/none", "--read-only"}, freshet.ExitNotFound, "/none"},
		{"rm of none", []string{"mount", "rm", "/none"}, freshet.ExitNotFound, "/none"},
		{"show of none", []string{"mount", "show", "/none"}, freshet.ExitNotFound, "/none"},
	} {
		t.Run(c.name, func(t *testing.T) { w.A.CLI(t, c.args...).Want(t, c.code, c.says) })
	}
	if after := mountList(t, w); after != before {
		t.Errorf("refused commands changed the mounts:\n%s\n%s", before, after)
	}
}

func mountDryRuns(t *testing.T, w *e2e.World) {
	before := mountList(t, w)
	w.A.CLI(t, "mount", "add", "/dry", "file://"+t.TempDir(), "--dry-run").Want(t, 0, "dry run")
	w.A.CLI(t, "mount", "update", "/base", "--read-only", "--dry-run").Want(t, 0, "dry run")
	w.A.CLI(t, "mount", "rm", "/base", "--dry-run").Want(t, 0, "dry run")
	w.A.CLI(t, "sync", "set", "/base", "--interval", "5s", "--dry-run").Want(t, 0, "dry run")
	if after := mountList(t, w); after != before {
		t.Errorf("dry runs changed the mounts:\n%s\n%s", before, after)
	}
	if got := w.A.CLI(t, "sync", "get", "/base").Want(t, 0); strings.Contains(got.Out, "5s") {
		t.Errorf("a dry run set an interval: %s", got.Out)
	}
}
