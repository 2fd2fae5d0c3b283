package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/freshet-io/freshet"
)

// streamWorkers is how many goroutines wait for calls. A new one for each call
// would spend more on growing its stack than a lookup costs; calls that find none
// free get one of their own.
const streamWorkers = 256

// maxHeaders bounds the metadata of a call, in bytes.
const maxHeaders = 32 << 10

// ServerOptions say how to serve.
type ServerOptions struct {
	// TLS, if nil, means plain text. If it is set, the calls between servers and
	// those that change the cluster itself need a certificate that it verifies.
	TLS *tls.Config
	// MaxMessage bounds a received message; 0 is MaxControlMessage. MaxDataMessage
	// makes it a server of data, with the buffers and windows of one.
	MaxMessage int
	Log        *slog.Logger
	// Grace is how long calls may go on after the end of Serve's context; 0 is 5 s.
	Grace time.Duration
}

// Server is a gRPC server with the limits and the manners of Freshet.
type Server struct {
	options  []grpc.ServerOption
	services registrar
	grace    time.Duration
}

// registrar keeps what is registered until Serve: the library's server starts
// goroutines when it is made.
type registrar struct{ services []service }

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// RegisterService implements grpc.ServiceRegistrar.
func (r *registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.services = append(r.services, service{desc, impl})
}

// NewServer returns a server; register services on its Registrar, then Serve.
func NewServer(opts ServerOptions) *Server {
	limit := opts.MaxMessage
	if limit == 0 {
		limit = MaxControlMessage
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	grace := opts.Grace
	if grace == 0 {
		grace = 5 * time.Second
	}
	guard := guard{log: log, tls: opts.TLS != nil}
	o := []grpc.ServerOption{
		grpc.ForceServerCodecV2(Codec()),
		grpc.MaxRecvMsgSize(limit),
		grpc.MaxConcurrentStreams(1024),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.ChainUnaryInterceptor(guard.unary),
		grpc.ChainStreamInterceptor(guard.stream),
	}
	if limit == MaxDataMessage {
		o = append(o, dataServer()...)
	}
	if opts.TLS != nil {
		o = append(o, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	return &Server{options: o, grace: grace}
}

// Registrar is where services are registered.
func (s *Server) Registrar() grpc.ServiceRegistrar { return &s.services }

// Serve answers calls on l until ctx ends, then lets running calls end for the
// grace time.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := grpc.NewServer(s.options...)
	defer srv.Stop() // ends its goroutines also when it never served
	for _, r := range s.services.services {
		srv.RegisterService(r.desc, r.impl)
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return freshet.Errorf(freshet.KindInternal, "serve gRPC", "", "on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	timer := time.NewTimer(s.grace)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		srv.Stop()
		<-stopped
	}
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return freshet.Errorf(freshet.KindInternal, "serve gRPC", "", "on %s: %w", l.Addr(), err)
	}
	return nil
}

// guard turns every error of a handler into a status with details, and a panic
// into an error of that one call. Over TLS it asks for certificates where they are
// needed.
type guard struct {
	log *slog.Logger
	tls bool
}

func (g guard) check(ctx context.Context, method string) error {
	if !g.tls || !ofServers(method) {
		return nil
	}
	return checkCertificate(ctx, method)
}

func (g guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer g.recover(ctx, info.FullMethod, &err)
	if err := g.check(ctx, info.FullMethod); err != nil {
		return nil, StatusOf(err)
	}
	resp, err = handler(ctx, req)
	return resp, StatusOf(err)
}

func (g guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer g.recover(ss.Context(), info.FullMethod, &err)
	if err := g.check(ss.Context(), info.FullMethod); err != nil {
		return StatusOf(err)
	}
	return StatusOf(handler(srv, ss))
}

func (g guard) recover(ctx context.Context, method string, err *error) {
	if v := recover(); v != nil {
		g.log.ErrorContext(ctx, "panic in a call", slog.String("method", method), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		*err = status.Error(codes.Internal, "internal error; the log of the server has the details")
	}
}
