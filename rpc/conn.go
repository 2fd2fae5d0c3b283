package rpc

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/freshet-io/freshet"
)

// Limits of the control port; the data port has its own.
const (
	MaxControlMessage = 4 << 20
	// ChunkSize is how many bytes one message of a data stream carries.
	ChunkSize      = 1 << 20
	maxDataMessage = ChunkSize + 64<<10
)

// retryPolicy repeats calls that failed before or without an answer. A repetition
// is safe: changes carry an operation ID, or say what shall be, not what to add to
// it. The one call for which that is not so is left alone: a method that is named
// without a policy has none.
const retryPolicy = `{
  "loadBalancingConfig": [{"pick_first":{}}],
  "methodConfig": [{
    "name": [{"service":"freshet.v1.NamespaceService"},{"service":"freshet.v1.MountService"},{"service":"freshet.v1.PolicyService"},{"service":"freshet.v1.ClusterService"},{"service":"freshet.v1.AccessService"},{"service":"freshet.v1.QuotaService"},{"service":"freshet.v1.SyncService"},{"service":"freshet.v1.FleetService"},{"service":"freshet.v1.BatchService","method":"BeginWrites"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
  }, {
    "name": [{"service":"freshet.v1.ClusterService","method":"TransferLeadership"}]
  }]
}`

// noRetryPolicy leaves repetition to the caller.
const noRetryPolicy = `{"loadBalancingConfig": [{"pick_first":{}}]}`

// DialOptions say how to connect.
type DialOptions struct {
	// TLS, if nil, means plain text.
	TLS *tls.Config
	// MaxMessage bounds a received message; 0 is MaxControlMessage. MaxDataMessage is
	// for connections to servers of data, with the buffers and windows for it.
	MaxMessage int
	// NoRetry leaves the repetition of failed calls to the caller.
	NoRetry bool
	// MaxBackoff bounds the pause between attempts to connect; 0 is 2 s.
	MaxBackoff time.Duration
	// User is in whose name calls are made that have no name of their own; "" is
	// nobody's. KindInvalid for what is no name.
	User string
}

// Dial returns a connection to the first of addrs that answers; they are tried
// in order, again and again, in the background. It does no I/O itself.
func Dial(addrs []string, opts DialOptions) (*grpc.ClientConn, error) {
	if len(addrs) == 0 {
		return nil, freshet.Errorf(freshet.KindInvalid, "dial", "", "no address given")
	}
	endpoints := make([]resolver.Endpoint, len(addrs))
	for i, a := range addrs {
		// The certificate must be for the host that is dialled, not for the name
		// of the whole set of addresses.
		endpoints[i] = resolver.Endpoint{Addresses: []resolver.Address{{Addr: a, ServerName: a}}}
	}
	r := manual.NewBuilderWithScheme("freshet")
	r.InitialState(resolver.State{Endpoints: endpoints})
	creds := insecure.NewCredentials()
	if opts.TLS != nil {
		creds = credentials.NewTLS(opts.TLS)
	}
	policy := retryPolicy
	if opts.NoRetry {
		policy = noRetryPolicy
	}
	maxBackoff := opts.MaxBackoff
	if maxBackoff == 0 {
		maxBackoff = 2 * time.Second
	}
	limit := opts.MaxMessage
	if limit == 0 {
		limit = MaxControlMessage
	}
	if opts.User != "" {
		if err := CheckUser(opts.User); err != nil {
			return nil, err
		}
	}
	own := inName(opts.User)
	if limit == MaxDataMessage {
		own = append(own, dataClient()...)
	}
	conn, err := grpc.NewClient("freshet:///cluster", append(own,
		grpc.WithResolvers(r),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(policy),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
	)...)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "dial", "", "addresses %q: %w", addrs, err)
	}
	return conn, nil
}

// Conns keeps one connection per address, made on demand. Safe for concurrent
// use.
type Conns struct {
	opts DialOptions

	mu     sync.Mutex
	open   map[string]*grpc.ClientConn
	closed bool
}

// NewConns returns an empty set.
func NewConns(opts DialOptions) *Conns {
	return &Conns{opts: opts, open: map[string]*grpc.ClientConn{}}
}

// Get returns the connection to addr.
func (c *Conns) Get(addr string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, freshet.Errorf(freshet.KindUnavailable, "dial", "", "shutting down")
	}
	if conn, ok := c.open[addr]; ok {
		return conn, nil
	}
	conn, err := Dial([]string{addr}, c.opts)
	if err != nil {
		return nil, err
	}
	c.open[addr] = conn
	return conn, nil
}

// Keep closes the connections to all other addresses.
func (c *Conns) Keep(addrs []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for addr, conn := range c.open {
		if !slices.Contains(addrs, addr) {
			_ = conn.Close() // nothing to be done about a failed close
			delete(c.open, addr)
		}
	}
}

// Close closes all connections; Get fails from then on.
func (c *Conns) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for addr, conn := range c.open {
		if err := conn.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close connection to %s: %w", addr, err))
		}
	}
	c.open = nil
	return errors.Join(errs...)
}
