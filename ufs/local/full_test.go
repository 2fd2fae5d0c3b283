package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

// small mounts a file system of 1 MiB and 64 names on dir until the test ends.
// Only the superuser may.
func small(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m,nr_inodes=64"); err != nil {
		child.Lacks(t, "the right to mount", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
	})
}

// overflow writes until the storage refuses and returns its error.
func overflow(t *testing.T, f ufs.FS, key string) (ufs.Writer, error) {
	t.Helper()
	w, err := f.Create(t.Context(), key, ufs.CreateOptions{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte("x"), 100_003)
	for range 100 {
		if _, err := w.Write(block); err != nil {
			return w, err
		}
	}
	t.Fatal("10 MB fit")
	return nil, nil
}

func put(t *testing.T, f ufs.FS, key, data string) error {
	t.Helper()
	w, err := f.Create(t.Context(), key, ufs.CreateOptions{Size: int64(len(data))})
	if err != nil {
		return err
	}
	if _, err = io.WriteString(w, data); err == nil {
		if _, err = w.Commit(t.Context()); err == nil {
			return nil
		}
	}
	return errors.Join(err, w.Abort(t.Context()))
}

// wantOnly fails unless exactly the files are in the storage, hidden ones included.
func wantOnly(t *testing.T, root string, want ...string) {
	t.Helper()
	var got []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if rel := strings.TrimPrefix(path, root); rel != "" {
			got = append(got, rel[1:])
		}
		return err
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory holds %q, %v, want %q", got, err, want)
	}
}

// fills is the story of a storage that has no room: a clear error, the old version
// untouched, nothing left behind, and room again after the abort.
func fills(t *testing.T, f ufs.FS, root, text string) {
	t.Helper()
	if err := put(t, f, "old", "old version"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"old", "new/deep/file"} {
		w, err := overflow(t, f, key)
		wantKind(t, err, freshet.KindExhausted, text)
		if _, err := w.Commit(t.Context()); err == nil {
			t.Error("half a file was committed")
		}
		if err := w.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got, err := read(t.Context(), f, "old"); err != nil || got != "old version" {
		t.Errorf("old holds %.20q, %v", got, err)
	}
	wantOnly(t, root, "old")
	if err := put(t, f, "after", strings.Repeat("y", 100_000)); err != nil {
		t.Errorf("after the abort: %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	small(t, root)
	f := openTest(t, root, nil, ufs.Environment{})
	defer f.Close() //nolint:errcheck // end of the test
	fills(t, f, root, "the file system is full: no space left on device")
}

// TestNoNamesLeft: not even an empty file, or a directory, can be made.
func TestNoNamesLeft(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	small(t, root)
	f := openTest(t, root, nil, ufs.Environment{})
	defer f.Close() //nolint:errcheck // end of the test
	var err error
	names := []string{}
	for i := 0; err == nil && i < 100; i++ {
		name := fmt.Sprintf("f%02d", i)
		if err = put(t, f, name, ""); err == nil {
			names = append(names, name)
		}
	}
	wantKind(t, err, freshet.KindExhausted, "the file system is full")
	if err := f.Remove(t.Context(), "f00", ufs.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	// There is room for one name now, and this takes three.
	wantKind(t, put(t, f, "a/b/file", "x"), freshet.KindExhausted, "the file system is full")
	_, err = f.Mkdir(t.Context(), "c/d/e", ufs.MkdirOptions{})
	wantKind(t, err, freshet.KindExhausted, "the file system is full")
	wantOnly(t, root, names[1:]...)
}

// TestFileSizeLimit runs in a process of its own, whose files may have 1 MiB.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	if os.Getenv("FRESHET_TEST_FSIZE") == "" {
		again(t, nil, "FRESHET_TEST_FSIZE=1")
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	f := openTest(t, root, nil, ufs.Environment{})
	defer f.Close() //nolint:errcheck // end of the test
	fills(t, f, root, "a limit of the system is reached: file too large")
}

// again runs the same test alone in another process, as another user if cred is
// not nil.
func again(t *testing.T, cred *syscall.Credential, env string) {
	t.Helper()
	self, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()                      //nolint:errcheck // read only
	dir, err := os.MkdirTemp("", "freshet") //nolint:usetesting // below t.TempDir another user could not go
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.v", "-test.run", "^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	cmd.Env, cmd.Dir, cmd.ExtraFiles = append(os.Environ(), env, "TMPDIR="+dir, ufstest.ReportEnv+"="), dir, []*os.File{self} // its directory may be closed to others
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("the process of this test: %v\n%s", err, out)
	}
}

// TestReadOnly: reads work, changes are denied, and nothing looks absent.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	small(t, root)
	f := openTest(t, root, nil, ufs.Environment{})
	defer f.Close() //nolint:errcheck // end of the test
	if err := put(t, f, "d/f", "x"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", root, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	const text = "mounted read-only"
	wantKind(t, put(t, f, "d/f", "y"), freshet.KindPermission, text)
	wantKind(t, put(t, f, "new/f", "y"), freshet.KindPermission, text)
	_, err := f.Mkdir(t.Context(), "new", ufs.MkdirOptions{})
	wantKind(t, err, freshet.KindPermission, text)
	_, err = f.Rename(t.Context(), "d/f", "d/g")
	wantKind(t, err, freshet.KindPermission, text)
	wantKind(t, f.Remove(t.Context(), "d/f", ufs.RemoveOptions{}), freshet.KindPermission, text)
	if got, err := read(t.Context(), f, "d/f"); err != nil || got != "x" {
		t.Errorf("read %q, %v", got, err)
	}
}

func wantUnavailable(t *testing.T, f ufs.FS, what string) {
	t.Helper()
	for _, key := range []string{"f", "none", ""} {
		if _, err := f.Stat(t.Context(), key); err == nil && key != "" || err != nil && !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("%s: stat %q: %v, want unavailable", what, key, err)
		}
	}
	_, _, err := f.Open(t.Context(), "f", ufs.OpenOptions{Length: -1})
	wantKind(t, err, freshet.KindUnavailable, "")
	for _, recursive := range []bool{false, true} {
		n := 0
		for _, lerr := range f.List(t.Context(), "", ufs.ListOptions{Recursive: recursive}) {
			n++
			wantKind(t, lerr, freshet.KindUnavailable, "")
		}
		if n != 1 {
			t.Errorf("%s: the listing of the root has %d entries and errors", what, n)
		}
	}
	wantKind(t, f.Remove(t.Context(), "f", ufs.RemoveOptions{}), freshet.KindUnavailable, "")
}

// TestRootVanishes: whatever takes the root away, its files are not "absent".
func TestRootVanishes(t *testing.T) {
	t.Parallel()
	for what, take := range map[string]func(root string) error{
		"removed":          os.Remove,
		"moved":            func(root string) error { return os.Rename(root, root+"-moved") },
		"moved, and a new": func(root string) error { return errors.Join(os.Rename(root, root+"-moved"), os.Mkdir(root, 0o700)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "root")
			f := openTest(t, root, map[string]string{"create": "true"}, ufs.Environment{})
			defer f.Close() //nolint:errcheck // end of the test
			if err := take(root); err != nil {
				t.Fatal(err)
			}
			wantUnavailable(t, f, what)
		})
	}
}

// TestMountPoint: where a file system is mounted, its absence is an outage, before
// and after it was there.
func TestMountPoint(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	option := map[string]string{"mount_point": "true"}
	early := openTest(t, root, nil, ufs.Environment{}) // opened the directory below
	defer early.Close()                                //nolint:errcheck // end of the test
	spec := ufs.Spec{URI: "file://" + root, Options: option}
	_, err := local.Opener{}.Open(spec, ufs.Environment{})
	wantKind(t, err, freshet.KindUnavailable, "no file system is mounted at "+root)
	small(t, root)
	wantUnavailable(t, early, "opened before the file system was mounted")
	f := openTest(t, root, option, ufs.Environment{})
	if err := put(t, f, "f", "x"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "f")); err != nil {
		t.Fatal(err)
	}
	_, err = f.Stat(t.Context(), "f")
	wantKind(t, err, freshet.KindNotExist, "") // really absent
	if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, f, "unmounted")
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, err = local.Opener{}.Open(spec, ufs.Environment{})
	wantKind(t, err, freshet.KindUnavailable, "no file system is mounted at")
}
