package s3_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/s3"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		uri             string
		options         map[string]string
		authority, root string
	}{
		{"s3://bucket", nil, "s3://bucket", "/"},
		{"s3://bucket/", nil, "s3://bucket", "/"},
		{"s3://bucket/a/b/", nil, "s3://bucket", "/a/b"},
		{"S3://bucket/a%20b", nil, "s3://bucket", "/a b"},
		{"s3://bucket/a", map[string]string{"endpoint": "https://one.example"}, "s3://bucket", "/a"},
		{"s3://bucket/a", map[string]string{"endpoint": "https://two.example", "domain": "two"}, "two", "/a"},
		{"s3://bucket/a", map[string]string{"domain": "x", "domain_root": "/y/z"}, "x", "/y/z"},
	} {
		got, err := s3.NewOpener(s3.Options{}).Parse(ufs.Spec{URI: c.uri, Options: c.options})
		if err != nil || got.Scheme != "s3" || got.Authority != c.authority || got.DomainKey != c.root {
			t.Errorf("%s %v: %+v, %v; want %s and %s", c.uri, c.options, got, err, c.authority, c.root)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ uri, option, value, says string }{
		{"s3:///x", "", "", "bucket"},
		{"s3://key:secret@bucket/x", "", "", "credentials"},
		{"s3://bucket?x=y", "", "", "query"},
		{"s3://bucket/../x", "", "", `".."`},
		{"s3://buc%6bet", "", "", "bucket"},
		{"s3://localhost:9000/bucket", "", "", "bucket"},
		{"file:///x", "", "", "scheme"},
		{"s3://bucket", "regoin", "x", "did you mean 'region'"},
		{"s3://bucket", "s3.region", "x", "did you mean 'region'"},
		{"s3://bucket", "secret_key", "wJalrXUtnFEMI", "use env: or file: reference"},
		{"s3://bucket", "secret_key", "env:X", "go together"},
		{"s3://bucket", "access_key", "env:X", "go together"},
		{"s3://bucket", "access_key", "env", "one value"},
		{"s3://bucket", "session_token", "env:X", "needs access_key"},
		{"s3://bucket", "credentials", "aws", "anonymous"},
		{"s3://bucket", "part_size", "1MiB", "5MiB"},
		{"s3://bucket", "part_size", "-1", "size"},
		{"s3://bucket", "upload_concurrency", "0", "1"},
		{"s3://bucket", "max_op_lifetime", "5 parsecs", "duration"},
		{"s3://bucket", "path_style", "yes", "true or false"},
		{"s3://bucket", "endpoint", "ftp://x", "endpoint"},
		{"s3://bucket", "endpoint", "https://user:pass@x", "credentials"},
		{"s3://bucket", "endpoint", "https://x/path", "path"},
	} {
		spec := ufs.Spec{URI: c.uri}
		if c.option != "" {
			spec.Options = map[string]string{c.option: c.value}
		}
		_, err := s3.NewOpener(s3.Options{}).Parse(spec)
		if !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s=%s: %v, want one that says %q", c.uri, c.option, c.value, err, c.says)
		}
		for _, secret := range []string{"wJalrXUtnFEMI", "user:pass", "key:secret"} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error repeats a secret: %v", err)
			}
		}
	}
}

func TestOpenReadsSecrets(t *testing.T) {
	t.Parallel()
	spec := ufs.Spec{URI: "s3://bucket", Options: map[string]string{"access_key": "env:NONE", "secret_key": "env:NONE"}}
	_, err := s3.NewOpener(s3.Options{}).Open(spec, ufs.Environment{Getenv: func(string) string { return "" }})
	if !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), "NONE") {
		t.Errorf("a variable that is not set: %v", err)
	}
	spec.Options["secret_key"], spec.Options["access_key"] = "file:/etc/passwd", "env:SET"
	_, err = s3.NewOpener(s3.Options{}).Open(spec, ufs.Environment{SecretDirs: []string{"/run/secrets"}, Getenv: func(string) string { return "x" }})
	if !freshet.IsKind(err, freshet.KindPermission) {
		t.Errorf("a file outside of the secret directories: %v", err)
	}
}

// FuzzParse checks that no spec makes Parse panic and that what it accepts is
// canonical.
func FuzzParse(f *testing.F) {
	f.Add("s3://bucket/a/b", "endpoint", "http://x")
	f.Add("s3://b.-_9/%2e%2e", "part_size", "8MiB")
	f.Fuzz(func(t *testing.T, uri, name, value string) {
		c, err := s3.NewOpener(s3.Options{}).Parse(ufs.Spec{URI: uri, Options: map[string]string{name: value}})
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

// The SDK's own chain is used where the options and the Environment name no keys.
func TestDefaultChain(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "",
		"AWS_ACCESS_KEY_ID": srv.AccessKey, "AWS_SECRET_ACCESS_KEY": srv.SecretKey, "AWS_REGION": "us-east-1",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", // an endpoint comes from the options alone
	} {
		t.Setenv(name, value)
	}
	openChain := func() ufs.FS {
		spec := ufs.Spec{URI: "s3://" + s3test.DefaultBucket, Options: map[string]string{"endpoint": srv.Endpoint, "retries": "0"}}
		fs, err := s3.NewOpener(s3.Options{}).Open(spec, ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = fs.Close() })
		return fs
	}
	if err := ufs.Probe(t.Context(), openChain()); err != nil {
		t.Errorf("with keys in the environment: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	_, err := write(t.Context(), openChain(), "f", []byte("x"), ufs.CreateOptions{Vouched: true})
	wantKind(t, err, freshet.KindPermission)
	if !strings.Contains(err.Error(), "no AWS credentials found: set option credentials=") {
		t.Errorf("without keys: %v", err)
	}
	// At an endpoint of one's own the machine is not asked for a role, unless
	// the options say so.
	asked := make(chan struct{}, 100)
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(metadata.Close)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.URL)
	_, err = openChain().Stat(t.Context(), "f")
	wantKind(t, err, freshet.KindPermission)
	if len(asked) != 0 {
		t.Error("the metadata service was asked for a role although the endpoint is an own one")
	}
}

// What a mount of a bucket's root has in common with one of a prefix, and that no
// error shows the secret.
func TestWholeBucketAndWrongSecret(t *testing.T) {
	srv := s3test.Start(t, s3test.Options{})
	fs := open(t, srv, "s3://"+s3test.DefaultBucket, nil)
	mustWrite(t, fs, "top", []byte("x"))
	mustWrite(t, fs, "d/f", []byte("y"))
	if got := strings.Join(names(t, fs, "", ufs.ListOptions{Recursive: true}), " "); got != "d/ d/f top" {
		t.Errorf("list: %s", got)
	}
	if err := fs.Remove(t.Context(), "top", ufs.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if st, err := fs.Rename(t.Context(), "d", "e"); err != nil || !st.IsDir() {
		t.Errorf("rename: %+v, %v", st, err)
	}
	wantContent(t, fs, "e/f", []byte("y"))
	for _, uri := range []string{"s3://" + s3test.DefaultBucket, "s3://no-such-bucket"} {
		bad := open(t, srv, uri, map[string]string{"secret_key": "env:WRONG", "retries": "0"})
		err := ufs.Probe(t.Context(), bad)
		wantKind(t, err, freshet.KindPermission)
		if strings.Contains(err.Error(), "wrong-secret") || strings.Contains(fmt.Sprintf("%+v", err), "wrong-secret") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	missing := open(t, srv, "s3://no-such-bucket", nil)
	err := ufs.Probe(t.Context(), missing)
	wantKind(t, err, freshet.KindNotExist) // for whoever adds a mount; for files it says nothing
	if !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("missing bucket: %v", err)
	}
}

// Parts are large enough for the largest object, 5 TiB, known or unknown.
func TestPartSizes(t *testing.T) {
	t.Parallel()
	const tib = int64(1) << 40
	for _, size := range []int64{0, 1, 5 << 20, 100 << 30, 5 * tib, -1} {
		var sum int64
		parts := int32(0)
		for ; parts < 9994 && sum < max(size, 5*tib); parts++ {
			sum += int64(s3.PartSize(8<<20, size, parts))
		}
		if sum < size || size < 0 && sum < 5*tib {
			t.Errorf("size %d: 9,994 parts hold %d bytes", size, sum)
		}
	}
	if got := s3.PartSize(8<<20, 1<<30, 5); got != 8<<20 {
		t.Errorf("a part of 1 GiB has %d bytes", got)
	}
}
