// Command s3server is a real S3 server for tests: an engine (versitygw over a
// directory, or gofakes3 in memory) behind a proxy that counts requests and
// injects faults. It prints one line
//
//	READY endpoint=http://127.0.0.1:PORT control=http://127.0.0.1:PORT2
//
// and ends on SIGTERM, SIGINT or the end of its standard input, so that it dies
// with its parent. It listens on loopback only and is no part of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/test/backends/internal/engine"
	"github.com/freshet-io/freshet/test/backends/internal/proxy"
)

// startTimeout is how long the engine may take to listen.
const startTimeout = 30 * time.Second

type config struct {
	engine      engine.Options
	addr        string
	controlAddr string
	buckets     stringList
	seed        uint64
	ready       io.Writer // receives the ready line
}

// stringList is a repeatable flag.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	// The engines print to standard output; the ready line must be alone there.
	ready := os.Stdout
	os.Stdout = os.Stderr
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(log, ready); err != nil {
		log.Error("s3server failed", "error", err)
		os.Exit(1)
	}
}

func run(log *slog.Logger, ready io.Writer) error {
	cfg, err := parseFlags()
	if err != nil {
		return err
	}
	if cfg.engine.Root == "" {
		dir, err := os.MkdirTemp("", "freshet-s3server-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		cfg.engine.Root = dir
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, parentGone := context.WithCancel(ctx)
	defer parentGone()
	go func() { // ends with the process: a read of stdin cannot be interrupted
		_, _ = io.Copy(io.Discard, os.Stdin)
		parentGone()
	}()
	cfg.ready = ready
	return serve(ctx, cfg, log)
}

func parseFlags() (config, error) {
	var cfg config
	f := flag.CommandLine
	f.StringVar(&cfg.engine.Name, "engine", engine.VersityGW, "`name`: "+engine.VersityGW+" or "+engine.GoFakeS3)
	f.StringVar(&cfg.engine.Root, "root", "", "`directory` that keeps objects over restarts (default: temporary)")
	f.StringVar(&cfg.engine.Meta, "meta", engine.MetaAuto, "versitygw's metadata `store`: auto, xattr or sidecar")
	f.StringVar(&cfg.engine.AccessKey, "access-key", "test", "access key")
	f.StringVar(&cfg.engine.SecretKey, "secret-key", "testtesttest", "secret key")
	f.StringVar(&cfg.addr, "addr", "127.0.0.1:0", "S3 `address` on loopback; port 0 picks a free one")
	f.StringVar(&cfg.controlAddr, "control-addr", "127.0.0.1:0", "control `address` on loopback; port 0 picks a free one")
	f.Var(&cfg.buckets, "bucket", "`name` of a bucket to create (repeatable)")
	f.Uint64Var(&cfg.seed, "seed", 0, "seed of the faults' probabilities")
	flag.Parse()
	if flag.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	for _, addr := range []string{cfg.addr, cfg.controlAddr} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || ip.To4() == nil || !ip.IsLoopback() {
			return config{}, fmt.Errorf("address %q: give an IPv4 loopback address and a port, like 127.0.0.1:0", addr)
		}
	}
	return cfg, nil
}

// serve runs the engine, the proxy and the control API until ctx ends.
func serve(ctx context.Context, cfg config, log *slog.Logger) error {
	eng, err := engine.New(cfg.engine)
	if err != nil {
		return err
	}
	transport := eng.Transport()
	p := proxy.New(proxy.Options{
		Transport: transport, CreateBucket: eng.CreateBucket, Domain: engine.VirtualDomain, Seed: cfg.seed, Log: log,
	})
	door, err := proxy.OpenGate(cfg.addr, p)
	if err != nil {
		return err
	}
	control, err := proxy.OpenGate(cfg.controlAddr, p.Control(door))
	if err != nil {
		return err
	}
	// The engine outlives the doors, so that what it was given is finished.
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := eng.Run(engineCtx); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		defer stopEngine()
		defer transport.CloseIdleConnections()
		defer p.Close()
		doors, ctx := errgroup.WithContext(ctx)
		doors.Go(func() error { return door.Run(ctx) })
		doors.Go(func() error { return control.Run(ctx) })
		doors.Go(func() error { return announce(ctx, cfg, eng, door, control) })
		return doors.Wait()
	})
	return group.Wait()
}

// announce creates the buckets and prints the ready line.
func announce(ctx context.Context, cfg config, eng *engine.Engine, door, control *proxy.Gate) error {
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := eng.WaitReady(startCtx)
	for _, b := range cfg.buckets {
		if err == nil {
			err = eng.CreateBucket(startCtx, b)
		}
	}
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil // told to stop meanwhile
		}
		return err
	}
	_, err = fmt.Fprintf(cfg.ready, "READY endpoint=http://%s control=http://%s\n", door.Addr(), control.Addr())
	return err
}
