package cachenode_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

// sharedBody has its bytes in one slot, which its client fills anew as soon as it may.
type sharedBody struct {
	data            []byte
	slot            []byte
	inPlace, copied int
}

func (s *sharedBody) Next(context.Context, time.Duration) ([]byte, error) {
	s.inPlace++
	clear(s.slot) // what was returned before is no more
	n := copy(s.slot, s.data)
	if s.data = s.data[n:]; len(s.data) == 0 {
		return s.slot[:n], io.EOF
	}
	return s.slot[:n], nil
}

func (s *sharedBody) Read(p []byte) (int, error) {
	s.copied++
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

// TestBytesThatAClientShares are taken where they are only if they go to one place: the
// storage and the tier must never get what differs.
func TestBytesThatAClientShares(t *testing.T) {
	t.Parallel()
	for _, w := range []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough, freshet.CacheThrough, freshet.Through} {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, settings{dir: t.TempDir()}, func(t *testing.T, b *bed) {
				data := random(2*blockSize+1000, 3)
				ticket := b.ticket(5)
				ticket.Write = w
				body := &sharedBody{data: data, slot: make([]byte, 30_000)}
				done, err := b.node.Write(t.Context(), ticket, body, int64(len(data)))
				check(t, err)
				inPlace := w == freshet.MustCache || w == freshet.AsyncThrough
				if (body.inPlace > 0) != inPlace || (body.copied > 0) == inPlace {
					t.Errorf("%d pieces in place, %d copied", body.inPlace, body.copied)
				}
				if inPlace {
					for i := range uint32(3) {
						if _, ok := b.blocks.Stat(freshet.BlockID{File: 5, Index: i}); !ok {
							t.Errorf("block %d is not there", i)
						}
					}
				} else if !bytes.Equal(b.visible(), data) {
					t.Error("the storage has other bytes")
				}
				if got, _ := b.read(5, done); !bytes.Equal(got, data) {
					t.Errorf("%d bytes are read, not those that were written", len(got))
				}
			})
		})
	}
}

// TestASharedBodyIsMeasured as all others are.
func TestASharedBodyIsMeasured(t *testing.T) {
	t.Parallel()
	bubble(t, settings{dir: t.TempDir()}, func(t *testing.T, b *bed) {
		for _, declared := range []int64{50_000, 70_000} {
			body := &sharedBody{data: random(60_000, 1), slot: make([]byte, 30_000)}
			_, err := b.node.Write(t.Context(), keptTicket(b, 5), body, declared)
			wantKind(t, err, freshet.KindInvalid)
			if kept := b.blocks.Kept(); len(kept) > 0 {
				t.Errorf("left: %v", kept)
			}
		}
	})
}
