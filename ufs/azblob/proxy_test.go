package azblob_test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-io/freshet/ufs"
)

// fault is what the proxy does to a request.
type fault int

const (
	pass       fault = iota
	busy             // 503 ServerBusy, before the request
	throttle         // 429
	broken           // 500 without a code, as a balancer gives it
	reset            // the connection ends before the request
	drop             // the request takes effect, the connection ends before the answer
	short            // the body of the answer ends in the middle, with its connection
	shortened        // the body of the answer ends in the middle, and its length says so
	unranged         // the answer begins at the wrong byte and says so in no header
	stall            // no answer until the caller gives up
	pageOfHTML       // 200 and something that is no answer of such a service
	notThere         // 404 without a code
	noBucket         // 404 ContainerNotFound
	pending          // the answer says that a copy is under way
	failed           // the answer says that a copy failed
)

// proxy stands between a mount and the server.
type proxy struct {
	*httptest.Server
	target string

	mu     sync.Mutex
	decide func(call string, r *http.Request) fault
	seen   map[string]int // requests by call
}

// call names a request.
func call(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case q.Get("comp") == "list":
		return "List"
	case r.Method == http.MethodHead:
		return "Head"
	case r.Method == http.MethodGet:
		return "Get"
	case r.Method == http.MethodDelete:
		return "Delete"
	case q.Get("comp") == "block":
		return "PutBlock"
	case q.Get("comp") == "blocklist":
		return "PutBlockList"
	case r.Header.Get("x-ms-copy-source") != "":
		return "Copy"
	case r.Method == http.MethodPut && q.Get("comp") == "":
		return "PutBlob"
	}
	return r.Method + " " + q.Get("comp")
}

func newProxy(tb testing.TB, b bucket) *proxy {
	tb.Helper()
	p := &proxy{target: strings.TrimSuffix(b.endpoint, "/"+b.account), seen: map[string]int{}}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(client, w, r) }))
	tb.Cleanup(func() { p.CloseClientConnections(); p.Close(); client.CloseIdleConnections() })
	return p
}

// set makes every request whose call is among calls suffer f, times times at most;
// no calls are all, 0 is always.
func (p *proxy) set(f fault, times int, calls ...string) {
	n := 0
	p.script(func(c string, _ *http.Request) fault {
		if len(calls) > 0 && !slices.Contains(calls, c) {
			return pass
		}
		if n++; times > 0 && n > times {
			return pass
		}
		return f
	})
}

func (p *proxy) script(decide func(call string, r *http.Request) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide, p.seen = decide, map[string]int{}
}

func (p *proxy) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.seen)
}

func (p *proxy) serve(client *http.Client, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen[call(r)]++
	f := pass
	if p.decide != nil {
		f = p.decide(call(r), r)
	}
	p.mu.Unlock()
	code := func(status int, code string) {
		_, _ = io.Copy(io.Discard, r.Body)
		if code != "" {
			w.Header().Set("x-ms-error-code", code)
		}
		w.WriteHeader(status)
	}
	switch f { //nolint:exhaustive // the others happen elsewhere
	case busy:
		code(http.StatusServiceUnavailable, "ServerBusy")
		return
	case throttle:
		code(http.StatusTooManyRequests, "")
		return
	case broken:
		code(http.StatusInternalServerError, "")
		return
	case notThere:
		code(http.StatusNotFound, "")
		return
	case noBucket:
		code(http.StatusNotFound, "ContainerNotFound")
		return
	case pageOfHTML:
		_, _ = io.WriteString(w, "<html><body>Welcome!</body></html>")
		return
	case reset:
		panic(http.ErrAbortHandler)
	case stall:
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return
	}
	p.forward(client, w, r, f)
}

func (p *proxy) forward(client *http.Client, w http.ResponseWriter, r *http.Request, f fault) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, p.target+r.RequestURI, r.Body)
	if err != nil {
		panic(err)
	}
	out.Header, out.ContentLength = r.Header.Clone(), r.ContentLength
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	resp, err := client.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || f == drop {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), resp.Header)
	switch f { //nolint:exhaustive // the others happen elsewhere
	case short:
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case shortened:
		body = body[:len(body)/2]
		w.Header().Del("Content-Length")
	case pending, failed:
		w.Header().Set("x-ms-copy-status", map[fault]string{pending: "pending", failed: "failed"}[f])
	case unranged:
		w.Header().Del("Content-Range")
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, bytes.NewReader(body))
}

// mount opens root through the proxy.
func (p *proxy) mount(tb testing.TB, b bucket, root string, more map[string]string) ufs.FS {
	tb.Helper()
	opts := map[string]string{"endpoint": p.URL + "/" + b.account}
	maps.Copy(opts, more)
	return b.open(tb, root, opts)
}
