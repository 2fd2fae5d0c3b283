package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// Whatever a storage or something on the way gets wrong in the answer to a ranged
// read, no wrong byte comes out of it and no end comes early without an error.
func TestNoWrongByte(t *testing.T) {
	t.Parallel()
	data := content(9, 1000)
	part := data[100:200]
	want := fingerprint.S3("e", 1000)
	head := func(status, length, contentRange string) string {
		lines := []string{"HTTP/1.1 " + status, `ETag: "e"`}
		if length != "" {
			lines = append(lines, "Content-Length: "+length)
		}
		if contentRange != "" {
			lines = append(lines, "Content-Range: "+contentRange)
		}
		return strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	const partial = "206 Partial Content"
	for name, tc := range map[string]struct {
		raw  string
		body []byte
		ok   bool
		kind freshet.Kind // when it fails
	}{
		"right":                      {raw: head(partial, "100", "bytes 100-199/1000"), body: part, ok: true},
		"more bytes than announced":  {raw: head(partial, "100", "bytes 100-199/1000"), body: append(part[:100:100], "extra"...), ok: true},
		"cut in the middle":          {raw: head(partial, "100", "bytes 100-199/1000"), body: part[:50]},
		"cut before the first byte":  {raw: head(partial, "100", "bytes 100-199/1000")},
		"length too small":           {raw: head(partial, "60", "bytes 100-199/1000"), body: part[:60]},
		"length too large":           {raw: head(partial, "130", "bytes 100-199/1000"), body: data[100:230]},
		"range is shorter":           {raw: head(partial, "60", "bytes 100-159/1000"), body: part[:60]},
		"range starts elsewhere":     {raw: head(partial, "100", "bytes 0-99/1000"), body: data[:100]},
		"range of another object":    {raw: head(partial, "100", "bytes 100-199/2000"), body: part, kind: freshet.KindStale},
		"range with unknown total":   {raw: head(partial, "100", "bytes 100-199/*"), body: part},
		"range beyond the total":     {raw: head(partial, "100", "bytes 100-199/150"), body: part},
		"range in other units":       {raw: head(partial, "100", "lines 100-199/1000"), body: part},
		"no range":                   {raw: head(partial, "100", ""), body: part},
		"range but not partial":      {raw: head("200 OK", "100", "bytes 100-199/1000"), body: part},
		"the whole object":           {raw: head("200 OK", "1000", ""), body: data},
		"nothing at all":             {raw: head("204 No Content", "", "")},
		"no length":                  {raw: head(partial, "", "bytes 100-199/1000"), body: part},
		"two lengths":                {raw: head(partial, "100\r\nContent-Length: 50", "bytes 100-199/1000"), body: part},
		"negative length":            {raw: head(partial, "-1", "bytes 100-199/1000"), body: part},
		"another version":            {raw: strings.Replace(head(partial, "100", "bytes 100-199/1000"), `"e"`, `"other"`, 1), body: part, kind: freshet.KindStale},
		"no version":                 {raw: strings.Replace(head(partial, "100", "bytes 100-199/1000"), `ETag: "e"`, "X: y", 1), body: part},
		"no HTTP":                    {raw: "SSH-2.0-OpenSSH_9.6\r\n"},
		"a chunked body that is cut": {raw: "HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\nContent-Range: bytes 100-199/1000\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n", body: part[:50]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := against(t, func(w http.ResponseWriter, _ *http.Request) { raw(w, tc.raw, tc.body) }, map[string]string{"retries": "0"})
			for _, known := range []bool{true, false} {
				opts := ufs.OpenOptions{Offset: 100, Length: 100}
				if known {
					opts.Want = want
				}
				got, err := read(t.Context(), fs, "f", opts)
				if !bytes.HasPrefix(part, got) {
					t.Errorf("wrong bytes: %d of them", len(got))
				}
				switch {
				case tc.ok || !known && tc.kind == freshet.KindStale:
					if err != nil || len(got) != len(part) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				case tc.kind != freshet.KindOK:
					wantKind(t, err, tc.kind)
				default:
					wantKind(t, err, freshet.KindUnavailable)
				}
			}
		})
	}
}

// raw answers with bytes as they are and closes the connection.
func raw(w http.ResponseWriter, head string, body []byte) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = buf.WriteString(head)
	_, _ = buf.Write(body)
	_ = buf.Flush()
	_ = conn.Close()
}

// A bucket that is elsewhere: the error names the region or the host, at the mount
// as later; nobody follows, and credentials go nowhere else.
func TestBucketElsewhere(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	const xmlError = `<Error><Code>%s</Code><Message>%s</Message><Endpoint>bucket.s3.eu-west-1.amazonaws.com</Endpoint></Error>`
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		says  string
	}{
		"wrong region, moved": {says: "set option region=eu-west-1", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-amz-bucket-region", "eu-west-1")
			w.WriteHeader(http.StatusMovedPermanently)
			_, _ = fmt.Fprintf(w, xmlError, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.")
		}},
		"wrong region in the signature": {says: "set option region=eu-west-1", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, xmlError, "AuthorizationHeaderMalformed", "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'")
		}},
		"another host": {says: "redirect refused: the endpoint sends to http://127.0.0.1", serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}},
		"a region that is none": {says: "correct the options region and endpoint", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-amz-bucket-region", "eu west; rm -rf")
			w.WriteHeader(http.StatusMovedPermanently)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := overTLS(t, tc.serve, nil, nil)
			calls := map[string]error{"probe": ufs.Probe(t.Context(), fs), "remove": fs.Remove(t.Context(), "f", ufs.RemoveOptions{})}
			_, calls["stat"] = fs.Stat(t.Context(), "f")
			_, calls["open"] = read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1})
			_, calls["write"] = write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
			_, calls["large"] = write(t.Context(), fs, "f", make([]byte, 100<<10), ufs.CreateOptions{Vouched: true})
			for call, err := range calls {
				if !freshet.IsKind(err, freshet.KindPermission) || !strings.Contains(fmt.Sprint(err), tc.says) {
					t.Errorf("%s: %v, want permission and %q", call, err, tc.says)
				}
				if strings.Contains(fmt.Sprint(err), "secret-of-the-test") {
					t.Errorf("%s shows the secret: %v", call, err)
				}
			}
		})
	}
}

// skewedStorage refuses what was signed more than 15 minutes off its clock.
func skewedStorage(ahead time.Duration, date bool, refused *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(ahead)
		w.Header()["Date"] = nil
		if date {
			w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		}
		_, _ = io.Copy(io.Discard, r.Body)
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if off := now.Sub(signed); err != nil || off > 15*time.Minute || off < -15*time.Minute {
			refused.Add(1)
			w.WriteHeader(http.StatusForbidden)
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(w, "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message></Error>")
			}
			return
		}
		answer(w, r)
	}
}

// A clock that is an hour off is allowed for after the first refusal; where the
// storage does not tell its time, the error says what is wrong.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, ufs.FS) error{
		"stat":   func(ctx context.Context, fs ufs.FS) error { _, err := fs.Stat(ctx, "f"); return err },
		"probe":  ufs.Probe,
		"remove": func(ctx context.Context, fs ufs.FS) error { return fs.Remove(ctx, "f", ufs.RemoveOptions{}) },
		"write": func(ctx context.Context, fs ufs.FS) error {
			_, err := write(ctx, fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
			return err
		},
		"large": func(ctx context.Context, fs ufs.FS) error {
			_, err := write(ctx, fs, "f", make([]byte, 100<<10), ufs.CreateOptions{Vouched: true})
			return err
		},
	}
	for name, call := range calls {
		for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
			t.Run(fmt.Sprint(name, ahead), func(t *testing.T) {
				t.Parallel()
				var refused atomic.Int64
				fs := overTLS(t, skewedStorage(ahead, true, &refused), map[string]string{"retries": "1"}, nil)
				if err := call(t.Context(), fs); err != nil {
					t.Errorf("the storage tells its time: %v", err)
				}
				before := refused.Load()
				if err := call(t.Context(), fs); err != nil || refused.Load() != before || before == 0 {
					t.Errorf("the second time: %v, %d refusals and then %d", err, before, refused.Load()-before)
				}
				silent := overTLS(t, skewedStorage(ahead, false, &refused), map[string]string{"retries": "1"}, nil)
				err := call(t.Context(), silent)
				wantKind(t, err, freshet.KindPermission)
				if !strings.Contains(err.Error(), "the clocks of this machine and of the storage differ") {
					t.Errorf("error: %v", err)
				}
			})
		}
	}
}

// refusing is a way to a storage on which requests that fail matches find no
// connection.
type refusing struct {
	http.RoundTripper
	fail func(*http.Request) bool
}

func (r refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.fail(req) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connection refused")}
	}
	return r.RoundTripper.RoundTrip(req)
}

// An effect for which there was no connection is told from one that may land; but
// not where a step before it was taken.
func TestNotSentIsTold(t *testing.T) {
	t.Parallel()
	remove := func(ctx context.Context, fs ufs.FS) error { return fs.Remove(ctx, "f", ufs.RemoveOptions{}) }
	rename := func(ctx context.Context, fs ufs.FS) error { _, err := fs.Rename(ctx, "f", "g"); return err }
	put := func(ctx context.Context, fs ufs.FS) error {
		_, err := write(ctx, fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
		return err
	}
	for name, tc := range map[string]struct {
		call  func(context.Context, ufs.FS) error
		fails string // the effect
		reset bool   // after it was sent
		want  bool
	}{
		"put":                   {call: put, fails: "PutObject", want: true},
		"put that was sent":     {call: put, fails: "PutObject", reset: true},
		"remove":                {call: remove, fails: "DeleteObject", want: true},
		"remove that was sent":  {call: remove, fails: "DeleteObject", reset: true},
		"rename":                {call: rename, fails: "CopyObject", want: true},
		"rename after the copy": {call: rename, fails: "DeleteObject"},
		"completion of an upload": {call: func(ctx context.Context, fs ufs.FS) error {
			_, err := write(ctx, fs, "f", make([]byte, 100<<10), ufs.CreateOptions{Vouched: true})
			return err
		}, fails: "CompleteMultipartUpload", want: true},
		"rename that was sent":     {call: rename, fails: "CopyObject", reset: true},
		"everything, at the start": {call: put, fails: "*", want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := against(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if tc.reset && effectOf(r) == tc.fails {
					panic(http.ErrAbortHandler)
				}
				answer(w, r)
			}, map[string]string{"retries": "0"})
			transport := http.DefaultTransport.(*http.Transport).Clone()
			t.Cleanup(transport.CloseIdleConnections)
			fs.(*s3.FS).SetTransport(refusing{transport, func(r *http.Request) bool {
				return !tc.reset && (tc.fails == "*" || effectOf(r) == tc.fails)
			}})
			err := tc.call(t.Context(), fs)
			if got := errorsIsNotSent(err); got != tc.want {
				t.Errorf("%v: not sent is %v, want %v", err, got, tc.want)
			}
			if tc.reset {
				wantKind(t, err, freshet.KindDeadline)
			} else if tc.want {
				wantKind(t, err, freshet.KindUnavailable)
			}
		})
	}
}
