package ufs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func table() ufs.OptionTable {
	return append(ufs.CommonOptions(31*time.Minute),
		ufs.Option{Name: "region"}, ufs.Option{Name: "path_style", Type: ufs.OptionBool},
		ufs.Option{Name: "part_size", Type: ufs.OptionSize, Default: "8MiB", Min: 5 << 20, Max: 5 << 30},
		ufs.Option{Name: "retries", Type: ufs.OptionInt, Min: 1, Max: 10},
		ufs.Option{Name: "flavor", Type: ufs.OptionChoice, Choices: []string{"aws", "minio"}},
		ufs.Option{Name: "credentials", Type: ufs.OptionSecret},
	)
}

func TestOptionsAreRead(t *testing.T) {
	t.Parallel()
	v, err := table().Check("s3", map[string]string{
		"region": "eu-west-1", "path_style": "true", "retries": "3", "flavor": "minio", "credentials": "env:KEY", "domain": "lake", "domain_root": "/a//b/",
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.Text("region") != "eu-west-1" || !v.Bool("path_style") || v.Int("retries") != 3 || v.Int("part_size") != 8<<20 ||
		v.Duration(ufs.OptionMaxOpLifetime) != 31*time.Minute || v.Text("credentials") != "env:KEY" || !v.Has("flavor") || !v.Has("part_size") {
		t.Errorf("got %+v", v)
	}
	c, err := v.OverrideDomain(ufs.Canonical{Scheme: "s3", Authority: "s3://b", DomainKey: "/x"})
	if err != nil || c != (ufs.Canonical{Scheme: "s3", Authority: "lake", DomainKey: "/a/b"}) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestOptionsAreStrict(t *testing.T) {
	t.Parallel()
	const canary = "AKIACANARY"
	for _, tc := range []struct{ name, value, text string }{
		{"s3.regoin", "x", "unknown option 's3.regoin'; did you mean 'region'?"},
		{"regoin", "x", "unknown option 'regoin'; did you mean 'region'?"},
		{"s3.region", "x", "did you mean 'region'?"},
		{"secret_key", canary, "unknown option 'secret_key'; s3 knows domain"},
		{"credentials", canary, "use env: or file: reference"},
		{"credentials", canary + ":" + canary, "use env: or file: reference"},
		{"credentials", "env:" + canary + "/x", "use env: or file: reference"},
		{"credentials", "file:relative", "absolute path"},
		{"credentials", "file:/run/../etc/shadow", "absolute path"},
		{"max_op_lifetime", "-5s", `option 'max_op_lifetime' of s3: "-5s" is out of range; allowed is 0s to 24h0m0s`},
		{"max_op_lifetime", "1e9h", "allowed is 0s to 24h0m0s"},
		{"max_op_lifetime", "5 parsecs", `"5 parsecs" is not a duration`},
		{"part_size", "-1", `"-1" is not a size in bytes`},
		{"part_size", "9999999TB", "allowed is 5MiB to 5GiB"},
		{"part_size", "9999999TiB", "allowed is 5MiB to 5GiB"},
		{"part_size", "99999999999PiB", "is not a size"},
		{"part_size", "NaN", `"NaN" is not a size`},
		{"part_size", "", "is not a size"},
		{"part_size", "1KiB", `"1KiB" is out of range`},
		{"retries", "0", `"0" is out of range; allowed is 1 to 10`},
		{"retries", "1.5", "is not a whole number"},
		{"path_style", "1", `"1" is not true or false`},
		{"flavor", "minoi", "did you mean 'minio'?"},
		{"region", "a\nb", "control character"},
	} {
		_, err := table().Check("s3", map[string]string{tc.name: tc.value})
		wantError(t, tc.name+"="+tc.value, err, freshet.KindInvalid, tc.text)
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error %q repeats a secret", tc.name, err)
		}
	}
	v, err := table().Check("s3", map[string]string{"domain": "two words"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.OverrideDomain(ufs.Canonical{})
	wantError(t, "domain", err, freshet.KindInvalid, "without spaces")
	if v, err = table().Check("s3", map[string]string{"domain_root": "a/b"}); err != nil {
		t.Fatal(err)
	}
	_, err = v.OverrideDomain(ufs.Canonical{})
	wantError(t, "domain_root", err, freshet.KindInvalid, "does not start with")
}

func FuzzOptions(f *testing.F) {
	f.Add("region", "x")
	f.Add("s3.part_size", "1PiB")
	f.Add("credentials", "file:/a/../b")
	f.Fuzz(func(t *testing.T, name, value string) {
		if _, err := table().Check("s3", map[string]string{name: value}); err != nil && !freshet.IsKind(err, freshet.KindInvalid) {
			t.Fatalf("%q=%q: %v", name, value, err)
		}
	})
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, data string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(base, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, name), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	put("secrets/good", "s3cr3t\n", 0o600)
	put("secrets/readonly", "s3cr3t", 0o400)
	put("secrets/open", "s3cr3t", 0o644)
	put("secrets/empty", "\n", 0o600)
	put("secrets/huge", strings.Repeat("x", 65<<10), 0o600)
	put("secrets-not/outside", "s3cr3t", 0o600)
	if err := os.Symlink("../secrets-not/outside", base+"/secrets/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good", base+"/secrets/alias"); err != nil {
		t.Fatal(err)
	}
	env := ufs.Environment{SecretDirs: []string{base + "/secrets"}, Getenv: func(n string) string { return map[string]string{"KEY": "s3cr3t"}[n] }}
	for ref, want := range map[string]struct {
		kind freshet.Kind
		text string
	}{
		"env:KEY": {}, "file:" + base + "/secrets/good": {}, "file:" + base + "/secrets/readonly": {}, "file:" + base + "/secrets/alias": {},
		"env:NONE":                              {freshet.KindInvalid, "NONE is not set"},
		"file:/etc/shadow":                      {freshet.KindPermission, "secret files must be under ufs.secret_dirs"},
		"file:" + base + "/secrets-not/outside": {freshet.KindPermission, "secret files must be under ufs.secret_dirs"},
		"file:" + base + "/secrets/link":        {freshet.KindPermission, "leaves ufs.secret_dirs"},
		"file:" + base + "/secrets/open":        {freshet.KindPermission, "chmod 600"},
		"file:" + base + "/secrets/empty":       {freshet.KindInvalid, "is empty"},
		"file:" + base + "/secrets/huge":        {freshet.KindInvalid, "longer than"},
		"file:" + base + "/secrets/none":        {freshet.KindInvalid, "none"},
		"file:" + base + "/secrets":             {freshet.KindInvalid, "not a regular file"},
		"iam":                                   {freshet.KindInvalid, "no single value"},
		"env":                                   {freshet.KindInvalid, "no single value"},
	} {
		parsed, err := ufs.ParseSecretRef(ref)
		if err != nil || parsed.String() != ref {
			t.Errorf("%s: parsed as %q, %v", ref, parsed, err)
			continue
		}
		secret, err := env.Secret(parsed)
		wantError(t, ref, err, want.kind, want.text)
		if err == nil && secret.Reveal() != "s3cr3t" {
			t.Errorf("%s: got %q", ref, secret.Reveal())
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error repeats the secret", ref)
		}
	}
}

func TestSecretDoesNotShow(t *testing.T) {
	t.Parallel()
	s := ufs.NewSecret("canary")
	text, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), string(text), s.LogValue().String(), fmt.Sprintf("%v", struct{ S ufs.Secret }{s})} {
		if strings.Contains(shown, "canary") {
			t.Errorf("shows in %q", shown)
		}
	}
}
