package local

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/run"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// Lender is the node.
type Lender interface {
	// Lend opens a block that the node holds. KindNotExist: it holds none;
	// KindExhausted: too much is lent.
	Lend(ctx context.Context, req freshet.BlockRead) (Loan, error)
	// Inspect verifies a chunk of a block that a client says is damaged.
	Inspect(req freshet.BlockRead, chunk int64)
}

// Loan is a block that is lent.
type Loan interface {
	File() *os.File
	Layout() freshet.BlockLayout
	Held() bool // the node still has the block
	Sent()      // the file was passed on
	Close()     // the borrower has closed it
}

// ServerOptions are the settings of a Server; the zero value is usable.
type ServerOptions struct {
	// Node and Incarnation are what the server says that it is.
	Node        freshet.NodeID
	Incarnation uint64
	// Users may connect; empty: whoever the file's mode lets.
	Users   []uint32
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Times and bounds of a Server.
const (
	maxSessions   = 1024
	helloTimeout  = 5 * time.Second
	writeTimeout  = 2 * time.Second
	lookEvery     = time.Second
	goneFor       = 10 * time.Second // how long the borrower of a removed block is left alone
	recallTimeout = 30 * time.Second // how long a borrower has to give a block back
	maxLoans      = 4096             // of one client
)

// Server lends blocks over a socket. It is used once.
type Server struct {
	lender  Lender
	taker   Taker // nil: nothing is written by the socket
	opts    ServerOptions
	results *prometheus.CounterVec
	writes  *prometheus.CounterVec

	mu       sync.Mutex
	sessions map[*session]struct{}
	stopped  bool
	writing  int // files
	wg       sync.WaitGroup
}

// session is one client.
type session struct {
	conn  *net.UnixConn
	write sync.Mutex

	work sync.WaitGroup // answers that have to be waited for
	busy atomic.Int64   // of them

	// Guarded by the server's mu.
	loans map[uint64]*held
	last  uint64
	ended bool
	taken bool // a file comes in, which ends by itself
}

// held is a loan with what became of it.
type held struct {
	Loan

	since, goneAt, recalledAt time.Duration // 0: not yet
	sending, released         bool          // it is being passed on; and was given back already
}

// NewServer returns a Server; it starts nothing.
func NewServer(l Lender, opts ServerOptions) *Server {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	s := &Server{lender: l, opts: opts, sessions: map[*session]struct{}{}}
	s.results = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_local_opens_total", Help: "Blocks that clients on this host asked for over the Unix socket, by what came of it.",
	}, []string{"result"})
	for _, r := range []string{"lent", "draft", "absent", "exhausted", "failed"} {
		s.results.WithLabelValues(r)
	}
	s.taker, _ = l.(Taker) // not every node takes files so
	s.writes = newWriteCounter()
	if opts.Metrics != nil {
		opts.Metrics.MustRegister(s.results, s.writes,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "freshet_local_clients", Help: "Clients that are connected to the Unix socket."},
				func() float64 { n, _ := s.count(); return float64(n) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "freshet_local_loans", Help: "Descriptors of blocks that clients on this host hold."},
				func() float64 { _, n := s.count(); return float64(n) }))
	}
	return s
}

func (s *Server) count() (clients, loans int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		loans += len(c.loans)
	}
	return len(s.sessions), loans
}

// Serve serves the socket until ctx ends, then ends all connections and closes it.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	return run.Ordered(ctx,
		run.Part{Name: "recall", Run: s.watch},
		run.Part{Name: "accept", Run: func(ctx context.Context) error { return s.accept(ctx, l) }},
	)
}

func (s *Server) accept(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer s.wg.Wait()
	defer s.closeAll()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return freshet.Errorf(freshet.KindInternal, "serve socket", "", "%w", err)
			}
			s.opts.Log.WarnContext(ctx, "a local client could not be accepted", "error", err)
			select { // such as no more descriptors
			case <-s.opts.Clock.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		s.begin(ctx, c)
	}
}

func (s *Server) begin(ctx context.Context, c *net.UnixConn) {
	n := &session{conn: c, loans: map[uint64]*held{}}
	s.mu.Lock()
	full := s.stopped || len(s.sessions) >= maxSessions
	if !full {
		s.sessions[n] = struct{}{}
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if full {
		_ = c.Close() // the client streams
		return
	}
	go func() {
		defer s.wg.Done()
		waiting, cancel := context.WithCancel(ctx)
		if err := s.serve(waiting, n); ctx.Err() == nil {
			s.opts.Log.DebugContext(ctx, "the connection of a local client ended", "error", err)
		}
		cancel()
		_ = n.conn.Close() // at the latest now
		n.work.Wait()
		s.end(n)
	}()
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for n := range s.sessions {
		if !n.taken {
			_ = n.conn.Close() // ends its reads
		}
	}
}

// end gives back what the client had: it is gone, and with it its descriptors.
func (s *Server) end(n *session) {
	s.mu.Lock()
	loans := n.loans
	n.loans, n.ended = nil, true
	delete(s.sessions, n)
	s.mu.Unlock()
	for _, h := range loans {
		h.Close()
	}
}

// serve answers one client until it goes.
func (s *Server) serve(ctx context.Context, n *session) error {
	if err := n.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil { //nolint:forbidigo // the kernel's clock
		return err
	}
	b := make([]byte, maxMessage)
	first, err := s.next(n, b)
	if err != nil {
		return err
	}
	if err := s.greet(n, first); err != nil {
		return err
	}
	if err := n.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		m, err := s.next(n, b)
		if err != nil {
			return err
		}
		if err := s.handle(ctx, n, m); err != nil {
			return err
		}
	}
}

func (s *Server) next(n *session, b []byte) (*freshetv1.LocalRequest, error) {
	// Without room for them, descriptors that a client sends never come to be ours.
	size, _, err := n.conn.ReadFromUnix(b)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, net.ErrClosed
	}
	return decodeRequest(b[:size])
}

// greet checks who the client is and says who we are.
func (s *Server) greet(n *session, m *freshetv1.LocalRequest) error {
	refuse := func(err error) error {
		return errors.Join(err, s.send(n, refusal(m.GetId(), err), nil))
	}
	if m.GetHello() == nil || m.GetHello().GetVersion() != version {
		return refuse(freshet.Errorf(freshet.KindUnsupported, "greet local client", "", "this node speaks version %d", version))
	}
	if len(s.opts.Users) > 0 {
		user, err := peerUser(n.conn)
		if err != nil || !slices.Contains(s.opts.Users, user) {
			return refuse(freshet.Errorf(freshet.KindPermission, "greet local client", "", "user %d is not among listen.socket_users", user))
		}
	}
	return s.send(n, &freshetv1.LocalAnswer{Id: m.GetId(), What: &freshetv1.LocalAnswer_Welcome{
		Welcome: &freshetv1.LocalWelcome{NodeId: string(s.opts.Node), Incarnation: s.opts.Incarnation},
	}}, nil)
}

func refusal(id uint64, err error) *freshetv1.LocalAnswer {
	return &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Refusal{
		Refusal: &freshetv1.LocalRefusal{Kind: freshet.KindOf(err).String(), Message: err.Error()},
	}}
}

func (s *Server) handle(ctx context.Context, n *session, m *freshetv1.LocalRequest) error {
	switch w := m.GetWhat().(type) {
	case *freshetv1.LocalRequest_Open:
		return s.lend(ctx, n, m.GetId(), w.Open)
	case *freshetv1.LocalRequest_Release:
		s.release(n, w.Release.GetLoans())
		return nil
	case *freshetv1.LocalRequest_Fetch:
		return s.fetch(ctx, n, m.GetId(), w.Fetch)
	case *freshetv1.LocalRequest_Await:
		return s.await(ctx, n, m.GetId(), w.Await)
	case *freshetv1.LocalRequest_Damage:
		req, err := rpc.ReadBlockOfWire(&freshetv1.ReadBlockRequest{Block: w.Damage.GetBlock(), Source: w.Damage.GetSource()})
		if err != nil {
			return err
		}
		return s.later(n, func() error {
			s.lender.Inspect(req, int64(min(w.Damage.GetChunk(), freshet.MaxBlockSize))) //nolint:gosec // bounded
			return nil
		}, func() error { return nil }) // whoever reads the chunk next will find it, too
	case *freshetv1.LocalRequest_Write:
		return s.takeFile(ctx, n, m.GetId(), w.Write)
	}
	return freshet.Errorf(freshet.KindInvalid, "serve local client", "", "a request out of place")
}

// lend answers a request for a block. An error ends the connection.
func (s *Server) lend(ctx context.Context, n *session, id uint64, q *freshetv1.ReadBlockRequest) error {
	req, err := rpc.ReadBlockOfWire(q)
	if err != nil {
		return err
	}
	return s.answerLater(n, id, func() error { // its disk may hang
		loan, _, err := s.borrow(n, req, func() (Loan, int64, error) {
			l, err := s.lender.Lend(ctx, req)
			return l, 0, err
		})
		s.results.WithLabelValues(result(err, false)).Inc()
		if err != nil {
			return s.send(n, refusal(id, err), nil)
		}
		return s.passLoan(n, id, loan)
	})
}

func (s *Server) passLoan(n *session, id uint64, loan Loan) error {
	return s.pass(n, loan, func(number uint64) *freshetv1.LocalAnswer {
		return &freshetv1.LocalAnswer{Id: id, What: &freshetv1.LocalAnswer_Loan{Loan: layoutToWire(number, loan.Layout())}}
	})
}

// pass passes a loan on, which ends with the connection at the latest.
func (s *Server) pass(n *session, loan Loan, answer func(number uint64) *freshetv1.LocalAnswer) error {
	s.mu.Lock()
	n.last++
	number := n.last
	h := &held{Loan: loan, since: s.opts.Clock.Elapsed(), sending: true}
	n.loans[number] = h
	s.mu.Unlock()
	err := s.send(n, answer(number), loan.File())
	loan.Sent()
	s.mu.Lock()
	h.sending = false
	released := h.released
	s.mu.Unlock()
	if released {
		h.Close()
	}
	return err
}

// borrow has the node lend a block unless the client has too many, and recalls some
// where there are.
func (s *Server) borrow(n *session, req freshet.BlockRead, lend func() (Loan, int64, error)) (Loan, int64, error) {
	s.mu.Lock()
	many := len(n.loans) >= maxLoans
	s.mu.Unlock()
	if many {
		s.recallOldest(req.Block.Length)
		return nil, 0, freshet.Errorf(freshet.KindExhausted, "lend block", "", "this client holds %d descriptors", maxLoans)
	}
	loan, have, err := lend()
	if freshet.IsKind(err, freshet.KindExhausted) {
		s.recallOldest(req.Block.Length)
	}
	return loan, have, err
}

func result(err error, draft bool) string {
	switch freshet.KindOf(err) { //nolint:exhaustive // all others are failures
	case freshet.KindNotExist, freshet.KindUnsupported:
		return "absent"
	case freshet.KindExhausted:
		return "exhausted"
	}
	switch {
	case err != nil:
		return "failed"
	case draft:
		return "draft"
	}
	return "lent"
}

// release ends loans that the client has closed.
func (s *Server) release(n *session, loans []uint64) {
	var ended []*held
	s.mu.Lock()
	for _, number := range loans {
		if h := n.loans[number]; h != nil {
			delete(n.loans, number)
			if h.sending {
				h.released = true // the client is quick
			} else {
				ended = append(ended, h)
			}
		}
	}
	s.mu.Unlock()
	for _, h := range ended {
		h.Close()
	}
}

// send writes one datagram, with a file if there is one.
func (s *Server) send(n *session, m *freshetv1.LocalAnswer, f *os.File) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	var control []byte
	if f != nil {
		control = rights(f)
	}
	n.write.Lock()
	defer n.write.Unlock()
	if err := n.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil { //nolint:forbidigo // the kernel's clock
		return err
	}
	_, _, err = n.conn.WriteMsgUnix(b, control, nil)
	return err
}

// watch asks for the blocks back that the node does not hold any more, and ends the
// connections of clients that do not give back what they were asked for.
func (s *Server) watch(ctx context.Context) error {
	timer := s.opts.Clock.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C():
		}
		s.recall(s.overdue())
		timer.Reset(lookEvery)
	}
}

// overdue returns what is to be asked back, by client.
func (s *Server) overdue() map[*session][]uint64 {
	now := s.opts.Clock.Elapsed()
	back := map[*session][]uint64{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.sessions {
		for number, h := range n.loans {
			switch {
			case h.recalledAt != 0:
				if now-h.recalledAt > recallTimeout {
					_ = n.conn.Close() // its loans end with it
				}
			case h.goneAt != 0:
				if now-h.goneAt > goneFor {
					h.recalledAt = now
					back[n] = append(back[n], number)
				}
			case !h.Held():
				h.goneAt = now
			}
		}
	}
	return back
}

// recallOldest asks for the loans back that were made first, until they are size
// bytes: a loan that is still wanted is asked for again.
func (s *Server) recallOldest(size int64) {
	type entry struct {
		n      *session
		number uint64
		h      *held
	}
	var all []entry
	now := s.opts.Clock.Elapsed()
	back := map[*session][]uint64{}
	s.mu.Lock()
	for n := range s.sessions {
		for number, h := range n.loans {
			if h.recalledAt == 0 {
				all = append(all, entry{n, number, h})
			}
		}
	}
	slices.SortFunc(all, func(a, b entry) int {
		if (a.h.goneAt == 0) != (b.h.goneAt == 0) {
			return cmp.Compare(b.h.goneAt, a.h.goneAt) // what the node does not hold goes first
		}
		return cmp.Compare(a.h.since, b.h.since)
	})
	for _, e := range all {
		if size <= 0 {
			break
		}
		e.h.recalledAt = now
		back[e.n] = append(back[e.n], e.number)
		size -= e.h.Layout().Length
	}
	s.mu.Unlock()
	s.recall(back)
}

func (s *Server) recall(back map[*session][]uint64) {
	for n, loans := range back {
		m := &freshetv1.LocalAnswer{What: &freshetv1.LocalAnswer_Recall{Recall: &freshetv1.LocalRecall{Loans: loans}}}
		if s.send(n, m, nil) != nil {
			_ = n.conn.Close() // it does not even read
		}
	}
}
