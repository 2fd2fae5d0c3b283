package hdfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: hdfstest.StopShared})
}

func environment() ufs.Environment {
	return ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}}
}

func open(t testing.TB, addr, dir string, more map[string]string) *hdfs.FS {
	t.Helper()
	return openLogged(t, addr, dir, more, nil)
}

func openLogged(t testing.TB, addr, dir string, more map[string]string, log *slog.Logger) *hdfs.FS {
	t.Helper()
	options := map[string]string{"user": hdfstest.User, "block_size": "1MiB", "request_timeout": "20s"}
	maps.Copy(options, more)
	spec := ufs.Spec{URI: ufs.URI{Scheme: "hdfs", Host: addr, Path: dir}.String(), Options: options}
	fs, err := hdfs.NewOpener(hdfs.Options{Log: log}).Open(spec, environment())
	if err != nil {
		t.Fatal(err)
	}
	own, ok := fs.(*hdfs.FS)
	if !ok {
		t.Fatalf("Open returned a %T", fs)
	}
	return own
}

// root is a directory of a cluster, and what other programs do in it.
type root struct {
	cluster *hdfstest.Cluster
	dir     string
	local   string // directory of this machine
}

var roots atomic.Int64 // names of roots differ within a process, which owns the cluster

func newRoot(t testing.TB, c *hdfstest.Cluster) root {
	t.Helper()
	r := root{cluster: c, dir: fmt.Sprintf("/r o+o%%t/%d", roots.Add(1)), local: t.TempDir()}
	c.Dfs(t, "-mkdir", "-p", r.dir)
	return r
}

func (r root) at(key string) string { return r.dir + "/" + key }

// dfs runs a command of Hadoop's own client, which takes names for patterns.
func (r root) dfs(args ...string) (string, error) {
	return r.cluster.Do(context.Background(), append([]string{"dfs"}, args...)...)
}

// file makes a file of this machine for a command to read.
func (r root) file(data []byte) (string, error) {
	f, err := os.CreateTemp(r.local, "data")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return f.Name(), errors.Join(err, f.Close())
}

func (r root) put(key string, data []byte) error {
	name, err := r.file(data)
	if err != nil {
		return err
	}
	defer os.Remove(name) //nolint:errcheck // in a temporary directory
	if _, err := r.dfs("-mkdir", "-p", path.Dir(r.at(key))); err != nil {
		return err
	}
	_, err = r.dfs("-put", "-f", name, r.at(key))
	return err
}

// putMany copies a tree of this machine, by many threads of one command.
func (r root) putMany(keys []string) error {
	tree, err := os.MkdirTemp(r.local, "tree")
	if err != nil {
		return err
	}
	for _, key := range keys {
		name := filepath.Join(tree, key)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			return err
		}
	}
	top, err := os.ReadDir(tree)
	if err != nil {
		return err
	}
	args := []string{"-put", "-f", "-t", "8"}
	for _, e := range top {
		args = append(args, (&url.URL{Scheme: "file", Path: filepath.Join(tree, e.Name())}).String())
	}
	_, err = r.dfs(append(args, r.dir)...)
	return err
}

// rewrite truncates the file and appends to it, which keeps the inode. It leaves the
// modification time alone: with that, too, put back, nothing of the file would tell.
func (r root) rewrite(key string, data []byte) error {
	if _, err := r.dfs("-truncate", "-w", "0", r.at(key)); err != nil {
		return err
	}
	name, err := r.file(data)
	if err != nil {
		return err
	}
	defer os.Remove(name) //nolint:errcheck // in a temporary directory
	_, err = r.dfs("-appendToFile", name, r.at(key))
	return err
}

// leftovers are the temporary files below the root, however hidden.
func (r root) leftovers() ([]string, error) {
	out, err := r.dfs("-ls", "-C", "-R", r.dir)
	if err != nil {
		return nil, err
	}
	var left []string
	for line := range strings.Lines(out) {
		if name := strings.TrimSpace(line); strings.Contains(name, "/"+ufs.TempPrefix) {
			left = append(left, name)
		}
	}
	return left, nil
}

func (r root) outside() ufstest.Outside {
	return ufstest.Outside{
		Put:     r.put,
		PutMany: r.putMany,
		Rewrite: r.rewrite,
		Remove: func(key string) error {
			_, err := r.dfs("-rm", "-skipTrash", r.at(key))
			return err
		},
		Touch: func(key string) error {
			_, err := r.dfs("-chmod", "604", r.at(key))
			return err
		},
		Leftovers: r.leftovers,
	}
}

// silent takes connections and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
	})
	return l.Addr().String()
}

func TestConforms(t *testing.T) {
	c := hdfstest.Shared(t)
	var mu sync.Mutex
	of := map[ufs.FS]root{}
	rootOf := func(fs ufs.FS) root {
		mu.Lock()
		defer mu.Unlock()
		return of[fs]
	}
	ufstest.Run(t, ufstest.Harness{
		New: func(t *testing.T) ufs.FS {
			r := newRoot(t, c)
			fs := open(t, c.Addr(), r.dir, nil)
			mu.Lock()
			defer mu.Unlock()
			of[fs] = r
			return fs
		},
		Again:   func(t *testing.T, fs ufs.FS) ufs.FS { return open(t, c.Addr(), rootOf(fs).dir, nil) },
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside { return rootOf(fs).outside() },
		Denied: func(t *testing.T) ufs.FS {
			r := newRoot(t, c)
			c.Dfs(t, "-chmod", "700", r.dir)
			return open(t, c.Addr(), r.dir, map[string]string{"user": "alice"})
		},
		Down:    func(t *testing.T) ufs.FS { return open(t, "127.0.0.1:1", "/down", nil) },
		Stalled: func(t *testing.T) ufs.FS { return open(t, silent(t), "/stalled", nil) },
		Throttled: func(t *testing.T) ufs.FS {
			return open(t, fakeNameNode(t, "org.apache.hadoop.ipc.RetriableException", "Server too busy").addr, "/busy", nil)
		},
		Large: 6<<20 + 12345, // two segments, seven blocks
	})
}

// write writes a file through fs.
func write(ctx context.Context, fs ufs.FS, key string, data []byte, opts ufs.CreateOptions) (ufs.Status, error) {
	opts.Size = int64(len(data))
	w, err := fs.Create(ctx, key, opts)
	if err != nil {
		return ufs.Status{}, err
	}
	_, err = w.Write(data)
	var st ufs.Status
	if err == nil {
		st, err = w.Commit(ctx)
	}
	if err != nil {
		return st, errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
	}
	return st, nil
}

func read(ctx context.Context, fs ufs.FS, key string) ([]byte, error) {
	r, _, err := fs.Open(ctx, key, ufs.OpenOptions{Length: -1})
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func list(ctx context.Context, fs ufs.FS, dir string, opts ufs.ListOptions) ([]string, error) {
	var keys []string
	for st, err := range fs.List(ctx, dir, opts) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, st.SortKey())
	}
	return keys, nil
}

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>(i%3*8)) ^ seed
	}
	return b
}

func wantKind(t *testing.T, err error, k freshet.Kind, text string) {
	t.Helper()
	if freshet.KindOf(err) != k || (err != nil && !strings.Contains(err.Error(), text)) {
		t.Errorf("got %v (kind %v), want kind %v and %q", err, freshet.KindOf(err), k, text)
	}
}

// mount is an FS over a fresh root of the shared cluster.
func mount(t *testing.T, more map[string]string) (*hdfs.FS, root) {
	t.Helper()
	r := newRoot(t, hdfstest.Shared(t))
	fs := open(t, r.cluster.Addr(), r.dir, more)
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return fs, r
}

// TestOrderOfNames: the NameNode lists by signed bytes, and in pages.
func TestOrderOfNames(t *testing.T) {
	fs, r := mount(t, nil)
	names := []string{"ä", "a", "aä", "a-b", "a.b", "ab", "aß.d", "z", "日本", "é/x", "a0", "a/sub", "zé", "z-"}
	var files []string
	for _, n := range names {
		if strings.Contains(n, "/") || n == "a" {
			r.cluster.Dfs(t, "-mkdir", "-p", r.at(path.Dir(n)))
			continue
		}
		files = append(files, r.at(n))
	}
	const many = 2500 // three pages
	for i := range many {
		files = append(files, r.at(fmt.Sprintf("n%05d", i)))
	}
	r.cluster.Dfs(t, append([]string{"-touchz"}, files...)...)
	got, err := list(t.Context(), fs, "", ufs.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a-b", "a.b", "a/", "a0", "ab", "aß.d", "aä"}
	for i := range many {
		want = append(want, fmt.Sprintf("n%05d", i))
	}
	want = append(want, "z", "z-", "zé", "ä", "é/", "日本")
	if !slices.Equal(got, want) || !slices.IsSorted(got) {
		t.Errorf("got %d names, want %d: %q", len(got), len(want), got[:min(len(got), 10)])
	}
	after, err := list(t.Context(), fs, "", ufs.ListOptions{StartAfter: "n02498"})
	if err != nil || !slices.Equal(after, want[slices.Index(want, "n02499"):]) {
		t.Errorf("after n02498: %q, %v", after, err)
	}
}

// TestRemoveOfManyIsOneCall: 10,000 children go at once.
func TestRemoveOfManyIsOneCall(t *testing.T) {
	fs, r := mount(t, nil)
	const many = 10_000
	r.cluster.Dfs(t, "-mkdir", r.at("d"))
	for at := 0; at < many; at += 2500 {
		args := []string{"-touchz"}
		for i := at; i < at+2500; i++ {
			args = append(args, r.at(fmt.Sprintf("d/f%05d", i)))
		}
		r.cluster.Dfs(t, args...)
	}
	wantKind(t, fs.Remove(t.Context(), "d", ufs.RemoveOptions{}), freshet.KindConflict, "not empty")
	if keys, err := list(t.Context(), fs, "d", ufs.ListOptions{}); len(keys) != many || err != nil {
		t.Fatalf("%d entries, %v", len(keys), err)
	}
	if err := fs.Remove(t.Context(), "d", ufs.RemoveOptions{Recursive: true}); err != nil {
		t.Fatal(err)
	}
	if keys, err := list(t.Context(), fs, "", ufs.ListOptions{}); len(keys) != 0 || err != nil {
		t.Errorf("%q, %v", keys, err)
	}
}

// TestFileThatIsStillWritten: another program's open file has the length of its
// complete blocks, and another fingerprint once it is closed.
func TestFileThatIsStillWritten(t *testing.T) {
	fs, r := mount(t, nil)
	other := bareClient(t, r.cluster)
	w, err := other.CreateFile(r.at("f"), 1, 1<<20, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(pattern(1, 100)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	before, err := fs.Stat(t.Context(), "f")
	if err != nil || before.Length != 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	if data, err := read(t.Context(), fs, "f"); len(data) != 0 || err != nil {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	closeWriter(t, w)
	after, err := fs.Stat(t.Context(), "f")
	if err != nil || after.Length != 100 || after.Fingerprint.SameContent(before.Fingerprint) {
		t.Errorf("%+v became %+v, %v", before, after, err)
	}
	if data, err := read(t.Context(), fs, "f"); !bytes.Equal(data, pattern(1, 100)) || err != nil {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// TestOtherUser: what the superuser may do says little about the others.
func TestOtherUser(t *testing.T) {
	super, r := mount(t, nil)
	r.cluster.Dfs(t, "-chmod", "777", r.dir)
	fs := open(t, r.cluster.Addr(), r.dir, map[string]string{"user": "bob"})
	defer fs.Close() //nolint:errcheck // end of the test
	ctx := t.Context()
	data := pattern(2, 3<<20)
	st, err := write(ctx, fs, "dir/f", data, ufs.CreateOptions{Op: freshet.OpID{1}})
	if err != nil || st.Owner != "bob" {
		t.Fatalf("%+v, %v", st, err)
	}
	if got, err := read(ctx, fs, "dir/f"); !bytes.Equal(got, data) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, err = fs.Stat(ctx, "dir/f/below")
	wantKind(t, err, freshet.KindNotExist, "")
	_, err = write(ctx, fs, "dir/f/below", nil, ufs.CreateOptions{})
	wantKind(t, err, freshet.KindConflict, "")
	_, err = fs.Mkdir(ctx, "dir/f/below", ufs.MkdirOptions{})
	wantKind(t, err, freshet.KindConflict, "")
	wantKind(t, fs.Remove(ctx, "dir/f/below", ufs.RemoveOptions{}), freshet.KindNotExist, "")
	owner := "carol"
	_, err = fs.SetAttr(ctx, "dir/f", ufs.Attr{Owner: &owner})
	wantKind(t, err, freshet.KindPermission, "")

	// What bob overwrites stays his; what he overwrites of others can't stay theirs.
	mode, group := uint32(0o660), "crew"
	if _, err := write(ctx, super, "shared", []byte("secret"), ufs.CreateOptions{Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if st, err := super.SetAttr(ctx, "shared", ufs.Attr{Owner: &owner, Group: &group, Mode: &mode}); err != nil || st.Owner != owner || st.Group != group || st.Mode != mode {
		t.Fatalf("%+v, %v", st, err)
	}
	st, err = write(ctx, fs, "shared", []byte("new"), ufs.CreateOptions{})
	if err != nil || st.Owner != "bob" || st.Mode != 0o600 {
		t.Errorf("a file of a group that bob is not in: %+v, %v", st, err)
	}
	if st, err = write(ctx, super, "shared", []byte("newer"), ufs.CreateOptions{}); err != nil || st.Owner != "bob" || st.Mode != 0o600 {
		t.Errorf("the superuser keeps owner and mode: %+v, %v", st, err)
	}
}

// TestNamesThatHDFSDoesNotTake are refused before they are sent.
func TestNamesThatHDFSDoesNotTake(t *testing.T) {
	fs, _ := mount(t, nil)
	for _, key := range []string{"a:b", "d/\xff", ".reserved/raw", strings.Repeat("n", 300)} {
		_, err := write(t.Context(), fs, key, nil, ufs.CreateOptions{})
		wantKind(t, err, freshet.KindInvalid, "HDFS")
	}
}

// TestQuota: what HDFS has no room for is exhausted.
func TestQuota(t *testing.T) {
	fs, r := mount(t, nil)
	r.cluster.Admin(t, "-setQuota", "2", r.dir)
	if _, err := write(t.Context(), fs, "one", nil, ufs.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := write(t.Context(), fs, "two", nil, ufs.CreateOptions{})
	wantKind(t, err, freshet.KindExhausted, "quota")
	if left, err := r.leftovers(); len(left) != 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
