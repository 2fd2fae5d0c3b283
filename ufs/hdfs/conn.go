package hdfs

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
)

// client is one connection to the NameNode, with the connections to DataNodes
// that were made through it. It serves one call, reader or writer at a time. The
// library knows no contexts: to end a call early is to close what it waits for.
type client struct {
	lib     *lib.Client
	execute executor
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	cfg     *config
	ctx     context.Context //nolint:containedctx // dials live as long as the client
	cancel  context.CancelFunc

	active  atomic.Pointer[string] // NameNode that was dialled last
	broken  atomic.Bool            // a connection to the NameNode failed: not to be used again
	dials   atomic.Int64           // connections made to DataNodes
	mu      sync.Mutex
	conns   map[*conn]struct{}
	dead    bool
	refused error // by the endpoint policy
	data    error // first failure of a connection to a DataNode
}

var errKilled = errors.New("the connection was given up")

func newClient(cfg *config) *client {
	c := &client{cfg: cfg, dial: cfg.policy.DialContext, conns: map[*conn]struct{}{}}
	c.ctx, c.cancel = context.WithCancel(context.Background()) //nolint:gosec // kill calls it
	return c
}

// connect makes the library's client, which dials and greets the NameNode.
func (c *client) connect(addresses []string) error {
	opts := c.cfg.lib
	opts.Addresses = addresses
	opts.NamenodeDialFunc = func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := c.open(network, address, false)
		if err == nil {
			c.active.Store(&address)
		}
		return conn, err
	}
	opts.DatanodeDialFunc = func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := c.open(network, address, true)
		if err == nil {
			c.dials.Add(1)
		}
		return conn, err
	}
	made, err := lib.NewClient(opts)
	if err != nil {
		return err
	}
	c.lib = made
	c.execute, err = executorOf(made)
	return err
}

func (c *client) open(network, address string, data bool) (net.Conn, error) {
	raw, err := c.dial(c.ctx, network, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		if freshet.IsKind(err, freshet.KindPermission) {
			c.refused = err
		}
		return nil, err
	case c.dead:
		raw.Close()
		return nil, errKilled
	}
	conn := &conn{Conn: raw, owner: c, data: data, timeout: c.cfg.requestTimeout}
	c.conns[conn] = struct{}{}
	return conn, nil
}

// run calls f, which uses c, and ends it when ctx ends.
func (c *client) run(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, c.kill)
	err := f()
	stop()
	return err
}

// kill closes all connections and makes no new ones: whatever waits for them
// returns. It may be called at any time and from any goroutine.
func (c *client) kill() {
	c.cancel()
	c.mu.Lock()
	c.dead = true
	conns := c.conns
	c.conns = map[*conn]struct{}{}
	c.mu.Unlock()
	c.broken.Store(true)
	for conn := range conns {
		conn.dead.Store(true)
		conn.Conn.Close()
	}
}

// close ends the client for good, with the goroutine of the library that renews
// its leases.
func (c *client) close() {
	c.kill()
	if c.lib != nil {
		_ = c.lib.Close() // closed already
	}
}

// closeData closes what the library leaves open of its connections to DataNodes.
func (c *client) closeData() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if conn.data {
			conn.dead.Store(true)
			conn.Conn.Close()
			delete(c.conns, conn)
		}
	}
	c.data = nil
}

// usable reports whether another call may use c.
func (c *client) usable() bool { return !c.broken.Load() }

// failure returns the first failure of a DataNode.
func (c *client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.data
}

// denied returns the endpoint policy's refusal, if there was one.
func (c *client) denied() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

func (c *client) note(from *conn, err error) {
	if !from.data {
		c.broken.Store(true)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data == nil {
		c.data = err
	}
}

func (c *client) forget(gone *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, gone)
}

// conn gives each read and write its own deadline: the library sets none.
//
// After a failure, a connection to a DataNode swallows what is written to it and
// fails every read. The library ends its goroutines for a block only on a path on
// which all writes succeed, and learns of a failure from the acknowledgements; an
// error from a write would leave them behind for ever.
type conn struct {
	net.Conn
	owner   *client
	data    bool
	timeout time.Duration
	dead    atomic.Bool
}

func (c *conn) Read(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, errKilled
	}
	if err := c.Conn.SetReadDeadline(c.owner.cfg.clock.Now().Add(c.timeout)); err != nil {
		return 0, c.fail(err)
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		return n, c.fail(err)
	}
	return n, nil
}

func (c *conn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return c.swallow(len(p), errKilled)
	}
	if err := c.Conn.SetWriteDeadline(c.owner.cfg.clock.Now().Add(c.timeout)); err != nil {
		return c.swallow(len(p), c.fail(err))
	}
	if _, err := c.Conn.Write(p); err != nil {
		return c.swallow(len(p), c.fail(err))
	}
	return len(p), nil
}

func (c *conn) swallow(n int, err error) (int, error) {
	if c.data {
		return n, nil
	}
	return 0, err
}

// fail makes the failure final and returns err as it is: the library compares
// with io.EOF.
func (c *conn) fail(err error) error {
	c.dead.Store(true)
	c.owner.note(c, err)
	c.Conn.Close()
	return err
}

// SetDeadline does nothing: each read and write has a deadline of its own.
func (c *conn) SetDeadline(time.Time) error { return nil }

// Close closes the connection.
func (c *conn) Close() error {
	c.dead.Store(true)
	c.owner.forget(c)
	return c.Conn.Close()
}
