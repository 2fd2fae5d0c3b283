package client_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/rpc"
)

// sharing is a world whose nodes also give ranges of what they hold.
type sharing struct {
	guarded

	holds   func(freshet.NodeID, freshet.BlockID) error
	ranges  int // messages
	parts   int // reads in them
	streams int
}

func (s *sharing) ReadRange(ctx context.Context, n freshet.Node, r rpc.RangeRead) error {
	errs, err := s.ReadRanges(ctx, n, []rpc.RangeRead{r})
	if err != nil {
		return err
	}
	return errs[0]
}

func (s *sharing) ReadRanges(_ context.Context, n freshet.Node, reads []rpc.RangeRead) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ranges++
	errs := make([]error, len(reads))
	for i, r := range reads {
		s.parts++
		if errs[i] = s.holds(n.ID, r.Block.ID); errs[i] != nil {
			continue
		}
		v := 1
		for !r.Source.Fingerprint.SameContent(version(v)) {
			v++
		}
		copy(r.To, bytesOf(v, r.Block.Offset+r.Offset, int64(len(r.To))))
	}
	return errs, nil
}

// hit is a stream that comes from a cache.
type hit struct{ freshet.BlockStream }

func (hit) Origin() freshet.Origin { return freshet.OriginHit }

func (s *sharing) ReadBlock(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	body, err := s.guarded.ReadBlock(ctx, n, q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams++; err != nil || s.holds(n.ID, q.Block.ID) != nil {
		return body, err
	}
	return hit{body}, nil
}

func notHeld() error {
	return freshet.Errorf(freshet.KindNotExist, "read ranges", "", "this node does not hold the block")
}

func newSharing(holds func(freshet.NodeID, freshet.BlockID) error) *sharing {
	return &sharing{guarded: guarded{world: newWorld(3*blockSize + 77)}, holds: holds}
}

func readAt(t *testing.T, f *client.File, off, n int64) {
	t.Helper()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil || !bytes.Equal(b, bytesOf(1, off, n)) {
		t.Errorf("%d bytes at %d: %v, or other bytes", n, off, err)
	}
}

func TestSmallReadsShareMessages(t *testing.T) {
	s := newSharing(func(freshet.NodeID, freshet.BlockID) error { return nil })
	f := openFile(t, s)
	for i := range int64(20) {
		readAt(t, f, i*77, 50+i)
	}
	if s.streams != 0 || s.ranges < 20 {
		t.Errorf("%d streams, %d messages", s.streams, s.ranges)
	}
	s.ranges, s.parts = 0, 0
	var all []client.Range
	for range 100 {
		all = append(all, client.Range{Offset: rand.Int64N(3 * blockSize), Into: make([]byte, 1+rand.IntN(70))}) //nolint:gosec // a test
	}
	if err := f.ReadRanges(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if !bytes.Equal(r.Into, bytesOf(1, r.Offset, int64(len(r.Into)))) {
			t.Errorf("other bytes at %d", r.Offset)
		}
	}
	if s.streams != 0 || s.ranges != 1 || s.parts < 100 {
		t.Errorf("%d streams, %d messages of %d reads together", s.streams, s.ranges, s.parts)
	}
}

// What the coordinator says of who holds a block may be old: the node says so, and it
// is read by a stream until one comes from a cache.
func TestWhoHoldsABlockIsLearnt(t *testing.T) {
	var mu sync.Mutex
	holder := freshet.NodeID("")
	s := newSharing(func(n freshet.NodeID, _ freshet.BlockID) error {
		mu.Lock()
		defer mu.Unlock()
		if n != holder {
			return notHeld()
		}
		return nil
	})
	f := openFile(t, s)
	for i := range int64(5) {
		readAt(t, f, i, 10)
	}
	if s.ranges != 1 || s.streams != 5 {
		t.Errorf("nobody holds it: %d messages, %d streams", s.ranges, s.streams)
	}
	holder = "a"
	for i := range int64(5) {
		readAt(t, f, i, 10)
	}
	if s.ranges != 5 || s.streams != 6 {
		t.Errorf("one has it by now: %d messages, %d streams", s.ranges, s.streams)
	}
	holder = "" // evicted
	r := []client.Range{{Offset: 3, Into: make([]byte, 9)}, {Offset: blockSize + 3, Into: make([]byte, 9)}, {Offset: 70, Into: make([]byte, 9)}}
	if err := f.ReadRanges(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, r := range r {
		if !bytes.Equal(r.Into, bytesOf(1, r.Offset, 9)) {
			t.Errorf("other bytes at %d", r.Offset)
		}
	}
}

// A file that changes is stale for who has read of it, however it was read.
func TestSharedReadsAreOfOneVersion(t *testing.T) {
	s := newSharing(func(_ freshet.NodeID, b freshet.BlockID) error {
		if b.Index > 0 {
			return notHeld()
		}
		return nil
	})
	f := openFile(t, s)
	readAt(t, f, 0, 10)
	s.version = 2
	readAt(t, f, 5, 10) // the node still holds those of version 1
	if _, err := f.ReadAt(make([]byte, 10), blockSize); !freshet.IsKind(err, freshet.KindStale) {
		t.Errorf("%v", err)
	}
}
