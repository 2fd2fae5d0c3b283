package tools_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestFilesAreWarmedAndFreed goes through what the cache commands do to a tree of files
// of five blocks.
func TestFilesAreWarmedAndFreed(t *testing.T) {
	const files, size = 30, 300_000
	dir := t.TempDir()
	for i := range files {
		write(t, dir, name(i), e2e.Content(name(i), 1, size))
	}
	write(t, dir, "d0/empty", nil)
	w := e2e.NewBareWorld(t, e2e.Dir(dir), nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 3})
	a := w.A
	a.Mount(t, "/lake", "file://"+dir, nil)
	a.CLI(t, "policy", "set", "/lake", "--block-size", "64KiB").Want(t, 0)
	cached := func(path string, want float64) {
		t.Helper()
		if s := stat(t, a, path); s.CachedRatio != want {
			t.Errorf("of %s %v is cached, want %v: %+v", path, s.CachedRatio, want, s)
		}
	}
	t.Run("warm", func(t *testing.T) { warms(t, a, cached) })
	t.Run("free", func(t *testing.T) { frees(t, a, cached) })
	t.Run("properties", func(t *testing.T) { sets(t, a) })
	t.Run("what makes no sense is refused", func(t *testing.T) {
		a.CLI(t, "cache", "warm", "/lake/none").Want(t, 3)
		a.CLI(t, "cache", "warm", "/lake", "--include", "[").Want(t, 2, "malformed")
		a.CLI(t, "cache", "warm", "/lake", "--replicas", "4").Want(t, 5, "3 cache nodes live")
		a.CLI(t, "cache", "warm", "/lake", "--zone", "mars").Want(t, 5, "zone mars")
		a.CLI(t, "cache", "warm", "/lake", "--check", "--evict").Want(t, 2)
		a.CLI(t, "cache", "warm", "/lake", "--location").Want(t, 2, "--check")
		a.CLI(t, "cache", "free", "/lake/d0").Want(t, 2, "--recursive")
		a.CLI(t, "cache", "free", "/lake/none").Want(t, 3)
		a.CLI(t, "cache", "status", "999999").Want(t, 3)
		a.CLI(t, "cache", "cancel", "x").Want(t, 2)
	})
}

func warms(t *testing.T, a *e2e.Region, cached func(string, float64)) {
	const files, size = 30, 300_000
	cached("/lake", 0)
	a.CLI(t, "cache", "warm", "/lake", "--dry-run").Want(t, 0, "dry run", "31 files")
	cached("/lake", 0)
	var j warm
	a.CLI(t, "cache", "warm", "/lake/d0", "--include", "*.bin", "--exclude", "f00*", "--first-bytes", "1", "-o", "json").Want(t, 0).JSON(t, &j)
	if j.State != "done" || j.Files != "6" || number(t, j.WarmedBytes) != 6*65536 || !j.Counted || j.TotalBytes != j.WarmedBytes {
		t.Errorf("with a filter: %+v", j)
	}
	if s := stat(t, a, "/lake"); s.CachedBytes != 6*65536 || s.CachedBlocks != 6 {
		t.Errorf("with a filter: %+v", s)
	}
	a.CLI(t, "cache", "warm", "/lake", "-o", "json").Want(t, 0).JSON(t, &j)
	if j.State != "done" || j.Files != "31" || number(t, j.WarmedBytes)+number(t, j.CachedBytes) != files*size || number(t, j.CachedBytes) != 6*65536 {
		t.Errorf("the rest: %+v", j)
	}
	cached("/lake", 1)
	if s := stat(t, a, "/lake"); len(s.Nodes) != 3 || s.CachedFiles != files+1 {
		t.Errorf("the nodes have no part each: %+v", s)
	}
	before := metric(t, a, `freshet_reads_total{source="ufs"}`)
	for i := range files {
		data, _, err := a.Read(t.Context(), name(i), client.Whole())
		if err != nil {
			t.Fatal(err)
		}
		if v, err := e2e.VersionOf(name(i), 0, data); err != nil || v != 1 || len(data) != size {
			t.Errorf("%s: %d bytes of version %d: %v", name(i), len(data), v, err)
		}
	}
	if n := metric(t, a, `freshet_reads_total{source="ufs"}`) - before; n != 0 {
		t.Errorf("%d reads of what was warmed asked the storage", n)
	}
	a.CLI(t, "cache", "warm", "/lake", "--check", "--location").Want(t, 0, "100.0 %", "NODE")
	a.CLI(t, "cache", "ls", "/lake/d1").Want(t, 0, "100.0 %", "5/5", "/lake/d1/f001.bin")
	a.CLI(t, "cache", "warm", "/lake/d1", "/lake/d2/f002.bin", "--replicas", "2", "-o", "json").Want(t, 0).JSON(t, &j)
	if number(t, j.WarmedBytes) != 11*size || number(t, j.CachedBytes) != 11*size {
		t.Errorf("the second copies: %+v", j)
	}
	a.CLI(t, "cache", "status").Want(t, 0, "done", "/lake/d1, /lake/d2/f002.bin")
	e2e.HTTP(t, "GET", "http://"+a.HTTP[0]+"/v1/cache?path=/lake/d1&recursive=true", "").Want(t, 200, `"cachedBlocks":"5"`)
	e2e.HTTP(t, "GET", "http://"+a.HTTP[0]+"/v1/cache?path=/lake&recursive=true&filter.include=f001*", "").Want(t, 200, "/lake/d1/f001.bin", `"cachedBlocks":"5"`)
	e2e.HTTP(t, "GET", "http://"+a.HTTP[0]+"/v1/cache?path=/lake&recursive=true&place.host=nowhere", "").Want(t, 404, "no cache node fits", "nowhere")
}

func frees(t *testing.T, a *e2e.Region, cached func(string, float64)) {
	a.CLI(t, "cache", "free", "/lake/d0", "--recursive", "--dry-run").Want(t, 0, "dry run", "10 files")
	cached("/lake/d0", 1)
	a.CLI(t, "cache", "free", "/lake/d0", "--recursive").Want(t, 0, "10 files", "50 blocks")
	cached("/lake/d0", 0)
	cached("/lake/d1", 1)
	a.CLI(t, "cache", "pin", "/lake/d1/f001.bin").Want(t, 0, "pinned", "true")
	a.CLI(t, "cache", "free", "/lake/d1/f001.bin").Want(t, 4, "pinned", "unpin")
	a.CLI(t, "cache", "free", "/lake/d1", "--recursive").Want(t, 8, "/lake/d1/f001.bin", "1 file was kept")
	cached("/lake/d1/f001.bin", 1)
	if s := stat(t, a, "/lake/d1"); s.CachedFiles != 1 {
		t.Errorf("after all but one were freed: %+v", s)
	}
	a.CLI(t, "cache", "unpin", "/lake/d1/f001.bin").Want(t, 0, "unpinned")
	a.CLI(t, "cache", "warm", "/lake", "--evict").Want(t, 0)
	cached("/lake", 0)
	if _, err := a.S.Stat(t.Context(), a.At("d0/f000.bin"), freshet.ReadOptions{}); err != nil {
		t.Errorf("what was freed is gone: %v", err)
	}
}

func sets(t *testing.T, a *e2e.Region) {
	a.CLI(t, "cache", "pin", "/lake", "--dry-run").Want(t, 0, "dry run")
	a.CLI(t, "cache", "unpin", "/lake").Want(t, 0, "not pinned")
	a.CLI(t, "cache", "pin", "/lake").Want(t, 0)
	a.CLI(t, "cache", "unpin", "/lake/d1").Want(t, 0, "a path above it pins", "false")
	a.CLI(t, "policy", "show", "/lake/d1/f001.bin").Want(t, 0, "/lake/d1")
	a.CLI(t, "cache", "unpin", "/lake").Want(t, 0, "unpinned")
	a.CLI(t, "cache", "ttl", "/lake", "24h").Want(t, 0, "ttl", "24h0m0s")
	a.CLI(t, "cache", "ttl", "/lake", "soon").Want(t, 2)
	a.CLI(t, "cache", "replicas", "/lake/d2", "2:3").Want(t, 0, "replication_min", "2", "replication_max", "3")
	a.CLI(t, "cache", "replicas", "/lake/d2", "1").Want(t, 0, "replication_max", "0")
	a.CLI(t, "cache", "replicas", "/lake/d2", "3:2").Want(t, 2)
}

// TestAWarmSurvivesItsLeader kills the leader while thousands of files are warmed, and
// rewrites some of them meanwhile.
func TestAWarmSurvivesItsLeader(t *testing.T) {
	const files, size, changed = 3000, 8192, 100
	dir := t.TempDir()
	for i := range files {
		write(t, dir, name(i), e2e.Content(name(i), 1, size))
	}
	w := e2e.NewBareWorld(t, e2e.Dir(dir), nil, e2e.Options{Lone: true, Coordinators: 3, Nodes: 2})
	a := w.A
	a.Mount(t, "/lake", "file://"+dir, nil)
	if err := fleet.Poll(t.Context(), e2e.Patience, "all versions", func(ctx context.Context) error {
		c, err := a.S.Cluster(ctx)
		if err == nil && c.StateVersion < 5 {
			err = fmt.Errorf("version %d is in force", c.StateVersion)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	leader, err := a.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var started struct{ Warm warm }
	a.CLI(t, "cache", "warm", "/lake", "--async", "-o", "json").Want(t, 0).JSON(t, &started)
	id := started.Warm.ID
	show := func(t *testing.T) warm {
		var all struct{ Warms []warm }
		ran := a.CLI(t, "cache", "status", id, "-o", "json")
		if ran.Code != 0 {
			return warm{State: "unknown", Error: ran.Err}
		}
		ran.JSON(t, &all)
		return all.Warms[0]
	}
	await := func(what string, ok func(j warm) bool) {
		t.Helper()
		if err := fleet.Poll(t.Context(), 2*e2e.Patience, what, func(context.Context) error {
			if j := show(t); !ok(j) {
				return fmt.Errorf("%+v", j)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	await("its beginning", func(j warm) bool { return j.State != "queued" && j.Files != "0" && j.Files != "" })
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	for i := range changed {
		tmp := filepath.Join(dir, ".freshet.test")
		if err := errors.Join(os.WriteFile(tmp, e2e.Content(name(i), 2, size), 0o600), os.Rename(tmp, filepath.Join(dir, name(i)))); err != nil {
			t.Fatal(err)
		}
	}
	await("its end", func(j warm) bool { return j.State == "done" || j.State == "failed" })
	j := show(t)
	if j.State != "done" || number(t, j.Files) != files {
		t.Errorf("ended as %+v", j)
	}
	a.CLI(t, "sync", "now", "/lake", "--recursive").Want(t, 0)
	a.CLI(t, "cache", "warm", "/lake", "-o", "json").Want(t, 0).JSON(t, &j)
	if j.State != "done" || number(t, j.WarmedBytes)+number(t, j.CachedBytes) != files*size {
		t.Errorf("again: %+v", j)
	}
	if s := stat(t, a, "/lake"); s.CachedRatio != 1 {
		t.Errorf("afterwards: %+v", s)
	}
	for i := range 2 * changed {
		data, _, err := a.Read(t.Context(), name(i), client.Whole())
		want := uint64(1)
		if i < changed {
			want = 2
		}
		if v, verr := e2e.VersionOf(name(i), 0, data); err != nil || verr != nil || v != want {
			t.Fatalf("%s is of version %d, want %d: %v %v", name(i), v, want, err, verr)
		}
	}
}

// TestAWarmStopsWhenTheCacheIsFull, says so, and can be cancelled.
func TestAWarmStopsWhenTheCacheIsFull(t *testing.T) {
	const files, size = 40, 8 << 20 // 320 MiB into 256 MiB
	dir := t.TempDir()
	for i := range files {
		file := filepath.Join(dir, name(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
			t.Fatal(err)
		}
	}
	w := e2e.NewBareWorld(t, e2e.Dir(dir), nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	a := w.A
	a.Mount(t, "/lake", "file://"+dir, nil)
	a.CLI(t, "cache", "warm", "/lake").Want(t, 5, "more than the cache nodes", "can hold")
	if s := stat(t, a, "/lake"); s.CachedBytes < 128<<20 {
		t.Errorf("little was warmed before: %+v", s)
	}
	a.CLI(t, "cache", "status").Want(t, 0, "failed")
	a.CLI(t, "cache", "warm", "/lake", "--evict").Want(t, 0)
	// One that has much to do, cancelled by its number or by the end of the command.
	a.CLI(t, "cache", "warm", "/lake", "--timeout", "1ms").Want(t, 5)
	var started struct{ Warm warm }
	a.CLI(t, "cache", "warm", "/lake", "--async", "-o", "json").Want(t, 0).JSON(t, &started)
	if ran := a.CLI(t, "cache", "cancel", started.Warm.ID); ran.Code != 0 && ran.Code != 4 { // it may have ended
		t.Errorf("cancel: %+v", ran)
	}
	a.CLI(t, "cache", "cancel", "1").Want(t, 3)
}
