package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/gateway/rest"
	"github.com/freshet-io/freshet/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// region is a coordinator and a cache node with one file, /d/f, and whatever is
// written to it.
type region struct {
	rpc.Namespace

	content []byte
	modTime time.Time
	// stale lets that many reads fail because the file was overwritten.
	stale    int
	version  int
	stats    []freshet.ReadOptions
	written  map[freshet.Path][]byte
	lengths  map[freshet.Path]int64
	writeErr error
	syncErr  error
	breakAt  int64
}

func (r *region) info(p freshet.Path) freshet.Info {
	return freshet.Info{
		Path: p, Length: int64(len(r.content)), ModTime: r.modTime, FileID: 1 << 60, BlockSize: 64 << 20,
		Fingerprint: fingerprint.Fingerprint{Content: fmt.Sprintf("c%d", r.version), Change: "x", Meta: "m"},
	}
}

func (r *region) find(p freshet.Path) (freshet.Info, error) {
	switch p { //nolint:exhaustive // other paths do not exist
	case "/d/f", "/d/f.html":
		return r.info(p), nil
	case "/d":
		return freshet.Info{Path: p, Type: freshet.TypeDirectory}, nil
	}
	return freshet.Info{}, freshet.Errorf(freshet.KindNotExist, "stat", p, "does not exist")
}

func (r *region) Stat(_ context.Context, p freshet.Path, o freshet.ReadOptions) (freshet.Status, error) {
	r.stats = append(r.stats, o)
	info, err := r.find(p)
	return freshet.Status{Info: info, Freshness: freshet.Freshness{Age: 1500 * time.Millisecond}}, err
}

func (r *region) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	r.stats = append(r.stats, q.Options)
	if q.StaleFingerprint != "" {
		r.version++
		r.content = bytes.ToUpper(r.content)
	}
	info, err := r.find(q.Path)
	if err == nil && info.Type == freshet.TypeDirectory {
		err = freshet.Errorf(freshet.KindConflict, "read", q.Path, "is a directory")
	}
	loc := freshet.Location{Info: info, Source: freshet.Source{Fingerprint: info.Fingerprint}}
	if info.Length > 0 {
		loc.Blocks = []freshet.Block{{Length: info.Length, Fetch: freshet.Node{ID: "n"}}}
	}
	return loc, err
}

func (r *region) ReadBlock(_ context.Context, _ freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error) {
	if r.stale > 0 {
		r.stale--
		return nil, freshet.Errorf(freshet.KindStale, "read block", "", "another version")
	}
	b := r.content[q.Offset : q.Offset+q.Length]
	if r.breakAt > 0 {
		return stream{io.MultiReader(bytes.NewReader(b[:r.breakAt]), broken{}), q.Length}, nil
	}
	return stream{bytes.NewReader(b), q.Length}, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) {
	return 0, freshet.Errorf(freshet.KindPermission, "read", "", "the storage refuses")
}

type stream struct {
	io.Reader

	length int64
}

func (s stream) Close() error                       { return nil }
func (s stream) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, s.Reader) }
func (s stream) Length() int64                      { return s.length }
func (s stream) Origin() freshet.Origin             { return freshet.OriginUFS }

func (r *region) BeginWrite(_ context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	return freshet.BeginWriteAnswer{Ticket: freshet.Ticket{Path: q.Path, Write: q.Write}}, nil
}

func (r *region) WriteFile(_ context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error) {
	b, err := io.ReadAll(body)
	if err == nil {
		err = r.writeErr
	}
	if err != nil {
		return freshet.Completed{}, freshet.Wrap("write", t.Path, err)
	}
	r.written[t.Path], r.lengths[t.Path] = b, length
	return freshet.Completed{Info: freshet.Info{Path: t.Path, Length: int64(len(b)), Fingerprint: r.info("").Fingerprint}, Token: token()}, nil
}

func token() freshet.Token { return freshet.Token{Epoch: 5, Seq: 6, Domain: freshet.DomainID{1}} }

func (r *region) Mkdir(_ context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	return freshet.Completed{Info: freshet.Info{Path: q.Path, Type: freshet.TypeDirectory}, Token: token()}, nil
}

func (r *region) List(_ context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	r.stats = append(r.stats, q.Options)
	return freshet.ListPage{Entries: []freshet.Info{r.info("/d/f")}, NextPageToken: fmt.Sprintf("%d", q.PageSize)}, nil
}

func (r *region) Sync(_ context.Context, _ freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	if !recursive {
		return r.syncErr
	}
	if err := report(freshet.SyncProgress{Entries: 1 << 40}); err != nil {
		return err
	}
	if r.syncErr != nil {
		return r.syncErr
	}
	return report(freshet.SyncProgress{Entries: 1<<40 + 1, Done: true})
}

type bed struct {
	*region

	url  string
	t    *testing.T
	http *http.Client
}

func newBed(t *testing.T) *bed {
	t.Helper()
	r := &region{
		content: []byte("0123456789abcdefghij"), modTime: time.Date(2026, 5, 4, 3, 2, 1, 987_000_000, time.UTC),
		written: map[freshet.Path][]byte{}, lengths: map[freshet.Path]int64{},
	}
	api, err := rest.NewAPI(t.Context(), rest.Services{
		Namespace: rpc.NewNamespaceServer(r, nil), Mounts: rpc.NewMountServer(nil, nil), Policies: rpc.NewPolicyServer(nil, nil),
		Cluster: rpc.NewClusterServer(nil, nil, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	data := rest.NewData(client.New(r, r, client.Options{}), slog.New(slog.DiscardHandler))
	sync := rest.NewSync(r)
	s := httptest.NewServer(rest.WithRequestID(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case strings.HasPrefix(req.URL.Path, rest.DataPrefix):
			data.ServeHTTP(w, req)
		case req.URL.Path == "/v1/sync":
			sync.ServeHTTP(w, req)
		default:
			api.ServeHTTP(w, req)
		}
	})))
	t.Cleanup(s.Close)
	return &bed{region: r, url: s.URL, t: t, http: s.Client()}
}

type answer struct {
	*http.Response

	body string
	err  error // of reading the body
}

// do sends a request; headers are name, value pairs.
func (b *bed) do(method, path, body string, headers ...string) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	return answer{resp, string(got), err}
}

// wantError checks the one form of errors.
func (b *bed) wantError(a answer, status int, kind freshet.Kind, words ...string) {
	b.t.Helper()
	var e map[string]any
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		b.t.Errorf("not JSON: %s", a.body)
		return
	}
	for _, key := range []string{"code", "kind", "message", "op", "path", "request_id"} {
		if _, ok := e[key]; !ok {
			b.t.Errorf("no %q in %s", key, a.body)
		}
	}
	if a.StatusCode != status || e["code"] != float64(status) || e["kind"] != kind.String() || e["request_id"] != a.Header.Get("X-Request-Id") {
		b.t.Errorf("status %d, want %d and kind %s: %s", a.StatusCode, status, kind, a.body)
	}
	for _, w := range words {
		if !strings.Contains(fmt.Sprint(e["message"]), w) {
			b.t.Errorf("%q is missing in %s", w, a.body)
		}
	}
	if strings.Contains(a.body, "rpc error") || strings.Contains(a.body, "goroutine") {
		b.t.Errorf("inner workings: %s", a.body)
	}
}

func TestJSON(t *testing.T) {
	b := newBed(t)
	a := b.do("GET", "/v1/status?path=/d/f", "")
	for _, want := range []string{`"path":"/d/f"`, `"length":"20"`, `"mtime":"2026-05-04T03:02:01.987Z"`, `"fileId":"1152921504606846976"`, `"cachedBytes":"0"`, `"fromCache":false`, `"age":"1.500s"`} {
		if !strings.Contains(strings.ReplaceAll(a.body, `": `, `":`), want) {
			t.Errorf("%s is missing in %s", want, a.body)
		}
	}
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("X-Request-Id") == "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if a := b.do("POST", "/v1/mkdir", `{"path":"/x","parents":true}`); a.StatusCode != 200 || a.Header.Get("X-Freshet-Token") != token().String() {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	if a := b.do("GET", "/v1/list?path=/d&page_size=7", ""); !strings.Contains(a.body, `"nextPageToken":"7"`) {
		t.Errorf("%s", a.body)
	}
	if a := b.do("GET", "/v1/list?path=/d&pageSize=7&syncInterval=5s", "", "X-Freshet-After", token().String()); a.StatusCode != 200 {
		t.Errorf("%s", a.body)
	}
	last := b.stats[len(b.stats)-1]
	if last.After != token() || last.SyncInterval == nil || time.Duration(*last.SyncInterval) != 5*time.Second {
		t.Errorf("the coordinator was asked with %+v", last)
	}
}

func TestBadJSONRequests(t *testing.T) {
	b := newBed(t)
	deep := strings.Repeat(`{"path":`, 10_001)
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		kind                     freshet.Kind
		words                    string
	}{
		{"unknown parameter", "GET", "/v1/list?path=/d&pagesize=1", "", nil, 400, freshet.KindInvalid, "pagesize"},
		{"parameter given twice", "GET", "/v1/list?path=/d&path=/e", "", nil, 400, freshet.KindInvalid, "2 times"},
		{"map parameter", "GET", "/v1/list?path[x]=/d", "", nil, 400, freshet.KindInvalid, "map"},
		{"broken escape", "GET", "/v1/status?path=/%zz", "", nil, 400, freshet.KindInvalid, ""},
		{"semicolon", "GET", "/v1/status?path=/d;x=1", "", nil, 400, freshet.KindInvalid, ""},
		{"unknown field", "POST", "/v1/mkdir", `{"path":"/x","owner":"root","is_admin":true}`, nil, 400, freshet.KindInvalid, "unknown field"},
		{"field given twice", "POST", "/v1/mkdir", `{"path":"/x","path":"/y"}`, nil, 400, freshet.KindInvalid, "duplicate"},
		{"not JSON", "POST", "/v1/mkdir", `<xml/>`, nil, 400, freshet.KindInvalid, ""},
		{"number too large", "POST", "/v1/mkdir", `{"path":"/x","mode":1e400}`, nil, 400, freshet.KindInvalid, ""},
		{"too deep", "POST", "/v1/mkdir", deep, nil, 400, freshet.KindInvalid, ""},
		{"too large", "POST", "/v1/mkdir", `{"path":"/` + strings.Repeat("x", 2<<20) + `"}`, nil, 413, freshet.KindInvalid, "is larger than"},
		{"compressed", "POST", "/v1/mkdir", "x", []string{"Content-Encoding", "gzip"}, 415, freshet.KindUnsupported, "compressed"},
		{"compressed sync", "POST", "/v1/sync", "x", []string{"Content-Encoding", "gzip"}, 415, freshet.KindUnsupported, "compressed"},
		{"compressed upload", "PUT", "/v1/data/x", "x", []string{"Content-Encoding", "gzip"}, 415, freshet.KindUnsupported, "compressed"},
		{"empty body", "POST", "/v1/mkdir", "", nil, 400, freshet.KindInvalid, "path is empty"},
		{"page size", "GET", "/v1/list?path=/d&page_size=1001", "", nil, 400, freshet.KindInvalid, "page size 1001"},
		{"interval", "GET", "/v1/status?path=/d&sync_interval=soon", "", nil, 400, freshet.KindInvalid, "soon"},
		{"token", "GET", "/v1/status?path=/d/f", "", []string{"X-Freshet-After", "nonsense"}, 400, freshet.KindInvalid, "token"},
		{"no such route", "GET", "/v1/nothing", "", nil, 404, freshet.KindNotExist, "openapi.json"},
		{"no such method", "DELETE", "/v1/status", "", nil, 405, freshet.KindUnsupported, "DELETE"},
		{"a GET in disguise", "POST", "/v1/status", "path=/d", []string{"Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override", "GET"}, 405, freshet.KindUnsupported, ""},
		{"not found", "GET", "/v1/status?path=/no", "", nil, 404, freshet.KindNotExist, "does not exist"},
		{"sync: unknown field", "POST", "/v1/sync", `{"pth":"/"}`, nil, 400, freshet.KindInvalid, "pth"},
		{"sync: arguments in the query", "POST", "/v1/sync?path=/&recursive=true", "", nil, 400, freshet.KindInvalid, "body"},
		{"sync: method", "GET", "/v1/sync", "", nil, 405, freshet.KindUnsupported, ""},
		{"sync: path", "POST", "/v1/sync", `{"path":"../x"}`, nil, 400, freshet.KindInvalid, "does not start"},
		{"data: unknown parameter", "GET", "/v1/data/d/f?reed_type=cache", "", nil, 400, freshet.KindInvalid, "reed_type"},
		{"data: write parameter on a read", "GET", "/v1/data/d/f?write_type=through", "", nil, 400, freshet.KindInvalid, "write_type"},
		{"data: broken escape in the query", "GET", "/v1/data/d/f?read_type=%zz", "", nil, 400, freshet.KindInvalid, ""},
		{"data: token", "GET", "/v1/data/d/f", "", []string{"X-Freshet-After", "x"}, 400, freshet.KindInvalid, "token"},
		{"data: method", "POST", "/v1/data/d/f", "", nil, 405, freshet.KindUnsupported, "POST"},
		{"data: directory", "GET", "/v1/data/d", "", nil, 412, freshet.KindConflict, "is a directory"},
		{"data: not found", "GET", "/v1/data/no", "", nil, 404, freshet.KindNotExist, ""},
		{"data: precondition on PUT", "PUT", "/v1/data/x", "x", []string{"If-None-Match", "*"}, 501, freshet.KindUnsupported, "If-None-Match"},
		{"data: write type", "PUT", "/v1/data/x?write_type=fast", "x", nil, 400, freshet.KindInvalid, "fast"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.t = t
			b.wantError(b.do(tc.method, tc.path, tc.body, tc.headers...), tc.status, tc.kind, tc.words)
		})
	}
	if len(b.written) != 0 {
		t.Errorf("something was written: %v", b.written)
	}
}

func TestPathsOfRequests(t *testing.T) {
	b := newBed(t)
	long := strings.Repeat("/"+strings.Repeat("x", 200), 21)
	for _, tc := range []struct{ name, escaped, words string }{
		{"dot dot", "/d/%2e%2e/f", `".." segment`},
		{"NUL", "/a%00b", "NUL"},
		{"control character", "/a%0ab", "0x0a"},
		{"escape character", "/a%1bb", "0x1b"},
		{"not UTF-8", "/%ff", "UTF-8"},
		{"overlong slash", "/%c0%af", "UTF-8"},
		{"too long", long, "longer than 4096"},
		{"segment too long", "/" + strings.Repeat("x", 256), "longer than 255"},
		{"too deep", strings.Repeat("/x", 129), "129 segments"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.t = t
			b.wantError(b.do("GET", "/v1/status?path="+tc.escaped, ""), 400, freshet.KindInvalid, tc.words)
			b.wantError(b.do("GET", "/v1/data"+tc.escaped, ""), 400, freshet.KindInvalid, tc.words)
			b.wantError(b.do("PUT", "/v1/data"+tc.escaped, "x"), 400, freshet.KindInvalid, tc.words)
		})
	}
	b.t = t
	for escaped, want := range map[string]freshet.Path{
		"/a%20b": "/a b", "/100%25": "/100%", "/a+b": "/a+b", "/%3F%3B%23": "/?;#", "/%C3%A9/%E2%80%AEx": "/é/\u202ex",
		"/%252e%252e": "/%2e%2e", "/..%5C..": "/..\\..", "//a//b/": "/a/b",
	} {
		if a := b.do("PUT", "/v1/data"+escaped, string(want)); a.StatusCode != 201 || string(b.written[want]) != string(want) {
			t.Errorf("%s: %d %s, written %q", escaped, a.StatusCode, a.body, b.written)
		}
	}
}

func TestSyncStream(t *testing.T) {
	b := newBed(t)
	a := b.do("POST", "/v1/sync", `{"path":"/","recursive":true}`)
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(a.body, `": `, `":`)), "\n")
	if a.Header.Get("Content-Type") != "application/x-ndjson" || len(lines) != 2 ||
		!strings.Contains(lines[0], `"entries":"1099511627776"`) || !strings.Contains(lines[1], `"done":true`) {
		t.Errorf("%v %s", a.Header, a.body)
	}
	b.syncErr = freshet.Errorf(freshet.KindUnavailable, "sync", "/", "the storage is away")
	b.wantError(b.do("POST", "/v1/sync", `{"path":"/"}`), 503, freshet.KindUnavailable)
	a = b.do("POST", "/v1/sync", `{"path":"/","recursive":true}`)
	lines = strings.Split(strings.TrimSpace(a.body), "\n")
	var last struct {
		Error struct {
			Code      int
			Kind      string
			RequestID string `json:"request_id"`
		}
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Error.Kind != "unavailable" || last.Error.Code != 503 ||
		last.Error.RequestID != a.Header.Get("X-Request-Id") {
		t.Errorf("%v: %s", err, a.body)
	}
}

func TestRedirects(t *testing.T) {
	var asked freshet.Path
	h := rest.WithRequestID(rest.Redirect(func(_ *http.Request, p freshet.Path) (string, error) {
		asked = p
		if p == "/none" {
			return "", freshet.Errorf(freshet.KindUnavailable, "find cache node", p, "no cache node is live")
		}
		return "10.1.2.3:7411", nil
	}, false))
	for target, want := range map[string]freshet.Path{
		"/v1/data/a%20b/100%25/%C3%A9?read_type=no_cache&sync_interval=5s": "/a b/100%/é",
		"/v1/data/a+b%3Fc%3Bd%23e?x=%2F;y":                                 "/a+b?c;d#e", "/v1/data/%2Fa%2Fb": "/a/b", "/v1/data": "/",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPut, target, http.NoBody))
		if w.Code != 307 || w.Header().Get("Location") != "http://10.1.2.3:7411"+target || asked != want {
			t.Errorf("%s: %d to %q, path %q", target, w.Code, w.Header().Get("Location"), asked)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/data/none", http.NoBody))
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("no node: %d %v", w.Code, w.Header())
	}
}

func TestOpenAPIDescribesTheHandWrittenRoutes(t *testing.T) {
	b, err := rest.OpenAPI(`{"paths":{"/v1/sync":{"post":{"responses":{"200":{"x":1}},"tags":["N"]}},"/v1/status":{"get":{"responses":{"200":{}}}}},"definitions":{"rpcStatus":{}}}`)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths       map[string]map[string]any
		Definitions map[string]any
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"get", "head", "put"} {
		if doc.Paths["/v1/data/{path}"][method] == nil {
			t.Errorf("no %s of data", method)
		}
	}
	text := string(b)
	for _, want := range []string{"X-Freshet-After", "X-Freshet-Token", "X-Freshet-Source", "X-Freshet-Fingerprint", "application/x-ndjson", "request_id"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not described", want)
		}
	}
	for _, wrong := range []string{"rpcStatus", "x-complete", "x-replace"} {
		if strings.Contains(text, wrong) {
			t.Errorf("%s is left", wrong)
		}
	}
	if _, err := rest.OpenAPI("{"); err == nil {
		t.Error("a broken description must not be served")
	}
}
