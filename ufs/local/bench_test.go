package local_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet/ufs"
)

func benchRoot(b *testing.B, dirs, files int) ufs.FS {
	b.Helper()
	root := b.TempDir()
	for d := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("dir-%04d", d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("part-%06d.parquet", f)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	fs, err := openFile(root)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = fs.Close() })
	return fs
}

// cpuTime is what the process has used in nanoseconds: on a busy machine it tells
// more than the clock.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkList(b *testing.B) {
	for _, size := range []struct{ dirs, files int }{{1, 10_000}, {100, 100}} {
		dir, recursive := "", true
		if size.dirs == 1 {
			dir, recursive = "dir-0000", false
		}
		b.Run(fmt.Sprintf("%dx%d", size.dirs, size.files), func(b *testing.B) {
			fs := benchRoot(b, size.dirs, size.files)
			n := 0
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				n = 0
				for _, err := range fs.List(b.Context(), dir, ufs.ListOptions{Recursive: recursive}) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/float64(n), "cpu-ns/entry")
		})
	}
}

func BenchmarkStat(b *testing.B) {
	fs := benchRoot(b, 1, 1)
	for b.Loop() {
		if _, err := fs.Stat(b.Context(), "dir-0000/part-000000.parquet"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead64MiB(b *testing.B) {
	root := b.TempDir()
	if err := os.WriteFile(filepath.Join(root, "f"), make([]byte, 64<<20), 0o644); err != nil {
		b.Fatal(err)
	}
	fs, err := openFile(root)
	if err != nil {
		b.Fatal(err)
	}
	defer fs.Close() //nolint:errcheck // end of the benchmark
	b.SetBytes(64 << 20)
	buf := make([]byte, 256<<10)
	for b.Loop() {
		r, _, err := fs.Open(b.Context(), "f", ufs.OpenOptions{Length: -1})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
