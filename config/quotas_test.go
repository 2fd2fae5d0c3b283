package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
)

func TestQuotasOfAFile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"quotas: [{path: /b, entries: 5}, {path: /a, bytes: 2TiB}]", ""},
		{"quotas: [{path: /a}]", "more than 0"},
		{"quotas: [{path: /a, entries: -1, bytes: 5GiB}]", "more than 0"},
		{"quotas: [{path: /a, bytes: lots}]", "lots"},
		{"quotas: [{path: a, bytes: 5GiB}]", "quotas[0]"},
		{"quotas: [{path: /a, bytes: 5GiB}, {path: /a, entries: 1}]", "quotas[1].path"},
		{"quotas: [{path: /a, byte: 5GiB}]", "byte"},
	} {
		name := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(name, []byte(c.text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := config.Read(name)
		if err == nil {
			err = f.Validate(config.ValidateOptions{Name: name, Role: config.RoleApply})
		}
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v does not say %q", c.text, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all, err := f.QuotaChanges(freshet.OriginApply)
		want := []freshet.QuotaChange{{Path: "/a", MaxBytes: 2 << 40, Origin: "apply"}, {Path: "/b", MaxEntries: 5, Origin: "apply"}}
		if err != nil || len(all) != 2 || all[0] != want[0] || all[1] != want[1] {
			t.Errorf("%+v, %v", all, err)
		}
	}
}
