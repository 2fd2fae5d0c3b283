package local_test

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/rpc/local"
)

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReadBlockAt reads 4 KiB of a block that is open.
func BenchmarkReadBlockAt(b *testing.B) {
	for _, kind := range []tier.Kind{tier.Disk, tier.Memory} {
		b.Run(string(kind), func(b *testing.B) {
			w := newWorld(b, kind)
			w.put(block(1))
			p := w.pool(local.Options{})
			into := make([]byte, 4096)
			q := read(block(1), 0, 0)
			begun, n := cpuTime(), 0
			for b.Loop() {
				if !p.ReadBlockAt(b.Context(), &w.node, &q.Block, &q.Source, into, rand.Int64N(size/4096)*4096) {
					b.Fatal("not by a descriptor")
				}
				n++
			}
			b.ReportMetric(float64(n)/(cpuTime()-begun).Seconds(), "reads/cpu-s")
		})
	}
}
