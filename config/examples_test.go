package config_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs/all"
)

// TestTheExamplesOfTheDocumentationAreRight reads every file of docs/examples as its
// users would. What is not of a server is for `freshet apply`.
func TestTheExamplesOfTheDocumentationAreRight(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "docs", "examples", "*.yaml"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	servers := map[string]config.Role{"coordinator.yaml": config.RoleCoordinator, "cachenode.yaml": config.RoleCacheNode, "cachenode-tiers.yaml": config.RoleCacheNode}
	for _, path := range files {
		name := filepath.Base(path)
		role, ok := servers[name]
		if !ok {
			role = config.RoleApply
		}
		f, err := config.Read(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if leftOut(f) {
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

// leftOut reports whether a mount is of a storage that build tags may leave out, and
// did.
func leftOut(f *config.File) bool {
	var built []string
	for _, o := range all.Openers(nil, nil) {
		built = append(built, o.Schemes()...)
	}
	return slices.ContainsFunc(f.Mounts, func(m config.Mount) bool {
		scheme, _, _ := strings.Cut(m.UFS, "://")
		return slices.Contains([]string{"hdfs", "abfs", "wasb", "gs"}, scheme) && !slices.Contains(built, scheme)
	})
}
