package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// goFakeS3 prepares the in-memory server. Its objects end with the process.
func (e *Engine) goFakeS3() func(context.Context) error {
	fake := gofakes3.New(s3mem.New(), gofakes3.WithIntegrityCheck(true))
	srv := &http.Server{Handler: bucketFromHost(fake.Server())}
	return func(ctx context.Context) error {
		if e.address[0] != '@' {
			_ = os.Remove(e.address) // left over by a killed predecessor
		}
		ln, err := net.Listen(e.network, e.address)
		if err != nil {
			return fmt.Errorf("engine socket: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// bucketFromHost turns BUCKET.localhost[:port]/key into /BUCKET/key. The server's
// own option compares the host with its port included and so never matches here.
// It checks no signature, so the path may be rewritten.
func bucketFromHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if bucket, ok := strings.CutSuffix(host, "."+VirtualDomain); ok && bucket != "" {
			u := *r.URL
			u.Path = "/" + bucket + r.URL.Path
			if r.URL.RawPath != "" {
				u.RawPath = "/" + url.PathEscape(bucket) + r.URL.RawPath
			}
			r = r.Clone(r.Context())
			r.URL = &u
		}
		next.ServeHTTP(w, r)
	})
}
