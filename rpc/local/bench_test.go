package local_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet/cachenode/store"
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

// BenchmarkWriteFile writes a file into a tier on a disk, beside a bare write of the
// same bytes with their checksums. Neither is synced.
func BenchmarkWriteFile(b *testing.B) {
	const length = 64 << 20
	piece := make([]byte, 1<<20)
	for i := range piece {
		piece[i] = byte(i * i >> 7)
	}
	measure := func(name string, do func(b *testing.B, n int)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(length)
			begun, n := cpuTime(), 0
			for b.Loop() {
				do(b, n)
				n++
			}
			b.ReportMetric(float64(n)*length/1e9/(cpuTime()-begun).Seconds(), "GB/cpu-s")
		})
	}
	dir := b.TempDir()
	measure("bare", func(b *testing.B, _ int) {
		f, err := os.Create(filepath.Join(dir, "plain"))
		check(b, err)
		buf, body := make([]byte, len(piece)), repeat(piece, length)
		for {
			n, err := io.ReadFull(body, buf)
			if xxh3.Hash(buf[:n]) == 1 {
				b.Fatal("it was not to be left out")
			}
			if _, werr := f.Write(buf[:n]); werr != nil {
				b.Fatal(werr)
			}
			if err != nil {
				break
			}
		}
		check(b, f.Close())
		check(b, os.Remove(f.Name()))
	})
	blocks, err := store.Open([]store.Tier{store.OnDisk(filepath.Join(dir, "tier"), 4*length)}, store.Options{})
	check(b, err)
	defer blocks.Close()
	taken := 0
	n := newTaker(b, func(ctx context.Context, body shared) error {
		taken++
		w, err := blocks.Create(block(taken), length)
		if err != nil {
			return err
		}
		defer w.Close()
		for {
			p, err := body.Next(ctx, time.Hour)
			if _, werr := w.Write(p); werr != nil {
				return werr
			}
			if err == io.EOF { //nolint:errorlint // it is that
				return nil // dropped: it is the way that is measured
			}
			if err != nil {
				return err
			}
		}
	})
	p := n.pool(local.Options{})
	measure("shared", func(b *testing.B, _ int) {
		_, err := p.WriteFile(b.Context(), n.ticket(), repeat(piece, length), length)
		check(b, err)
	})
	n.wantFar(0)
}

// repeat is a body of one piece again and again.
func repeat(piece []byte, length int) io.Reader {
	all := make([]io.Reader, length/len(piece))
	for i := range all {
		all[i] = onlyReader{bytes.NewReader(piece)}
	}
	return io.MultiReader(all...)
}

type onlyReader struct{ io.Reader }
