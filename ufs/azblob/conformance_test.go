package azblob_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/test/azuretest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestConformance(t *testing.T) {
	b := newBucket(t)
	var mu sync.Mutex
	roots := map[ufs.FS]string{}
	n := 0
	rootOf := func(fs ufs.FS) string {
		mu.Lock()
		defer mu.Unlock()
		return roots[fs]
	}
	small := map[string]string{"retries": "0"}
	ufstest.Run(t, ufstest.Harness{
		New: func(t *testing.T) ufs.FS {
			mu.Lock()
			defer mu.Unlock()
			n++
			root := fmt.Sprintf("r o+é%%t/%d", n)
			fs := b.open(t, root, nil)
			roots[fs] = root
			return fs
		},
		Again: func(t *testing.T, fs ufs.FS) ufs.FS { return b.open(t, rootOf(fs), nil) },
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside {
			prefix := rootOf(fs) + "/"
			put := func(key string, data []byte) error {
				_, err := b.api.NewBlockBlobClient(prefix+key).Upload(context.Background(), streaming.NopCloser(bytes.NewReader(data)), nil)
				return err
			}
			return ufstest.Outside{
				Put: put,
				PutMany: func(keys []string) error {
					var group errgroup.Group
					group.SetLimit(8)
					for _, key := range keys {
						group.Go(func() error { return put(key, []byte("x")) })
					}
					return group.Wait()
				},
				Remove: func(key string) error {
					_, err := b.api.NewBlobClient(prefix+key).Delete(context.Background(), nil)
					return err
				},
			}
		},
		Denied: func(t *testing.T) ufs.FS { // a signature that lets in for nothing but tags
			return b.withSAS(t, "denied", sas.ContainerPermissions{Tag: true}, time.Hour, small)
		},
		Down: func(t *testing.T) ufs.FS {
			return b.open(t, "down", map[string]string{"endpoint": "http://127.0.0.1:1/" + b.account, "retries": "0"})
		},
		Throttled: func(t *testing.T) ufs.FS {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("x-ms-error-code", "ServerBusy")
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			t.Cleanup(srv.Close)
			return b.open(t, "busy", map[string]string{"endpoint": srv.URL, "retries": "0"})
		},
		Stalled: func(t *testing.T) ufs.FS {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return b.open(t, "silent", map[string]string{"endpoint": "http://" + l.Addr().String(), "retries": "0"})
		},
		Large: 3<<20 + 12345,
		Exceptions: map[string]string{
			"list/odd-names": "Azure takes a backslash for a slash; TestOddNames has all the others",
		},
	})
}

func TestHTTPFaults(t *testing.T) {
	target := strings.TrimSuffix(newBucket(t).endpoint, "/"+azuretest.Account)
	ufstest.HTTPFaults(t, ufstest.HTTPHarness{
		Target: target,
		New: func(t *testing.T, endpoint string) ufs.FS {
			b := newBucket(t)
			return b.open(t, "root", map[string]string{"endpoint": endpoint + "/" + b.account, "retries": "0", "request_timeout": "3s"})
		},
		Large: 3<<20 + 12345,
	})
}
