package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Gate is the TCP door of a handler, which can be shut and opened again on the
// same port. While it is shut connections are refused, as by a server that is
// down, and nobody else gets the port. Safe for concurrent use.
type Gate struct {
	srv  *http.Server
	addr *net.TCPAddr
	// guard is bound to the port but never listens: it keeps the port while the
	// gate is shut.
	guard int

	mu    sync.Mutex
	ln    net.Listener // nil while shut
	conns map[*gateConn]struct{}

	incoming  chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once
	accepting sync.WaitGroup
}

// OpenGate binds addr, an IPv4 host:port whose port may be 0. Run serves it.
func OpenGate(addr string, handler http.Handler) (*Gate, error) {
	ln, err := listen(addr)
	if err != nil {
		return nil, err
	}
	g := &Gate{
		srv: &http.Server{Handler: handler}, addr: ln.Addr().(*net.TCPAddr), ln: ln,
		conns: map[*gateConn]struct{}{}, incoming: make(chan net.Conn), closed: make(chan struct{}),
	}
	if g.guard, err = bindOnly(g.addr); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return g, nil
}

// Addr is the bound host:port.
func (g *Gate) Addr() string { return g.addr.String() }

// Run serves until ctx ends; then it resets what is open and returns nil.
func (g *Gate) Run(ctx context.Context) error {
	g.mu.Lock()
	g.startAccept(g.ln)
	g.mu.Unlock()
	stop := context.AfterFunc(ctx, g.shut)
	err := g.srv.Serve(gateListener{g})
	stop()
	g.shut()
	g.accepting.Wait()
	if ctx.Err() != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return err
}

func (g *Gate) shut() {
	g.closeOnce.Do(func() {
		close(g.closed)
		g.Down()
		_ = g.srv.Close()
		_ = unix.Close(g.guard)
	})
}

// Down refuses new connections and resets the open ones. It returns when both
// are in force.
func (g *Gate) Down() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != nil {
		_ = g.ln.Close()
		g.ln = nil
	}
	for c := range g.conns {
		abort(c.TCPConn)
	}
	clear(g.conns)
}

// Up accepts connections again.
func (g *Gate) Up() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.closed:
		return net.ErrClosed
	default:
	}
	if g.ln != nil {
		return nil
	}
	ln, err := listen(g.addr.String())
	if err != nil {
		return err
	}
	g.ln = ln
	g.startAccept(ln)
	return nil
}

func (g *Gate) startAccept(ln net.Listener) {
	if ln == nil {
		return
	}
	g.accepting.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue // e.g. the client left between connect and accept
			}
			g.admit(ln, c.(*net.TCPConn))
		}
	})
}

// admit hands a connection to the server unless its listener is shut by now.
func (g *Gate) admit(ln net.Listener, c *net.TCPConn) {
	gc := &gateConn{TCPConn: c, gate: g}
	g.mu.Lock()
	if g.ln != ln {
		g.mu.Unlock()
		abort(c)
		return
	}
	g.conns[gc] = struct{}{}
	g.mu.Unlock()
	select {
	case g.incoming <- gc:
	case <-g.closed:
		_ = gc.Close()
	}
}

// gateConn forgets itself when closed.
type gateConn struct {
	*net.TCPConn
	gate *Gate
}

// Close closes the connection.
func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.TCPConn.Close()
}

// gateListener feeds one http.Server over all openings of the gate.
type gateListener struct{ g *Gate }

func (l gateListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.g.incoming:
		return c, nil
	case <-l.g.closed:
		return nil, net.ErrClosed
	}
}

func (l gateListener) Addr() net.Addr { return l.g.addr }
func (l gateListener) Close() error   { return nil } // shut owns the closing

// abort closes with RST instead of FIN where the connection can.
func abort(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// listen shares the port with the guard, and with the guard of the process that
// started this one.
func listen(addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var opErr error
		err := c.Control(func(fd uintptr) { opErr = share(int(fd)) })
		return errors.Join(err, opErr)
	}}
	ln, err := lc.Listen(context.Background(), "tcp4", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ln, nil
}

func bindOnly(addr *net.TCPAddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, fmt.Errorf("guard socket: %w", err)
	}
	unix.CloseOnExec(fd)
	sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	if err := errors.Join(share(fd), unix.Bind(fd, sa)); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("guard socket: %w", err)
	}
	return fd, nil
}

func share(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
	)
}
