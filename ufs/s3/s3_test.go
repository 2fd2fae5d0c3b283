package s3_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mount is an FS over a fresh prefix of a test server's bucket.
type mount struct {
	*s3.FS
	srv    *s3test.TestServer
	prefix string // in the bucket, with a slash at the end
}

func options(srv *s3test.TestServer, more map[string]string) map[string]string {
	opts := map[string]string{
		"endpoint": srv.Endpoint, "region": "us-east-1", "access_key": "env:KEY", "secret_key": "env:SECRET",
		"request_timeout": "10s",
	}
	maps.Copy(opts, more)
	return opts
}

func environment(srv *s3test.TestServer) ufs.Environment {
	return ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8"},
		Getenv: func(name string) string {
			return map[string]string{"KEY": srv.AccessKey, "SECRET": srv.SecretKey, "WRONG": "wrong-secret"}[name]
		},
	}
}

func open(t testing.TB, srv *s3test.TestServer, uri string, more map[string]string) *s3.FS {
	t.Helper()
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: uri, Options: options(srv, more)}, environment(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	own, ok := fs.(*s3.FS)
	if !ok {
		t.Fatalf("Open returned a %T", fs)
	}
	return own
}

// newMount opens a fresh prefix with a name that needs escaping.
func newMount(t testing.TB, srv *s3test.TestServer, more map[string]string) mount {
	t.Helper()
	name := "r o+o%t-" + strings.ToLower(rand.Text()[:8])
	uri := ufs.URI{Scheme: "s3", Host: s3test.DefaultBucket, Path: "/" + name}
	return mount{FS: open(t, srv, uri.String(), more), srv: srv, prefix: name + "/"}
}

// again opens the same prefix with other options, as another process would.
func (m mount) again(t testing.TB, more map[string]string) *s3.FS {
	t.Helper()
	uri := ufs.URI{Scheme: "s3", Host: s3test.DefaultBucket, Path: "/" + strings.TrimSuffix(m.prefix, "/")}
	return open(t, m.srv, uri.String(), more)
}

// client is the bare SDK: another program.
func client(srv *s3test.TestServer) *awss3.Client {
	return awss3.New(awss3.Options{
		BaseEndpoint: &srv.Endpoint, Region: "us-east-1", UsePathStyle: true, HTTPClient: srv.HTTPClient(),
		Credentials:                credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
}

// unfinished returns the multipart uploads below prefix that have not ended.
func unfinished(bare *awss3.Client, prefix string) ([]string, error) {
	out, err := bare.ListMultipartUploads(context.Background(), &awss3.ListMultipartUploadsInput{
		Bucket: aws.String(s3test.DefaultBucket), Prefix: &prefix,
	})
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == "NoSuchUpload" {
		return nil, nil // so gofakes3 says that there were never any
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, u := range out.Uploads {
		keys = append(keys, aws.ToString(u.Key))
	}
	return keys, nil
}

func conformance(t *testing.T, srv *s3test.TestServer, exceptions map[string]string) {
	var mu sync.Mutex
	prefixes := map[ufs.FS]string{}
	prefixOf := func(fs ufs.FS) string {
		mu.Lock()
		defer mu.Unlock()
		return prefixes[fs]
	}
	bare := client(srv)
	ufstest.Run(t, ufstest.Harness{
		New: func(t *testing.T) ufs.FS {
			m := newMount(t, srv, map[string]string{"part_size": "5MiB"})
			mu.Lock()
			defer mu.Unlock()
			prefixes[m.FS] = m.prefix
			return m.FS
		},
		Again: func(t *testing.T, fs ufs.FS) ufs.FS {
			uri := ufs.URI{Scheme: "s3", Host: s3test.DefaultBucket, Path: "/" + strings.TrimSuffix(prefixOf(fs), "/")}
			return open(t, srv, uri.String(), map[string]string{"part_size": "5MiB"})
		},
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside {
			prefix := prefixOf(fs)
			return ufstest.Outside{
				Put: func(key string, data []byte) error {
					_, err := bare.PutObject(context.Background(), &awss3.PutObjectInput{
						Bucket: aws.String(s3test.DefaultBucket), Key: aws.String(prefix + key), Body: strings.NewReader(string(data)),
					})
					return err
				},
				Remove: func(key string) error {
					_, err := bare.DeleteObject(context.Background(), &awss3.DeleteObjectInput{
						Bucket: aws.String(s3test.DefaultBucket), Key: aws.String(prefix + key),
					})
					return err
				},
				Leftovers: func() ([]string, error) { return unfinished(bare, prefix) },
			}
		},
		Throttled: func(t *testing.T) ufs.FS {
			return against(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
			}, map[string]string{"retries": "0"})
		},
		Stalled: func(t *testing.T) ufs.FS {
			silent := make(chan struct{})
			fs := against(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the client go
				select {
				case <-r.Context().Done():
				case <-silent:
				}
			}, map[string]string{"request_timeout": "1m", "retries": "0"})
			t.Cleanup(func() { close(silent) }) // before the server waits for its handlers
			return fs
		},
		Many: 10_000,
		Denied: func(t *testing.T) ufs.FS {
			return open(t, srv, "s3://"+s3test.DefaultBucket+"/denied", map[string]string{"secret_key": "env:WRONG", "retries": "0"})
		},
		Down: func(t *testing.T) ufs.FS {
			return open(t, srv, "s3://"+s3test.DefaultBucket+"/down", map[string]string{"endpoint": "http://127.0.0.1:1", "retries": "0"})
		},
		Large:      11<<20 + 12345,
		Exceptions: exceptions,
	})
}

func TestConformanceVersityGW(t *testing.T) {
	conformance(t, s3test.Start(t, s3test.Options{}), map[string]string{
		"list/empty-segments":     "the gateway keeps objects in a directory tree, where no name is empty",
		"list/file-beside-prefix": "the gateway keeps objects in a directory tree, where a can't be a file and a directory",
	})
}

func TestConformanceGoFakeS3(t *testing.T) {
	conformance(t, s3test.Start(t, s3test.Options{Engine: s3test.GoFakeS3}), map[string]string{
		"failure/denied-is-not-absent": "the server checks no signature",
		"create/if-absent":             "the server ignores If-None-Match of CompleteMultipartUpload",
		"fingerprint/one-truth":        "the server answers CompleteMultipartUpload with another ETag than it gives the object",
	})
}

func TestHTTPFaults(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	bare := client(srv)
	var prefixes sync.Map
	ufstest.HTTPFaults(t, ufstest.HTTPHarness{
		Target: srv.Endpoint, KeepHost: true, Large: 6<<20 + 12345,
		New: func(t *testing.T, endpoint string) ufs.FS {
			m := newMount(t, srv, map[string]string{"endpoint": endpoint, "retries": "0", "request_timeout": "3s", "part_size": "5MiB"})
			prefixes.Store(ufs.FS(m.FS), m.prefix)
			return m.FS
		},
		// An upload that had no mark yet when its storage failed can't be told from
		// another program's: it is ended with the operator's consent.
		Leftovers: func(fs ufs.FS) ([]string, error) {
			own := fs.(*s3.FS) //nolint:forcetypeassert // made by New
			own.SetNow(func() time.Time { return time.Now().Add(48 * time.Hour) })
			own.SetForeign(time.Hour)
			if _, err := own.CleanUploads(t.Context(), time.Hour); err != nil {
				return nil, err
			}
			prefix, _ := prefixes.Load(fs)
			return unfinished(bare, prefix.(string)) //nolint:forcetypeassert // stored by New
		},
	})
}
