package rpc_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// authority signs certificates.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	dir    string
	serial int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, dir: t.TempDir(), serial: 1}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// files makes, or renews, a certificate for a host.
func (a *authority) files(t *testing.T, name, host string) rpc.TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := rpc.TLSFiles{
		CA: filepath.Join(a.dir, "ca.pem"), Cert: a.write(t, name+".pem", "CERTIFICATE", der), Key: a.write(t, name+".key", "EC PRIVATE KEY", keyDER),
	}
	// File times may be coarse: make sure that a renewed one is seen as such.
	stamp := time.Now().Add(time.Duration(a.serial) * time.Second)
	if err := os.Chtimes(f.Cert, stamp, stamp); err != nil {
		t.Fatal(err)
	}
	return f
}

func load(t *testing.T, f rpc.TLSFiles) *rpc.Identity {
	t.Helper()
	id, err := rpc.LoadIdentity(f)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	id := load(t, ours.files(t, "server", "127.0.0.1"))
	caOnly, err := rpc.ClientTLS(filepath.Join(ours.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	client := load(t, ours.files(t, "client", "client.example")).Client()
	stranger := load(t, theirs.files(t, "client", "client.example"))
	// Trusts us, but is not one of us.
	forged := caOnly.Clone()
	forged.GetClientCertificate = stranger.Client().GetClientCertificate
	old := caOnly.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, tc := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		ok     bool
	}{
		{"clients need no certificate", id.Server(), caOnly, true},
		{"clients may have one", id.Server(), client, true},
		{"one of another authority is refused", id.Server(), forged, false},
		{"servers show theirs to each other", id.Mutual(), client, true},
		{"a server without one is refused", id.Mutual(), caOnly, false},
		{"another authority's server is refused", id.Mutual(), forged, false},
		{"a server of another authority is not trusted", id.Server(), stranger.Client(), false},
		{"plain text", id.Server(), nil, false},
		{"TLS 1.2", id.Server(), old, false},
		{"TLS on a plain port", nil, caOnly, false},
		{"a certificate for another host", load(t, ours.files(t, "other", "elsewhere.example")).Server(), caOnly, false},
	} {
		f := &fake{}
		s := start(t, f, nil, rpc.ServerOptions{TLS: tc.server})
		_, err := dial(t, rpc.DialOptions{TLS: tc.client, NoRetry: true}, s.addr).Cluster(t.Context())
		if (err == nil) != tc.ok || (err != nil && !freshet.IsKind(err, freshet.KindUnavailable)) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestARenewedCertificateIsUsedWithoutARestart(t *testing.T) {
	a := newAuthority(t)
	files := a.files(t, "server", "127.0.0.1")
	id := load(t, files)
	s := start(t, &fake{}, nil, rpc.ServerOptions{TLS: id.Mutual()})
	client := load(t, a.files(t, "client", "client.example"))
	serial := func() int64 {
		conn, err := (&tls.Dialer{Config: client.Client()}).DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64() //nolint:forcetypeassert // of tls.Dialer
	}
	if got := serial(); got != 2 {
		t.Fatalf("serial %d", got)
	}
	if err := os.WriteFile(files.Cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("while the file is being written: serial %d", got)
	}
	a.files(t, "server", "127.0.0.1")
	if got := serial(); got != a.serial {
		t.Errorf("after the renewal: serial %d, want %d", got, a.serial)
	}
	if _, err := dial(t, rpc.DialOptions{TLS: client.Client()}, s.addr).Cluster(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestIncompleteTLSFilesAreNamed(t *testing.T) {
	a := newAuthority(t)
	good := a.files(t, "server", "127.0.0.1")
	other := a.files(t, "other", "127.0.0.1")
	if id, err := rpc.LoadIdentity(rpc.TLSFiles{}); id != nil || err != nil || id.Client() != nil || id.Mutual() != nil || id.Server() != nil {
		t.Errorf("no files mean no TLS: %v, %v", id, err)
	}
	for name, tc := range map[string]struct {
		files rpc.TLSFiles
		want  string
	}{
		"no authority":            {rpc.TLSFiles{Cert: good.Cert, Key: good.Key}, "ca"},
		"authority without PEM":   {rpc.TLSFiles{CA: good.Key, Cert: good.Cert, Key: good.Key}, "holds no certificate"},
		"no key":                  {rpc.TLSFiles{CA: good.CA, Cert: good.Cert}, "cert and key"},
		"key of another":          {rpc.TLSFiles{CA: good.CA, Cert: good.Cert, Key: other.Key}, "cert and key"},
		"files that aren't there": {rpc.TLSFiles{CA: good.CA, Cert: "/nowhere/a", Key: "/nowhere/b"}, "/nowhere/a"},
	} {
		if _, err := rpc.LoadIdentity(tc.files); !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := rpc.ClientTLS(good.Key); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("client: %v", err)
	}
}

// callsOfServers are the calls that need a certificate over TLS.
func callsOfServers(c *rpc.Coordinator) map[string]func(context.Context) error {
	op := freshet.OpID{1}
	return map[string]func(context.Context) error{
		"Heartbeat": func(ctx context.Context) error { _, err := c.Heartbeat(ctx, freshet.Heartbeat{}); return err },
		"Permit": func(ctx context.Context) error {
			return c.Permit(ctx, freshet.PermitQuery{Op: op, Node: "n", Incarnation: 1, Length: 2})
		},
		"Complete":           func(ctx context.Context) error { _, err := c.Complete(ctx, op, freshet.Written{}); return err },
		"Abort":              func(ctx context.Context) error { return c.Abort(ctx, op, true) },
		"JoinRaft":           func(ctx context.Context) error { _, _, err := c.JoinRaft(ctx, freshet.Member{}, "east"); return err },
		"RemoveRaft":         func(ctx context.Context) error { return c.RemoveRaft(ctx, "m", false) },
		"TransferLeadership": func(ctx context.Context) error { _, err := c.TransferLeadership(ctx, "m"); return err },
		"BumpEpoch":          func(ctx context.Context) error { _, err := c.BumpEpoch(ctx, true); return err },
		"JoinPeers":          func(ctx context.Context) error { _, err := c.JoinPeers(ctx, []string{"a:1"}); return err },
		"PostEvents":         func(ctx context.Context) error { _, err := c.PostEvents(ctx, freshet.EventPost{}); return err },
		"LeavePeers":         func(ctx context.Context) error { return c.ForgetPeer(ctx, "west") },
	}
}

func TestCallsOfServersNeedACertificate(t *testing.T) {
	a := newAuthority(t)
	id := load(t, a.files(t, "server", "127.0.0.1"))
	caOnly, err := rpc.ClientTLS(filepath.Join(a.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	secure := rpc.ServerOptions{TLS: id.Server()}
	between := rpc.DialOptions{TLS: id.Client(), NoRetry: true}
	leader, follower := &fake{}, &fake{err: freshet.Errorf(freshet.KindNotLeader, "test", "", "not me")}
	l := start(t, leader, nil, secure)
	m := startBetween(t, follower, leaderAt(l.addr), secure, between)
	plain := &fake{}
	p := start(t, plain, nil, rpc.ServerOptions{})
	for name, tc := range map[string]struct {
		addr   string
		client *tls.Config
		did    *fake
		ok     bool
	}{
		"without, at the leader":  {l.addr, caOnly, leader, false},
		"without, at a follower":  {m.addr, caOnly, leader, false},
		"with one, at the leader": {l.addr, between.TLS, leader, true},
		"with one, at a follower": {m.addr, between.TLS, leader, true},
		"plain text":              {p.addr, nil, plain, true},
	} {
		c := dial(t, rpc.DialOptions{TLS: tc.client, NoRetry: true}, tc.addr)
		for call, do := range callsOfServers(c) {
			served := map[string]string{"LeavePeers": "ForgetPeer"}[call] // its name in the service
			served = cmp.Or(served, call)
			before := tc.did.count(served)
			err := do(t.Context())
			switch done := tc.did.count(served) - before; {
			case tc.ok && (err != nil || done != 1):
				t.Errorf("%s: %s: %v, done %d times", name, call, err, done)
			case !tc.ok && (done != 0 || !freshet.IsKind(err, freshet.KindPermission) ||
				!strings.Contains(err.Error(), call+" needs a client certificate of the cluster's authority")):
				t.Errorf("%s: %s: %v, done %d times", name, call, err, done)
			}
		}
		// What clients do needs none.
		if _, err := c.Stat(t.Context(), "/a", freshet.ReadOptions{}); err != nil {
			t.Errorf("%s: stat: %v", name, err)
		}
	}
}
