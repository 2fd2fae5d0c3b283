package httpclient_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
)

// A request that a server of HTTP/2 has read and not answered may have had its
// effect, on a new connection as on one that is used again.
func TestHTTP2TellsWhatWasSent(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.ProtoMajor != 2 {
			t.Errorf("over %s", r.Proto)
		}
		if r.URL.Path != "/ok" {
			panic(http.ErrAbortHandler)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	base, ok := srv.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("another transport")
	}
	tr := &httpclient.Transport{Base: base, Timeout: 10 * time.Second}
	defer tr.CloseIdleConnections()
	send := func(tr *httpclient.Transport, path string) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	for _, path := range []string{"/broken", "/ok", "/broken"} {
		if err := send(tr, path); errors.Is(err, ufs.ErrNotSent) || (err == nil) != (path == "/ok") {
			t.Errorf("%s: %v", path, err)
		}
	}
	srv.Close()
	// A connection of before may not have noticed, and then it can't tell.
	other := &httpclient.Transport{Base: base.Clone(), Timeout: 10 * time.Second}
	defer other.CloseIdleConnections()
	if err := send(other, "/ok"); !errors.Is(err, ufs.ErrNotSent) {
		t.Errorf("to nobody: %v", err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
