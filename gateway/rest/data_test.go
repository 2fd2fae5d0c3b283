package rest_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/gateway/rest"
)

func TestRanges(t *testing.T) {
	b := newBed(t)
	all := string(b.content)
	for _, tc := range []struct {
		spec   string
		status int
		want   string
		rng    string
	}{
		{"", 200, all, ""},
		{"bytes=0-0", 206, "0", "bytes 0-0/20"},
		{"bytes=5-9", 206, "56789", "bytes 5-9/20"},
		{"bytes=18-", 206, "ij", "bytes 18-19/20"},
		{"bytes=-3", 206, "hij", "bytes 17-19/20"},
		{"bytes=-99", 206, all, "bytes 0-19/20"},
		{"bytes=15-9999", 206, "fghij", "bytes 15-19/20"},
		{"bytes=20-", 416, "", "bytes */20"},
		{"bytes=-0", 416, "", "bytes */20"},
		{"bytes=5-1", 200, all, ""},
		{"bytes=99999999999999999999-", 200, all, ""},
		{"bytes=0-99999999999999999999", 200, all, ""},
		{"bytes=" + strings.Repeat("0-1,", 10_000/4) + "0-1", 200, all, ""},
		{"lines=1-2", 200, all, ""},
		{"bytes=+1-2", 200, all, ""},
		{"bytes=a-b", 200, all, ""},
		{"bytes=--1", 200, all, ""},
		{"bytes=", 200, all, ""},
	} {
		a := b.do("GET", "/v1/data/d/f", "", "Range", tc.spec)
		if a.StatusCode != tc.status || a.Header.Get("Content-Range") != tc.rng || (tc.status != 416 && a.body != tc.want) {
			t.Errorf("%.40s: %d %q %q", tc.spec, a.StatusCode, a.Header.Get("Content-Range"), a.body)
		}
		if tc.status == 416 {
			b.wantError(a, 416, freshet.KindInvalid, "20 bytes")
		}
	}
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-5", "")
	f.Add("bytes=-1", `"x"`)
	r := &region{content: []byte("0123456789abcdefghij")}
	data := rest.NewData(client.New(r, r, client.Options{}), slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, spec, cond string) {
		req := httptest.NewRequest(http.MethodGet, "/v1/data/d/f", http.NoBody)
		req.Header["Range"], req.Header["If-Range"] = []string{spec}, []string{cond}
		w := httptest.NewRecorder()
		data.ServeHTTP(w, req)
		if w.Code != 200 && w.Code != 206 && w.Code != 416 {
			t.Errorf("%q: %d", spec, w.Code)
		}
		if w.Code != 416 && !strings.Contains(string(r.content), w.Body.String()) {
			t.Errorf("%q: %q", spec, w.Body)
		}
	})
}

func TestConditions(t *testing.T) {
	b := newBed(t)
	tag := b.do("HEAD", "/v1/data/d/f", "").Header.Get("Etag")
	before, at := "Mon, 04 May 2026 03:02:00 GMT", "Mon, 04 May 2026 03:02:01 GMT"
	for _, tc := range []struct {
		headers []string
		status  int
	}{
		{[]string{"If-None-Match", tag}, 304},
		{[]string{"If-None-Match", `"x", W/` + tag}, 304},
		{[]string{"If-None-Match", "*"}, 304},
		{[]string{"If-None-Match", `"x"`}, 200},
		{[]string{"If-None-Match", `"x"`, "If-Modified-Since", at}, 200},
		{[]string{"If-Match", tag}, 200},
		{[]string{"If-Match", `"x"`}, 412},
		{[]string{"If-Match", "W/" + tag}, 412},
		{[]string{"If-Match", "*"}, 200},
		{[]string{"If-Modified-Since", at}, 304},
		{[]string{"If-Modified-Since", before}, 200},
		{[]string{"If-Modified-Since", "yesterday"}, 200},
		{[]string{"If-Unmodified-Since", at}, 200},
		{[]string{"If-Unmodified-Since", before}, 412},
		{[]string{"Range", "bytes=0-0", "If-Range", tag}, 206},
		{[]string{"Range", "bytes=0-0", "If-Range", `"x"`}, 200},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := b.do(method, "/v1/data/d/f", "", tc.headers...)
			if a.StatusCode != tc.status || (a.StatusCode < 400 && a.Header.Get("Etag") != tag) {
				t.Errorf("%s %v: %d %v", method, tc.headers, a.StatusCode, a.Header)
			}
			if (method == "HEAD" || a.StatusCode == 304) && a.body != "" {
				t.Errorf("%s %v: body %q", method, tc.headers, a.body)
			}
		}
	}
}

func TestHeadersOfData(t *testing.T) {
	b := newBed(t)
	a := b.do("GET", "/v1/data/d/f.html", "", "X-Request-Id", "forged", "X-Freshet-User", "root", "Grpc-Metadata-freshet-forwarded", "1")
	for name, want := range map[string]string{
		"Content-Length": "20", "Last-Modified": "Mon, 04 May 2026 03:02:01 GMT", "X-Freshet-Source": "ufs", "X-Freshet-Fingerprint": "c0;x;m",
		"X-Content-Type-Options": "nosniff", "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes",
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if a.Header.Get("X-Request-Id") == "forged" {
		t.Error("the caller chose the request ID")
	}
	head := b.do("HEAD", "/v1/data/d/f.html", "")
	for _, name := range []string{"Content-Length", "Last-Modified", "Etag", "Content-Type", "X-Freshet-Fingerprint"} {
		if head.Header.Get(name) != a.Header.Get(name) {
			t.Errorf("HEAD has another %s: %q", name, head.Header.Get(name))
		}
	}
}

func TestHeadersAndBytesAreOfOneVersion(t *testing.T) {
	b := newBed(t)
	b.stale = 1 // the file is overwritten between Locate and the first byte
	a := b.do("GET", "/v1/data/d/f", "", "Range", "bytes=10-")
	if a.body != "ABCDEFGHIJ" || a.Header.Get("X-Freshet-Fingerprint") != "c1;x;m" || a.StatusCode != 206 {
		t.Errorf("%d %q as version %s", a.StatusCode, a.body, a.Header.Get("X-Freshet-Fingerprint"))
	}
	b.stale = 1000
	b.wantError(b.do("GET", "/v1/data/d/f", ""), 412, freshet.KindStale)
}

func TestABodyThatBreaksOffIsNoWholeBody(t *testing.T) {
	b := newBed(t)
	b.content, b.breakAt = bytes.Repeat([]byte("x"), 100_000), 50_000 // the beginning is on its way by then
	if a := b.do("GET", "/v1/data/d/f", ""); a.err == nil {
		t.Errorf("%d, %q was taken for the whole", a.StatusCode, a.body)
	}
}

func TestPut(t *testing.T) {
	b := newBed(t)
	a := b.do("PUT", "/v1/data/new?write_type=through", "hello")
	if a.StatusCode != 201 || a.Header.Get("X-Freshet-Token") != token().String() || a.Header.Get("Etag") == "" || !strings.Contains(a.body, `"length":"5"`) {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	if string(b.written["/new"]) != "hello" || b.lengths["/new"] != 5 {
		t.Errorf("%q, declared %d", b.written, b.lengths["/new"])
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.url+"/v1/data/chunked", io.MultiReader(strings.NewReader("a"), strings.NewReader("b")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 201 || string(b.written["/chunked"]) != "ab" || b.lengths["/chunked"] != -1 {
		t.Errorf("chunked: %d %q, declared %d", resp.StatusCode, b.written["/chunked"], b.lengths["/chunked"])
	}
	b.writeErr = freshet.Errorf(freshet.KindExist, "write", "/x", "is there")
	b.wantError(b.do("PUT", "/v1/data/x", "x"), 409, freshet.KindExist, "is there")
}

// raw sends bytes as they are and returns the first line of the answer.
func (b *bed) raw(text string, closeWrite bool) string {
	b.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(b.t.Context(), "tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		b.t.Fatal(err)
	}
	if closeWrite {
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // a TCP connection
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 512)
	n, _ := conn.Read(buf)
	line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	return line
}

func TestFramingOfBodies(t *testing.T) {
	b := newBed(t)
	for name, tc := range map[string]struct{ text, want string }{
		"fewer bytes than declared": {"PUT /v1/data/x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc", "400"},
		"chunks that break off":     {"PUT /v1/data/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "400"},
		"negative length":           {"PUT /v1/data/x HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "400"},
		"two lengths":               {"PUT /v1/data/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
		"1 EiB declared":            {"PUT /v1/data/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1152921504606846976\r\n\r\nab", "400"},
		"random bytes":              {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
	} {
		if line := b.raw(tc.text, true); !strings.Contains(line, tc.want) {
			t.Errorf("%s: %q", name, line)
		}
	}
	if len(b.written) != 0 {
		t.Errorf("written: %v", b.written)
	}
}
