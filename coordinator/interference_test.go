package coordinator_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
)

// memCluster is a single member with its log and state in memory over a storage in
// memory, mounted at "/".
func memCluster(b *testing.B, store *mem.Store) *coordinator.Coordinator {
	b.Helper()
	uri, never := "mem://lake", freshet.Never
	c, err := coordinator.New(coordinator.Options{
		Cluster: "bench", Member: namespace.Member{ID: "c1", Name: "c1"},
		Journal: journal.Options{Memory: journal.NewMemory(), Network: &journal.MemoryNetwork{}, Advertise: "c1", Heartbeat: 200 * time.Millisecond},
		Found:   []journal.Server{{ID: "c1", Addr: "c1"}},
		Mounts:  []freshet.MountChange{{Path: "/", URI: &uri, Interval: &never}},
	}, coordinator.Deps{Store: kv.NewMemory(), Openers: ufs.Openers{mem.Opener{"lake": store}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for {
		changed := c.Leadership()
		if _, leads := c.Leading(); leads {
			return c
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			b.Fatal("no leader")
		}
	}
}

// lookups stats cached files, one after the other, until stop, and returns how
// many per second, and how long all but one of a hundred took at most.
func lookups(b *testing.B, c *coordinator.Coordinator, stop <-chan struct{}) (perSecond float64, p99 time.Duration) {
	b.Helper()
	var took []time.Duration
	begin := time.Now()
	for i := 0; ; i++ {
		select {
		case <-stop:
			slices.Sort(took)
			return float64(len(took)) / time.Since(begin).Seconds(), took[len(took)*99/100]
		default:
		}
		p := freshet.Path(fmt.Sprintf("/hot/f%03d", i%1000))
		at := time.Now()
		if _, err := c.Stat(b.Context(), p, freshet.ReadOptions{}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(at))
	}
}

// burn uses a processor until stop and touches nothing that others use.
func burn(stop <-chan struct{}) {
	var block [1024]byte
	for {
		select {
		case <-stop:
			return
		default:
			sum := sha256.Sum256(block[:])
			copy(block[:], sum[:])
		}
	}
}

// BenchmarkLookupsBesideABigSync shows what the sync of a directory of 200,000
// entries and lookups of cached entries elsewhere cost each other: lookups alone,
// during the first sync, which loads all, and during one that finds nothing new;
// and both syncs with and without the lookups. Who uses a processor without touching
// anything costs the others time too: the same with such a one, "-burn", is what
// is left when nothing is shared but the processors.
func BenchmarkLookupsBesideABigSync(b *testing.B) {
	const entries = 200_000
	fill := func() *mem.Store {
		store := mem.New(mem.Options{})
		for i := range entries {
			store.Put(fmt.Sprintf("big/f%06d", i), nil)
		}
		for i := range 1000 {
			store.Put(fmt.Sprintf("hot/f%03d", i), nil)
		}
		return store
	}
	store := fill()
	sync := func(c *coordinator.Coordinator, p freshet.Path) time.Duration {
		begin := time.Now()
		if err := c.Sync(b.Context(), p, true, quiet); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	for b.Loop() {
		alone := memCluster(b, store)
		cold := sync(alone, "/big")
		unchanged := sync(alone, "/big")
		burning := make(chan struct{})
		go burn(burning)
		b.ReportMetric(sync(alone, "/big").Seconds()/unchanged.Seconds(), "sync-time-ratio-unchanged-burn")
		b.ReportMetric(sync(memCluster(b, store), "/big").Seconds()/cold.Seconds(), "sync-time-ratio-cold-burn")
		close(burning)

		c := memCluster(b, store)
		sync(c, "/hot")
		stop := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(stop) })
		rate, p99 := lookups(b, c, stop)
		burning, stop = make(chan struct{}), make(chan struct{})
		go burn(burning)
		time.AfterFunc(time.Second, func() { close(stop) })
		beside, _ := lookups(b, c, stop)
		close(burning)
		b.ReportMetric(beside/rate, "lookups-ratio-burn")
		b.ReportMetric(rate, "lookups/s-alone")
		b.ReportMetric(float64(p99.Microseconds()), "µs-p99-alone")
		for name, before := range map[string]time.Duration{"cold": cold, "unchanged": unchanged} {
			if name == "unchanged" {
				sync(c, "/big")
			} else {
				c = memCluster(b, store)
				sync(c, "/hot")
			}
			stop, took := make(chan struct{}), make(chan time.Duration, 1)
			go func() {
				defer close(stop)
				took <- sync(c, "/big")
			}()
			during, worst := lookups(b, c, stop)
			b.ReportMetric(during, "lookups/s-"+name)
			b.ReportMetric(during/rate, "lookups-ratio-"+name)
			b.ReportMetric(float64(worst.Microseconds()), "µs-p99-"+name)
			b.ReportMetric((<-took).Seconds()/before.Seconds(), "sync-time-ratio-"+name)
			b.ReportMetric(entries/before.Seconds(), "entries/s-"+name)
		}
	}
}
