package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/test/sqstest"
)

const benchBucket = "bench"

func startS3(ctx context.Context) (*place, error) {
	srv, err := s3test.Launch(ctx, s3test.Options{Buckets: []string{benchBucket}})
	if err != nil {
		return nil, err
	}
	return s3Place(srv, srv.Endpoint, srv.Stop), nil
}

// startS3Link is S3 at the other end of a link, which is slower than the machine.
func startS3Link(ctx context.Context) (*place, error) {
	srv, err := s3test.Launch(ctx, s3test.Options{Buckets: []string{benchBucket}})
	if err != nil {
		return nil, err
	}
	addr, stop, err := startLink(ctx, strings.TrimPrefix(srv.Endpoint, "http://"))
	if err != nil {
		return nil, errors.Join(err, srv.Stop())
	}
	return s3Place(srv, "http://"+addr, func() error { return errors.Join(stop(), srv.Stop()) }), nil
}

func s3Place(srv *s3test.Server, endpoint string, stop func() error) *place {
	return &place{
		uri: "s3://" + benchBucket, options: map[string]string{"endpoint": endpoint, "region": "us-east-1", "part_size": "8MiB"},
		env:     []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey},
		rival:   s3Rival{api: s3Client(endpoint, srv.AccessKey, srv.SecretKey), bucket: benchBucket},
		entries: 5000, stop: stop,
	}
}

// startSQS is S3 whose bucket tells a queue of its changes.
func startSQS(ctx context.Context) (*place, error) {
	srv, err := sqstest.Launch(ctx, sqstest.Options{})
	if err != nil {
		return nil, err
	}
	api := s3Client(srv.Endpoint(), srv.AccessKey(), srv.SecretKey())
	_, err = api.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(benchBucket)})
	var url, arn string
	if err == nil {
		url, arn, err = srv.MakeQueue(ctx, benchBucket)
	}
	if err == nil {
		err = srv.Connect(ctx, benchBucket, arn)
	}
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	return &place{
		uri: "s3://" + benchBucket, options: map[string]string{"endpoint": srv.Endpoint(), "region": srv.Region(), "events": "sqs:" + url},
		env:   []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey(), "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey()},
		rival: s3Rival{api: api, bucket: benchBucket}, stop: srv.Close,
	}, nil
}

// s3Rival is a bucket through the SDK. It makes no sums of contents, as the driver by
// default does not.
type s3Rival struct {
	api    *s3.Client
	bucket string
}

func s3Client(endpoint, access, secret string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &endpoint, Region: "us-east-1", UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(access, secret, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

func (r s3Rival) put(ctx context.Context, key string, data []byte) error {
	_, err := r.api.PutObject(ctx, &s3.PutObjectInput{Bucket: &r.bucket, Key: &key, Body: bytes.NewReader(data)})
	return err
}

func (r s3Rival) list(ctx context.Context, dir string) (int, error) {
	n := 0
	pages := s3.NewListObjectsV2Paginator(r.api, &s3.ListObjectsV2Input{Bucket: &r.bucket, Prefix: aws.String(dir + "/"), Delimiter: aws.String("/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, err
		}
		n += len(page.Contents) + len(page.CommonPrefixes)
	}
	return n, nil
}

// upload sends parts out of a buffer that is there already, four at a time.
func (r s3Rival) upload(ctx context.Context, key string, data []byte) error {
	up, err := r.api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &r.bucket, Key: &key})
	if err != nil {
		return err
	}
	done := make([]types.CompletedPart, (len(data)+partSize-1)/partSize)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range done {
		group.Go(func() error {
			n := aws.Int32(int32(i + 1)) //nolint:gosec // few
			out, err := r.api.UploadPart(gctx, &s3.UploadPartInput{
				Bucket: &r.bucket, Key: &key, UploadId: up.UploadId, PartNumber: n, Body: bytes.NewReader(data[i*partSize : min(len(data), (i+1)*partSize)]),
			})
			if err != nil {
				return err
			}
			done[i] = types.CompletedPart{PartNumber: n, ETag: out.ETag}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = r.api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &r.bucket, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	return err
}

func (r s3Rival) readAt(ctx context.Context, key string, off int64, buf []byte) error {
	out, err := r.api.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &r.bucket, Key: &key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, off+int64(len(buf))-1)),
	})
	if err != nil {
		return err
	}
	_, err = io.ReadFull(out.Body, buf)
	return errors.Join(err, out.Body.Close())
}
