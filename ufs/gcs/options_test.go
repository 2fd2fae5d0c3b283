package gcs_test

import (
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/gcs"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		uri     string
		options map[string]string
		want    ufs.Canonical
		says    string // of the error
	}{
		{"gs://lake", nil, ufs.Canonical{Scheme: "gs", Authority: "gs://lake", DomainKey: "/"}, ""},
		{"gs://lake/a/b", nil, ufs.Canonical{Scheme: "gs", Authority: "gs://lake", DomainKey: "/a/b"}, ""},
		{"gs://lake/a%20b", nil, ufs.Canonical{Scheme: "gs", Authority: "gs://lake", DomainKey: "/a b"}, ""},
		{"gs://lake", map[string]string{"domain": "x"}, ufs.Canonical{Scheme: "gs", Authority: "x", DomainKey: "/"}, ""},
		{"s3://lake", nil, ufs.Canonical{}, "scheme"},
		{"gs://La", nil, ufs.Canonical{}, "3 to 222"},
		{"gs://Lake", nil, ufs.Canonical{}, "lower case"},
		{"gs://-lake", nil, ufs.Canonical{}, "begins and ends"},
		{"gs://key:secret@lake", nil, ufs.Canonical{}, "credentials"},
		{"gs://lake", map[string]string{"credential": "env"}, ufs.Canonical{}, "'credentials'"},
		{"gs://lake", map[string]string{"credentials": "{\"private_key\": \"x\"}"}, ufs.Canonical{}, "reference to a key file"},
		{"gs://lake", map[string]string{"credentials": "iam"}, ufs.Canonical{}, "reference to a key file"},
		{"gs://lake", map[string]string{"endpoint": "storage.example"}, ufs.Canonical{}, "not a URL"},
		{"gs://lake", map[string]string{"endpoint": "https://u:p@storage.example"}, ufs.Canonical{}, "credentials in the URL"},
		{"gs://lake", map[string]string{"endpoint": "https://storage.example/storage/v1"}, ufs.Canonical{}, "a path"},
		{"gs://lake", map[string]string{"part_size": "300KiB"}, ufs.Canonical{}, "multiple of 256KiB"},
		{"gs://lake", map[string]string{"events": "sqs:https://x/1/q"}, ufs.Canonical{}, "webhook"},
	} {
		got, err := gcs.NewOpener(gcs.Options{}).Parse(ufs.Spec{URI: c.uri, Options: c.options})
		if c.says != "" {
			if !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s %v: %v, want invalid with %q", c.uri, c.options, err, c.says)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s %v: %+v, %v, want %+v", c.uri, c.options, got, err, c.want)
		}
	}
}

func TestOpenRefusesEndpointsThatNoStorageHas(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"http://169.254.169.254", "http://127.0.0.1:80", "http://[::1]"} {
		_, err := gcs.NewOpener(gcs.Options{}).Open(ufs.Spec{URI: "gs://lake", Options: map[string]string{"endpoint": endpoint, "credentials": "anonymous"}}, ufs.Environment{})
		if !freshet.IsKind(err, freshet.KindPermission) {
			t.Errorf("%s: %v, want permission", endpoint, err)
		}
	}
}

func TestOpenSaysWhatIsWrongWithAKeyFile(t *testing.T) {
	t.Parallel()
	env := ufs.Environment{Getenv: func(string) string { return `{"type": "service_account", "private_key": "s3cret"` }}
	_, err := gcs.NewOpener(gcs.Options{}).Open(ufs.Spec{URI: "gs://lake", Options: map[string]string{"credentials": "env:KEY"}}, env)
	if !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), "credentials") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("gs://lake/a%20b", "credentials", "env")
	f.Add("gs://lake", "endpoint", "http://[::1]:80/")
	f.Fuzz(func(t *testing.T, uri, name, value string) {
		c, err := gcs.NewOpener(gcs.Options{}).Parse(ufs.Spec{URI: uri, Options: map[string]string{name: value}})
		if err == nil && (c.Authority == "" || !strings.HasPrefix(c.DomainKey, "/")) {
			t.Errorf("%q %s=%q: %+v", uri, name, value, c)
		}
	})
}
