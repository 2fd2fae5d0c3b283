// Package gcs is the driver of Google Cloud Storage, over the JSON API and on
// ufs/object. It never retries: a wrapper does.
//
// Versions. Every write gives an object a generation, every change of its metadata
// a metageneration; both are in each listing, so a fingerprint is exact, and a
// change of metadata alone does not cost the cached bytes. Reads, copies and
// conditional writes name the generation.
//
// Uploads. Up to part_size one request; larger files are one resumable upload, whose
// chunks go one after the other and which becomes visible with the last. What a dead
// writer leaves of it is invisible and ends by itself after a week.
package gcs

import (
	"context"
	"errors"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/iterator"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

const (
	// opKey is the name in an object's metadata of the operation that wrote it.
	opKey = "freshet-op"
	// contentType keeps the client from guessing one by the first bytes.
	contentType = "application/octet-stream"

	// modTimeResolution is that of the head of a read; listings know milliseconds.
	modTimeResolution = time.Second
	deleteBatch       = 100
	parallelDeletes   = 16
	// generationPrefix starts the content part of a fingerprint.
	generationPrefix = "gcs:"
)

// store is one bucket.
type store struct {
	bucket  string
	limits  object.Limits
	timeout time.Duration
	http    *http.Client
	client  *storage.Client
	api     *storage.BucketHandle
}

var _ object.Store = (*store)(nil)

// Limits implements object.Store.
func (s *store) Limits() object.Limits { return s.limits }

// Close implements object.Store.
func (s *store) Close() error {
	err := s.client.Close()
	s.http.CloseIdleConnections()
	return err
}

func describe(a *storage.ObjectAttrs) object.Object {
	o := object.Object{Name: a.Name, Size: a.Size, ModTime: a.Updated.Truncate(modTimeResolution), Fingerprint: fingerprint.GCS(a.Generation, a.Metageneration)}
	o.Op, _ = freshet.ParseOpID(a.Metadata[opKey])
	return o
}

// generation returns the one that a fingerprint names.
func generation(f fingerprint.Fingerprint) (int64, bool) {
	text, ok := strings.CutPrefix(f.Content, generationPrefix)
	n, err := strconv.ParseInt(text, 10, 64)
	return n, ok && err == nil && n > 0
}

func errOtherKind(f fingerprint.Fingerprint) error {
	return object.Errorf(freshet.KindStale, "the version %s is not of this storage", f)
}

// Head implements object.Store.
func (s *store) Head(ctx context.Context, name string) (object.Object, error) {
	a, err := s.api.Object(name).Attrs(ctx)
	if err != nil {
		return object.Object{}, s.failure(err, object.Reads)
	}
	return describe(a), nil
}

// List implements object.Store.
func (s *store) List(ctx context.Context, req object.ListRequest) (object.Page, error) {
	q := &storage.Query{Prefix: req.Prefix, StartOffset: req.StartAfter, Projection: storage.ProjectionNoACL}
	if req.Delimited {
		q.Delimiter = "/"
	}
	if err := q.SetAttrSelection([]string{"Name", "Size", "Updated", "Generation", "Metageneration"}); err != nil {
		return object.Page{}, object.Errorf(freshet.KindInternal, "%w", err)
	}
	limit := s.limits.ListPage
	if req.Max > 0 {
		limit = min(limit, req.Max)
	}
	var all []*storage.ObjectAttrs
	next, err := iterator.NewPager(s.api.Objects(ctx, q), limit, req.Token).NextPage(&all)
	if err != nil {
		return object.Page{}, s.failure(err, object.Reads)
	}
	p := object.Page{Next: next, Objects: make([]object.Object, 0, len(all))}
	for _, a := range all {
		switch {
		case a.Prefix != "":
			p.Prefixes = append(p.Prefixes, a.Prefix)
		case a.Name != req.StartAfter:
			p.Objects = append(p.Objects, describe(a))
		}
	}
	return p, nil
}

// writer returns the SDK's writer of one object; chunk is 0 for a single request.
func (s *store) writer(ctx context.Context, name string, opts object.PutOptions, chunk int) (*storage.Writer, error) {
	o := s.api.Object(name)
	switch {
	case opts.IfAbsent:
		o = o.If(storage.Conditions{DoesNotExist: true})
	case opts.IfMatch.Known():
		gen, ok := generation(opts.IfMatch)
		if !ok {
			return nil, errOtherKind(opts.IfMatch)
		}
		o = o.If(storage.Conditions{GenerationMatch: gen})
	}
	w := o.NewWriter(ctx)
	w.ChunkSize, w.ContentType = chunk, contentType
	if !opts.Op.IsZero() {
		w.Metadata = map[string]string{opKey: opts.Op.String()}
	}
	return w, nil
}

// Put implements object.Store.
func (s *store) Put(ctx context.Context, name string, data []byte, opts object.PutOptions) (object.Object, error) {
	ctx, cancel := context.WithCancel(httpclient.WithPatience(ctx, s.patience(len(data))))
	defer cancel() // an upload that failed is given up
	w, err := s.writer(ctx, name, opts, 0)
	if err != nil {
		return object.Object{}, err
	}
	// The server then refuses bytes that were damaged on the way, rather than to
	// keep them and leave the comparison to us.
	w.SendCRC32C, w.CRC32C = true, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	if _, err := w.Write(data); err != nil {
		cancel()
		return object.Object{}, s.refused(cmpErr(w.Close(), err), opts)
	}
	if err := w.Close(); err != nil {
		return object.Object{}, s.refused(err, opts)
	}
	return describe(w.Attrs()), nil
}

// cmpErr prefers the error of the request to that of the pipe that fed it.
func cmpErr(request, pipe error) error {
	if request != nil && !errors.Is(request, context.Canceled) {
		return request
	}
	return pipe
}

// patience is how long the answer to a request with a body of n bytes may take: at
// least as long as a line of a megabyte per second needs.
func (s *store) patience(n int) time.Duration {
	return s.timeout + time.Duration(n>>20)*time.Second
}

// refused is the error of an effect; the condition tells what 412 means.
func (s *store) refused(err error, opts object.PutOptions) error {
	err = s.failure(err, object.Changes)
	switch {
	case opts.IfAbsent && freshet.IsKind(err, freshet.KindStale):
		return object.Errorf(freshet.KindExist, "an object is there already")
	case opts.IfMatch.Known() && freshet.IsKind(err, freshet.KindNotExist):
		return object.Errorf(freshet.KindStale, "the object is gone")
	case freshet.IsKind(err, freshet.KindNotExist): // nothing else can be missing
		return object.Errorf(freshet.KindUnavailable, "%s: %w", s.noBucket(), ufs.ErrNoRoot)
	}
	return err
}

// Copy implements object.Store.
func (s *store) Copy(ctx context.Context, from object.Object, to string) (object.Object, error) {
	gen, ok := generation(from.Fingerprint)
	if !ok {
		return object.Object{}, errOtherKind(from.Fingerprint)
	}
	src := s.api.Object(from.Name).If(storage.Conditions{GenerationMatch: gen})
	a, err := s.api.Object(to).CopierFrom(src).Run(httpclient.WithPatience(ctx, s.patience(int(min(from.Size, 1<<40)))))
	if err = s.failure(err, object.Changes); freshet.IsKind(err, freshet.KindNotExist) {
		return object.Object{}, object.Errorf(freshet.KindStale, "the object is gone")
	}
	if err != nil {
		return object.Object{}, err
	}
	return describe(a), nil
}

// Mark implements object.Store.
func (s *store) Mark(ctx context.Context, name string) error {
	_, err := s.Put(ctx, name, nil, object.PutOptions{})
	return err
}

// Delete implements object.Store, one request per object. All are sent, whatever
// becomes of the others.
func (s *store) Delete(ctx context.Context, names []string) error {
	var g errgroup.Group
	g.SetLimit(parallelDeletes)
	outcomes := make([]error, len(names))
	for i, name := range names {
		g.Go(func() error {
			err := s.failure(s.api.Object(name).Delete(ctx), object.Changes)
			if !freshet.IsKind(err, freshet.KindNotExist) {
				outcomes[i] = err
			}
			return nil
		})
	}
	_ = g.Wait()
	return object.Outcome(outcomes...) //nolint:wrapcheck // made by failure
}
