package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/freshet-io/freshet"
)

// farNode answers requests for ranges without a network. Of file 1 it answers when
// release is closed, of all others at once.
type farNode struct {
	release chan struct{}

	mu     sync.Mutex
	opened int
	ended  int // streams
	sizes  []int
	refuse error // of all streams
}

type farStream struct {
	node *farNode
	ctx  context.Context //nolint:containedctx // a test
	born int
	asks *rangeRequest
}

func (n *farNode) open(ctx context.Context) (rangeStream, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opened++
	return &farStream{node: n, ctx: ctx, born: n.opened}, nil
}

func (s *farStream) SendMsg(m any) error {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if s.born <= s.node.ended {
		return io.EOF
	}
	s.asks = m.(*rangeRequest) //nolint:forcetypeassert // all there is
	s.node.sizes = append(s.node.sizes, len(s.asks.calls))
	return nil
}

// pattern says of eight bytes which file and place they are from.
func pattern(file freshet.FileID, off int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(file)<<32|uint64(off)) //nolint:gosec // a test
}

func (s *farStream) RecvMsg(m any) error {
	s.node.mu.Lock()
	err, ended := s.node.refuse, s.born <= s.node.ended
	s.node.mu.Unlock()
	if err != nil {
		return err
	}
	if ended {
		return io.EOF
	}
	out := m.(*rangesGiven) //nolint:forcetypeassert // all there is
	out.outcomes = out.outcomes[:0]
	var all []byte
	for _, c := range s.asks.calls {
		if c.ask.id.File == 1 {
			select {
			case <-s.node.release:
			case <-s.ctx.Done():
				return status.FromContextError(s.ctx.Err()).Err()
			}
		}
		all = append(all, pattern(c.ask.id.File, c.ask.off)...)
		out.outcomes = append(out.outcomes, rangeOutcome{n: 8})
	}
	out.data = mem.BufferSlice{mem.SliceBuffer(all)}
	return nil
}

func one(file freshet.FileID, off int64) []RangeRead {
	return []RangeRead{{Block: freshet.Block{ID: freshet.BlockID{File: file}}, Offset: off, To: make([]byte, 8)}}
}

// get makes one read and checks what it brought.
func get(ctx context.Context, t *testing.T, l *lanes, file freshet.FileID, off int64) error {
	r := one(file, off)
	errs := make([]error, 1)
	if err := errors.Join(l.read(ctx, r, errs), errs[0]); err != nil {
		return err
	}
	if string(r[0].To) != string(pattern(file, off)) {
		t.Errorf("file %d, %d: bytes of another: %x", file, off, r[0].To)
	}
	return nil
}

func TestASlowReadHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &farNode{release: make(chan struct{})}
		l := &lanes{open: n.open}
		var slow, all sync.WaitGroup
		slow.Go(func() { _ = get(t.Context(), t, l, 1, 0) })
		synctest.Wait()
		begun := time.Now()
		for i := range int64(20) {
			all.Go(func() {
				if err := get(t.Context(), t, l, 2, i*8); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if d := time.Since(begun); d > 2*laneAfter {
			t.Errorf("they waited %v", d)
		}
		if len(n.sizes) != 2 || n.sizes[1] != 20 {
			t.Errorf("requests of %v reads: the twenty should have travelled together", n.sizes)
		}
		close(n.release)
		slow.Wait()
		if l.running != 0 || len(l.queue) != 0 {
			t.Errorf("%d lanes in use, %d reads queued when all were answered", l.running, len(l.queue))
		}
		if err := get(t.Context(), t, l, 2, 0); err != nil || n.opened != 2 {
			t.Errorf("%v, %d streams: they should have been used again", err, n.opened)
		}
	})
}

func TestSlowNodesAreAskedByFewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &farNode{release: make(chan struct{})}
		l := &lanes{open: n.open}
		var all sync.WaitGroup
		for i := range int64(100) {
			all.Go(func() { _ = get(t.Context(), t, l, 1, i*8) })
			time.Sleep(laneAfter) // of the fake clock
		}
		synctest.Wait()
		if n.opened != maxLanes {
			t.Errorf("%d streams instead of %d", n.opened, maxLanes)
		}
		close(n.release)
		all.Wait()
	})
}

func TestReadsThatNobodyWaitsForAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &farNode{release: make(chan struct{})}
		l := &lanes{open: n.open}
		for _, readers := range []int64{1, 5} { // one that sends itself, and others that are queued
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for i := range readers {
				all.Go(func() {
					r := one(1, i)
					errs := make([]error, 1)
					if err := l.read(ctx, r, errs); !freshet.IsKind(err, freshet.KindDeadline) {
						t.Errorf("%v", err)
					}
					clear(r[0].To) // nobody else writes to it any more
				})
				synctest.Wait()
			}
			cancel()
			all.Wait()
			synctest.Wait()
			if l.running != 0 || len(l.idle) != 0 {
				t.Errorf("%d lanes in use, %d streams kept", l.running, len(l.idle))
			}
		}
		if err := get(t.Context(), t, l, 2, 0); err != nil {
			t.Errorf("those who come after it: %v", err)
		}
	})
}

// One of two that travel together leaves: the other gets its bytes.
func TestWhoLeavesTakesNobodyAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &farNode{release: make(chan struct{})}
		l := &lanes{open: n.open}
		ctx, cancel := context.WithCancel(t.Context())
		r, errs := append(one(2, 0), one(1, 8)...), make([]error, 2)
		var all sync.WaitGroup
		all.Go(func() { _ = get(t.Context(), t, l, 1, 0) })
		synctest.Wait()
		all.Go(func() {
			if err := l.read(ctx, r, errs); !freshet.IsKind(err, freshet.KindDeadline) {
				t.Errorf("%v", err)
			}
		})
		all.Go(func() {
			if err := get(t.Context(), t, l, 3, 16); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		time.Sleep(laneAfter) // of the fake clock
		cancel()
		synctest.Wait()
		close(n.release)
		all.Wait()
	})
}

func TestStreamsThatEndedAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &farNode{release: make(chan struct{})}
		l := &lanes{open: n.open}
		if err := get(t.Context(), t, l, 2, 0); err != nil {
			t.Fatal(err)
		}
		n.ended = n.opened // it was quiet for long
		if err := get(t.Context(), t, l, 2, 8); err != nil || n.opened != 2 {
			t.Errorf("%v, %d streams", err, n.opened)
		}
		n.ended = 100 // it is down
		if err := get(t.Context(), t, l, 2, 16); !freshet.IsKind(err, freshet.KindUnavailable) || n.opened != 3 {
			t.Errorf("%v, %d streams", err, n.opened)
		}
	})
}

func TestOldNodesAreNotAskedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &farNode{refuse: status.Error(codes.Unimplemented, "unknown service")}
		l := &lanes{open: n.open}
		for range 5 {
			if err := get(t.Context(), t, l, 2, 0); !freshet.IsKind(err, freshet.KindUnsupported) {
				t.Errorf("%v", err)
			}
		}
		if n.opened != 1 {
			t.Errorf("it was asked %d times", n.opened)
		}
		n.refuse = nil // it was replaced
		time.Sleep(unknownFor + time.Second)
		if err := get(t.Context(), t, l, 2, 0); err != nil {
			t.Error(err)
		}
	})
}
