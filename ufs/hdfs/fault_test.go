package hdfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
)

// bareClient is the library without the driver: another program.
func bareClient(t testing.TB, c *hdfstest.Cluster) *lib.Client {
	t.Helper()
	client, err := lib.NewClient(lib.ClientOptions{Addresses: []string{c.Addr()}, User: hdfstest.User})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// closeWriter closes a file of the library, which asks to be asked again while the
// DataNode has not reported its block.
func closeWriter(t testing.TB, w *lib.FileWriter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		err := w.Close()
		if err == nil {
			return
		}
		if !lib.IsErrReplicating(err) {
			t.Fatal(err)
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// private is an FS on a cluster that a test may break.
func private(t *testing.T, more map[string]string) (ufs.FS, root) {
	t.Helper()
	c := hdfstest.Start(t, hdfstest.Options{})
	r := newRoot(t, c)
	fs := open(t, c.Addr(), r.dir, more)
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return fs, r
}

// eventually calls f until it succeeds.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func wantOutage(t *testing.T, what string, err error) {
	t.Helper()
	if !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
		t.Errorf("%s: %v (kind %v), want unavailable", what, err, freshet.KindOf(err))
	}
}

// TestRestartOfTheNameNode: in the middle of a read, a listing and a write.
func TestRestartOfTheNameNode(t *testing.T) {
	fs, r := private(t, nil)
	ctx := t.Context()
	data := pattern(3, 9<<20)
	if _, err := write(ctx, fs, "big", data, ufs.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	touch := []string{"-touchz"}
	var names []string
	for i := range 2500 {
		names = append(names, fmt.Sprintf("many/f%04d", i))
		touch = append(touch, r.at(names[i]))
	}
	r.cluster.Dfs(t, "-mkdir", r.at("many"))
	r.cluster.Dfs(t, touch...)

	reader, _, err := fs.Open(ctx, "big", ufs.OpenOptions{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // end of the test
	head := make([]byte, 1000)
	if _, err := io.ReadFull(reader, head); err != nil {
		t.Fatal(err)
	}
	var listed []string
	var listErr error
	writer, err := fs.Create(ctx, "new", ufs.CreateOptions{Op: freshet.OpID{1}, Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(data[:3<<20]); err != nil {
		t.Fatal(err)
	}
	for st, err := range fs.List(ctx, "many", ufs.ListOptions{}) {
		if err != nil {
			listErr = err
			break
		}
		if listed = append(listed, st.Key); len(listed) == 1000 {
			r.cluster.StopNameNode(t)
		}
	}
	wantOutage(t, "the listing", listErr)
	if !slices.Equal(listed, names[:len(listed)]) {
		t.Errorf("the listing gave %d wrong names", len(listed))
	}
	_, err = fs.Stat(ctx, "big")
	wantOutage(t, "stat", err)
	wantOutage(t, "remove", fs.Remove(ctx, "big", ufs.RemoveOptions{}))
	_, err = fs.AbortUpload(ctx, "new", freshet.OpID{1})
	wantOutage(t, "abort of an upload", err)
	tail, err := io.ReadAll(reader)
	wantOutage(t, "the read", err)
	if got := slices.Concat(head, tail); !bytes.HasPrefix(data, got) {
		t.Errorf("the read gave %d wrong bytes", len(got))
	}
	r.cluster.StartNameNode(t)
	// The writer's lease outlives the NameNode; the upload goes through or fails, whole.
	_, err = writer.Write(data[3<<20:])
	if err == nil {
		_, err = writer.Commit(ctx)
	}
	t.Logf("the write across the restart: %v", err)
	if err != nil {
		wantOutage(t, "the write", err)
		if err := writer.Abort(ctx); err != nil {
			t.Error(err)
		}
		_, err := fs.Stat(ctx, "new")
		wantKind(t, err, freshet.KindNotExist, "")
	} else if got, err := read(ctx, fs, "new"); !bytes.Equal(got, data) || err != nil {
		t.Errorf("%d bytes were written, %v", len(got), err)
	}
	if keys, err := list(ctx, fs, "many", ufs.ListOptions{}); len(keys) != len(names) || err != nil {
		t.Errorf("%d entries, %v", len(keys), err)
	}
	if got, err := read(ctx, fs, "big"); !bytes.Equal(got, data) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	wantNothingLeft(t, r)
}

func wantNothingLeft(t *testing.T, r root) {
	t.Helper()
	if left, err := r.leftovers(); len(left) != 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestRestartBetweenCalls: connections that died unnoticed are not the caller's trouble.
func TestRestartBetweenCalls(t *testing.T) {
	fs, r := private(t, nil)
	ctx := t.Context()
	if _, err := write(ctx, fs, "f", []byte("x"), ufs.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.cluster.StopNameNode(t)
	r.cluster.StartNameNode(t)
	if got, err := read(ctx, fs, "f"); string(got) != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := write(ctx, fs, "g", []byte("y"), ufs.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := fs.Rename(ctx, "g", "h"); err != nil {
		t.Error(err)
	}
	if err := fs.Remove(ctx, "h", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

// TestStopOfTheDataNode: metadata stays, data is unavailable, and what was being
// written leaves nothing.
func TestStopOfTheDataNode(t *testing.T) {
	fs, r := private(t, map[string]string{"request_timeout": "5s"})
	ctx := t.Context()
	data := pattern(4, 9<<20)
	if _, err := write(ctx, fs, "f", data, ufs.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	reader, _, err := fs.Open(ctx, "f", ufs.OpenOptions{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // end of the test
	writer, err := fs.Create(ctx, "new", ufs.CreateOptions{Op: freshet.OpID{2}, Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(data[:1<<19]); err != nil {
		t.Fatal(err)
	}
	r.cluster.StopDataNode(t)
	got, err := io.ReadAll(reader)
	wantOutage(t, "the read", err)
	if !bytes.HasPrefix(data, got) {
		t.Errorf("the read gave %d wrong bytes", len(got))
	}
	_, err = read(ctx, fs, "f")
	wantOutage(t, "another read", err)
	if st, err := fs.Stat(ctx, "f"); err != nil || st.Length != int64(len(data)) {
		t.Errorf("%+v, %v", st, err)
	}
	_, err = writer.Write(data[1<<19:])
	if err == nil {
		_, err = writer.Commit(ctx)
	}
	wantOutage(t, "the write", err)
	if err := writer.Abort(ctx); err != nil {
		t.Error(err)
	}
	_, err = fs.Stat(ctx, "new")
	wantKind(t, err, freshet.KindNotExist, "")
	wantNothingLeft(t, r)
	r.cluster.StartDataNode(t)
	eventually(t, "read after the restart", func() error {
		got, err := read(ctx, fs, "f")
		if err == nil && !bytes.Equal(got, data) {
			t.Fatalf("%d other bytes", len(got))
		}
		return err
	})
	eventually(t, "write after the restart", func() error {
		_, err := write(ctx, fs, "new", data, ufs.CreateOptions{Op: freshet.OpID{3}})
		return err
	})
	wantNothingLeft(t, r)
}

// TestLateReports: a NameNode that hears late of what the DataNode stored gives the
// next block late, and closes the file late. The writer waits for both, whichever
// block it is that the NameNode has not heard of.
func TestLateReports(t *testing.T) {
	c := hdfstest.Start(t, hdfstest.Options{Conf: map[string]string{"dfs.blockreport.incremental.intervalMsec": "1000"}})
	r := newRoot(t, c)
	fs := open(t, c.Addr(), r.dir, nil)
	defer fs.Close() //nolint:errcheck // end of the test
	ctx := t.Context()
	for blocks := range 5 {
		key, data := fmt.Sprint("f", blocks), pattern(6, blocks<<20+1000)
		if _, err := write(ctx, fs, key, data, ufs.CreateOptions{}); err != nil {
			t.Errorf("%d blocks: %v", blocks+1, err)
		} else if got, err := read(ctx, fs, key); !bytes.Equal(got, data) || err != nil {
			t.Errorf("%d blocks: %d bytes, %v", blocks+1, len(got), err)
		}
	}
	wantNothingLeft(t, r)
}

// TestSafeMode: a NameNode that only answers questions is not an answer to a change.
func TestSafeMode(t *testing.T) {
	fs, r := private(t, nil)
	ctx := t.Context()
	if _, err := write(ctx, fs, "f", []byte("x"), ufs.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.cluster.Admin(t, "-safemode", "enter")
	_, err := write(ctx, fs, "g", []byte("y"), ufs.CreateOptions{})
	wantOutage(t, "write", err)
	if err == nil || !strings.Contains(err.Error(), "safe mode") {
		t.Errorf("the error does not tell of safe mode: %v", err)
	}
	wantOutage(t, "remove", fs.Remove(ctx, "f", ufs.RemoveOptions{}))
	_, err = fs.Rename(ctx, "f", "h")
	wantOutage(t, "rename", err)
	_, err = fs.Mkdir(ctx, "d", ufs.MkdirOptions{})
	wantOutage(t, "mkdir", err)
	if got, err := read(ctx, fs, "f"); string(got) != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	r.cluster.Admin(t, "-safemode", "leave")
	if err := fs.Remove(ctx, "f", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

// TestBytesThatFailTheirChecksum are never handed out: the library returns them and
// keeps the error for itself.
func TestBytesThatFailTheirChecksum(t *testing.T) {
	dir := t.TempDir()
	c := hdfstest.Start(t, hdfstest.Options{Conf: map[string]string{"dfs.datanode.data.dir": "file://" + dir}})
	r := newRoot(t, c)
	fs := open(t, c.Addr(), r.dir, map[string]string{"block_size": "8MiB"})
	defer fs.Close() //nolint:errcheck // end of the test
	ctx := t.Context()
	data := pattern(5, 2<<20)
	for at, offset := range map[string]int64{"at the start": 5, "in the middle": 1 << 20, "in the last chunk": 2<<20 - 1} {
		key := strings.ReplaceAll(at, " ", "-")
		if _, err := write(ctx, fs, key, data, ufs.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if n := damage(t, dir, data, offset); n != 1 {
			t.Fatalf("%d blocks damaged", n)
		}
		got, err := read(ctx, fs, key)
		if !bytes.HasPrefix(data, got) {
			t.Errorf("%s: bytes that are not those that were written", at)
		}
		wantOutage(t, at, err)
	}
}

// damage changes a byte of the blocks that hold data, behind the back of HDFS.
func damage(t *testing.T, dir string, data []byte, offset int64) (damaged int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(d.Name(), "blk_") || strings.HasSuffix(d.Name(), ".meta") {
			return err
		}
		held, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(held, data) {
			return err
		}
		held[offset] ^= 0xff
		damaged++
		return os.WriteFile(name, held, 0o600)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return damaged
}
