package fill_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// TestAStreamTurns reads ranges of a cached block by one stream, by reading and, of
// what lies in memory, by looking at it.
func TestAStreamTurns(t *testing.T) {
	const length = 3*tier.ChunkSize + 100
	data := random(length, 1)
	for _, dir := range []string{"", t.TempDir()} {
		bed := newBed(t, settings{dir: dir, capacity: 2 * length})
		req := bed.put("a", data, 1)
		bed.want(req, data, freshet.OriginUFS)
		bed.awaitCached(req.Block.ID)
		req.Cached = true
		s, err := bed.filler.Read(t.Context(), withRange(req, 0, length))
		check(t, err)
		sent := int64(0)
		for _, r := range [][2]int64{{5, 10}, {length - 1, 1}, {0, length}, {tier.ChunkSize - 1, tier.ChunkSize + 2}, {7, 0}, {length, 0}} {
			off, n := r[0], r[1]
			check(t, s.Turn(off, n))
			var got []byte
			for b := s.View(n); len(b) > 0; b = s.View(n) {
				got = append(got, b...)
			}
			if dir == "" && int64(len(got)) != n || dir != "" && len(got) > 0 {
				t.Errorf("%d of %d bytes lie in memory (%q)", len(got), n, dir)
			}
			rest, err := io.ReadAll(s)
			check(t, err)
			if got = append(got, rest...); !bytes.Equal(got, data[off:off+n]) {
				t.Errorf("%d+%d: other bytes", off, n)
			}
			if sent += n; s.Sent() != sent {
				t.Errorf("%d bytes were sent, it says %d", sent, s.Sent())
			}
		}
		for _, r := range [][2]int64{{-1, 1}, {0, length + 1}, {length + 1, 0}, {0, -1}} {
			if err := s.Turn(r[0], r[1]); !freshet.IsKind(err, freshet.KindInvalid) {
				t.Errorf("%v: %v", r, err)
			}
		}
		check(t, s.Close())
	}
}
