package s3test_test

import (
	"bufio"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/freshet-io/freshet/test/s3test"
)

// The tests in this file pin what other tests lean on, and each place where an
// engine deviates from S3, so that an upgrade that changes either is seen here.

func eachEngine(t *testing.T, f func(t *testing.T, engine s3test.Engine, srv *s3test.TestServer, c *s3.Client)) {
	t.Helper()
	for _, engine := range []s3test.Engine{s3test.VersityGW, s3test.GoFakeS3} {
		t.Run(string(engine), func(t *testing.T) {
			srv := s3test.Start(t, s3test.Options{Engine: engine})
			f(t, engine, srv, newClient(t, srv, nil))
		})
	}
}

// code is the S3 error code of err, "" for none.
func code(err error) string {
	var api smithy.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &api):
		return api.ErrorCode()
	default:
		return err.Error()
	}
}

func TestConditionalCreateHasOneWinner(t *testing.T) {
	eachEngine(t, func(t *testing.T, _ s3test.Engine, _ *s3test.TestServer, c *s3.Client) {
		var won, lost atomic.Int32
		var clients sync.WaitGroup
		for i := range 12 {
			clients.Go(func() {
				_, err := c.PutObject(t.Context(), &s3.PutObjectInput{
					Bucket: aws.String(bucket), Key: aws.String("race"), Body: strings.NewReader(fmt.Sprint(i)), IfNoneMatch: aws.String("*"),
				})
				switch code(err) {
				case "":
					won.Add(1)
				case "PreconditionFailed":
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		clients.Wait()
		if won.Load() != 1 || lost.Load() != 11 {
			t.Errorf("%d won, %d lost", won.Load(), lost.Load())
		}
	})
}

// While an object is overwritten, readers get one version whole, with its ETag, and
// never find the object missing.
func TestOverwriteIsAtomic(t *testing.T) {
	eachEngine(t, func(t *testing.T, _ s3test.Engine, _ *s3test.TestServer, c *s3.Client) {
		const key, rounds = "o/x", 60
		mustPut(t, c, key, version(0))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for ctx.Err() == nil {
					checkBodyFitsETag(t, c, key)
					checkSizeFitsETag(t, c, key)
				}
			})
		}
		for i := range rounds {
			mustPut(t, c, key, version(i))
			list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String("o/")})
			if err != nil || len(list.Contents) != 1 {
				t.Fatalf("list = %+v, %v", list, err)
			}
		}
		cancel()
		readers.Wait()
	})
}

// version is the i-th body, whose length tells i.
func version(i int) string { return strings.Repeat(string(rune('a'+i%26)), minSize+i) }

const minSize = 200_000

// etagOf is the ETag of an object put at once.
func etagOf(body []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(body)) }

func checkBodyFitsETag(t *testing.T, c *s3.Client, key string) {
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		t.Error(err)
		return
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if want := etagOf(body); err != nil || aws.ToString(out.ETag) != want {
		t.Errorf("%d bytes (%v) have MD5 %s, ETag %s", len(body), err, want, aws.ToString(out.ETag))
	}
}

func checkSizeFitsETag(t *testing.T, c *s3.Client, key string) {
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		t.Error(err)
		return
	}
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String(key)})
	if err != nil || len(list.Contents) != 1 {
		t.Errorf("list = %+v, %v", list, err)
		return
	}
	for _, got := range []struct {
		op, etag string
		size     int64
	}{
		{"head", aws.ToString(head.ETag), aws.ToInt64(head.ContentLength)},
		{"list", aws.ToString(list.Contents[0].ETag), aws.ToInt64(list.Contents[0].Size)},
	} {
		if want := etagOf([]byte(version(int(got.size - minSize)))); got.etag != want {
			t.Errorf("%s: %d bytes with ETag %s, want %s", got.op, got.size, got.etag, want)
		}
	}
}

// What conditions do, by engine.
func TestConditions(t *testing.T) {
	bad := aws.String(`"0123"`)
	b, key := aws.String(bucket), aws.String("k")
	tests := []struct {
		name string
		do   func(context.Context, *s3.Client) error
		want map[s3test.Engine]string
	}{
		{"get if-match", func(ctx context.Context, c *s3.Client) error {
			out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, IfMatch: bad})
			if err == nil {
				_ = out.Body.Close()
			}
			return err
		}, map[s3test.Engine]string{s3test.VersityGW: "PreconditionFailed", s3test.GoFakeS3: ""}},
		{"put if-match", func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: key, IfMatch: bad, Body: strings.NewReader("x")})
			return err
		}, map[s3test.Engine]string{s3test.VersityGW: "PreconditionFailed", s3test.GoFakeS3: "PreconditionFailed"}},
		{"put if-match, no object", func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("none"), IfMatch: bad, Body: strings.NewReader("x")})
			return err
		}, map[s3test.Engine]string{s3test.VersityGW: "NoSuchKey", s3test.GoFakeS3: "PreconditionFailed"}},
		{"copy source-if-match", func(ctx context.Context, c *s3.Client) error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{
				Bucket: b, Key: aws.String("copy"), CopySource: aws.String(bucket + "/k"), CopySourceIfMatch: bad,
			})
			return err
		}, map[s3test.Engine]string{s3test.VersityGW: "PreconditionFailed", s3test.GoFakeS3: ""}},
		{"copy", func(ctx context.Context, c *s3.Client) error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: aws.String("copy"), CopySource: aws.String(bucket + "/k")})
			return err
		}, map[s3test.Engine]string{}},
		{"complete if-none-match", func(ctx context.Context, c *s3.Client) error {
			return completeOnce(ctx, c, "k", aws.String("*"), 1)
		}, map[s3test.Engine]string{s3test.VersityGW: "PreconditionFailed", s3test.GoFakeS3: ""}},
		{"complete twice", func(ctx context.Context, c *s3.Client) error {
			return completeOnce(ctx, c, "m", nil, 2)
		}, map[s3test.Engine]string{s3test.VersityGW: "", s3test.GoFakeS3: "NoSuchUpload"}},
		{"delete of nothing", func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: aws.String("none/at/all")})
			return err
		}, map[s3test.Engine]string{}},
		{"delete if-match", func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key, IfMatch: bad})
			return err
		}, map[s3test.Engine]string{s3test.VersityGW: "PreconditionFailed", s3test.GoFakeS3: ""}},
	}
	eachEngine(t, func(t *testing.T, engine s3test.Engine, _ *s3test.TestServer, c *s3.Client) {
		mustPut(t, c, "k", "body")
		for _, tt := range tests {
			if got := code(tt.do(t.Context(), c)); got != tt.want[engine] {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want[engine])
			}
		}
	})
}

// completeOnce uploads one part and completes it the given number of times.
func completeOnce(ctx context.Context, c *s3.Client, key string, ifNoneMatch *string, times int) error {
	b, k := aws.String(bucket), aws.String(key)
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: k})
	if err != nil {
		return err
	}
	n := aws.Int32(1)
	part, err := c.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: b, Key: k, UploadId: up.UploadId, PartNumber: n, Body: strings.NewReader("part"),
	})
	for i := 0; i < times && err == nil; i++ {
		_, err = c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: b, Key: k, UploadId: up.UploadId, IfNoneMatch: ifNoneMatch,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: n}}},
		})
	}
	return err
}

// Keys that a directory tree cannot hold need the in-memory engine.
func TestKeys(t *testing.T) {
	tests := []struct {
		key  string
		want map[s3test.Engine]string // code of the put
	}{
		{"d/a", nil},
		{"d", map[s3test.Engine]string{s3test.VersityGW: "ExistingObjectIsDirectory"}},
		{"f", nil},
		{"f/under", map[s3test.Engine]string{s3test.VersityGW: "ObjectParentIsFile"}},
		{"marker-with-data/", map[s3test.Engine]string{s3test.VersityGW: "DirectoryObjectContainsData"}},
		{"ü b+%?#&=", nil},
		{`back\slash`, nil},
	}
	eachEngine(t, func(t *testing.T, engine s3test.Engine, _ *s3test.TestServer, c *s3.Client) {
		for _, tt := range tests {
			_, err := put(t.Context(), c, tt.key, tt.key)
			if got := code(err); got != tt.want[engine] {
				t.Errorf("put %q: %q, want %q", tt.key, got, tt.want[engine])
			}
			if err == nil {
				wantObject(t, c, tt.key, tt.key)
			}
		}
		// versitygw folds "//", "." and ".." as paths are: never put such keys there.
		mustPut(t, c, "fold//ed", "x")
		list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String("fold")})
		want := map[s3test.Engine]string{s3test.VersityGW: "fold/ed", s3test.GoFakeS3: "fold//ed"}[engine]
		if err != nil || len(list.Contents) != 1 || aws.ToString(list.Contents[0].Key) != want {
			t.Errorf("list = %+v, %v; want %q", list, err, want)
		}
	})
}

// An upload whose client dies in the middle leaves nothing behind.
func TestUploadCutInTheMiddleHasNoEffect(t *testing.T) {
	eachEngine(t, func(t *testing.T, _ s3test.Engine, srv *s3test.TestServer, c *s3.Client) {
		signed, err := s3.NewPresignClient(c).PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("cut")})
		if err != nil {
			t.Fatal(err)
		}
		addr := strings.TrimPrefix(srv.Endpoint, "http://")
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriter(conn)
		fmt.Fprintf(w, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\n\r\n", strings.TrimPrefix(signed.URL, srv.Endpoint), addr)
		_, _ = w.WriteString(strings.Repeat("x", 500_000))
		if err := errors.Join(w.Flush(), conn.Close()); err != nil {
			t.Fatal(err)
		}
		// The request is over when the proxy has noted that no answer came.
		waitFor(t, func() bool {
			reqs := srv.Requests()
			return len(reqs) > 0 && reqs[0].Done
		})
		if got, err := get(t.Context(), c, "cut"); code(err) != "NoSuchKey" {
			t.Errorf("%d bytes, %v; want no object. %+v", len(got), err, srv.Requests())
		}
	})
}

// waitFor asks until cond holds; each question is a round trip to the server.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("condition did not come true")
		}
	}
}

// An upload that is completed and aborted at the same time does one of both.
func TestAnUploadEndsOnce(t *testing.T) {
	eachEngine(t, func(t *testing.T, _ s3test.Engine, _ *s3test.TestServer, c *s3.Client) {
		for i := range 40 {
			key := fmt.Sprintf("once-%d", i)
			up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String(bucket), Key: &key})
			if err != nil {
				t.Fatal(err)
			}
			part, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
				Bucket: aws.String(bucket), Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("bytes"),
			})
			if err != nil {
				t.Fatal(err)
			}
			aborted := make(chan error, 1)
			go func() {
				_, err := c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: aws.String(bucket), Key: &key, UploadId: up.UploadId})
				aborted <- err
			}()
			_, completed := c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: aws.String(bucket), Key: &key, UploadId: up.UploadId,
				MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag}}},
			})
			_, there := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: &key})
			if abort := <-aborted; (abort == nil) == (completed == nil) || (there == nil) != (completed == nil) {
				t.Fatalf("round %d: abort %v, completion %v, object %v", i, abort, completed, there)
			}
		}
	})
}
