package s3

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

var _ ufs.Cleaner = (*FS)(nil)

// CleanUploads implements ufs.Cleaner. It aborts the multipart uploads that carry
// the mark of this driver and were begun by nobody in this process. One whose
// writer died between its beginning and its mark can't be told from another
// program's: it is ended only if the option clean_untagged_after allows it, and
// idle for that long. It costs one request per 1,000 uploads, and one or two for
// each that is old enough.
func (f *FS) CleanUploads(ctx context.Context, idle time.Duration) (n int, err error) {
	const what = "clean uploads"
	idle = max(idle, f.store.cfg.maxOpLifetime)
	in := &awss3.ListMultipartUploadsInput{Bucket: &f.store.bucket, Prefix: &f.root}
	for {
		out, err := f.store.api.ListMultipartUploads(ctx, in, f.store.reading(ctx))
		if hasCode(err, "NoSuchUpload") {
			return n, nil // so some servers say that there are none
		}
		if err != nil {
			return n, freshet.Wrap(what, "", f.store.failure(ctx, err, object.Reads))
		}
		for _, u := range out.Uploads {
			ended, err := f.cleanUpload(ctx, u, idle)
			if err != nil {
				return n, freshet.Wrap(what, freshet.Path(strings.TrimPrefix(aws.ToString(u.Key), f.root)), err)
			}
			if ended {
				n++
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return n, nil
		}
		last := aws.ToString(in.KeyMarker) + "\x00" + aws.ToString(in.UploadIdMarker)
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
		if last == aws.ToString(in.KeyMarker)+"\x00"+aws.ToString(in.UploadIdMarker) {
			return n, ufs.Errorf(freshet.KindUnavailable, what, "", "the storage repeats a page of the list of uploads")
		}
	}
}

// cleanUpload aborts u if it is one of ours that was given up.
func (f *FS) cleanUpload(ctx context.Context, u types.MultipartUpload, idle time.Duration) (bool, error) {
	object, id := aws.ToString(u.Key), aws.ToString(u.UploadId)
	if !strings.HasPrefix(object, f.root) || u.Initiated == nil || f.now().Sub(*u.Initiated) < idle || f.store.live.has(id) {
		return false, nil
	}
	m, err := f.store.markOf(ctx, object, id)
	if err != nil {
		return false, err
	}
	if !m.ours(object) {
		if f.store.cfg.cleanForeign == 0 || f.now().Sub(*u.Initiated) < f.store.cfg.cleanForeign {
			return false, nil
		}
		idle = max(idle, f.store.cfg.cleanForeign)
	}
	at, err := f.lastPart(ctx, object, id)
	if err != nil || f.now().Sub(at) < idle {
		return false, err
	}
	err = f.store.abortUpload(ctx, object, id)
	switch {
	case hasCode(err, "NoSuchUpload"):
		return false, nil // somebody was faster
	case err != nil:
		return false, err
	}
	f.log.Info("ended an abandoned upload", "bucket", f.store.bucket, "object", object, "initiated", *u.Initiated, "last_part", at)
	return true, nil
}

// lastPart returns when the latest part of an upload was stored; the zero time if
// there is none.
func (f *FS) lastPart(ctx context.Context, name, id string) (at time.Time, err error) {
	in := &awss3.ListPartsInput{Bucket: &f.store.bucket, Key: &name, UploadId: &id}
	for {
		out, err := f.store.api.ListParts(ctx, in, f.store.reading(ctx))
		if hasCode(err, "NoSuchUpload") {
			return f.now(), nil
		}
		if err != nil {
			return at, f.store.failure(ctx, err, object.Reads)
		}
		for _, p := range out.Parts {
			if t := aws.ToTime(p.LastModified); t.After(at) {
				at = t
			}
		}
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextPartNumberMarker) == aws.ToString(in.PartNumberMarker) {
			return at, nil
		}
		in.PartNumberMarker = out.NextPartNumberMarker
	}
}
