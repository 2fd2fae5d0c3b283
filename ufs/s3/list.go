package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet/ufs/object"
)

// maxListAnswer bounds one page: 1,000 keys of 1 KiB, all escaped, fit easily.
const maxListAnswer = 16 << 20

// List implements object.Store.
func (s *store) List(ctx context.Context, req object.ListRequest) (object.Page, error) {
	in := &awss3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &req.Prefix}
	if req.Delimited {
		slash := "/"
		in.Delimiter = &slash
	}
	if req.StartAfter != "" {
		in.StartAfter = &req.StartAfter
	}
	if req.Token != "" {
		in.ContinuationToken = &req.Token
	}
	if n := min(req.Max, listPage); n > 0 {
		size := int32(n) //nolint:gosec // at most listPage
		in.MaxKeys = &size
	}
	p, err := s.page(ctx, in)
	return p, s.failure(ctx, err, object.Reads)
}

// page runs one ListObjectsV2 with the SDK's signing, transport, retries and
// errors, but with our parser.
func (s *store) page(ctx context.Context, in *awss3.ListObjectsV2Input) (object.Page, error) {
	var p object.Page
	_, err := s.api.ListObjectsV2(ctx, in, s.reading(ctx), func(o *awss3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			d := &pageDeserializer{page: &p}
			sdk, err := stack.Deserialize.Swap(d.ID(), d)
			d.sdk = sdk
			return err
		})
	})
	return p, err
}

// pageDeserializer stands in for the SDK's deserializer of ListObjectsV2.
type pageDeserializer struct {
	page *object.Page
	sdk  middleware.DeserializeMiddleware // reads the error answers
}

// ID is that of the deserializer it replaces.
func (*pageDeserializer) ID() string { return "OperationDeserializer" }

// HandleDeserialize parses a good answer and leaves all else to the SDK.
func (d *pageDeserializer) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	out middleware.DeserializeOutput, md middleware.Metadata, err error,
) {
	out, md, err = next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp.StatusCode/100 != 2 {
		return d.sdk.HandleDeserialize(ctx, in, middleware.DeserializeHandlerFunc(
			func(context.Context, middleware.DeserializeInput) (middleware.DeserializeOutput, middleware.Metadata, error) {
				return out, md, err
			}))
	}
	*d.page, err = readPage(resp.Body, resp.ContentLength)
	out.Result = &awss3.ListObjectsV2Output{}
	return out, md, err
}

// brokenAnswerError makes the SDK retry an answer that was cut off.
type brokenAnswerError struct{ err error }

func (e *brokenAnswerError) Error() string         { return "the answer was cut off: " + e.err.Error() }
func (e *brokenAnswerError) Unwrap() error         { return e.err }
func (e *brokenAnswerError) ConnectionError() bool { return true }

var errTooLarge = errors.New("list response too large")

func readPage(body io.ReadCloser, length int64) (object.Page, error) {
	defer func() { _ = body.Close() }()
	if length > maxListAnswer {
		return object.Page{}, fmt.Errorf("%w: %d bytes, more than %d", errTooLarge, length, maxListAnswer)
	}
	var buf bytes.Buffer
	buf.Grow(int(max(length, 0)) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(body, maxListAnswer+1))
	switch {
	case err != nil:
		return object.Page{}, &brokenAnswerError{err}
	case n > maxListAnswer:
		return object.Page{}, fmt.Errorf("%w: more than %d bytes", errTooLarge, maxListAnswer)
	}
	p, err := parsePage(buf.Bytes())
	if err != nil {
		return object.Page{}, &smithy.DeserializationError{Err: err}
	}
	return p, nil
}
