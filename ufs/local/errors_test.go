package local_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
)

// TestErrorsOfTheSystem: only what says that a name is not there is an absence.
func TestErrorsOfTheSystem(t *testing.T) {
	t.Parallel()
	want := map[syscall.Errno]freshet.Kind{
		syscall.ENOENT: freshet.KindNotExist, syscall.ENOTDIR: freshet.KindNotExist, syscall.EEXIST: freshet.KindExist,
		syscall.ENOTEMPTY: freshet.KindConflict, syscall.EISDIR: freshet.KindConflict,
		syscall.EACCES: freshet.KindPermission, syscall.EPERM: freshet.KindPermission, syscall.EROFS: freshet.KindPermission,
		syscall.ENOSPC: freshet.KindExhausted, syscall.EDQUOT: freshet.KindExhausted, syscall.EMFILE: freshet.KindExhausted,
		syscall.ENAMETOOLONG: freshet.KindInvalid, syscall.EXDEV: freshet.KindUnsupported,
		syscall.ESTALE: freshet.KindUnavailable, syscall.EIO: freshet.KindUnavailable, syscall.ETIMEDOUT: freshet.KindUnavailable, syscall.ENOMEM: freshet.KindUnavailable,
	}
	for errno := syscall.Errno(1); errno < 134; errno++ {
		got, text := local.KindOf(&fs.PathError{Op: "open", Path: "x", Err: errno})
		if k, ok := want[errno]; ok && got != k {
			t.Errorf("%v: kind %v, want %v", errno, got, k)
		}
		if got == freshet.KindNotExist && want[errno] != freshet.KindNotExist || got == freshet.KindOK || got == freshet.KindInternal || text == "" {
			t.Errorf("%v: kind %v, %q", errno, got, text)
		}
	}
}

func TestNamesTheSystemDoesNotTake(t *testing.T) {
	t.Parallel()
	f, _ := world(t)
	long := strings.Repeat("n", 256)
	_, err := f.Stat(t.Context(), long)
	wantKind(t, err, freshet.KindInvalid, "takes no such name")
	_, err = f.Create(t.Context(), "dir/"+long+"/x", ufs.CreateOptions{Size: -1})
	wantKind(t, err, freshet.KindInvalid, "takes no such name")
}

// TestErrorsNameNoPathOfTheMachine: a caller learns keys, not where they lie.
func TestErrorsNameNoPathOfTheMachine(t *testing.T) {
	t.Parallel()
	f, root := world(t)
	_, err := f.Stat(t.Context(), "dir/none")
	wantKind(t, err, freshet.KindNotExist, "stat dir/none")
	if strings.Contains(err.Error(), filepath.Dir(root)) {
		t.Errorf("the error %q names a path of the machine", err)
	}
}

// TestWriterOfAMovedDirectoryFails: what was written for d/f must not appear as e/f
// and be reported as d/f.
func TestWriterOfAMovedDirectoryFails(t *testing.T) {
	t.Parallel()
	f, root := world(t)
	ctx := t.Context()
	w, err := f.Create(ctx, "dir/new", ufs.CreateOptions{Size: -1, Op: freshet.OpID{1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, "dir"), filepath.Join(root, "moved")); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(ctx)
	wantKind(t, err, freshet.KindConflict, "the upload has ended")
	for _, key := range []string{"dir/new", "moved/new"} {
		if _, err := f.Stat(ctx, key); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("%s: %v, want not_exist", key, err)
		}
	}
	if err := w.Abort(ctx); err != nil {
		t.Error(err)
	}
}

// TestDeadWriterLeavesOnlyAHiddenFile: the process died; a new one ends its upload.
func TestDeadWriterLeavesOnlyAHiddenFile(t *testing.T) {
	t.Parallel()
	f, root := world(t)
	ctx, die := context.WithCancel(t.Context())
	w, err := f.Create(ctx, "dir/new", ufs.CreateOptions{Size: -1, Op: freshet.OpID{7}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "half"); err != nil {
		t.Fatal(err)
	}
	die()
	if _, err := io.WriteString(w, "more"); !errors.Is(err, context.Canceled) {
		t.Errorf("write with an ended context: %v", err)
	}
	names := func() int {
		entries, err := os.ReadDir(filepath.Join(root, "dir"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if n := names(); n != 2 {
		t.Fatalf("%d names in the directory, want the file that was there and a temporary one", n)
	}
	other := openTest(t, root, nil, ufs.Environment{})
	defer other.Close() //nolint:errcheck // end of the test
	if ended, err := other.AbortUpload(t.Context(), "dir/new", freshet.OpID{7}); !ended || err != nil {
		t.Errorf("ended %v, %v", ended, err)
	}
	if n := names(); n != 1 {
		t.Errorf("%d names are left", n)
	}
	_, err = w.Commit(t.Context()) // the dead writer comes back
	wantKind(t, err, freshet.KindConflict, "the upload has ended")
	if err := w.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}
