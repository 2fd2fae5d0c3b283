// Package s3 owns the driver for S3 and whatever speaks its protocol. It keeps
// the SDK's signing, retries and errors and replaces the parsing of listings,
// which is the SDK's bottleneck. It never caches, and it never sends a request
// that changes what others see a second time: such a request without a definite
// answer is KindDeadline. CompleteMultipartUpload, being idempotent, is the
// exception.
//
// Directories. A key is a directory if its marker, the empty object "key/", or
// any object below "key/" exists. Where both an object "a" and keys below "a/"
// exist, List yields both and Stat gives the file. Keys with an empty, "." or
// ".." segment can't be named and are skipped with a warning.
//
// Uploads of more than 64 KiB are multipart. Their last parts, which are never
// listed in the completion and so never become part of the object, are a mark
// that tells the operation: by it AbortUpload and CleanUploads know the uploads
// of writers that died, and leave alone those of other programs.
package s3

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	listPage = 1000 // keys, the protocol's maximum
	// opMetadata is the user metadata that carries the operation ID.
	opMetadata = "freshet-op"
)

// FS is one prefix of one bucket. Safe for concurrent use.
type FS struct {
	api    *awss3.Client
	http   *http.Client
	cfg    config
	bucket string
	root   string // prefix of every object, "" or "a/b/"
	log    *slog.Logger
	skips  skipCounter
	parts  sync.Pool // *[]byte of cfg.partSize
	now    func() time.Time

	once, again *resender

	queue       *queue // nil without events=sqs:…
	letters     letterCounter
	uncheckable sync.Once

	live     liveUploads
	mu       sync.Mutex
	removing map[string]int // removals under way, by parent directory
}

var _ ufs.FS = (*FS)(nil)

// Features says what S3 can do.
func (f *FS) Features() ufs.Features {
	return ufs.Features{
		Kind:               "s3",
		CreateIfAbsent:     true,
		ReplaceIf:          true,
		AbortEndsEffects:   true,
		OperationMark:      true,
		ModTimeResolution:  time.Second,
		MaxOpLifetime:      f.cfg.maxOpLifetime,
		ListPage:           listPage,
		DirectoryListsSelf: true,
	}
}

// Close closes idle connections.
func (f *FS) Close() error {
	f.http.CloseIdleConnections()
	return nil
}

// SetAttr is unsupported: S3 has no owners and modes.
func (f *FS) SetAttr(_ context.Context, key string, _ ufs.Attr) (ufs.Status, error) {
	return ufs.Status{}, ufs.Errorf(freshet.KindUnsupported, "setattr", key, "S3 keeps no owner, group or mode")
}

// object returns the name of key in the bucket, ready for the SDK.
func (f *FS) object(key string) *string { return aws.String(f.root + key) }

// marker returns the name of the marker of the directory key, which is also the
// prefix of all below it.
func (f *FS) marker(key string) string {
	if key == "" {
		return f.root
	}
	return f.root + key + "/"
}

func directory(key string) ufs.Status {
	return ufs.Status{Key: key, Type: freshet.TypeDirectory}
}

// Stat asks for the object and, if there is none, for any key below it.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	const op = "stat"
	if err := ufs.CheckKey(op, key); err != nil {
		return ufs.Status{}, err
	}
	if ufs.IsTemp(key) {
		return ufs.Status{}, notExist(op, key)
	}
	if key != "" {
		if st, found, err := f.head(ctx, op, key); found || err != nil {
			return st, err
		}
	}
	first, err := f.first(ctx, op, key, 1)
	switch {
	case err != nil:
		return ufs.Status{}, err
	case len(first) == 0 && key != "":
		return ufs.Status{}, notExist(op, key)
	}
	return directory(key), nil
}

// head asks for the object at key. A 404 to a HEAD has no body and may come from
// a missing bucket: who gets found == false must go on to list.
func (f *FS) head(ctx context.Context, op, key string) (st ufs.Status, found bool, err error) {
	in := &awss3.HeadObjectInput{Bucket: &f.bucket, Key: f.object(key)}
	out, err := f.api.HeadObject(ctx, in, f.reading(ctx))
	if s := statusOf(err); s == http.StatusBadRequest || s == http.StatusForbidden {
		// The answer to a HEAD can't say why: that of a listing can, and may have
		// the credentials or the clock set right.
		if _, why := f.first(ctx, op, key, 1); why != nil {
			return ufs.Status{}, false, why
		}
		out, err = f.api.HeadObject(ctx, in, f.reading(ctx))
	}
	if statusOf(err) == http.StatusNotFound {
		return ufs.Status{}, false, nil
	}
	if err != nil {
		return ufs.Status{}, false, f.failure(ctx, op, key, err, reads)
	}
	if out.ContentLength == nil || aws.ToString(out.ETag) == "" {
		return ufs.Status{}, false, ufs.Errorf(freshet.KindUnavailable, op, key, "the endpoint does not answer like an S3 server: no length or no ETag")
	}
	return ufs.Status{
		Key:         key,
		Length:      *out.ContentLength,
		ModTime:     aws.ToTime(out.LastModified),
		Fingerprint: fingerprint.S3(aws.ToString(out.ETag), *out.ContentLength),
		Op:          opOf(out.Metadata),
	}, true, nil
}

// first returns the names, in the bucket, of the first n objects of the
// directory key, its marker included.
func (f *FS) first(ctx context.Context, op, key string, n int32) ([]string, error) {
	prefix := f.marker(key)
	p, err := f.page(ctx, &awss3.ListObjectsV2Input{Bucket: &f.bucket, Prefix: &prefix, MaxKeys: &n})
	if err != nil {
		return nil, f.failure(ctx, op, key, err, reads)
	}
	names := make([]string, 0, len(p.objects))
	for _, o := range p.objects {
		if strings.HasPrefix(o.key, prefix) {
			names = append(names, o.key)
		}
	}
	return names, nil
}

func opOf(metadata map[string]string) freshet.OpID {
	var id freshet.OpID
	for name, value := range metadata {
		if strings.EqualFold(name, opMetadata) {
			id, _ = parseOp(value)
		}
	}
	return id
}
