// Package setups_test applies the recommended set-ups of docs/examples to real
// processes, and holds each to what its text promises.
package setups_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// setup is an example that was written for a directory of this test.
type setup struct {
	dir  string
	file string
}

// example writes an example of the documentation to a file, with the directory of
// this test for that of the example. The changes, old and new in turn, shorten
// times that nobody waits for in a test.
func example(t *testing.T, name string, changes ...string) setup {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := string(b)
	changes = append(changes, "file:///srv/lake", "file://"+dir)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("%s has no %q", name, changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return setup{dir: dir, file: file}
}

func (s setup) world(t *testing.T, lone bool) *e2e.World {
	t.Helper()
	return e2e.NewBareWorld(t, e2e.Dir(s.dir), nil, e2e.Options{Lone: lone, Coordinators: 1, Nodes: 1})
}

// apply makes the set-up that of the region, and sees that nothing is left to do.
func (s setup) apply(t *testing.T, r *e2e.Region) {
	t.Helper()
	r.CLI(t, "config", "validate", s.file).Want(t, 0)
	r.CLI(t, "plan", "-f", s.file).Want(t, 0, "/lake", "nothing changed")
	r.CLI(t, "apply", "-f", s.file).Want(t, 0, " made")
	r.CLI(t, "plan", "-f", s.file, "--prune").Want(t, 0, "0 changes")
	r.Root = "/lake"
	if t.Failed() {
		t.FailNow()
	}
}

// direct changes a file of the storage without Freshet, all at once.
func (s setup) direct(t *testing.T, name, data string) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(s.dir, "..", filepath.Base(s.dir)+".new")
	if err := os.WriteFile(tmp, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, r *e2e.Region, name string) (string, error) {
	data, _, err := r.Read(ctx, name, client.Whole())
	return string(data), err
}

func want(t *testing.T, r *e2e.Region, name, data string) {
	t.Helper()
	if got, err := read(t.Context(), r, name); err != nil || got != data {
		t.Errorf("%s: %s has %q (%v), want %q", r.Name, name, got, err, data)
	}
}

// seen waits until the region has data in the file, and returns how long that took.
func seen(t *testing.T, r *e2e.Region, name, data string) time.Duration {
	t.Helper()
	begun := time.Now()
	err := fleet.Poll(t.Context(), e2e.Patience, name+" in "+r.Name, func(ctx context.Context) error {
		got, err := read(ctx, r, name)
		if err == nil && got != data {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(begun)
}

// stays reads the file for a while: it keeps what it has.
func stays(t *testing.T, r *e2e.Region, name, data string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		want(t, r, name, data)
		<-tick.C
	}
}

func write(t *testing.T, r *e2e.Region, name, data string) {
	t.Helper()
	if _, err := r.Write(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func TestFreshetOnly(t *testing.T) {
	s := example(t, "setup-freshet-only.yaml")
	s.direct(t, "f", "first")
	w := s.world(t, true)
	s.apply(t, w.A)
	want(t, w.A, "f", "first")
	write(t, w.A, "f", "through freshet")
	want(t, w.A, "f", "through freshet")
	s.direct(t, "f", "behind its back")
	stays(t, w.A, "f", "through freshet")
	w.A.CLI(t, "sync", "now", "/lake", "--recursive").Want(t, 0)
	want(t, w.A, "f", "behind its back")
	w.A.CLI(t, "policy", "show", "/lake/logs/x").Want(t, 0, "write_type", "through", "/lake/logs", "apply", "24h0m0s")
	// The policy decides for who names no write type: nothing of the log is cached,
	// when its node has told of what was written after it.
	for _, to := range []string{"/lake/logs/log", "/lake/table"} {
		w.A.CLI(t, "fs", "cp", "file:"+s.file, to).Want(t, 0)
	}
	file, err := os.Stat(s.file)
	if err != nil {
		t.Fatal(err)
	}
	e2e.AwaitCached(t, w.A, "table", file.Size())
	if st, err := w.A.S.Stat(t.Context(), w.A.At("logs/log"), freshet.ReadOptions{}); err != nil || st.CachedBytes != 0 {
		t.Errorf("%d bytes of a log are cached, %v", st.CachedBytes, err)
	}
}

func TestOccasionalDirectChanges(t *testing.T) {
	const interval = 3 * time.Second
	s := example(t, "setup-occasional.yaml", "interval: 5m", "interval: 1h", "sync_interval: 30s", "sync_interval: "+interval.String())
	for _, name := range []string{"f", "incoming/f", "archive/f"} {
		s.direct(t, name, "old")
	}
	w := s.world(t, true)
	s.apply(t, w.A)
	for _, name := range []string{"f", "archive/f"} {
		want(t, w.A, name, "old")
	}
	begun := time.Now() // before the check that the interval counts from
	want(t, w.A, "incoming/f", "old")
	for _, name := range []string{"f", "incoming/f", "archive/f"} {
		s.direct(t, name, "new, directly")
	}
	seen(t, w.A, "incoming/f", "new, directly")
	if took := time.Since(begun); took < interval {
		t.Errorf("seen %s after it was checked, with an interval of %s", took, interval)
	}
	want(t, w.A, "f", "old")
	want(t, w.A, "archive/f", "old")
	w.A.CLI(t, "explain", "/lake/incoming/f").Want(t, 0, "policy of /lake/incoming", interval.String())
	w.A.CLI(t, "explain", "/lake/f").Want(t, 0, "mount /lake", "every 1h")
	w.A.CLI(t, "explain", "/lake/archive/f").Want(t, 0, "policy of /lake/archive", "never by time")
}

func TestFrequentDirectChanges(t *testing.T) {
	// Time finds nothing before every test has given up: what is seen was heard.
	s := example(t, "setup-frequent.yaml", "degraded_interval: 10s", "degraded_interval: 1h")
	s.direct(t, "d/f", "version 0")
	w := s.world(t, true)
	s.apply(t, w.A)
	if err := fleet.Poll(t.Context(), e2e.Patience, "word of the directory", func(ctx context.Context) error {
		mounts, _, err := w.A.S.Mounts(ctx, "/lake")
		if err == nil && (mounts[0].ActiveSync == nil || !mounts[0].ActiveSync.Heard) {
			err = fmt.Errorf("not heard: %+v", mounts[0].ActiveSync)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want(t, w.A, "d/f", "version 0")
	for i := 1; i <= 5; i++ {
		data := fmt.Sprintf("version %d", i)
		s.direct(t, "d/f", data)
		t.Logf("%s seen after %s", data, seen(t, w.A, "d/f", data).Round(time.Millisecond))
	}
	w.A.CLI(t, "explain", "/lake/d/f").Want(t, 0, "inotify")
}

func TestManyClusters(t *testing.T) {
	s := example(t, "setup-many-clusters.yaml", "degraded_interval: 30s", "degraded_interval: 1h", "sync_interval: 1m", "sync_interval: 2s")
	s.direct(t, "f", "first")
	s.direct(t, "feed/f", "first")
	w := s.world(t, false)
	s.apply(t, w.A)
	s.apply(t, w.B)
	w.AwaitBus(t)
	for _, r := range []*e2e.Region{w.A, w.B} {
		want(t, r, "f", "first")
		want(t, r, "feed/f", "first")
	}
	for i, r := range []*e2e.Region{w.A, w.B, w.A} {
		data := fmt.Sprintf("write %d, through %s", i, r.Name)
		write(t, r, "f", data)
		for _, other := range []*e2e.Region{w.A, w.B} {
			t.Logf("%q seen in %s after %s", data, other.Name, seen(t, other, "f", data).Round(time.Millisecond))
		}
	}
	s.direct(t, "feed/f", "directly")
	for _, r := range []*e2e.Region{w.A, w.B} {
		seen(t, r, "feed/f", "directly")
		r.CLI(t, "policy", "show", "/lake/feed/f").Want(t, 0, "consistency", "interval", "/lake/feed", "apply")
	}
	for level, hint := range map[string]string{"bounded": "not built", "strict": "not built"} {
		w.A.CLI(t, "policy", "set", "/lake", "--consistency", level).Want(t, freshet.ExitError, hint)
	}
}
