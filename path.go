package freshet

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a Path, in bytes and segments.
const (
	MaxPathLen    = 4096
	MaxSegmentLen = 255
	MaxPathDepth  = 128
)

// ReservedPrefix starts names that Freshet keeps for its own temporary files in
// a storage. They are hidden from listings and can't be created by users.
const ReservedPrefix = ".freshet"

// Path is a canonical path of a cluster's namespace: it starts with "/", has no
// empty, "." or ".." segment and no trailing slash except for the root itself.
// Make one with ParsePath; the operations below assume the canonical form.
type Path string

// Root is the top of every namespace.
const Root Path = "/"

// ParsePath returns the canonical form of s. A relative path, an empty one, a
// "." or ".." segment, NUL or another control character, invalid UTF-8, and
// whatever exceeds the limits is KindInvalid with a message that names the
// offence. Repeated and trailing slashes are dropped. Backslashes and percent
// signs are ordinary characters.
func ParsePath(s string) (Path, error) {
	if err := checkPath(s); err != nil {
		return "", &Error{Op: "parse path", Kind: KindInvalid, Err: err}
	}
	if canonical(s) {
		return Path(s), nil
	}
	segments := strings.FieldsFunc(s, func(r rune) bool { return r == '/' })
	if len(segments) > MaxPathDepth {
		return "", Errorf(KindInvalid, "parse path", "", "path has %d segments, more than %d", len(segments), MaxPathDepth)
	}
	for _, seg := range segments {
		if err := checkSegment(seg); err != nil {
			return "", &Error{Op: "parse path", Kind: KindInvalid, Err: err}
		}
	}
	return Path("/" + strings.Join(segments, "/")), nil
}

// canonical reports whether s, which passed checkPath, is a path that needs no
// change: nearly all are, and they are parsed at every border.
func canonical(s string) bool {
	if s == "/" {
		return true
	}
	start, depth := 1, 1
	for i := 1; i <= len(s); i++ {
		if i < len(s) && s[i] != '/' {
			continue
		}
		switch n := i - start; {
		case n == 0, n > MaxSegmentLen, s[start] == '.' && (n == 1 || (n == 2 && s[start+1] == '.')):
			return false
		}
		start = i + 1
		if i < len(s) {
			depth++
		}
	}
	return depth <= MaxPathDepth
}

// CheckWritable refuses paths that only Freshet itself may create: any segment
// with the reserved prefix. It is asked by operations that create or change.
func (p Path) CheckWritable() error {
	for seg := range strings.SplitSeq(string(p), "/") {
		if strings.HasPrefix(seg, ReservedPrefix) {
			return Errorf(KindPermission, "check path", p, "reserved name %q: names that start with %q belong to Freshet", seg, ReservedPrefix)
		}
	}
	return nil
}

func checkPath(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("path is empty; the root is %q", "/")
	case len(s) > MaxPathLen:
		return fmt.Errorf("path longer than %d bytes", MaxPathLen)
	case s[0] != '/':
		return fmt.Errorf("path %q does not start with %q", shorten(s), "/")
	case !utf8.ValidString(s):
		return fmt.Errorf("path is not valid UTF-8")
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0:
			return fmt.Errorf("path contains NUL at byte %d", i)
		case c < 0x20 || c == 0x7f:
			return fmt.Errorf("path contains control character 0x%02x at byte %d", c, i)
		}
	}
	return nil
}

func checkSegment(seg string) error {
	switch {
	case seg == "." || seg == "..":
		return fmt.Errorf("path contains %q segment", seg)
	case len(seg) > MaxSegmentLen:
		return fmt.Errorf("segment longer than %d bytes: %q", MaxSegmentLen, shorten(seg))
	}
	return nil
}

func shorten(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:61] + "..."
}

// IsRoot reports whether p is "/".
func (p Path) IsRoot() bool { return p == Root }

// Parent returns the directory that holds p; the root is its own parent.
func (p Path) Parent() Path {
	i := strings.LastIndexByte(string(p), '/')
	if i <= 0 {
		return Root
	}
	return p[:i]
}

// Base returns the last segment, "" for the root.
func (p Path) Base() string { return string(p[strings.LastIndexByte(string(p), '/')+1:]) }

// Join returns the path of the entry name, which must be one segment, in p.
func (p Path) Join(name string) Path {
	if p.IsRoot() {
		return Path("/" + name)
	}
	return p + Path("/"+name)
}

// Segments returns the names from the root to p, none for the root.
func (p Path) Segments() []string {
	if p.IsRoot() {
		return nil
	}
	return strings.Split(string(p[1:]), "/")
}

// Contains reports whether q is p or lies below it, by whole segments.
func (p Path) Contains(q Path) bool {
	if p.IsRoot() || p == q {
		return true
	}
	return len(q) > len(p) && q[:len(p)] == p && q[len(p)] == '/'
}

// Rel returns what follows p in q, without a leading slash; q must be contained
// in p. Rel of p itself is "".
func (p Path) Rel(q Path) string {
	if p.IsRoot() {
		return string(q[1:])
	}
	if p == q {
		return ""
	}
	return string(q[len(p)+1:])
}
