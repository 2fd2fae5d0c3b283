package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
)

// sink takes uploads and keeps nothing.
func sink(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	answer(w, r)
}

const (
	benchFile = 256 * mib
	benchPart = 8 * mib
	benchRuns = 4 // parts at a time
)

// BenchmarkUpload streams 256 MiB of unknown length through the driver.
func BenchmarkUpload(b *testing.B) {
	fs := against(b, sink, nil)
	upload(b, func(ctx context.Context, chunk []byte) error {
		w, err := fs.Create(ctx, "f", ufs.CreateOptions{Op: opID(1), Size: -1, Vouched: true})
		if err != nil {
			return err
		}
		for range benchFile / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
			}
		}
		_, err = w.Commit(ctx)
		return err
	})
}

// BenchmarkUploadBareSDK sends the same parts, as many at a time, out of one
// buffer that is there already.
func BenchmarkUploadBareSDK(b *testing.B) {
	c := bareClient(b, sink)
	part := content(1, benchPart)
	upload(b, func(ctx context.Context, _ []byte) error {
		up, err := c.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("p/f")})
		if err != nil {
			return err
		}
		var mu sync.Mutex
		done := make([]types.CompletedPart, benchFile/benchPart)
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(benchRuns)
		for i := range done {
			group.Go(func() error {
				n := aws.Int32(int32(i + 1)) //nolint:gosec // few
				out, err := c.UploadPart(gctx, &awss3.UploadPartInput{
					Bucket: aws.String("bucket"), Key: aws.String("p/f"), UploadId: up.UploadId, PartNumber: n, Body: bytes.NewReader(part),
				})
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				done[i] = types.CompletedPart{PartNumber: n, ETag: out.ETag}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		_, err = c.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{
			Bucket: aws.String("bucket"), Key: aws.String("p/f"), UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
		})
		return err
	})
}

func upload(b *testing.B, one func(context.Context, []byte) error) {
	b.Helper()
	chunk := content(1, mib)
	b.SetBytes(benchFile)
	cpu := cpuTime(b)
	for b.Loop() {
		if err := one(b.Context(), chunk); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpuTime(b)-cpu).Seconds()/float64(b.N), "cpu-s/op")
}

func bareClient(b *testing.B, handler http.HandlerFunc) *awss3.Client {
	b.Helper()
	srv, transport := newServer(b, handler)
	return awss3.New(awss3.Options{
		BaseEndpoint: &srv, Region: "us-east-1", UsePathStyle: true, HTTPClient: &http.Client{Transport: transport},
		Credentials:                aws.AnonymousCredentials{},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

const benchBlock = 1 * mib

// BenchmarkRangedRead reads 64 MiB in blocks of 1 MiB, one request each.
func BenchmarkRangedRead(b *testing.B) {
	data := content(1, 64*mib)
	fs := against(b, object(data), nil)
	ranges(b, len(data), func(ctx context.Context, off int64, buf []byte) error {
		r, _, err := fs.Open(ctx, "f", ufs.OpenOptions{Want: fingerprint.S3("e", int64(len(data))), Offset: off, Length: benchBlock})
		if err != nil {
			return err
		}
		_, err = io.ReadFull(r, buf)
		return errors.Join(err, r.Close())
	})
}

// BenchmarkRangedReadBareSDK is the same with the SDK alone.
func BenchmarkRangedReadBareSDK(b *testing.B) {
	data := content(1, 64*mib)
	c := bareClient(b, object(data))
	ranges(b, len(data), func(ctx context.Context, off int64, buf []byte) error {
		out, err := c.GetObject(ctx, &awss3.GetObjectInput{
			Bucket: aws.String("bucket"), Key: aws.String("p/f"), IfMatch: aws.String(`"e"`), Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, off+benchBlock-1)),
		})
		if err != nil {
			return err
		}
		_, err = io.ReadFull(out.Body, buf)
		return errors.Join(err, out.Body.Close())
	})
}

func ranges(b *testing.B, size int, one func(context.Context, int64, []byte) error) {
	b.Helper()
	buf := make([]byte, benchBlock)
	b.SetBytes(int64(size))
	cpu := cpuTime(b)
	for b.Loop() {
		for off := int64(0); off < int64(size); off += benchBlock {
			if err := one(b.Context(), off, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric((cpuTime(b)-cpu).Seconds()/float64(b.N), "cpu-s/op")
}

// An upload keeps to its buffers: one per part under way and one that fills.
func TestUploadMemoryIsBounded(t *testing.T) {
	release := make(chan struct{})
	fs := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("partNumber") && r.URL.Query().Get("partNumber") != "10000" {
			<-release // no part ends before all that may be under way are
		}
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	}, map[string]string{"upload_concurrency": "3", "request_timeout": "30s"})
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, err := fs.Create(t.Context(), "f", ufs.CreateOptions{Op: opID(1), Size: -1, Vouched: true})
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, mib)
	for range 4 * 8 { // three parts under way, the fourth full
		if _, err := w.Write(chunk[:mib-1]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4*8*mib+8*mib {
		t.Errorf("%d MiB held by an upload of 4 buffers of 8 MiB", grown>>20)
	}
	blocked := make(chan error, 1)
	go func() {
		_, err := w.Write(make([]byte, mib)) // fills the fourth: nobody takes it
		blocked <- err
	}()
	select {
	case err := <-blocked:
		t.Errorf("a fifth part was begun: %v", err)
	default:
	}
	close(release)
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// With sums of all content, uploads and downloads work at a server that keeps
// them, and bytes that were changed on the way are found out.
func TestChecksums(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	m := newMount(t, srv, map[string]string{"checksum": "when_supported", "part_size": "5MiB"})
	for _, size := range []int{0, 100, 100 << 10, 11 * mib} {
		data := content(byte(size), size)
		key := fmt.Sprint("f", size)
		st := mustWrite(t, m, key, data)
		wantContent(t, m, key, data)
		if now, err := m.Stat(t.Context(), key); err != nil || !now.Fingerprint.Equal(st.Fingerprint) {
			t.Errorf("commit said %+v, stat says %+v, %v", st, now, err)
		}
	}
	if _, err := m.Rename(t.Context(), fmt.Sprint("f", 11*mib), "g"); err != nil {
		t.Errorf("rename: %v", err)
	}
	fs := against(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("X-Amz-Checksum-Crc32", "AAAAAA==") // of something else
		_, _ = io.WriteString(w, "0123456789")
	}, map[string]string{"checksum": "when_supported"})
	if got, err := read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1}); err == nil {
		t.Errorf("%d bytes with another sum were taken", len(got))
	}
}
