package rpc

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// library holds blocks, and counts those that are open.
type library struct {
	Blocks
	open, opened atomic.Int64
	wait         time.Duration // before each read
	reading      atomic.Int64
	most         atomic.Int64 // reads at once
}

func (l *library) Read(context.Context, freshet.BlockRead) (freshet.BlockStream, error) {
	l.open.Add(1)
	l.opened.Add(1)
	return &volume{in: l}, nil
}

type volume struct {
	freshet.BlockStream
	in  *library
	off int64
}

func (v *volume) Turn(off, _ int64) error {
	v.off = off
	return nil
}

func (v *volume) Read(p []byte) (int, error) {
	now := v.in.reading.Add(1)
	for most := v.in.most.Load(); now > most && !v.in.most.CompareAndSwap(most, now); most = v.in.most.Load() {
	}
	time.Sleep(v.in.wait) // of the fake clock
	v.in.reading.Add(-1)
	for i := range p {
		p[i] = byte(v.off + int64(i))
	}
	return len(p), nil
}

func (v *volume) Close() error {
	v.in.open.Add(-1)
	return nil
}

// talk is the node's end of a stream.
type talk struct {
	grpc.BidiStreamingServer[freshetv1.ReadRangesRequest, freshetv1.ReadRangesResponse]
	ctx  context.Context //nolint:containedctx // a test
	asks chan []askedRange
	gave chan *rangesGiven
}

func (s *talk) Context() context.Context { return s.ctx }

func (s *talk) RecvMsg(m any) error {
	select {
	case q, ok := <-s.asks:
		if !ok {
			return io.EOF
		}
		m.(*rangesAsked).ranges = q //nolint:forcetypeassert // all there is
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *talk) SendMsg(m any) error {
	s.gave <- m.(*rangesGiven) //nolint:forcetypeassert // all there is
	return nil
}

func conversation(t *testing.T, l *library, stop chan struct{}) (*talk, <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &talk{ctx: ctx, asks: make(chan []askedRange), gave: make(chan *rangesGiven)}
	ended := make(chan error, 1)
	go func() {
		ended <- NewRangeServer(l, stop).ReadRanges(s)
		cancel() // as the library does when a handler returns
	}()
	return s, ended
}

func ask(s *talk, asked ...askedRange) *rangesGiven {
	s.asks <- asked
	return <-s.gave
}

func part(file freshet.FileID, off int64) askedRange {
	return askedRange{id: freshet.BlockID{File: file}, block: 1 << 20, fingerprint: fingerprint.Fingerprint{Content: "local:x"}.String(), off: off, n: 4}
}

func TestBlocksStayOpenForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &library{}
		s, ended := conversation(t, l, nil)
		for i := range int64(10) {
			if a := ask(s, part(1, i)); !bytes.Equal(a.data.Materialize(), []byte{byte(i), byte(i + 1), byte(i + 2), byte(i + 3)}) {
				t.Errorf("%d: %x", i, a.data.Materialize())
			}
		}
		if l.opened.Load() != 1 {
			t.Errorf("it was opened %d times", l.opened.Load())
		}
		time.Sleep(heldFor + time.Millisecond)
		synctest.Wait()
		if l.open.Load() != 0 {
			t.Error("it was not closed")
		}
		for f := range freshet.FileID(3 * maxHeld) {
			ask(s, part(f, 0))
		}
		if l.open.Load() != maxHeld {
			t.Errorf("%d blocks are open", l.open.Load())
		}
		begun := time.Now()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d < quietFor || d > 3*quietFor || l.open.Load() != 0 {
			t.Errorf("it ended after %v, with %d blocks open", d, l.open.Load())
		}
	})
}

func TestStreamsOfRangesEndWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := &library{}, make(chan struct{})
		s, ended := conversation(t, l, stop)
		ask(s, part(1, 0), part(2, 0))
		close(stop)
		if err := <-ended; err != nil || l.open.Load() != 0 {
			t.Errorf("%v, %d blocks open", err, l.open.Load())
		}
	})
}

func TestRangesThatWaitForADiskAreReadSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &library{wait: time.Millisecond}
		s, ended := conversation(t, l, nil)
		asked := make([]askedRange, 65)
		for i := range asked {
			asked[i] = part(freshet.FileID(i%3), int64(i))
		}
		begun := time.Now()
		a := ask(s, asked...)
		if d := time.Since(begun); d != 9*time.Millisecond || l.most.Load() != sideBySide {
			t.Errorf("65 reads of a millisecond took %v, %d at once", d, l.most.Load())
		}
		got := a.data.Materialize()
		for i := range asked {
			if a.outcomes[i].failed || got[4*i] != byte(i) {
				t.Errorf("range %d has other bytes", i)
			}
		}
		close(s.asks)
		if err := <-ended; err != nil || l.open.Load() != 0 {
			t.Errorf("%v, %d blocks open", err, l.open.Load())
		}
	})
}
