// Package azblob owns the driver for Azure Blob Storage, which it speaks through
// the Blob API only, also where the account has a hierarchical namespace. It owns
// the requests and what their answers mean; the tree over them is ufs/object. It
// never caches and never sends a request that changes what others see a second
// time.
//
// Versions. A version is the ETag, which Azure renews with every write, and the
// length. It renews it with a change of metadata too, and then blocks are read
// again although no byte changed: the MD5 that Azure may show beside it is what the
// last writer said, unchecked unless the blob was written by one request, so it
// proves nothing.
//
// Uploads. A file of up to one block is written by one Put Blob; a larger one in
// blocks, which Put Block List makes visible all at once. Both keep the operation
// in the metadata. Blocks that were never listed vanish after a week by themselves;
// nobody sees them, and nothing has to remove them. Azure drops the blocks of all
// uploads to a blob when one of them ends: of two large writes to one file at a
// time the first to end wins and the other is KindConflict; for the same reason a
// Put Block List that arrives late can't replace anything newer. It can still
// create or replace the file if nothing else was written meanwhile, and no request
// can call it back: AbortEndsEffects is false.
//
// Directories. Markers "d/" and prefixes as in ufs/object; blobs whose metadata say
// hdi_isfolder=true are directories, as Hadoop's clients and hierarchical
// namespaces show them.
package azblob

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// Names of metadata, of which letter case says nothing.
const (
	opMetadata     = "freshet_op"
	folderMetadata = "hdi_isfolder"
)

// store is one container. Safe for concurrent use.
type store struct {
	api  *container.Client
	http *http.Client
	cfg  config
	sas  *secretCache // nil without a shared access signature

	token  azcore.TokenCredential // nil without tokens
	tokens *http.Client           // asks for them; may be nil
}

var _ object.Store = (*store)(nil)

// Limits says what Azure can do.
func (s *store) Limits() object.Limits {
	return object.Limits{
		Kind: "azure", Bucket: s.cfg.container, ListPage: listPage, DeleteBatch: deleteBatch,
		SinglePut: s.cfg.blockSize, PartSize: s.cfg.blockSize, MaxPart: maxBlock, MaxParts: blocks, Concurrency: s.cfg.uploads,
		DirObjects: true, Segmented: s.cfg.hierarchical, IfAbsent: true, IfMatch: true, OperationMark: true,
		ModTimeResolution: time.Second, MaxOpLifetime: s.cfg.maxOpLifetime,
	}
}

// Close closes idle connections.
func (s *store) Close() error {
	s.http.CloseIdleConnections()
	if s.tokens != nil {
		s.tokens.CloseIdleConnections()
	}
	return nil
}

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// reading returns the context of requests that change nothing, which the SDK sends
// again, unless somebody above does.
func (s *store) reading(ctx context.Context) context.Context {
	if ufs.Repeated(ctx) {
		return ctx
	}
	return s.again(ctx)
}

// again lets the SDK repeat what is done with the context.
func (s *store) again(ctx context.Context) context.Context {
	if s.cfg.retries == 0 {
		return ctx
	}
	retries := int32(s.cfg.retries) //nolint:gosec // at most 20
	return policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: retries, RetryDelay: minBackoff, MaxRetryDelay: maxBackoff})
}

// patience is how long the answer to a request with n bytes of body may take to
// begin: a slow line still does 128 KiB/s.
func (s *store) patience(ctx context.Context, n int) context.Context {
	return httpclient.WithPatience(ctx, s.cfg.timeout+time.Duration(n/(128<<10))*time.Second)
}

// longPatience is for requests in which the server copies or assembles bytes.
func (s *store) longPatience(ctx context.Context) context.Context {
	return httpclient.WithPatience(ctx, max(s.cfg.timeout, min(10*s.cfg.timeout, s.cfg.maxOpLifetime/2)))
}

// said is what an answer tells of a blob.
type said struct {
	name     string
	length   *int64
	etag     *azcore.ETag
	modTime  *time.Time
	metadata map[string]*string
}

func (a said) object() (object.Object, error) {
	if a.length == nil || *a.length < 0 || a.etag == nil || *a.etag == "" {
		return object.Object{}, object.Errorf(freshet.KindUnavailable, "the endpoint does not answer like a blob service: no length or no ETag")
	}
	o := object.Object{Name: a.name, Size: *a.length, Fingerprint: fingerprint.AzureBlob(string(*a.etag), *a.length)}
	if a.modTime != nil {
		o.ModTime = a.modTime.UTC()
	}
	for name, value := range a.metadata {
		switch {
		case value == nil:
		case strings.EqualFold(name, opMetadata):
			o.Op, _ = freshet.ParseOpID(*value)
		case strings.EqualFold(name, folderMetadata):
			o.Dir = strings.EqualFold(*value, "true")
		}
	}
	return o, nil
}

// unnameable reports whether the service would take name for another: to it a
// backslash is a slash.
func unnameable(name string) bool { return strings.Contains(name, `\`) }

// checkName refuses to write what could not be read back.
func checkName(name string) error {
	switch {
	case unnameable(name):
		return object.Errorf(freshet.KindInvalid, "the name has a backslash, which Azure takes for a slash")
	case utf8.RuneCountInString(name) > maxName:
		return object.Errorf(freshet.KindInvalid, "the name has more than %d characters, which is all that Azure takes", maxName)
	}
	return nil
}

func noBlob() error { return object.Errorf(freshet.KindNotExist, "no such blob") }

// Head implements object.Store.
func (s *store) Head(ctx context.Context, name string) (object.Object, error) {
	if unnameable(name) {
		return object.Object{}, noBlob()
	}
	out, err := s.api.NewBlobClient(name).GetProperties(s.reading(ctx), nil)
	if err != nil {
		return object.Object{}, s.failure(ctx, err, object.Reads)
	}
	return said{name, out.ContentLength, out.ETag, out.LastModified, out.Metadata}.object()
}

// List implements object.Store. StartAfter is left to the caller: what Azure
// offers for it is not the same for all kinds of accounts. Only those with a
// hierarchical namespace say of what type an entry is.
func (s *store) List(ctx context.Context, req object.ListRequest) (object.Page, error) {
	size := int32(min(cmp.Or(req.Max, listPage), listPage)) //nolint:gosec // at most listPage
	include := container.ListBlobsInclude{Metadata: true}
	if unnameable(req.Prefix) {
		return object.Page{}, nil
	}
	var token *string
	if req.Token != "" {
		token = &req.Token
	}
	if req.Delimited {
		out, err := s.api.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{
			Prefix: &req.Prefix, MaxResults: &size, Marker: token, Include: include,
		}).NextPage(s.reading(ctx))
		if err != nil {
			return object.Page{}, s.failure(ctx, err, object.Reads)
		}
		if out.Segment == nil {
			return object.Page{}, notAList()
		}
		p, err := page(out.Segment.BlobItems, out.NextMarker)
		for _, prefix := range out.Segment.BlobPrefixes {
			if prefix == nil || prefix.Name == nil {
				return object.Page{}, notAList()
			}
			p.Prefixes = append(p.Prefixes, *prefix.Name)
			p.Segmented = p.Segmented || prefix.Properties != nil && prefix.Properties.ResourceType != nil
		}
		return p, err
	}
	out, err := s.api.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Prefix: &req.Prefix, MaxResults: &size, Marker: token, Include: include,
	}).NextPage(s.reading(ctx))
	if err != nil {
		return object.Page{}, s.failure(ctx, err, object.Reads)
	}
	if out.Segment == nil {
		return object.Page{}, notAList()
	}
	return page(out.Segment.BlobItems, out.NextMarker)
}

func notAList() error {
	return object.Errorf(freshet.KindUnavailable, "the endpoint does not answer like a blob service: this is no list of blobs")
}

func page(items []*container.BlobItem, next *string) (object.Page, error) {
	p := object.Page{Objects: make([]object.Object, 0, len(items))}
	for _, item := range items {
		if item == nil || item.Name == nil || item.Properties == nil {
			return object.Page{}, notAList()
		}
		o, err := said{*item.Name, item.Properties.ContentLength, item.Properties.ETag, item.Properties.LastModified, item.Metadata}.object()
		if err != nil {
			return object.Page{}, err
		}
		if kind := item.Properties.ResourceType; kind != nil {
			p.Segmented = true
			o.Dir = o.Dir || *kind == "directory"
		}
		p.Objects = append(p.Objects, o)
	}
	if next != nil {
		p.Next = *next
	}
	return p, nil
}

// Get implements object.Store.
func (s *store) Get(ctx context.Context, name string, req object.GetRequest) (object.Answer, error) {
	if unnameable(name) {
		return object.Answer{}, noBlob()
	}
	// Also of a whole blob a range is asked for: the answer then says how long the blob
	// is besides how long the answer is, so that one that was cut is seen.
	opts := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: req.Offset, Count: req.Length}}
	if req.Length < 0 {
		opts.Range.Count = max(1, maxBlob-req.Offset)
	}
	if req.Want.Known() {
		etag, ok := etagOf(req.Want)
		if !ok {
			return object.Answer{}, object.Errorf(freshet.KindStale, "%q is not the version of a blob", req.Want.Content)
		}
		opts.AccessConditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &etag}}
	}
	out, err := s.api.NewBlobClient(name).DownloadStream(s.reading(ctx), opts)
	if isRange(err) {
		return object.Answer{}, object.Errorf(freshet.KindInvalid, "%w", errRange)
	}
	if err != nil {
		return object.Answer{}, s.unread(ctx, name, err)
	}
	a, err := answer(name, out)
	if err == nil && out.ContentRange == nil {
		err = object.Errorf(freshet.KindUnavailable, "the endpoint does not answer like a blob service: it ignores the range asked for")
	}
	if err != nil {
		_ = out.Body.Close()
		return object.Answer{}, err
	}
	a.Body = &body{out.Body}
	return a, nil
}

// unread tells a version that was replaced from one that was removed: the service
// answers both with 412.
func (s *store) unread(ctx context.Context, name string, cause error) error {
	err := s.failure(ctx, cause, object.Reads)
	if !freshet.IsKind(err, freshet.KindStale) {
		return err
	}
	if _, headErr := s.Head(ctx, name); freshet.IsKind(headErr, freshet.KindNotExist) {
		return headErr
	}
	return err
}

// body makes the errors of a broken stream ours.
type body struct{ io.ReadCloser }

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader has it
		err = object.Errorf(freshet.KindUnavailable, "%w", err)
	}
	return n, err
}

func answer(name string, out blob.DownloadStreamResponse) (object.Answer, error) {
	a := object.Answer{}
	size := out.ContentLength
	if size == nil {
		return a, object.Errorf(freshet.KindUnavailable, "the endpoint does not answer like a blob service: no length")
	}
	a.Length = *size
	if out.ContentRange != nil {
		first, total, err := parseContentRange(*out.ContentRange)
		if err != nil {
			return a, object.Errorf(freshet.KindUnavailable, "%w", err)
		}
		a.First, size = first, &total
	}
	o, err := said{name, size, out.ETag, out.LastModified, out.Metadata}.object()
	a.Object = o
	return a, err
}

// parseContentRange reads "bytes 0-9/100".
func parseContentRange(text string) (first, size int64, err error) {
	spec, ok := strings.CutPrefix(text, "bytes ")
	span, total, ok2 := strings.Cut(spec, "/")
	from, _, ok3 := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	size, err2 := strconv.ParseInt(total, 10, 64)
	if !ok || !ok2 || !ok3 || err1 != nil || err2 != nil || first < 0 || size < first {
		return 0, 0, fmt.Errorf("unusable Content-Range %.60q", text)
	}
	return first, size, nil
}

// etagOf takes a fingerprint made by fingerprint.AzureBlob apart.
func etagOf(fp fingerprint.Fingerprint) (azcore.ETag, bool) {
	rest, ok := strings.CutPrefix(fp.Content, "azure:")
	size, etag, ok2 := strings.Cut(rest, ":")
	n, err := strconv.ParseInt(size, 10, 64)
	if !ok || !ok2 || err != nil || n < 0 || n == math.MaxInt64 || etag == "" {
		return "", false
	}
	return azcore.ETag(`"` + etag + `"`), true
}
