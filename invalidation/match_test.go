package invalidation_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet/invalidation"
)

func TestMatches(t *testing.T) {
	tests := []struct {
		root, key string
		recursive bool
		rel       string
		ok        bool
	}{
		{"/", "/", false, "", true},
		{"/", "/a/b", false, "a/b", true},
		{"/a", "/a", false, "", true},
		{"/a", "/a/b/c", false, "b/c", true},
		{"/a", "/ab", false, "", false},
		{"/a", "/ab", true, "", false},
		{"/ab", "/a", true, "", false},
		{"/a/b", "/a", false, "", false},
		{"/a/b", "/a", true, "", true}, // C26: the mount point itself
		{"/a/b", "/", true, "", true},
		{"/a/b", "/", false, "", false},
		{"/a/b", "/a/c", true, "", false},
	}
	for _, tt := range tests {
		if rel, ok := invalidation.Matches(tt.root, tt.key, tt.recursive); rel != tt.rel || ok != tt.ok {
			t.Errorf("Matches(%q, %q, %v) = %q, %v; want %q, %v", tt.root, tt.key, tt.recursive, rel, ok, tt.rel, tt.ok)
		}
	}
}

// Matching is by whole segments, as the definition says it without strings.
func TestMatchesProperty(t *testing.T) {
	key := rapid.StringMatching(`(/[ab]{1,2}){0,4}`)
	split := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '/' }) }
	rapid.Check(t, func(t *rapid.T) {
		root, k, recursive := "/"+strings.Join(split(key.Draw(t, "root")), "/"), "/"+strings.Join(split(key.Draw(t, "key")), "/"), rapid.Bool().Draw(t, "recursive")
		a, b := split(root), split(k)
		below := len(b) >= len(a) && slices.Equal(a, b[:len(a)])
		above := len(b) < len(a) && slices.Equal(b, a[:len(b)])
		rel, ok := invalidation.Matches(root, k, recursive)
		if ok != (below || recursive && above) {
			t.Fatalf("Matches(%q, %q, %v) = %v", root, k, recursive, ok)
		}
		if below && rel != strings.Join(b[len(a):], "/") || above && rel != "" {
			t.Fatalf("Matches(%q, %q, %v) = %q", root, k, recursive, rel)
		}
	})
}
