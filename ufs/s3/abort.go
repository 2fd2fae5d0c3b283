package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // it is the storage's ETag, not a protection
	"encoding/hex"
	"strconv"
	"strings"
	"sync"

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
// small object, whose single PUT nothing can call back, and where the storage's
// ETag of a part is not its MD5 (server-side encryption with KMS). An operation
// must not have two writers at a time.
func (f *FS) AbortUpload(ctx context.Context, key string, op freshet.OpID) (ended bool, err error) {
	const what = "abort upload"
	if err := ufs.CheckWrite(what, key); err != nil {
		return false, err
	}
	if op.IsZero() {
		return false, ufs.Errorf(freshet.KindInvalid, what, key, "no operation ID")
	}
	aborted := f.live.revoke(key, op)
	ids, err := f.uploads(ctx, what, key, op)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		gone, err := f.abortForGood(ctx, what, key, id, op)
		if err != nil {
			return false, err
		}
		aborted = aborted || gone
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

// abortForGood aborts until the storage no longer knows the upload: a part that
// was under way may have outlived the first time. It reports whether the storage
// confirmed an abort; it does not when the upload was completed meanwhile.
func (f *FS) abortForGood(ctx context.Context, what, key, id string, op freshet.OpID) (bool, error) {
	for aborted := false; ; aborted = true {
		err := f.abortUpload(ctx, what, key, id)
		if hasCode(err, "NoSuchUpload") {
			return aborted, nil
		}
		if err != nil {
			return false, err
		}
		if left, err := f.tagged(ctx, what, key, id, op); err != nil || !left {
			return err == nil, err
		}
	}
}

// liveUploads are the uploads of this process that have not ended.
type liveUploads struct {
	mu  sync.Mutex
	set map[*writer]struct{}
}

func (l *liveUploads) add(w *writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		l.set = map[*writer]struct{}{}
	}
	l.set[w] = struct{}{}
}

func (l *liveUploads) remove(w *writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.set, w)
}

// revoke ends the uploads of op at key, and reports whether there were any and
// none had asked for its effect.
func (l *liveUploads) revoke(key string, op freshet.OpID) bool {
	l.mu.Lock()
	var found []*writer
	for w := range l.set {
		if w.key == key && w.opts.Op == op {
			found = append(found, w)
		}
	}
	l.mu.Unlock()
	ended := len(found) > 0
	for _, w := range found {
		ended = w.revoke() && ended
	}
	return ended
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
	_, err := f.api.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &f.bucket, Key: f.object(key), UploadId: &id}, f.reading(ctx))
	return f.failure(ctx, op, key, err, reads)
}

// uploads returns the IDs of the uploads of op at key that have not ended.
func (f *FS) uploads(ctx context.Context, what, key string, op freshet.OpID) ([]string, error) {
	object := *f.object(key)
	var ids []string
	in := &awss3.ListMultipartUploadsInput{Bucket: &f.bucket, Prefix: &object}
	for {
		out, err := f.api.ListMultipartUploads(ctx, in, f.reading(ctx))
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

// tagged reports whether the upload id carries the tag of op. Most uploads have
// so few parts that the first page shows it; else the one after the others.
func (f *FS) tagged(ctx context.Context, what, key, id string, op freshet.OpID) (bool, error) {
	in := &awss3.ListPartsInput{Bucket: &f.bucket, Key: f.object(key), UploadId: &id}
	for {
		out, err := f.api.ListParts(ctx, in, f.reading(ctx))
		if hasCode(err, "NoSuchUpload") {
			return false, nil // it ended meanwhile
		}
		if err != nil {
			return false, f.failure(ctx, what, key, err, reads)
		}
		for _, p := range out.Parts {
			if aws.ToInt32(p.PartNumber) == tagPart {
				return strings.Trim(aws.ToString(p.ETag), `"`) == tagETag(op), nil
			}
		}
		if !aws.ToBool(out.IsTruncated) || in.PartNumberMarker != nil {
			return false, nil
		}
		in.PartNumberMarker = aws.String(strconv.Itoa(tagPart - 1))
	}
}
