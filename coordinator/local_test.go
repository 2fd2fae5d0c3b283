package coordinator_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

// TestOverADirectory runs over a real directory that another program changes.
func TestOverADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, data string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("d/f", "one")
	write("d/g/h", "x")
	if err := errors.Join(syscall.Mkfifo(filepath.Join(dir, "d/pipe"), 0o600), os.Symlink("/etc", filepath.Join(dir, "d/out"))); err != nil {
		t.Fatal(err)
	}
	c := localCluster(t, dir, freshet.Interval(time.Hour))
	always := freshet.Always
	stat := func(p freshet.Path, interval *freshet.Interval) (freshet.Info, error) {
		st, err := c.Stat(t.Context(), p, freshet.ReadOptions{SyncInterval: interval})
		return st.Info, err
	}
	first, err := stat("/d/f", nil)
	if err != nil || first.Length != 3 || first.Mode != 0o600 || first.Owner == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	page, err := c.List(t.Context(), freshet.ListQuery{Path: "/", Recursive: true})
	if err != nil || !slices.Equal(pathsOf(page), []string{"/d", "/d/f", "/d/g", "/d/g/h"}) {
		t.Errorf("listed %v, %v", pathsOf(page), err)
	}
	for _, p := range []freshet.Path{"/d/pipe", "/d/out", "/d/out/passwd"} {
		if info, err := stat(p, &always); err == nil {
			t.Errorf("%s is served: %+v", p, info)
		}
	}
	// A change of the mode is found and costs no block; a change of the bytes gets a new version.
	if err := os.Chmod(filepath.Join(dir, "d/f"), 0o640); err != nil {
		t.Fatal(err)
	}
	if info, err := stat("/d/f", nil); err != nil || info.Mode != 0o600 {
		t.Errorf("before its time: %+v, %v", info, err)
	}
	if info, err := stat("/d/f", &always); err != nil || info.Mode != 0o640 || info.FileID != first.FileID {
		t.Errorf("after chmod: %+v, %v, before %+v", info, err, first)
	}
	write("d/f", "three")
	if info, err := stat("/d/f", &always); err != nil || info.Length != 5 || info.FileID == first.FileID {
		t.Errorf("after the overwrite: %+v, %v", info, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	if _, err := stat("/d/g/h", &always); !errors.Is(err, freshet.KindNotExist) {
		t.Errorf("removed: %v", err)
	}
	var done freshet.SyncProgress
	if err := c.Sync(t.Context(), "/", true, func(p freshet.SyncProgress) error { done = p; return nil }); err != nil || !done.Done || done.Failed != 0 {
		t.Errorf("sync: %+v, %v", done, err)
	}
	if page, err := c.List(t.Context(), freshet.ListQuery{Path: "/"}); err != nil || len(page.Entries) != 0 {
		t.Errorf("what is left: %v, %v", pathsOf(page), err)
	}
}

// What is neither a file nor a directory is in no listing, and all the same not
// absent: who asks is told what it is, before and after the listing is known.
func TestSpecialEntriesAreNeverSaidToBeAbsent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, "d", name) }
	if err := errors.Join(os.MkdirAll(at("g"), 0o700), os.WriteFile(at("f"), []byte("x"), 0o600), os.WriteFile(at("h"), []byte("x"), 0o600),
		syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("/etc", at("out"))); err != nil {
		t.Fatal(err)
	}
	c := localCluster(t, dir, freshet.Never)
	want := func(when string, kinds map[freshet.Path]freshet.Kind) {
		t.Helper()
		texts := map[freshet.Kind]string{freshet.KindConflict: "is a fifo, not a regular file", freshet.KindPermission: "symlink leaves the mount root"}
		for p, kind := range kinds {
			_, err := c.Stat(t.Context(), p, freshet.ReadOptions{})
			if freshet.KindOf(err) != kind || (err != nil && !strings.Contains(err.Error(), texts[kind])) {
				t.Errorf("%s: stat %s: %v (kind %v), want kind %v", when, p, err, freshet.KindOf(err), kind)
			}
		}
	}
	list := func(want ...string) {
		t.Helper()
		always := freshet.Always
		page, err := c.List(t.Context(), freshet.ListQuery{Path: "/d", Options: freshet.ReadOptions{SyncInterval: &always}})
		if err != nil || !slices.Equal(pathsOf(page), want) {
			t.Errorf("listed %v, %v, want %v", pathsOf(page), err, want)
		}
	}
	special := map[freshet.Path]freshet.Kind{
		"/d/pipe": freshet.KindConflict, "/d/out": freshet.KindPermission, "/d/out/passwd": freshet.KindPermission, "/d/none": freshet.KindNotExist,
		"/d/f": freshet.KindOK,
	}
	want("never listed", special)
	list("/d/f", "/d/g", "/d/h")
	want("listed", special)
	// Without special entries the listing alone says what is absent.
	if err := errors.Join(os.Remove(at("pipe")), os.Remove(at("out"))); err != nil {
		t.Fatal(err)
	}
	list("/d/f", "/d/g", "/d/h")
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("listed without", map[freshet.Path]freshet.Kind{"/d/pipe": freshet.KindNotExist, "/d/none": freshet.KindNotExist})
	// A look that finds one revokes that.
	always := freshet.Always
	if err := errors.Join(os.Remove(at("f")), syscall.Mkfifo(at("f"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stat(t.Context(), "/d/f", freshet.ReadOptions{SyncInterval: &always}); !freshet.IsKind(err, freshet.KindConflict) {
		t.Errorf("a file that became a fifo: %v", err)
	}
	want("looked at", map[freshet.Path]freshet.Kind{
		"/d/f": freshet.KindConflict, "/d/pipe": freshet.KindConflict, "/d/h": freshet.KindOK, "/d/none": freshet.KindNotExist,
	})
	list("/d/g", "/d/h")
}

func TestASyncCanBeCancelled(t *testing.T) {
	t.Parallel()
	inBubble(t, settings{}, func(w *world) {
		w.store.Put("a/b/c/f", []byte("x"))
		m := w.leader()
		w.onStep(func(string, string) error {
			time.Sleep(time.Second)
			return nil
		})
		stop := errors.New("enough")
		err := m.Sync(w.Context(), "/data", true, func(freshet.SyncProgress) error { return stop })
		if !errors.Is(err, stop) {
			w.Errorf("got %v", err)
		}
	})
}

// Two clusters may name one directory through different links: their keys of the
// domain must agree all the same.
func TestMountsKnowDirectoriesByTheirRealPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	c := localCluster(t, other, freshet.Never)
	a, err := c.AddMount(t.Context(), mount("/real", "file://"+link, freshet.Never))
	if err != nil {
		t.Fatal(err)
	}
	if a.Mount.DomainKey != dir {
		t.Errorf("the mount's root is known as %q, want %q", a.Mount.DomainKey, dir)
	}
	if _, err := c.AddMount(t.Context(), mount("/again", "file://"+dir, freshet.Never)); !errors.Is(err, freshet.KindConflict) {
		t.Errorf("the same directory was mounted twice: %v", err)
	}
}

func TestADryRunMakesNoDirectory(t *testing.T) {
	c := localCluster(t, t.TempDir(), freshet.Never)
	dir := filepath.Join(t.TempDir(), "new")
	change := mount("/new", "file://"+dir, freshet.Never)
	change.Options, change.DryRun = map[string]string{"create": "true"}, true
	if _, err := c.AddMount(t.Context(), change); !errors.Is(err, freshet.KindNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dry run made %s: %v", dir, err)
	}
	change.DryRun = false
	if _, err := c.AddMount(t.Context(), change); err != nil {
		t.Error(err)
	}
}
