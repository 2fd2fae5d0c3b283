package server

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs"
)

// StartTracing is startTracing, and the provider that it set up, nil if none.
func (p *Process) StartTracing(ctx context.Context, role string) (tp trace.TracerProvider, stop func(), err error) {
	stop, err = p.startTracing(ctx, role)
	return p.tracer, stop, err
}

// Wrap is wrap.
func (p *Process) Wrap() (func(freshet.Mount, ufs.FS) ufs.FS, error) { return p.wrap() }

// OnReload and ReloadOnce are for tests.
func (p *Process) OnReload(key string, set func(*config.File)) { p.onReload(key, set) }

// ReloadOnce reads the file as a SIGHUP does.
func (p *Process) ReloadOnce(ctx context.Context, file string, opts config.ValidateOptions) {
	p.reloadOnce(ctx, file, opts)
}

// OpenSocket binds the Unix socket of a cache node.
func OpenSocket(ctx context.Context, l config.Listen) (closeSocket func(), err error) {
	s, err := openSocket(ctx, l)
	if err != nil {
		return nil, err
	}
	return s.close, nil
}
