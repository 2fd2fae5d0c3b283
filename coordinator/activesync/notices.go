package activesync

import (
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// concerns reports whether a record names something in a mount of its domain: a
// storage tells of much that nobody mounted, and none of it should enter the log.
func concerns(m freshet.Mount, r invalidation.Record) bool {
	if r.Kind == invalidation.KindAll {
		return true
	}
	wide := r.Recursive || r.Kind == invalidation.KindDelete || r.Kind == invalidation.KindRename || r.Kind == invalidation.KindSubtree
	_, one := invalidation.Matches(m.DomainKey, r.Key, wide)
	if r.Key2 != "" && !one {
		_, one = invalidation.Matches(m.DomainKey, r.Key2, wide)
	}
	return one
}

// canonical returns r with canonical keys, marking more where they are not.
func canonical(r invalidation.Record) invalidation.Record {
	r.Seq = 0
	if r.Kind == 0 || r.Kind > invalidation.KindAll {
		r.Kind, r.Recursive = invalidation.KindSubtree, true
	}
	key, whole := cleanKey(r.Key)
	key2, whole2 := "", true
	if r.Key2 != "" {
		key2, whole2 = cleanKey(r.Key2)
	}
	r.Key, r.Key2 = key, key2
	if !whole || !whole2 {
		r.Kind, r.Recursive = invalidation.KindRename, true // of two keys, both with all below them
		if key2 == "" {
			r.Kind = invalidation.KindSubtree
		}
		r.Fingerprint = fingerprint.Fingerprint{}
	}
	return r
}

// cleanKey returns the longest part of a key that is a canonical path, and
// whether that is all of it.
func cleanKey(key string) (clean string, whole bool) {
	if p, err := freshet.ParsePath(key); err == nil && string(p) == key {
		return key, true
	}
	clean = "/"
	for rest := strings.TrimPrefix(key, "/"); rest != ""; {
		segment, more, _ := strings.Cut(rest, "/")
		next := strings.TrimSuffix(clean, "/") + "/" + segment
		if p, err := freshet.ParsePath(next); err != nil || string(p) != next || segment == "" {
			break
		}
		clean, rest = next, more
	}
	// The last segment may be cut, or be a name that differs from ours.
	if i := strings.LastIndexByte(clean, '/'); i > 0 && len(clean) >= len(key) {
		clean = clean[:i]
	}
	return clean, false
}
