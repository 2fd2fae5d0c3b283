// Package gcstest starts a Google Cloud Storage server as a child process for tests:
// fake-gcs-server, corrected where its faults would be in the way of a test. It is built
// from the separate module test/backends, so that nothing of it enters the product; this
// package owns the process. It never talks to the server but to make buckets.
package gcstest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet/test/child"
)

// BinaryEnv names the server's program; without it the program is built.
const BinaryEnv = "FRESHET_TEST_GCSSERVER"

// startTimeout is the limit of waiting for the child.
const startTimeout = 60 * time.Second

// Options of a server. The zero value is usable.
type Options struct {
	// Log receives the server's log. Nil discards it; Start and Shared set it.
	Log io.Writer
}

// Server is a running server without credentials; objects are in memory. Its methods are
// safe for concurrent use.
type Server struct {
	process *child.Process
	client  *http.Client
	buckets atomic.Int64
}

// Launch starts a server, building its program first if necessary. The caller must Close
// it; it also ends with this process. ctx limits only the start.
func Launch(ctx context.Context, opt Options) (*Server, error) {
	bin, err := child.Command(ctx, "gcsserver", BinaryEnv)
	if err != nil {
		return nil, fmt.Errorf("gcstest: %w", err)
	}
	port, err := child.FreePort()
	if err != nil {
		return nil, fmt.Errorf("gcstest: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := child.Start(ctx, child.Options{
		Path: bin, Args: []string{"-addr", fmt.Sprintf("127.0.0.1:%d", port)}, Log: opt.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("gcstest: %w", err)
	}
	return &Server{process: p, client: &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}}, nil
}

// Close ends the server; its objects are gone.
func (s *Server) Close() error { return s.process.Stop() }

func (o Options) launcher() child.Launch[*Server] {
	return func(ctx context.Context, _ string, log io.Writer) (*Server, error) {
		if o.Log == nil {
			o.Log = log
		}
		return Launch(ctx, o)
	}
}

// Start starts a server of tb's own, which ends with tb.
func Start(tb testing.TB, opt Options) *Server {
	tb.Helper()
	return child.StartFor(tb, opt.launcher())
}

// shared is the process's one server.
var shared child.Shared[*Server]

// Shared returns the server that all tests of the process use. A test that pauses it
// takes one by Start instead.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	return shared.Get(tb, Options{}.launcher())
}

// StopShared ends the server of Shared, if there is one. It is for TestMain.
func StopShared() { shared.Stop() }

// Endpoint is the server's address, http://127.0.0.1:PORT. The JSON API is below
// /storage/v1/.
func (s *Server) Endpoint() string { return s.process.Field("endpoint") }

// PID is the number of the process.
func (s *Server) PID() int { return s.process.PID() }

// NewBucket makes a bucket of a new name.
func (s *Server) NewBucket(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test-bucket-%d", s.buckets.Add(1))
	if err := s.MakeBucket(context.Background(), name); err != nil {
		tb.Fatal(err)
	}
	return name
}

// MakeBucket makes a bucket.
func (s *Server) MakeBucket(ctx context.Context, name string) error {
	body := strings.NewReader(fmt.Sprintf(`{"name":%q}`, name))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint()+"/storage/v1/b?project=test", body)
	if err != nil {
		return fmt.Errorf("gcstest: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("gcstest: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("gcstest: bucket %s: %s", name, resp.Status)
	}
	return nil
}

// Pause has the server answer nothing while connections stay open, until Resume.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	if err := s.process.Pause(); err != nil {
		tb.Fatal(err)
	}
}

// Resume ends Pause.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	if err := s.process.Resume(); err != nil {
		tb.Fatal(err)
	}
}
