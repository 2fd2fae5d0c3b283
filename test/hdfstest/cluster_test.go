package hdfstest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/colinmarc/hdfs/v2"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/hdfstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: hdfstest.StopShared})
}

func newClient(t *testing.T, c *hdfstest.Cluster) *hdfs.Client {
	t.Helper()
	client, err := hdfs.NewClient(hdfs.ClientOptions{Addresses: []string{c.Addr()}, User: c.User()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// writeFile writes a file of one block: of several the library finishes none whose
// first blocks the DataNode reports late, as it does on a busy machine.
func writeFile(t *testing.T, client *hdfs.Client, path string, content []byte) {
	t.Helper()
	w, err := client.CreateFile(path, 1, 1<<20, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for err = w.Close(); hdfs.IsErrReplicating(err) && time.Now().Before(deadline); err = w.Close() {
	}
	if err != nil {
		t.Fatal(err)
	}
}

func refuses(t *testing.T, addr string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// What one client writes, the other sees, in both directions and with odd names.
func TestTwoClientsSeeTheSameFiles(t *testing.T) {
	c := hdfstest.Shared(t)
	client := newClient(t, c)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	if err := client.MkdirAll("/two/a b+c%d é", 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, client, "/two/a b+c%d é/file", content)
	if got := c.Dfs(t, "-ls", "/two/a b+c%d é"); !strings.Contains(got, " 16000 ") || !strings.Contains(got, "/two/a b+c%d é/file") {
		t.Errorf("hdfs dfs -ls prints %q", got)
	}

	local := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(local, content[:5000], 0o600); err != nil {
		t.Fatal(err)
	}
	c.Dfs(t, "-put", local, "/two/put")
	got, err := client.ReadFile("/two/put")
	if err != nil || !bytes.Equal(got, content[:5000]) {
		t.Errorf("read %d bytes, %v, want the 5000 that were put", len(got), err)
	}
	if got := c.Dfs(t, "-cat", c.URI("/two/put")); got != string(content[:5000]) {
		t.Errorf("hdfs dfs -cat prints %d bytes, want the 5000 that were put", len(got))
	}
}

func TestAFailedCommandSaysWhy(t *testing.T) {
	c := hdfstest.Shared(t)
	_, err := c.Do(t.Context(), "dfs", "-ls", "/none")
	var failed *hdfstest.CommandError
	if !errors.As(err, &failed) || !strings.Contains(failed.Output, "No such file or directory") {
		t.Errorf("got %v, want a CommandError for a missing file", err)
	}
	if _, err := c.Do(t.Context(), "nonsense"); !errors.As(err, &failed) {
		t.Errorf("got %v, want a CommandError for an unknown command", err)
	}
}

func TestNameNodeComesBackWithItsFiles(t *testing.T) {
	c := hdfstest.Start(t, hdfstest.Options{})
	writeFile(t, newClient(t, c), "/kept", []byte("kept"))
	c.StopNameNode(t)
	if !refuses(t, c.Addr()) {
		t.Error("a stopped NameNode accepts connections")
	}
	c.StartNameNode(t)
	got, err := newClient(t, c).ReadFile("/kept")
	if err != nil || string(got) != "kept" {
		t.Errorf("read %q, %v after the restart", got, err)
	}
	if got := c.Admin(t, "-safemode", "get"); !strings.Contains(got, "OFF") {
		t.Errorf("safe mode: %q", got)
	}
	c.Dfs(t, "-touchz", "/written-after")

	c.StopDataNode(t)
	if !refuses(t, c.DataNodeAddr()) {
		t.Error("a stopped DataNode accepts connections")
	}
	c.StartDataNode(t)
	client := newClient(t, c)
	if got, err := client.ReadFile("/kept"); err != nil || string(got) != "kept" {
		t.Errorf("read %q, %v after the restart of the DataNode", got, err)
	}
	writeFile(t, client, "/new", []byte("new"))

	c.Reformat(t)
	if got := c.Dfs(t, "-ls", "/"); got != "" {
		t.Errorf("after Reformat there are %q", got)
	}
	writeFile(t, newClient(t, c), "/again", []byte("again"))
}

func TestPurgeEditsLeavesNoOldEdits(t *testing.T) {
	dir := t.TempDir()
	c, err := hdfstest.Launch(t.Context(), dir, hdfstest.Options{Log: io.Discard})
	if err != nil {
		child.FailOrSkip(t, err)
	}
	defer c.Close()
	finished := func() []string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "name", "current", "edits_0*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	c.Dfs(t, "-mkdir", "/a")
	c.Admin(t, "-rollEdits")
	first := finished()
	if len(first) == 0 {
		t.Fatal("no edits to purge")
	}
	c.PurgeEdits(t)
	for _, old := range first {
		if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", filepath.Base(old), err)
		}
	}
	if got := c.Dfs(t, "-ls", "/"); !strings.Contains(got, "/a") {
		t.Errorf("after PurgeEdits there are %q", got)
	}
}

func TestCloseLeavesNoProcess(t *testing.T) {
	c, err := hdfstest.Launch(t.Context(), t.TempDir(), hdfstest.Options{})
	if err != nil {
		child.FailOrSkip(t, err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := syscall.Kill(c.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", c.PID(), err)
	}
	if !refuses(t, c.Addr()) {
		t.Error("a closed cluster accepts connections")
	}
	if _, err := c.Do(context.Background(), "dfs", "-ls", "/"); err == nil {
		t.Error("a closed cluster executes commands")
	}
}
