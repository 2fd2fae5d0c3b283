package s3

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Mkdir writes the marker of a directory; its parents, if missing, exist as
// prefixes of it.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	const op = "mkdir"
	if key == "" && opts.Existing {
		return f.Stat(ctx, key)
	}
	if key == "" {
		return ufs.Status{}, ufs.Errorf(freshet.KindExist, op, key, "the root exists")
	}
	if err := ufs.CheckWrite(op, key); err != nil {
		return ufs.Status{}, err
	}
	_, found, err := f.head(ctx, op, key)
	if err != nil {
		return ufs.Status{}, err
	}
	if found {
		return ufs.Status{}, ufs.Errorf(freshet.KindExist, op, key, "a file is there")
	}
	first, err := f.first(ctx, op, key, 1)
	switch {
	case err != nil:
		return ufs.Status{}, err
	case len(first) == 0:
		err = f.checkParents(ctx, op, key)
	case !opts.Existing:
		err = ufs.Errorf(freshet.KindExist, op, key, "the directory exists")
	case first[0] == f.marker(key):
		return directory(key), nil
	}
	if err != nil {
		return ufs.Status{}, err
	}
	if err := f.mark(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	return directory(key), nil
}

// mark writes the marker of the directory key.
func (f *FS) mark(ctx context.Context, op, key string) error {
	_, err := f.api.PutObject(ctx, &awss3.PutObjectInput{
		Bucket: &f.bucket, Key: aws.String(f.marker(key)), ContentType: aws.String("application/x-directory"),
	}, f.sendOnce)
	return f.failure(ctx, op, key, err, changes)
}

// Remove removes an object, or a directory with all below it. The directory that
// held it stays: where that was only a prefix, its marker is written first.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	const op = "remove"
	if err := ufs.CheckWrite(op, key); err != nil {
		return err
	}
	_, found, err := f.head(ctx, op, key)
	if err != nil {
		return err
	}
	if found {
		return f.leaving(ctx, op, key, func() error { return f.delete(ctx, op, key, *f.object(key)) })
	}
	first, err := f.first(ctx, op, key, 2)
	switch {
	case err != nil:
		return err
	case len(first) == 0:
		return notExist(op, key)
	case !opts.Recursive && (len(first) > 1 || first[0] != f.marker(key)):
		return ufs.Errorf(freshet.KindConflict, op, key, "directory is not empty")
	}
	return f.leaving(ctx, op, key, func() error { return f.deleteTree(ctx, op, key) })
}

// leaving runs remove, which takes away key, so that the parent directory does
// not vanish with its last child. Removals that run beside it in the same
// directory count as done; those of other processes can't be seen.
func (f *FS) leaving(ctx context.Context, op, key string, remove func() error) error {
	parent := ufs.ParentKey(key)
	if parent == "" {
		return remove()
	}
	f.mu.Lock()
	f.removing[parent]++
	others := f.removing[parent] > 1
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.removing[parent]--; f.removing[parent] == 0 {
			delete(f.removing, parent)
		}
	}()
	if err := f.keep(ctx, op, parent, key, others); err != nil {
		return err
	}
	return remove()
}

// keep writes the marker of dir unless it is there, or something other than
// child is and nobody else is removing.
func (f *FS) keep(ctx context.Context, op, dir, child string, others bool) error {
	prefix := f.marker(dir)
	p, err := f.page(ctx, &awss3.ListObjectsV2Input{
		Bucket: &f.bucket, Prefix: &prefix, Delimiter: aws.String("/"), MaxKeys: aws.Int32(2),
	})
	if err != nil {
		return f.failure(ctx, op, dir, err, reads)
	}
	entries := p.prefixes
	for _, o := range p.objects {
		if o.key == prefix {
			return nil
		}
		entries = append(entries, o.key)
	}
	for _, name := range entries {
		if !others && name != *f.object(child) && name != f.marker(child) {
			return nil
		}
	}
	if len(entries) == 0 {
		return nil // it vanished already
	}
	return f.mark(ctx, op, dir)
}

func (f *FS) delete(ctx context.Context, op, key, object string) error {
	_, err := f.api.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &f.bucket, Key: &object}, f.sendOnce)
	if hasCode(err, "NoSuchKey") {
		return nil
	}
	return f.failure(ctx, op, key, err, changes)
}

// deleteTree removes all objects below key in batches, one per page of the
// listing, each from its end to its start, and the marker of key last: the tree
// is there until nothing is in it.
func (f *FS) deleteTree(ctx context.Context, op, key string) error {
	prefix := f.marker(key)
	in := &awss3.ListObjectsV2Input{Bucket: &f.bucket, Prefix: &prefix}
	for {
		p, err := f.page(ctx, in)
		if err != nil {
			return f.failure(ctx, op, key, err, reads)
		}
		names := make([]string, 0, len(p.objects))
		for _, o := range slices.Backward(p.objects) {
			if strings.HasPrefix(o.key, prefix) && o.key != prefix {
				names = append(names, o.key)
			}
		}
		if err := f.deleteBatch(ctx, op, key, names); err != nil {
			if in.ContinuationToken != nil {
				err = begun(err)
			}
			return err
		}
		if p.next == "" {
			if err = f.delete(ctx, op, key, prefix); in.ContinuationToken != nil || len(names) > 0 {
				err = begun(err)
			}
			return err
		}
		in.ContinuationToken = &p.next
	}
}

func (f *FS) deleteBatch(ctx context.Context, op, key string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if len(names) == 1 {
		return f.delete(ctx, op, key, names[0])
	}
	ids := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		ids[i].Key = &names[i]
	}
	out, err := f.api.DeleteObjects(withPatience(ctx, f.cfg.longPatience()), &awss3.DeleteObjectsInput{
		Bucket: &f.bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	}, f.sendOnce)
	if err != nil {
		return f.failure(ctx, op, key, err, changes)
	}
	for _, e := range out.Errors {
		code := aws.ToString(e.Code)
		if code == "NoSuchKey" {
			continue
		}
		kind := freshet.KindDeadline // of one object; it may still go
		if code == "AccessDenied" {
			kind = freshet.KindPermission
		}
		return ufs.Errorf(kind, op, key, "S3 refused to delete %d objects, the first, %q, with %s: %.200s",
			len(out.Errors), aws.ToString(e.Key), code, aws.ToString(e.Message))
	}
	return nil
}
