package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
)

// newTransport makes what carries Raft's messages. It starts goroutines: it is
// called by Run.
func newTransport(o *Options, log *raftLog) (transport, error) {
	if o.Network != nil {
		return o.Network.join(o.Advertise)
	}
	layer, err := newStreamLayer(o)
	if err != nil {
		return nil, err
	}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, Timeout: transportTimeout, Logger: log.Named("raft.net"),
	}), nil
}

// streamLayer gives Raft the caller's listener and dialer, and closes the
// connections that Raft leaves open.
type streamLayer struct {
	listener  net.Listener
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	advertise net.Addr

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

// advertised is an address as it was configured, which may be a host name.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

func newStreamLayer(o *Options) (*streamLayer, error) {
	s := &streamLayer{listener: o.Listener, dial: o.Dial, advertise: o.Listener.Addr(), open: map[net.Conn]struct{}{}}
	if s.dial == nil {
		s.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if o.Advertise != "" {
		s.advertise = advertised(o.Advertise)
	}
	host, _, err := net.SplitHostPort(s.advertise.String())
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "open journal", "", "the advertised Raft address %q: %w", s.advertise, err)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return nil, freshet.Errorf(freshet.KindInvalid, "open journal", "",
			"the other members can't dial %s; set an address to advertise", s.advertise)
	}
	return s, nil
}

// Accept implements net.Listener.
func (s *streamLayer) Accept() (net.Conn, error) {
	c, err := s.listener.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Dial implements raft.StreamLayer.
func (s *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.dial(ctx, string(addr))
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Addr implements net.Listener.
func (s *streamLayer) Addr() net.Addr { return s.advertise }

// Close implements net.Listener: it closes the connections too.
func (s *streamLayer) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = map[net.Conn]struct{}{}
	s.mu.Unlock()
	for c := range open {
		_ = c.Close() // the one that matters is the tracked connection's own
	}
	return s.listener.Close()
}

func (s *streamLayer) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	s.open[c] = struct{}{}
	return &trackedConn{Conn: c, layer: s}, nil
}

type trackedConn struct {
	net.Conn
	layer *streamLayer
}

// Close implements net.Conn.
func (t *trackedConn) Close() error {
	t.layer.mu.Lock()
	delete(t.layer.open, t.Conn)
	t.layer.mu.Unlock()
	return t.Conn.Close()
}

// MemoryNetwork carries the messages of members in one process, for simulation.
// Links can be cut. It may be used inside a testing/synctest bubble. The zero
// value has no members and no cuts. Safe for concurrent use.
type MemoryNetwork struct {
	mu    sync.Mutex
	nodes map[raft.ServerAddress]*raft.InmemTransport
	cut   map[[2]raft.ServerAddress]bool
	delay func(from, to string) time.Duration
}

// SetDelay makes each message take the time that delay returns, which is called
// concurrently; nil means none.
func (n *MemoryNetwork) SetDelay(delay func(from, to string) time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = delay
}

// Cut stops calls from one address to the other, in this direction only. Calls
// that are under way lose their answer.
func (n *MemoryNetwork) Cut(from, to string) { n.set(from, to, true) }

// Heal undoes Cut.
func (n *MemoryNetwork) Heal(from, to string) { n.set(from, to, false) }

// HealAll undoes all cuts.
func (n *MemoryNetwork) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Isolate cuts the address from all others, in both directions.
func (n *MemoryNetwork) Isolate(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		if other != raft.ServerAddress(addr) {
			n.setLocked(raft.ServerAddress(addr), other, true)
			n.setLocked(other, raft.ServerAddress(addr), true)
		}
	}
}

func (n *MemoryNetwork) set(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setLocked(raft.ServerAddress(from), raft.ServerAddress(to), cut)
}

func (n *MemoryNetwork) setLocked(from, to raft.ServerAddress, cut bool) {
	if n.cut == nil {
		n.cut = map[[2]raft.ServerAddress]bool{}
	}
	n.cut[[2]raft.ServerAddress{from, to}] = cut
}

// passes reports, after the time that it takes, whether a message gets through.
func (n *MemoryNetwork) passes(from, to raft.ServerAddress) bool {
	n.mu.Lock()
	delay := n.delay
	n.mu.Unlock()
	if delay != nil {
		if d := delay(string(from), string(to)); d > 0 {
			<-time.After(d)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[[2]raft.ServerAddress{from, to}]
}

// join connects a member to all others; a member that restarts takes the place of
// its former self.
func (n *MemoryNetwork) join(addr string) (transport, error) {
	if addr == "" {
		return nil, freshet.Errorf(freshet.KindInvalid, "open journal", "", "a member in memory needs an address to advertise")
	}
	at, t := raft.NewInmemTransport(raft.ServerAddress(addr))
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = map[raft.ServerAddress]*raft.InmemTransport{}
	}
	for other, peer := range n.nodes {
		if other != at {
			t.Connect(other, peer)
			peer.Connect(at, t)
		}
	}
	n.nodes[at] = t
	return &memTransport{InmemTransport: t, net: n, from: at}, nil
}

// leave takes a stopped member off the network.
func (n *MemoryNetwork) leave(at raft.ServerAddress, t *raft.InmemTransport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[at] != t {
		return
	}
	delete(n.nodes, at)
	for _, peer := range n.nodes {
		peer.Disconnect(at)
	}
	for { // nobody serves these calls any more; their callers would wait for seconds
		select {
		case call := <-t.Consumer():
			call.Respond(nil, errGone)
		default:
			return
		}
	}
}

// memTransport puts the cuts in front of Raft's transport in memory. It does not
// pipeline, so that every call passes here.
type memTransport struct {
	*raft.InmemTransport
	net  *MemoryNetwork
	from raft.ServerAddress
}

var (
	errCut  = errors.New("the link is cut")
	errGone = errors.New("the member has stopped")
)

// over makes the call unless the link is cut, and loses the answer if the way
// back is.
func (t *memTransport) over(to raft.ServerAddress, call func() error) error {
	if !t.net.passes(t.from, to) {
		return fmt.Errorf("call %s: %w", to, errCut)
	}
	err := call()
	if !t.net.passes(to, t.from) {
		return fmt.Errorf("answer of %s: %w", to, errCut)
	}
	return err
}

// AppendEntriesPipeline implements raft.Transport.
func (t *memTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *memTransport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.over(to, func() error { return t.InmemTransport.AppendEntries(id, to, req, resp) })
}

// RequestVote implements raft.Transport.
func (t *memTransport) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.over(to, func() error { return t.InmemTransport.RequestVote(id, to, req, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *memTransport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.over(to, func() error { return t.InmemTransport.RequestPreVote(id, to, req, resp) })
}

// InstallSnapshot implements raft.Transport.
func (t *memTransport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.over(to, func() error { return t.InmemTransport.InstallSnapshot(id, to, req, resp, data) })
}

// TimeoutNow implements raft.Transport.
func (t *memTransport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.over(to, func() error { return t.InmemTransport.TimeoutNow(id, to, req, resp) })
}

// Close implements raft.WithClose.
func (t *memTransport) Close() error {
	t.net.leave(t.from, t.InmemTransport)
	return t.InmemTransport.Close()
}
