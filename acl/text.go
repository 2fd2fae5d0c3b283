package acl

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// What Parse reads at most: bytes of text and of a name, and entries.
const (
	maxText    = 64 << 10
	maxName    = 255
	maxEntries = 1000
)

// Parse reads entries in the form of setfacl and getfacl, separated by commas or
// ends of lines: "user::rwx,user:alice:r-x,mask::r-x,default:group::r--". Tags may
// be cut to their first letter, permissions are letters, with "-" for what is
// missing, or one octal digit; what follows a "#" up to the end of the line does not
// count. "\" and three octal digits in a name stand for one byte.
func Parse(text string) (List, error) { return parse(text, true) }

// ParseNames reads entries of which the permissions may be missing, as those of a
// removal: "user:alice,default:group:dev". Permissions that are there are read and
// dropped.
func ParseNames(text string) (List, error) {
	l, err := parse(text, false)
	for i := range l {
		l[i].Perm = 0
	}
	return l, err
}

func parse(text string, perms bool) (List, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrInvalid, len(text), maxText)
	}
	var l List
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for item := range strings.SplitSeq(line, ",") {
			if item = strings.TrimSpace(item); item == "" {
				continue
			}
			e, err := parseEntry(item, perms)
			if err != nil {
				return nil, err
			}
			if l.find(e) >= 0 {
				return nil, fmt.Errorf("%w: two entries for %s", ErrInvalid, e.who())
			}
			if l = append(l, e); len(l) > maxEntries {
				return nil, fmt.Errorf("%w: more than %d entries", ErrInvalid, maxEntries)
			}
		}
	}
	return l.Sorted(), nil
}

func parseEntry(item string, perms bool) (e Entry, err error) {
	bad := func(why string) (Entry, error) {
		return Entry{}, fmt.Errorf("%w: %q %s", ErrInvalid, item, why)
	}
	fields := strings.Split(item, ":")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	if fields[0] == "default" || fields[0] == "d" {
		e.Default, fields = true, fields[1:]
	}
	if len(fields) == 0 || !tagOf(fields[0], &e.Tag) {
		return bad("names neither user, group, mask nor other")
	}
	fields = fields[1:]
	if e.Tag > Group && len(fields) == 1 && fields[0] != "" { // "mask:r-x", as setfacl takes it
		fields = []string{"", fields[0]}
	}
	if len(fields) > 2 || (perms && len(fields) < 2) {
		return bad(`is not of the form tag:name:permissions, such as "user:alice:r-x"`)
	}
	if len(fields) > 0 {
		name, ok := unquote(fields[0])
		if !ok || (name != "" && e.Tag > Group) {
			return bad("has a name that can't be")
		}
		e.Name = name
	}
	if len(fields) == 2 && (perms || fields[1] != "") {
		p, ok := parsePerm(fields[1])
		if !ok {
			return bad(`has permissions that are not letters of "rwx-" or an octal digit`)
		}
		e.Perm = p
	}
	return e, nil
}

func tagOf(s string, tag *Tag) bool {
	for t := User; t <= Other; t++ {
		if name := t.String(); s == name || s == name[:1] {
			*tag = t
			return true
		}
	}
	return false
}

func parsePerm(s string) (p Perm, ok bool) {
	if len(s) == 1 && s[0] >= '0' && s[0] <= '7' {
		return Perm(s[0] - '0'), true
	}
	if s == "" || len(s) > 3 {
		return 0, false
	}
	for _, c := range s {
		var bit Perm
		switch c {
		case 'r':
			bit = Read
		case 'w':
			bit = Write
		case 'x':
			bit = Execute
		case '-':
			continue
		default:
			return 0, false
		}
		if p&bit != 0 {
			return 0, false
		}
		p |= bit
	}
	return p, true
}

// special reports whether a byte of a name is written as octal digits.
func special(c byte) bool { return c <= ' ' || c == 0x7f || strings.IndexByte(`\,:#=`, c) >= 0 }

func quote(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if special(name[i]) {
			fmt.Fprintf(&b, `\%03o`, name[i])
		} else {
			b.WriteByte(name[i])
		}
	}
	return b.String()
}

func unquote(s string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 >= len(s) {
			return "", false
		}
		v := 0
		for _, c := range []byte(s[i+1 : i+4]) {
			if c < '0' || c > '7' {
				return "", false
			}
			v = v<<3 | int(c-'0')
		}
		if v == 0 || v > 255 {
			return "", false
		}
		b.WriteByte(byte(v))
		i += 3
	}
	name = b.String()
	return name, len(name) <= maxName && utf8.ValidString(name)
}

// who returns the entry without its permissions.
func (e Entry) who() string {
	text := e.Tag.String() + ":" + quote(e.Name)
	if e.Default {
		return "default:" + text
	}
	return text
}

// String returns the entry in the form that Parse reads.
func (e Entry) String() string { return e.who() + ":" + e.Perm.String() }

// String returns the entries separated by commas, in the form that Parse reads.
func (l List) String() string { return l.join(",", false) }

// Text returns the entries as getfacl prints them, each on a line of its own, with
// what the mask leaves of an entry behind it where that is less.
func (l List) Text() string { return l.join("\n", true) }

func (l List) join(separator string, effective bool) string {
	var b strings.Builder
	for i, e := range l {
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(e.String())
		if p := l.Effective(e); effective && p != e.Perm {
			fmt.Fprintf(&b, "\t#effective:%s", p)
		}
	}
	return b.String()
}
