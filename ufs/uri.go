package ufs

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/freshet-io/freshet"
)

// maxURI bounds a URI in bytes.
const maxURI = 4096

// URI is the URI of a mount, taken apart.
type URI struct {
	Scheme string // lower case
	Host   string // as written; bucket or host:port
	Path   string // decoded, clean, "" or "/a/b"
}

// ParseURI takes the URI of a mount apart: scheme://host/path. Credentials, a
// query, a fragment, "." and ".." segments, NUL, control characters and invalid
// UTF-8 are KindInvalid. Percent signs in the path are escapes. No part of what
// may be a secret is repeated in an error.
func ParseURI(raw string) (URI, error) {
	bad := func(format string, args ...any) (URI, error) {
		return URI{}, freshet.Errorf(freshet.KindInvalid, "parse uri", "", format, args...)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	authority, _, _ := strings.Cut(rest, "/")
	switch {
	case len(raw) > maxURI:
		return bad("URI longer than %d bytes", maxURI)
	case !ok || !isScheme(scheme):
		return bad("a storage is named by a URI such as %q or %q", "s3://bucket/prefix", "file:///absolute/path")
	case strings.Contains(authority, "@") && !namesContainer(scheme, authority):
		return bad("credentials in URI; use options credentials=env:… or credentials=file:…")
	case strings.ContainsAny(rest, "?#"):
		return bad("a query or fragment in the URI; settings go into options, and %q and %q in names are written as %%3F and %%23", "?", "#")
	case strings.ContainsFunc(raw, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return bad("control character in the URI")
	}
	p, err := url.PathUnescape(rest[len(authority):])
	if err != nil {
		return bad("a percent sign in the path that starts no escape; write it as %%25")
	}
	if !utf8.ValidString(p) || !utf8.ValidString(authority) {
		return bad("the URI is not valid UTF-8")
	}
	if i := strings.IndexFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f }); i >= 0 {
		return bad("escaped control character 0x%02x in the URI", p[i])
	}
	for seg := range strings.SplitSeq(p, "/") {
		if seg == "." || seg == ".." {
			return bad("path contains %q segment", seg)
		}
	}
	if p != "" {
		p = strings.TrimSuffix(path.Clean(p), "/")
	}
	return URI{Scheme: strings.ToLower(scheme), Host: authority, Path: p}, nil
}

// namesContainer reports whether what is before the @ is a container, as Azure's
// schemes have it, and no user: those schemes know none.
func namesContainer(scheme, authority string) bool {
	container, account, _ := strings.Cut(authority, "@")
	return slices.Contains([]string{"abfs", "abfss", "wasb", "wasbs"}, strings.ToLower(scheme)) && len(container) <= 63 &&
		!strings.Contains(account, "@") && !strings.ContainsFunc(container, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '$'
	})
}

func isScheme(s string) bool {
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '-' && r != '.'
	})
}

// String returns the URI in its canonical form; ParseURI reads it back.
func (u URI) String() string {
	return u.Scheme + "://" + u.Host + (&url.URL{Path: u.Path}).EscapedPath()
}

// Openers is the explicit list of the storages that a process can open. It is
// itself an Opener.
type Openers []Opener

var _ Opener = Openers(nil)

// Schemes lists all schemes in order.
func (o Openers) Schemes() []string {
	var all []string
	for _, opener := range o {
		all = append(all, opener.Schemes()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// For returns the Opener of the URI's scheme. An unknown scheme is KindInvalid
// and named with the nearest known one.
func (o Openers) For(rawURI string) (Opener, error) {
	u, err := ParseURI(rawURI)
	if err != nil {
		return nil, err
	}
	for _, opener := range o {
		if slices.Contains(opener.Schemes(), u.Scheme) {
			return opener, nil
		}
	}
	return nil, freshet.Errorf(freshet.KindInvalid, "parse uri", "", "unknown storage scheme %q%s; known are %q", u.Scheme, didYouMean(u.Scheme, o.Schemes()), o.Schemes())
}

// Parse checks spec by the Opener of its scheme, without any I/O.
func (o Openers) Parse(spec Spec) (Canonical, error) {
	opener, err := o.For(spec.URI)
	if err != nil {
		return Canonical{}, err
	}
	return opener.Parse(spec)
}

// Open opens spec by the Opener of its scheme.
func (o Openers) Open(spec Spec, env Environment) (FS, error) {
	opener, err := o.For(spec.URI)
	if err != nil {
		return nil, err
	}
	return opener.Open(spec, env)
}

// didYouMean returns "; did you mean …?" if one of known is near to name.
func didYouMean(name string, known []string) string {
	best, dist := "", max(2, len(name)/3)+1
	for _, k := range known {
		if d := editDistance(name, k); d < dist && d < len(k) {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean '" + best + "'?"
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
