package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// LeaseSession is the leader's side of a client that keeps answers.
type LeaseSession interface {
	ID() freshet.LeaseID
	// Next waits for something to drop; an error means that the session is over.
	Next(ctx context.Context) (freshet.LeaseBreak, error)
	// Ack says that what the breaks up to number named was dropped.
	Ack(number uint64) error
	// End says that the client keeps nothing any more, and ends the session. Next may be
	// waiting, and fails.
	End()
	// Close ends the session; what is kept of it is waited for unless End was called.
	Close()
}

// Leases is what a coordinator does for clients that keep answers.
type Leases interface {
	// OpenLeases begins a session, which goes on when ctx ends, until Close. After an error
	// there may be one all the same.
	OpenLeases(ctx context.Context, o freshet.LeaseOpening) (LeaseSession, error)
}

// LeaseServer adapts Leases to the wire.
type LeaseServer struct {
	freshetv1.UnimplementedLeaseServiceServer
	leases  Leases
	forward *Forwarder
	stop    <-chan struct{}
}

// NewLeaseServer returns the adapter; forward may be nil where the member always leads.
// Sessions end when stop is closed: a server does not wait for calls that would not end.
func NewLeaseServer(l Leases, forward *Forwarder, stop <-chan struct{}) *LeaseServer {
	return &LeaseServer{leases: l, forward: forward, stop: stop}
}

// until returns a context that ends with the stream, the server or cancel.
func (s *LeaseServer) until(stream context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(stream)
	go func() {
		select {
		case <-s.stop:
			cancel(freshet.Errorf(freshet.KindUnavailable, opHold, "", "shutting down"))
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

const opHold = "hold leases"

type (
	holdServer = grpc.BidiStreamingServer[freshetv1.HoldLeasesRequest, freshetv1.HoldLeasesResponse]
	holdClient = grpc.BidiStreamingClient[freshetv1.HoldLeasesRequest, freshetv1.HoldLeasesResponse]
)

// HoldLeases implements the service.
func (s *LeaseServer) HoldLeases(stream holdServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	opening, err := openingOfWire(first)
	if err != nil {
		return StatusOf(err)
	}
	session, err := s.leases.OpenLeases(stream.Context(), opening)
	if err != nil {
		return s.relay(stream, first, err)
	}
	defer session.Close()
	id := session.ID()
	if err := stream.Send(&freshetv1.HoldLeasesResponse{Session: id[:]}); err != nil {
		return err
	}
	ctx, cancel := s.until(stream.Context())
	defer cancel(nil)
	go func() { // ends with the stream
		for {
			req, err := stream.Recv()
			if err == nil {
				err = session.Ack(req.GetAcknowledged())
			}
			if errors.Is(err, io.EOF) { // a stream that broke has another error
				session.End()
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	for {
		b, err := session.Next(ctx)
		if err != nil {
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, io.EOF):
				return nil
			case cause != nil:
				err = cause
			}
			return StatusOf(err)
		}
		if err := stream.Send(breakToWire(&b)); err != nil {
			return err
		}
	}
}

// relay lets the leader hold the session.
func (s *LeaseServer) relay(stream holdServer, first *freshetv1.HoldLeasesRequest, cause error) error {
	fctx, conn, err := s.forward.toLeader(stream.Context(), cause)
	if err != nil {
		return StatusOf(err)
	}
	fctx, cancel := s.until(fctx)
	defer cancel(nil)
	to, err := freshetv1.NewLeaseServiceClient(conn).HoldLeases(fctx)
	if err != nil {
		return err
	}
	if err := to.Send(first); err != nil {
		return err
	}
	go func() { // ends with the stream
		for {
			req, err := stream.Recv()
			if err == nil {
				err = to.Send(req)
			} else if errors.Is(err, io.EOF) && to.CloseSend() == nil {
				return // the leader ends it
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	for {
		m, err := to.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

func leaseOfWire(b []byte) (id freshet.LeaseID, err error) {
	if len(b) != 0 && len(b) != len(id) {
		return id, freshet.Errorf(freshet.KindInvalid, opHold, "", "the name of a session has %d bytes, not %d", len(b), len(id))
	}
	copy(id[:], b)
	return id, nil
}

func leaseToWire(id freshet.LeaseID) []byte {
	if id.IsZero() {
		return nil
	}
	return slices.Clone(id[:])
}

func openingToWire(o *freshet.LeaseOpening) *freshetv1.HoldLeasesRequest {
	out := &freshetv1.HoldLeasesRequest{Session: leaseToWire(o.ID), Previous: leaseToWire(o.Previous)}
	for _, id := range o.Unanswered {
		out.Unanswered = append(out.Unanswered, leaseToWire(id))
	}
	return out
}

func openingOfWire(m *freshetv1.HoldLeasesRequest) (o freshet.LeaseOpening, err error) {
	if n := len(m.GetUnanswered()); n > freshet.MaxUnanswered {
		return o, freshet.Errorf(freshet.KindInvalid, opHold, "", "%d sessions are named that were not answered, %d may be", n, freshet.MaxUnanswered)
	}
	if o.ID, err = leaseOfWire(m.GetSession()); err != nil {
		return o, err
	}
	if o.Previous, err = leaseOfWire(m.GetPrevious()); err != nil {
		return o, err
	}
	for _, b := range m.GetUnanswered() {
		id, err := leaseOfWire(b)
		if err != nil {
			return o, err
		}
		o.Unanswered = append(o.Unanswered, id)
	}
	return o, nil
}

// leaseTimeToWire and leaseTimeOfWire carry for how long an answer may be kept.
func leaseTimeToWire(d time.Duration) uint64 { return uint64(max(d, 0)) }

func leaseTimeOfWire(ns uint64) time.Duration { return time.Duration(min(ns, uint64(time.Hour))) }

func breakToWire(b *freshet.LeaseBreak) *freshetv1.HoldLeasesResponse {
	out := &freshetv1.HoldLeasesResponse{Number: b.Number, Paths: make([]string, len(b.Paths))}
	for i, p := range b.Paths {
		out.Paths[i] = string(p)
	}
	return out
}

// breakOfWire reads a break. A path that can't be understood stands for all.
func breakOfWire(m *freshetv1.HoldLeasesResponse) freshet.LeaseBreak {
	b := freshet.LeaseBreak{Number: m.GetNumber(), Paths: make([]freshet.Path, len(m.GetPaths()))}
	for i, text := range m.GetPaths() {
		p, err := freshet.ParsePath(text)
		if err != nil {
			p = freshet.Root
		}
		b.Paths[i] = p
	}
	return b
}

// Leases returns what a cluster does for clients that keep answers.
func (c *Coordinator) Leases() Leases { return leaseCaller{freshetv1.NewLeaseServiceClient(c.conn)} }

type leaseCaller struct {
	service freshetv1.LeaseServiceClient
}

// OpenLeases implements Leases.
func (c leaseCaller) OpenLeases(ctx context.Context, o freshet.LeaseOpening) (LeaseSession, error) {
	asking := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // End is said on the stream, after ctx has ended too
	defer context.AfterFunc(asking, cancel)()
	stream, err := c.service.HoldLeases(ctx)
	if err == nil {
		err = stream.Send(openingToWire(&o))
	}
	var first *freshetv1.HoldLeasesResponse
	if err == nil || errors.Is(err, io.EOF) { // then Recv says why
		first, err = stream.Recv()
	}
	if err == nil && asking.Err() != nil {
		err = freshet.Errorf(freshet.KindDeadline, opHold, "", "%w", context.Cause(asking))
	}
	if err != nil {
		cancel()
		return nil, ErrorOf(err)
	}
	id, err := leaseOfWire(first.GetSession())
	if err != nil || id.IsZero() {
		cancel()
		return nil, freshet.Errorf(freshet.KindInternal, opHold, "", "the coordinator gave the session no name")
	}
	return &heldLeases{id: id, stream: stream, cancel: cancel}, nil
}

// heldLeases is a session by a stream.
type heldLeases struct {
	id     freshet.LeaseID
	stream holdClient
	cancel context.CancelFunc
	sends  sync.Mutex // of those who send
}

// ID implements LeaseSession.
func (h *heldLeases) ID() freshet.LeaseID { return h.id }

// Next implements LeaseSession. The end of ctx ends the session.
func (h *heldLeases) Next(ctx context.Context) (freshet.LeaseBreak, error) {
	defer context.AfterFunc(ctx, h.cancel)()
	m, err := h.stream.Recv()
	if errors.Is(err, io.EOF) {
		return freshet.LeaseBreak{}, freshet.Errorf(freshet.KindUnavailable, opHold, "", "the coordinator ended the session")
	}
	if err != nil {
		return freshet.LeaseBreak{}, ErrorOf(err)
	}
	return breakOfWire(m), nil
}

// Ack implements LeaseSession.
func (h *heldLeases) Ack(number uint64) error {
	h.sends.Lock()
	defer h.sends.Unlock()
	return ErrorOf(h.stream.Send(&freshetv1.HoldLeasesRequest{Acknowledged: number}))
}

// End implements LeaseSession.
func (h *heldLeases) End() {
	if h.sends.TryLock() { // else the stream takes nothing any more
		defer h.sends.Unlock()
		_ = h.stream.CloseSend() // it never fails
	}
}

// Close implements LeaseSession.
func (h *heldLeases) Close() { h.cancel() }

// Caller returns in whose name the calls of a context are made, as far as it says: who
// keeps an answer may give it to nobody else.
func Caller(ctx context.Context) string {
	md, ok := metadata.FromOutgoingContext(ctx)
	if !ok {
		return ""
	}
	return strings.Join(md.Get(UserKey), "\x00")
}
