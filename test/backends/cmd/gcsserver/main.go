// Command gcsserver is a Google Cloud Storage server for tests: fake-gcs-server in
// memory, behind a handler that corrects where it is unfaithful. It prints one line
//
//	READY endpoint=http://127.0.0.1:PORT
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
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/freshet-io/freshet/test/backends/internal/gcs"
)

func main() {
	// Standard output is for the ready line alone.
	ready := os.Stdout
	os.Stdout = os.Stderr
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ready); err != nil {
		log.Error("gcsserver failed", "error", err)
		os.Exit(1)
	}
}

func run(ready io.Writer) error {
	addr := flag.String("addr", "127.0.0.1:0", "`address` on loopback; port 0 picks a free one")
	flag.Parse()
	host, _, err := net.SplitHostPort(*addr)
	if ip := net.ParseIP(host); err != nil || !ip.IsLoopback() || flag.NArg() > 0 {
		return errors.New("give nothing but -addr with a loopback address and a port, like 127.0.0.1:0")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, parentGone := context.WithCancel(ctx)
	defer parentGone()
	go func() { // ends with the process: a read of stdin cannot be interrupted
		_, _ = io.Copy(io.Discard, os.Stdin)
		parentGone()
	}()
	return serve(ctx, *addr, ready)
}

func serve(ctx context.Context, addr string, ready io.Writer) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	endpoint := "http://" + ln.Addr().String()
	handler, err := gcs.New(endpoint)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if _, err := fmt.Fprintf(ready, "READY endpoint=%s\n", endpoint); err != nil {
		return err
	}
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
