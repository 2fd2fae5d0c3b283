package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // it is the storage's ETag, not a protection
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/object"
)

// The mark of an upload. The protocol has no place for a name on an upload under
// way: what CreateMultipartUpload is given is shown by no request. Parts are
// shown, so ours have some that the completion leaves out.
//
// Part 10,000 begins with the operation ID, and its length follows from the name
// of the object. By its ETag, the MD5 of that, it tells the operation. Where the
// answer shows that ETags are no such sums, as under KMS or a customer's key, the
// lengths of four more parts tell the operation in 48 bits.
const (
	tagPart   = 10000
	codeParts = 4
	firstCode = tagPart - codeParts
	// dataParts is how many parts data may use. The one after them is always
	// missing from an upload of ours, and never from one of 10,000 parts that is
	// of another program.
	dataParts = firstCode - 2
	// sizeStep bounds the length of each of those parts.
	sizeStep = 4096
	tagHead  = "freshet-op "
)

// tagSize is the length of part 10,000 of an upload to object.
func tagSize(object string) int {
	sum := sha256.Sum256([]byte(object))
	return len(tagHead) + 2*len(freshet.OpID{}) + 1 + int(binary.BigEndian.Uint16(sum[:]))%sizeStep
}

// tagOf is the content of that part when op uploads.
func tagOf(object string, op freshet.OpID) []byte {
	tag := bytes.Repeat([]byte{' '}, tagSize(object))
	copy(tag, tagHead+op.String())
	return tag
}

// tagETag is its ETag where ETags are MD5 sums.
func tagETag(object string, op freshet.OpID) string {
	sum := md5.Sum(tagOf(object, op)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// codeSizes are the lengths of the further parts of an upload by op.
func codeSizes(op freshet.OpID) (sizes [codeParts]int64) {
	sum := sha256.Sum256([]byte(tagHead + op.String()))
	for i := range sizes {
		sizes[i] = 1 + int64(binary.BigEndian.Uint16(sum[2*i:]))%sizeStep
	}
	return sizes
}

// Prepare implements object.Preparer: it marks the upload.
func (p *parts) Prepare(ctx context.Context) error {
	part, err := p.put(ctx, tagPart, tagOf(p.name, p.op))
	if err != nil || strings.Trim(aws.ToString(part.ETag), `"`) == tagETag(p.name, p.op) {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, size := range codeSizes(p.op) {
		group.Go(func() error {
			_, err := p.put(ctx, firstCode+i, make([]byte, size))
			return err
		})
	}
	return group.Wait() //nolint:wrapcheck // made by failure
}

// uploadMark is what the last parts of an upload show.
type uploadMark struct {
	etag string // of part 10,000
	size int64  // of it; 0 without
	next bool   // the part after the data's is there
	code [codeParts]int64
}

// markOf looks for the mark. Most uploads have so few parts that the first page
// shows it; else the page behind the parts of the data does.
func (s *store) markOf(ctx context.Context, name, id string) (m uploadMark, err error) {
	in := &awss3.ListPartsInput{Bucket: &s.bucket, Key: &name, UploadId: &id}
	for {
		out, err := s.api.ListParts(ctx, in, s.reading(ctx))
		if hasCode(err, "NoSuchUpload") {
			return m, nil // it ended meanwhile
		}
		if err != nil {
			return m, s.failure(ctx, err, object.Reads)
		}
		for _, p := range out.Parts {
			m.see(p)
		}
		if !aws.ToBool(out.IsTruncated) || in.PartNumberMarker != nil {
			return m, nil
		}
		in.PartNumberMarker = aws.String(strconv.Itoa(dataParts))
	}
}

func (m *uploadMark) see(p types.Part) {
	switch n := aws.ToInt32(p.PartNumber); {
	case n == tagPart:
		m.etag, m.size = strings.Trim(aws.ToString(p.ETag), `"`), aws.ToInt64(p.Size)
	case n >= firstCode && n < tagPart:
		m.code[n-firstCode] = aws.ToInt64(p.Size)
	case n == dataParts+1:
		m.next = true
	}
}

// ours reports whether the upload to object was begun by this driver.
func (m uploadMark) ours(object string) bool {
	for _, size := range m.code {
		if size > sizeStep {
			return false
		}
	}
	return m.size == int64(tagSize(object)) && !m.next
}

// of reports whether op began the upload to object.
func (m uploadMark) of(object string, op freshet.OpID) bool {
	return m.ours(object) && (m.etag == tagETag(object, op) || m.code == codeSizes(op))
}
