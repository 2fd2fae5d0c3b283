package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
)

func TestPoliciesOfAFile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"sync: [{path: /a, interval: 5s}]\npolicies: [{path: /a, ttl: 1h}, {path: /, pinned: true, write_type: through, block_size: 65536, replication: {min: 0, max: 2}}]", ""},
		{"policies: [{path: /a, consistency: strict}]", "not built"},
		{"policies: [{path: /a, replication: {min: 65}}]", "from 0 to 64"},
		{"policies: [{path: /a, replication: {min: 3, max: 2}}]", "at least 3 and at most 2"},
		{"policies: [{path: /a, ttl: 5}]", "5"},
		{"policies: [{path: /a, block_size: 100000}]", "a multiple of 64KiB"},
		{"policies: [{path: /a, block_size: 2GiB}]", "up to 1GiB"},
		{"policies: [{path: /a}]", "no property"},
		{"policies: [{path: a, ttl: 1h}]", "policies[0]"},
		{"policies: [{path: /a, ttl: 1h}, {path: /a, ttl: 2h}]", "policies[1].path"},
		{"sync: [{path: /a, interval: 5s}]\npolicies: [{path: /a, sync_interval: 5s}]", "under \"sync\" too"},
		{"policies: [{path: /a, tll: 1h}]", "tll"},
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
		all, err := f.PolicyChanges(freshet.OriginApply)
		if err != nil || len(all) != 2 || all[0].Path != "/" || len(all[0].Set) != 5 || all[1].Path != "/a" || len(all[1].Set) != 2 || all[1].Origin != "apply" {
			t.Errorf("%+v, %v", all, err)
			continue
		}
		if set := (freshet.Setting{Property: freshet.PropertyBlockSize, Value: "64KiB"}); !slices.Contains(all[0].Set, set) {
			t.Errorf("%+v lacks %+v", all[0].Set, set)
		}
	}
}
