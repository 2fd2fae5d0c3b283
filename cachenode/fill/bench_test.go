package fill_test

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet/cachenode/tier"
)

// BenchmarkHotRead is the whole way of a hot read inside a node: opening the
// block, verifying it and handing it out; against opening and reading a file.
func BenchmarkHotRead(b *testing.B) {
	const length = 64 << 20
	data := random(length, 1)
	for _, dir := range []string{"", b.TempDir()} {
		bed := newBed(b, settings{dir: dir, capacity: 2 * length})
		req := bed.put("a", data, 1)
		bed.want(req, data, 2)
		bed.awaitCached(req.Block.ID)
		for name, n := range map[string]int64{"64MiB": length, "4KiB": 4096} {
			b.Run(name+"/"+bed.blocks.Name(), func(b *testing.B) {
				b.SetBytes(n)
				defer reportCPU(b)()
				for i := int64(0); b.Loop(); i++ {
					s, err := bed.filler.Read(b.Context(), withRange(req, (i*7919*4096)%(length-n+1), n))
					check(b, err)
					_, err = s.WriteTo(io.Discard)
					check(b, err)
					check(b, s.Close())
				}
			})
		}
	}
	path := filepath.Join(b.TempDir(), "plain")
	check(b, os.WriteFile(path, data, 0o600))
	for name, n := range map[string]int64{"64MiB": length, "4KiB": 4096} {
		b.Run(name+"/plain file", func(b *testing.B) {
			b.SetBytes(n)
			defer reportCPU(b)()
			buf := make([]byte, tier.ChunkSize)
			for i := int64(0); b.Loop(); i++ {
				f, err := os.Open(path)
				check(b, err)
				off := (i * 7919 * 4096) % (length - n + 1)
				for done := int64(0); done < n; {
					m, err := f.ReadAt(buf[:min(int64(len(buf)), n-done)], off+done)
					check(b, err)
					done += int64(m)
				}
				check(b, f.Close())
			}
		})
	}
}

// reportCPU measures the processor's time, which a busy machine distorts less
// than the clock's.
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
