package local

import (
	"context"
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
	slotSize  = 512 << 10 // bytes
	maxSlots  = 4
	maxWrites = 64 // of all clients
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
	return m.GetSlots() > 0 && m.GetSlots() <= 64 && m.GetSlotSize() > 0 && m.GetSlotSize() <= 16<<20
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
	in, file, err := newIncoming(slotsFor(q.GetLength()), func() error {
		return s.send(n, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Taken{Taken: &freshetv1.LocalTaken{Slots: 1}}}, nil)
	})
	if err != nil {
		return refuse(freshet.Errorf(freshet.KindExhausted, "write file", "", "share memory: %w", err))
	}
	err = s.send(n, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Room{Room: in.describe()}}, file)
	_ = file.Close() // the client has its copy, or never will
	if err != nil {
		in.free()
		return err
	}
	return s.takeFrom(ctx, n, in, func(ctx context.Context) error {
		done, err := s.taker.Write(ctx, t, in, q.GetLength())
		result := "written"
		if err != nil {
			result = "failed"
		}
		s.writes.WithLabelValues(result).Inc()
		return s.send(n, &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Outcome{Outcome: rpc.OutcomeToWire(done, err)}}, nil)
	})
}

// takeFrom calls write when the client has put the first bytes into the room, and
// waits for the client to go. The file goes on when the server ends: the node knows
// for how long.
func (s *Server) takeFrom(ctx context.Context, n *session, in *incoming, write func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	left := make(chan error, 1)
	go func() {
		err := in.receive(n.conn, func() (*freshetv1.LocalRequest, error) { return s.next(n, make([]byte, smallMessage)) })
		cancel() // the client has gone
		left <- err
	}()
	var failed error
	select {
	case <-in.first:
		s.mu.Lock()
		n.taken = !s.stopped
		s.mu.Unlock()
		if n.taken {
			failed = write(ctx)
		}
	case err := <-left:
		left <- err
	}
	in.close()
	if failed != nil || !n.taken {
		_ = n.conn.Close() // what was to be said can't be
	} else if err := n.conn.SetReadDeadline(time.Now().Add(writeTimeout)); err != nil { //nolint:forbidigo // the kernel's clock
		_ = n.conn.Close() // as above
	}
	err := <-left // the client closes when it has the outcome
	in.free()
	if failed != nil {
		err = failed
	}
	return err
}

// smallMessage is more than what a client says while it writes.
const smallMessage = 256

// filled is what a client says of a slot.
type filled struct {
	bytes int
	end   bool
}

// incoming is the body of a file in memory that its client fills.
type incoming struct {
	room   []byte
	slots  int
	tell   func() error // that one more slot is free
	pieces chan filled
	first  chan struct{} // closed with the first of them
	gone   chan struct{} // closed when no more will come
	quit   chan struct{} // closed when nobody wants more

	// Of the one who takes.
	slot  int
	taken bool // the slot before is not given back yet
	ended bool
	rest  []byte // of a slot, for Read

	mu     sync.Mutex // Read may go on when the room is given up
	closed bool
}

func newIncoming(slots int, tell func() error) (*incoming, *os.File, error) {
	f, room, err := newRoom(slots * slotSize)
	if err != nil {
		return nil, nil, err
	}
	return &incoming{
		room: room, slots: slots, tell: tell, pieces: make(chan filled, slots),
		first: make(chan struct{}), gone: make(chan struct{}), quit: make(chan struct{}),
	}, f, nil
}

func (in *incoming) describe() *freshetv1.LocalRoom {
	return &freshetv1.LocalRoom{Slots: uint32(in.slots), SlotSize: slotSize} //nolint:gosec // at most maxSlots
}

// receive hears what the client has filled, until it goes.
func (in *incoming) receive(c *net.UnixConn, next func() (*freshetv1.LocalRequest, error)) error {
	defer close(in.gone)
	if err := c.SetReadDeadline(time.Now().Add(firstTimeout)); err != nil { //nolint:forbidigo // the kernel's clock
		return err
	}
	for begun, ended := false, false; ; begun = true {
		m, err := next()
		if err != nil {
			return err
		}
		f := filled{bytes: int(m.GetFilled().GetBytes()), end: m.GetFilled().GetEnd()}
		if m.GetFilled() == nil || ended || f.bytes > slotSize || (f.bytes < slotSize && !f.end) {
			return freshet.Errorf(freshet.KindInvalid, "write file", "", "the client fills what it has not")
		}
		ended = f.end
		select {
		case in.pieces <- f:
		default:
			return freshet.Errorf(freshet.KindInvalid, "write file", "", "the client fills what was not taken yet")
		}
		if !begun {
			close(in.first)
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
		}
	}
}

// Next returns the next bytes where they are; see Taker.
func (in *incoming) Next(ctx context.Context, idle time.Duration) ([]byte, error) {
	if in.taken {
		in.taken = false
		if err := in.tell(); err != nil {
			return nil, errLeft()
		}
	}
	if in.ended {
		return nil, io.EOF
	}
	f, err := in.await(ctx, idle)
	if err != nil {
		return nil, err
	}
	at := in.slot * slotSize
	in.slot = (in.slot + 1) % in.slots
	in.taken, in.ended = !f.end, f.end
	b := in.room[at : at+f.bytes : at+f.bytes]
	if f.end {
		return b, io.EOF
	}
	return b, nil
}

// await waits for the next slot, for idle if it is not 0.
func (in *incoming) await(ctx context.Context, idle time.Duration) (filled, error) {
	select {
	case f := <-in.pieces:
		return f, nil
	default:
	}
	var late <-chan time.Time
	if idle > 0 {
		timer := time.NewTimer(idle)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case f := <-in.pieces:
		return f, nil
	case <-in.gone:
		return filled{}, errLeft()
	case <-in.quit:
		return filled{}, io.ErrClosedPipe
	case <-ctx.Done():
		return filled{}, context.Cause(ctx)
	case <-late:
		return filled{}, freshet.Errorf(freshet.KindUnavailable, "write file", "", "the client sent nothing for %s; the upload was dropped", idle)
	}
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
	if !in.closed {
		in.closed = true
		close(in.quit)
	}
}

// free gives the memory back.
func (in *incoming) free() {
	in.close()
	unmapRoom(in.room)
}
