package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

// TLSFiles names PEM files: a certificate authority, a certificate and its key.
type TLSFiles struct{ CA, Cert, Key string }

// Identity is a certificate with its key and the authority that all others are
// checked against. Certificate and key are read again when their files change, so
// that a renewed certificate needs no restart; another authority does. Safe for
// concurrent use.
type Identity struct {
	files TLSFiles
	roots *x509.CertPool

	mu       sync.Mutex
	cert     *tls.Certificate
	modified time.Time
}

// LoadIdentity reads the files. It returns nil for no files at all, which means
// plain text.
func LoadIdentity(files TLSFiles) (*Identity, error) {
	if files == (TLSFiles{}) {
		return nil, nil //nolint:nilnil // no files, no identity, no error
	}
	id := &Identity{files: files, roots: x509.NewCertPool()}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "load TLS", "", "ca: %w", err)
	}
	if !id.roots.AppendCertsFromPEM(pem) {
		return nil, freshet.Errorf(freshet.KindInvalid, "load TLS", "", "ca: %s holds no certificate", files.CA)
	}
	if _, err := id.current(); err != nil {
		return nil, err
	}
	return id, nil
}

func (id *Identity) current() (*tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	st, err := os.Stat(id.files.Cert)
	if err == nil && id.cert != nil && st.ModTime().Equal(id.modified) {
		return id.cert, nil
	}
	cert, lerr := tls.LoadX509KeyPair(id.files.Cert, id.files.Key)
	if lerr != nil {
		if id.cert != nil {
			return id.cert, nil // half-written files: the old one goes on
		}
		return nil, freshet.Errorf(freshet.KindInvalid, "load TLS", "", "cert and key: %w", lerr)
	}
	id.cert = &cert
	if err == nil {
		id.modified = st.ModTime()
	}
	return id.cert, nil
}

// Mutual returns the server configuration of ports between servers: callers must
// show a certificate of our authority. Nil for a nil Identity.
func (id *Identity) Mutual() *tls.Config { return id.server(tls.RequireAndVerifyClientCert) }

// Server returns the server configuration of client ports: a certificate is
// checked if one is shown. Nil for a nil Identity.
func (id *Identity) Server() *tls.Config { return id.server(tls.VerifyClientCertIfGiven) }

func (id *Identity) server(auth tls.ClientAuthType) *tls.Config {
	if id == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: id.roots, ClientAuth: auth,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.current() },
	}
}

// Client returns the configuration for calling others. Nil for a nil Identity.
func (id *Identity) Client() *tls.Config {
	if id == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: id.roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.current() },
	}
}

// ClientTLS returns the configuration for calling servers of the authority in
// the PEM file, without showing a certificate.
func ClientTLS(ca string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "load TLS", "", "ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, freshet.Errorf(freshet.KindInvalid, "load TLS", "", "ca: %s holds no certificate", ca)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}, nil
}
