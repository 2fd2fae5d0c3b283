package ufs_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func policy(t *testing.T, allowed ...string) ufs.EndpointPolicy {
	t.Helper()
	p, err := ufs.Environment{AllowedEndpoints: allowed}.EndpointPolicy()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEndpointURLs(t *testing.T) {
	t.Parallel()
	p := policy(t, "127.0.0.1:9000", "minio.local:9000", "fd12::/16")
	for raw, want := range map[string]struct {
		kind freshet.Kind
		text string
	}{
		"https://s3.eu-west-1.amazonaws.com": {}, "http://10.1.2.3:9000/": {}, "http://127.0.0.1:9000": {}, "http://minio.local:9000": {}, "http://[fd12::1]:80": {},
		"http://169.254.169.254":           {freshet.KindPermission, "link-local endpoint not allowed"},
		"http://[::ffff:169.254.169.254]":  {freshet.KindPermission, "link-local endpoint not allowed"},
		"http://[fe80::1%25eth0]:80":       {freshet.KindPermission, "link-local"},
		"http://[64:ff9b::a9fe:a9fe]":      {freshet.KindPermission, "link-local"},
		"http://[2002:7f00:1::]":           {freshet.KindPermission, "loopback"},
		"http://[::127.0.0.1]":             {freshet.KindPermission, "loopback"},
		"http://[fd00:ec2::254]":           {freshet.KindPermission, "metadata"},
		"http://[::ffff:100.100.100.200]":  {freshet.KindPermission, "metadata"},
		"http://[::ffff:0.1.2.3]":          {freshet.KindPermission, "unspecified"},
		"http://100.100.100.200":           {freshet.KindPermission, "metadata"},
		"http://2852039166":                {freshet.KindPermission, "link-local"},
		"http://0xa9fea9fe/":               {freshet.KindPermission, "link-local"},
		"http://0251.0376.0251.0376":       {freshet.KindPermission, "link-local"},
		"http://169.254.43518":             {freshet.KindPermission, "link-local"},
		"http://127.1":                     {freshet.KindPermission, "loopback"},
		"http://0x7f.1":                    {freshet.KindPermission, "loopback"},
		"http://168496141":                 {freshet.KindInvalid, "as 10.11.12.13"},
		"http://127.0.0.1:9001":            {freshet.KindPermission, "loopback endpoint not allowed"},
		"http://localhost:9000":            {freshet.KindPermission, "loopback"},
		"http://LOCALHOST.:9000":           {freshet.KindPermission, "loopback"},
		"http://0.0.0.0:9000":              {freshet.KindPermission, "unspecified"},
		"http://[::]:9000":                 {freshet.KindPermission, "unspecified"},
		"http://224.0.0.1":                 {freshet.KindPermission, "multicast"},
		"http://255.255.255.255":           {freshet.KindPermission, "reserved"},
		"http://key:canary@s3.example.com": {freshet.KindInvalid, "credentials in the endpoint"},
		"ftp://s3.example.com":             {freshet.KindInvalid, "is not an endpoint"},
		"s3.example.com":                   {freshet.KindInvalid, "is not an endpoint"},
		"https://s3.example.com/path":      {freshet.KindInvalid, "more than"},
		"https://s3.example.com?x=y":       {freshet.KindInvalid, "more than"},
		"":                                 {freshet.KindInvalid, "is not an endpoint"},
	} {
		err := p.CheckURL(raw)
		wantError(t, raw, err, want.kind, want.text)
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error repeats a secret", raw)
		}
	}
	for _, bad := range []string{"localhost", ":9000", "host:port", "127.0.0.1/99", "host:99999", ""} {
		if _, err := (ufs.Environment{AllowedEndpoints: []string{bad}}).EndpointPolicy(); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("allowed endpoint %q: %v", bad, err)
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, seed := range []string{"http://127.1", "http://[::1]", "https://0x7f000001:80", "http://0177.0.0.1", "http://s3.example.com"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var p ufs.EndpointPolicy
		if err := p.CheckURL(raw); err != nil {
			if !freshet.IsKind(err, freshet.KindInvalid, freshet.KindPermission) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("%q: accepted, but %v", raw, err)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && (a.Unmap().IsLoopback() || a.Unmap().IsLinkLocalUnicast()) {
			t.Fatalf("%q: accepted", raw)
		}
	})
}

// TestDialChecksTheResolvedAddress: a name that leads to loopback is refused when
// it is dialled, whatever the URL looked like.
func TestDialChecksTheResolvedAddress(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	for _, tc := range []struct {
		allowed []string
		host    string
		kind    freshet.Kind
	}{
		{nil, "127.0.0.1", freshet.KindPermission},
		{nil, "localhost", freshet.KindPermission},
		{[]string{"127.0.0.1:1"}, "127.0.0.1", freshet.KindPermission},
		{[]string{"127.0.0.1:" + port}, "127.0.0.1", freshet.KindOK},
		{[]string{"localhost:" + port}, "localhost", freshet.KindOK},
		{[]string{"127.0.0.0/8", "::1/128"}, "localhost", freshet.KindOK},
	} {
		transport := policy(t, tc.allowed...).Transport()
		client := http.Client{Transport: transport}
		hits.Store(0)
		resp, err := client.Get("http://" + tc.host + ":" + port) //nolint:noctx // a test against its own server
		if err == nil {
			_ = resp.Body.Close() // nothing was read
		}
		transport.CloseIdleConnections()
		if freshet.KindOf(err) != tc.kind || (hits.Load() > 0) != (tc.kind == freshet.KindOK) {
			t.Errorf("%s with %q: %v, %d requests came, want kind %v", tc.host, tc.allowed, err, hits.Load(), tc.kind)
		}
	}
}

func TestRedirectsAreRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest/meta-data?token=canary", http.StatusFound))
	defer server.Close()
	transport := policy(t, "127.0.0.0/8").Transport()
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: ufs.RefuseRedirect}
	resp, err := client.Get(server.URL) //nolint:noctx // a test against its own server
	if err == nil {
		_ = resp.Body.Close() // the test has failed anyway
	}
	var refused *freshet.Error
	if !errors.As(err, &refused) || refused.Kind != freshet.KindPermission || !strings.Contains(refused.Error(), "redirect refused") || strings.Contains(refused.Error(), "canary") {
		t.Errorf("got %v", err)
	}
}
