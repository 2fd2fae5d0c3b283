package azblob

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs/object"
)

const (
	// deleteBatch is how many blobs one Delete takes, and parallelDeletes how many
	// requests it sends at a time.
	deleteBatch     = 256
	parallelDeletes = 16
	// copyPoll and copyPollMax bound the wait between looks at a copy that the
	// service does in the background.
	copyPoll, copyPollMax = 50 * time.Millisecond, 2 * time.Second
)

func metadata(op freshet.OpID) map[string]*string {
	if op.IsZero() {
		return nil
	}
	text := op.String()
	return map[string]*string{opMetadata: &text}
}

// conditions makes those of a write.
func conditions(o object.PutOptions) (*blob.AccessConditions, error) {
	mac := &blob.ModifiedAccessConditions{}
	if o.IfAbsent {
		anything := azcore.ETagAny
		mac.IfNoneMatch = &anything
	}
	if o.IfMatch.Known() {
		etag, ok := etagOf(o.IfMatch)
		if !ok {
			return nil, object.Errorf(freshet.KindStale, "%q is not the version of a blob", o.IfMatch.Content)
		}
		mac.IfMatch = &etag
	}
	return &blob.AccessConditions{ModifiedAccessConditions: mac}, nil
}

// refusal maps the answers to a conditional write.
func (s *store) refusal(ctx context.Context, err error, o object.PutOptions) error {
	own := s.failure(ctx, err, object.Changes)
	switch {
	case err == nil || freshet.IsKind(own, freshet.KindDeadline):
		return own
	case o.IfMatch.Known() && codeOf(err) == string(bloberror.BlobNotFound):
		return object.Errorf(freshet.KindStale, "the file is gone")
	case o.IfAbsent && codeOf(err) == string(bloberror.ConditionNotMet):
		return object.Errorf(freshet.KindExist, "something is there already")
	}
	return own
}

// written makes the status of a write from its own answer.
func written(name string, size int64, etag *azcore.ETag, modTime *time.Time, op freshet.OpID) (object.Object, error) {
	o, err := said{name: name, length: &size, etag: etag, modTime: modTime}.object()
	if err != nil {
		return o, object.Errorf(freshet.KindDeadline, "no definite answer, it may have taken effect: %w", err)
	}
	o.Op = op
	return o, nil
}

// Put implements object.Store: one Put Blob.
func (s *store) Put(ctx context.Context, name string, data []byte, o object.PutOptions) (object.Object, error) {
	return s.upload(ctx, name, data, o, metadata(o.Op))
}

func (s *store) upload(ctx context.Context, name string, data []byte, o object.PutOptions, md map[string]*string) (object.Object, error) {
	if err := checkName(name); err != nil {
		return object.Object{}, err
	}
	access, err := conditions(o)
	if err != nil {
		return object.Object{}, err
	}
	out, err := s.api.NewBlockBlobClient(name).Upload(s.patience(ctx, len(data)), streaming.NopCloser(bytes.NewReader(data)),
		&blockblob.UploadOptions{Metadata: md, AccessConditions: access})
	if err != nil {
		return object.Object{}, s.refusal(ctx, err, o)
	}
	return written(name, int64(len(data)), out.ETag, out.LastModified, o.Op)
}

// Mark implements object.Store.
func (s *store) Mark(ctx context.Context, name string) error {
	var md map[string]*string
	if s.cfg.hierarchical {
		yes := "true"
		name, md = strings.TrimSuffix(name, "/"), map[string]*string{folderMetadata: &yes}
	}
	_, err := s.upload(ctx, name, nil, object.PutOptions{}, md)
	return err
}

// parts is one upload in blocks.
type parts struct {
	s      *store
	name   string
	opts   object.PutOptions
	access *blob.AccessConditions
	id     [24]byte // the operation, and what tells its attempts apart
}

// Begin implements object.Store. It sends nothing: blocks need no upload.
func (s *store) Begin(_ context.Context, name string, o object.PutOptions) (object.Parts, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	access, err := conditions(o)
	if err != nil {
		return nil, err
	}
	p := &parts{s: s, name: name, opts: o, access: access}
	copy(p.id[:16], o.Op[:])
	_, _ = rand.Read(p.id[16:]) // never fails
	return p, nil
}

// blockID is the ID of block number; all blocks of a blob have IDs of one length.
func (p *parts) blockID(number int) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(p.id[:len(p.id):len(p.id)], uint32(number))) //nolint:gosec // at most 50,000
}

// Part implements object.Parts. A block may be sent again: it stays the same.
func (p *parts) Part(ctx context.Context, number int, data []byte) error {
	_, err := p.s.api.NewBlockBlobClient(p.name).StageBlock(p.s.again(p.s.patience(ctx, len(data))), p.blockID(number),
		streaming.NopCloser(bytes.NewReader(data)), nil)
	return p.s.failure(ctx, err, object.Reads)
}

// Complete implements object.Parts: Put Block List, once.
func (p *parts) Complete(ctx context.Context, count int, size int64) (object.Object, error) {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = p.blockID(i + 1)
	}
	out, err := p.s.api.NewBlockBlobClient(p.name).CommitBlockList(p.s.longPatience(ctx), ids,
		&blockblob.CommitBlockListOptions{Metadata: metadata(p.opts.Op), AccessConditions: p.access})
	if err != nil {
		return object.Object{}, p.s.refusal(ctx, err, p.opts)
	}
	return written(p.name, size, out.ETag, out.LastModified, p.opts.Op)
}

// Abort implements object.Parts. There is nothing to do: blocks that are not
// listed are nowhere to be seen and vanish after a week. It can't stop a list that
// is under way.
func (p *parts) Abort(context.Context) (ended bool, err error) { return false, nil }

// Copy implements object.Store by Copy Blob, which within one account is done when
// it is answered, as a rule.
func (s *store) Copy(ctx context.Context, from object.Object, to string) (object.Object, error) {
	if err := checkName(to); err != nil {
		return object.Object{}, err
	}
	etag, ok := etagOf(from.Fingerprint)
	if !ok {
		return object.Object{}, object.Errorf(freshet.KindStale, "%q is not the version of a blob", from.Fingerprint.Content)
	}
	source := s.api.NewBlobClient(from.Name).URL()
	if s.sas != nil {
		sas, err := s.sas.get()
		if err != nil {
			return object.Object{}, s.failure(ctx, &refusedError{err}, object.Reads)
		}
		source += "?" + sas
	}
	dest := s.api.NewBlobClient(to)
	out, err := dest.StartCopyFromURL(s.longPatience(ctx), source, &blob.StartCopyFromURLOptions{
		SourceModifiedAccessConditions: &blob.SourceModifiedAccessConditions{SourceIfMatch: &etag},
	})
	switch {
	case codeOf(err) == string(bloberror.BlobNotFound):
		return object.Object{}, object.Errorf(freshet.KindStale, "the file to copy is gone")
	case err != nil:
		return object.Object{}, s.failure(ctx, err, object.Changes)
	case out.CopyStatus == nil || *out.CopyStatus == blob.CopyStatusTypeSuccess:
		return written(to, from.Size, out.ETag, out.LastModified, from.Op)
	}
	return s.copied(ctx, dest, out.CopyID, from, to)
}

// copied waits for the end of a copy in the background.
func (s *store) copied(ctx context.Context, dest *blob.Client, id *string, from object.Object, to string) (object.Object, error) {
	unknown := func(format string, args ...any) (object.Object, error) {
		return object.Object{}, object.Errorf(freshet.KindDeadline, "no definite answer, the copy may still be made: "+format, args...)
	}
	for pause := copyPoll; ; pause = min(2*pause, copyPollMax) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return unknown("%w", ctx.Err())
		}
		now, err := dest.GetProperties(s.again(ctx), nil)
		switch {
		case err != nil:
			return unknown("%v", s.failure(ctx, err, object.Reads)) // its chain tells of this look, not of the copy
		case now.CopyID == nil || id == nil || *now.CopyID != *id || now.CopyStatus == nil:
			return unknown("somebody else wrote to its place")
		case *now.CopyStatus == blob.CopyStatusTypePending:
			continue
		case *now.CopyStatus != blob.CopyStatusTypeSuccess:
			return object.Object{}, object.Errorf(freshet.KindUnavailable, "the storage ended the copy: %s", *now.CopyStatus)
		}
		return written(to, from.Size, now.ETag, now.LastModified, from.Op)
	}
}

// Delete implements object.Store, one request per blob. All are sent, whatever
// becomes of the others.
func (s *store) Delete(ctx context.Context, names []string) error {
	var group errgroup.Group
	group.SetLimit(parallelDeletes)
	failed := make([]error, len(names))
	for i, name := range names {
		group.Go(func() error {
			failed[i] = s.delete(ctx, name)
			return nil
		})
	}
	_ = group.Wait()
	return object.Outcome(failed...) //nolint:wrapcheck // made by failure
}

func (s *store) delete(ctx context.Context, name string) error {
	var opts blob.DeleteOptions
	if s.cfg.deleteSnapshots {
		include := blob.DeleteSnapshotsOptionTypeInclude
		opts.DeleteSnapshots = &include
	}
	_, err := s.api.NewBlobClient(name).Delete(ctx, &opts)
	if codeOf(err) == string(bloberror.BlobNotFound) {
		return nil
	}
	return s.failure(ctx, err, object.Changes)
}
