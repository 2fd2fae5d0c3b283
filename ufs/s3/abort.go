package s3

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// AbortUpload aborts the multipart uploads of op at key, and no others: it knows
// them by their mark. An upload without it has never been completed, for its
// writer completes it only after the mark was stored; but it can't be told from
// another operation's, so ended stays false. So it does for a small object, whose
// single PUT nothing can call back. An operation must not have two writers at a
// time.
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
	ids map[string]struct{} // upload IDs
}

// named tells the upload ID of a writer.
func (l *liveUploads) named(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = map[string]struct{}{}
	}
	l.ids[id] = struct{}{}
}

// has reports whether the upload id is one of this process.
func (l *liveUploads) has(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.ids[id]
	return ok
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
	if w.uploadID != nil {
		delete(l.ids, *w.uploadID)
	}
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

// tagged reports whether the upload id carries the mark of op.
func (f *FS) tagged(ctx context.Context, what, key, id string, op freshet.OpID) (bool, error) {
	m, err := f.markOf(ctx, what, *f.object(key), id)
	return m.of(*f.object(key), op), err
}
