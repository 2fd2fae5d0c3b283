package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// A server that says 200 to everything has not taken a write.
func TestAWriteNeedsAnETag(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, ufs.FS) error{
		"put": func(ctx context.Context, fs ufs.FS) error {
			_, err := write(ctx, fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
			return err
		},
		"completion": func(ctx context.Context, fs ufs.FS) error {
			_, err := write(ctx, fs, "f", make([]byte, 100<<10), ufs.CreateOptions{Vouched: true})
			return err
		},
		"copy": func(ctx context.Context, fs ufs.FS) error { _, err := fs.Rename(ctx, "f", "g"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := against(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch effectOf(r) {
				case "PutObject":
				case "CopyObject":
					_, _ = io.WriteString(w, `<CopyObjectResult></CopyObjectResult>`)
				case "CompleteMultipartUpload":
					_, _ = io.WriteString(w, `<CompleteMultipartUploadResult></CompleteMultipartUploadResult>`)
				default:
					answer(w, r)
				}
			}, nil)
			err := call(t.Context(), fs)
			wantKind(t, err, freshet.KindDeadline)
			if errorsIsNotSent(err) {
				t.Errorf("%v says that it was not sent", err)
			}
		})
	}
}

// A source that is gone when it is copied is another version, not an absent file.
func TestCopyOfWhatIsGone(t *testing.T) {
	t.Parallel()
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		if effectOf(r) == "CopyObject" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
			return
		}
		answer(w, r)
	}, nil)
	_, err := fs.Rename(t.Context(), "f", "g")
	wantKind(t, err, freshet.KindStale)
}

// A part that got no answer may be stored after the upload was ended: it is ended
// until the storage knows nothing of it.
func TestAbortAfterALostPart(t *testing.T) {
	t.Parallel()
	var aborts atomic.Int64
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		q := r.URL.Query()
		switch {
		case q.Get("partNumber") == "1":
			panic(http.ErrAbortHandler)
		case r.Method != http.MethodDelete:
			answer(w, r)
		case aborts.Add(1) == 3:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}, map[string]string{"retries": "0"})
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(make([]byte, 100<<10))
	if err == nil {
		_, err = w.Commit(t.Context())
	}
	wantKind(t, err, freshet.KindUnavailable)
	if err := w.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if n := aborts.Load(); n < 3 {
		t.Errorf("ended %d times", n)
	}
}

// A completion that may have arrived is not made certain by a repetition that was
// not sent.
func TestCompletionThatWasSentOnce(t *testing.T) {
	t.Parallel()
	srv, transport := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if effectOf(r) == "CompleteMultipartUpload" {
			panic(http.ErrAbortHandler)
		}
		answer(w, r)
	})
	fs := openAt(t, srv, map[string]string{"retries": "1"}, []string{"127.0.0.0/8"})
	var completions atomic.Int64
	fs.(*s3.FS).SetTransport(refusing{transport, func(r *http.Request) bool {
		return effectOf(r) == "CompleteMultipartUpload" && completions.Add(1) > 1
	}})
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Op: opID(1), Size: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	_, err = w.Commit(t.Context())
	wantKind(t, err, freshet.KindDeadline)
	if errorsIsNotSent(err) || completions.Load() != 2 {
		t.Errorf("%v after %d completions: not sent is %v", err, completions.Load(), errorsIsNotSent(err))
	}
}

// Of a whole object of unknown length a range is asked for; an empty one has none.
func TestWholeObjectsAreReadByARange(t *testing.T) {
	t.Parallel()
	size := 0
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			return
		}
		if got := r.Header.Get("Range"); got != "bytes=0-" {
			t.Errorf("range %q", got)
		}
		if size == 0 {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			_, _ = io.WriteString(w, "<Error><Code>InvalidRange</Code></Error>")
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", size-1, size))
		w.Header().Set("Content-Length", fmt.Sprint(size/2)) // cut on the way
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, strings.Repeat("x", size/2))
	}, map[string]string{"retries": "0"})
	if got, err := read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1}); err != nil || len(got) != 0 {
		t.Errorf("empty: %d bytes, %v", len(got), err)
	}
	size = 1000
	got, err := read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1})
	if !errors.Is(err, freshet.KindUnavailable) || len(got) != 0 {
		t.Errorf("cut: %d bytes, %v", len(got), err)
	}
}
