package store_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// BenchmarkOpen is what the store costs beside one tier: opening a block, reading
// 4 KiB of it and closing it, by one goroutine and by many at once. Its cpu-ns/op is
// of the processor.
func BenchmarkOpen(b *testing.B) {
	for _, tiers := range []int{0, 1, 3} {
		for _, kind := range []string{"memory", "disk"} {
			open := opener(b, tiers, kind)
			read := func(i int) {
				var buf [4096]byte
				r, err := open(block(1 + i%32))
				check(b, err)
				_, err = r.ReadAt(buf[:], int64(i%16)*4096)
				check(b, err)
				check(b, r.Close())
			}
			name := fmt.Sprintf("%s/store of %d tiers", kind, tiers)
			if tiers == 0 {
				name = kind + "/tier alone"
			}
			b.Run(name, func(b *testing.B) {
				defer reportCPU(b)()
				for i := 0; b.Loop(); i++ {
					read(i)
				}
			})
			b.Run(name+"/parallel", func(b *testing.B) {
				defer reportCPU(b)()
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						read(i)
					}
				})
			})
		}
	}
}

// opener returns how to open one of 32 blocks that lie in the fastest tier of that
// kind.
func opener(b *testing.B, tiers int, kind string) func(freshet.BlockID) (*tier.Reader, error) {
	b.Helper()
	const capacity = 100 * room
	if tiers == 0 {
		tr, err := tier.NewMemory(tier.Options{Capacity: capacity})
		if kind == "disk" {
			tr, err = tier.OpenDisk(b.TempDir(), tier.Options{Capacity: capacity})
		}
		check(b, err)
		b.Cleanup(func() { check(b, tr.Close()) })
		for n := 1; n <= 32; n++ {
			w, err := tr.Create(block(n), length)
			check(b, err)
			_, err = w.Write(content(block(n)))
			check(b, err)
			check(b, w.Commit(meta()))
			w.Close()
		}
		return func(id freshet.BlockID) (*tier.Reader, error) { return tr.Open(id, want()) }
	}
	list := []store.Tier{memory(capacity), dirs(store.SSD, capacity, b.TempDir()), dirs(store.HDD, capacity, b.TempDir())}
	if kind == "disk" {
		list = list[1:]
	}
	s, err := store.Open(list[:min(tiers, len(list))], store.Options{})
	check(b, err)
	b.Cleanup(func() { check(b, s.Close()) })
	w := &world{t: b, s: s}
	for n := 1; n <= 32; n++ {
		w.put(n)
	}
	return func(id freshet.BlockID) (*tier.Reader, error) { return s.Open(id, want()) }
}

func reportCPU(b *testing.B) func() {
	before := cpuTime(b)
	return func() { b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") }
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
