package gcs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/freshet-io/freshet/ufs"
)

// The benchmarks ask a server that does nothing but answer, so that what is
// measured is the client: ours, and the bare SDK beside it.

const (
	listed = 1000
	mib    = 1 << 20
)

func answerer(b *testing.B, data []byte) string {
	b.Helper()
	item := func(i int) string {
		return fmt.Sprintf(`{"kind":"storage#object","name":"p/file-%06d","bucket":"data","generation":"17%010d","metageneration":"1","size":"1048576","updated":"2026-11-05T10:11:12.123Z"}`, i, i)
	}
	items := make([]string, listed)
	for i := range items {
		items[i] = item(i)
	}
	list := `{"kind":"storage#objects","items":[` + strings.Join(items, ",") + `]}`
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch {
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/o"):
			h.Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, list)
		case r.Method == http.MethodGet:
			h.Set("X-Goog-Generation", "17")
			h.Set("X-Goog-Metageneration", "1")
			http.ServeContent(w, r, "", time.Now(), bytes.NewReader(data))
		case r.URL.Query().Get("uploadType") == "resumable" && r.Method == http.MethodPost:
			h.Set("Location", srv.URL+"/upload?upload_id=1")
		case r.URL.Query().Has("upload_id") && strings.HasSuffix(r.Header.Get("Content-Range"), "/*"):
			_, _ = io.Copy(io.Discard, r.Body)
			h.Set("X-Http-Status-Code-Override", "308")
			h.Set("Range", strings.Replace(strings.TrimSuffix(r.Header.Get("Content-Range"), "/*"), "bytes ", "bytes=", 1))
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, item(1))
		}
	}))
	b.Cleanup(srv.Close)
	return srv.URL
}

func mounted(b *testing.B, endpoint string) ufs.FS {
	b.Helper()
	fs := open(b, "gs://data/p", endpoint, nil, map[string]string{"part_size": "8MiB"})
	b.Cleanup(func() { _ = fs.Close() })
	return fs
}

func drain(b *testing.B, r io.ReadCloser, want int64) {
	b.Helper()
	buf := make([]byte, 256<<10)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
	if err = errors.Join(err, r.Close()); err != nil || n != want {
		b.Fatal(n, err)
	}
}

func BenchmarkRead(b *testing.B) {
	endpoint := answerer(b, bytes.Repeat([]byte("data"), 16*mib))
	const from, n = 1000, 8 * mib
	b.Run("driver", func(b *testing.B) {
		fs := mounted(b, endpoint)
		b.SetBytes(n)
		for b.Loop() {
			r, _, err := fs.Open(b.Context(), "f", ufs.OpenOptions{Offset: from, Length: n})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, r, n)
		}
	})
	b.Run("sdk", func(b *testing.B) {
		o := bare(b, endpoint).Bucket("data").Object("p/f")
		b.SetBytes(n)
		for b.Loop() {
			r, err := o.NewRangeReader(b.Context(), from, n)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, r, n)
		}
	})
}

func BenchmarkUpload(b *testing.B) {
	endpoint := answerer(b, nil)
	data := bytes.Repeat([]byte("data"), 8*mib)
	for _, size := range []int{64 << 10, len(data)} {
		b.Run(fmt.Sprintf("driver/%dKiB", size>>10), func(b *testing.B) {
			fs := mounted(b, endpoint)
			b.SetBytes(int64(size))
			for b.Loop() {
				w, err := fs.Create(b.Context(), "f", ufs.CreateOptions{Size: int64(size), Vouched: true})
				if err == nil {
					if _, err = w.Write(data[:size]); err == nil {
						_, err = w.Commit(b.Context())
					}
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("sdk/%dKiB", size>>10), func(b *testing.B) {
			o := bare(b, endpoint).Bucket("data").Object("p/f")
			b.SetBytes(int64(size))
			for b.Loop() {
				w := o.NewWriter(b.Context())
				w.ChunkSize = 8 * mib
				_, err := w.Write(data[:size])
				if err = errors.Join(err, w.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	endpoint := answerer(b, nil)
	b.Run("driver", func(b *testing.B) {
		fs := mounted(b, endpoint)
		n := 0
		for b.Loop() {
			for _, err := range fs.List(b.Context(), "", ufs.ListOptions{}) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("sdk", func(b *testing.B) {
		api := bare(b, endpoint).Bucket("data")
		n := 0
		for b.Loop() {
			n += count(b.Context(), b, api)
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
	})
}

func count(ctx context.Context, b *testing.B, api *storage.BucketHandle) (n int) {
	b.Helper()
	all := api.Objects(ctx, &storage.Query{Prefix: "p/", Delimiter: "/"})
	for {
		if _, err := all.Next(); errors.Is(err, iterator.Done) {
			return n
		} else if err != nil {
			b.Fatal(err)
		}
		n++
	}
}
