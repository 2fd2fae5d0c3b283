package engine

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3response"
)

// etagAttribute is the name under which the gateway keeps an object's ETag.
const etagAttribute = "etag"

// faithful mends what the POSIX backend does otherwise than S3.
//
// Reads: the backend reads attributes by path and the body from a file that it
// opens later, so a read that overlaps an overwrite can pair one version's ETag
// with another's body. An object's file is never changed once it is linked: a read
// is of one version if the path named the same file before and after.
//
// Writes: an upload whose client goes in the middle would become an object of the
// bytes that came. And an upload that is aborted while it is completed could do
// both, where S3 ends it once.
type faithful struct {
	*posix.Posix
	root string
	meta meta.MetadataStorer
	ends *[64]sync.Mutex // by the ID of an upload that is to end
}

// end returns the lock that who ends an upload holds.
func (c faithful) end(id *string) *sync.Mutex {
	h := fnv.New32a()
	if id != nil {
		_, _ = h.Write([]byte(*id)) // never fails
	}
	return &c.ends[h.Sum32()%uint32(len(c.ends))]
}

// CompleteMultipartUpload is not done while the upload is aborted.
func (c faithful) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	lock := c.end(in.UploadId)
	lock.Lock()
	defer lock.Unlock()
	return c.Posix.CompleteMultipartUpload(ctx, in)
}

// AbortMultipartUpload is not done while the upload is completed.
func (c faithful) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	lock := c.end(in.UploadId)
	lock.Lock()
	defer lock.Unlock()
	return c.Posix.AbortMultipartUpload(ctx, in)
}

// identity of the file under a path; the zero value stands for none. An inode
// number is used again soon, the change time with it is not.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func (c faithful) identify(bucket, key string) identity {
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(c.root, bucket, key), &st); err != nil {
		return identity{}
	}
	return statIdentity(&st)
}

// GetObject retries until body and attributes are of one version.
func (c faithful) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	for {
		before := c.identify(*in.Bucket, *in.Key)
		out, err := c.Posix.GetObject(ctx, in)
		if before == c.identify(*in.Bucket, *in.Key) || ctx.Err() != nil {
			return out, err
		}
		if err == nil && out.Body != nil {
			_ = out.Body.Close()
		}
	}
}

// HeadObject retries until all attributes are of one version.
func (c faithful) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	for {
		before := c.identify(*in.Bucket, *in.Key)
		out, err := c.Posix.HeadObject(ctx, in)
		if before == c.identify(*in.Bucket, *in.Key) || ctx.Err() != nil {
			return out, err
		}
	}
}

// ListObjects repairs entries whose attributes are of two versions.
func (c faithful) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	out, err := c.Posix.ListObjects(ctx, in)
	c.repair(*in.Bucket, out.Contents)
	return out, err
}

// ListObjectsV2 repairs entries whose attributes are of two versions.
func (c faithful) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	out, err := c.Posix.ListObjectsV2(ctx, in)
	c.repair(*in.Bucket, out.Contents)
	return out, err
}

// repair reads again each entry that its file has outrun. An entry whose file is
// gone stays: it was there during the listing.
func (c faithful) repair(bucket string, entries []s3response.Object) {
	for i := range entries {
		o := &entries[i]
		if o.Key == nil || o.Size == nil || o.LastModified == nil {
			continue
		}
		path := filepath.Join(c.root, bucket, *o.Key)
		fi, err := os.Stat(path)
		if err != nil || fi.IsDir() || (fi.Size() == *o.Size && fi.ModTime().Equal(*o.LastModified)) {
			continue
		}
		if etag, fi, err := c.entry(bucket, *o.Key); err == nil {
			size, mtime := fi.Size(), fi.ModTime()
			o.ETag, o.Size, o.LastModified = &etag, &size, &mtime
		}
	}
}

// entry reads the listed attributes of one version.
func (c faithful) entry(bucket, key string) (string, fs.FileInfo, error) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		before := c.identify(bucket, key)
		fi, err := os.Stat(filepath.Join(c.root, bucket, key))
		if err != nil {
			return "", nil, err
		}
		etag, err := c.meta.RetrieveAttribute(nil, bucket, key, etagAttribute)
		if err != nil {
			return "", nil, err
		}
		if before == c.identify(bucket, key) {
			return string(etag), fi, nil
		}
	}
	return "", nil, errors.New("overwritten all the time")
}

// PutObject refuses a body that ends early.
func (c faithful) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	in.Body = wholeBody(in.Body, in.ContentLength)
	return c.Posix.PutObject(ctx, in)
}

// UploadPart refuses a body that ends early.
func (c faithful) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	whole := *in
	whole.Body = wholeBody(in.Body, in.ContentLength)
	return c.Posix.UploadPart(ctx, &whole)
}

// errCutShort is not io.ErrUnexpectedEOF, which the gateway takes for the end.
var errCutShort = errors.New("the request ended before its announced length")

// wholeBody turns an end before the announced length into an error: to the
// gateway's HTTP server the end of a connection is the end of the body.
func wholeBody(body io.Reader, length *int64) io.Reader {
	if body == nil || length == nil {
		return body
	}
	whole := &lengthReader{r: body, left: *length}
	// The backend asks the body's type for the checksum that its trailer brings.
	if sum, ok := body.(middlewares.ChecksumReader); ok {
		return checksumReader{lengthReader: whole, sum: sum}
	}
	return whole
}

type checksumReader struct {
	*lengthReader
	sum middlewares.ChecksumReader
}

// Algorithm names the checksum of the trailer, if any.
func (c checksumReader) Algorithm() string { return c.sum.Algorithm() }

// Checksum is the trailer's.
func (c checksumReader) Checksum() string { return c.sum.Checksum() }

type lengthReader struct {
	r    io.Reader
	left int64
}

// Read reads the body.
func (l *lengthReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if errors.Is(err, io.EOF) && l.left > 0 {
		err = errCutShort
	}
	return n, err
}
