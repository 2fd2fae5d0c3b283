package server_test

import (
	"strings"
	"testing"

	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// TestConfigurationKnowsAllPolicies: the names that a configuration may use are those
// of the packages that have them, which config must not import, and the defaults are
// the first ones.
func TestConfigurationKnowsAllPolicies(t *testing.T) {
	t.Parallel()
	const coordinator = "cluster: c\nnode: {name: n, data_dir: /d}\n"
	for _, c := range []struct {
		key, file string
		names     []string
		role      config.Role
		get       func(*config.File) string
	}{
		{"cache.eviction", "cluster: c\nnode: {name: n, data_dir: /d}\ncoordinators: [127.0.0.1:1]\ncache: {eviction: X}\n", tier.Policies(), config.RoleCacheNode, func(f *config.File) string { return f.Cache.Eviction }},
		{"placement.policy", coordinator + "placement: {policy: X}\n", placement.Policies(), config.RoleCoordinator, func(f *config.File) string { return f.Placement.Policy }},
	} {
		validate := func(name string) (*config.File, error) {
			f, err := config.Parse("f.yaml", []byte(strings.Replace(c.file, "X", name, 1)))
			if err == nil {
				err = f.Validate(config.ValidateOptions{Name: "f.yaml", Role: c.role})
			}
			return f, err
		}
		for _, name := range c.names {
			if _, err := validate(name); err != nil {
				t.Errorf("%s: %s is refused: %v", c.key, name, err)
			}
		}
		if f, err := validate("\"\""); err != nil || c.get(f) != c.names[0] {
			t.Errorf("%s: the default is %q, want %q; %v", c.key, c.get(f), c.names[0], err)
		}
		_, err := validate("nonesuch")
		if err == nil {
			t.Fatalf("%s: any name is taken", c.key)
		}
		_, said, _ := strings.Cut(err.Error(), "use ")
		said, _, _ = strings.Cut(said, "\n")
		if n := strings.Count(said, "\"") / 2; n != len(c.names) {
			t.Errorf("%s: the error names %d policies, there are %d: %s", c.key, n, len(c.names), said)
		}
	}
}
