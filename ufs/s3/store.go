package s3

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/object"
)

const (
	// listPage and deleteBatch are the protocol's maxima.
	listPage    = 1000
	deleteBatch = 1000
	// singlePut is the largest object that is written by one PUT. Beyond it an
	// upload is multipart, because only that can be aborted for certain.
	singlePut = 64 << 10
	// maxPart is the protocol's largest part.
	maxPart = 5 << 30
	// opMetadata is the user metadata that carries the operation ID.
	opMetadata = "freshet-op"
)

// store is one bucket. Safe for concurrent use.
type store struct {
	api    *awss3.Client
	http   *http.Client
	cfg    config
	bucket string

	once, again *resender
	live        liveUploads
}

var (
	_ object.Store   = (*store)(nil)
	_ object.Aborter = (*store)(nil)
)

// Limits says what S3 can do.
func (s *store) Limits() object.Limits {
	return object.Limits{
		Kind: scheme, Bucket: s.bucket, ListPage: listPage, DeleteBatch: deleteBatch,
		SinglePut: singlePut, PartSize: s.cfg.partSize, MaxPart: maxPart, MaxParts: dataParts, Concurrency: s.cfg.uploadConcurrency,
		IfAbsent: true, IfMatch: true, OperationMark: true, AbortEndsEffects: true,
		ModTimeResolution: time.Second, MaxOpLifetime: s.cfg.maxOpLifetime,
	}
}

// Close closes idle connections.
func (s *store) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// Head implements object.Store.
func (s *store) Head(ctx context.Context, name string) (object.Object, error) {
	in := &awss3.HeadObjectInput{Bucket: &s.bucket, Key: &name}
	out, err := s.api.HeadObject(ctx, in, s.reading(ctx))
	if status := statusOf(err); status == http.StatusBadRequest || status == http.StatusForbidden {
		// The answer to a HEAD can't say why: that of a listing can, and may have
		// the credentials or the clock set right.
		if _, why := s.List(ctx, object.ListRequest{Prefix: name + "/", Max: 1}); why != nil {
			return object.Object{}, why
		}
		out, err = s.api.HeadObject(ctx, in, s.reading(ctx))
	}
	if statusOf(err) == http.StatusNotFound {
		return object.Object{}, object.Errorf(freshet.KindNotExist, "no such object") // or no such bucket: it has no body
	}
	if err != nil {
		return object.Object{}, s.failure(ctx, err, object.Reads)
	}
	if out.ContentLength == nil || aws.ToString(out.ETag) == "" {
		return object.Object{}, notS3()
	}
	return object.Object{
		Name:        name,
		Size:        *out.ContentLength,
		ModTime:     aws.ToTime(out.LastModified),
		Fingerprint: fingerprint.S3(aws.ToString(out.ETag), *out.ContentLength),
		Op:          opOf(out.Metadata),
	}, nil
}

func notS3() error {
	return object.Errorf(freshet.KindUnavailable, "the endpoint does not answer like an S3 server: no length or no ETag")
}

func opOf(metadata map[string]string) freshet.OpID {
	var id freshet.OpID
	for name, value := range metadata {
		if strings.EqualFold(name, opMetadata) {
			id, _ = freshet.ParseOpID(value)
		}
	}
	return id
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

// match is the header If-Match that asks for v.
func (v version) match() *string { return aws.String(`"` + v.etag + `"`) }

func errOtherKind(fp fingerprint.Fingerprint) error {
	return object.Errorf(freshet.KindStale, "%q is not the version of an S3 object", fp.Content)
}

// liveUploads are the IDs of the multipart uploads of this process that have not
// ended.
type liveUploads struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

func (l *liveUploads) add(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = map[string]struct{}{}
	}
	l.ids[id] = struct{}{}
}

func (l *liveUploads) remove(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ids, id)
}

// has reports whether the upload id is one of this process.
func (l *liveUploads) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.ids[id]
	return ok
}
