package azblob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/azblob"
)

// The benchmarks ask a server that does nothing but answer, so that what is
// measured is the client: ours, and the bare SDK beside it.

const entries = 5000

func listAnswer() string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="data"><Prefix>p/</Prefix><Blobs>`)
	for i := range entries {
		fmt.Fprintf(&b, `<Blob><Name>p/file-%06d</Name><Properties><Creation-Time>Thu, 05 Nov 2026 10:11:12 GMT</Creation-Time>`+
			`<Last-Modified>Thu, 05 Nov 2026 10:11:12 GMT</Last-Modified><Etag>0x8D4BCC2E4835C%04d</Etag><Content-Length>1048576</Content-Length>`+
			`<Content-Type>application/octet-stream</Content-Type><Content-MD5>3Vu9PAqJZeE3uJmAjX0AaA==</Content-MD5><BlobType>BlockBlob</BlobType>`+
			`<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred><LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>`+
			`<ServerEncrypted>true</ServerEncrypted></Properties><Metadata><freshet_op>01000000000070008000000000000001</freshet_op></Metadata></Blob>`, i, i)
	}
	b.WriteString(`</Blobs><NextMarker /></EnumerationResults>`)
	return b.String()
}

func answering(b *testing.B, data []byte) string {
	b.Helper()
	list := listAnswer()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("ETag", `"0x8D4BCC2E4835CD0"`)
		switch {
		case r.URL.Query().Get("comp") == "list":
			h.Set("Content-Type", "application/xml")
			_, _ = io.WriteString(w, list)
		case r.Method == http.MethodGet:
			r.Header.Set("Range", r.Header.Get("X-Ms-Range"))
			http.ServeContent(w, r, "", time.Now(), bytes.NewReader(data))
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			h.Set("Last-Modified", "Thu, 05 Nov 2026 10:11:12 GMT")
			w.WriteHeader(http.StatusCreated)
		}
	}))
	b.Cleanup(srv.Close)
	return srv.URL
}

func ours(b *testing.B, endpoint string) ufs.FS {
	b.Helper()
	env := ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}, Getenv: func(string) string { return "c2VjcmV0" }}
	fs, err := azblob.NewOpener(azblob.Options{}).Open(ufs.Spec{URI: "abfs://data@acct/p", Options: map[string]string{"endpoint": endpoint, "account_key": "env:K"}}, env)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = fs.Close() })
	return fs
}

func theirs(b *testing.B, endpoint string) *container.Client {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	b.Cleanup(transport.CloseIdleConnections)
	key, err := container.NewSharedKeyCredential("acct", "c2VjcmV0")
	if err != nil {
		b.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(endpoint+"/data", key, &container.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkRead(b *testing.B) {
	data := content(1, 64*mib)
	endpoint := answering(b, data)
	const from, n = 1000, 8 * mib
	buf := make([]byte, 256<<10)
	drain := func(b *testing.B, r io.ReadCloser) {
		b.Helper()
		if k, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); err != nil || k != n {
			b.Fatal(k, err)
		}
		_ = r.Close()
	}
	b.Run("driver", func(b *testing.B) {
		fs := ours(b, endpoint)
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			r, _, err := fs.Open(b.Context(), "f", ufs.OpenOptions{Offset: from, Length: n})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, r)
		}
	})
	b.Run("sdk", func(b *testing.B) {
		c := theirs(b, endpoint).NewBlobClient("p/f")
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			out, err := c.DownloadStream(b.Context(), &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: from, Count: n}})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, out.Body)
		}
	})
}

func BenchmarkUpload(b *testing.B) {
	data := content(1, 32*mib)
	endpoint := answering(b, nil)
	for _, size := range []int{64 << 10, len(data)} {
		b.Run(fmt.Sprintf("driver/%dKiB", size>>10), func(b *testing.B) {
			fs := ours(b, endpoint)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := write(b.Context(), fs, "f", data[:size], ufs.CreateOptions{Vouched: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("sdk/%dKiB", size>>10), func(b *testing.B) {
			c := theirs(b, endpoint).NewBlockBlobClient("p/f")
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.UploadStream(b.Context(), bytes.NewReader(data[:size]), &blockblob.UploadStreamOptions{BlockSize: 8 * mib, Concurrency: 4}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	endpoint := answering(b, nil)
	b.Run("driver", func(b *testing.B) {
		fs := ours(b, endpoint)
		b.ReportAllocs()
		for b.Loop() {
			if got, err := names(b.Context(), fs, "", ufs.ListOptions{}); err != nil || len(got) != entries {
				b.Fatal(len(got), err)
			}
		}
		b.ReportMetric(float64(b.N)*entries/b.Elapsed().Seconds(), "entries/s")
	})
	b.Run("sdk", func(b *testing.B) {
		c, prefix := theirs(b, endpoint), "p/"
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for pager := c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix}); pager.More(); {
				p, err := pager.NextPage(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				n += len(p.Segment.BlobItems)
			}
			if n != entries {
				b.Fatal(n)
			}
		}
		b.ReportMetric(float64(b.N)*entries/b.Elapsed().Seconds(), "entries/s")
	})
}
