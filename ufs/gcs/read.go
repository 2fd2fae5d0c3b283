package gcs

import (
	"context"
	"errors"
	"io"
	"net/http"

	"cloud.google.com/go/storage"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/object"
)

// Get implements object.Store.
func (s *store) Get(ctx context.Context, name string, req object.GetRequest) (object.Answer, error) {
	o := s.api.Object(name).ReadCompressed(true)
	if req.Want.Known() {
		gen, ok := generation(req.Want)
		if !ok {
			return object.Answer{}, errOtherKind(req.Want)
		}
		o = o.If(storage.Conditions{GenerationMatch: gen})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := o.NewRangeReader(context.WithValue(ctx, readingKey{}, cancel), req.Offset, req.Length)
	if err != nil {
		cancel(nil)
		return object.Answer{}, s.failure(err, object.Reads)
	}
	a := object.Answer{
		Object: object.Object{
			Name: name, Size: r.Attrs.Size, ModTime: r.Attrs.LastModified,
			Fingerprint: fingerprint.GCS(r.Attrs.Generation, r.Attrs.Metageneration),
		},
		Body: &body{r, ctx, cancel}, First: r.Attrs.StartOffset, Length: r.Remain(),
	}
	// Here the names of metadata come as those of headers.
	a.Object.Op, _ = freshet.ParseOpID(r.Metadata()[http.CanonicalHeaderKey(opKey)])
	return a, nil
}

// body is the reader of one answer. The client would ask again, without end, for
// what is left of an answer that broke off; the first break ends its context.
type body struct {
	*storage.Reader

	ctx    context.Context //nolint:containedctx // of the request whose body it is
	cancel context.CancelCauseFunc
}

// Read returns the error that broke the answer off.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if cause := context.Cause(b.ctx); err != nil && !errors.Is(err, io.EOF) && cause != nil {
		err = cause
	}
	return n, err //nolint:wrapcheck // io.EOF is meant as it is
}

// Close has nothing to tell: what was cut off, Read told.
func (b *body) Close() error {
	_ = b.Reader.Close()
	b.cancel(nil)
	return nil
}

type readingKey struct{}

// answered is the body of an answer as it comes from the server.
type answered struct {
	io.ReadCloser

	broken context.CancelCauseFunc
}

func (a *answered) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		a.broken(err)
	}
	return n, err //nolint:wrapcheck // a layer of the transport
}
