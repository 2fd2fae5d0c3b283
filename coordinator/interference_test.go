package coordinator_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sync"
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

// share is what became of a thread's time.
type share struct {
	lookups                  int
	ran, queued, slept, wall time.Duration
}

// of returns d per lookup in nanoseconds.
func (s share) of(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / float64(max(s.lookups, 1))
}

// threadTime returns how long this thread has run, and how long it could have run
// but had to wait for a processor.
func threadTime(b *testing.B) (ran, queued time.Duration) {
	b.Helper()
	text, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		b.Skip("the system does not tell what threads wait for: ", err)
	}
	if _, err := fmt.Sscan(string(text), &ran, &queued); err != nil {
		b.Fatal(err)
	}
	return ran, queued
}

// lookups stats cached files, one after the other, until stop. What of its time its
// thread neither ran nor waited for a processor, it slept: for a lock, or for the
// collector.
func lookups(b *testing.B, c *coordinator.Coordinator, stop <-chan struct{}) share {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	paths := make([]freshet.Path, 1000)
	for i := range paths {
		paths[i] = freshet.Path(fmt.Sprintf("/hot/f%03d", i))
	}
	ran, queued := threadTime(b)
	begin := time.Now()
	for i := 0; ; i++ {
		select {
		case <-stop:
			s := share{lookups: i, wall: time.Since(begin)}
			ranNow, queuedNow := threadTime(b)
			s.ran, s.queued = ranNow-ran, queuedNow-queued
			s.slept = max(s.wall-s.ran-s.queued, 0)
			return s
		default:
		}
		if _, err := c.Stat(b.Context(), paths[i%len(paths)], freshet.ReadOptions{}); err != nil {
			b.Fatal(err)
		}
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

// beside runs what until its end, and do beside it.
func beside(what func(), do func(stop <-chan struct{})) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		what()
	})
	do(stop)
	wg.Wait()
}

// BenchmarkLookupsBesideABigSync shows what the sync of a directory of 200,000
// entries and lookups of cached entries elsewhere cost each other: during the first
// sync, which loads all, and during one that finds nothing new.
//
// Of processors all who compute take from all others, and on a machine with other
// work it is chance how much. So there are more threads than processors, that the
// system alone divides these, and what it says of the thread of the lookups is told
// apart: the time that it ran, waited for a processor, and slept. Only the last is
// what one thing makes the other wait by locks, and the first what it makes
// dearer. Beside something that only burns a processor is what to compare with.
func BenchmarkLookupsBesideABigSync(b *testing.B) {
	const entries, rounds = 200_000, 3
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8 * runtime.NumCPU()))
	store := mem.New(mem.Options{})
	for i := range entries {
		store.Put(fmt.Sprintf("big/f%06d", i), nil)
	}
	for i := range 1000 {
		store.Put(fmt.Sprintf("hot/f%03d", i), nil)
	}
	for b.Loop() {
		c := memCluster(b, store)
		run := func(p freshet.Path) {
			if err := c.Sync(b.Context(), p, true, quiet); err != nil {
				b.Error(err)
			}
		}
		run("/hot")
		got := map[string]share{}
		note := func(name string, s share) {
			sum := got[name]
			sum.lookups, sum.ran, sum.queued, sum.slept, sum.wall = sum.lookups+s.lookups, sum.ran+s.ran, sum.queued+s.queued, sum.slept+s.slept, sum.wall+s.wall
			got[name] = sum
		}
		beside(func() { run("/big") }, func(stop <-chan struct{}) { note("cold", lookups(b, c, stop)) })
		var took, tookBurn time.Duration
		for range rounds {
			begin := time.Now()
			beside(func() { run("/big") }, func(stop <-chan struct{}) { note("unchanged", lookups(b, c, stop)) })
			took += time.Since(begin)
			begin = time.Now()
			beside(func() { run("/big") }, burn)
			tookBurn += time.Since(begin)
			second := func() { <-time.After(time.Second) }
			beside(second, func(stop <-chan struct{}) { note("alone", lookups(b, c, stop)) })
			beside(second, func(stop <-chan struct{}) {
				var wg sync.WaitGroup
				wg.Go(func() { burn(stop) })
				note("burn", lookups(b, c, stop))
				wg.Wait()
			})
		}
		b.ReportMetric(took.Seconds()/tookBurn.Seconds(), "sync-time-ratio")
		for name, s := range got {
			b.ReportMetric(s.of(s.ran), "ns-run-"+name)
			b.ReportMetric(s.of(s.slept), "ns-slept-"+name)
			b.ReportMetric(s.of(s.queued), "ns-queued-"+name)
		}
	}
}
