package rest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/gateway/rest"
	"github.com/freshet-io/freshet/rpc"
)

// poster notes what is posted.
type poster struct {
	post   freshet.EventPost
	answer freshet.EventAnswer
	err    error
}

func (p *poster) PostEvents(_ context.Context, post freshet.EventPost) (freshet.EventAnswer, error) {
	p.post = post
	return p.answer, p.err
}

func TestEvents(t *testing.T) {
	t.Parallel()
	unavailable := freshet.Errorf(freshet.KindUnavailable, "find leader", "", "no leader")
	for name, tt := range map[string]struct {
		method, query, body string
		header              map[string]string
		from                string
		verified            bool
		answer              freshet.EventAnswer
		err                 error

		status int
		text   string
		want   freshet.EventPost
		hasNot bool // nothing reaches the coordinator
		reply  map[string]string
	}{
		"marked": {
			body: `{"x":1}`, from: "127.0.0.1:5", answer: freshet.EventAnswer{Marked: 2, Ignored: 1},
			status: 200, text: `{"marked":2,"ignored":1,"unread":0}`, want: freshet.EventPost{Body: []byte(`{"x":1}`), Trusted: true},
		},
		"nothing of ours":  {body: `x`, from: "[::1]:5", answer: freshet.EventAnswer{Ignored: 1}, status: 202, text: `"ignored":1`, want: freshet.EventPost{Body: []byte("x"), Trusted: true}},
		"unread":           {body: `x`, from: "10.0.0.1:5", answer: freshet.EventAnswer{Unread: 1}, status: 200, text: `"unread":1`, want: freshet.EventPost{Body: []byte("x")}},
		"from elsewhere":   {body: `x`, from: "10.0.0.1:5", status: 202, want: freshet.EventPost{Body: []byte("x")}},
		"through a proxy":  {body: `x`, from: "127.0.0.1:5", header: map[string]string{"X-Forwarded-For": "10.0.0.1"}, status: 202, want: freshet.EventPost{Body: []byte("x")}},
		"with certificate": {body: `x`, from: "10.0.0.1:5", verified: true, status: 202, want: freshet.EventPost{Body: []byte("x"), Trusted: true}},
		"token":            {body: `x`, from: "10.0.0.1:5", header: map[string]string{"Authorization": "bearer  s3cr3t "}, status: 202, want: freshet.EventPost{Body: []byte("x"), Token: "s3cr3t"}},
		"another scheme":   {body: `x`, from: "10.0.0.1:5", header: map[string]string{"Authorization": "Basic s3cr3t"}, status: 202, want: freshet.EventPost{Body: []byte("x")}},
		"handshake":        {body: `x`, from: "127.0.0.1:5", answer: freshet.EventAnswer{Validation: "c0de"}, status: 200, text: `{"validationResponse":"c0de"}`, want: freshet.EventPost{Body: []byte("x"), Trusted: true}},
		"confirmation":     {body: `x`, from: "127.0.0.1:5", answer: freshet.EventAnswer{Confirm: "https://sns/?a=b"}, status: 202, text: "https://sns/?a=b", want: freshet.EventPost{Body: []byte("x"), Trusted: true}},
		"cloud events ask": {
			method: "OPTIONS", from: "10.0.0.1:5", header: map[string]string{"WebHook-Request-Origin": "eventgrid.azure.net", "Authorization": "Bearer t"},
			status: 200, want: freshet.EventPost{Body: []byte("[]"), Token: "t"}, reply: map[string]string{"WebHook-Allowed-Origin": "eventgrid.azure.net"},
		},
		"stranger":       {body: `x`, from: "10.0.0.1:5", err: freshet.Errorf(freshet.KindUnauthenticated, "take events", "", "send the token"), status: 401, text: "send the token", want: freshet.EventPost{Body: []byte("x")}, reply: map[string]string{"WWW-Authenticate": "Bearer"}},
		"wrong token":    {body: `x`, from: "10.0.0.1:5", err: freshet.Errorf(freshet.KindPermission, "take events", "", "not the token"), status: 403, want: freshet.EventPost{Body: []byte("x")}},
		"no leader":      {body: `x`, from: "10.0.0.1:5", err: unavailable, status: 503, want: freshet.EventPost{Body: []byte("x")}, reply: map[string]string{"Retry-After": "1"}},
		"GET":            {method: "GET", from: "127.0.0.1:5", status: 405, hasNot: true, reply: map[string]string{"Allow": "POST, OPTIONS"}},
		"query":          {body: `x`, query: "?token=s3cr3t", from: "127.0.0.1:5", status: 400, text: "Authorization", hasNot: true},
		"compressed":     {body: `x`, from: "127.0.0.1:5", header: map[string]string{"Content-Encoding": "gzip"}, status: 415, hasNot: true},
		"more than fits": {body: strings.Repeat("x", 1<<20+1), from: "127.0.0.1:5", status: 413, hasNot: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &poster{answer: tt.answer, err: tt.err}
			if tt.method == "" {
				tt.method = http.MethodPost
			}
			r := httptest.NewRequestWithContext(t.Context(), tt.method, "/v1/events"+tt.query, strings.NewReader(tt.body))
			r.RemoteAddr = tt.from
			if tt.verified {
				r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{}}}
			}
			for name, value := range tt.header {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			rest.NewEvents(rpc.NewEventServer(p, nil)).ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.text) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if string(p.post.Body) != string(tt.want.Body) || p.post.Token != tt.want.Token || p.post.Trusted != tt.want.Trusted || (len(p.post.Body) == 0) != tt.hasNot {
				t.Errorf("posted %q, %+v", p.post.Body, p.post)
			}
			for name, want := range tt.reply {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if strings.Contains(w.Body.String(), "s3cr3t") {
				t.Errorf("the token is in the answer: %s", w.Body)
			}
		})
	}
}
