package azblob

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
)

// noAnswerError says that the server was silent for too long.
type noAnswerError struct{}

func (noAnswerError) Error() string   { return "the storage gave no answer in time" }
func (noAnswerError) Timeout() bool   { return true }
func (noAnswerError) Temporary() bool { return true }

var errNoAnswer error = noAnswerError{}

// unsentError says that the server can't have seen the request: it failed before
// there was a connection for it, or its time was over when it had been signed.
type unsentError struct {
	err  error
	late bool
}

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// refusedError keeps the SDK from asking again for what was refused on our side.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// NonRetriable is how the SDK asks.
func (*refusedError) NonRetriable() {}

var errLate = errors.New("not sent: the time for it was over")

// inTime is asked between signing and sending. The timer of a context does not
// fire while the process or its machine is paused, and may fire late after it:
// its deadline is compared with the clocks, of which the one of the wall goes on
// in a machine that sleeps (C13).
func inTime(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	now := time.Now()
	end, ok := ctx.Deadline()
	return !ok || now.Before(end) && now.Round(0).Before(end.Round(0))
}

type patienceKey struct{}

// withPatience sets how long one attempt may wait for the head of its answer.
func withPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// doer sends requests that are signed, unless the caller's time is over, and gives
// up on a silent server: when no answer has begun after the patience of the call,
// or when its body stalls for timeout. A long body that keeps flowing may take as
// long as it likes. Its errors never hold a URL, which may hold a signature.
type doer struct {
	client  *http.Client
	timeout time.Duration
}

// Do implements the SDK's HTTP client.
func (d *doer) Do(req *http.Request) (*http.Response, error) {
	if !inTime(req.Context()) {
		return nil, &refusedError{&unsentError{err: errLate, late: true}}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	patience, ok := ctx.Value(patienceKey{}).(time.Duration)
	if !ok {
		patience = d.timeout
	}
	timer := time.AfterFunc(patience, func() { cancel(errNoAnswer) })
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	resp, err := d.client.Do(req.WithContext(httptrace.WithClientTrace(ctx, trace))) //nolint:bodyclose,gosec // the caller closes it; the client dials by the endpoint policy
	timer.Stop()
	if err != nil {
		if context.Cause(ctx) == errNoAnswer { //nolint:errorlint // the very value
			err = errNoAnswer
		}
		cancel(nil)
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		if !connected.Load() {
			err = &unsentError{err: err}
		}
		if freshet.IsKind(err, freshet.KindPermission) { // by the endpoint policy, or a redirect
			err = &refusedError{err}
		}
		return nil, err
	}
	resp.Body = &patientBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, timeout: d.timeout}
	return resp, nil
}

// patientBody fails when no byte came for timeout.
type patientBody struct {
	io.ReadCloser
	ctx     context.Context //nolint:containedctx // of the request whose body it is
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	timeout time.Duration
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.timeout)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(b.ctx) == errNoAnswer { //nolint:errorlint // the very value
		err = errNoAnswer
	}
	return n, err
}

func (b *patientBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
