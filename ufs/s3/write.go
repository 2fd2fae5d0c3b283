package s3

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

func metadata(op freshet.OpID) map[string]string {
	if op.IsZero() {
		return nil
	}
	return map[string]string{opMetadata: op.String()}
}

// conditions are the headers of a write that has some.
type conditions struct {
	absent *string // If-None-Match
	match  *string // If-Match
}

func conditionsOf(o object.PutOptions) (c conditions, err error) {
	if o.IfMatch.Known() {
		v, ok := parseWant(o.IfMatch)
		if !ok {
			return c, errOtherKind(o.IfMatch)
		}
		c.match = v.match()
	}
	if o.IfAbsent {
		c.absent = aws.String("*")
	}
	return c, nil
}

// refusal maps the answers to a conditional write.
func (s *store) refusal(ctx context.Context, err error, c conditions) error {
	failed := statusOf(err) == http.StatusPreconditionFailed || c.match != nil && hasCode(err, "NoSuchKey")
	switch {
	case failed && c.absent != nil:
		return &freshet.Error{Kind: freshet.KindExist, Err: &object.AnswerError{Text: "something is there already", Err: err}}
	case failed && c.match != nil:
		return &freshet.Error{Kind: freshet.KindStale, Err: &object.AnswerError{Text: "the storage holds another version", Err: err}}
	}
	return s.failure(ctx, err, object.Changes)
}

// written is what the answer to a write itself says of size bytes by op. The
// modification time is that of the answer, which is not before the object's own and
// seldom a second after.
func written(name string, size int64, op freshet.OpID, etag *string, md middleware.Metadata) (object.Object, error) {
	if aws.ToString(etag) == "" {
		return object.Object{}, object.Errorf(freshet.KindDeadline, "no definite answer, it may have taken effect: the endpoint does not answer like an S3 server: no ETag")
	}
	o := object.Object{Name: name, Size: size, Fingerprint: fingerprint.S3(*etag, size), Op: op}
	if resp, ok := awsmiddleware.GetRawResponse(md).(*smithyhttp.Response); ok {
		if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			o.ModTime = t.UTC()
		}
	}
	return o, nil
}

// Put implements object.Store.
func (s *store) Put(ctx context.Context, name string, data []byte, o object.PutOptions) (object.Object, error) {
	c, err := conditionsOf(o)
	if err != nil {
		return object.Object{}, err
	}
	out, err := s.api.PutObject(ctx, &awss3.PutObjectInput{
		Bucket: &s.bucket, Key: &name, Body: bytes.NewReader(data),
		Metadata: metadata(o.Op), IfMatch: c.match, IfNoneMatch: c.absent,
	}, s.sendOnce)
	if err != nil {
		return object.Object{}, s.refusal(ctx, err, c)
	}
	return written(name, int64(len(data)), o.Op, out.ETag, out.ResultMetadata)
}

// Mark implements object.Store.
func (s *store) Mark(ctx context.Context, name string) error {
	_, err := s.api.PutObject(ctx, &awss3.PutObjectInput{
		Bucket: &s.bucket, Key: &name, ContentType: aws.String("application/x-directory"),
	}, s.sendOnce)
	return s.failure(ctx, err, object.Changes)
}

// Delete implements object.Store.
func (s *store) Delete(ctx context.Context, names []string) error {
	if len(names) == 1 {
		_, err := s.api.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.bucket, Key: &names[0]}, s.sendOnce)
		if hasCode(err, "NoSuchKey") {
			return nil
		}
		return s.failure(ctx, err, object.Changes)
	}
	ids := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		ids[i].Key = &names[i]
	}
	out, err := s.api.DeleteObjects(httpclient.WithPatience(ctx, s.cfg.longPatience()), &awss3.DeleteObjectsInput{
		Bucket: &s.bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	}, s.sendOnce)
	if err != nil {
		return s.failure(ctx, err, object.Changes)
	}
	for _, e := range out.Errors {
		code := aws.ToString(e.Code)
		if code == "NoSuchKey" {
			continue
		}
		kind := freshet.KindDeadline // of one object; it may still go
		if code == "AccessDenied" {
			kind = freshet.KindPermission
		}
		return object.Errorf(kind, "S3 refused to delete %d objects, the first, %q, with %s: %.200s",
			len(out.Errors), aws.ToString(e.Key), code, aws.ToString(e.Message))
	}
	return nil
}

// longPatience is for requests in which the server copies or assembles bytes.
func (c config) longPatience() time.Duration {
	return max(c.requestTimeout, min(10*c.requestTimeout, c.maxOpLifetime/2))
}
