package ufs_test

import (
	"testing"

	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

func TestPlaceTranslate(t *testing.T) {
	t.Parallel()
	const (
		content = invalidation.KindContent
		remove  = invalidation.KindDelete
		rename  = invalidation.KindRename
		subtree = invalidation.KindSubtree
	)
	own := ufs.Place{Authority: "s3://b", Key: "/data"}
	for name, tt := range map[string]struct {
		place  ufs.Place
		domain string
		of     string
		in     invalidation.Record
		want   invalidation.Record
		ok     bool
	}{
		"another bucket":          {own, "/data", "s3://c", invalidation.Record{Kind: content, Key: "/data/f"}, invalidation.Record{}, false},
		"same names":              {own, "/data", "s3://b", invalidation.Record{Kind: content, Key: "/data/f"}, invalidation.Record{Kind: content, Key: "/data/f"}, true},
		"same names, other mount": {own, "/data", "s3://b", invalidation.Record{Kind: content, Key: "/else"}, invalidation.Record{Kind: content, Key: "/else"}, true},
		"other root":              {own, "/x/y", "s3://b", invalidation.Record{Kind: content, Key: "/data/a/f"}, invalidation.Record{Kind: content, Key: "/x/y/a/f"}, true},
		"other root, the root":    {own, "/x/y", "s3://b", invalidation.Record{Kind: content, Key: "/data"}, invalidation.Record{Kind: content, Key: "/x/y"}, true},
		"other root, outside":     {own, "/x/y", "s3://b", invalidation.Record{Kind: content, Key: "/database/f"}, invalidation.Record{}, false},
		"other root, above":       {own, "/x/y", "s3://b", invalidation.Record{Kind: remove, Key: "/"}, invalidation.Record{Kind: remove, Key: "/x/y"}, true},
		"other root is the top":   {own, "/", "s3://b", invalidation.Record{Kind: content, Key: "/data/f"}, invalidation.Record{Kind: content, Key: "/f"}, true},
		"from the top":            {ufs.Place{Authority: "s3://b", Key: "/"}, "/x", "s3://b", invalidation.Record{Kind: content, Key: "/f"}, invalidation.Record{Kind: content, Key: "/x/f"}, true},
		"rename within":           {own, "/x", "s3://b", invalidation.Record{Kind: rename, Key: "/data/a", Key2: "/data/b"}, invalidation.Record{Kind: rename, Key: "/x/a", Key2: "/x/b"}, true},
		"rename out":              {own, "/x", "s3://b", invalidation.Record{Kind: rename, Key: "/data/a", Key2: "/b"}, invalidation.Record{Kind: subtree, Key: "/x/a", Recursive: true}, true},
		"rename in":               {own, "/x", "s3://b", invalidation.Record{Kind: rename, Key: "/a", Key2: "/data/b"}, invalidation.Record{Kind: subtree, Key: "/x/b", Recursive: true}, true},
		"rename elsewhere":        {own, "/x", "s3://b", invalidation.Record{Kind: rename, Key: "/a", Key2: "/b"}, invalidation.Record{}, false},
		"everything":              {own, "/x", "s3://b", invalidation.Record{Kind: invalidation.KindAll, Key: "/"}, invalidation.Record{Kind: subtree, Key: "/x", Recursive: true}, true},
	} {
		got, ok := tt.place.Translate(tt.domain, tt.of, tt.in)
		if ok != tt.ok || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, tt.want, tt.ok)
		}
	}
}
