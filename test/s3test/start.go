package s3test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/freshet-io/freshet/test/child"
)

// TestServer is a Server that belongs to a test: its methods end the test where
// those of Server return an error. Call them on the test's goroutine; elsewhere use
// the ones of the embedded Server.
type TestServer struct {
	*Server
	t testing.TB
}

// Start launches a server for t and stops it after t. If t fails, the end of the
// server's log is printed. It never skips: Go alone builds the server.
func Start(t testing.TB, opt Options) *TestServer {
	t.Helper()
	dir := t.TempDir()
	if opt.Root == "" {
		opt.Root = filepath.Join(dir, "s3")
		if err := os.Mkdir(opt.Root, 0o700); err != nil {
			t.Fatalf("s3test: %v", err)
		}
	}
	if opt.Log == nil {
		log, err := os.Create(filepath.Join(dir, "s3server.log"))
		if err != nil {
			t.Fatalf("s3test: %v", err)
		}
		opt.Log = log
		t.Cleanup(func() {
			_ = log.Close()
			child.PrintLog(t, log.Name())
		})
	}
	s, err := Launch(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("s3test: stop: %v", err)
		}
	})
	return &TestServer{Server: s, t: t}
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (s *TestServer) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// Counts is Server.Counts.
func (s *TestServer) Counts() Counts {
	s.t.Helper()
	c, err := s.Server.Counts()
	return must(s.t, c, err)
}

// ResetCounts is Server.ResetCounts.
func (s *TestServer) ResetCounts() { s.t.Helper(); s.check(s.Server.ResetCounts()) }

// Requests is Server.Requests.
func (s *TestServer) Requests() []Request {
	s.t.Helper()
	r, err := s.Server.Requests()
	return must(s.t, r, err)
}

// AddFault is Server.AddFault.
func (s *TestServer) AddFault(rules ...Rule) { s.t.Helper(); s.check(s.Server.AddFault(rules...)) }

// Faults is Server.Faults.
func (s *TestServer) Faults() []RuleState {
	s.t.Helper()
	f, err := s.Server.Faults()
	return must(s.t, f, err)
}

// ClearFaults is Server.ClearFaults.
func (s *TestServer) ClearFaults() { s.t.Helper(); s.check(s.Server.ClearFaults()) }

// Held is Server.Held.
func (s *TestServer) Held() []HeldRequest {
	s.t.Helper()
	h, err := s.Server.Held()
	return must(s.t, h, err)
}

// WaitHeld is Server.WaitHeld.
func (s *TestServer) WaitHeld(n int, timeout time.Duration) []HeldRequest {
	s.t.Helper()
	h, err := s.Server.WaitHeld(n, timeout)
	return must(s.t, h, err)
}

// Release is Server.Release.
func (s *TestServer) Release(id string) []Released {
	s.t.Helper()
	r, err := s.Server.Release(id)
	return must(s.t, r, err)
}

// Discard is Server.Discard.
func (s *TestServer) Discard(id string) { s.t.Helper(); s.check(s.Server.Discard(id)) }

// Down is Server.Down.
func (s *TestServer) Down() { s.t.Helper(); s.check(s.Server.Down()) }

// Up is Server.Up.
func (s *TestServer) Up() { s.t.Helper(); s.check(s.Server.Up()) }

// NewBucket is Server.NewBucket and returns the name.
func (s *TestServer) NewBucket(name string) string {
	s.t.Helper()
	s.check(s.Server.NewBucket(name))
	return name
}

// Restart is Server.Restart.
func (s *TestServer) Restart() { s.t.Helper(); s.check(s.Server.Restart(s.t.Context())) }
