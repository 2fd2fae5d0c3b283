package coordinator_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
)

// lone is a single member with its log in memory over a storage that is mounted at
// "/". It ends with stop.
func lone(tb testing.TB, uri string, interval freshet.Interval, deps coordinator.Deps) (c *coordinator.Coordinator, stop func() error) {
	tb.Helper()
	c, err := coordinator.New(coordinator.Options{
		Cluster: "bench", Member: namespace.Member{ID: "c1", Name: "c1"},
		Journal: journal.Options{Memory: journal.NewMemory(), Network: &journal.MemoryNetwork{}, Advertise: "c1", Heartbeat: 200 * time.Millisecond},
		Found:   []journal.Server{{ID: "c1", Addr: "c1"}},
		Mounts:  []freshet.MountChange{{Path: "/", URI: &uri, Interval: &interval}},
	}, deps)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = func() error {
		cancel()
		return <-done
	}
	for {
		changed := c.Leadership()
		if _, leads := c.Leading(); leads {
			return c, stop
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			tb.Fatal("no leader")
		}
	}
}

// localCluster is a single member with its log and state in memory over a
// directory.
func localCluster(tb testing.TB, dir string, interval freshet.Interval) *coordinator.Coordinator {
	tb.Helper()
	c, stop := lone(tb, "file://"+dir, interval, coordinator.Deps{Store: kv.NewMemory(), Openers: ufs.Openers{local.Opener{}}})
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

func BenchmarkStatHot(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		b.Fatal(err)
	}
	c := localCluster(b, dir, freshet.Interval(time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Stat(b.Context(), "/f", freshet.ReadOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListHot(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%04d", i)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	c := localCluster(b, dir, freshet.Interval(time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		page, err := c.List(b.Context(), freshet.ListQuery{Path: "/"})
		if err != nil || len(page.Entries) != 1000 {
			b.Fatal(len(page.Entries), err)
		}
	}
}

func benchmarkSync(b *testing.B, cold bool) {
	dir := b.TempDir()
	const dirs, files = 100, 1000
	for i := range dirs {
		d := filepath.Join(dir, fmt.Sprintf("d%03d", i))
		if err := os.Mkdir(d, 0o700); err != nil {
			b.Fatal(err)
		}
		for j := range files {
			if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("f%04d", j)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	sync := func(c *coordinator.Coordinator) {
		var last freshet.SyncProgress
		err := c.Sync(b.Context(), "/", true, func(p freshet.SyncProgress) error { last = p; return nil })
		if err != nil || last.Entries < dirs*files || !last.Done {
			b.Fatal(last, err)
		}
	}
	c := localCluster(b, dir, freshet.Never)
	if !cold {
		sync(c)
	}
	for b.Loop() {
		if cold {
			b.StopTimer()
			c = localCluster(b, dir, freshet.Never)
			b.StartTimer()
		}
		sync(c)
	}
	b.ReportMetric(float64(dirs*files)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkSyncCold(b *testing.B)      { benchmarkSync(b, true) }
func BenchmarkSyncUnchanged(b *testing.B) { benchmarkSync(b, false) }
