package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/server"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func process(w io.Writer) *server.Process {
	return server.NewProcess(config.Log{Level: "info"}, w, os.Getenv)
}

// TestMountsConform: the storage of a mount, with all that is put around it, keeps
// the contract of a storage.
func TestMountsConform(t *testing.T) {
	wrap, err := process(io.Discard).Wrap()
	if err != nil {
		t.Fatal(err)
	}
	mount := freshet.Mount{ID: 1, Options: map[string]string{"max_requests_per_second": "1000000", "max_concurrent_requests": "100"}}
	h := ufstest.InMemory(mem.Local, func(_ *testing.T, fs ufs.FS) ufs.FS { return wrap(mount, fs) })
	h.Many = 0 // the wrappers' own tests have more
	ufstest.Run(t, h)
}

// TestWrappersAreFoundInOrder, from the outside in.
func TestWrappersAreFoundInOrder(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	p := process(io.Discard)
	_, stop, err := p.StartTracing(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	wrap, err := p.Wrap()
	if err != nil {
		t.Fatal(err)
	}
	for want, options := range map[string]map[string]string{
		"traced breaker retry limit metered mem": nil,
		"traced retry limit metered mem":         {"breaker_failures": "0"},
	} {
		fs := wrap(freshet.Mount{Options: options}, mem.New(mem.Options{}).FS(""))
		var got []string
		for fs != nil {
			name, _, _ := strings.Cut(strings.TrimPrefix(fmt.Sprintf("%T", fs), "*"), ".")
			got = append(got, name)
			w, ok := fs.(interface{ Unwrap() ufs.FS })
			if !ok {
				break
			}
			fs = w.Unwrap()
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: got %q, want %q", options, got, want)
		}
	}
}

func TestNoTracingUnlessAsked(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tp, stop, err := process(io.Discard).StartTracing(t.Context(), "coordinator")
	if err != nil || tp != nil {
		t.Errorf("got %v, %v", tp, err)
	}
	stop()
}

// TestSpansAreSent: at the latest when the process ends.
func TestSpansAreSent(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body) // what is cut off lacks the words below
		got = append(append(got, r.URL.Path...), body...)
	}))
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	p := process(io.Discard)
	_, stop, err := p.StartTracing(t.Context(), "coordinator")
	if err != nil {
		t.Fatal(err)
	}
	wrap, err := p.Wrap()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrap(freshet.Mount{}, mem.New(mem.Options{}).FS("")).Stat(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	stop()
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"/v1/traces", "freshet-coordinator", "ufs.stat"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("what was sent lacks %q: %q", want, got)
		}
	}
}

func TestLostSpansAreLogged(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	var log strings.Builder
	p := process(&log)
	tp, stop, err := p.StartTracing(t.Context(), "cachenode")
	if err != nil {
		t.Fatal(err)
	}
	_, span := tp.Tracer("test").Start(t.Context(), "lost")
	span.End()
	stop()
	if !strings.Contains(log.String(), "spans were not sent") {
		t.Errorf("the log says %q", log.String())
	}
}
