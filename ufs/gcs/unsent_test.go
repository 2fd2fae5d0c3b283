package gcs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// leaving is a server that stops listening when its handler says so, and goes on
// with the connections that it has.
type leaving struct {
	t *testing.T
	l net.Listener
}

func newLeaving(t *testing.T, handle func(s *leaving, w http.ResponseWriter, r *http.Request)) *leaving {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &leaving{t, l}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(s, w, r) })}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-served })
	return s
}

func (s *leaving) url() string { return "http://" + s.l.Addr().String() }

// leave refuses all connections from now on.
func (s *leaving) leave() { _ = s.l.Close() }

// reset breaks the connection of a request off.
func (s *leaving) reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack() //nolint:forcetypeassert // HTTP/1
	if err != nil {
		s.t.Error(err)
		return
	}
	_ = conn.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // of our listener
	_ = conn.Close()
}

func answer(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	_, _ = io.WriteString(w, text)
}

// The client sends a chunk again after a break. That the last attempt reached
// nobody, or was refused, says nothing of the first one, which may have published
// the object.
func TestLastChunkMayHaveArrivedAtTheFirstAttempt(t *testing.T) {
	for name, gone := range map[string]bool{"the server is gone": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			var published atomic.Bool
			srv := newLeaving(t, func(s *leaving, w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch {
				case r.URL.Path != "/session":
					w.Header().Set("Location", s.url()+"/session")
				case strings.HasSuffix(r.Header.Get("Content-Range"), "/*"):
					w.Header().Set("X-Http-Status-Code-Override", "308")
				case published.Load():
					w.WriteHeader(http.StatusForbidden)
				default:
					published.Store(true)
					if gone {
						s.leave()
					}
					s.reset(w)
				}
			})
			fs := open(t, "gs://bucket", srv.url(), nil, nil)
			defer fs.Close()
			w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: 600 << 10, Vouched: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, 600<<10)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err = w.Commit(ctx)
			if !published.Load() {
				t.Fatalf("the last chunk did not arrive: %v", err)
			}
			if !freshet.IsKind(err, freshet.KindDeadline) || errors.Is(err, ufs.ErrNotSent) {
				t.Errorf("not sent %v: %v", errors.Is(err, ufs.ErrNotSent), err)
			}
			if err := w.Abort(t.Context()); !freshet.IsKind(err, freshet.KindDeadline) {
				t.Errorf("abort: %v, want an unknown outcome", err)
			}
		})
	}
}

// Of objects that are deleted side by side one may be gone although others could
// not be asked for.
func TestOneDeletionMayLandAlthoughOthersWereNotSent(t *testing.T) {
	var items []string
	for i := range 20 {
		items = append(items, fmt.Sprintf(`{"kind":"storage#object","name":"d/%02d","size":"1","generation":"1","metageneration":"1","updated":"2026-01-02T03:04:05Z"}`, i))
	}
	srv := newLeaving(t, func(s *leaving, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			<-r.Context().Done() // it is not known what becomes of it
		case strings.HasSuffix(r.URL.Path, "/o"):
			if r.URL.Query().Get("maxResults") == "1000" {
				s.leave()
			}
			answer(w, `{"kind":"storage#objects","items":[`+strings.Join(items, ",")+`]}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	fs := open(t, "gs://bucket", srv.url(), nil, map[string]string{"request_timeout": "3s"})
	defer fs.Close()
	err := fs.Remove(t.Context(), "d", ufs.RemoveOptions{Recursive: true})
	if !freshet.IsKind(err, freshet.KindDeadline) || errors.Is(err, ufs.ErrNotSent) {
		t.Errorf("not sent %v: %v", errors.Is(err, ufs.ErrNotSent), err)
	}
}

// late is a context whose time is over, and whose timer has not noticed it.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// A commit that comes out of a pause after its time must not publish (C13).
func TestLateCommitOfLargeFileIsNotSent(t *testing.T) {
	var published atomic.Bool
	srv := newLeaving(t, func(s *leaving, w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case r.URL.Path != "/session":
			w.Header().Set("Location", s.url()+"/session")
		case strings.HasSuffix(r.Header.Get("Content-Range"), "/*"):
			w.Header().Set("X-Http-Status-Code-Override", "308")
		case r.Method != http.MethodDelete:
			published.Store(true)
			answer(w, `{"kind":"storage#object","name":"f","size":"614400","generation":"1","metageneration":"1"}`)
		}
	})
	fs := open(t, "gs://bucket", srv.url(), nil, nil)
	defer fs.Close()
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: 600 << 10, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 600<<10)); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(late{t.Context()})
	if published.Load() || !errors.Is(err, ufs.ErrNotSent) {
		t.Errorf("published %v, %v", published.Load(), err)
	}
	if err := w.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}
