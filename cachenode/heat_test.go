package cachenode_test

import (
	"io"
	"testing"

	"github.com/freshet-io/freshet"
)

// A block that is kept open for one range after the other is as hot as one that is opened
// for each.
func TestEachRangeIsARead(t *testing.T) {
	for name, c := range map[string]struct {
		streams, turns int
		want           uint32
	}{
		"streams": {6, 0, 6},
		"ranges":  {1, 6, 6},
		"both":    {2, 3, 6},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, settings{}, func(t *testing.T, b *bed) {
				done, err := b.write(b.ticket(5), random(blockSize, 9))
				check(t, err)
				b.nextBeat()
				reads, sent := b.metric("freshet_reads_total")["hit"], b.metric("freshet_read_bytes_total")["hit"]
				id := freshet.BlockID{File: 5}
				req := freshet.BlockRead{
					Block: freshet.Block{ID: id, Length: blockSize}, Length: blockSize, Cached: true,
					Source: freshet.Source{Mount: 1, Key: "f", Fingerprint: done.Info.Fingerprint},
				}
				for range c.streams {
					if c.turns == 0 {
						req.Length = 10
					}
					body, err := b.node.Read(t.Context(), req)
					check(t, err)
					ranges, ok := body.(interface{ Turn(off, n int64) error })
					if !ok {
						t.Fatal("the node can't read at any place")
					}
					for i := range max(c.turns, 1) {
						if c.turns > 0 {
							wantKind(t, ranges.Turn(blockSize, 1), freshet.KindInvalid) // is no read
							check(t, ranges.Turn(int64(7*i), 10))
						}
						if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
							t.Fatal(err)
						}
					}
					check(t, body.Close())
				}
				if got := b.metric("freshet_reads_total")["hit"] - reads; got != float64(c.want) {
					t.Errorf("%v reads are counted, want %d", got, c.want)
				}
				if got := b.metric("freshet_read_bytes_total")["hit"] - sent; got != float64(10*c.want) {
					t.Errorf("%v bytes are counted, want %d", got, 10*c.want)
				}
				hot := b.nextBeat().Hot
				if len(hot) != 1 || hot[0].ID != id || hot[0].Reads != c.want {
					t.Errorf("the leader is told of %+v, want %d reads", hot, c.want)
				}
			})
		})
	}
}
