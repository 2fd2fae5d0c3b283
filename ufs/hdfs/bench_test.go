package hdfs_test

import (
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
)

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

// measured runs loop and reports the time on the processor per unit of n.
func measured(b *testing.B, unit string, n int64, loop func()) {
	b.Helper()
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		loop()
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/float64(n), "cpu-ns/"+unit)
}

func BenchmarkList(b *testing.B) {
	c := hdfstest.Shared(b)
	r := newRoot(b, c)
	const many = 10_000
	for at := 0; at < many; at += 2500 {
		args := []string{"-touchz"}
		for i := at; i < at+2500; i++ {
			args = append(args, r.at(fmt.Sprintf("part-%06d.parquet", i)))
		}
		c.Dfs(b, args...)
	}
	b.Run("driver", func(b *testing.B) {
		fs := open(b, c.Addr(), r.dir, nil)
		defer fs.Close() //nolint:errcheck // end of the benchmark
		measured(b, "entry", many, func() {
			n := 0
			for _, err := range fs.List(b.Context(), "", ufs.ListOptions{}) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != many {
				b.Fatalf("%d entries", n)
			}
		})
	})
	b.Run("library", func(b *testing.B) {
		bare := bareClient(b, c)
		measured(b, "entry", many, func() {
			if all, err := bare.ReadDir(r.dir); err != nil || len(all) != many {
				b.Fatal(len(all), err)
			}
		})
	})
}

const benchSize = 64 << 20

func BenchmarkRead64MiB(b *testing.B) {
	c := hdfstest.Shared(b)
	r := newRoot(b, c)
	fs := open(b, c.Addr(), r.dir, map[string]string{"block_size": "128MiB"})
	defer fs.Close() //nolint:errcheck // end of the benchmark
	if _, err := write(b.Context(), fs, "f", pattern(1, benchSize), ufs.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	drain := func(b *testing.B, r io.ReadCloser) {
		b.Helper()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
		if err != nil || n != benchSize {
			b.Fatal(n, err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("driver", func(b *testing.B) {
		b.SetBytes(benchSize)
		measured(b, "byte", benchSize, func() {
			r, _, err := fs.Open(b.Context(), "f", ufs.OpenOptions{Length: -1})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, r)
		})
	})
	b.Run("library", func(b *testing.B) {
		bare := bareClient(b, c)
		b.SetBytes(benchSize)
		measured(b, "byte", benchSize, func() {
			f, err := bare.Open(r.at("f"))
			if err != nil {
				b.Fatal(err)
			}
			drain(b, f)
		})
	})
}

func BenchmarkWrite64MiB(b *testing.B) {
	c := hdfstest.Shared(b)
	r := newRoot(b, c)
	data := pattern(1, benchSize)
	b.Run("driver", func(b *testing.B) {
		fs := open(b, c.Addr(), r.dir, map[string]string{"block_size": "128MiB"})
		defer fs.Close() //nolint:errcheck // end of the benchmark
		b.SetBytes(benchSize)
		measured(b, "byte", benchSize, func() {
			if _, err := write(b.Context(), fs, "f", data, ufs.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("library", func(b *testing.B) {
		bare := bareClient(b, c)
		b.SetBytes(benchSize)
		n := 0
		measured(b, "byte", benchSize, func() {
			n++
			w, err := bare.CreateFile(r.at(fmt.Sprintf("bare%d", n)), 1, 128<<20, 0o644)
			if err != nil {
				b.Fatal(err)
			}
			for at := 0; at < len(data); at += 256 << 10 {
				if _, err := w.Write(data[at : at+256<<10]); err != nil {
					b.Fatal(err)
				}
			}
			closeWriter(b, w)
		})
	})
}

func BenchmarkStat(b *testing.B) {
	c := hdfstest.Shared(b)
	r := newRoot(b, c)
	fs := open(b, c.Addr(), r.dir, nil)
	defer fs.Close() //nolint:errcheck // end of the benchmark
	if _, err := write(b.Context(), fs, "f", nil, ufs.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := fs.Stat(b.Context(), "f"); err != nil {
			b.Fatal(err)
		}
	}
}
