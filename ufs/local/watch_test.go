package local_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
)

// follower is a mount that is watched, and the consumer of its notices.
type follower struct {
	fs      ufs.FS
	dir     string // real
	notices <-chan heard
	markers int
}

type heard struct {
	n   ufs.Notice
	err error
}

func follow(t *testing.T, options map[string]string) *follower {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"events": "inotify"}
	maps.Copy(all, options)
	fs, err := local.Opener{}.Open(ufs.Spec{URI: "file://" + root, Options: all}, ufs.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return &follower{fs: fs, dir: root}
}

// start watches until the test ends, and returns once the watch is established.
func (f *follower) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, ended := make(chan heard), make(chan struct{})
	go func() {
		defer close(ended)
		for n, err := range ufs.WatcherOf(f.fs).Watch(ctx, nil) {
			select {
			case c <- heard{n, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	f.notices = c
	if first := f.next(t); first.err != nil || first.n.Gap != "" {
		t.Fatalf("first: %+v", first)
	}
}

func (f *follower) next(t *testing.T) heard {
	t.Helper()
	select {
	case n := <-f.notices:
		return n
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was heard")
		return heard{}
	}
}

// sync returns all records up to that of a file made now, and whether there was
// a gap.
func (f *follower) sync(t *testing.T) (all []invalidation.Record, gap bool) {
	t.Helper()
	f.markers++
	marker := fmt.Sprintf("marker%d", f.markers)
	f.write(t, marker, "x")
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		h := f.next(t)
		if h.err != nil {
			t.Fatal(h.err)
		}
		gap = gap || h.n.Gap != ""
		all = append(all, h.n.Changes...)
		if gap || slices.ContainsFunc(h.n.Changes, func(r invalidation.Record) bool { return strings.HasSuffix(r.Key, "/"+marker) }) {
			return all, gap
		}
	}
	t.Fatal("the marker was never told")
	return nil, false
}

func (f *follower) path(key string) string { return filepath.Join(f.dir, key) }

func (f *follower) write(t *testing.T, key, content string) {
	t.Helper()
	if err := os.WriteFile(f.path(key), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (f *follower) mkdir(t *testing.T, key string) {
	t.Helper()
	if err := os.MkdirAll(f.path(key), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (f *follower) rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(f.path(from), f.path(to)); err != nil {
		t.Fatal(err)
	}
}

// covers reports whether a mark by one of rs reaches the domain key.
func covers(rs []invalidation.Record, key string) bool {
	return slices.ContainsFunc(rs, func(r invalidation.Record) bool {
		all := r.Recursive || r.Kind == invalidation.KindDelete || r.Kind == invalidation.KindSubtree
		return r.Key == key || all && strings.HasPrefix(key, r.Key+"/")
	})
}

func (f *follower) want(t *testing.T, keys ...string) []invalidation.Record {
	t.Helper()
	rs, gap := f.sync(t)
	for _, key := range keys {
		if !gap && !covers(rs, f.path(key)) {
			t.Errorf("%s was not told", key)
		}
	}
	if t.Failed() {
		for _, r := range rs {
			t.Logf("told: %s %s", r.Kind, strings.TrimPrefix(r.Key, f.dir))
		}
	}
	return rs
}

func TestWatchTellsOfChanges(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	f.mkdir(t, "old/deep")
	f.start(t)
	for _, key := range []string{"f", "with space", "ümläut", "100%", "a+b", "old/f", "old/deep/f", "..."} {
		f.write(t, key, "one")
		rs := f.want(t, key)
		st, err := f.fs.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(rs, func(r invalidation.Record) bool { return r.Key == f.path(key) && r.Fingerprint.Equal(st.Fingerprint) }); i < 0 {
			t.Errorf("%s: no record has its version: %+v", key, rs)
		}
		f.write(t, key, "two!")
		f.want(t, key)
		if err := os.Chmod(f.path(key), 0o600); err != nil {
			t.Fatal(err)
		}
		f.want(t, key)
		if err := os.Remove(f.path(key)); err != nil {
			t.Fatal(err)
		}
		if rs := f.want(t, key); !slices.ContainsFunc(rs, func(r invalidation.Record) bool { return r.Key == f.path(key) && r.Kind == invalidation.KindDelete }) {
			t.Errorf("%s: removal: %+v", key, rs)
		}
	}
}

// A directory that is full before anybody could watch it.
func TestWatchNewTree(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	f.start(t)
	for i := range 20 {
		top := fmt.Sprintf("t%d", i)
		f.mkdir(t, top+"/a/b/c")
		f.write(t, top+"/a/b/c/f", "x")
		f.want(t, top, top+"/a/b/c/f")
		f.write(t, top+"/a/b/c/g", "x")
		f.want(t, top+"/a/b/c/g")
	}
}

func TestWatchMovedTrees(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	outside := filepath.Join(filepath.Dir(f.dir), "outside")
	if err := os.MkdirAll(filepath.Join(outside, "in/s"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.mkdir(t, "a/s/t")
	f.write(t, "a/s/f", "x")
	f.start(t)
	f.rename(t, "a", "b") // within
	f.want(t, "a/s/f", "b/s/f")
	f.write(t, "b/s/t/g", "x")
	f.want(t, "b/s/t/g")
	f.rename(t, "b/s", "../outside/s") // out
	f.want(t, "b/s/t/g")
	if err := os.WriteFile(filepath.Join(outside, "s/h"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if rs := f.want(t); covers(rs, f.path("b/s/h")) {
		t.Errorf("heard of what is outside: %+v", rs)
	}
	f.rename(t, "../outside/in", "in") // in
	f.want(t, "in/s")
	f.write(t, "in/s/f", "x")
	f.want(t, "in/s/f")
	// Moved into a directory that nobody watches yet.
	for i := range 50 {
		from, to := fmt.Sprintf("from%d", i), fmt.Sprintf("to%d", i)
		f.mkdir(t, from+"/s/t")
		f.want(t, from)
		f.mkdir(t, to)
		f.rename(t, from, to+"/x")
		f.want(t, to+"/x/s/t", from+"/s/t")
		f.write(t, to+"/x/f", "x")
		f.write(t, to+"/x/s/t/f", "x")
		f.want(t, to+"/x/f", to+"/x/s/t/f")
	}
}

func TestWatchFollowsNoLink(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	outside := filepath.Join(filepath.Dir(f.dir), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, f.path("before")); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	if err := os.Symlink(outside, f.path("link")); err != nil {
		t.Fatal(err)
	}
	f.want(t, "link")
	if err := os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range f.want(t) {
		if strings.Contains(r.Key, "secret") {
			t.Errorf("followed a link: %+v", r)
		}
	}
}

func TestWatchHidesTemporaryNames(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	f.start(t)
	f.write(t, ufs.TempPrefix+"x", "x")
	f.mkdir(t, ufs.TempPrefix+"d/s")
	f.rename(t, ufs.TempPrefix+"x", "final")
	for _, r := range f.want(t, "final") {
		if ufs.IsTemp(strings.TrimPrefix(r.Key, f.dir+"/")) {
			t.Errorf("told of %+v", r)
		}
	}
}

func TestWatchKeysOfTheDomain(t *testing.T) {
	t.Parallel()
	f := follow(t, map[string]string{"domain": "nfs1", "domain_root": "/export"})
	f.start(t)
	f.write(t, "f", "x")
	if rs, _ := f.sync(t); !covers(rs, "/export/f") {
		t.Errorf("%+v", rs)
	}
}

// More at once than the system keeps is a gap, and all is watched afterwards.
func TestWatchOverflow(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	f.write(t, "x", "")
	f.write(t, "y", "")
	f.start(t)
	for i := range 60_000 { // the consumer waits for us
		at := time.Unix(int64(i), 0)
		if err := os.Chtimes(f.path([]string{"x", "y"}[i%2]), at, at); err != nil {
			t.Fatal(err)
		}
	}
	f.mkdir(t, "lost/s") // its event is lost
	if _, gap := f.sync(t); !gap {
		t.Fatal("no gap")
	}
	f.write(t, "lost/s/f", "x")
	f.want(t, "lost/s/f")
}

func TestWatchRootGone(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		f := follow(t, nil)
		f.mkdir(t, "d")
		f.start(t)
		if err := remove(f.dir); err != nil {
			t.Fatal(err)
		}
		for {
			if h := f.next(t); h.err != nil {
				if !freshet.IsKind(h.err, freshet.KindUnavailable) {
					t.Errorf("%s: %v", name, h.err)
				}
				break
			}
		}
	}
}

func TestWatchAgainIsAGap(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	var cursor []byte
	for n, err := range ufs.WatcherOf(f.fs).Watch(t.Context(), nil) {
		if err != nil || n.Gap != "" || len(n.Cursor) == 0 {
			t.Fatalf("%+v, %v", n, err)
		}
		cursor = n.Cursor
		break
	}
	for n, err := range ufs.WatcherOf(f.fs).Watch(t.Context(), cursor) {
		if err != nil || n.Gap == "" {
			t.Errorf("%+v, %v", n, err)
		}
		break
	}
}

func TestWatchSource(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	src, err := ufs.WatcherOf(f.fs).WatchSource()
	if err != nil || src.Complete || !strings.Contains(src.ID, f.dir) {
		t.Errorf("%+v, %v", src, err)
	}
	fs, err := local.Opener{}.Open(ufs.Spec{URI: "file://" + f.dir}, ufs.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close() //nolint:errcheck // read only
	if _, err := ufs.WatcherOf(fs).WatchSource(); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("without the option: %v", err)
	}
}

func TestWatchLimits(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		syscall.ENOSPC: "fs.inotify.max_user_watches", syscall.EMFILE: "fs.inotify.max_user_instances",
	} {
		got := local.WatchError("", &os.SyscallError{Syscall: "inotify_add_watch", Err: err})
		if !freshet.IsKind(got, freshet.KindExhausted) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if err := local.WatchError("", errors.New("x")); !freshet.IsKind(err, freshet.KindUnavailable) {
		t.Error(err)
	}
}

// Random changes of a tree, many at a time and in trees that moved: whatever was
// touched is told before what comes after it.
func TestWatchRandomTrees(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f := follow(t, nil)
			m := &mover{f: f, rng: rand.New(rand.NewPCG(seed, 3)), outside: filepath.Join(filepath.Dir(f.dir), "outside")}
			if err := os.Mkdir(m.outside, 0o755); err != nil {
				t.Fatal(err)
			}
			for range 30 {
				m.step(t)
			}
			f.start(t)
			for range 15 {
				m.touched = nil
				for range 1 + m.rng.IntN(40) {
					m.step(t)
				}
				f.want(t, m.touched...)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// mover changes a tree at random and remembers what it touched.
type mover struct {
	f       *follower
	rng     *rand.Rand
	outside string
	serial  int
	touched []string
}

// all returns the keys of the tree, below dir.
func (m *mover) all(t *testing.T, dir string, onlyDirs bool) []string {
	t.Helper()
	var keys []string
	err := filepath.WalkDir(m.f.path(dir), func(p string, d os.DirEntry, err error) error {
		if key, e := filepath.Rel(m.f.dir, p); e == nil && err == nil && (d.IsDir() || !onlyDirs) && !strings.HasPrefix(key, "marker") {
			keys = append(keys, key)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (m *mover) pick(keys []string) string { return keys[m.rng.IntN(len(keys))] }

func (m *mover) fresh(dir string) string {
	m.serial++
	return filepath.Join(dir, fmt.Sprintf("n%d", m.serial%7)) // names come again
}

func (m *mover) step(t *testing.T) {
	t.Helper()
	dir := m.pick(m.all(t, ".", true))
	key := m.fresh(dir)
	_, err := os.Lstat(m.f.path(key))
	free := err != nil
	switch m.rng.IntN(8) {
	case 0, 1:
		if free && strings.Count(key, "/") < 6 {
			m.f.mkdir(t, key)
			m.touched = append(m.touched, key)
		}
	case 2, 3:
		if info, err := os.Lstat(m.f.path(key)); err != nil || info.Mode().IsRegular() {
			m.f.write(t, key, fmt.Sprint(m.serial))
			m.touched = append(m.touched, key)
		}
	case 4, 5:
		m.move(t, key, free)
	case 6:
		if from := m.pick(m.all(t, ".", false)); from != "." {
			m.touched = append(m.touched, m.all(t, from, false)...)
			if err := os.RemoveAll(m.f.path(from)); err != nil {
				t.Fatal(err)
			}
		}
	case 7:
		m.acrossBorder(t, key, free)
	}
}

// move renames something to key.
func (m *mover) move(t *testing.T, key string, free bool) {
	t.Helper()
	from := m.pick(m.all(t, ".", false))
	if !free || from == "." || key == from || strings.HasPrefix(key, from+"/") {
		return
	}
	m.touched = append(m.touched, m.all(t, from, false)...)
	m.f.rename(t, from, key)
	m.touched = append(m.touched, m.all(t, key, false)...)
}

// acrossBorder moves something out of the tree, or what is outside back in.
func (m *mover) acrossBorder(t *testing.T, key string, free bool) {
	t.Helper()
	there := filepath.Join(m.outside, "x")
	if _, err := os.Lstat(there); err == nil {
		if free {
			if err := os.Rename(there, m.f.path(key)); err != nil {
				t.Fatal(err)
			}
			m.touched = append(m.touched, m.all(t, key, false)...)
		}
		return
	}
	if from := m.pick(m.all(t, ".", false)); from != "." {
		m.touched = append(m.touched, m.all(t, from, false)...)
		if err := os.Rename(m.f.path(from), there); err != nil {
			t.Fatal(err)
		}
	}
}
