package s3

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// maxCopy is the largest object that one CopyObject can copy.
	maxCopy = 5 << 30
	// copyPart is the part size of a multipart copy.
	copyPart = 1 << 30
	// parallelCopies is how many objects of a directory are copied at a time.
	parallelCopies = 8
)

// Rename copies and deletes. A directory is copied object by object, then
// deleted; a hidden object in the new directory tells the state, so that the same
// call made again after a failure goes on where it ended.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	const op = "rename"
	for _, key := range []string{from, to} {
		if err := ufs.CheckWrite(op, key); err != nil {
			return ufs.Status{}, err
		}
	}
	if strings.HasPrefix(to, from+"/") {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, from, "cannot move it into its own subtree %q", to)
	}
	src, isFile, err := f.head(ctx, op, from)
	switch {
	case err != nil:
		return ufs.Status{}, err
	case from == to:
		return f.Stat(ctx, from)
	case isFile:
		return f.renameFile(ctx, src, to)
	}
	st, err := f.renameDir(ctx, from, to)
	return st, begun(err)
}

func (f *FS) renameFile(ctx context.Context, src ufs.Status, to string) (ufs.Status, error) {
	const op = "rename"
	if err := f.checkWay(ctx, op, to); err != nil {
		return ufs.Status{}, err
	}
	st, err := f.copyObject(ctx, src, to)
	if err != nil {
		return ufs.Status{}, err
	}
	err = f.leaving(ctx, op, src.Key, func() error { return f.delete(ctx, op, src.Key, *f.object(src.Key)) })
	return st, begun(err)
}

// copyObject copies the version src to the key to.
func (f *FS) copyObject(ctx context.Context, src ufs.Status, to string) (ufs.Status, error) {
	const op = "rename"
	v, ok := parseWant(src.Fingerprint)
	if !ok {
		return ufs.Status{}, ufs.Errorf(freshet.KindUnsupported, op, src.Key, "the storage gives no ETag by which the copy could be made safe")
	}
	source, match := f.copySource(*f.object(src.Key)), aws.String(`"`+v.etag+`"`)
	if src.Length > f.cfg.maxCopy {
		return f.copyParts(ctx, src, to, source, match)
	}
	out, err := f.api.CopyObject(withPatience(ctx, f.cfg.longPatience()), &awss3.CopyObjectInput{
		Bucket: &f.bucket, Key: f.object(to), CopySource: source, CopySourceIfMatch: match,
	}, f.sendOnce)
	if err != nil {
		return ufs.Status{}, f.failure(ctx, op, src.Key, err, changes)
	}
	st := src
	st.Key = to
	if out.CopyObjectResult != nil {
		st.ModTime = aws.ToTime(out.CopyObjectResult.LastModified)
		st.Fingerprint = fingerprint.S3(aws.ToString(out.CopyObjectResult.ETag), src.Length)
	}
	return st, nil
}

func (f *FS) copySource(object string) *string {
	segments := strings.Split(object, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	// "+" is a space to some servers.
	return aws.String(f.bucket + "/" + strings.ReplaceAll(strings.Join(segments, "/"), "+", "%2B"))
}

// copyParts copies an object that is too large for CopyObject.
func (f *FS) copyParts(ctx context.Context, src ufs.Status, to string, source, match *string) (ufs.Status, error) {
	const op = "rename"
	head, err := f.api.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &f.bucket, Key: f.object(src.Key), IfMatch: match}, f.reading(ctx))
	if err != nil {
		return ufs.Status{}, f.failure(ctx, op, src.Key, err, reads)
	}
	up, err := f.api.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{
		Bucket: &f.bucket, Key: f.object(to), Metadata: head.Metadata, ContentType: head.ContentType,
		ContentEncoding: head.ContentEncoding, CacheControl: head.CacheControl, ContentDisposition: head.ContentDisposition,
		ContentLanguage: head.ContentLanguage, ChecksumAlgorithm: f.cfg.algorithm(),
	})
	if err != nil {
		return ufs.Status{}, f.failure(ctx, op, to, err, reads)
	}
	w := &writer{f: f, key: to, uploadID: up.UploadId, total: src.Length, opts: ufs.CreateOptions{Op: opOf(head.Metadata)}}
	w.ctx, w.cancel = context.WithCancel(ctx)
	defer w.cancel()
	f.live.named(*w.uploadID)
	defer f.live.remove(w)
	w.run(func() error { return w.tag(w.ctx) })
	w.parts, err = f.copyAll(ctx, src, w, source, match)
	w.wg.Wait()
	var st ufs.Status
	tried := false
	if err = cmp.Or(err, w.failed()); err == nil {
		st, err = w.complete(ctx, op)
		tried = true
	}
	if err != nil && (definite(err) || !tried) {
		_ = f.abortUpload(ctx, op, to, *up.UploadId) // the cleaner finds what this leaves behind
	}
	return st, err
}

func (f *FS) copyAll(ctx context.Context, src ufs.Status, w *writer, source, match *string) ([]types.CompletedPart, error) {
	size := f.cfg.copyPart
	parts := make([]types.CompletedPart, (src.Length+size-1)/size)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(f.cfg.uploadConcurrency)
	for i := range parts {
		group.Go(func() error {
			first := int64(i) * size
			number := aws.Int32(int32(i + 1)) //nolint:gosec // at most 10,000 parts exist
			out, err := f.api.UploadPartCopy(withPatience(ctx, f.cfg.longPatience()), &awss3.UploadPartCopyInput{
				Bucket: &f.bucket, Key: f.object(w.key), UploadId: w.uploadID, PartNumber: number,
				CopySource: source, CopySourceIfMatch: match,
				CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", first, min(first+size, src.Length)-1)),
			})
			if err != nil {
				return f.failure(ctx, "rename", src.Key, err, reads)
			}
			parts[i] = types.CompletedPart{PartNumber: number, ETag: out.CopyPartResult.ETag}
			if f.cfg.checksum == checksumSupported && aws.ToString(out.CopyPartResult.ChecksumCRC32) != "" {
				parts[i].ChecksumCRC32 = out.CopyPartResult.ChecksumCRC32
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return parts, nil
}

// renameState is the hidden object in the new directory.
type renameState string

const (
	renameNone   renameState = ""
	renameCopies renameState = "copying"
	renameCopied renameState = "copied" // from here on nothing is copied again
)

func (f *FS) renameDir(ctx context.Context, from, to string) (ufs.Status, error) {
	const op = "rename"
	sum := sha256.Sum256([]byte(from))
	name := f.marker(to) + ufs.TempPrefix + "rename-" + hex.EncodeToString(sum[:8])
	state, err := f.renameState(ctx, from, to, name)
	if err != nil {
		return ufs.Status{}, err
	}
	if state == renameNone {
		if err := f.setRename(ctx, to, name, renameCopies); err != nil {
			return ufs.Status{}, err
		}
	}
	if state != renameCopied {
		if err := f.copyTree(ctx, from, to); err != nil {
			return ufs.Status{}, err
		}
		if err := f.setRename(ctx, to, name, renameCopied); err != nil {
			return ufs.Status{}, err
		}
	}
	if err := f.leaving(ctx, op, from, func() error { return f.deleteTree(ctx, op, from) }); err != nil {
		return ufs.Status{}, err
	}
	return directory(to), f.delete(ctx, op, to, name)
}

// renameState tells how far an earlier call came, and refuses a new move whose
// source is missing or whose destination is taken.
func (f *FS) renameState(ctx context.Context, from, to, name string) (renameState, error) {
	const op = "rename"
	source, err := f.first(ctx, op, from, 1)
	if err != nil {
		return renameNone, err
	}
	target, err := f.first(ctx, op, to, 1)
	if err != nil {
		return renameNone, err
	}
	if len(target) > 0 {
		out, err := f.api.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &f.bucket, Key: &name}, f.reading(ctx))
		switch {
		case err == nil:
			return renameState(out.Metadata[renameMetadata]), nil
		case statusOf(err) != http.StatusNotFound:
			return renameNone, f.failure(ctx, op, to, err, reads)
		}
	}
	if len(source) == 0 {
		return renameNone, notExist(op, from)
	}
	if len(target) > 0 {
		return renameNone, ufs.Errorf(freshet.KindExist, op, to, "the directory exists")
	}
	_, found, err := f.head(ctx, op, to)
	switch {
	case err != nil:
		return renameNone, err
	case found:
		return renameNone, ufs.Errorf(freshet.KindConflict, op, to, "is a file; a directory can't replace it")
	}
	return renameNone, f.checkParents(ctx, op, to)
}

// renameMetadata holds the renameState.
const renameMetadata = "freshet-rename"

func (f *FS) setRename(ctx context.Context, to, name string, state renameState) error {
	_, err := f.api.PutObject(ctx, &awss3.PutObjectInput{
		Bucket: &f.bucket, Key: &name, Metadata: map[string]string{renameMetadata: string(state)},
	}, f.sendOnce)
	return f.failure(ctx, "rename", to, err, changes)
}

// copyTree copies every object below from, page by page.
func (f *FS) copyTree(ctx context.Context, from, to string) error {
	const op = "rename"
	prefix := f.marker(from)
	in := &awss3.ListObjectsV2Input{Bucket: &f.bucket, Prefix: &prefix}
	for {
		p, err := f.page(ctx, in)
		if err != nil {
			return f.failure(ctx, op, from, err, reads)
		}
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(parallelCopies)
		for _, o := range slices.DeleteFunc(p.objects, func(o object) bool { return !strings.HasPrefix(o.key, prefix) }) {
			group.Go(func() error {
				rest := o.key[len(prefix):]
				if o.size == 0 && (rest == "" || strings.HasSuffix(rest, "/")) {
					return f.mark(gctx, op, strings.TrimSuffix(to+"/"+rest, "/")) // some servers can't copy it
				}
				src := ufs.Status{
					Key: o.key[len(f.root):], Length: o.size, ModTime: o.modTime,
					Fingerprint: fingerprint.S3(o.etag, o.size),
				}
				_, err := f.copyObject(gctx, src, to+"/"+rest)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if p.next == "" {
			return nil
		}
		in.ContinuationToken = &p.next
	}
}

// longPatience is for requests in which the server copies or assembles bytes.
func (c config) longPatience() time.Duration {
	return max(c.requestTimeout, min(10*c.requestTimeout, c.maxOpLifetime/2))
}
