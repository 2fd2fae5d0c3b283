package s3_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// against opens a mount whose endpoint is a server of the test's own.
func against(t testing.TB, handler http.HandlerFunc, more map[string]string) ufs.FS {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return openAt(t, srv.URL, more, []string{"127.0.0.0/8"})
}

func openAt(t testing.TB, endpoint string, more map[string]string, allowed []string) ufs.FS {
	t.Helper()
	opts := map[string]string{"endpoint": endpoint, "credentials": "anonymous", "retries": "1", "request_timeout": "10s"}
	maps.Copy(opts, more)
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket/p", Options: opts}, ufs.Environment{AllowedEndpoints: allowed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return fs
}

func listAll(ctx context.Context, fs ufs.FS) (n int, err error) {
	for _, err = range fs.List(ctx, "", ufs.ListOptions{}) {
		if err == nil {
			n++
		}
	}
	return n, err
}

func TestHugeListAnswerIsCutOff(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]string{"endless": "", "announced": "10737418240"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := make(chan int64, 4)
			fs := against(t, func(w http.ResponseWriter, _ *http.Request) {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				n, _ := io.WriteString(w, exampleHead)
				total := int64(n)
				filler := []byte(strings.Repeat("<CommonPrefixes><Prefix>p/aaaaaaaa/</Prefix></CommonPrefixes>", 1000))
				for total < 10<<30 {
					n, err := w.Write(filler)
					total += int64(n)
					if err != nil {
						break
					}
				}
				sent <- total
			}, nil)
			_, err := listAll(t.Context(), fs)
			wantKind(t, err, freshet.KindUnavailable)
			if !strings.Contains(err.Error(), "list response too large") {
				t.Errorf("error: %v", err)
			}
			if n := <-sent; n > 64<<20 {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

func TestRedirectIsRefused(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 307, 308} {
		internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
		t.Cleanup(internal.Close)
		fs := against(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, internal.URL+"/secret", status) }, nil)
		_, err := fs.Stat(t.Context(), "f")
		wantKind(t, err, freshet.KindPermission)
		if !strings.Contains(err.Error(), "redirect refused") {
			t.Errorf("error: %v", err)
		}
		_, err = write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
		wantKind(t, err, freshet.KindPermission)
	}
}

// A server that is no S3 server says nothing about files.
func TestForeignServerIsNeverAbsence(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"a page": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html><body>hello</body></html>")
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := against(t, handler, nil)
			_, err := listAll(t.Context(), fs)
			wantKind(t, err, freshet.KindUnavailable)
			wantKind(t, ufs.Probe(t.Context(), fs), freshet.KindUnavailable)
			_, err = fs.Stat(t.Context(), "f")
			wantKind(t, err, freshet.KindUnavailable)
			_, err = read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1})
			wantKind(t, err, freshet.KindUnavailable)
		})
	}
}

// What servers get wrong in listings is an error, not a listing.
func TestWrongListings(t *testing.T) {
	t.Parallel()
	entry := func(key string) string {
		return "<Contents><Key>" + key + "</Key><LastModified>2026-11-05T10:11:12Z</LastModified><ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
	}
	more := "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
	for name, pages := range map[string][]string{
		"out of order over pages": {more + entry("p/b"), entry("p/a")}, // unsupported: to ask again would not help
		"the same token for ever": {more + entry("p/a"), more + entry("p/b")},
		"outside of the prefix":   {entry("q/a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := against(t, func(w http.ResponseWriter, r *http.Request) {
				i := 0
				if r.URL.Query().Get("continuation-token") != "" {
					i = len(pages) - 1
				}
				_, _ = io.WriteString(w, "<ListBucketResult>"+pages[i]+"</ListBucketResult>")
			}, nil)
			_, err := listAll(t.Context(), fs)
			if strings.HasPrefix(name, "out of order") {
				wantKind(t, err, freshet.KindUnsupported)
				return
			}
			wantKind(t, err, freshet.KindUnavailable)
		})
	}
}

// A server that ignores conditions and ranges is found out.
func TestWrongReads(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 100)
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"now"`)
		if strings.HasSuffix(r.URL.Path, "/shifted") {
			w.Header().Set("Content-Range", "bytes 0-9/100")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, body[:10])
			return
		}
		_, _ = io.WriteString(w, body)
	}, nil)
	_, err := read(t.Context(), fs, "f", ufs.OpenOptions{Want: fingerprint.S3("other", 100), Length: -1})
	wantKind(t, err, freshet.KindStale)
	_, err = read(t.Context(), fs, "f", ufs.OpenOptions{Want: fingerprint.S3("now", 99), Length: -1})
	wantKind(t, err, freshet.KindStale)
	_, err = read(t.Context(), fs, "f", ufs.OpenOptions{Want: fingerprint.S3("now", 100), Offset: 5, Length: 10})
	wantKind(t, err, freshet.KindUnavailable)
	_, err = read(t.Context(), fs, "shifted", ufs.OpenOptions{Want: fingerprint.S3("now", 100), Offset: 5, Length: 10})
	wantKind(t, err, freshet.KindUnavailable)
	_, err = read(t.Context(), fs, "f", ufs.OpenOptions{Want: fingerprint.S3("now", 100), Length: -1})
	if err != nil {
		t.Error(err)
	}
}

// A body that stalls ends the read; one that trickles may take longer than the
// timeout.
func TestBodyStallAndTrickle(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Content-Length", "10")
		for range 9 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			if strings.HasSuffix(r.URL.Path, "/trickle") {
				select {
				case <-time.After(600 * time.Millisecond): // nine of them are more than the timeout
				case <-release:
				}
			}
		}
		if strings.HasSuffix(r.URL.Path, "/stall") {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		_, _ = io.WriteString(w, "x")
	}, map[string]string{"request_timeout": "5s", "retries": "0"})
	_, err := read(t.Context(), fs, "stall", ufs.OpenOptions{Length: -1})
	wantKind(t, err, freshet.KindUnavailable)
	if b, err := read(t.Context(), fs, "trickle", ufs.OpenOptions{Length: -1}); err != nil || len(b) != 10 {
		t.Errorf("trickle: %d bytes, %v", len(b), err)
	}
}

func TestEndpointPolicy(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{
		"http://169.254.169.254", "http://[::ffff:169.254.169.254]", "http://2852039166", "http://127.0.0.1:9000", "http://localhost:9000",
	} {
		_, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket", Options: map[string]string{"endpoint": endpoint, "credentials": "anonymous"}}, ufs.Environment{})
		if !freshet.IsKind(err, freshet.KindPermission) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	// A name that was let through is checked again when it is dialled.
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was dialled") }))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if addrs, err := net.DefaultResolver.LookupHost(t.Context(), host); err == nil && len(addrs) > 0 && strings.HasPrefix(addrs[0], "127.") {
		fs := openAt(t, "http://"+host+":"+u.Port(), nil, nil)
		_, err := fs.Stat(t.Context(), "f")
		wantKind(t, err, freshet.KindPermission)
	}
}

func TestCAFile(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<ListBucketResult></ListBucketResult>")
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // of the handshakes that must fail
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	fs := openAt(t, srv.URL, map[string]string{"ca_file": ca}, []string{"127.0.0.0/8"})
	if _, err := listAll(t.Context(), fs); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	_, err := listAll(t.Context(), openAt(t, srv.URL, nil, []string{"127.0.0.0/8"}))
	wantKind(t, err, freshet.KindUnavailable)
}

// newServer starts a server of the test's own and returns its URL and a way to it.
func newServer(t testing.TB, handler http.HandlerFunc) (string, *http.Transport) {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return srv.URL, transport
}

// pages serves listings of 1,000 keys for ever.
func pages(doc []byte) http.HandlerFunc {
	doc = []byte(strings.Replace(string(doc), "<Key>", "<Key>p/", -1))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(doc)))
		_, _ = w.Write(doc)
	}
}

// BenchmarkList lists pages of 1,000 keys through the whole driver; the CPU time
// of the server, small beside it, is included.
func BenchmarkList(b *testing.B) {
	fs := against(b, pages(listDocument(1000)), nil)
	cpu := cpuTime(b)
	for b.Loop() {
		n := 0
		for _, err := range fs.List(b.Context(), "", ufs.ListOptions{Recursive: true}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n < 1000 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.N)*1000/(cpuTime(b)-cpu).Seconds(), "keys/cpu-s")
}

// cpuTime is the CPU time of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkListBareSDK is the same with the SDK's own parser.
func BenchmarkListBareSDK(b *testing.B) {
	srv := httptest.NewServer(pages(listDocument(1000)))
	b.Cleanup(srv.Close)
	transport := &http.Transport{}
	b.Cleanup(transport.CloseIdleConnections)
	c := awss3.New(awss3.Options{
		BaseEndpoint: &srv.URL, Region: "us-east-1", UsePathStyle: true, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""),
	})
	cpu := cpuTime(b)
	for b.Loop() {
		out, err := c.ListObjectsV2(b.Context(), &awss3.ListObjectsV2Input{Bucket: aws.String("bucket"), Prefix: aws.String("p/")})
		if err != nil || len(out.Contents) != 1000 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/(cpuTime(b)-cpu).Seconds(), "keys/cpu-s")
}

// BenchmarkOpen reads 64 MiB through the driver.
func BenchmarkOpen(b *testing.B) {
	data := content(1, 64*mib)
	fs := against(b, object(data), nil)
	b.SetBytes(int64(len(data)))
	buf := make([]byte, 256<<10)
	for b.Loop() {
		r, _, err := fs.Open(b.Context(), "f", ufs.OpenOptions{Want: fingerprint.S3("e", int64(len(data))), Length: -1})
		if err != nil {
			b.Fatal(err)
		}
		if n := drain(b, r, buf); n != len(data) {
			b.Fatal(n)
		}
	}
}

// BenchmarkOpenBareSDK is the same with the SDK alone.
func BenchmarkOpenBareSDK(b *testing.B) {
	data := content(1, 64*mib)
	srv := httptest.NewServer(object(data))
	b.Cleanup(srv.Close)
	transport := &http.Transport{}
	b.Cleanup(transport.CloseIdleConnections)
	c := awss3.New(awss3.Options{
		BaseEndpoint: &srv.URL, Region: "us-east-1", UsePathStyle: true, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("k", "s", ""),
	})
	b.SetBytes(int64(len(data)))
	buf := make([]byte, 256<<10)
	for b.Loop() {
		out, err := c.GetObject(b.Context(), &awss3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("p/f")})
		if err != nil {
			b.Fatal(err)
		}
		if n := drain(b, out.Body, buf); n != len(data) {
			b.Fatal(n)
		}
	}
}

func object(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

func drain(b *testing.B, r io.ReadCloser, buf []byte) (n int) {
	b.Helper()
	for {
		k, err := r.Read(buf)
		n += k
		if err != nil {
			if !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
			break
		}
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	return n
}
