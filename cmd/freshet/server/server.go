// Package server owns the assembly of the servers: it reads configuration,
// builds the parts of a coordinator or a cache node, runs them and stops them in
// order. It is the one place where all parts meet, and it decides nothing else.
package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/gateway/rest"
	"github.com/freshet-io/freshet/internal/version"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/ufs"
)

// Process is what every server process has.
type Process struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	// Ready is told the addresses once all listeners are bound.
	Ready func(Addresses)
	// Getenv resolves "env:" references.
	Getenv func(string) string

	level   slog.LevelVar
	reloads reloads
	tracer  trace.TracerProvider // nil: no tracing
}

// Addresses are where a process listens; empty ones do not exist.
type Addresses struct {
	Client string `json:"client,omitempty"`
	HTTP   string `json:"http,omitempty"`
	Raft   string `json:"raft,omitempty"`
	Gossip string `json:"gossip,omitempty"`
	Bus    string `json:"bus,omitempty"`
	Data   string `json:"data,omitempty"`
}

// NewProcess makes the log and the registry of a server.
func NewProcess(cfg config.Log, w io.Writer, getenv func(string) string) *Process {
	p := &Process{Metrics: newRegistry(), Getenv: getenv, Ready: func(Addresses) {}}
	p.setLevel(cfg)
	opts := &slog.HandlerOptions{Level: &p.level}
	p.Log = slog.New(slog.NewTextHandler(w, opts))
	if cfg.Format == "json" {
		p.Log = slog.New(slog.NewJSONHandler(w, opts))
	}
	return p
}

func (p *Process) setLevel(cfg config.Log) {
	level := slog.LevelInfo // Validate refuses other words
	_ = level.UnmarshalText([]byte(cfg.Level))
	p.level.Set(level)
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := version.Get()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "freshet_build_info", Help: "The version of this process; always 1.",
		ConstLabels: prometheus.Labels{"version": info.Version, "go": info.Go},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// listen binds a TCP address.
func listen(ctx context.Context, what, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "listen", "", "%s on %s: %w", what, addr, err)
	}
	return l, nil
}

// listeners binds several addresses, all or none; an empty address is skipped.
type listeners struct {
	open []net.Listener
	err  error
}

func (l *listeners) bind(ctx context.Context, what, addr string) net.Listener {
	if l.err != nil || addr == "" {
		return nil
	}
	ln, err := listen(ctx, what, addr)
	if err != nil {
		l.err = err
		l.close()
		return nil
	}
	l.open = append(l.open, ln)
	return ln
}

func (l *listeners) close() {
	for _, ln := range l.open {
		_ = ln.Close() // most were closed by their servers
	}
}

// advertised returns what is told to others: the configured address, else the
// one that the listener got.
func advertised(configured string, l net.Listener) string {
	switch {
	case l == nil:
		return ""
	case configured == "":
		return l.Addr().String()
	}
	host, port, err := net.SplitHostPort(configured)
	if err != nil || port != "0" {
		return configured
	}
	_, port, _ = net.SplitHostPort(l.Addr().String()) // a bound address has a port
	return net.JoinHostPort(host, port)
}

// environment returns what the process allows when it opens storages.
func environment(f *config.File, getenv func(string) string) ufs.Environment {
	forbidden := []string{f.Node.DataDir}
	for _, t := range f.Cache.Tiers {
		for _, d := range t.Directories() {
			if d.Path != "" {
				forbidden = append(forbidden, d.Path)
			}
		}
	}
	return ufs.Environment{
		AllowedEndpoints: f.UFS.AllowedEndpoints, LocalRoots: f.UFS.LocalRoots, ForbiddenRoots: forbidden,
		SecretDirs: f.UFS.SecretDirs, Getenv: getenv,
	}
}

func identity(t config.TLS) (*rpc.Identity, error) {
	return rpc.LoadIdentity(rpc.TLSFiles{CA: t.CA, Cert: t.Cert, Key: t.Key})
}

// dataDir makes a directory below the data directory, readable by us alone.
func dataDir(f *config.File, name string) (string, error) {
	dir := filepath.Join(f.Node.DataDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", freshet.Errorf(freshet.KindUnavailable, "open data directory", "", "%w", err)
	}
	return dir, nil
}

// common adds health, metrics and, on loopback, profiles to a server's routes.
func (p *Process) common(mux *http.ServeMux, l net.Listener, ready func(ctx context.Context) error) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.Metrics, promhttp.HandlerOpts{}))
	if addr, ok := l.Addr().(*net.TCPAddr); ok && addr.IP.IsLoopback() {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
}

// serveHTTP serves until ctx ends, then lets running requests end.
func (p *Process) serveHTTP(ctx context.Context, l net.Listener, h http.Handler, id *rpc.Identity) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		TLSConfig: id.Server(), ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() {
		if id != nil {
			failed <- srv.ServeTLS(l, "", "")
			return
		}
		failed <- srv.Serve(rest.Vectored(l))
	}()
	select {
	case err := <-failed:
		return freshet.Errorf(freshet.KindInternal, "serve HTTP", "", "on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if serr := <-failed; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}

// splitRoutes sends /v1/data to data, whose paths the mux must not clean, and
// everything else to rest.
func splitRoutes(data, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == dataPrefix || strings.HasPrefix(r.URL.Path, dataPrefix+"/") {
			data.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}
