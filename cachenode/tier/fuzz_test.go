package tier_test

import (
	"bytes"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// FuzzHeader: whatever is accepted as a header is exactly what would be written
// for its content, so no bit of it goes unnoticed.
func FuzzHeader(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, tier.HeaderSize))
	f.Add(tier.MakeHeader(block(1, 2), meta(1), 1<<20))
	f.Add(tier.MakeHeader(block(1<<40, 2), tier.Meta{}, freshet.MaxBlockSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := tier.RecodeHeader(b)
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("accepted a header that is not canonical: % x", b[:80])
		}
	})
}

// FuzzFileSize: the length of a block follows from the size of its file, and
// sizes that no block has are recognised.
func FuzzFileSize(f *testing.F) {
	for _, n := range []int64{-1, 0, 1, tier.ChunkSize, tier.ChunkSize + 1, freshet.MaxBlockSize, freshet.MaxBlockSize + 1, 1 << 62} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		if length, ok := tier.LengthOf(n); ok && (tier.FileSize(length) != n || length <= 0 || length > freshet.MaxBlockSize) {
			t.Errorf("a file of %d bytes is taken for a block of %d", n, length)
		}
		if n > 0 && n <= freshet.MaxBlockSize {
			if length, ok := tier.LengthOf(tier.FileSize(n)); !ok || length != n {
				t.Errorf("the file of a block of %d bytes is read as %d, %v", n, length, ok)
			}
		}
	})
}
