// Package s3 owns the driver for S3 and whatever speaks its protocol. It owns the
// requests and what their answers mean; the tree over them is ufs/object. It keeps
// the SDK's signing, retries and errors and replaces the parsing of listings,
// which is the SDK's bottleneck. It never caches, and it never sends a request
// that changes what others see a second time: such a request without a definite
// answer is KindDeadline. CompleteMultipartUpload, being idempotent, is the
// exception.
//
// Uploads of more than 64 KiB are multipart. Their last parts, which are never
// listed in the completion and so never become part of the object, are a mark
// that tells the operation: by it AbortUpload and CleanUploads know the uploads
// of writers that died, and leave alone those of other programs.
package s3

import (
	"log/slog"
	"sync"
	"time"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

// FS is one prefix of one bucket. Safe for concurrent use.
type FS struct {
	*object.FS

	store *store
	root  string // prefix of every object, "" or "a/b/"
	log   *slog.Logger
	now   func() time.Time

	queue       *queue // nil without events=sqs:…
	letters     letterCounter
	uncheckable sync.Once
}

var _ ufs.FS = (*FS)(nil)
