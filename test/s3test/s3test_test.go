package s3test_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/s3test"
)

// launchOnly has the test program start a server, say so and wait to be killed.
const launchOnly = "S3TEST_LAUNCH_ONLY"

func TestMain(m *testing.M) {
	if os.Getenv(launchOnly) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	srv, err := s3test.Launch(context.Background(), s3test.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(srv.Endpoint)
	select {}
}

// A parent that is killed takes the server with it.
func TestServerDiesWithItsParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), launchOnly+"=1", "TMPDIR="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, found := strings.CutPrefix(strings.TrimSpace(line), "http://")
	if err := errors.Join(err, parent.Process.Kill()); err != nil || !found {
		t.Fatalf("parent said %q: %v", line, err)
	}
	_ = parent.Wait() // killed
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

const (
	bucket  = s3test.DefaultBucket
	patient = 20 * time.Second
)

// newClient returns a client that makes one attempt only, so that each fault shows.
func newClient(t *testing.T, srv *s3test.TestServer, change func(*s3.Options)) *s3.Client {
	t.Helper()
	hc := srv.HTTPClient()
	t.Cleanup(hc.CloseIdleConnections)
	o := s3.Options{
		BaseEndpoint: aws.String(srv.Endpoint), Region: "us-east-1", UsePathStyle: true, HTTPClient: hc,
		Credentials:      credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
		RetryMaxAttempts: 1,
	}
	if change != nil {
		change(&o)
	}
	return s3.New(o)
}

func put(ctx context.Context, c *s3.Client, key, body string) (string, error) {
	out, err := c.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(bucket), Key: aws.String(key), Body: strings.NewReader(body),
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

func get(ctx context.Context, c *s3.Client, key string) (string, error) {
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	return string(b), err
}

func mustPut(t *testing.T, c *s3.Client, key, body string) string {
	t.Helper()
	etag, err := put(t.Context(), c, key, body)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return etag
}

func wantObject(t *testing.T, c *s3.Client, key, want string) {
	t.Helper()
	got, err := get(t.Context(), c, key)
	if err != nil || got != want {
		t.Fatalf("get %s = %.40q, %v; want %.40q", key, got, err, want)
	}
}

// wantCode demands an S3 error answer. An empty code means: no answer at all.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	switch {
	case err == nil:
		t.Fatalf("no error, want %q", code)
	case !errors.As(err, &api):
		if code != "" {
			t.Fatalf("%v, want %q", err, code)
		}
	case api.ErrorCode() != code:
		t.Fatalf("code %q (%v), want %q", api.ErrorCode(), err, code)
	}
}

func TestOperations(t *testing.T) {
	for _, engine := range []s3test.Engine{s3test.VersityGW, s3test.GoFakeS3} {
		t.Run(string(engine), func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{Engine: engine})
			c := newClient(t, srv, nil)
			ctx := t.Context()
			etag := mustPut(t, c, "dir/odd name+ü&=?#%", "v1")
			mustPut(t, c, "dir/b", "v1")
			wantObject(t, c, "dir/odd name+ü&=?#%", "v1")
			_, err := c.PutObject(ctx, &s3.PutObjectInput{
				Bucket: aws.String(bucket), Key: aws.String("dir/b"), Body: strings.NewReader("v2"), IfNoneMatch: aws.String("*"),
			})
			wantCode(t, err, "PreconditionFailed")
			wantObject(t, c, "dir/b", "v1")
			_, err = c.PutObject(ctx, &s3.PutObjectInput{
				Bucket: aws.String(bucket), Key: aws.String("dir/b"), Body: strings.NewReader("v3"), IfMatch: aws.String(etag),
			})
			if err != nil {
				t.Fatalf("put with the right If-Match: %v", err)
			}
			list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String("dir/")})
			if err != nil || len(list.Contents) != 2 || aws.ToString(list.Contents[1].ETag) != etag {
				t.Fatalf("list = %+v, %v", list, err)
			}
			multipart(t, c)
			for op, want := range map[string]int{
				"PutObject": 4, "GetObject": 4, "HeadObject": 1, "ListObjectsV2": 1, "CreateMultipartUpload": 1, "UploadPart": 2,
				"CompleteMultipartUpload": 1, "AbortMultipartUpload": 0, "DeleteObject": 0,
			} {
				if got := srv.Counts().ByOp[op]; got != want {
					t.Errorf("%d %s counted, want %d: %+v", got, op, want, srv.Requests())
				}
			}
			srv.ResetCounts()
			if got := srv.Counts(); got.Total != 0 || len(got.ByOp) != 0 {
				t.Errorf("after reset: %+v", got)
			}
			_, err = c.GetObject(ctx, &s3.GetObjectInput{
				Bucket: aws.String(bucket), Key: aws.String("multi"), Range: aws.String("bytes=10-19"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := srv.Counts().BytesOut["GetObject"]; got != 10 {
				t.Errorf("range of 10 bytes counted as %d", got)
			}
		})
	}
}

func multipart(t *testing.T, c *s3.Client) {
	t.Helper()
	ctx, key := t.Context(), aws.String("multi")
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(bucket), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{strings.Repeat("x", 5<<20), "end"}
	var done types.CompletedMultipartUpload
	for i, body := range parts {
		n := aws.Int32(int32(i + 1))
		out, err := c.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: aws.String(bucket), Key: key, UploadId: up.UploadId, PartNumber: n, Body: strings.NewReader(body),
		})
		if err != nil {
			t.Fatal(err)
		}
		done.Parts = append(done.Parts, types.CompletedPart{ETag: out.ETag, PartNumber: n})
	}
	out, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(bucket), Key: key, UploadId: up.UploadId, MultipartUpload: &done,
	})
	if err != nil || !strings.HasSuffix(aws.ToString(out.ETag), `-2"`) {
		t.Fatalf("complete: %+v, %v", out, err)
	}
	wantObject(t, c, "multi", parts[0]+parts[1])
	if _, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: key}); err != nil {
		t.Fatal(err)
	}
	_, err = get(ctx, c, "missing")
	wantCode(t, err, "NoSuchKey")
}

func TestFaults(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	c := newClient(t, srv, nil)
	big := strings.Repeat("freshet ", 1<<17)
	mustPut(t, c, "f/big", big)
	tests := []struct {
		name string
		rule s3test.Rule
		do   func(t *testing.T)
	}{
		{"status answers without effect", s3test.Rule{Op: "PutObject", Action: s3test.ActionStatus, Times: 1}, func(t *testing.T) {
			_, err := put(t.Context(), c, "f/status", big)
			wantCode(t, err, "SlowDown")
			_, err = get(t.Context(), c, "f/status")
			wantCode(t, err, "NoSuchKey")
			mustPut(t, c, "f/status", "later") // Times is over
		}},
		{"status of choice", s3test.Rule{Op: "*", Action: s3test.ActionStatus, Status: 500, Code: "Odd", KeyPrefix: "f/"}, func(t *testing.T) {
			_, err := get(t.Context(), c, "f/big")
			wantCode(t, err, "Odd")
			mustPut(t, c, "g", "another prefix is let through")
		}},
		{"reset has no effect", s3test.Rule{Op: "PutObject", Action: s3test.ActionReset, Times: 1}, func(t *testing.T) {
			_, err := put(t.Context(), c, "f/reset", "x")
			wantCode(t, err, "")
			_, err = get(t.Context(), c, "f/reset")
			wantCode(t, err, "NoSuchKey")
		}},
		{"stall lasts until the client leaves", s3test.Rule{Op: "PutObject", Action: s3test.ActionStall, Times: 1}, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := put(ctx, c, "f/stall", "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("error %v, want the deadline's", err)
			}
			_, err := get(t.Context(), c, "f/stall")
			wantCode(t, err, "NoSuchKey")
		}},
		{"delay", s3test.Rule{Op: "GetObject", Action: s3test.ActionDelay, DelayMs: 60}, func(t *testing.T) {
			start := time.Now()
			wantObject(t, c, "f/big", big)
			if d := time.Since(start); d < 60*time.Millisecond {
				t.Errorf("answered after %s", d)
			}
		}},
		{"drop_response takes effect", s3test.Rule{Op: "PutObject", Action: s3test.ActionDropResponse, Times: 1}, func(t *testing.T) {
			_, err := put(t.Context(), c, "f/drop", "landed")
			wantCode(t, err, "")
			wantObject(t, c, "f/drop", "landed")
		}},
		{"short_body", s3test.Rule{Op: "GetObject", Action: s3test.ActionShortBody, Times: 1}, func(t *testing.T) {
			got, err := get(t.Context(), c, "f/big")
			if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != len(big)/2 {
				t.Fatalf("%d bytes, error %v; want %d and an unexpected EOF", len(got), err, len(big)/2)
			}
			wantObject(t, c, "f/big", big)
		}},
		{"after lets some pass", s3test.Rule{Op: "HeadObject", Action: s3test.ActionStatus, Status: 503, After: 2}, func(t *testing.T) {
			var failed []int
			for i := range 4 {
				if _, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String("f/big")}); err != nil {
					failed = append(failed, i)
				}
			}
			if fmt.Sprint(failed) != "[2 3]" {
				t.Errorf("failed: %v", failed)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv.AddFault(tt.rule)
			defer srv.ClearFaults()
			tt.do(t)
			if f := srv.Faults(); f[0].Hits == 0 {
				t.Errorf("the rule never acted: %+v", f)
			}
		})
	}
	if err := srv.Server.AddFault(s3test.Rule{Op: "PutObjekt", Action: s3test.ActionReset}); err == nil {
		t.Error("a rule for an unknown operation was accepted")
	}
}

// A PUT that the client gave up lands after its retry succeeded.
func TestHeldPutLandsLate(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	c := newClient(t, srv, nil)
	srv.AddFault(s3test.Rule{Op: "PutObject", KeyPrefix: "late", Action: s3test.ActionHold, Times: 2})
	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := put(ctx, c, "late", "from the first attempt")
		first <- err
	}()
	held := srv.WaitHeld(1, patient)
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("first attempt: %v", err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), c, "late", "never lands")
		second <- err
	}()
	both := srv.WaitHeld(2, patient)
	srv.Discard(both[1].ID)
	wantCode(t, <-second, "")
	mustPut(t, c, "late", "retry")
	wantObject(t, c, "late", "retry")
	released := srv.Release(held[0].ID)
	if len(released) != 1 || released[0].Status != http.StatusOK || released[0].ETag == "" {
		t.Fatalf("released: %+v", released)
	}
	wantObject(t, c, "late", "from the first attempt")
	if left := srv.Held(); len(left) != 0 {
		t.Errorf("still held: %+v", left)
	}
	if _, err := srv.Server.Release("99"); err == nil {
		t.Error("release of an unknown id succeeded")
	}
}

func TestDownAndRestart(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	c := newClient(t, srv, nil)
	etag := mustPut(t, c, "kept", "body")
	srv.Down()
	_, err := get(t.Context(), c, "kept")
	wantCode(t, err, "")
	srv.Up()
	wantObject(t, c, "kept", "body")

	endpoint, control := srv.Endpoint, srv.Control
	srv.Restart()
	if srv.Endpoint != endpoint || srv.Control != control {
		t.Errorf("restart moved to %s, %s", srv.Endpoint, srv.Control)
	}
	wantObject(t, c, "kept", "body")
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String("kept")})
	if err != nil || aws.ToString(head.ETag) != etag {
		t.Fatalf("head after restart: %+v, %v; want ETag %s", head, err, etag)
	}
}

// A request in work is cut when the server goes down.
func TestDownResetsOpenRequests(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	c := newClient(t, srv, nil)
	srv.AddFault(s3test.Rule{Op: "PutObject", Action: s3test.ActionHold})
	failed := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), c, "open", "body")
		failed <- err
	}()
	srv.WaitHeld(1, patient)
	srv.Down()
	wantCode(t, <-failed, "")
	srv.ClearFaults()
	srv.Release(s3test.AllHeld)
	srv.Up()
	wantObject(t, c, "open", "body")
}

func TestVirtualHostStyle(t *testing.T) {
	for _, engine := range []s3test.Engine{s3test.VersityGW, s3test.GoFakeS3} {
		t.Run(string(engine), func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{Engine: engine})
			path := newClient(t, srv, nil)
			host := newClient(t, srv, func(o *s3.Options) {
				o.UsePathStyle, o.BaseEndpoint = false, aws.String(srv.VirtualHostEndpoint())
			})
			mustPut(t, host, "v/ü b", "by host")
			wantObject(t, path, "v/ü b", "by host")
			mustPut(t, path, "p", "by path")
			wantObject(t, host, "p", "by path")
			// As a process with HTTP_PROXY=Endpoint does.
			endpoint, err := url.Parse(srv.Endpoint)
			if err != nil {
				t.Fatal(err)
			}
			proxied := &http.Transport{Proxy: http.ProxyURL(endpoint)}
			defer proxied.CloseIdleConnections()
			wantObject(t, newClient(t, srv, func(o *s3.Options) {
				o.UsePathStyle, o.BaseEndpoint = false, aws.String(srv.VirtualHostEndpoint())
				o.HTTPClient = &http.Client{Transport: proxied}
			}), "p", "by path")
			list, err := host.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String("v/")})
			if err != nil || len(list.Contents) != 1 {
				t.Fatalf("list = %+v, %v", list, err)
			}
			if got := srv.Counts().ByOp["PutObject"]; got != 2 {
				t.Errorf("%d puts counted: %+v", got, srv.Requests())
			}
		})
	}
}

func TestWrongSecretIsRefused(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	c := newClient(t, srv, func(o *s3.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider(srv.AccessKey, "wrong-secret", "")
	})
	_, err := put(t.Context(), c, "k", "x")
	wantCode(t, err, "SignatureDoesNotMatch")
}

func TestNewBucket(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{Buckets: []string{}})
	c := newClient(t, srv, nil)
	_, err := put(t.Context(), c, "k", "x")
	wantCode(t, err, "NoSuchBucket")
	srv.NewBucket(bucket)
	srv.NewBucket(bucket) // again: nothing happens
	mustPut(t, c, "k", "x")
	if err := srv.Server.NewBucket("NO"); err == nil {
		t.Error("a bad name was accepted")
	}
}

func TestLaunchReportsWhyItFailed(t *testing.T) {
	var log bytes.Buffer
	_, err := s3test.Launch(t.Context(), s3test.Options{Engine: "no-such-engine", Log: &log})
	if err == nil || !strings.Contains(err.Error(), "no-such-engine") {
		t.Fatalf("error %v does not name the cause", err)
	}
}
