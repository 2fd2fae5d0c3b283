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

// maxHeaders bounds the metadata of a call, in bytes.
const maxHeaders = 32 << 10

// ServerOptions say how to serve.
type ServerOptions struct {
	// TLS, if nil, means plain text.
	TLS *tls.Config
	// MaxMessage bounds a received message; 0 is MaxControlMessage.
	MaxMessage int
	Log        *slog.Logger
	// Grace is how long calls may go on after the end of Serve's context; 0 is 5 s.
	Grace time.Duration
}

// Server is a gRPC server with the limits and the manners of Freshet.
type Server struct {
	grpc  *grpc.Server
	grace time.Duration
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
	guard := guard{log: log}
	o := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(limit),
		grpc.MaxConcurrentStreams(1024),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.ChainUnaryInterceptor(guard.unary),
		grpc.ChainStreamInterceptor(guard.stream),
	}
	if opts.TLS != nil {
		o = append(o, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	return &Server{grpc: grpc.NewServer(o...), grace: grace}
}

// Registrar is where services are registered.
func (s *Server) Registrar() grpc.ServiceRegistrar { return s.grpc }

// Serve answers calls on l until ctx ends, then lets running calls end for the
// grace time.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(l) }()
	select {
	case err := <-failed:
		return freshet.Errorf(freshet.KindInternal, "serve gRPC", "", "on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stopped := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(stopped) }()
	timer := time.NewTimer(s.grace)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		s.grpc.Stop()
		<-stopped
	}
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return freshet.Errorf(freshet.KindInternal, "serve gRPC", "", "on %s: %w", l.Addr(), err)
	}
	return nil
}

// guard turns every error of a handler into a status with details, and a panic
// into an error of that one call.
type guard struct{ log *slog.Logger }

func (g guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer g.recover(ctx, info.FullMethod, &err)
	resp, err = handler(ctx, req)
	return resp, StatusOf(err)
}

func (g guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer g.recover(ss.Context(), info.FullMethod, &err)
	return StatusOf(handler(srv, ss))
}

func (g guard) recover(ctx context.Context, method string, err *error) {
	if v := recover(); v != nil {
		g.log.ErrorContext(ctx, "panic in a call", slog.String("method", method), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		*err = status.Error(codes.Internal, "internal error; the log of the server has the details")
	}
}
