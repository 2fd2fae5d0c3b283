// Package proxy stands between S3 clients and a real S3 server: it counts what
// arrives and injects faults by rules that the control API sets. It owns the
// client's side of every connection. It never changes a request or an answer that
// no rule names, since signatures cover both the path and the Host header.
package proxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Options of a Proxy. Transport is required.
type Options struct {
	// Transport reaches the engine, whatever host the request names.
	Transport http.RoundTripper
	// CreateBucket makes a bucket in the engine, or does nothing if it exists. Nil
	// means that the control API cannot create buckets.
	CreateBucket func(ctx context.Context, name string) error
	// Domain is the virtual-host domain, without a port. Empty means "localhost".
	Domain string
	// Seed of the rules' probabilities.
	Seed uint64
	// Log receives one line per injected fault. Nil means none.
	Log *slog.Logger
}

// Proxy is the counting, failing handler in front of an engine. Safe for
// concurrent use.
type Proxy struct {
	opt    Options
	rules  *rules
	rec    *recorder
	holds  *holds
	stop   chan struct{}
	closer sync.Once
	active sync.WaitGroup
}

// New returns a proxy without rules.
func New(opt Options) *Proxy {
	if opt.Domain == "" {
		opt.Domain = "localhost"
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Proxy{
		opt: opt, rules: newRules(opt.Seed), rec: newRecorder(), holds: newHolds(),
		stop: make(chan struct{}),
	}
}

// Close discards what is held, stalled or delayed and waits for the requests in
// work. Call it after the listeners are closed.
func (p *Proxy) Close() {
	p.closer.Do(func() { close(p.stop) })
	p.active.Wait()
}

// exchange is one request on its way.
type exchange struct {
	call
	rec     *Record
	rule    Rule
	cleared <-chan struct{} // closed when the rules are cleared
}

// ServeHTTP counts the request, applies the rule that matches it and otherwise
// forwards it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.active.Add(1)
	defer p.active.Done()
	c := classify(r, p.opt.Domain)
	x := &exchange{call: c, rec: p.rec.begin(c, r.Header.Get("Range"))}
	defer p.rec.end(x.rec)
	r.Body = &countedBody{ReadCloser: r.Body, count: func(n int) { p.rec.addIn(c.op, n) }}
	rule, hit, cleared := p.rules.match(c)
	if !hit {
		p.pass(w, r, x)
		return
	}
	x.rule, x.cleared = rule, cleared
	p.rec.setFault(x.rec, rule.Action)
	p.opt.Log.Info("fault injected", "action", rule.Action, "op", c.op, "bucket", c.bucket, "key", c.key)
	p.fail(w, r, x)
}

// fail applies x.rule.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, x *exchange) {
	wait := time.Duration(x.rule.DelayMs) * time.Millisecond
	switch x.rule.Action {
	case ActionDelay:
		if p.pause(r, wait, nil) {
			p.pass(w, r, x)
			return
		}
		reset(w)
	case ActionStall:
		// Only with the body read does the server notice that the client leaves.
		_, _ = io.Copy(io.Discard, r.Body)
		p.pause(r, wait, x.cleared)
		reset(w)
	case ActionStatus:
		_, _ = io.Copy(io.Discard, r.Body)
		p.rec.setStatus(x.rec, x.rule.status())
		writeS3Error(w, r, x)
	case ActionReset:
		_, _ = io.Copy(io.Discard, r.Body)
		reset(w)
	case ActionDropResponse:
		p.drop(w, r, x)
	case ActionHold:
		p.hold(w, r, x)
	case ActionShortBody:
		p.shorten(w, r, x)
	}
}

// pause waits and reports whether the time passed before anything else happened.
// A zero time never passes.
func (p *Proxy) pause(r *http.Request, d time.Duration, cleared <-chan struct{}) bool {
	var passed <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		passed = t.C
	}
	select {
	case <-passed:
		return true
	case <-cleared:
	case <-r.Context().Done():
	case <-p.stop:
	}
	return false
}

// pass forwards the request and its answer unchanged.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, x *exchange) {
	resp, err := p.roundTrip(r.Context(), r, x)
	if err != nil {
		if r.Context().Err() == nil {
			p.opt.Log.Warn("engine did not answer", "op", x.op, "error", err)
		}
		reset(w)
		return
	}
	defer resp.Body.Close()
	copyHeader(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(p.counted(w, x.op), resp.Body); err != nil {
		panic(http.ErrAbortHandler) // the client must not take the rest for the whole
	}
}

// drop lets the request take effect and hides the answer.
func (p *Proxy) drop(w http.ResponseWriter, r *http.Request, x *exchange) {
	resp, err := p.roundTrip(context.WithoutCancel(r.Context()), r, x)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	reset(w)
}

// hold keeps the request, with its body, until somebody decides about it.
func (p *Proxy) hold(w http.ResponseWriter, r *http.Request, x *exchange) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		reset(w) // never arrived whole
		return
	}
	h := p.holds.add(x.call, len(body))
	h.result = Released{ID: h.ID}
	forward := false
	select {
	case forward = <-h.forward:
	case <-p.stop:
	}
	if !forward {
		close(h.done)
		reset(w)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := p.roundTrip(context.WithoutCancel(r.Context()), r, x)
	if err != nil {
		h.result.Error = err.Error()
		close(h.done)
		reset(w)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	h.result.Status, h.result.ETag = resp.StatusCode, resp.Header.Get("ETag")
	close(h.done)
	copyHeader(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = p.counted(w, x.op).Write(answer)
}

// shorten forwards and cuts the answer in the middle of its body.
func (p *Proxy) shorten(w http.ResponseWriter, r *http.Request, x *exchange) {
	resp, err := p.roundTrip(r.Context(), r, x)
	if err != nil {
		reset(w)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	copyHeader(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = p.counted(w, x.op).Write(answer[:len(answer)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// roundTrip sends the request as it came to the engine.
func (p *Proxy) roundTrip(ctx context.Context, r *http.Request, x *exchange) (*http.Response, error) {
	out := r.Clone(ctx)
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", "engine"
	out.Host = r.Host // signed
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	for _, h := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Te", "Upgrade"} {
		out.Header.Del(h)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // or the transport would add its own
	}
	resp, err := p.opt.Transport.RoundTrip(out)
	if err == nil {
		p.rec.setStatus(x.rec, resp.StatusCode)
	}
	return resp, err
}

func copyHeader(dst, src http.Header) {
	for k, v := range src {
		if k != "Connection" && k != "Keep-Alive" && k != "Transfer-Encoding" {
			dst[k] = v
		}
	}
}

// reset ends the connection without an answer, by RST where the transport can.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	abort(conn)
}

// counted counts before it writes, so that a client that has the answer finds it
// counted.
func (p *Proxy) counted(w io.Writer, op string) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		p.rec.addOut(op, len(b))
		return w.Write(b)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

type countedBody struct {
	io.ReadCloser
	count func(int)
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(n)
	return n, err
}
