package child

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Server is a backend that runs.
type Server interface{ Close() error }

// Launch starts a backend. ctx limits only the start; dir is an empty directory for
// its data, and log receives what it says.
type Launch[S Server] func(ctx context.Context, dir string, log io.Writer) (S, error)

// StartFor launches a backend for tb and closes it after tb. If tb fails, the end of the
// backend's log is printed.
func StartFor[S Server](tb testing.TB, launch Launch[S]) S {
	tb.Helper()
	dir := tb.TempDir()
	log, data, err := place(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = log.Close()
		PrintLog(tb, log.Name())
	})
	s, err := launch(tb.Context(), data, log)
	if err != nil {
		FailOrSkip(tb, err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("stop: %v", err)
		}
	})
	return s
}

func place(dir string) (log *os.File, data string, err error) {
	if log, err = os.Create(filepath.Join(dir, "server.log")); err != nil {
		return nil, "", err
	}
	data = filepath.Join(dir, "data")
	return log, data, os.Mkdir(data, 0o700)
}

// logTail is how much of the log a failed test prints, in bytes.
const logTail = 16 << 10

// PrintLog prints the end of a log file if tb has failed.
func PrintLog(tb testing.TB, path string) {
	tb.Helper()
	if !tb.Failed() {
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Logf("server log: %v", err)
	}
	tb.Logf("server log:\n%s", b[max(0, len(b)-logTail):])
}

// Shared is a backend that all tests of a process use: started by the first that
// needs it, ended by Stop. The zero value is ready; it is safe for concurrent use.
type Shared[S Server] struct {
	mu      sync.Mutex
	started bool
	server  S
	err     error
	dir     string
	log     *os.File
}

// Get returns the backend, or ends tb if it does not start.
func (s *Shared[S]) Get(tb testing.TB, launch Launch[S]) S {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.started = true
		s.start(tb.Context(), launch)
	}
	if s.err != nil {
		FailOrSkip(tb, s.err)
	}
	path := s.log.Name()
	tb.Cleanup(func() { PrintLog(tb, path) })
	return s.server
}

func (s *Shared[S]) start(ctx context.Context, launch Launch[S]) {
	if s.dir, s.err = os.MkdirTemp("", "freshet-test-"); s.err != nil {
		return
	}
	var data string
	if s.log, data, s.err = place(s.dir); s.err == nil {
		s.server, s.err = launch(ctx, data, s.log)
	}
}

// Stop ends the backend if it was started. A later Get starts a new one.
func (s *Shared[S]) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return
	}
	if s.err == nil {
		if err := s.server.Close(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "stop of a shared backend:", err)
		}
	}
	if s.log != nil {
		_ = s.log.Close()
	}
	_ = os.RemoveAll(s.dir)
	var none S
	s.started, s.server, s.err, s.log = false, none, nil, nil
}

// Main is a testing.M that ends shared backends after the tests, for goleak:
//
//	goleak.VerifyTestMain(child.Main{M: m, Stop: hdfstest.StopShared})
type Main struct {
	M    *testing.M
	Stop func()
}

// Run runs the tests, then Stop.
func (m Main) Run() int {
	code := m.M.Run()
	m.Stop()
	return code
}
