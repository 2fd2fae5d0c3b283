package ops_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
	"github.com/freshet-io/freshet/ufs/mem"
)

// onDirectory is a world over a directory of the machine.
func onDirectory(t *testing.T) (*world, string) {
	t.Helper()
	dir := t.TempDir()
	fs, err := local.Opener{}.Open(ufs.Spec{URI: "file://" + dir}, ufs.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, mem.Local, 0)
	w.local = fs
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, dir
}

func TestOperationsOnADirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := onDirectory(t)
		l := w.lead(ops.Options{})
		n := w.node("n1", l)
		n.write("/m/d/f", "hello")
		ctx, bits := context.Background(), uint32(0o600)
		steps := []func() error{
			func() error { _, err := l.Mkdir(ctx, freshet.MkdirQuery{Path: "/m/a/b", Parents: true}); return err },
			func() error {
				_, err := l.Rename(ctx, freshet.RenameQuery{Path: "/m/d/f", Target: "/m/a/g"})
				return err
			},
			func() error { _, err := l.SetAttr(ctx, freshet.SetAttrQuery{Path: "/m/a/g", Mode: &bits}); return err },
			func() error { _, err := l.Rename(ctx, freshet.RenameQuery{Path: "/m/a", Target: "/m/e"}); return err },
			func() error { _, err := l.Remove(ctx, freshet.RemoveQuery{Path: "/m/d"}); return err },
		}
		for i, step := range steps {
			if err := step(); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, "e", "g"))
		if err != nil || string(data) != "hello" {
			t.Errorf("%q %v", data, err)
		}
		w.checkPublished()
		w.checkServable("a", "a/g", "d", "d/f", "e", "e/g", "e/b")
		if _, err := l.Remove(ctx, freshet.RemoveQuery{Path: "/m/e", Recursive: true}); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left %v %v", left, err)
		}
		w.checkPublished()
		w.checkServable("e", "e/g")
	})
}

// A directory that looks empty says why it can't be removed.
func TestRemoveNamesWhatNoListingShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := onDirectory(t)
		l := w.lead(ops.Options{})
		ctx := context.Background()
		if _, err := l.Mkdir(ctx, freshet.MkdirQuery{Path: "/m/d"}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"pipe", "sock"} {
			if err := syscall.Mkfifo(filepath.Join(dir, "d", name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := l.Remove(ctx, freshet.RemoveQuery{Path: "/m/d"})
		if !freshet.IsKind(err, freshet.KindConflict) || !strings.Contains(err.Error(), "entries that are not files or directories: pipe, sock;") {
			t.Errorf("remove of a directory with special entries: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "d", "q"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = l.Remove(ctx, freshet.RemoveQuery{Path: "/m/d"})
		if !freshet.IsKind(err, freshet.KindConflict) || !strings.Contains(err.Error(), "is not empty") {
			t.Errorf("remove of a directory with a file: %v", err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "d")); err != nil || len(left) != 3 {
			t.Errorf("left %v %v", left, err)
		}
		if _, err := l.Remove(ctx, freshet.RemoveQuery{Path: "/m/d", Recursive: true}); err != nil {
			t.Error(err)
		}
	})
}

// TestDeadWriterOnADirectory: once that the process is known to be dead nothing of
// it can land, so there is no quarantine; while it is only silent there is.
func TestDeadWriterOnADirectory(t *testing.T) {
	for name, restarts := range map[string]bool{"restarted": true, "silent": false} {
		for _, state := range []int{diesAfterPermit, diesAfterCommit} {
			t.Run(fmt.Sprintf("%s in state %d", name, state), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, dir := onDirectory(t)
					l := w.lead(ops.Options{})
					n := w.node("n1", l)
					n.begin(freshet.BeginWriteQuery{Path: "/m/f"}).takeTo(state, "new")
					if restarts {
						n.restart()
						n.beat()
						w.quiet(time.Second)
					} else {
						w.until(6*time.Second, "the record", func() bool { return w.recordsOf("f") == 1 })
						w.quiet(62 * time.Second)
					}
					w.checkPublished()
					w.checkServable("f")
					names, err := os.ReadDir(dir)
					if want := state - diesAfterPermit; err != nil || len(names) != want {
						t.Errorf("left in the directory: %v %v, want %d files", names, err, want)
					}
				})
			})
		}
	}
}
