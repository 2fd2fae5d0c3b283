package ufs_test

import (
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
)

func wantError(t *testing.T, what string, err error, k freshet.Kind, text string) {
	t.Helper()
	if freshet.KindOf(err) != k {
		t.Errorf("%s: got %v (kind %v), want kind %v", what, err, freshet.KindOf(err), k)
		return
	}
	if err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%s: message %q lacks %q", what, err, text)
	}
}

func TestParseURI(t *testing.T) {
	t.Parallel()
	const canary = "wJalrXUtnFEMI"
	for _, tc := range []struct {
		raw  string
		want ufs.URI
		text string
	}{
		{raw: "s3://bucket", want: ufs.URI{Scheme: "s3", Host: "bucket"}},
		{raw: "s3://bucket/", want: ufs.URI{Scheme: "s3", Host: "bucket"}},
		{raw: "S3://bucket/a//b/", want: ufs.URI{Scheme: "s3", Host: "bucket", Path: "/a/b"}},
		{raw: "hdfs://nn:8020/x", want: ufs.URI{Scheme: "hdfs", Host: "nn:8020", Path: "/x"}},
		{raw: "file:///a b/%25/ü@x", want: ufs.URI{Scheme: "file", Path: "/a b/%/ü@x"}},
		{raw: "", text: "s3://bucket/prefix"},
		{raw: "bucket/key", text: "s3://bucket/prefix"},
		{raw: "s3:bucket", text: "s3://bucket/prefix"},
		{raw: "://x", text: "s3://bucket/prefix"},
		{raw: "s 3://x", text: "s3://bucket/prefix"},
		{raw: "s3://AKIA:" + canary + "@bucket/x", text: "credentials in URI; use options credentials=env:"},
		{raw: "s3://" + canary + "@bucket", text: "credentials in URI"},
		{raw: "abfs://" + canary + ":x@account", text: "credentials in URI"},
		{raw: "abfs://container@" + canary + "@account", text: "credentials in URI"},
		{raw: "s3://container@account", text: "credentials in URI"},
		{raw: "ABFSS://data-1@account.dfs.core.windows.net/a", want: ufs.URI{Scheme: "abfss", Host: "data-1@account.dfs.core.windows.net", Path: "/a"}},
		{raw: "wasb://$root@account", want: ufs.URI{Scheme: "wasb", Host: "$root@account"}},
		{raw: "s3://bucket/x?secret=" + canary, text: "query"},
		{raw: "s3://bucket/x#frag", text: "query"},
		{raw: "s3://bucket/../x", text: `".." segment`},
		{raw: "s3://bucket/a/%2E%2e/x", text: `".." segment`},
		{raw: "s3://bucket/./x", text: `"." segment`},
		{raw: "s3://bucket/%zz", text: "%25"},
		{raw: "s3://bucket/%00", text: "0x00"},
		{raw: "s3://bucket/a\nb", text: "control character"},
		{raw: "s3://bucket/%c0%af", text: "UTF-8"},
		{raw: "s3://bucket/" + strings.Repeat("x", 5000), text: "longer than 4096 bytes"},
	} {
		got, err := ufs.ParseURI(tc.raw)
		if tc.text == "" {
			if err != nil || got != tc.want {
				t.Errorf("%q: got %+v, %v, want %+v", tc.raw, got, err, tc.want)
			}
			continue
		}
		wantError(t, tc.raw, err, freshet.KindInvalid, tc.text)
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error %q repeats a secret", err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{"s3://bucket/a%20b", "file:///data", "s3://u:p@b", "abfs://c@a/x", "x://h/..", "a+b://h//x//", "s3://b/%3F%23%25"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := ufs.ParseURI(raw)
		if err != nil {
			if freshet.KindOf(err) != freshet.KindInvalid {
				t.Fatalf("%q: kind %v", raw, freshet.KindOf(err))
			}
			return
		}
		if strings.Contains(u.Host, "@") && !strings.HasPrefix(u.Scheme, "abfs") && !strings.HasPrefix(u.Scheme, "wasb") || strings.Contains(u.Path+"/", "/../") || strings.HasSuffix(u.Path, "/") || strings.Contains(u.Path, "//") || strings.IndexByte(u.Path, 0) >= 0 {
			t.Fatalf("%q: accepted as %+v", raw, u)
		}
		again, err := ufs.ParseURI(u.String())
		if len(u.String()) <= 4096 && (err != nil || again != u) {
			t.Fatalf("%q: %+v became %+v (%v) by %q", raw, u, again, err, u.String())
		}
	})
}

func TestOpeners(t *testing.T) {
	t.Parallel()
	o := ufs.Openers{local.Opener{}}
	c, err := o.Parse(ufs.Spec{URI: "file:///data/sub"})
	if err != nil || c.DomainKey != "/data/sub" {
		t.Errorf("got %+v, %v", c, err)
	}
	if parent, _ := o.Parse(ufs.Spec{URI: "file:///data"}); parent.Domain() != c.Domain() {
		t.Error("a directory and one below it are in different domains")
	}
	if other, _ := o.Parse(ufs.Spec{URI: "file:///data", Options: map[string]string{"domain": "nfs"}}); other.Domain() == c.Domain() {
		t.Error("the option domain has no effect")
	}
	for uri, text := range map[string]string{"fil:///data": `unknown storage scheme "fil"; did you mean 'file'?`, "gopher://x": `known are ["file"]`} {
		_, err := o.Parse(ufs.Spec{URI: uri})
		wantError(t, uri, err, freshet.KindInvalid, text)
		_, err = o.Open(ufs.Spec{URI: uri}, ufs.Environment{})
		wantError(t, uri, err, freshet.KindInvalid, text)
	}
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]freshet.Kind{
		"": freshet.KindOK, "a": freshet.KindOK, "a/b": freshet.KindOK, "a\\..": freshet.KindOK, "...": freshet.KindOK,
		"/a": freshet.KindInvalid, "a/": freshet.KindInvalid, "a//b": freshet.KindInvalid, "..": freshet.KindInvalid, "a/../b": freshet.KindInvalid, ".": freshet.KindInvalid, "a\x00": freshet.KindInvalid,
	} {
		if got := freshet.KindOf(ufs.CheckKey("test", key)); got != want {
			t.Errorf("%q: kind %v, want %v", key, got, want)
		}
	}
	if k := freshet.KindOf(ufs.CheckWrite("test", "")); k != freshet.KindConflict {
		t.Errorf("the root may be written: %v", k)
	}
	if k := freshet.KindOf(ufs.CheckWrite("test", "a/.freshet.x/b")); k != freshet.KindPermission {
		t.Errorf("a reserved name may be written: %v", k)
	}
}
