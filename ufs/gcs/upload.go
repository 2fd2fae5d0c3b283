package gcs

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"cloud.google.com/go/storage"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/httpclient"
	"github.com/freshet-io/freshet/ufs/object"
)

// statusCancelled is the answer to the cancellation of a resumable upload:
// https://cloud.google.com/storage/docs/performing-resumable-uploads#cancel-upload
const statusCancelled = 499

// Begin implements object.Store.
func (s *store) Begin(ctx context.Context, name string, opts object.PutOptions) (object.Parts, error) {
	u := &upload{s: s, opts: opts}
	ctx = context.WithValue(httpclient.WithPatience(ctx, s.patience(s.limits.PartSize)), uploadKey{}, u)
	ctx, u.cancel = context.WithCancel(ctx)
	var err error
	if u.w, err = s.writer(ctx, name, opts, s.limits.PartSize); err != nil {
		u.cancel()
		return nil, err
	}
	return u, nil
}

// upload is a resumable upload. The client keeps one chunk and sends it when the
// next begins or the upload ends, so nothing is published before Complete. It sends
// a chunk again for a while if it got no answer: the session takes each byte once.
type upload struct {
	s       *store
	w       *storage.Writer
	opts    object.PutOptions
	cancel  context.CancelFunc
	session atomic.Pointer[string]    // its URI
	asked   bool                      // for the effect
	end     atomic.Pointer[time.Time] // of the time for the effect
	doubt   atomic.Bool               // an attempt was sent and has no definite answer
}

// Part implements object.Parts; parts come in order.
func (u *upload) Part(_ context.Context, _ int, data []byte) error {
	_, err := u.w.Write(data)
	return u.s.failure(err, object.Reads) // nobody sees it yet
}

// Complete implements object.Parts.
func (u *upload) Complete(ctx context.Context, _ int, _ int64) (object.Object, error) {
	stop := context.AfterFunc(ctx, u.cancel)
	defer stop()
	if end, ok := ctx.Deadline(); ok {
		u.end.Store(&end)
	}
	u.asked = true
	u.doubt.Store(false)
	if err := u.w.Close(); err != nil {
		err = u.s.refused(err, u.opts)
		if u.doubt.Load() && !freshet.IsKind(err, freshet.KindExist, freshet.KindStale) {
			// Whatever became of the last attempt, one before it was sent.
			return object.Object{}, object.Errorf(freshet.KindDeadline, "no definite answer, it may still take effect: %s", err.Error())
		}
		return object.Object{}, err
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
		return !u.asked, u.s.failure(err, object.Reads)
	}
	resp, err := u.s.http.Do(req) //nolint:gosec // an address that the storage gave, dialled by the endpoint policy
	if err != nil {
		return !u.asked, u.s.failure(err, object.Reads)
	}
	_ = resp.Body.Close() // empty
	return !u.asked || resp.StatusCode == statusCancelled, nil
}

type uploadKey struct{}

// see notes what an upload must know of one of its requests.
func (u *upload) see(resp *http.Response, err error) {
	if err != nil || resp.StatusCode >= http.StatusInternalServerError {
		if !errors.Is(err, ufs.ErrNotSent) {
			u.doubt.Store(true)
		}
		return
	}
	if uri := resp.Header.Get("Location"); uri != "" && resp.StatusCode == http.StatusOK {
		u.session.Store(&uri)
	}
}

// until is a context that says when its time is over, which its timer may tell late.
type until struct {
	context.Context //nolint:containedctx // it is one

	end time.Time
}

// Deadline implements context.Context.
func (u until) Deadline() (time.Time, bool) {
	if end, ok := u.Context.Deadline(); ok && end.Before(u.end) {
		return end, true
	}
	return u.end, true
}

// insight tells uploads their URI and what became of their requests, and readers
// that their answer broke off: the client keeps that for itself. It gives the
// requests of an upload's completion the end of that: they have the context of its
// beginning.
type insight struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t insight) RoundTrip(req *http.Request) (*http.Response, error) {
	u, uploads := req.Context().Value(uploadKey{}).(*upload)
	if uploads {
		if end := u.end.Load(); end != nil {
			req = req.WithContext(until{req.Context(), *end})
		}
	}
	resp, err := t.base.RoundTrip(req)
	if uploads {
		u.see(resp, err)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // a layer of the transport
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
