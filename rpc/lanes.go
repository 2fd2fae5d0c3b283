package rpc

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

const (
	// maxLanes bounds the requests to one node that are on their way.
	maxLanes = 8
	// laneAfter is how long reads wait behind a request before they travel beside it.
	laneAfter = 2 * time.Millisecond
	// unknownFor is how long a node that does not know the call is not asked again.
	unknownFor = time.Minute
)

// lanes are the way of positioned reads to one node. A read that finds no request on
// its way is sent at once, by its own goroutine; those that come meanwhile travel
// together in the next request. When one takes long, others are sent beside it. A
// request has a stream for itself until it is answered, and streams are used again.
// Nothing runs while nobody waits. Safe for concurrent use.
type lanes struct {
	open func(context.Context) (rangeStream, error)

	mu      sync.Mutex
	running int // lanes in use
	queue   []*rangeCall
	idle    []*lane
	spare   []*rangeRequest
	unknown time.Time // until when the node is taken not to know the call

	sent  uint64 // requests
	watch *time.Timer
	seen  uint64 // requests when watch was set; 0 if it is not
}

// rangeStream is a stream of requests and their answers.
type rangeStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// lane is an open stream.
type lane struct {
	stream rangeStream
	cancel context.CancelFunc
}

// rangeCaller waits for its reads.
type rangeCaller struct {
	calls []rangeCall
	left  int           // without an answer; protected by the lanes' mu
	told  chan struct{} // of length 1; when none is left
}

// rangeCall is one read on its way.
type rangeCall struct {
	ask   askedRange
	to    []byte
	err   *error
	of    *rangeCaller
	in    *rangeRequest // nil while it is queued; protected by the lanes' mu
	state callState     // protected by the lanes' mu
}

// callState says who may write to what a read fills.
type callState int8

const (
	callWaits callState = iota
	callTaken           // the answer is written to it
	callLeft            // nobody: its caller waits no more
)

// rangeRequest is the reads that travel in one message.
type rangeRequest struct {
	calls  []*rangeCall
	waits  int                // of them, those whose callers wait; protected by the lanes' mu
	cancel context.CancelFunc // protected by the lanes' mu; nil before it has a lane
	given  rangesGiven
}

// size implements encoder.
func (r *rangeRequest) size() (n int) {
	for _, c := range r.calls {
		n += c.ask.size()
	}
	return n
}

// appendTo implements encoder.
func (r *rangeRequest) appendTo(b []byte) ([]byte, error) {
	w := writer{b: b}
	for _, c := range r.calls {
		c.ask.appendTo(&w)
	}
	return w.b, w.err
}

// rangeLanes are the lanes to all nodes.
type rangeLanes struct {
	mu sync.Mutex
	by map[string]*lanes
}

func (g *rangeLanes) of(p *NodePool, addr string) *lanes {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.by[addr]
	if !ok {
		l = &lanes{open: func(ctx context.Context) (rangeStream, error) {
			conn, err := p.conns.Get(addr)
			if err != nil {
				return nil, err
			}
			return conn.NewStream(ctx, &freshetv1.RangeService_ServiceDesc.Streams[0], freshetv1.RangeService_ReadRanges_FullMethodName, p.raw...)
		}}
		if g.by == nil {
			g.by = map[string]*lanes{}
		}
		g.by[addr] = l
	}
	return l
}

// read makes the reads, and returns an error if none was made.
func (l *lanes) read(ctx context.Context, reads []RangeRead, errs []error) error {
	c := l.caller(reads, errs)
	l.mu.Lock()
	if !l.unknown.IsZero() && time.Now().Before(l.unknown) {
		l.mu.Unlock()
		return freshet.Errorf(freshet.KindUnsupported, "read ranges", "", "the node is of a release that does not know of it")
	}
	for i := range c.calls {
		l.queue = append(l.queue, &c.calls[i])
	}
	if l.running > 0 {
		l.arm()
		l.mu.Unlock()
		return l.await(ctx, c)
	}
	l.running++
	r := l.take()
	l.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { l.leave(c) })
	l.deliver(r, l.exchange(r))
	stop()
	l.mu.Lock()
	if len(l.queue) > 0 {
		go l.run(false)
	} else {
		l.running--
	}
	done := c.left == 0 && c.calls[0].state == callTaken
	l.mu.Unlock()
	if done {
		return nil
	}
	return l.await(ctx, c)
}

// caller returns one for the reads.
func (l *lanes) caller(reads []RangeRead, errs []error) *rangeCaller {
	c := &rangeCaller{calls: make([]rangeCall, len(reads)), left: len(reads), told: make(chan struct{}, 1)}
	for i := range reads {
		r := &reads[i]
		c.calls[i] = rangeCall{
			ask: askedRange{id: r.Block.ID, block: r.Block.Length, fingerprint: r.Source.Fingerprint.String(), off: r.Offset, n: int64(len(r.To))},
			to:  r.To, err: &errs[i], of: c,
		}
	}
	return c
}

// await waits for all reads of a caller.
func (l *lanes) await(ctx context.Context, c *rangeCaller) error {
	select {
	case <-c.told:
		return nil
	case <-ctx.Done():
	}
	if l.leave(c) { // some are being written to
		<-c.told
	}
	return endOf(ctx)
}

// leave takes out the reads that have no answer; it reports whether answers are being
// written to some. A request that nobody waits for is given up, with its stream.
func (l *lanes) leave(c *rangeCaller) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range c.calls {
		call := &c.calls[i]
		if call.state != callWaits {
			continue
		}
		call.state = callLeft
		c.left--
		if r := call.in; r != nil {
			if r.waits--; r.waits == 0 && r.cancel != nil {
				r.cancel()
			}
		}
	}
	return c.left > 0
}

// take makes a request of those that wait, as many as fit in one. It is called with mu
// held.
func (l *lanes) take() *rangeRequest {
	r := new(rangeRequest)
	if n := len(l.spare); n > 0 {
		r, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	room, k := MaxRangeBytes, 0
	for ; k < len(l.queue) && len(r.calls) < MaxRanges; k++ {
		c := l.queue[k]
		if c.state == callLeft {
			continue
		}
		if len(r.calls) > 0 && len(c.to) > room {
			break
		}
		room -= len(c.to)
		c.in = r
		r.calls = append(r.calls, c)
	}
	l.queue = slices.Delete(l.queue, 0, k)
	r.waits = len(r.calls)
	l.sent++
	return r
}

// arm has look called in a while. It is called with mu held, while a lane is in use.
func (l *lanes) arm() {
	if l.seen != 0 {
		return
	}
	if l.seen = l.sent; l.watch == nil {
		l.watch = time.AfterFunc(laneAfter, l.look)
	} else {
		l.watch.Reset(laneAfter)
	}
}

// look takes another lane for those that wait if no request has been sent for a while.
func (l *lanes) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = 0
	if len(l.queue) == 0 || l.running == 0 {
		return
	}
	if l.sent == seen && l.running < maxLanes {
		l.running++
		go l.run(true)
	}
	l.arm()
}

// run sends those that wait until there are none; if once, it leaves that to the
// others after one request, if there are others.
func (l *lanes) run(once bool) {
	for {
		l.mu.Lock()
		r := l.take()
		if len(r.calls) == 0 {
			l.running--
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.deliver(r, l.exchange(r))
		l.mu.Lock()
		if once && l.running > 1 {
			l.running--
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		runtime.Gosched() // those that were just answered may ask for more
	}
}

// exchange sends a request and receives the answer. A stream that was used before may
// have ended since: then it tries another one.
func (l *lanes) exchange(r *rangeRequest) error {
	for {
		at, used, err := l.enter(r)
		if err != nil {
			return err
		}
		if err = at.talk(r); err == nil {
			l.mu.Lock()
			r.cancel = nil
			l.idle = append(l.idle, at)
			l.mu.Unlock()
			return nil
		}
		at.cancel()
		if !used {
			return err
		}
		l.mu.Lock()
		idle := l.idle
		l.idle = nil
		l.mu.Unlock()
		for _, other := range idle {
			other.cancel()
		}
	}
}

// enter returns a lane for a request, and whether it was used before.
func (l *lanes) enter(r *rangeRequest) (at *lane, used bool, err error) {
	l.mu.Lock()
	if r.waits == 0 {
		l.mu.Unlock()
		return nil, false, freshet.Errorf(freshet.KindDeadline, "read ranges", "", "nobody waits for it")
	}
	if n := len(l.idle); n > 0 {
		at, l.idle = l.idle[n-1], l.idle[:n-1]
		r.cancel = at.cancel
		l.mu.Unlock()
		return at, true, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	l.mu.Unlock()
	stream, err := l.open(ctx)
	if err != nil {
		cancel()
		return nil, false, ErrorOf(err)
	}
	return &lane{stream, cancel}, false, nil
}

// talk sends a request and receives the answer.
func (a *lane) talk(r *rangeRequest) error {
	err := a.stream.SendMsg(r)
	if err == nil || errors.Is(err, io.EOF) { // which says that the node has ended it; why comes now
		err = a.stream.RecvMsg(&r.given)
	}
	if errors.Is(err, io.EOF) {
		return freshet.Errorf(freshet.KindUnavailable, "read ranges", "", "the node ended the stream: %w", io.ErrUnexpectedEOF)
	}
	if err == nil && len(r.given.outcomes) != len(r.calls) {
		r.given.free()
		return freshet.Errorf(freshet.KindInternal, "read ranges", "", "%d answers to %d ranges", len(r.given.outcomes), len(r.calls))
	}
	return ErrorOf(err)
}

// deliver gives the answer, or the error of the whole request, to those that wait.
func (l *lanes) deliver(r *rangeRequest, err error) {
	l.mu.Lock()
	if freshet.IsKind(err, freshet.KindUnsupported) {
		l.unknown = time.Now().Add(unknownFor)
	}
	for _, c := range r.calls {
		if c.state == callWaits {
			c.state = callTaken
		}
	}
	l.mu.Unlock()
	in := arrived{bufs: r.given.data}
	r.given.data = nil
	for i, c := range r.calls {
		switch {
		case err != nil:
			if c.state == callTaken {
				*c.err = err
			}
		case c.state == callTaken:
			*c.err = in.fill(c.to, &r.given.outcomes[i])
		default:
			in.pass(r.given.outcomes[i].n)
		}
	}
	in.free()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range r.calls {
		if c.state == callTaken {
			if c.of.left--; c.of.left == 0 {
				c.of.told <- struct{}{}
			}
		}
	}
	clear(r.calls)
	r.calls, r.cancel = r.calls[:0], nil
	if len(l.spare) < maxLanes {
		l.spare = append(l.spare, r)
	}
}

// fill copies the bytes of a range that came to o.
func (r *arrived) fill(to []byte, o *rangeOutcome) error {
	switch {
	case o.failed:
		return o.err()
	case o.n != int64(len(to)):
		r.pass(o.n)
		return shortRange()
	case r.read(to) != len(to):
		return shortRange()
	}
	return nil
}

// pass leaves n bytes out.
func (r *arrived) pass(n int64) {
	for n > 0 && len(r.bufs) > 0 {
		k := min(n, int64(r.bufs[0].Len()-r.at))
		r.skip(int(k))
		n -= k
	}
}
