package faces_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// issue is a fleet.TLSFor: every server has the identity of its role and cluster.
func (a *authority) issue(cluster, role, name string) config.TLS {
	a.t.Helper()
	base := cluster + "-" + role + "-" + name
	files := config.TLS{CA: filepath.Join(a.dir, "ca.pem"), Cert: filepath.Join(a.dir, base+".pem"), Key: filepath.Join(a.dir, base+".key")}
	if _, err := os.Stat(files.Cert); err == nil {
		return files
	}
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "freshet", Path: "/cluster/" + cluster + "/" + role}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(base+".pem", "CERTIFICATE", der)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(base+".key", "PRIVATE KEY", der)
	return files
}

// TestTLS runs two regions that speak nothing but TLS, with certificates of both
// sides between servers.
func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	w := e2e.NewDirWorld(t, e2e.Options{Coordinators: 3, Nodes: 1, TLS: ca.issue})
	done, err := w.A.Write(t.Context(), "f", []byte("over TLS"))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := w.B.Read(t.Context(), "f", e2e.After(done.Token))
	if err != nil || !bytes.Equal(got, []byte("over TLS")) {
		t.Fatalf("%q, %v", got, err)
	}
	files := ca.issue("a", "client", "")
	with := []string{"--cacert", files.CA, "--cert", files.Cert, "--key", files.Key}
	w.A.CLI(t, append(with, "fs", "cat", "/mnt/a/f")...).Want(t, 0, "over TLS")
	w.A.CLI(t, "--timeout", "3s", "fs", "cat", "/mnt/a/f").Want(t, freshet.ExitUnavailable) // plain text
	stranger := newAuthority(t).issue("a", "client", "")
	w.A.CLI(t, "--timeout", "3s", "--cacert", stranger.CA, "fs", "cat", "/mnt/a/f").Want(t, freshet.ExitUnavailable)
	w.A.CLI(t, "--timeout", "3s", "--cacert", files.CA, "--cert", stranger.Cert, "--key", stranger.Key, "fs", "cat", "/mnt/a/f").Want(t, freshet.ExitUnavailable)
	w.A.CLI(t, "--cacert", "/none.pem", "fs", "ls", "/").Want(t, freshet.ExitUsage, "/none.pem")

	// Who shows no certificate is a client, and changes nothing of the cluster.
	w.A.CLI(t, "--cacert", files.CA, "fs", "cat", "/mnt/a/f").Want(t, 0, "over TLS")
	for _, change := range [][]string{
		{"cluster", "bump-epoch"},
		{"cluster", "raft", "remove", "c3"},
		{"cluster", "raft", "transfer-leader"},
		{"peers", "leave", "b"},
		{"peers", "join", "127.0.0.1:1"},
	} {
		w.A.CLI(t, append([]string{"--cacert", files.CA}, change...)...).Want(t, freshet.ExitDenied, "needs a client certificate")
	}
	w.A.CLI(t, append(with, "cluster", "bump-epoch")...).Want(t, 0, "epoch")

	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	fetch := func(url string) e2e.Answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return e2e.Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
	}
	to := fetch("https://"+w.A.HTTP[0]+"/v1/data/mnt/a/f").Want(t, http.StatusTemporaryRedirect).Header.Get("Location")
	if !strings.HasPrefix(to, "https://") {
		t.Fatalf("redirected to %q", to)
	}
	fetch(to).Want(t, http.StatusOK, "over TLS")
	if a := e2e.HTTP(t, "GET", "http://"+w.A.HTTP[0]+"/v1/cluster", ""); a.Status == http.StatusOK {
		t.Error("plain text is answered on a TLS port")
	}
	old := &tls.Dialer{Config: &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12}} //nolint:gosec // it must be refused
	if conn, err := old.DialContext(t.Context(), "tcp", w.A.HTTP[0]); err == nil {
		conn.Close()
		t.Error("TLS 1.2 is accepted")
	}
	if _, _, err := w.B.Read(t.Context(), "f", client.Whole()); err != nil {
		t.Error(err)
	}
}
