package gcs

import (
	"context"
	"net/http"
	"sync/atomic"

	"cloud.google.com/go/storage"

	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// statusCancelled is the answer to the cancellation of a resumable upload:
// https://cloud.google.com/storage/docs/performing-resumable-uploads#cancel-upload
const statusCancelled = 499

// Begin implements object.Store.
func (s *store) Begin(ctx context.Context, name string, opts object.PutOptions) (object.Parts, error) {
	u := &upload{s: s, opts: opts}
	ctx = context.WithValue(httpclient.WithPatience(ctx, s.patience(s.limits.PartSize)), sessionKey{}, &u.session)
	ctx, u.cancel = context.WithCancel(ctx)
	var err error
	if u.w, err = s.writer(ctx, name, opts, s.limits.PartSize); err != nil {
		u.cancel()
		return nil, err
	}
	return u, nil
}

// upload is a resumable upload. The client keeps one chunk and sends it when the
// next begins or the upload ends, so nothing is published before Complete.
type upload struct {
	s       *store
	w       *storage.Writer
	opts    object.PutOptions
	cancel  context.CancelFunc
	session atomic.Pointer[string] // its URI
	asked   bool                   // for the effect
}

// Part implements object.Parts; parts come in order.
func (u *upload) Part(_ context.Context, _ int, data []byte) error {
	_, err := u.w.Write(data)
	return u.s.failure(err, reads) // nobody sees it yet
}

// Complete implements object.Parts.
func (u *upload) Complete(ctx context.Context, _ int, _ int64) (object.Object, error) {
	stop := context.AfterFunc(ctx, u.cancel)
	defer stop()
	u.asked = true
	if err := u.w.Close(); err != nil {
		return object.Object{}, u.s.refused(err, u.opts)
	}
	u.cancel()
	return describe(u.w.Attrs()), nil
}

// Abort implements object.Parts. An upload whose last chunk was not sent can't be
// finished by anybody else: its URI was never told. One that was asked for its
// effect has ended if the server says that it is cancelled.
func (u *upload) Abort(ctx context.Context) (bool, error) {
	u.cancel()
	if !u.asked {
		_ = u.w.Close() // fails with the cancelled context, and waits for what is under way
	}
	uri := u.session.Load()
	if uri == nil {
		return !u.asked, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, *uri, http.NoBody)
	if err != nil {
		return !u.asked, u.s.failure(err, reads)
	}
	resp, err := u.s.http.Do(req) //nolint:gosec // an address that the storage gave, dialled by the endpoint policy
	if err != nil {
		return !u.asked, u.s.failure(err, reads)
	}
	_ = resp.Body.Close() // empty
	return !u.asked || resp.StatusCode == statusCancelled, nil
}

type sessionKey struct{}

// insight tells uploads their URI, and readers that their answer broke off, both of
// which the client keeps for itself.
type insight struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t insight) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err //nolint:wrapcheck // a layer of the transport
	}
	session, ok := req.Context().Value(sessionKey{}).(*atomic.Pointer[string])
	if uri := resp.Header.Get("Location"); ok && uri != "" && resp.StatusCode == http.StatusOK {
		session.Store(&uri)
	}
	if broken, ok := req.Context().Value(readingKey{}).(context.CancelCauseFunc); ok {
		resp.Body = &answered{resp.Body, broken}
	}
	return resp, nil
}

// CloseIdleConnections closes those of the base.
func (t insight) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
