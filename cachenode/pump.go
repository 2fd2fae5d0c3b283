package cachenode

import (
	"context"
	"io"
	"time"

	"github.com/freshet-io/freshet"
)

// Sizes of the buffers of an upload, in bytes.
const (
	pumpBuffer    = 512 << 10
	minPumpBuffer = 1 << 10
)

// pump reads an upload's body in a goroutine of its own, so that reading from the
// client and writing to the storage overlap, and so that an upload that is given
// up need not wait for a client that sends nothing.
type pump struct {
	pieces chan piece
	free   chan []byte
	stop   chan struct{}
	size   int // of a buffer
}

type piece struct {
	b   []byte
	err error // io.EOF at the end
}

// startPump starts to read body, of which the client declared the length, or
// not (negative). The goroutine ends at the end of the body, or
// with the first Read of it that returns after end was called.
func startPump(body io.Reader, declared int64) *pump {
	p := &pump{pieces: make(chan piece, 1), free: make(chan []byte, 2), stop: make(chan struct{}), size: pumpBuffer}
	if declared >= 0 && declared < pumpBuffer/2 {
		p.size = max(minPumpBuffer, int(2*declared)) // a small file's buffer is garbage at once
	}
	p.free <- nil // buffers are made when they are needed: most files are small
	p.free <- nil
	go p.run(body)
	return p
}

func (p *pump) run(body io.Reader) {
	for {
		var buf []byte
		select {
		case buf = <-p.free:
		case <-p.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, p.size)
		}
		n, err := readSome(body, buf[:cap(buf)])
		select {
		case p.pieces <- piece{buf[:n], err}:
		case <-p.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// readSome reads until buf is half full: small reads would become small writes
// to the storage.
func readSome(body io.Reader, buf []byte) (n int, err error) {
	for n < len(buf)/2 && err == nil {
		var m int
		m, err = body.Read(buf[n:])
		n += m
	}
	return n, err
}

// next returns the next bytes, valid until the next call, with io.EOF after the
// last. An idle client is KindDeadline.
func (p *pump) next(ctx context.Context, last []byte, idle time.Duration) ([]byte, error) {
	if last != nil {
		p.free <- last
	}
	timer := time.NewTimer(idle)
	defer timer.Stop()
	select {
	case got := <-p.pieces:
		return got.b, got.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, freshet.Errorf(freshet.KindUnavailable, "write file", "", "the client sent nothing for %s; the upload was dropped", idle)
	}
}

// end lets the goroutine end.
func (p *pump) end() { close(p.stop) }
