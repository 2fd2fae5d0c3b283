package s3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// maxListAnswer bounds one page: 1,000 keys of 1 KiB, all escaped, fit easily.
const maxListAnswer = 16 << 20

// List yields the entries below dir, one request per page; one more if nothing
// at all is there, to tell a file from nothing.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		l := lister{f: f, dir: dir, prefix: f.marker(dir), opts: opts, yield: yield}
		if err := l.run(ctx); err != nil {
			yield(ufs.Status{}, err)
		}
	}
}

// lister is one run of List.
type lister struct {
	f      *FS
	dir    string
	prefix string // in the bucket
	opts   ufs.ListOptions
	yield  func(ufs.Status, error) bool

	last    string // name in the bucket of the entry before
	stopped bool   // by the consumer
	any     bool   // something was below prefix
	skipped int
	example string // one of the skipped
}

func (l *lister) run(ctx context.Context) error {
	const op = "list"
	if err := ufs.CheckKey(op, l.dir); err != nil {
		return err
	}
	if ufs.IsTemp(l.dir) {
		return notExist(op, l.dir)
	}
	in := l.request()
	for {
		p, err := l.f.page(ctx, in)
		if err != nil {
			return l.f.failure(ctx, op, l.dir, err, reads)
		}
		if err := l.emit(p); err != nil || l.stopped {
			return err
		}
		if p.next == "" {
			break
		}
		if in.ContinuationToken != nil && *in.ContinuationToken == p.next {
			return ufs.Errorf(freshet.KindUnavailable, op, l.dir, "the storage repeats a page of the listing")
		}
		in.StartAfter, in.ContinuationToken = nil, &p.next
	}
	l.warn()
	if l.any || l.dir == "" || in.StartAfter != nil || in.ContinuationToken != nil {
		return nil
	}
	return l.missing(ctx, op)
}

func (l *lister) request() *awss3.ListObjectsV2Input {
	in := &awss3.ListObjectsV2Input{Bucket: &l.f.bucket, Prefix: &l.prefix}
	if !l.opts.Recursive {
		slash := "/"
		in.Delimiter = &slash
	}
	if after := l.f.root + l.opts.StartAfter; l.opts.StartAfter != "" && after > l.prefix {
		in.StartAfter = &after
	}
	if n := min(l.opts.PageSize, listPage); n > 0 {
		size := int32(n) //nolint:gosec // at most listPage
		in.MaxKeys = &size
	}
	return in
}

// missing tells why there is nothing at dir.
func (l *lister) missing(ctx context.Context, op string) error {
	_, found, err := l.f.head(ctx, op, l.dir)
	switch {
	case err != nil:
		return err
	case found:
		return ufs.Errorf(freshet.KindConflict, op, l.dir, "is not a directory")
	}
	return notExist(op, l.dir)
}

// emit merges the objects and the common prefixes of a page, each in order, and
// yields them.
func (l *lister) emit(p page) error {
	if !slices.IsSortedFunc(p.objects, func(a, b object) int { return cmp.Compare(a.key, b.key) }) {
		slices.SortFunc(p.objects, func(a, b object) int { return cmp.Compare(a.key, b.key) })
	}
	if !slices.IsSorted(p.prefixes) {
		slices.Sort(p.prefixes)
	}
	objects, prefixes := p.objects, p.prefixes
	for len(objects)+len(prefixes) > 0 && !l.stopped {
		var o object
		if len(objects) == 0 || len(prefixes) > 0 && prefixes[0] < objects[0].key {
			o, prefixes = object{key: prefixes[0]}, prefixes[1:]
		} else {
			o, objects = objects[0], objects[1:]
		}
		if !strings.HasPrefix(o.key, l.prefix) {
			return ufs.Errorf(freshet.KindUnavailable, "list", l.dir, "the storage lists %q, which does not begin with %q", o.key, l.prefix)
		}
		l.any = true
		switch {
		case o.key == l.last:
			continue // some servers repeat a common prefix on the next page
		case o.key < l.last:
			return ufs.Errorf(freshet.KindUnavailable, "list", l.dir, "the storage lists out of order: %q after %q", o.key, l.last)
		}
		l.entry(o)
		l.last = o.key
	}
	return nil
}

// entry yields what the name o.key in the bucket stands for: a file, or the
// directories on the way to it that were not yet seen.
func (l *lister) entry(o object) {
	start := len(l.prefix)
	for i := start; i < len(o.key); {
		end := strings.IndexByte(o.key[i:], '/')
		name := o.key[i:]
		if end >= 0 {
			end += i
			name = o.key[i:end]
		}
		switch {
		case name == "" || name == "." || name == "..":
			l.skipped++
			l.example = o.key
			return
		case strings.HasPrefix(name, ufs.TempPrefix):
			return
		case end < 0:
			l.send(ufs.Status{
				Key: o.key[len(l.f.root):], Length: o.size, ModTime: o.modTime,
				Fingerprint: fingerprint.S3(o.etag, o.size),
			})
			return
		case !strings.HasPrefix(l.last, o.key[:end+1]):
			l.send(directory(o.key[len(l.f.root):end]))
		}
		i = end + 1
	}
}

func (l *lister) send(st ufs.Status) {
	if l.stopped || l.opts.StartAfter != "" && st.SortKey() <= l.opts.StartAfter {
		return
	}
	l.stopped = !l.yield(st, nil)
}

func (l *lister) warn() {
	if l.skipped == 0 {
		return
	}
	l.f.skips.add(l.skipped)
	l.f.log.Warn("skipped object names that no path can name: they have an empty, \".\" or \"..\" segment",
		"bucket", l.f.bucket, "prefix", l.prefix, "count", l.skipped, "example", l.example)
}

// page runs one ListObjectsV2 with the SDK's signing, transport, retries and
// errors, but with our parser.
func (f *FS) page(ctx context.Context, in *awss3.ListObjectsV2Input) (page, error) {
	var p page
	_, err := f.api.ListObjectsV2(ctx, in, f.reading(ctx), func(o *awss3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			d := &pageDeserializer{f: f, page: &p}
			sdk, err := stack.Deserialize.Swap(d.ID(), d)
			d.sdk = sdk
			return err
		})
	})
	return p, err
}

// pageDeserializer stands in for the SDK's deserializer of ListObjectsV2.
type pageDeserializer struct {
	f    *FS
	page *page
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

func readPage(body io.ReadCloser, length int64) (page, error) {
	defer func() { _ = body.Close() }()
	if length > maxListAnswer {
		return page{}, fmt.Errorf("%w: %d bytes, more than %d", errTooLarge, length, maxListAnswer)
	}
	var buf bytes.Buffer
	buf.Grow(int(max(length, 0)) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(body, maxListAnswer+1))
	switch {
	case err != nil:
		return page{}, &brokenAnswerError{err}
	case n > maxListAnswer:
		return page{}, fmt.Errorf("%w: more than %d bytes", errTooLarge, maxListAnswer)
	}
	p, err := parsePage(buf.Bytes())
	if err != nil {
		return page{}, &smithy.DeserializationError{Err: err}
	}
	return p, nil
}
