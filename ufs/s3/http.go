package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// noAnswerError says that the server was silent for too long.
type noAnswerError struct{}

func (noAnswerError) Error() string   { return "the storage gave no answer in time" }
func (noAnswerError) Timeout() bool   { return true }
func (noAnswerError) Temporary() bool { return true }

var errNoAnswer error = noAnswerError{}

// notSentError says that a request was signed and then kept back.
type notSentError struct{}

func (notSentError) Error() string { return "not sent: the time for it was over" }

// unconnectedError says that a request failed before there was a connection for
// it: the server can't have seen it.
type unconnectedError struct{ err error }

func (e *unconnectedError) Error() string { return e.err.Error() }
func (e *unconnectedError) Unwrap() error { return e.err }

// inTime is asked between signing and sending. The timer of a context does not
// fire while the process or its machine is paused, and may fire late after it:
// its deadline is compared with the clocks, of which the one of the wall goes on
// in a machine that sleeps (C13).
func inTime(ctx context.Context) error {
	if ctx.Err() != nil {
		return notSentError{}
	}
	now := time.Now()
	if end, ok := ctx.Deadline(); ok && (!now.Before(end) || !now.Round(0).Before(end.Round(0))) {
		return notSentError{}
	}
	return nil
}

type patienceKey struct{}

// withPatience sets how long one attempt may wait for the head of its answer.
func withPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// doer sends requests that are signed, unless the caller's time is over, and gives
// up on a silent server: when no answer has begun
// after the patience of the call, or when its body stalls for timeout. A long
// body that keeps flowing may take as long as it likes.
type doer struct {
	client  *http.Client
	timeout time.Duration
}

// Do implements the SDK's HTTP client.
func (d *doer) Do(req *http.Request) (*http.Response, error) {
	if err := inTime(req.Context()); err != nil {
		return nil, err
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
		if !connected.Load() {
			err = &unconnectedError{err}
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
