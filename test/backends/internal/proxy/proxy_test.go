package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-io/freshet/test/backends/internal/proxy"
)

// fakeEngine remembers the bodies of PUTs by path and answers GETs with them.
type fakeEngine struct {
	mu      sync.Mutex
	objects map[string][]byte
	seen    []string // method, host and raw URI of each request
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, fmt.Sprintf("%s %s %s", r.Method, r.Host, r.RequestURI))
	if err != nil {
		return
	}
	switch r.Method {
	case http.MethodPut:
		e.objects[r.URL.Path] = body
		w.Header().Set("ETag", `"tag"`)
	case http.MethodGet:
		b, ok := e.objects[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write(b)
	}
}

func (e *fakeEngine) object(path string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.objects[path])
}

type system struct {
	t       *testing.T
	engine  *fakeEngine
	gate    *proxy.Gate
	control *httptest.Server
	client  *http.Client
}

func start(t *testing.T) *system {
	t.Helper()
	eng := &fakeEngine{objects: map[string][]byte{}}
	origin := httptest.NewServer(eng)
	t.Cleanup(origin.Close)
	transport := &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, origin.Listener.Addr().String())
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	p := proxy.New(proxy.Options{Transport: transport})
	gate, err := proxy.OpenGate("127.0.0.1:0", p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gate.Run(ctx) }()
	control := httptest.NewServer(p.Control(gate))
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("gate: %v", err)
		}
		p.Close()
		client.CloseIdleConnections()
		control.Close()
	})
	return &system{t: t, engine: eng, gate: gate, control: control, client: client}
}

func (s *system) do(method, uri, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.gate.Addr()+uri, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// call does a control request and decodes its answer into out unless nil.
func (s *system) call(method, path string, in, out any) int {
	s.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.control.URL+path, bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.control.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			s.t.Fatal(err)
		}
	}
	return resp.StatusCode
}

func TestOperationsAreNamed(t *testing.T) {
	tests := []struct{ method, uri, copySource, want string }{
		{"GET", "/", "", "ListBuckets"},
		{"GET", "/bkt?list-type=2&prefix=a", "", "ListObjectsV2"},
		{"GET", "/bkt/?prefix=a", "", "ListObjects"},
		{"GET", "/bkt?uploads", "", "ListMultipartUploads"},
		{"PUT", "/bkt", "", "CreateBucket"},
		{"HEAD", "/bkt/", "", "HeadBucket"},
		{"POST", "/bkt?delete", "", "DeleteObjects"},
		{"GET", "/bkt/k", "", "GetObject"},
		{"GET", "/bkt/k?uploadId=u", "", "ListParts"},
		{"HEAD", "/bkt/k", "", "HeadObject"},
		{"PUT", "/bkt/k", "", "PutObject"},
		{"PUT", "/bkt/k", "/bkt/src", "CopyObject"},
		{"PUT", "/bkt/k?partNumber=1&uploadId=u", "", "UploadPart"},
		{"PUT", "/bkt/k?partNumber=1&uploadId=u", "/bkt/src", "UploadPartCopy"},
		{"POST", "/bkt/k?uploads", "", "CreateMultipartUpload"},
		{"POST", "/bkt/k?uploadId=u", "", "CompleteMultipartUpload"},
		{"DELETE", "/bkt/k?uploadId=u", "", "AbortMultipartUpload"},
		{"DELETE", "/bkt/k", "", "DeleteObject"},
		{"PATCH", "/bkt/k", "", "Unknown"},
	}
	s := start(t)
	for _, tt := range tests {
		req := httptest.NewRequest(tt.method, "http://"+s.gate.Addr()+tt.uri, nil)
		req.RequestURI = ""
		if tt.copySource != "" {
			req.Header.Set("X-Amz-Copy-Source", tt.copySource)
		}
		s.call("POST", "/counts/reset", nil, nil)
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		var c proxy.Counts
		s.call("GET", "/counts", nil, &c)
		if c.Total != 1 || c.ByOp[tt.want] != 1 {
			t.Errorf("%s %s counted as %v, want %s", tt.method, tt.uri, c.ByOp, tt.want)
		}
	}
}

// Signatures cover the Host header and the path as it was sent.
func TestHostAndPathPassUnchanged(t *testing.T) {
	s := start(t)
	const uri = "/a%20b/%C3%BC+c%2Fd//e?x-id=GetObject&empty"
	req := httptest.NewRequest("GET", "http://"+s.gate.Addr()+uri, nil)
	req.RequestURI, req.Host = "", "bkt.localhost:1234"
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	s.engine.mu.Lock()
	seen := s.engine.seen[0]
	s.engine.mu.Unlock()
	if want := "GET bkt.localhost:1234 " + uri; seen != want {
		t.Errorf("engine saw %q, want %q", seen, want)
	}
	var list []proxy.Record
	s.call("GET", "/requests", nil, &list)
	if list[0].Bucket != "bkt" || list[0].Key != "a b/ü+c/d//e" || list[0].Status != http.StatusNotFound {
		t.Errorf("recorded %+v", list[0])
	}
}

func TestRulesFail(t *testing.T) {
	s := start(t)
	if _, _, err := s.do("PUT", "/bkt/big", strings.Repeat("x", 100_000)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		rule          proxy.Rule
		method        string
		status        int  // 0: no answer
		short, landed bool // the answer's body is cut; the request reached the engine
	}{
		{proxy.Rule{Action: proxy.ActionStatus, Status: 500}, "PUT", 500, false, false},
		{proxy.Rule{Action: proxy.ActionReset}, "PUT", 0, false, false},
		{proxy.Rule{Action: proxy.ActionStall, DelayMs: 5}, "PUT", 0, false, false},
		{proxy.Rule{Action: proxy.ActionDelay, DelayMs: 5}, "PUT", 200, false, true},
		{proxy.Rule{Action: proxy.ActionDropResponse}, "PUT", 0, false, true},
		{proxy.Rule{Action: proxy.ActionShortBody}, "GET", 200, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.rule.Action, func(t *testing.T) {
			tt.rule.Op = proxy.AnyOp
			if code := s.call("POST", "/faults", []proxy.Rule{tt.rule}, nil); code != http.StatusOK {
				t.Fatalf("rule refused: %d", code)
			}
			defer s.call("DELETE", "/faults", nil, nil)
			uri := "/bkt/" + tt.rule.Action
			if tt.method == "GET" {
				uri = "/bkt/big"
			}
			status, body, err := s.do(tt.method, uri, tt.rule.Action)
			if status != tt.status || (err != nil) != (tt.short || tt.status == 0) {
				t.Errorf("status %d, error %v", status, err)
			}
			if tt.short && (!errors.Is(err, io.ErrUnexpectedEOF) || len(body) != 50_000) {
				t.Errorf("%d bytes, error %v", len(body), err)
			}
			if got := s.engine.object(uri); tt.method == "PUT" && (got == tt.rule.Action) != tt.landed {
				t.Errorf("engine has %q, landed should be %v", got, tt.landed)
			}
		})
	}
}

func TestHeldRequestLandsOnRelease(t *testing.T) {
	s := start(t)
	s.call("POST", "/faults", []proxy.Rule{{Op: "PutObject", Action: proxy.ActionHold, Times: 1}}, nil)
	type answer struct {
		status int
		err    error
	}
	first := make(chan answer, 1)
	go func() {
		status, _, err := s.do("PUT", "/bkt/k", "first")
		first <- answer{status, err}
	}()
	var held []proxy.Held
	s.call("GET", "/held?min=1&timeoutMs=20000", nil, &held)
	if len(held) != 1 || held[0].Key != "k" || held[0].Bytes != 5 {
		t.Fatalf("held: %+v", held)
	}
	if _, _, err := s.do("PUT", "/bkt/k", "second"); err != nil {
		t.Fatal(err)
	}
	var out []proxy.Released
	s.call("POST", "/release", map[string]any{"id": held[0].ID}, &out)
	if len(out) != 1 || out[0].Status != http.StatusOK || out[0].ETag != `"tag"` {
		t.Errorf("released: %+v", out)
	}
	if got := s.engine.object("/bkt/k"); got != "first" {
		t.Errorf("engine has %q after the release", got)
	}
	if a := <-first; a.err != nil || a.status != http.StatusOK {
		t.Errorf("the waiting client got %+v", a)
	}
	if code := s.call("POST", "/release", map[string]any{"id": held[0].ID}, nil); code != http.StatusBadRequest {
		t.Errorf("second release: %d", code)
	}
}

// What still waits must not keep the proxy from closing.
func TestCloseEndsHeldAndStalledRequests(t *testing.T) {
	s := start(t)
	s.call("POST", "/faults", []proxy.Rule{
		{Op: "PutObject", Action: proxy.ActionHold}, {Op: "GetObject", Action: proxy.ActionStall},
	}, nil)
	var clients sync.WaitGroup
	for _, method := range []string{"PUT", "GET"} {
		clients.Go(func() {
			if status, _, err := s.do(method, "/bkt/k", "x"); err == nil {
				t.Errorf("%s answered %d", method, status)
			}
		})
	}
	var held []proxy.Held
	s.call("GET", "/held?min=1&timeoutMs=20000", nil, &held)
	for hits := 0; hits < 2; {
		var states []proxy.RuleState
		s.call("GET", "/faults", nil, &states)
		hits = states[0].Hits + states[1].Hits
	}
	s.gate.Down()
	clients.Wait()
	if s.engine.object("/bkt/k") != "" {
		t.Error("a held request took effect by itself")
	}
}

func TestDownRefusesConnections(t *testing.T) {
	s := start(t)
	for range 3 {
		if _, _, err := s.do("PUT", "/bkt/k", "x"); err != nil {
			t.Fatal(err)
		}
		s.call("POST", "/down", nil, nil)
		var err error
		// The first failures may be resets of a kept connection.
		for deadline := time.Now().Add(10 * time.Second); !errors.Is(err, syscall.ECONNREFUSED); {
			if _, _, err = s.do("GET", "/bkt/k", ""); err == nil {
				t.Fatal("answered while down")
			}
			if time.Now().After(deadline) {
				t.Fatalf("not refused: %v", err)
			}
		}
		s.call("POST", "/up", nil, nil)
		s.client.CloseIdleConnections()
	}
}

func TestProbabilityIsRepeatable(t *testing.T) {
	run := func() (failed []int) {
		s := start(t)
		s.call("POST", "/faults", []proxy.Rule{{Op: "GetObject", Action: proxy.ActionStatus, Probability: 0.5}}, nil)
		for i := range 40 {
			if status, _, _ := s.do("GET", "/bkt/none", ""); status == http.StatusServiceUnavailable {
				failed = append(failed, i)
			}
		}
		return failed
	}
	first, second := run(), run()
	if fmt.Sprint(first) != fmt.Sprint(second) || len(first) < 8 || len(first) > 32 {
		t.Errorf("failed: %v, then %v", first, second)
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	s := start(t)
	for _, body := range []string{
		`{}`, `[{"op":"PutObject"}]`, `[{"op":"Putt","action":"reset"}]`, `[{"op":"*","action":"explode"}]`,
		`[{"op":"*","action":"status","status":99}]`, `[{"op":"*","action":"reset","probability":2}]`,
		`[{"op":"*","action":"reset","times":-1}]`, `[{"op":"*","action":"delay"}]`, `[{"op":"*","action":"reset","prefix":"x"}]`,
	} {
		resp, err := s.control.Client().Post(s.control.URL+"/faults", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", body, resp.StatusCode)
		}
	}
}
