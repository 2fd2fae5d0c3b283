package local

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// Taker is a Lender that takes files as well.
type Taker interface {
	// Write takes a file whose bytes are in body, which has a method Next too:
	//
	//	Next(ctx context.Context, idle time.Duration) ([]byte, error)
	//
	// returns the next bytes in the memory that the client shares, valid until the
	// next call, with io.EOF after the last. The client can change them at any time:
	// what was made of them once need not hold for what is read of them later. Read
	// copies. The body is not used after Write has returned, except for a Read that
	// was waiting then.
	Write(ctx context.Context, t freshet.Ticket, body io.Reader, declared int64) (freshet.Completed, error)
}

// Sizes and bounds of the memory that is shared for a write.
const (
	slotSize = 1 << 20 // bytes
	// A block's file has a page before its bytes, so a first slot that lacks as many
	// has all others end where the file's large pages do, which is cheaper to write.
	firstSlot = slotSize - 4096
	maxSlots  = 4
	maxWrites = 32 // of all clients
)

// A client says within firstTimeout that there is something to take.
const firstTimeout = 10 * time.Minute

// slotsFor returns how many slots a body of that length needs.
func slotsFor(declared int64) int {
	if declared < 0 || declared >= maxSlots*slotSize {
		return maxSlots
	}
	return int(declared/slotSize) + 1
}

func roomIsSane(m *freshetv1.LocalRoom) bool {
	return m.GetSlots() > 0 && m.GetSlots() <= 64 && m.GetSlotSize() > 0 && m.GetSlotSize() <= 16<<20 && m.GetFirst() <= m.GetSlotSize()
}

func newWriteCounter() *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_local_writes_total", Help: "Files that clients on this host wrote through memory shared over the Unix socket, by what came of it.",
	}, []string{"result"})
	for _, r := range []string{"written", "failed", "refused"} {
		c.WithLabelValues(r)
	}
	return c
}

// takeFile serves a connection that writes a file, to its end: an error.
func (s *Server) takeFile(ctx context.Context, n *session, id uint64, q *freshetv1.LocalWrite) error {
	t, err := rpc.TicketOfWire(q.GetTicket())
	if err != nil {
		return err
	}
	refuse := func(err error) error {
		s.writes.WithLabelValues("refused").Inc()
		return s.send(n, refusal(id, err), nil)
	}
	if s.taker == nil {
		return refuse(freshet.Errorf(freshet.KindUnsupported, "write file", "", "this node takes no files over its socket"))
	}
	s.mu.Lock()
	full := s.writing >= maxWrites
	if !full {
		s.writing++
	}
	s.mu.Unlock()
	if full {
		return refuse(freshet.Errorf(freshet.KindExhausted, "write file", "", "%d files are written over the socket", maxWrites))
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writing--
	}()
	in, file, err := newIncoming(s, n, id, slotsFor(q.GetLength()))
	if err != nil {
		return refuse(freshet.Errorf(freshet.KindExhausted, "write file", "", "share memory: %w", err))
	}
	defer in.free()
	err = s.send(n, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Room{Room: in.describe()}}, file)
	_ = file.Close() // the client has its copy, or never will
	if err != nil {
		return err
	}
	if err := in.begin(); err != nil {
		return err
	}
	s.mu.Lock()
	n.taken = !s.stopped
	s.mu.Unlock()
	if !n.taken {
		return net.ErrClosed
	}
	// The file goes on when the server ends: the node knows for how long.
	ctx, in.left = context.WithCancel(context.WithoutCancel(ctx))
	defer in.left()
	done, err := s.taker.Write(ctx, t, in, q.GetLength())
	in.close()
	result := "written"
	if err != nil {
		result = "failed"
	}
	s.writes.WithLabelValues(result).Inc()
	if err := s.send(n, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Outcome{Outcome: rpc.OutcomeToWire(done, err)}}, nil); err != nil {
		return err
	}
	return in.farewell()
}

// filled is what a client says of a slot.
type filled struct {
	bytes int
	end   bool
}

// incoming is the body of a file in memory that its client fills.
type incoming struct {
	room  []byte
	slots int
	conn  *net.UnixConn
	hear  func() (*freshetv1.LocalRequest, error)
	tell  func(taken int) error
	left  func() // called when the client has gone, once it has said all

	// Of the one who takes.
	ahead *filled // heard already
	least int     // bytes of the next slot, unless it is the last
	slot  int
	taken int // slots that were not given back yet
	ended bool
	rest  []byte        // of a slot, for Read
	gone  chan struct{} // closed when the client has gone; nil before the end

	mu     sync.Mutex // Read may go on when the room is given up
	closed bool
}

func newIncoming(s *Server, n *session, id uint64, slots int) (*incoming, *os.File, error) {
	f, room, err := newRoom(slots * slotSize)
	if err != nil {
		return nil, nil, err
	}
	return &incoming{
		room: room, slots: slots, conn: n.conn, least: firstSlot,
		hear: func() (*freshetv1.LocalRequest, error) { return s.next(n, make([]byte, smallMessage)) }, // two may wait for a moment
		tell: func(taken int) error {
			m := &freshetv1.LocalTaken{Slots: uint32(taken)} //nolint:gosec // at most maxSlots
			return s.send(n, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Taken{Taken: m}}, nil)
		},
	}, f, nil
}

// smallMessage is more than what a client says while it writes.
const smallMessage = 256

func (in *incoming) describe() *freshetv1.LocalRoom {
	return &freshetv1.LocalRoom{Slots: uint32(in.slots), SlotSize: slotSize, First: firstSlot} //nolint:gosec // at most maxSlots
}

// begin waits for the first bytes.
func (in *incoming) begin() error {
	f, err := in.await(context.Background(), firstTimeout)
	in.ahead = &f
	return err
}

// Next returns the next bytes where they are; see Taker.
func (in *incoming) Next(ctx context.Context, idle time.Duration) ([]byte, error) {
	if in.ended {
		return nil, io.EOF
	}
	// Half of them at a time: each word wakes the client.
	if in.taken >= max(in.slots/2, 1) {
		if err := in.tell(in.taken); err != nil {
			return nil, errLeft()
		}
		in.taken = 0
	}
	f, err := in.next(ctx, idle)
	if err != nil {
		return nil, err
	}
	at := in.slot * slotSize
	in.slot = (in.slot + 1) % in.slots
	in.taken++
	b := in.room[at : at+f.bytes : at+f.bytes]
	if !f.end {
		return b, nil
	}
	in.ended = true
	in.gone = make(chan struct{})
	go in.watch()
	return b, io.EOF
}

func (in *incoming) next(ctx context.Context, idle time.Duration) (filled, error) {
	if f := in.ahead; f != nil {
		in.ahead = nil
		return *f, nil
	}
	return in.await(ctx, idle)
}

// await waits for the client to fill a slot, for idle if it is not 0.
func (in *incoming) await(ctx context.Context, idle time.Duration) (filled, error) {
	var until time.Time
	if idle > 0 {
		until = time.Now().Add(idle) //nolint:forbidigo // the kernel's clock
	}
	if !in.listen(until) {
		return filled{}, io.ErrClosedPipe
	}
	// Only now, so that it has the last word.
	defer context.AfterFunc(ctx, in.deafen)()
	m, err := in.hear()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return filled{}, context.Cause(ctx)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return filled{}, errLeft()
	case in.isClosed():
		return filled{}, io.ErrClosedPipe
	default:
		return filled{}, freshet.Errorf(freshet.KindUnavailable, "write file", "", "the client sent nothing for %s; the upload was dropped", idle)
	}
	f := filled{bytes: int(m.GetFilled().GetBytes()), end: m.GetFilled().GetEnd()}
	if m.GetFilled() == nil || f.bytes > slotSize || (f.bytes < in.least && !f.end) {
		return filled{}, freshet.Errorf(freshet.KindInvalid, "write file", "", "the client says what makes no sense; nothing was written")
	}
	in.least = slotSize
	return f, nil
}

// listen lets the next read of the connection wait so long; false: nobody wants it.
func (in *incoming) listen(until time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.closed && in.conn.SetReadDeadline(until) == nil
}

// deafen ends a read that is waiting.
func (in *incoming) deafen() { _ = in.conn.SetReadDeadline(time.Unix(1, 0)) } //nolint:errcheck // it has ended then

// watch waits for the client to go, which has said all that it has to say. What it
// says then ends the connection as well.
func (in *incoming) watch() {
	defer close(in.gone)
	if in.listen(time.Time{}) {
		_, _ = in.hear() //nolint:errcheck // it is an error in any case
	}
	if !in.isClosed() {
		in.left()
	}
}

// farewell waits for the client to go, which has the outcome. A connection that is
// closed from this side first may lose it.
func (in *incoming) farewell() error {
	if in.gone != nil {
		<-in.gone // close has ended it
	}
	err := in.conn.SetReadDeadline(time.Now().Add(writeTimeout)) //nolint:forbidigo // the kernel's clock
	for err == nil {
		_, err = in.hear()
	}
	return err
}

func errLeft() error {
	return freshet.Errorf(freshet.KindUnavailable, "write file", "", "the client went away; nothing was written")
}

// Read implements io.Reader.
func (in *incoming) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if n, err := in.copy(p); n > 0 || err != nil {
			return n, err
		}
		b, err := in.Next(context.Background(), 0)
		if in.rest = b; len(b) == 0 && err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (in *incoming) copy(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return 0, io.ErrClosedPipe
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

// Close implements io.Closer: it ends a Read that is waiting.
func (in *incoming) Close() error {
	in.close()
	return nil
}

func (in *incoming) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.deafen()
}

func (in *incoming) isClosed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// free gives the memory back.
func (in *incoming) free() {
	in.close()
	_ = in.conn.Close() // whoever still waits for it must end
	if in.gone != nil {
		<-in.gone
	}
	unmapRoom(in.room)
}
