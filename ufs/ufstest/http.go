package ufstest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/retry"
)

// HTTPHarness says how to reach a storage that speaks HTTP.
type HTTPHarness struct {
	// Target is the URL of the server.
	Target string
	// New returns an FS over a fresh and empty root that reaches the server by
	// endpoint and gives up on a silent one after a few seconds. It does not repeat
	// requests by itself. The suite closes it.
	New func(t *testing.T, endpoint string) ufs.FS
	// Leftovers, if not nil, names what lies in the storage below the root and in
	// no listing.
	Leftovers func(fs ufs.FS) ([]string, error)
	// Large is a length in bytes that needs several parts; 0 is 1 MiB.
	Large int
	// KeepHost says that the server is asked under the name that the client gave, for
	// the sake of signatures.
	KeepHost bool
}

// HTTPFaults runs what every driver of such a storage must survive: a server that
// is busy, lies about lengths, breaks off, falls silent or sends elsewhere. Each
// ends in success or a clear error: never in a wrong byte or a wrong "absent".
func HTTPFaults(t *testing.T, h HTTPHarness) {
	t.Helper()
	if h.Large == 0 {
		h.Large = 1 << 20
	}
	for _, c := range []struct {
		name string
		run  func(*httpEnv)
	}{
		{"busy", httpBusy},
		{"answers-broken-off", func(e *httpEnv) { e.damagedReads(breakOff) }},
		{"answers-reset", func(e *httpEnv) { e.damagedReads(reset) }},
		{"answers-cut-to-half", func(e *httpEnv) { e.damagedReads(cutToHalf) }},
		{"answers-that-stall", func(e *httpEnv) { e.damagedReads(stall) }},
		{"lost-answers-of-changes", httpLostAnswers},
		{"refused-credentials", httpRefused},
		{"redirect", httpRedirect},
		{"foreign-server", httpForeign},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newFaultyProxy(t, h)
			fs := h.New(t, p.srv.URL)
			t.Cleanup(func() {
				p.rule.Store(nil)
				if err := fs.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.run(&httpEnv{env: &env{T: t, h: Harness{Large: h.Large}, fs: fs, feat: fs.Features()}, proxy: p, h: h})
		})
	}
}

type httpEnv struct {
	*env
	proxy *faultyProxy
	h     HTTPHarness
}

// rule may answer a request itself, and returns whether it did.
type rule func(w http.ResponseWriter, r *http.Request, forward func() *http.Response) bool

// faultyProxy forwards to the server unless the rule does otherwise.
type faultyProxy struct {
	srv  *httptest.Server
	rule atomic.Pointer[rule]
}

func newFaultyProxy(t *testing.T, h HTTPHarness) *faultyProxy {
	t.Helper()
	target, err := url.Parse(h.Target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	p := &faultyProxy{}
	p.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forward := func() *http.Response {
			out := r.Clone(r.Context())
			out.RequestURI, out.URL.Scheme, out.URL.Host = "", target.Scheme, target.Host
			if !h.KeepHost {
				out.Host = ""
			}
			resp, err := transport.RoundTrip(out)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			if to := resp.Header.Get("Location"); to != "" {
				resp.Header.Set("Location", strings.Replace(to, target.Host, r.Host, 1))
			}
			return resp
		}
		if f := p.rule.Load(); f != nil && (*f)(w, r, forward) {
			return
		}
		resp := forward()
		defer resp.Body.Close()
		copyHead(w, resp)
		_, _ = io.Copy(w, resp.Body) // the client may have gone
	}))
	t.Cleanup(func() {
		p.srv.Close()
		transport.CloseIdleConnections()
	})
	return p
}

func copyHead(w http.ResponseWriter, resp *http.Response) {
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
}

func (p *faultyProxy) set(f rule) { p.rule.Store(&f) }

// someOf makes f apply to about one request in three, the same ones for one seed.
func someOf(seed uint64, f rule) rule {
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // which requests fail is no secret
	return func(w http.ResponseWriter, r *http.Request, forward func() *http.Response) bool {
		mu.Lock()
		hit := dice.IntN(10) < 3
		mu.Unlock()
		return hit && f(w, r, forward)
	}
}

// httpBusy: a third of all requests are refused. Behind the wrapper that repeats,
// nobody notices.
func httpBusy(e *httpEnv) {
	fs := retry.New(e.fs, retry.Options{First: time.Millisecond, Max: 10 * time.Millisecond, Tries: 12, Quota: 10_000})
	e.proxy.set(someOf(1, func(w http.ResponseWriter, r *http.Request, _ func() *http.Response) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}))
	calm := &env{T: e.T, h: e.env.h, fs: fs, feat: e.feat}
	for i := range 20 {
		key := fmt.Sprintf("d/f%d", i)
		// A refused change may be told as one of unknown outcome: then it is written again.
		var err error
		for range 30 {
			if _, err = calm.write(key, pattern(byte(i), 1000), ufs.CreateOptions{}); err == nil {
				break
			}
			if !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline, freshet.KindExhausted) {
				e.Fatalf("write %s: %v", key, err)
			}
		}
		e.must(err)
	}
	for i := range 20 {
		st, err := fs.Stat(e.ctx(), fmt.Sprintf("d/f%d", i))
		if err != nil || st.Length != 1000 {
			e.Errorf("stat: %+v, %v", st, err)
		}
		calm.wantContent(fmt.Sprintf("d/f%d", i), pattern(byte(i), 1000))
	}
	if all, err := calm.list("d", ufs.ListOptions{PageSize: 3}); err != nil || len(all) != 20 {
		e.Errorf("list: %d entries, %v", len(all), err)
	}
}

// damage spoils an answer that has a body.
type damage func(w http.ResponseWriter, resp *http.Response, body []byte)

func breakOff(w http.ResponseWriter, resp *http.Response, body []byte) {
	copyHead(w, resp)
	_, _ = w.Write(body[:len(body)/2])
	panic(http.ErrAbortHandler)
}

func reset(w http.ResponseWriter, resp *http.Response, body []byte) {
	copyHead(w, resp)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func cutToHalf(w http.ResponseWriter, resp *http.Response, body []byte) {
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)/2))
	copyHead(w, resp)
	_, _ = w.Write(body[:len(body)/2])
}

func stall(w http.ResponseWriter, resp *http.Response, body []byte) {
	copyHead(w, resp)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	<-resp.Request.Context().Done()
}

// damagedReads: answers with contents are spoilt, some or all of them.
func (e *httpEnv) damagedReads(d damage) {
	want := pattern(7, e.h.Large)
	e.put("f", want)
	spoil := func(w http.ResponseWriter, r *http.Request, forward func() *http.Response) bool {
		if r.Method != http.MethodGet {
			return false
		}
		resp := forward()
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || len(body) < 2 || resp.StatusCode >= 300 {
			copyHead(w, resp)
			_, _ = w.Write(body)
			return true
		}
		d(w, resp, body)
		return true
	}
	for _, f := range []rule{spoil, someOf(2, spoil), someOf(3, spoil)} {
		e.proxy.set(f)
		e.soon("a read of a spoilt answer", func() { e.readWhileSpoilt(want) })
		if _, err := e.fs.Stat(e.ctx(), "f"); freshet.IsKind(err, freshet.KindNotExist) {
			e.Errorf("stat: %v", err)
		}
	}
	e.proxy.rule.Store(nil)
	e.wantContent("f", want)
}

func (e *httpEnv) readWhileSpoilt(want []byte) {
	for _, opts := range []ufs.OpenOptions{{Length: -1}, {Offset: 100, Length: 5000}} {
		got, _, err := e.open("f", opts)
		expect := want[opts.Offset:]
		if opts.Length >= 0 {
			expect = expect[:opts.Length]
		}
		switch {
		case err == nil && !bytes.Equal(got, expect):
			e.Errorf("read %+v: %d bytes without an error, want %d", opts, len(got), len(expect))
		case !bytes.HasPrefix(expect, got):
			e.Errorf("read %+v: wrong bytes before %v", opts, err)
		case err != nil && !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline):
			e.Errorf("read %+v: %v, want unavailable or deadline", opts, err)
		}
	}
}

// httpLostAnswers: changes are made, and the answer never comes. Afterwards each
// file is whole, in its old version or its new one, and nothing is left behind.
func httpLostAnswers(e *httpEnv) {
	sizes := map[string]int{"small": 1000, "large": e.h.Large}
	for name, size := range sizes {
		e.put(name, pattern(0, size))
	}
	for i := range byte(12) {
		lost := func(_ http.ResponseWriter, r *http.Request, forward func() *http.Response) bool {
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				return false
			}
			_ = forward().Body.Close()
			panic(http.ErrAbortHandler)
		}
		e.proxy.set(someOf(uint64(i), lost))
		for name, size := range sizes {
			w, err := e.fs.Create(e.ctx(), name, ufs.CreateOptions{Size: int64(size), Op: opID(i + 1)})
			if err == nil {
				_, err = w.Write(pattern(i+1, size))
				if err == nil {
					_, err = w.Commit(e.ctx())
				}
				if err != nil {
					_ = w.Abort(e.ctx()) // may not know the outcome
				}
			}
			if err != nil && !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline) {
				e.Errorf("write %s: %v, want unavailable or deadline", name, err)
			}
		}
		e.proxy.rule.Store(nil)
		for name, size := range sizes {
			got, _, err := e.open(name, ufs.OpenOptions{Length: -1})
			if err != nil || len(got) != size || !bytes.Equal(got, pattern(got[0], size)) {
				e.Errorf("%s after round %d: %d bytes, %v: not one version", name, i, len(got), err)
			}
			_, _ = e.fs.AbortUpload(e.ctx(), name, opID(i+1)) // as the leader does
		}
	}
	if got := e.keys("", ufs.ListOptions{Recursive: true}); len(got) != 2 {
		e.Errorf("left behind: %q", got)
	}
	if e.h.Leftovers != nil {
		if left, err := e.h.Leftovers(e.fs); err != nil || len(left) > 0 {
			e.Errorf("left behind: %q, %v", left, err)
		}
	}
}

func (e *httpEnv) everyCall(want ...freshet.Kind) {
	e.Helper()
	for _, c := range e.calls() {
		ctx, cancel := context.WithTimeout(e.ctx(), 30*time.Second)
		err := c.do(ctx, e.fs, "f")
		cancel()
		if !freshet.IsKind(err, want...) {
			e.Errorf("%s: %v, want %v", c.name, err, want)
		}
	}
}

func httpRefused(e *httpEnv) {
	e.put("f", []byte("x"))
	e.proxy.set(func(w http.ResponseWriter, r *http.Request, _ func() *http.Response) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	e.everyCall(freshet.KindPermission)
	e.proxy.rule.Store(nil)
	e.wantContent("f", []byte("x"))
}

func httpRedirect(e *httpEnv) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		e.proxy.set(func(w http.ResponseWriter, r *http.Request, _ func() *http.Response) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Location", other.URL+r.URL.EscapedPath())
			w.WriteHeader(status)
			return true
		})
		e.everyCall(freshet.KindPermission)
	}
	if n := elsewhere.Load(); n > 0 {
		e.Errorf("%d requests followed the redirect", n)
	}
}

// httpForeign: something else listens at the endpoint.
func httpForeign(e *httpEnv) {
	for _, status := range []int{http.StatusNotFound, http.StatusOK} {
		e.proxy.set(func(w http.ResponseWriter, r *http.Request, _ func() *http.Response) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html><body>It works!</body></html>")
			return true
		})
		st, err := e.fs.Stat(e.ctx(), "absent")
		if err == nil || freshet.IsKind(err, freshet.KindNotExist) {
			e.Errorf("stat with status %d: %+v, %v", status, st, err)
		}
		if all, err := e.list("", ufs.ListOptions{}); err == nil {
			e.Errorf("list with status %d: %d entries and no error", status, len(all))
		}
	}
}
