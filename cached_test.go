package freshet_test

import (
	"path"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

func TestGlobs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, rel string
		want         bool
	}{
		{"*.parquet", "a.parquet", true},
		{"*.parquet", "2026/11/a.parquet", true}, // a name is enough
		{"*.parquet", "a.parquet.tmp", false},
		{"part-?", "x/part-7", true},
		{"[ab]*", "x/c", false},
		{"2026/*", "2026/a", true},
		{"2026/*", "2026/11/a", false},
		{"2026/*", "x/2026/a", false},
		{"2026/**", "2026/11/a", true},
		{"**/11/*", "2026/11/a", true},
		{"**/11/*", "11/a", true},
		{"**/11/*", "2026/11/x/a", false},
		{"**/a/**/b", "x/a/y/a/z/b", true},
		{"**/a/**/b", "x/a/y/c", false},
		{"**", "a/b/c", true},
		{"a/**", "a", true},
		{"[", "[", false},
		{"", "a", false},
		{"/a", "a", false},
	} {
		if got := freshet.MatchGlob(tc.pattern, tc.rel); got != tc.want {
			t.Errorf("MatchGlob(%q, %q) = %v", tc.pattern, tc.rel, got)
		}
	}
}

func TestFiltersSelect(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	file := freshet.Info{Path: "/d/x/a.csv", Length: 10 << 20, ModTime: at, BlockSize: 4 << 20}
	for i, tc := range []struct {
		filter freshet.CacheFilter
		want   bool
		blocks int64
		bytes  int64
	}{
		{freshet.CacheFilter{}, true, 3, 10 << 20},
		{freshet.CacheFilter{Include: []string{"x/*.csv"}}, true, 3, 10 << 20},
		{freshet.CacheFilter{Include: []string{"*.parquet", "*.csv"}}, true, 3, 10 << 20},
		{freshet.CacheFilter{Include: []string{"*.csv"}, Exclude: []string{"x/**"}}, false, 3, 10 << 20},
		{freshet.CacheFilter{NewerThan: at}, true, 3, 10 << 20},
		{freshet.CacheFilter{NewerThan: at.Add(1)}, false, 3, 10 << 20},
		{freshet.CacheFilter{MinSize: 10<<20 + 1}, false, 3, 10 << 20},
		{freshet.CacheFilter{MaxSize: 10<<20 - 1}, false, 3, 10 << 20},
		{freshet.CacheFilter{FirstBytes: 1}, true, 1, 4 << 20},
		{freshet.CacheFilter{FirstBytes: 9 << 20}, true, 3, 10 << 20},
		{freshet.CacheFilter{FirstBytes: 1 << 40}, true, 3, 10 << 20},
	} {
		if err := tc.filter.Check(); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		blocks, bytes := tc.filter.Blocks(&file)
		if got := tc.filter.Selects("/d", &file); got != tc.want || blocks != tc.blocks || bytes != tc.bytes {
			t.Errorf("%d: %+v: selects %v, %d blocks, %d bytes", i, tc.filter, got, blocks, bytes)
		}
	}
	alone := freshet.CacheFilter{Include: []string{"a.csv"}}
	if !alone.Selects(file.Path, &file) {
		t.Error("a file that was itself asked for is not compared by its name")
	}
	for i, f := range []freshet.CacheFilter{
		{Include: []string{"["}}, {Exclude: []string{""}}, {MinSize: -1}, {MinSize: 2, MaxSize: 1}, {Include: make([]string, 200)},
	} {
		if err := f.Check(); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%d: %+v passes: %v", i, f, err)
		}
	}
	q := freshet.WarmQuery{Paths: []freshet.Path{"/d"}}
	if err := q.Normalize(); err != nil || q.Replicas != 1 {
		t.Errorf("%+v, %v", q, err)
	}
	for _, q := range []freshet.WarmQuery{{}, {Paths: []freshet.Path{"/d"}, Replicas: -1}, {Paths: []freshet.Path{"/d"}, Replicas: 65}} {
		if err := q.Normalize(); !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%+v passes: %v", q, err)
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"*.csv", "a/**/b", "**", "[a-", "\\", "**/**/x"} {
		f.Add(s, "a/b/c.csv")
	}
	f.Fuzz(func(t *testing.T, pattern, rel string) {
		got := freshet.MatchGlob(pattern, rel)
		if freshet.CheckGlob(pattern) != nil {
			if got {
				t.Errorf("malformed %q matches %q", pattern, rel)
			}
			return
		}
		if !strings.Contains(pattern, "**") && strings.Contains(pattern, "/") {
			if want, err := path.Match(pattern, rel); err == nil && want != got && !strings.ContainsAny(pattern, "[\\") {
				t.Errorf("MatchGlob(%q, %q) = %v, path.Match says %v", pattern, rel, got, want)
			}
		}
		if pattern == "**" && !got {
			t.Errorf("** does not match %q", rel)
		}
	})
}
