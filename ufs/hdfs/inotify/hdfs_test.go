package inotify_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

const heardWithin = 60 * time.Second

// ear hears a real NameNode.
type ear struct {
	t      *testing.T
	next   func() (ufs.Notice, error, bool)
	stop   func()
	cursor []byte
}

func hear(t *testing.T, c *hdfstest.Cluster, since []byte) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	// A NameNode takes its time to start again on a busy machine.
	options := inotify.Options{Addrs: []string{c.Addr()}, User: c.User(), Patience: heardWithin}
	next, stop := iter.Pull2(inotify.New(options).Watch(ctx, since))
	e := &ear{t: t, next: next, cursor: since, stop: func() { cancel(); stop() }}
	t.Cleanup(e.stop)
	return e
}

func (e *ear) notice() ufs.Notice {
	e.t.Helper()
	n, err, ok := e.next()
	if err != nil || !ok {
		e.t.Fatalf("no notice: %v, %v", err, ok)
	}
	if n.Cursor != nil {
		e.cursor = n.Cursor
	}
	return n
}

// until collects what is told until the key is.
func (e *ear) until(key string) (records []invalidation.Record, gaps []string) {
	e.t.Helper()
	for start := time.Now(); time.Since(start) < heardWithin; {
		n := e.notice()
		records = append(records, n.Changes...)
		if n.Gap != "" {
			gaps = append(gaps, n.Gap)
		}
		if slices.ContainsFunc(n.Changes, func(r invalidation.Record) bool { return r.Key == key }) {
			return records, gaps
		}
	}
	e.t.Fatalf("%s was not told within %v", key, heardWithin)
	return nil, nil
}

func local(t *testing.T, bytes int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, bytes), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestEveryKindOfChange(t *testing.T) {
	c := hdfstest.Shared(t)
	f := local(t, 10_000)
	e := hear(t, c, nil)
	e.notice()
	const (
		content = invalidation.KindContent
		meta    = invalidation.KindMeta
		remove  = invalidation.KindDelete
		move    = invalidation.KindRename
		mkdir   = invalidation.KindMkdir
	)
	steps := []struct {
		args string
		want []invalidation.Record
	}{
		{"-mkdir -p /k/d/e", []invalidation.Record{{Kind: mkdir, Key: "/k"}, {Kind: mkdir, Key: "/k/d"}, {Kind: mkdir, Key: "/k/d/e"}}},
		{"-put " + f + " /k/f", nil}, // FsShell writes f._COPYING_ and moves it
		{"-put -d " + f + " /k/direct", []invalidation.Record{{Kind: content, Key: "/k/direct"}}},
		{"-put -d " + f + " /k/direct2", []invalidation.Record{{Kind: content, Key: "/k/direct2"}}},
		{"-touchz /k/empty", []invalidation.Record{{Kind: content, Key: "/k/empty"}}},
		{"-appendToFile " + f + " /k/f", []invalidation.Record{{Kind: content, Key: "/k/f"}}},
		{"-truncate -w 4097 /k/f", []invalidation.Record{{Kind: content, Key: "/k/f"}}},
		{"-chmod 600 /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-chown bob:staff /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-touch -m -t 20200102:030405 /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-setfattr -n user.a -v 1 /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-setfattr -x user.a /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-setfacl -m user:eve:r-- /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-setrep 2 /k/f", []invalidation.Record{{Kind: meta, Key: "/k/f"}}},
		{"-mv /k/f /k/g", []invalidation.Record{{Kind: move, Key: "/k/f", Key2: "/k/g", Recursive: true}}},
		{"-mv /k/d /k/x", []invalidation.Record{{Kind: move, Key: "/k/d", Key2: "/k/x", Recursive: true}}},
		{"-put -f -d " + f + " /k/g", []invalidation.Record{{Kind: content, Key: "/k/g"}}},
		{"-concat /k/g /k/direct /k/direct2", []invalidation.Record{{Kind: content, Key: "/k/g"}, {Kind: remove, Key: "/k/direct", Recursive: true}}},
		{"-rm -skipTrash /k/empty", []invalidation.Record{{Kind: remove, Key: "/k/empty", Recursive: true}}},
		{"-rm -r -skipTrash /k", []invalidation.Record{{Kind: remove, Key: "/k", Recursive: true}}},
	}
	for i, step := range steps {
		c.Dfs(t, strings.Fields(step.args)...)
		marker := fmt.Sprintf("/marker-%d", i)
		c.Dfs(t, "-mkdir", marker)
		got, gaps := e.until(marker)
		if len(gaps) != 0 {
			t.Errorf("%s: gaps %q", step.args, gaps)
		}
		for _, want := range step.want {
			if !slices.ContainsFunc(got, func(r invalidation.Record) bool { return sameRecord(r, want) }) {
				t.Errorf("%s: %+v not told, but %+v", step.args, want, got)
			}
		}
		if step.args[:4] == "-put" && len(got) < 2 {
			t.Errorf("%s: only %+v", step.args, got)
		}
	}
}

func TestNoNoiseFromReadersAndOurselves(t *testing.T) {
	// Every read notes its time.
	c := hdfstest.Start(t, hdfstest.Options{Conf: map[string]string{"dfs.namenode.accesstime.precision": "1"}})
	f := local(t, 100)
	c.Dfs(t, "-mkdir", "/n")
	c.Dfs(t, "-put", f, "/n/f")
	e := hear(t, c, nil)
	e.notice()
	c.Dfs(t, "-cat", "/n/f")
	c.Dfs(t, "-touch", "-a", "-t", "20200102:030405", "/n/f")
	tmp := "/n/" + ufs.TempPrefix + "upload"
	c.Dfs(t, "-put", "-d", f, tmp)
	c.Dfs(t, "-mv", tmp, "/n/g")
	c.Dfs(t, "-mkdir", "/end")
	got, gaps := e.until("/end")
	want := []invalidation.Record{{Kind: invalidation.KindContent, Key: "/n/g", Recursive: true}, {Kind: invalidation.KindMkdir, Key: "/end"}}
	if len(gaps) != 0 || !slices.EqualFunc(got, want, sameRecord) {
		t.Errorf("got %+v, want %+v; gaps %q", got, want, gaps)
	}
	// Open files, snapshots and quotas have no event of their own, and do no harm.
	c.Admin(t, "-allowSnapshot", "/n")
	c.Dfs(t, "-createSnapshot", "/n", "s1")
	c.Admin(t, "-setQuota", "100", "/n")
	c.Dfs(t, "-cp", "/n/.snapshot/s1/f", "/n/restored")
	c.Dfs(t, "-deleteSnapshot", "/n", "s1")
	c.Dfs(t, "-mkdir", "/end2")
	got, gaps = e.until("/end2")
	if len(gaps) != 0 || !slices.ContainsFunc(got, func(r invalidation.Record) bool { return r.Key == "/n/restored" || r.Key2 == "/n/restored" }) {
		t.Errorf("restored from a snapshot: got %+v; gaps %q", got, gaps)
	}
}

func TestNotTheSuperuser(t *testing.T) {
	c := hdfstest.Shared(t)
	s := inotify.New(inotify.Options{Addrs: []string{c.Addr()}, User: "alice"})
	for n, err := range s.Watch(t.Context(), nil) {
		if freshet.KindOf(err) != freshet.KindPermission || !strings.Contains(err.Error(), `"alice"`) {
			t.Errorf("%+v, %v", n, err)
		}
	}
}

func TestNotANameNode(t *testing.T) {
	c := hdfstest.Shared(t)
	for name, addr := range map[string]string{"web pages": c.WebAddr(), "DataNode": c.DataNodeAddr()} {
		s := inotify.New(inotify.Options{Addrs: []string{addr}, User: c.User(), CallTimeout: 2 * time.Second, Patience: time.Second})
		for n, err := range s.Watch(t.Context(), nil) {
			if !freshet.IsKind(err, freshet.KindCorrupt, freshet.KindUnavailable) {
				t.Errorf("%s: %+v, %v", name, n, err)
			}
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestRestartLosesNothing(t *testing.T) {
	c := hdfstest.Start(t, hdfstest.Options{Conf: map[string]string{"dfs.namenode.num.extra.edits.retained": "1000000"}})
	e := hear(t, c, nil)
	e.notice()
	c.Dfs(t, "-mkdir", "/a")
	e.until("/a")
	// While it watches: the connection breaks and comes back.
	c.Dfs(t, "-mkdir", "/b")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.StopNameNode(t)
		c.StartNameNode(t)
		c.Dfs(t, "-mkdir", "/c")
	}()
	got, gaps := e.until("/c")
	<-done
	if len(gaps) != 0 || !slices.ContainsFunc(got, func(r invalidation.Record) bool { return r.Key == "/b" }) {
		t.Errorf("told %+v, gaps %q", got, gaps)
	}
	// While nobody watches.
	e.stop()
	c.Dfs(t, "-mkdir", "/d")
	c.StopNameNode(t)
	c.StartNameNode(t)
	c.Admin(t, "-rollEdits")
	c.Dfs(t, "-mkdir", "/e")
	e2 := hear(t, c, e.cursor)
	got, gaps = e2.until("/e")
	if len(gaps) != 0 || !slices.ContainsFunc(got, func(r invalidation.Record) bool { return r.Key == "/d" }) {
		t.Errorf("told %+v, gaps %q", got, gaps)
	}
	// What was told is told again from an older position, and harms nobody.
	again, gaps := hear(t, c, e.cursor).until("/e")
	if len(gaps) != 0 || !slices.EqualFunc(again, got, sameRecord) {
		t.Errorf("second time %+v, gaps %q", again, gaps)
	}
}

func TestPurgedEdits(t *testing.T) {
	c := hdfstest.Start(t, hdfstest.Options{})
	e := hear(t, c, nil)
	e.notice()
	c.Dfs(t, "-mkdir", "/a")
	e.until("/a")
	e.stop()
	c.Dfs(t, "-mkdir", "/b")
	for range 3 {
		c.PurgeEdits(t)
	}
	// Nothing with an event follows: even so the first notice must have the gap.
	e2 := hear(t, c, e.cursor)
	if n := e2.notice(); !strings.Contains(n.Gap, "no edits") || len(n.Changes) > 0 {
		t.Errorf("got %+v", n)
	}
	c.Dfs(t, "-mkdir", "/c")
	if _, gaps := e2.until("/c"); len(gaps) != 0 {
		t.Errorf("gaps %q after the gap", gaps)
	}
}

func TestReformat(t *testing.T) {
	c := hdfstest.Start(t, hdfstest.Options{})
	e := hear(t, c, nil)
	e.notice()
	c.Dfs(t, "-mkdir", "/a")
	e.until("/a")
	c.Reformat(t)
	// While it watches.
	for n := e.notice(); !strings.Contains(n.Gap, "formatted"); n = e.notice() {
		if n.Gap != "" || len(n.Changes) > 0 {
			t.Fatalf("got %+v", n)
		}
	}
	c.Dfs(t, "-mkdir", "/b")
	e.until("/b")
	// While nobody watches, and then beyond the old position.
	e.stop()
	c.Reformat(t)
	for i := range 20 {
		c.Dfs(t, "-mkdir", fmt.Sprintf("/x%d", i))
	}
	e2 := hear(t, c, e.cursor)
	if n := e2.notice(); !strings.Contains(n.Gap, "formatted") {
		t.Errorf("got %+v", n)
	}
	if bytes.Equal(e.cursor, e2.cursor) {
		t.Error("the position is the old one")
	}
}

// TestOlderState brings the name space back to a copy of it, under the same
// identity, and has it go beyond the old position.
func TestOlderState(t *testing.T) {
	hdfstest.Shared(t) // says whether to skip without Hadoop
	dir := t.TempDir()
	keep := hdfstest.Options{Conf: map[string]string{"dfs.namenode.num.extra.edits.retained": "1000000"}}
	c, err := hdfstest.Launch(t.Context(), dir, keep)
	if err != nil {
		t.Fatal(err)
	}
	c.Dfs(t, "-mkdir", "/a")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	run := func(dir string, f func(c *hdfstest.Cluster)) {
		c, err := hdfstest.Launch(t.Context(), dir, keep)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f(c)
	}
	var cursor []byte
	run(dir, func(c *hdfstest.Cluster) {
		e := hear(t, c, nil)
		e.notice()
		c.Dfs(t, "-mkdir", "/b")
		e.until("/b")
		e.stop()
		cursor = e.cursor
	})
	run(backup, func(c *hdfstest.Cluster) {
		for i := range 10 {
			c.Dfs(t, "-mkdir", fmt.Sprintf("/other%d", i))
		}
		e := hear(t, c, cursor)
		if n := e.notice(); !strings.Contains(n.Gap, "older state") {
			t.Errorf("got %+v", n)
		}
		e.stop()
	})
}
