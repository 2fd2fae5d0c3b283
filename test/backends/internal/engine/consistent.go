package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3response"
)

// etagAttribute is the name under which the gateway keeps an object's ETag.
const etagAttribute = "etag"

// consistent makes reads of the POSIX backend atomic. The backend reads attributes
// by path and the body from a file that it opens later, so a read that overlaps an
// overwrite can pair one version's ETag with another's body, which S3 never does.
// An object's file is never changed once it is linked: a read is of one version if
// the path named the same file before and after.
type consistent struct {
	*posix.Posix
	root string
	meta meta.MetadataStorer
}

// identity of the file under a path; the zero value stands for none. An inode
// number is used again soon, the change time with it is not.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func (c consistent) identify(bucket, key string) identity {
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(c.root, bucket, key), &st); err != nil {
		return identity{}
	}
	return statIdentity(&st)
}

// GetObject retries until body and attributes are of one version.
func (c consistent) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
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
func (c consistent) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	for {
		before := c.identify(*in.Bucket, *in.Key)
		out, err := c.Posix.HeadObject(ctx, in)
		if before == c.identify(*in.Bucket, *in.Key) || ctx.Err() != nil {
			return out, err
		}
	}
}

// ListObjects repairs entries whose attributes are of two versions.
func (c consistent) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	out, err := c.Posix.ListObjects(ctx, in)
	c.repair(*in.Bucket, out.Contents)
	return out, err
}

// ListObjectsV2 repairs entries whose attributes are of two versions.
func (c consistent) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	out, err := c.Posix.ListObjectsV2(ctx, in)
	c.repair(*in.Bucket, out.Contents)
	return out, err
}

// repair reads again each entry that its file has outrun. An entry whose file is
// gone stays: it was there during the listing.
func (c consistent) repair(bucket string, entries []s3response.Object) {
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
func (c consistent) entry(bucket, key string) (string, fs.FileInfo, error) {
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
