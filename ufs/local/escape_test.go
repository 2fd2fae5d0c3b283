package local_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// world is a root with something secret beside it.
func world(t *testing.T) (fs ufs.FS, root string) {
	t.Helper()
	base := t.TempDir()
	root = filepath.Join(base, "root")
	for name, data := range map[string]string{"outside/secret": "SECRET", "root/dir/file": "inside"} {
		if err := os.MkdirAll(filepath.Join(base, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fs = openTest(t, root, nil, ufs.Environment{})
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return fs, root
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, fs ufs.FS, key string) (string, error) {
	r, _, err := fs.Open(ctx, key, ufs.OpenOptions{Length: -1})
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

func TestLinksStayInside(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	for name, target := range map[string]string{
		"to-file": "dir/file", "to-dir": "dir", "dir/up": "..", "nothing": "gone", "self": "self",
		"out-file": "../outside/secret", "out-dir": "../outside", "absolute": "/etc/passwd", "absolute-in": filepath.Join(root, "dir/file"),
		"via": "to-dir/../../outside",
	} {
		symlink(t, target, filepath.Join(root, name))
	}
	for key, want := range map[string]struct {
		data string
		kind freshet.Kind
	}{
		"to-file": {data: "inside"}, "to-dir/file": {data: "inside"}, "dir/up/dir/file": {data: "inside"},
		"nothing": {kind: freshet.KindNotExist}, "self": {kind: freshet.KindConflict},
		"out-file": {kind: freshet.KindPermission}, "out-dir/secret": {kind: freshet.KindPermission}, "absolute": {kind: freshet.KindPermission},
		"absolute-in": {kind: freshet.KindPermission}, "via/secret": {kind: freshet.KindPermission},
	} {
		data, err := read(t.Context(), fs, key)
		if data != want.data || freshet.KindOf(err) != want.kind {
			t.Errorf("open %s: got %q, %v (kind %v), want %q, kind %v", key, data, err, freshet.KindOf(err), want.data, want.kind)
		}
		if want.kind == freshet.KindPermission && !strings.Contains(err.Error(), "symlink leaves the mount root") {
			t.Errorf("open %s: message %q", key, err)
		}
	}
	special := map[string]string{}
	for st, err := range fs.List(t.Context(), "", ufs.ListOptions{Recursive: true}) {
		if err != nil {
			t.Fatal(err)
		}
		special[st.SortKey()] = st.Special
		if again, err := fs.Stat(t.Context(), st.Key); err != nil || (again.Special != st.Special && st.Special != "link to a directory above it") {
			t.Errorf("stat of %q: %+v, %v, the list says %+v", st.Key, again, err, st)
		}
	}
	leaves := "link that leaves the mount root"
	for key, want := range map[string]string{
		"to-file": "", "to-dir/": "", "to-dir/file": "", "out-file": leaves, "out-dir": leaves, "absolute": leaves, "absolute-in": leaves, "via": leaves,
		"nothing": "link to nothing", "self": "link to a directory above it", "dir/up": "link to a directory above it",
	} {
		if got, ok := special[key]; !ok || got != want {
			t.Errorf("list: %q is special %q (listed: %v), want %q", key, got, ok, want)
		}
	}
}

func TestWritesStayInside(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	symlink(t, "../outside", filepath.Join(root, "out"))
	outside := func() []string {
		entries, err := os.ReadDir(filepath.Join(root, "../outside"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	ctx := t.Context()
	mode := uint32(0o777)
	calls := map[string]func() error{
		"create": func() error { _, err := fs.Create(ctx, "out/new", ufs.CreateOptions{Size: -1}); return err },
		"mkdir":  func() error { _, err := fs.Mkdir(ctx, "out/new", ufs.MkdirOptions{}); return err },
		"remove": func() error { return fs.Remove(ctx, "out/secret", ufs.RemoveOptions{Recursive: true}) },
		"rename": func() error { _, err := fs.Rename(ctx, "dir/file", "out/file"); return err },
		"steal":  func() error { _, err := fs.Rename(ctx, "out/secret", "mine"); return err },
		"chmod":  func() error { _, err := fs.SetAttr(ctx, "out/secret", ufs.Attr{Mode: &mode}); return err },
		"abort":  func() error { _, err := fs.AbortUpload(ctx, "out/x", freshet.OpID{1}); return err },
		"list": func() error {
			for _, err := range fs.List(ctx, "out", ufs.ListOptions{}) {
				return err
			}
			return nil
		},
	}
	for name, call := range calls {
		if err := call(); !freshet.IsKind(err, freshet.KindPermission, freshet.KindConflict) {
			t.Errorf("%s: got %v (kind %v), want permission or conflict", name, err, freshet.KindOf(err))
		}
	}
	if err := fs.Remove(ctx, "out", ufs.RemoveOptions{Recursive: true}); err != nil {
		t.Errorf("remove the link itself: %v", err)
	}
	if got := outside(); !slices.Equal(got, []string{"secret"}) {
		t.Errorf("outside now holds %q", got)
	}
}

// TestSwappedLinkNeverServesOutsideBytes swaps a directory and a link to the
// outside as fast as it can while another goroutine reads and lists.
func TestSwappedLinkNeverServesOutsideBytes(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	in := func(name string) string { return filepath.Join(root, name) }
	if err := os.Mkdir(in("real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("real/secret"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	symlink(t, "../outside", in("link"))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, from := range []string{"real", "link"} {
				if err := errors.Join(os.Rename(in(from), in("x")), os.Rename(in("x"), in(from))); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	served := 0
	for range 10_000 {
		data, err := read(t.Context(), fs, "x/secret")
		if err == nil {
			served++
		}
		if strings.Contains(data, "SECRET") {
			t.Fatal("bytes from outside of the root")
		}
	}
	for range 500 {
		for st, err := range fs.List(t.Context(), "", ufs.ListOptions{Recursive: true}) {
			if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindPermission, freshet.KindConflict, freshet.KindUnavailable) {
				t.Fatal(err)
			}
			if strings.HasPrefix(st.Key, "link/") || strings.HasPrefix(st.Key, "x/") && st.Length == int64(len("SECRET!")) {
				t.Fatalf("listed %q from outside of the root", st.Key)
			}
		}
	}
	close(stop)
	<-done
	t.Logf("%d of 10000 reads met the directory inside", served)
}

func TestSpecialFilesAreListedAndNeverOpened(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(root, "sock"))
	if err != nil {
		t.Skipf("the path of the temporary directory is too long for a socket: %v", err)
	}
	defer l.Close() //nolint:errcheck // end of the test
	want := map[string]string{"fifo": "fifo", "sock": "socket"}
	symlink(t, "fifo", filepath.Join(root, "link-to-fifo"))
	want["link-to-fifo"] = "fifo"
	if os.Geteuid() == 0 && syscall.Mknod(filepath.Join(root, "null"), syscall.S_IFCHR|0o666, 1<<8|3) == nil {
		want["null"] = "device"
	}
	got := map[string]string{}
	for st, err := range fs.List(t.Context(), "", ufs.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if got[st.Key] = st.Special; st.Special != "" && !st.Fingerprint.IsZero() {
			t.Errorf("%q has a fingerprint", st.Key)
		}
	}
	for key, special := range want {
		if got[key] != special {
			t.Errorf("list: %q is special %q, want %q", key, got[key], special)
		}
		_, err := read(t.Context(), fs, key)
		wantKind(t, err, freshet.KindConflict, "not a regular file")
	}
	for key := range want {
		if err := fs.Remove(t.Context(), key, ufs.RemoveOptions{}); err != nil {
			t.Errorf("remove %q: %v", key, err)
		}
	}
}

// What a write or a move over a special entry is told, and that the entry, and
// what a link leads to, are as they were.
func TestSpecialEntriesAreNeverReplaced(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	in := func(name string) string { return filepath.Join(root, name) }
	if err := syscall.Mkfifo(in("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{"out": "../outside/secret", "to-file": "dir/file", "to-dir": "dir", "nothing": "gone"}
	for name, target := range links {
		symlink(t, target, in(name))
	}
	put := func(ctx context.Context, key string) error {
		w, err := fs.Create(ctx, key, ufs.CreateOptions{Size: -1})
		if err != nil {
			return err
		}
		_, err = w.Commit(ctx)
		return errors.Join(err, w.Abort(ctx))
	}
	move := func(ctx context.Context, key string) error {
		_, err := fs.Rename(ctx, "dir/file", key)
		return err
	}
	for key, want := range map[string]struct {
		kind freshet.Kind
		text string
	}{
		"fifo":    {freshet.KindConflict, "is a fifo, not a regular file"},
		"out":     {freshet.KindPermission, "symlink leaves the mount root"},
		"to-file": {freshet.KindConflict, "is a symbolic link"},
		"to-dir":  {freshet.KindConflict, "is a directory"},
		"nothing": {freshet.KindConflict, "is a symbolic link"},
	} {
		wantKind(t, put(t.Context(), key), want.kind, want.text)
		wantKind(t, move(t.Context(), key), want.kind, want.text)
		if target, err := os.Readlink(in(key)); key != "fifo" && (err != nil || target != links[key]) {
			t.Errorf("link %s now leads to %q, %v", key, target, err)
		}
	}
	if info, err := os.Lstat(in("fifo")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the fifo is now %v, %v", info, err)
	}
	for name, want := range map[string]string{"dir/file": "inside", "../outside/secret": "SECRET"} {
		if data, err := os.ReadFile(in(name)); err != nil || string(data) != want {
			t.Errorf("%s now holds %q, %v", name, data, err)
		}
	}
}

// An entry that came after the upload began is not replaced either.
func TestSpecialEntryThatComesDuringAnUpload(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	w, err := fs.Create(t.Context(), "new", ufs.CreateOptions{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "new"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context())
	wantKind(t, err, freshet.KindConflict, "is a fifo, not a regular file")
	if err := w.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(filepath.Join(root, "new")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the fifo is now %v, %v", info, err)
	}
}

// A directory that looks empty says what it holds when it can't be removed.
func TestRemoveNamesHiddenEntries(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	dir := filepath.Join(root, "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := fs.Create(t.Context(), "d/f", ufs.CreateOptions{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	remove := func() error { return fs.Remove(t.Context(), "d", ufs.RemoveOptions{}) }
	wantKind(t, remove(), freshet.KindConflict, "uploads that have not ended")
	for _, name := range []string{"p4", "p3", "p2", "p1"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, remove(), freshet.KindConflict, "holds entries that are not files or directories: p1, p2, p3 and 1 more")
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKind(t, remove(), freshet.KindConflict, "the directory is not empty")
}

// Where our words say what the system's do, those are left out; the system's error
// stays in the chain.
func TestErrorsSayThingsOnce(t *testing.T) {
	t.Parallel()
	fs, _ := world(t)
	second := func(_ any, err error) error { return err }
	for _, tc := range []struct {
		err   error
		text  string
		errno syscall.Errno
	}{
		{second(fs.Stat(t.Context(), "none")), "stat none: does not exist", syscall.ENOENT},
		{second(fs.Stat(t.Context(), "dir/file/below")), "stat dir/file/below: a file is where a directory should be", syscall.ENOTDIR},
		{fs.Remove(t.Context(), "none", ufs.RemoveOptions{}), "remove none: does not exist", syscall.ENOENT},
		{fs.Remove(t.Context(), "dir", ufs.RemoveOptions{}), "remove dir: the directory is not empty", syscall.ENOTEMPTY},
		{second(fs.Stat(t.Context(), strings.Repeat("n", 300))), "the file system takes no such name: file name too long", syscall.ENAMETOOLONG},
	} {
		if !strings.HasSuffix(tc.err.Error(), tc.text) || !errors.Is(tc.err, tc.errno) {
			t.Errorf("got %q, want %q and %v in the chain", tc.err, tc.text, tc.errno)
		}
	}
}

// An overwrite keeps the owner and group of a file where it may.
func TestOverwriteKeepsTheOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only the superuser may give a file away")
	}
	fs, root := world(t)
	file := filepath.Join(root, "dir/file")
	if err := errors.Join(os.Chown(file, 12, 34), os.Chmod(file, 0o640)); err != nil {
		t.Skipf("the test may not give a file away: %v", err)
	}
	w, err := fs.Create(t.Context(), "dir/file", ufs.CreateOptions{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 12 || st.Gid != 34 || info.Mode() != 0o640 {
		t.Errorf("the file now has %+v", info.Sys())
	}
}

func TestRemovedRootIsAnOutage(t *testing.T) {
	t.Parallel()
	fs, root := world(t)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o755); err != nil { // as when the mount below it is gone
		t.Fatal(err)
	}
	_, err := fs.Stat(t.Context(), "dir/file")
	wantKind(t, err, freshet.KindUnavailable, "was removed, moved or mounted over")
	_, err = fs.Stat(t.Context(), "")
	wantKind(t, err, freshet.KindUnavailable, "was removed, moved or mounted over")
	n := 0
	for _, err := range fs.List(t.Context(), "", ufs.ListOptions{}) {
		n++
		wantKind(t, err, freshet.KindUnavailable, "was removed, moved or mounted over")
	}
	if n != 1 {
		t.Errorf("the listing has %d entries, want one error", n)
	}
	wantKind(t, ufs.Probe(t.Context(), fs), freshet.KindUnavailable, "can't be reached")
}
