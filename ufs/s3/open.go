package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Open reads a range with one conditional GET. The reader fails with
// KindUnavailable rather than end early.
func (f *FS) Open(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	if err := ufs.CheckKey(op, key); err != nil {
		return nil, ufs.Status{}, err
	}
	if key == "" {
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	}
	if ufs.IsTemp(key) {
		return nil, ufs.Status{}, notExist(op, key)
	}
	if opts.Offset < 0 {
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, key, "negative offset %d", opts.Offset)
	}
	want, known := parseWant(opts.Want)
	switch {
	case opts.Want.Known() && !known:
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindStale, op, key, "%q is not the version of an S3 object", opts.Want.Content)
	case opts.Length == 0, known && opts.Offset >= want.size:
		return f.openNothing(ctx, key, opts)
	}
	if known && opts.Length > want.size-opts.Offset || opts.Length > math.MaxInt64-opts.Offset {
		opts.Length = -1 // to the end
	}
	in := &awss3.GetObjectInput{Bucket: &f.bucket, Key: f.object(key)}
	if known {
		in.IfMatch = aws.String(`"` + want.etag + `"`)
	}
	if opts.Offset > 0 || opts.Length > 0 {
		in.Range = aws.String(httpRange(opts.Offset, opts.Length))
	}
	out, err := f.api.GetObject(ctx, in, f.reading(ctx))
	switch {
	case err == nil:
	case statusOf(err) == http.StatusRequestedRangeNotSatisfiable:
		return f.openNothing(ctx, key, opts)
	case statusOf(err) == http.StatusNotFound:
		return nil, ufs.Status{}, f.absent(ctx, op, key, err)
	default:
		return nil, ufs.Status{}, f.failure(ctx, op, key, err, reads)
	}
	body, st, err := f.body(ctx, key, opts, out)
	if err != nil {
		_ = out.Body.Close()
		return nil, ufs.Status{}, err
	}
	return body, st, nil
}

// absent tells a directory from nothing after a GET that found no object.
func (f *FS) absent(ctx context.Context, op, key string, cause error) error {
	err := f.failure(ctx, op, key, cause, reads)
	if freshet.KindOf(err) != freshet.KindNotExist {
		return err
	}
	first, listErr := f.first(ctx, op, key, 1)
	switch {
	case listErr != nil:
		return listErr
	case len(first) > 0:
		return ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	}
	return err
}

// openNothing answers a read of no bytes: the object is still looked at.
func (f *FS) openNothing(ctx context.Context, key string, opts ufs.OpenOptions) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	st, err := f.Stat(ctx, key)
	switch {
	case err != nil:
		return nil, ufs.Status{}, err
	case st.IsDir():
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	case opts.Want.Known() && !opts.Want.SameContent(st.Fingerprint):
		return nil, ufs.Status{}, stale(op, key)
	case opts.Offset > st.Length:
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, key, "offset %d is past the end at %d", opts.Offset, st.Length)
	case opts.Length != 0 && opts.Offset < st.Length:
		return nil, ufs.Status{}, stale(op, key) // it grew since the answer 416
	}
	return io.NopCloser(strings.NewReader("")), st, nil
}

func stale(op, key string) error {
	return ufs.Errorf(freshet.KindStale, op, key, "the storage holds another version")
}

// body checks the head of the answer against what was asked.
func (f *FS) body(ctx context.Context, key string, opts ufs.OpenOptions, out *awss3.GetObjectOutput) (io.ReadCloser, ufs.Status, error) {
	const op = "open"
	if out.ContentLength == nil || *out.ContentLength < 0 || aws.ToString(out.ETag) == "" {
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, key, "the endpoint does not answer like an S3 server: no length or no ETag")
	}
	n, size := *out.ContentLength, *out.ContentLength
	first := int64(0)
	if resp, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok && (out.ContentRange != nil) != (resp.StatusCode == http.StatusPartialContent) {
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, key, "the storage answered %d with Content-Range %.60q", resp.StatusCode, aws.ToString(out.ContentRange))
	}
	if out.ContentRange != nil {
		var last int64
		var err error
		if first, last, size, err = parseContentRange(*out.ContentRange); err != nil {
			return nil, ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, key, "%w", err)
		}
		if n != last-first+1 {
			return nil, ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, key, "the storage answered with %d bytes for Content-Range %.60q", n, *out.ContentRange)
		}
	}
	st := ufs.Status{
		Key: key, Length: size, ModTime: aws.ToTime(out.LastModified),
		Fingerprint: fingerprint.S3(aws.ToString(out.ETag), size), Op: opOf(out.Metadata),
	}
	if opts.Want.Known() && !opts.Want.SameContent(st.Fingerprint) {
		return nil, ufs.Status{}, stale(op, key) // servers exist that ignore If-Match
	}
	expect := max(0, size-opts.Offset)
	if opts.Length > 0 {
		expect = min(expect, opts.Length)
	}
	if first != opts.Offset || n != expect {
		return nil, ufs.Status{}, ufs.Errorf(freshet.KindUnavailable, op, key,
			"asked for %d bytes from %d, the storage answered with %d from %d", expect, opts.Offset, n, first)
	}
	return &exactReader{f: f, ctx: ctx, key: key, body: out.Body, left: n}, st, nil
}

// exactReader yields exactly left bytes or an error.
type exactReader struct {
	f    *FS
	ctx  context.Context //nolint:containedctx // of Open, to tell its end from an outage
	key  string
	body io.ReadCloser
	left int64
}

func (r *exactReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.body.Read(p)
	r.left -= int64(n)
	if r.left == 0 && err == nil && r.f.cfg.checksum == checksumSupported {
		_, err = r.body.Read(make([]byte, 1)) // the SDK compares the sum at the end
	}
	switch {
	case err == nil, r.left == 0 && errors.Is(err, io.EOF):
		return n, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = ufs.Errorf(freshet.KindUnavailable, "read", r.key, "the storage's answer ended %d bytes early", r.left)
	default:
		err = r.f.failure(r.ctx, "read", r.key, err, reads)
	}
	return n, err
}

func (r *exactReader) Close() error {
	if err := r.body.Close(); err != nil {
		return r.f.failure(r.ctx, "read", r.key, err, reads)
	}
	return nil
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

// version is what a fingerprint of ours says.
type version struct {
	etag string // without quotes
	size int64
}

// parseWant takes a fingerprint made by fingerprint.S3 apart.
func parseWant(fp fingerprint.Fingerprint) (version, bool) {
	rest, ok := strings.CutPrefix(fp.Content, "s3:")
	size, etag, ok2 := strings.Cut(rest, ":")
	n, err := strconv.ParseInt(size, 10, 64)
	if !ok || !ok2 || err != nil || n < 0 || etag == "" {
		return version{}, false
	}
	return version{etag: etag, size: n}, true
}
