package config_test

import (
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs/all"
)

func TestTheExamplesOfTheDocumentationAreRight(t *testing.T) {
	for name, role := range map[string]config.Role{
		"coordinator.yaml": config.RoleCoordinator, "cachenode.yaml": config.RoleCacheNode, "lake.yaml": config.RoleApply,
	} {
		path := filepath.Join("..", "docs", "examples", name)
		f, err := config.Read(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := f.GuessRole(); got != role {
			t.Errorf("%s is taken for role %d, want %d", name, got, role)
		}
		if err := f.Validate(config.ValidateOptions{Name: name, Role: role, UFS: all.Openers(nil, nil)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
