package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Limits of one request for ranges.
const (
	// MaxRanges is how many ranges one request may ask for.
	MaxRanges = 256
	// MaxRangeBytes is how many bytes all its ranges may come to.
	MaxRangeBytes = ChunkSize
	// maxReason is how many characters are said of a range that can't be read: the
	// bytes and all reasons fit in a message.
	maxReason = 40
)

const (
	// heldFor is how long a block stays open for the requests that follow: to open
	// one costs more than to read a page of it, and one that is open can't be evicted.
	heldFor = 100 * time.Millisecond
	// maxHeld is how many blocks a stream has open.
	maxHeld = 16
	// quietFor is how long a stream on which nothing is asked for is kept.
	quietFor = 30 * time.Second
	// A range that took as long as slowRange waited for a disk: the others of its
	// request are then read by so many at once as sideBySide says.
	slowRange  = 150 * time.Microsecond
	sideBySide = 8
)

// RangeServer adapts Blocks to the wire: what a cache node serves of its own tiers
// at once.
type RangeServer struct {
	freshetv1.UnimplementedRangeServiceServer
	blocks Blocks
	stop   <-chan struct{}
	room   room
}

// NewRangeServer returns the adapter. Its streams end when stop is closed: a server
// does not wait for calls that would not end.
func NewRangeServer(b Blocks, stop <-chan struct{}) *RangeServer {
	return &RangeServer{blocks: b, stop: stop}
}

// ReadRanges implements the service. The requests are answered by a goroutine of
// their own, for only a handler that returns ends a stream.
func (s *RangeServer) ReadRanges(stream grpc.BidiStreamingServer[freshetv1.ReadRangesRequest, freshetv1.ReadRangesResponse]) error {
	d := &rangeDialogue{server: s, stream: stream, opened: make(chan struct{}, 1)}
	defer d.end()
	failed := make(chan error, 1)
	go func() { failed <- d.serve() }()
	timer := time.NewTimer(quietFor)
	defer timer.Stop()
	for {
		select {
		case err := <-failed:
			if d.panicked != "" {
				panic(d.panicked)
			}
			return err
		case <-s.stop:
			return nil
		case <-d.opened:
			timer.Reset(heldFor)
		case <-timer.C:
			if !d.rest() {
				return nil
			}
			timer.Reset(quietFor)
		}
	}
}

// rangeDialogue is one stream of requests, of which each is answered before the next.
type rangeDialogue struct {
	server   *RangeServer
	stream   grpc.ServerStream
	opened   chan struct{} // told when the first block was opened
	panicked string        // what serve ended with, if that was a panic

	sending sync.Mutex // taken before mu
	mu      sync.Mutex
	held    openBlocks
	used    bool // since the last rest
	ended   bool
}

// serve answers until there are no more requests.
func (d *rangeDialogue) serve() (err error) {
	defer func() {
		if v := recover(); v != nil {
			d.panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
		}
	}()
	var q rangesAsked
	for {
		if err := d.stream.RecvMsg(&q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := d.answer(&q); err != nil {
			return StatusOf(err)
		}
	}
}

func (d *rangeDialogue) answer(q *rangesAsked) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	a, err := d.read(q)
	if err != nil {
		return err
	}
	return d.stream.SendMsg(a)
}

// rest closes the blocks; false if nothing was asked for since the last rest.
func (d *rangeDialogue) rest() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	used := d.used
	d.used = false
	d.held.close()
	return used
}

// end lets an answer that is being sent get out.
func (d *rangeDialogue) end() {
	d.sending.Lock()
	defer d.sending.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.held.close()
}

// read reads all ranges of a request.
func (d *rangeDialogue) read(q *rangesAsked) (*rangesGiven, error) {
	total := int64(0)
	for i := range q.ranges {
		n := q.ranges[i].n
		if n < 0 || n > MaxRangeBytes || total+n > MaxRangeBytes {
			return nil, freshet.Errorf(freshet.KindInvalid, "read ranges", "", "the ranges of a request are more than %d bytes together", MaxRangeBytes)
		}
		total += n
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil, freshet.Errorf(freshet.KindUnavailable, "read ranges", "", "shutting down")
	}
	buf := d.server.room.Get(int(total))
	r := rangeRead{ctx: d.stream.Context(), blocks: d.server.blocks, asked: q.ranges, raw: *buf, outcomes: make([]rangeOutcome, len(q.ranges))}
	none := d.held.none()
	r.read(&d.held)
	if d.used = true; none && !d.held.none() {
		select {
		case d.opened <- struct{}{}:
		default: // it is about to look
		}
	}
	*buf = r.joined()
	return &rangesGiven{outcomes: r.outcomes, data: mem.BufferSlice{mem.NewBuffer(buf, &d.server.room)}}, nil
}

// rangeRead reads the ranges of one request to their places in a buffer.
type rangeRead struct {
	ctx      context.Context //nolint:containedctx // for the time of a call
	blocks   Blocks
	asked    []askedRange
	raw      []byte
	at       []int // where each is to lie
	outcomes []rangeOutcome
}

// read reads those of one block after each other, and side by side once one of them
// has to wait.
func (r *rangeRead) read(held *openBlocks) {
	r.at = make([]int, len(r.asked))
	order := make([]int, len(r.asked))
	at, mixed := 0, false
	for i := range r.asked {
		r.at[i], order[i] = at, i
		at += int(r.asked[i].n)
		mixed = mixed || r.asked[i].id != r.asked[0].id
	}
	if mixed {
		slices.SortStableFunc(order, func(a, b int) int {
			x, y := r.asked[a].id, r.asked[b].id
			return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Index, y.Index))
		})
	}
	last := time.Now()
	for k, i := range order {
		r.one(i, held)
		now := time.Now()
		if now.Sub(last) >= slowRange && k+2 < len(order) {
			r.spread(order[k+1:])
			return
		}
		last = now
	}
}

func (r *rangeRead) spread(order []int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(sideBySide, len(order)) {
		wg.Go(func() {
			var own openBlocks
			defer own.close()
			for k := next.Add(1); k <= int64(len(order)); k = next.Add(1) {
				r.one(order[k-1], &own)
			}
		})
	}
	wg.Wait()
}

func (r *rangeRead) one(i int, held *openBlocks) {
	q, to := &r.asked[i], r.raw[r.at[i]:r.at[i]+int(r.asked[i].n)]
	body, err := held.at(r.ctx, r.blocks, q)
	if err == nil {
		_, err = io.ReadFull(body, to)
	}
	if err != nil {
		held.drop(q) // whatever it was: the next range begins anew
		r.outcomes[i].fail(freshet.Wrap("read ranges", "", err))
		return
	}
	r.outcomes[i].n = q.n
}

// joined returns the bytes of the ranges that succeeded, behind each other.
func (r *rangeRead) joined() []byte {
	used := 0
	for i := range r.outcomes {
		if o := &r.outcomes[i]; !o.failed {
			if r.at[i] != used {
				copy(r.raw[used:], r.raw[r.at[i]:r.at[i]+int(o.n)])
			}
			used += int(o.n)
		}
	}
	return r.raw[:used]
}

// turner is a stream that can go on at another byte of its block.
type turner interface {
	freshet.BlockStream
	Turn(off, n int64) error
}

// openBlocks are the blocks that were read last.
type openBlocks struct {
	all  []openBlock
	next int // is closed to make room
}

type openBlock struct {
	id          freshet.BlockID
	length      int64
	fingerprint string
	body        turner
}

func (o *openBlock) is(r *askedRange) bool {
	return o.id == r.id && o.length == r.block && o.fingerprint == r.fingerprint
}

func (h *openBlocks) none() bool { return len(h.all) == 0 }

// at returns a stream of the range.
func (h *openBlocks) at(ctx context.Context, blocks Blocks, r *askedRange) (turner, error) {
	if r.block < 0 || r.off < 0 || r.n > r.block-r.off {
		return nil, freshet.Errorf(freshet.KindInvalid, "read ranges", "", "range %d+%d is outside the block of %d bytes", r.off, r.n, r.block)
	}
	for i := range h.all {
		if o := &h.all[i]; o.is(r) {
			return o.body, o.body.Turn(r.off, r.n)
		}
	}
	fp, err := fingerprintOfWire(r.fingerprint)
	if err != nil {
		return nil, err
	}
	body, err := blocks.Read(ctx, freshet.BlockRead{
		Block: freshet.Block{ID: r.id, Length: r.block}, Source: freshet.Source{Fingerprint: fp}, Length: r.block, Cached: true,
	})
	if err != nil {
		return nil, err
	}
	t, ok := body.(turner)
	if !ok {
		_ = body.Close() // read only
		return nil, freshet.Errorf(freshet.KindUnsupported, "read ranges", "", "the node can't read at any place")
	}
	made := openBlock{r.id, r.block, r.fingerprint, t}
	if len(h.all) < maxHeld {
		h.all = append(h.all, made)
	} else {
		_ = h.all[h.next].body.Close() // read only
		h.all[h.next] = made
		h.next = (h.next + 1) % maxHeld
	}
	return t, t.Turn(r.off, r.n)
}

// drop closes the block of a range.
func (h *openBlocks) drop(r *askedRange) {
	for i := range h.all {
		if h.all[i].is(r) {
			_ = h.all[i].body.Close() // read only
			h.all = slices.Delete(h.all, i, i+1)
			h.next = 0
			return
		}
	}
}

func (h *openBlocks) close() {
	for i := range h.all {
		_ = h.all[i].body.Close() // read only
	}
	h.all, h.next = h.all[:0], 0
}
