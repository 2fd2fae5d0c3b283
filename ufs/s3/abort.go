package s3

import (
	"context"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/object"
)

// AbortUploads aborts the multipart uploads of op to name, and no others: it knows
// them by their mark. An upload without it has never been completed, for its
// writer completes it only after the mark was stored; but it can't be told from
// another operation's, so ended stays false. So it does for a small object, whose
// single PUT nothing can call back. An operation must not have two writers at a
// time.
func (s *store) AbortUploads(ctx context.Context, name string, op freshet.OpID) (ended bool, err error) {
	ids, err := s.uploads(ctx, name, op)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		gone, err := s.abortForGood(ctx, name, id, op)
		if err != nil {
			return false, err
		}
		ended = ended || gone
	}
	if ended {
		return true, nil
	}
	o, err := s.Head(ctx, name)
	if freshet.IsKind(err, freshet.KindNotExist) {
		return false, nil
	}
	return err == nil && o.Op == op && multipart(o), err
}

// abortForGood aborts until the storage no longer knows the upload: a part that
// was under way may have outlived the first time. It reports whether the storage
// confirmed an abort; it does not when the upload was completed meanwhile.
func (s *store) abortForGood(ctx context.Context, name, id string, op freshet.OpID) (bool, error) {
	for aborted := false; ; aborted = true {
		err := s.abortUpload(ctx, name, id)
		if hasCode(err, "NoSuchUpload") {
			return aborted, nil
		}
		if err != nil {
			return false, err
		}
		m, err := s.markOf(ctx, name, id)
		if err != nil || !m.of(name, op) {
			return err == nil, err
		}
	}
}

// multipart reports whether o was uploaded in parts.
func multipart(o object.Object) bool {
	v, ok := parseWant(o.Fingerprint)
	_, n, found := strings.Cut(v.etag, "-")
	_, err := strconv.Atoi(n)
	return ok && found && err == nil
}

func (s *store) abortUpload(ctx context.Context, name, id string) error {
	_, err := s.api.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: &name, UploadId: &id}, s.reading(ctx))
	return s.failure(ctx, err, object.Reads)
}

// uploads returns the IDs of the uploads of op to name that have not ended.
func (s *store) uploads(ctx context.Context, name string, op freshet.OpID) ([]string, error) {
	var ids []string
	in := &awss3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: &name}
	for {
		out, err := s.api.ListMultipartUploads(ctx, in, s.reading(ctx))
		if hasCode(err, "NoSuchUpload") {
			return ids, nil // so some servers say that there are none
		}
		if err != nil {
			return nil, s.failure(ctx, err, object.Reads)
		}
		for _, u := range out.Uploads {
			if aws.ToString(u.Key) != name {
				continue
			}
			m, err := s.markOf(ctx, name, aws.ToString(u.UploadId))
			if err != nil {
				return nil, err
			}
			if m.of(name, op) {
				ids = append(ids, aws.ToString(u.UploadId))
			}
		}
		// The listing is in the order of names: beyond ours nothing is of interest.
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextKeyMarker) > name {
			return ids, nil
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}
