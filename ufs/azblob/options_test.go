package azblob_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/azblob"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		uri             string
		options         map[string]string
		authority, root string
	}{
		{"abfs://data@acct", nil, "abfs://data@acct", "/"},
		{"abfss://data@acct.dfs.core.windows.net/", nil, "abfs://data@acct", "/"},
		{"wasb://data@acct.blob.core.windows.net/a/b/", nil, "abfs://data@acct", "/a/b"},
		{"WASBS://data@ACCT.blob.core.windows.net/a%20b", nil, "abfs://data@acct", "/a b"},
		{"abfs://data@acct.dfs.core.chinacloudapi.cn/x", nil, "abfs://data@acct", "/x"},
		{"abfs://$root@acct", nil, "abfs://$root@acct", "/"},
		{"az://data/x", map[string]string{"account": "acct"}, "abfs://data@acct", "/x"},
		{"abfs://data@acct/x", map[string]string{"endpoint": "https://acct.private.example"}, "abfs://data@acct", "/x"},
		{"abfs://data@acct/x", map[string]string{"endpoint": "http://127.0.0.1:10000/acct/", "account_key": "env:K"}, "abfs://data@acct", "/x"},
		{"abfs://data@acct/x", map[string]string{"domain": "lake", "domain_root": "/y/z"}, "lake", "/y/z"},
	} {
		got, err := azblob.NewOpener(azblob.Options{}).Parse(ufs.Spec{URI: c.uri, Options: c.options})
		if err != nil || got.Authority != c.authority || got.DomainKey != c.root {
			t.Errorf("%s %v: %+v, %v; want %s and %s", c.uri, c.options, got, err, c.authority, c.root)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1"
	for _, c := range []struct{ uri, options, says string }{
		{"abfs://data/x", "", "names no account"},
		{"abfs://data:" + key + "@acct/x", "", "credentials"},
		{"abfs://" + key + "@acct/x", "", "credentials"},
		{"abfs://a@b@acct/x", "", "credentials"},
		{"abfs://data@acct/x?sv=2020&sig=" + key, "", "query"},
		{"abfs://data@acct/../x", "", `".."`},
		{`abfs://data@acct/a\b`, "", "backslash"},
		{"abfs://da@acct/x", "", "container"},
		{"abfs://data@a_cct/x", "", "account"},
		{"abfs://data@acct.example.com/x", "", "endpoint"},
		{"abfs://data@acct.z01.blob.storage.azure.net/x", "", "https://acct.z01.blob.storage.azure.net"},
		{"abfs://data@acct:443/x", "", "account"},
		{"az://data/x", "", "option account"},
		{"abfs://data@acct", "account=other", "az://"},
		{"abfs://data@acct", "acount_key=env:X", "did you mean 'account_key'"},
		{"abfs://data@acct", "abfs.sas=env:X", "did you mean 'sas'"},
		{"abfs://data@acct", "account_key=" + key, "use env: or file: reference"},
		{"abfs://data@acct", "sas=sv=2020&sig=" + key, "use env: or file: reference"},
		{"abfs://data@acct", "account_key=env", "one value"},
		{"abfs://data@acct", "account_key=env:A sas=env:B", "give one of"},
		{"abfs://data@acct", "account_key=env:A credentials=env", "give one of"},
		{"abfs://data@acct", "client_secret=env:A", "tenant_id"},
		{"abfs://data@acct", "tenant_id=t", "client_secret"},
		{"abfs://data@acct", "client_id=c", "client_secret"},
		{"abfs://data@acct", "credentials=azure", "anonymous"},
		{"abfs://data@acct", "block_size=1KiB", "64KiB"},
		{"abfs://data@acct", "upload_concurrency=0", "1"},
		{"abfs://data@acct", "max_op_lifetime=5y", "duration"},
		{"abfs://data@acct", "endpoint=ftp://x", "endpoint"},
		{"abfs://data@acct", "endpoint=https://u:" + key + "@x", "credentials"},
		{"abfs://data@acct", "endpoint=https://x/?sig=" + key, "sas"},
		{"abfs://data@acct", "endpoint=https://x/other", "not the account"},
		{"abfs://data@acct", "endpoint=http://x", "https"},
		{"s3://data", "", "account"},
	} {
		spec := ufs.Spec{URI: c.uri, Options: map[string]string{}}
		for option := range strings.FieldsSeq(c.options) {
			name, value, _ := strings.Cut(option, "=")
			spec.Options[name] = value
		}
		_, err := azblob.NewOpener(azblob.Options{}).Parse(spec)
		if !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s: %v, want one that says %q", c.uri, c.options, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("the error repeats a secret: %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"} {
		t.Setenv(name, "")
	}
	notPEM := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := ufs.Environment{SecretDirs: []string{"/run/secrets"}, Getenv: func(name string) string {
		return map[string]string{"KEY": "c2VjcmV0", "ODD": "not base64!"}[name]
	}}
	for _, c := range []struct {
		options map[string]string
		kind    freshet.Kind
		says    string
	}{
		{map[string]string{"account_key": "env:NONE"}, freshet.KindInvalid, "NONE"},
		{map[string]string{"account_key": "env:ODD"}, freshet.KindInvalid, "base64"},
		{map[string]string{"sas": "file:/etc/passwd"}, freshet.KindPermission, "secret_dirs"},
		{map[string]string{"account_key": "env:KEY", "endpoint": "http://127.0.0.1:10000/acct"}, freshet.KindPermission, "loopback"},
		{map[string]string{"account_key": "env:KEY", "endpoint": "http://169.254.169.254"}, freshet.KindPermission, "link-local"},
		{map[string]string{"account_key": "env:KEY", "ca_file": notPEM}, freshet.KindInvalid, "no PEM certificate"},
		{nil, freshet.KindInvalid, "no Azure credentials"},
		{map[string]string{"credentials": "workload_identity"}, freshet.KindInvalid, "no Azure credentials"},
	} {
		_, err := azblob.NewOpener(azblob.Options{}).Open(ufs.Spec{URI: "abfs://data@acct/x", Options: c.options}, env)
		if !freshet.IsKind(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %v and %q", c.options, err, c.kind, c.says)
		}
	}
}

// What opens without asking anybody.
func TestOpenAsksNobody(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000000")
	t.Setenv("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000001")
	t.Setenv("AZURE_CLIENT_SECRET", "s")
	token := filepath.Join(t.TempDir(), "token")
	env := ufs.Environment{Getenv: func(string) string { return "c2VjcmV0" }}
	for _, options := range []map[string]string{
		nil,
		{"credentials": "anonymous"},
		{"credentials": "managed_identity"},
		{"credentials": "managed_identity", "client_id": "x"},
		{"client_secret": "env:X", "tenant_id": "t", "client_id": "c"},
		{"sas": "env:X"},
		{"account_key": "env:X"},
	} {
		fs, err := azblob.NewOpener(azblob.Options{}).Open(ufs.Spec{URI: "abfs://data@acct/x", Options: options}, env)
		if err != nil {
			t.Errorf("%v: %v", options, err)
			continue
		}
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", token)
	fs, err := azblob.NewOpener(azblob.Options{}).Open(ufs.Spec{URI: "abfs://data@acct/x", Options: map[string]string{"credentials": "workload_identity"}}, env)
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Close(); err != nil {
		t.Error(err)
	}
}

// A storage that sends its caller elsewhere is not believed, and nothing is sent
// there.
func TestRedirectIsRefused(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the other server was asked") }))
	t.Cleanup(other.Close)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(srv.Close)
	env := ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}, Getenv: func(string) string { return "sv=1&sig=c2VjcmV0" }}
	fs, err := azblob.NewOpener(azblob.Options{}).Open(ufs.Spec{URI: "abfs://data@acct/x", Options: map[string]string{"sas": "env:X", "endpoint": srv.URL}}, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	_, err = fs.Stat(t.Context(), "f")
	if !freshet.IsKind(err, freshet.KindPermission) || !strings.Contains(err.Error(), "redirect refused") || strings.Contains(err.Error(), "c2VjcmV0") {
		t.Errorf("stat: %v", err)
	}
	err = fs.Remove(t.Context(), "f", ufs.RemoveOptions{})
	if !freshet.IsKind(err, freshet.KindPermission) {
		t.Errorf("remove: %v", err)
	}
}

// FuzzParse checks that no spec makes Parse panic and that what it accepts is
// canonical.
func FuzzParse(f *testing.F) {
	f.Add("abfs://data@acct.dfs.core.windows.net/a/b", "endpoint", "http://x")
	f.Add("az://data/%2e%2e", "account", "acct")
	f.Add("wasb://$web@a.z01.blob.x/", "block_size", "8MiB")
	f.Fuzz(func(t *testing.T, uri, name, value string) {
		c, err := azblob.NewOpener(azblob.Options{}).Parse(ufs.Spec{URI: uri, Options: map[string]string{name: value}})
		if err != nil {
			if !freshet.IsKind(err, freshet.KindInvalid) {
				t.Errorf("error of kind %v: %v", freshet.KindOf(err), err)
			}
			return
		}
		if p, err := freshet.ParsePath(c.DomainKey); err != nil || string(p) != c.DomainKey {
			t.Errorf("domain key %q: %v", c.DomainKey, err)
		}
	})
}
