// Package httpclient owns how requests reach a storage that speaks HTTP: never after
// the caller's time is over, and not for ever to a server that is silent. It never
// repeats a request and knows no storage.
package httpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet/ufs"
)

// ErrSilent is the error of a request to a server that gave no answer in time, and
// of a body that stalled. It is a timeout.
var ErrSilent error = silentError{}

type silentError struct{}

func (silentError) Error() string   { return "the storage gave no answer in time" }
func (silentError) Timeout() bool   { return true }
func (silentError) Temporary() bool { return true }

// ErrLate is in the chain of the error of a request that was ready and then kept
// back. The context need not have ended: its timer may be late.
var ErrLate = errors.New("not sent: the time for it was over")

// Transport sends requests over Base. Its errors have ufs.ErrNotSent in their chain
// where the server can't have seen any part of the request.
type Transport struct {
	Base http.RoundTripper
	// Timeout is how long the head of an answer, and then each piece of its body,
	// may take. A long body that keeps flowing may take as long as it likes.
	Timeout time.Duration
}

// CloseIdleConnections closes those of Base.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := inTime(req.Context()); err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // as the interface demands
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(patience(ctx, t.Timeout), func() { cancel(ErrSilent) })
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	resp, err := t.Base.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	timer.Stop()
	if err != nil {
		if context.Cause(ctx) == ErrSilent { //nolint:errorlint // the very value
			err = ErrSilent
		}
		cancel(nil)
		if !connected.Load() {
			err = ufs.NotSent(err)
		}
		return nil, err
	}
	resp.Body = &patientBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, timeout: t.Timeout}
	return resp, nil
}

type patienceKey struct{}

// WithPatience sets how long a request may wait for the head of its answer: that of
// a large upload comes after its body.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

func patience(ctx context.Context, otherwise time.Duration) time.Duration {
	if d, ok := ctx.Value(patienceKey{}).(time.Duration); ok {
		return d
	}
	return otherwise
}

// inTime is asked between signing and sending. The timer of a context does not
// fire while the process or its machine is paused, and may fire late after it:
// its deadline is compared with the clocks, of which the one of the wall goes on
// in a machine that sleeps (C13).
func inTime(ctx context.Context) error {
	now := time.Now()
	end, ok := ctx.Deadline()
	if ctx.Err() != nil || ok && (!now.Before(end) || !now.Round(0).Before(end.Round(0))) {
		return ufs.NotSent(errors.Join(ErrLate, ctx.Err()))
	}
	return nil
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
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(b.ctx) == ErrSilent { //nolint:errorlint // the very value
		err = ErrSilent
	}
	return n, err
}

func (b *patientBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// Trust returns a TLS configuration that trusts the certificates in a PEM file
// beside those that the machine trusts.
func Trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
