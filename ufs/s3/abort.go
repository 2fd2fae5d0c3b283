package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // it is the storage's ETag, not a protection
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// tagOf is the content of part 10,000 of an upload by op.
func tagOf(op freshet.OpID) []byte { return []byte("freshet-op " + op.String()) }

// tagETag is the ETag that the storage gives to that part.
func tagETag(op freshet.OpID) string {
	sum := md5.Sum(tagOf(op)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// AbortUpload aborts the multipart uploads of op at key, and no others: it knows
// them by their part 10,000. An upload without that part has never been
// completed, for its writer completes it only after the part was stored; but it
// can't be told from another operation's, so ended stays false. So it does for a
// small object, whose single PUT nothing can call back.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (ended bool, err error) {
	const what = "abort upload"
	if err := ufs.CheckWrite(what, key); err != nil {
		return false, err
	}
	if op.IsZero() {
		return false, ufs.Errorf(freshet.KindInvalid, what, key, "no operation ID")
	}
	ids, err := f.uploads(ctx, what, key, op)
	if err != nil {
		return false, err
	}
	aborted := false
	for _, id := range ids {
		switch err := f.abortUpload(ctx, what, key, id); {
		case err == nil:
			aborted = true
		case is(err, 0, "NoSuchUpload"): // completed meanwhile: the object tells
		default:
			return false, err
		}
	}
	if aborted {
		return true, nil
	}
	st, found, err := f.head(ctx, what, key)
	if err != nil {
		return false, err
	}
	return found && st.Op == op && multipart(st), nil
}

// multipart reports whether st is of an object that was uploaded in parts.
func multipart(st ufs.Status) bool {
	v, ok := parseWant(st.Fingerprint)
	_, n, found := strings.Cut(v.etag, "-")
	_, err := strconv.Atoi(n)
	return ok && found && err == nil
}

func (f *FS) abortUpload(ctx context.Context, op, key, id string) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = cleanup(ctx)
		defer cancel()
	}
	_, err := f.api.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &f.bucket, Key: f.object(key), UploadId: &id})
	return f.failure(ctx, op, key, err, reads)
}

// uploads returns the IDs of the uploads of op at key that have not ended.
func (f *FS) uploads(ctx context.Context, what, key string, op freshet.OpID) ([]string, error) {
	object := *f.object(key)
	var ids []string
	in := &awss3.ListMultipartUploadsInput{Bucket: &f.bucket, Prefix: &object}
	for {
		out, err := f.api.ListMultipartUploads(ctx, in)
		if err != nil {
			return nil, f.failure(ctx, what, key, err, reads)
		}
		for _, u := range out.Uploads {
			if aws.ToString(u.Key) != object {
				continue
			}
			tagged, err := f.tagged(ctx, what, key, aws.ToString(u.UploadId), op)
			if err != nil {
				return nil, err
			}
			if tagged {
				ids = append(ids, aws.ToString(u.UploadId))
			}
		}
		// The listing is in the order of keys: beyond ours nothing is of interest.
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextKeyMarker) > object {
			return ids, nil
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}

func (f *FS) tagged(ctx context.Context, what, key, id string, op freshet.OpID) (bool, error) {
	out, err := f.api.ListParts(ctx, &awss3.ListPartsInput{
		Bucket: &f.bucket, Key: f.object(key), UploadId: &id,
		PartNumberMarker: aws.String(strconv.Itoa(tagPart - 1)), MaxParts: aws.Int32(1),
	})
	if is(err, http.StatusNotFound) {
		return false, nil // it ended meanwhile
	}
	if err != nil {
		return false, f.failure(ctx, what, key, err, reads)
	}
	for _, p := range out.Parts {
		if aws.ToInt32(p.PartNumber) == tagPart && strings.Trim(aws.ToString(p.ETag), `"`) == tagETag(op) {
			return true, nil
		}
	}
	return false, nil
}
