package fill_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
	"github.com/freshet-io/freshet/ufs/s3"
)

// coldSize is the length of the file that is read cold: two blocks of the default
// size.
const coldSize = 2 * freshet.DefaultBlockSize

// BenchmarkColdS3 reads a file of a real S3 server, block after block as the client
// does, into a tier and to nowhere, and by the bare SDK in as many ranges at a time
// into memory; both by turns.
func BenchmarkColdS3(b *testing.B) {
	srv := s3test.Start(b, s3test.Options{Buckets: []string{"cold"}})
	api := awss3.New(awss3.Options{
		BaseEndpoint: &srv.Endpoint, Region: "us-east-1", UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(srv.AccessKey, srv.SecretKey, ""),
		HTTPClient:                 &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
	_, err := api.PutObject(b.Context(), &awss3.PutObjectInput{Bucket: aws.String("cold"), Key: aws.String("f"), Body: bytes.NewReader(pages(1, coldSize))})
	check(b, err)
	fs := openStorage(b, s3.NewOpener(s3.Options{}), ufs.Spec{URI: "s3://cold", Options: map[string]string{"endpoint": srv.Endpoint, "region": "us-east-1"}}, map[string]string{
		"AWS_ACCESS_KEY_ID": srv.AccessKey, "AWS_SECRET_ACCESS_KEY": srv.SecretKey,
	})
	into := make([]byte, coldSize)
	duel(b, fs, "the bare SDK's ranged GET", func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(4)
		const part = 8 << 20
		for off := 0; off < coldSize; off += part {
			g.Go(func() error {
				out, err := api.GetObject(ctx, &awss3.GetObjectInput{
					Bucket: aws.String("cold"), Key: aws.String("f"), Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, off+part-1)),
				})
				if err != nil {
					return err
				}
				_, err = io.ReadFull(out.Body, into[off:off+part])
				return errors.Join(err, out.Body.Close())
			})
		}
		return g.Wait()
	})
}

// BenchmarkColdLocal does the same with a directory, against copying the file with a
// buffer of the same size.
func BenchmarkColdLocal(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "f")
	check(b, os.WriteFile(path, pages(1, coldSize), 0o600))
	fs := openStorage(b, local.Opener{}, ufs.Spec{URI: "file://" + dir}, nil)
	target := filepath.Join(b.TempDir(), "copy")
	buf := make([]byte, 256<<10)
	duel(b, fs, "a copy of the file", func(context.Context) error {
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		out, err := os.Create(target)
		if err != nil {
			return errors.Join(err, in.Close())
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, buf)
		return errors.Join(err, in.Close(), out.Close(), os.Remove(target))
	})
}

func openStorage(b *testing.B, open ufs.Opener, spec ufs.Spec, env map[string]string) ufs.FS {
	b.Helper()
	fs, err := open.Open(spec, ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8"}, Getenv: func(k string) string { return env[k] },
	})
	check(b, err)
	b.Cleanup(func() { check(b, fs.Close()) })
	return fs
}

// duel compares a cold read of the file f through a Filler with what is bare.
func duel(b *testing.B, fs ufs.FS, limit string, bare func(context.Context) error) {
	b.Helper()
	st, err := fs.Stat(b.Context(), "f")
	check(b, err)
	for _, dir := range []string{"", b.TempDir()} {
		bed := newBed(b, settings{dir: dir, capacity: 2 * coldSize})
		bed.setFS(fs)
		ours := func(ctx context.Context) error { return bed.readCold(ctx, st) }
		b.Run(bed.blocks.Name(), func(b *testing.B) {
			var wall, cpu []float64
			for b.Loop() {
				w1, c1 := spent(b, bare)
				w2, c2 := spent(b, ours)
				wall, cpu = append(wall, w1/w2), append(cpu, c1/c2)
				b.ReportMetric(coldSize/w2/1e6, "MB/s")
				b.ReportMetric(c2/(coldSize/float64(1<<30)), "cpu-s/GiB")
			}
			slices.Sort(wall)
			slices.Sort(cpu)
			b.ReportMetric(wall[len(wall)/2], "of-bare-by-time")
			b.ReportMetric(cpu[len(cpu)/2], "of-bare-by-cpu")
			b.Logf("bare is %s; least and greatest by time %.2f–%.2f, by cpu %.2f–%.2f", limit, wall[0], wall[len(wall)-1], cpu[0], cpu[len(cpu)-1])
		})
	}
}

func spent(b *testing.B, do func(context.Context) error) (wall, cpu float64) {
	b.Helper()
	before, begun := cpuTime(b), time.Now()
	check(b, do(b.Context()))
	return time.Since(begun).Seconds(), (cpuTime(b) - before).Seconds()
}

// readCold reads the blocks of a file, one after the other, and drops them.
func (b *bed) readCold(ctx context.Context, st ufs.Status) error {
	source := freshet.Source{Mount: 1, Key: "f", Fingerprint: st.Fingerprint}
	block := func(i int64) freshet.Block {
		return freshet.Block{ID: freshet.BlockID{File: 1, Index: uint32(i)}, Offset: i * freshet.DefaultBlockSize, Length: freshet.DefaultBlockSize}
	}
	const n = coldSize / freshet.DefaultBlockSize
	for i := range int64(n) {
		req := freshet.BlockRead{Block: block(i), Source: source, Length: -1}
		if i+1 < n {
			b.filler.Ahead(freshet.BlockRead{Block: block(i + 1), Source: source})
		}
		s, err := b.filler.Read(ctx, req)
		if err != nil {
			return err
		}
		if _, err = s.WriteTo(io.Discard); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	for i := range int64(n) {
		<-b.added
		_ = i
	}
	b.blocks.Remove(block(0).ID, block(1).ID)
	return nil
}
