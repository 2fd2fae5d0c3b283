package s3

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

const (
	// maxCopy is the largest object that one CopyObject can copy.
	maxCopy = 5 << 30
	// copyPart is the part size of a multipart copy.
	copyPart = 1 << 30
	// leave is how long cleaning up may take after the caller's time was up.
	leave = 5 * time.Second
)

// Copy implements object.Store.
func (s *store) Copy(ctx context.Context, from object.Object, to string) (object.Object, error) {
	v, ok := parseWant(from.Fingerprint)
	if !ok {
		return object.Object{}, errOtherKind(from.Fingerprint)
	}
	source := s.copySource(from.Name)
	if from.Size > s.cfg.maxCopy {
		return s.copyParts(ctx, from, to, source, v.match())
	}
	out, err := s.api.CopyObject(httpclient.WithPatience(ctx, s.cfg.longPatience()), &awss3.CopyObjectInput{
		Bucket: &s.bucket, Key: &to, CopySource: source, CopySourceIfMatch: v.match(),
	}, s.sendOnce)
	if err != nil {
		return object.Object{}, s.uncopied(ctx, err, object.Changes)
	}
	if out.CopyObjectResult == nil {
		out.CopyObjectResult = &types.CopyObjectResult{}
	}
	o, err := written(to, from.Size, from.Op, out.CopyObjectResult.ETag, out.ResultMetadata)
	if out.CopyObjectResult.LastModified != nil {
		o.ModTime = *out.CopyObjectResult.LastModified
	}
	return o, err
}

// uncopied is the error of a copy, of which nothing but the source can be missing.
func (s *store) uncopied(ctx context.Context, err error, e object.Effect) error {
	err = s.failure(ctx, err, e)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return object.Errorf(freshet.KindStale, "the object to copy is gone")
	}
	return err
}

func (s *store) copySource(object string) *string {
	segments := strings.Split(object, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	// "+" is a space to some servers.
	return aws.String(s.bucket + "/" + strings.ReplaceAll(strings.Join(segments, "/"), "+", "%2B"))
}

// copyParts copies an object that is too large for CopyObject.
func (s *store) copyParts(ctx context.Context, from object.Object, to string, source, match *string) (object.Object, error) {
	head, err := s.api.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.bucket, Key: &from.Name, IfMatch: match}, s.reading(ctx))
	if err != nil {
		return object.Object{}, s.uncopied(ctx, err, object.Reads)
	}
	p, err := s.begin(ctx, &awss3.CreateMultipartUploadInput{
		Key: &to, Metadata: head.Metadata, ContentType: head.ContentType,
		ContentEncoding: head.ContentEncoding, CacheControl: head.CacheControl, ContentDisposition: head.ContentDisposition,
		ContentLanguage: head.ContentLanguage,
	}, opOf(head.Metadata))
	if err != nil {
		return object.Object{}, err
	}
	var o object.Object
	uncertain := false
	if err = p.copyAll(ctx, from, source, match); err == nil {
		o, err = p.Complete(ctx, len(p.done), from.Size)
		uncertain = freshet.IsKind(err, freshet.KindDeadline) && !unsent(err)
	}
	if err != nil && !uncertain {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), leave)
		defer cancel()
		_, _ = p.Abort(cleanup) // the cleaner finds what this leaves behind
	}
	return o, err
}

func (p *parts) copyAll(ctx context.Context, from object.Object, source, match *string) error {
	size := p.s.cfg.copyPart
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Prepare(gctx) })
	slots, sctx := errgroup.WithContext(gctx)
	slots.SetLimit(p.s.cfg.uploadConcurrency)
	for i := range (from.Size + size - 1) / size {
		slots.Go(func() error { return p.copyOne(sctx, int32(i+1), copied{from, source, match}) }) //nolint:gosec // at most 10,000 parts exist
	}
	group.Go(slots.Wait)
	return group.Wait() //nolint:wrapcheck // made by failure
}

// copied is what a part is copied from.
type copied struct {
	object.Object
	source, match *string
}

func (p *parts) copyOne(ctx context.Context, number int32, from copied) error {
	size := p.s.cfg.copyPart
	first := int64(number-1) * size
	out, err := p.s.api.UploadPartCopy(httpclient.WithPatience(ctx, p.s.cfg.longPatience()), &awss3.UploadPartCopyInput{
		Bucket: &p.s.bucket, Key: &p.name, UploadId: &p.id, PartNumber: &number,
		CopySource: from.source, CopySourceIfMatch: from.match,
		CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", first, min(first+size, from.Size)-1)),
	})
	if err != nil {
		return p.s.uncopied(ctx, err, object.Reads)
	}
	if out.CopyPartResult == nil || aws.ToString(out.CopyPartResult.ETag) == "" {
		return notS3()
	}
	part := types.CompletedPart{PartNumber: &number, ETag: out.CopyPartResult.ETag}
	if p.s.cfg.checksum == checksumSupported && aws.ToString(out.CopyPartResult.ChecksumCRC32) != "" {
		part.ChecksumCRC32 = out.CopyPartResult.ChecksumCRC32
	}
	p.keep(part)
	return nil
}
