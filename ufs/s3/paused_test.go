package s3_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// pausedContext is how a context looks to a process that was paused beyond its
// deadline and has just woken up: no timer has fired yet.
type pausedContext struct {
	context.Context
	late *atomic.Bool
}

func (c pausedContext) Deadline() (time.Time, bool) {
	if c.late.Load() {
		return time.Now().Add(-time.Minute), true
	}
	return time.Now().Add(time.Hour), true
}

// effectOf names the request if it changes what others see.
func effectOf(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPut && q.Has("partNumber"), r.Method == http.MethodPost && q.Has("uploads"):
		return ""
	case r.Method == http.MethodPut && r.Header.Get("x-amz-copy-source") != "":
		return "CopyObject"
	case r.Method == http.MethodPut:
		return "PutObject"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return ""
	case r.Method == http.MethodDelete:
		return "DeleteObject"
	}
	return ""
}

// answer is what a storage with one object says.
func answer(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
	switch {
	case r.Method == http.MethodHead:
		w.Header().Set("Content-Length", "1")
	case q.Has("uploads"):
		_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
	case q.Has("list-type"):
		_, _ = io.WriteString(w, `<ListBucketResult></ListBucketResult>`)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case effectOf(r) == "CopyObject":
		_, _ = io.WriteString(w, `<CopyObjectResult><ETag>"0123456789abcdef0123456789abcdef"</ETag></CopyObjectResult>`)
	case effectOf(r) == "CompleteMultipartUpload":
		_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"0123456789abcdef0123456789abcdef"</ETag></CompleteMultipartUploadResult>`)
	}
}

// An effect is sent only if its time is not over when it has been signed, whatever
// timers say. Each case is paused while the request before the effect is answered.
func TestC13APausedProcessSendsNoEffect(t *testing.T) {
	t.Parallel()
	put := func(size int) func(context.Context, ufs.FS) error {
		return func(ctx context.Context, fs ufs.FS) error {
			_, err := write(ctx, fs, "f", make([]byte, size), ufs.CreateOptions{Size: int64(size), Vouched: true})
			return err
		}
	}
	for effect, tc := range map[string]struct {
		call   func(context.Context, ufs.FS) error
		before func(*http.Request) bool // the request during which the process is paused
	}{
		"PutObject":               {call: put(10), before: func(r *http.Request) bool { return r.URL.Query().Has("list-type") }},
		"CompleteMultipartUpload": {call: put(100 << 10), before: func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }},
		"DeleteObject": {
			call:   func(ctx context.Context, fs ufs.FS) error { return fs.Remove(ctx, "f", ufs.RemoveOptions{}) },
			before: func(r *http.Request) bool { return r.Method == http.MethodHead },
		},
		"CopyObject": {
			call:   func(ctx context.Context, fs ufs.FS) error { _, err := fs.Rename(ctx, "f", "g"); return err },
			before: func(r *http.Request) bool { return r.URL.Query().Has("list-type") },
		},
	} {
		for _, paused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/paused=%v", effect, paused), func(t *testing.T) {
				var late, arrived atomic.Bool
				fs := against(t, func(w http.ResponseWriter, r *http.Request) {
					if paused && tc.before(r) {
						late.Store(true)
					}
					if effectOf(r) == effect {
						arrived.Store(true)
					}
					_, _ = io.Copy(io.Discard, r.Body)
					answer(w, r)
				}, nil)
				if _, err := listAll(t.Context(), fs); err != nil { // opens the connection
					t.Fatal(err)
				}
				err := tc.call(pausedContext{t.Context(), &late}, fs)
				if arrived.Load() == paused {
					t.Errorf("the storage got the effect: %v", arrived.Load())
				}
				if !paused && err != nil {
					t.Error(err)
				}
				if paused {
					wantKind(t, err, freshet.KindDeadline)
				}
			})
		}
	}
}
