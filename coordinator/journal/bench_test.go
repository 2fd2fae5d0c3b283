package journal_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet/coordinator/journal"
)

// benchCluster starts size members with real files and sockets and returns the
// leader.
func benchCluster(b *testing.B, size int) *node {
	b.Helper()
	dir := b.TempDir()
	var nodes []*node
	for i := range size {
		id := fmt.Sprintf("m%d", i)
		n := &node{id: id, dir: filepath.Join(dir, id), state: &register{}, addr: "127.0.0.1:0", tune: func(o *journal.Options) {
			o.Heartbeat, o.LeaderLease, o.SnapshotEvery = time.Second, 500*time.Millisecond, time.Hour
		}}
		nodes = append(nodes, n)
	}
	t := &testing.T{} // the helpers only fail through it
	for _, n := range nodes {
		n.listen(t)
	}
	for i, n := range nodes {
		j, err := journal.Open(n.options(), n.state)
		if err != nil {
			b.Fatal(err)
		}
		n.j = j
		if i == 0 {
			if err := j.Bootstrap(servers(nodes)); err != nil {
				b.Fatal(err)
			}
		}
		ctx := b.Context()
		n.ended = make(chan error, 1)
		go func() { n.ended <- j.Run(ctx) }()
		b.Cleanup(func() {
			if err := <-n.ended; err != nil {
				b.Error(err)
			}
		})
	}
	return lead(t, nodes...)
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spread runs do b.N times from a number of callers and reports the CPU time of
// the whole process, all members, per call.
func spread(b *testing.B, callers int, do func() error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	before := cpu()
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkPropose(b *testing.B) {
	for _, size := range []int{1, 3} {
		for _, callers := range []int{1, 8, 64, 512} {
			b.Run(fmt.Sprintf("members=%d/callers=%d", size, callers), func(b *testing.B) {
				l := benchCluster(b, size)
				cmd := put(1)
				spread(b, callers, func() error { _, err := l.j.Propose(b.Context(), cmd); return err })
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1, 3} {
		for _, callers := range []int{1, 64} {
			for _, mode := range []string{"lease", "verify"} {
				b.Run(fmt.Sprintf("%s/members=%d/callers=%d", mode, size, callers), func(b *testing.B) {
					l := benchCluster(b, size)
					read := l.j.ReadBarrier
					if mode == "verify" {
						read = l.j.Verify
					}
					spread(b, callers, func() error { _, err := read(b.Context()); return err })
				})
			}
		}
	}
}
