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

func TestTouches(t *testing.T) {
	type touches = []invalidation.Touch
	tests := map[string]struct {
		r    invalidation.Record
		root string
		want touches
	}{
		"rename inside":             {invalidation.Record{Kind: invalidation.KindRename, Key: "/m/a", Key2: "/m/b", Recursive: true}, "/m", touches{{"a", true}, {"b", true}}},
		"rename out of":             {invalidation.Record{Kind: invalidation.KindRename, Key: "/m/a", Key2: "/x"}, "/m", touches{{"a", false}}},
		"rename into":               {invalidation.Record{Kind: invalidation.KindRename, Key: "/x", Key2: "/m/a"}, "/m", touches{{"a", false}}},
		"rename of a parent":        {invalidation.Record{Kind: invalidation.KindRename, Key: "/m", Key2: "/x", Recursive: true}, "/m/n", touches{{"", true}}},
		"all":                       {invalidation.Record{Kind: invalidation.KindAll, Key: "/"}, "/m/n", touches{{"", true}}},
		"subtree without the flag":  {invalidation.Record{Kind: invalidation.KindSubtree, Key: "/m"}, "/m/n", touches{{"", true}}},
		"elsewhere":                 {invalidation.Record{Kind: invalidation.KindContent, Key: "/x"}, "/m", nil},
		"file where a parent stood": {invalidation.Record{Kind: invalidation.KindCreate, Key: "/m"}, "/m/n", nil},
	}
	for name, tt := range tests {
		if got := tt.r.Touches(tt.root); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
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
