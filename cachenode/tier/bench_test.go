package tier_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet/cachenode/tier"
)

const benchLength = 64 << 20

// BenchmarkHotRead compares the tiers, which verify what they hand out, with a
// plain file: sequential reads of a 64 MiB block, and random reads of 4 KiB.
func BenchmarkHotRead(b *testing.B) {
	for _, kind := range []tier.Kind{tier.Memory, tier.Disk} {
		tr := newTier(b, kind, b.TempDir(), tier.Options{Capacity: 2 * benchLength})
		put(b, tr, block(1, 0), benchLength)
		r, err := tr.Open(block(1, 0), want(1, benchLength))
		check(b, err)
		b.Cleanup(func() { _ = r.Close() })
		b.Run("sequential/"+string(kind), func(b *testing.B) {
			b.SetBytes(benchLength)
			for b.Loop() {
				_, err := r.CopyTo(io.Discard, 0, benchLength)
				check(b, err)
			}
		})
		benchRandom(b, string(kind), r)
		b.Run("open and 4KiB/"+string(kind), func(b *testing.B) {
			buf := make([]byte, 4096)
			for i := int64(0); b.Loop(); i++ {
				r, err := tr.Open(block(1, 0), want(1, benchLength))
				check(b, err)
				_, err = r.ReadAt(buf, (i*7919*4096)%(benchLength-4096))
				check(b, err)
				check(b, r.Close())
			}
		})
	}
	f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
	check(b, err)
	b.Cleanup(func() { _ = f.Close() })
	_, err = f.Write(content(block(1, 0), benchLength))
	check(b, err)
	b.Run("sequential/plain file", func(b *testing.B) {
		b.SetBytes(benchLength)
		buf := make([]byte, tier.ChunkSize)
		for b.Loop() {
			for off := int64(0); off < benchLength; off += tier.ChunkSize {
				_, err := f.ReadAt(buf, off)
				check(b, err)
			}
		}
	})
	benchRandom(b, "plain file", f)
}

func benchRandom(b *testing.B, name string, r io.ReaderAt) {
	b.Run("4KiB/"+name, func(b *testing.B) {
		buf := make([]byte, 4096)
		b.SetBytes(4096)
		for i := int64(0); b.Loop(); i++ {
			_, err := r.ReadAt(buf, (i*7919*4096)%(benchLength-4096))
			check(b, err)
		}
	})
}
