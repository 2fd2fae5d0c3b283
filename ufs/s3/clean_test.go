package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// begin starts an upload of another program.
func begin(t *testing.T, bare *awss3.Client, key string, parts map[int32]int) string {
	t.Helper()
	up, err := bare.CreateMultipartUpload(t.Context(), &awss3.CreateMultipartUploadInput{Bucket: aws.String(s3test.DefaultBucket), Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	for n, size := range parts {
		if _, err := bare.UploadPart(t.Context(), &awss3.UploadPartInput{
			Bucket: aws.String(s3test.DefaultBucket), Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(n), Body: bytes.NewReader(make([]byte, size)),
		}); err != nil {
			t.Fatal(err)
		}
	}
	return *up.UploadId
}

// abandon starts an upload as a process does that then dies.
func abandon(t *testing.T, fs ufs.FS, key string, op freshet.OpID) ufs.Writer {
	t.Helper()
	w, err := fs.Create(t.Context(), key, ufs.CreateOptions{Op: op, Size: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	return w
}

// The cleaner ends our abandoned uploads, below its root, when they are old, and
// leaves alone those that are under way and those of other programs.
func TestCleanUploads(t *testing.T) {
	for _, engine := range []s3test.Engine{s3test.VersityGW, s3test.GoFakeS3} {
		t.Run(string(engine), func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{Engine: engine})
			m := newMount(t, srv, nil)
			dead, outside, cleaner := m.again(t, nil), newMount(t, srv, nil), m.again(t, nil)
			bare := client(srv)
			abandon(t, dead, "d/a b+c", opID(1))
			abandon(t, dead, "f", opID(2))
			abandon(t, outside, "f", opID(3))
			alive := abandon(t, cleaner, "alive", opID(4)) // of the cleaner's own process
			waitParts(t, m, 4)
			object := m.prefix + "foreign"
			foreign := []string{
				begin(t, bare, object, nil),
				begin(t, bare, object, map[int32]int{1: 100}),
				begin(t, bare, object, map[int32]int{1: 5 * mib, 10000: s3.TagSize(object) + 1}),
				begin(t, bare, object, map[int32]int{9995: 5 * mib, 10000: s3.TagSize(object)}),
			}
			if n, err := cleaner.CleanUploads(t.Context(), 0); err != nil || n != 0 {
				t.Errorf("uploads of a moment ago: %d ended, %v", n, err)
			}
			cleaner.SetNow(func() time.Time { return time.Now().Add(48 * time.Hour) })
			if n, err := cleaner.CleanUploads(t.Context(), 72*time.Hour); err != nil || n != 0 {
				t.Errorf("uploads that are not old enough: %d ended, %v", n, err)
			}
			if n, err := cleaner.CleanUploads(t.Context(), 24*time.Hour); err != nil || n != 2 {
				t.Errorf("%d ended, %v, want 2", n, err)
			}
			if n := uploadsLeft(t, m); n != 1+len(foreign) {
				t.Errorf("%d uploads left, want the living and %d foreign ones", n, len(foreign))
			}
			if n := uploadsLeft(t, outside); n != 1 {
				t.Errorf("%d uploads left outside of the root, want 1", n)
			}
			if _, err := alive.Commit(t.Context()); err != nil {
				t.Errorf("the living upload: %v", err)
			}
			consent := m.again(t, map[string]string{"clean_untagged_after": "36h"})
			if n, err := consent.CleanUploads(t.Context(), 0); err != nil || n != 0 {
				t.Errorf("foreign uploads of a moment ago: %d ended, %v", n, err)
			}
			consent.SetNow(func() time.Time { return time.Now().Add(48 * time.Hour) })
			if n, err := consent.CleanUploads(t.Context(), 0); err != nil || n != len(foreign) || uploadsLeft(t, m) != 0 {
				t.Errorf("with the operator's consent: %d ended, %v, %d left", n, err, uploadsLeft(t, m))
			}
		})
	}
}

// Uploads are counted as idle from their last part, and found on every page.
func TestCleanUploadsPagesAndActivity(t *testing.T) {
	t.Parallel()
	now := time.Now()
	day := 24 * time.Hour
	at := func(age time.Duration) string { return now.Add(-age).UTC().Format(time.RFC3339) }
	upload := func(key string, age time.Duration) string {
		return fmt.Sprintf("<Upload><Key>p/%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", key, key, at(age))
	}
	aborted := map[string]bool{}
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		id, key := q.Get("uploadId"), strings.TrimPrefix(r.URL.Path, "/bucket/")
		switch {
		case r.Method == http.MethodDelete:
			aborted[id] = true
			w.WriteHeader(http.StatusNoContent)
		case q.Has("uploads") && q.Get("key-marker") == "":
			_, _ = io.WriteString(w, "<ListMultipartUploadsResult>"+upload("active", 9*day)+upload("idle", 9*day)+
				"<IsTruncated>true</IsTruncated><NextKeyMarker>p/idle</NextKeyMarker><NextUploadIdMarker>idle</NextUploadIdMarker></ListMultipartUploadsResult>")
		case q.Has("uploads"):
			_, _ = io.WriteString(w, "<ListMultipartUploadsResult>"+upload("second", 9*day)+upload("young", day/2)+"</ListMultipartUploadsResult>")
		case q.Get("part-number-marker") != "" && q.Get("part-number-marker") != "1000":
			_, _ = fmt.Fprintf(w, "<ListPartsResult><Part><PartNumber>10000</PartNumber><Size>%d</Size><ETag>x</ETag><LastModified>%s</LastModified></Part></ListPartsResult>", s3.TagSize(key), at(9*day))
		case q.Get("part-number-marker") == "1000":
			age := 9 * day
			if id == "active" {
				age = time.Hour
			}
			_, _ = fmt.Fprintf(w, "<ListPartsResult><Part><PartNumber>1001</PartNumber><Size>9</Size><LastModified>%s</LastModified></Part></ListPartsResult>", at(age))
		default:
			_, _ = fmt.Fprintf(w, "<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1000</NextPartNumberMarker><Part><PartNumber>1</PartNumber><Size>9</Size><LastModified>%s</LastModified></Part></ListPartsResult>", at(9*day))
		}
	}, nil)
	c, ok := ufs.AsCleaner(fs)
	if !ok {
		t.Fatal("it is no Cleaner")
	}
	n, err := c.CleanUploads(t.Context(), day)
	if err != nil || n != 2 || !aborted["idle"] || !aborted["second"] {
		t.Errorf("%d ended, %v, %v; want idle and second", n, err, aborted)
	}
}

// Where ETags are no MD5 sums, as under KMS, the operation is told by lengths.
func TestMarkWithoutMD5(t *testing.T) {
	t.Parallel()
	store := newUploads(t)
	fs := against(t, store.serve, nil)
	abandon(t, fs, "f", opID(1))
	store.wait(t, 5) // a mark of five parts
	abandon(t, fs, "f", opID(2))
	store.wait(t, 10)
	other := against(t, store.serve, nil)
	if ended, err := other.AbortUpload(t.Context(), "f", opID(3)); ended || err != nil {
		t.Errorf("an operation that uploads nothing: ended %v, %v", ended, err)
	}
	if ended, err := other.AbortUpload(t.Context(), "f", opID(2)); !ended || err != nil {
		t.Errorf("ended %v, %v", ended, err)
	}
	if left := store.left(); len(left) != 1 || left[0] != "u1" {
		t.Errorf("uploads left: %q", left)
	}
}

// A stream of unknown length needs more parts than there are of the first size:
// they grow, and none is lost.
func TestPartsGrow(t *testing.T) {
	t.Parallel()
	store := newUploads(t)
	fs := against(t, store.serve, map[string]string{"upload_concurrency": "8"})
	const base = 1 << 10
	fs.(*s3.FS).SetPartSize(base)
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Size: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for chunk := content(3, 100_003); total < 11_000*base; total += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	st, err := w.Commit(context.WithoutCancel(t.Context()))
	if err != nil || st.Length != int64(total) {
		t.Fatalf("%+v, %v, want %d bytes", st, err, total)
	}
	got, parts := store.completed("u1")
	want := bytes.Repeat(content(3, 100_003), total/100_003)
	if !bytes.Equal(got, want) || parts > 5000 {
		t.Errorf("%d bytes in %d parts, want %d, the same", len(got), parts, len(want))
	}
}
