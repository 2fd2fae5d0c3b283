package s3_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

// sts is a security token service: it hands out numbered keys.
type sts struct {
	*httptest.Server
	mu     sync.Mutex
	forms  []url.Values
	signer []string // the Authorization headers
	refuse int      // status, if not 0
	life   time.Duration
}

func newSTS(t *testing.T) *sts {
	t.Helper()
	s := &sts{life: time.Hour}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *sts) serve(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forms, s.signer = append(s.forms, r.PostForm), append(s.signer, r.Header.Get("Authorization"))
	w.Header().Set("Content-Type", "text/xml")
	if s.refuse != 0 {
		w.WriteHeader(s.refuse)
		_, _ = io.WriteString(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>`)
		return
	}
	action := r.PostForm.Get("Action")
	_, _ = fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult>
<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>ROLEKEY%[2]d</AccessKeyId><SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token-%[2]d</SessionToken>
<Expiration>%[3]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action, len(s.forms), time.Now().Add(s.life).UTC().Format(time.RFC3339))
}

func (s *sts) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.forms)
}

// keys is a storage that keeps who asked it, and refuses some.
type keys struct {
	mu      sync.Mutex
	seen    []string // session tokens
	expired map[string]bool
}

func (k *keys) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("X-Amz-Security-Token")
	k.mu.Lock()
	k.seen = append(k.seen, token)
	refuse := k.expired[token]
	k.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	if refuse {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>`)
		return
	}
	answer(w, r)
}

func (k *keys) expire(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expired == nil {
		k.expired = map[string]bool{}
	}
	k.expired[token] = true
}

func openRole(t *testing.T, endpoint, stsURL string, env ufs.Environment) ufs.FS {
	t.Helper()
	env.AllowedEndpoints = []string{"127.0.0.0/8"}
	env.Getenv = func(name string) string { return map[string]string{"KEY": "BASEKEY", "SECRET": "base-secret"}[name] }
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket/p", Options: map[string]string{
		"endpoint": endpoint, "access_key": "env:KEY", "secret_key": "env:SECRET", "retries": "0",
		"assume_role_arn": "arn:aws:iam::123456789012:role/reader", "external_id": "ext-1", "role_session_name": "west", "sts_endpoint": stsURL,
	}}, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return fs
}

// The role's keys sign the requests to the storage, the mount's own those to STS,
// which is asked once for many requests.
func TestAssumeRole(t *testing.T) {
	t.Parallel()
	role, store := newSTS(t), &keys{}
	srv := httptest.NewServer(store)
	t.Cleanup(srv.Close)
	fs := openRole(t, srv.URL, role.URL, ufs.Environment{})
	for range 3 {
		if _, err := fs.Stat(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
	}
	if role.asked() != 1 {
		t.Fatalf("STS was asked %d times", role.asked())
	}
	for name, want := range map[string]string{
		"Action": "AssumeRole", "RoleArn": "arn:aws:iam::123456789012:role/reader", "ExternalId": "ext-1", "RoleSessionName": "west",
	} {
		if got := role.forms[0].Get(name); got != want {
			t.Errorf("STS was asked with %s=%q, want %q", name, got, want)
		}
	}
	if !strings.Contains(role.signer[0], "Credential=BASEKEY/") {
		t.Errorf("STS was asked by %s", role.signer[0])
	}
	if store.seen[0] != "role-token-1" {
		t.Errorf("the storage was asked with token %q", store.seen[0])
	}
	// The storage no longer takes them: new ones are fetched, and what was refused
	// is sent again, an effect too.
	store.expire("role-token-1")
	if _, err := write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true}); err != nil {
		t.Errorf("after the credentials expired: %v", err)
	}
	if last := store.seen[len(store.seen)-1]; last != "role-token-2" {
		t.Errorf("the storage was asked with token %q", last)
	}
}

// What keeps the role from being assumed is told, and nothing reaches the storage.
func TestRoleThatCannotBeAssumed(t *testing.T) {
	t.Parallel()
	store := &keys{}
	srv := httptest.NewServer(store)
	t.Cleanup(srv.Close)
	denied := newSTS(t)
	denied.refuse = http.StatusForbidden
	fs := openRole(t, srv.URL, denied.URL, ufs.Environment{})
	err := ufs.Probe(t.Context(), fs)
	wantKind(t, err, freshet.KindPermission)
	if !strings.Contains(err.Error(), "role arn:aws:iam::123456789012:role/reader can't be assumed") || strings.Contains(err.Error(), "base-secret") {
		t.Errorf("error: %v", err)
	}
	_, err = fs.Stat(t.Context(), "f")
	wantKind(t, err, freshet.KindPermission)

	down := newSTS(t)
	down.Close()
	fs = openRole(t, srv.URL, down.URL, ufs.Environment{})
	_, err = fs.Stat(t.Context(), "f")
	wantKind(t, err, freshet.KindUnavailable)
	if len(store.seen) != 0 {
		t.Errorf("the storage was asked %d times", len(store.seen))
	}
	// STS is dialled by the endpoint policy too.
	_, err = s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket", Options: map[string]string{
		"access_key": "env:KEY", "secret_key": "env:KEY", "assume_role_arn": "arn:aws:iam::1:role/r", "sts_endpoint": "http://169.254.169.254",
	}}, ufs.Environment{Getenv: func(string) string { return "x" }})
	wantKind(t, err, freshet.KindPermission)
}

// The SDK's own chain exchanges a web identity, as a Kubernetes service account
// has one.
func TestWebIdentity(t *testing.T) {
	role, store := newSTS(t), &keys{}
	srv := httptest.NewServer(store)
	t.Cleanup(srv.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("header.claims.signature"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "",
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "us-east-1",
		"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/pod", "AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_SESSION_NAME": "pod-1",
		"AWS_ENDPOINT_URL_STS": role.URL,
	} {
		t.Setenv(name, value)
	}
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket/p", Options: map[string]string{"endpoint": srv.URL, "retries": "0"}},
		ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	if _, err := fs.Stat(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	if len(role.forms) != 1 || role.forms[0].Get("Action") != "AssumeRoleWithWebIdentity" ||
		role.forms[0].Get("WebIdentityToken") != "header.claims.signature" || role.forms[0].Get("RoleSessionName") != "pod-1" {
		t.Errorf("STS was asked %v", role.forms)
	}
	if role.signer[0] != "" || store.seen[0] != "role-token-1" {
		t.Errorf("STS was asked by %q, the storage with token %q", role.signer[0], store.seen[0])
	}
}

// Keys in files that were replaced are read again as soon as the storage refuses
// the old ones; until they are, the error says what to renew.
func TestExpiredCredentials(t *testing.T) {
	t.Parallel()
	store := &keys{}
	srv := httptest.NewServer(store)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	fs, err := s3.NewOpener(s3.Options{}).Open(ufs.Spec{URI: "s3://bucket/p", Options: map[string]string{
		"endpoint": srv.URL, "retries": "1",
		"access_key": file("id", "AKID"), "secret_key": file("secret", "file-secret"), "session_token": file("token", "first"),
	}}, ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	if _, err := fs.Stat(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	store.expire("first")
	for what, call := range map[string]func() error{
		"stat":  func() error { _, err := fs.Stat(t.Context(), "f"); return err },
		"list":  func() error { _, err := listAll(t.Context(), fs); return err },
		"open":  func() error { _, err := read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1}); return err },
		"write": func() error { _, err := write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{}); return err },
		"large": func() error {
			_, err := write(t.Context(), fs, "f", make([]byte, 100<<10), ufs.CreateOptions{})
			return err
		},
		"remove": func() error { return fs.Remove(t.Context(), "f", ufs.RemoveOptions{}) },
	} {
		err := call()
		wantKind(t, err, freshet.KindPermission)
		if !strings.Contains(err.Error(), "have expired: renew") || strings.Contains(err.Error(), "file-secret") {
			t.Errorf("%s with expired keys: %v", what, err)
		}
	}
	file("token", "second")
	if _, err := fs.Stat(t.Context(), "f"); err != nil {
		t.Errorf("after the file was replaced: %v", err)
	}
}
