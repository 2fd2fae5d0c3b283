package gcs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/storage"
	"go.uber.org/goleak"
	"google.golang.org/api/option"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/gcstest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/gcs"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(child.Main{M: m, Stop: gcstest.StopShared},
		// Started by a package that the SDK imports.
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

func open(t testing.TB, uri, endpoint string, log *slog.Logger, more map[string]string) ufs.FS {
	t.Helper()
	options := map[string]string{"endpoint": endpoint, "credentials": "anonymous", "part_size": "256KiB", "request_timeout": "10s"}
	maps.Copy(options, more)
	fs, err := gcs.NewOpener(gcs.Options{Log: log}).Open(ufs.Spec{URI: uri, Options: options}, ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// bare is the SDK itself: another program.
func bare(t testing.TB, endpoint string) *storage.Client {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	c, err := storage.NewClient(t.Context(), option.WithEndpoint(endpoint+"/storage/v1/"), option.WithHTTPClient(hc), storage.WithJSONReads(), option.WithTelemetryDisabled())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func put(ctx context.Context, o *storage.ObjectHandle, data []byte) error {
	w := o.NewWriter(ctx)
	w.ChunkSize = 0
	_, err := w.Write(data)
	return errors.Join(err, w.Close())
}

// warnings counts what is logged.
type warnings struct {
	mu sync.Mutex
	n  int
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return len(p), nil
}

func (w *warnings) any() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.n
	w.n = 0
	return n > 0
}

// answering returns an FS whose storage answers every call with status, or never
// if that is 0.
func answering(t *testing.T, status int) ufs.FS {
	t.Helper()
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status == 0 {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
			return
		}
		http.Error(w, `{"error":{"code":`+http.StatusText(status)+`}}`, status)
	}))
	t.Cleanup(func() { close(stop); srv.Close() })
	return open(t, "gs://bucket", srv.URL, nil, nil)
}

func TestConformance(t *testing.T) {
	srv := gcstest.Shared(t)
	client := bare(t, srv.Endpoint())
	type place struct {
		uri  string
		api  *storage.BucketHandle
		seen *warnings
	}
	var places sync.Map
	at := func(fs ufs.FS) place {
		p, _ := places.Load(fs)
		return p.(place) //nolint:forcetypeassert // stored by New
	}
	const prefix = "r o+o%t ü"
	ufstest.Run(t, ufstest.Harness{
		Many: 2000,
		New: func(t *testing.T) ufs.FS {
			bucket := srv.NewBucket(t)
			p := place{uri: (ufs.URI{Scheme: "gs", Host: bucket, Path: "/" + prefix}).String(), api: client.Bucket(bucket), seen: &warnings{}}
			fs := open(t, p.uri, srv.Endpoint(), slog.New(slog.NewTextHandler(p.seen, &slog.HandlerOptions{Level: slog.LevelWarn})), nil)
			places.Store(fs, p)
			return fs
		},
		Again: func(t *testing.T, fs ufs.FS) ufs.FS { return open(t, at(fs).uri, srv.Endpoint(), nil, nil) },
		Outside: func(t *testing.T, fs ufs.FS) ufstest.Outside {
			p := at(fs)
			o := func(key string) *storage.ObjectHandle { return p.api.Object(prefix + "/" + key) }
			return ufstest.Outside{
				Put:    func(key string, data []byte) error { return put(t.Context(), o(key), data) },
				Remove: func(key string) error { return o(key).Delete(t.Context()) },
				Touch: func(key string) error {
					_, err := o(key).Update(t.Context(), storage.ObjectAttrsToUpdate{Metadata: map[string]string{"touched": "yes"}})
					return err
				},
				Warned: p.seen.any,
			}
		},
		Denied: func(t *testing.T) ufs.FS { return answering(t, http.StatusForbidden) },
		Down: func(t *testing.T) ufs.FS {
			return open(t, "gs://bucket", "http://127.0.0.1:1", nil, nil) // no server gets that port
		},
		Throttled: func(t *testing.T) ufs.FS { return answering(t, http.StatusTooManyRequests) },
		Stalled:   func(t *testing.T) ufs.FS { return answering(t, 0) },
	})
}

func TestAMissingBucketIsNotAnAbsentFile(t *testing.T) {
	srv := gcstest.Shared(t)
	fs := open(t, "gs://no-such-bucket", srv.Endpoint(), nil, nil)
	defer fs.Close()
	_, err := fs.Stat(t.Context(), "f")
	if !freshet.IsKind(err, freshet.KindUnavailable) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("stat: %v", err)
	}
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: 1, Vouched: true})
	if err == nil {
		if _, err = w.Write([]byte("x")); err == nil {
			_, err = w.Commit(t.Context())
		}
		_ = w.Abort(t.Context())
	}
	if !freshet.IsKind(err, freshet.KindUnavailable) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("create: %v", err)
	}
	if err := ufs.Probe(t.Context(), fs); !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("probe: %v", err)
	}
}

func TestCompressedObjectsAreReadAsTheyAre(t *testing.T) {
	srv := gcstest.Shared(t)
	bucket := srv.NewBucket(t)
	o := bare(t, srv.Endpoint()).Bucket(bucket).Object("z")
	w := o.NewWriter(t.Context())
	w.ContentEncoding = "gzip"
	data := bytes.Repeat([]byte{0x1f, 0x8b, 8, 0, 1, 2, 3}, 10)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	fs := open(t, "gs://"+bucket, srv.Endpoint(), nil, nil)
	defer fs.Close()
	r, st, err := fs.Open(t.Context(), "z", ufs.OpenOptions{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), data) || st.Length != int64(len(data)) {
		t.Errorf("%d bytes, status %+v, %v", got.Len(), st, err)
	}
}

func TestHTTPFaults(t *testing.T) {
	srv := gcstest.Shared(t)
	ufstest.HTTPFaults(t, ufstest.HTTPHarness{
		Target: srv.Endpoint(),
		New: func(t *testing.T, endpoint string) ufs.FS {
			return open(t, "gs://"+srv.NewBucket(t)+"/root", endpoint, nil, map[string]string{"request_timeout": "3s"})
		},
	})
}
