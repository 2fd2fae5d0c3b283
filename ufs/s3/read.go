package s3

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/object"
)

// Get implements object.Store.
func (s *store) Get(ctx context.Context, name string, req object.GetRequest) (object.Answer, error) {
	want, known := parseWant(req.Want)
	switch {
	case req.Want.Known() && !known:
		return object.Answer{}, errOtherKind(req.Want)
	case known && req.Offset >= want.size:
		return object.Answer{}, object.Errorf(freshet.KindInvalid, "%w", object.ErrRange) // as the storage would say
	case known && req.Length > want.size-req.Offset:
		req.Length = -1 // to the end
	}
	in := &awss3.GetObjectInput{Bucket: &s.bucket, Key: &name}
	if known {
		in.IfMatch = want.match()
	}
	// Also of a whole object of unknown length a range is asked for: the answer then
	// says how long it is besides how long the answer is, so that one that was cut is
	// seen. But of a part there is no checksum.
	if req.Offset > 0 || req.Length > 0 || !known && s.cfg.checksum != checksumSupported {
		in.Range = aws.String(httpRange(req.Offset, req.Length))
	}
	out, err := s.api.GetObject(ctx, in, s.reading(ctx))
	if err != nil {
		return object.Answer{}, s.failure(ctx, err, object.Reads)
	}
	a, err := answer(name, out)
	if err != nil {
		_ = out.Body.Close()
	}
	return a, err
}

// answer checks the head of an answer in itself.
func answer(name string, out *awss3.GetObjectOutput) (object.Answer, error) {
	if out.ContentLength == nil || *out.ContentLength < 0 || aws.ToString(out.ETag) == "" {
		return object.Answer{}, notS3()
	}
	n, size := *out.ContentLength, *out.ContentLength
	first := int64(0)
	if resp, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok && (out.ContentRange != nil) != (resp.StatusCode == http.StatusPartialContent) {
		return object.Answer{}, object.Errorf(freshet.KindUnavailable, "the storage answered %d with Content-Range %.60q", resp.StatusCode, aws.ToString(out.ContentRange))
	}
	if out.ContentRange != nil {
		var last int64
		var err error
		if first, last, size, err = parseContentRange(*out.ContentRange); err != nil {
			return object.Answer{}, object.Errorf(freshet.KindUnavailable, "%w", err)
		}
		if n != last-first+1 {
			return object.Answer{}, object.Errorf(freshet.KindUnavailable, "the storage answered with %d bytes for Content-Range %.60q", n, *out.ContentRange)
		}
	}
	return object.Answer{
		Object: object.Object{
			Name: name, Size: size, ModTime: aws.ToTime(out.LastModified),
			Fingerprint: fingerprint.S3(aws.ToString(out.ETag), size), Op: opOf(out.Metadata),
		},
		Body: out.Body, First: first, Length: n,
	}, nil
}

func httpRange(offset, length int64) string {
	if length < 0 {
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}

// parseContentRange reads "bytes 0-9/100".
func parseContentRange(s string) (first, last, size int64, err error) {
	spec, ok := strings.CutPrefix(s, "bytes ")
	span, total, ok2 := strings.Cut(spec, "/")
	from, to, ok3 := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if !ok || !ok2 || !ok3 || err1 != nil || err2 != nil || err3 != nil || first < 0 || last < first || size <= last {
		return 0, 0, 0, fmt.Errorf("unusable Content-Range %.60q", s)
	}
	return first, last, size, nil
}
