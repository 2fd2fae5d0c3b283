package s3

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs/object"
)

// errXML is the cause of every failed parse.
var errXML = errors.New("malformed list response")

// parsePage reads the XML of one ListObjectsV2 answer.
func parsePage(doc []byte) (object.Page, error) {
	return parseList(doc, fingerprint.S3)
}

// parseList makes the fingerprint of each object by version, of its ETag, verbatim,
// and its length.
//
// It is a single pass over the bytes, about twenty times cheaper than encoding/xml,
// and knows just enough of XML for what S3 servers send: elements with or without a
// namespace prefix, attributes, comments, CDATA, the predefined and the numeric
// entities. A document that ends early is an error, so a cut answer never looks
// short.
func parseList(doc []byte, version func(etag string, size int64) fingerprint.Fingerprint) (object.Page, error) {
	p := object.Page{Objects: make([]object.Object, 0, min(bytes.Count(doc, []byte("<Contents>")), listPage))}
	s := scanner{rest: doc}
	root, err := s.open()
	if err != nil {
		return p, err
	}
	if string(root) != "ListBucketResult" {
		return p, fmt.Errorf("%w: root element %q", errXML, clip(root))
	}
	truncated := false
	err = s.children(root, func(name []byte) error {
		switch string(name) {
		case "Contents":
			return s.object(&p, version)
		case "CommonPrefixes":
			return s.prefix(&p)
		case "IsTruncated":
			text, err := s.text(name)
			truncated = text == "true"
			return err
		case "NextContinuationToken":
			p.Next, err = s.text(name)
			return err
		default:
			return s.skip(name)
		}
	})
	if err != nil {
		return object.Page{}, err
	}
	if err := s.end(); err != nil {
		return object.Page{}, err
	}
	switch {
	case !truncated:
		p.Next = ""
	case p.Next == "":
		return object.Page{}, fmt.Errorf("%w: truncated without a continuation token", errXML)
	}
	return p, nil
}

func (s *scanner) object(p *object.Page, version func(string, int64) fingerprint.Fingerprint) error {
	var o object.Object
	var etag string
	seen := false
	err := s.children([]byte("Contents"), func(name []byte) (err error) {
		var text []byte
		switch string(name) {
		case "Key":
			o.Name, err = s.text(name)
			seen = true
		case "ETag":
			etag, err = s.text(name)
		case "Size":
			if text, err = s.data(name); err != nil {
				return err
			}
			if o.Size, err = strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err != nil || o.Size < 0 {
				return fmt.Errorf("%w: size %q", errXML, clip(text))
			}
		case "LastModified":
			if text, err = s.data(name); err != nil {
				return err
			}
			o.ModTime, err = parseTime(bytes.TrimSpace(text))
		default:
			err = s.skip(name)
		}
		return err
	})
	if err == nil && !seen {
		err = fmt.Errorf("%w: object without a key", errXML)
	}
	o.Fingerprint = version(etag, o.Size)
	p.Objects = append(p.Objects, o)
	return err
}

func (s *scanner) prefix(p *object.Page) error {
	return s.children([]byte("CommonPrefixes"), func(name []byte) error {
		if string(name) != "Prefix" {
			return s.skip(name)
		}
		text, err := s.text(name)
		p.Prefixes = append(p.Prefixes, text)
		return err
	})
}

// parseTime reads RFC 3339 in UTC, in which every S3 server writes, without the
// generality of time.Parse; anything else goes there.
func parseTime(s []byte) (time.Time, error) {
	if t, ok := fastTime(s); ok {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: time %q", errXML, clip(s))
	}
	return t.UTC(), nil
}

func fastTime(s []byte) (time.Time, bool) {
	if len(s) < 20 || len(s) > 30 || s[len(s)-1] != 'Z' || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	bad := false
	num := func(from, to int) (n int) {
		for _, c := range s[from:to] {
			bad = bad || c < '0' || c > '9'
			n = n*10 + int(c-'0')
		}
		return n
	}
	year, month, day := num(0, 4), num(5, 7), num(8, 10)
	hour, minute, second := num(11, 13), num(14, 16), num(17, 19)
	nanos := 0
	if frac := len(s) - 21; frac > 0 && s[19] == '.' {
		nanos = num(20, len(s)-1)
		for range 9 - frac {
			nanos *= 10
		}
	} else if len(s) != 20 {
		return time.Time{}, false
	}
	if bad || month < 1 || month > 12 || day < 1 || day > 28 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false // the last days of a month are left to time.Parse
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC), true
}

// maxDepth bounds the nesting of elements that are skipped.
const maxDepth = 32

// scanner walks an XML document. Names are without their namespace prefix and
// alias the document.
type scanner struct {
	rest []byte
	// empty is set after the start of an element that closes itself.
	empty   bool
	scratch []byte // of data
}

// token advances to the next tag: it returns what stands between "<" and ">",
// past comments, processing instructions and character data.
func (s *scanner) token() ([]byte, error) {
	for {
		i := bytes.IndexByte(s.rest, '<')
		if i < 0 {
			return nil, fmt.Errorf("%w: ends early", errXML)
		}
		s.rest = s.rest[i:]
		if !s.special() {
			break
		}
		if err := s.skipSpecial(nil); err != nil {
			return nil, err
		}
	}
	return s.tag()
}

// tag reads the tag that rest begins with.
func (s *scanner) tag() ([]byte, error) {
	end := bytes.IndexByte(s.rest, '>')
	if end < 0 {
		return nil, fmt.Errorf("%w: ends within a tag", errXML)
	}
	tag := s.rest[1:end]
	if bytes.IndexByte(tag, '=') >= 0 { // an attribute may hold ">"
		if end = attributesEnd(s.rest); end < 0 {
			return nil, fmt.Errorf("%w: ends within an attribute", errXML)
		}
		tag = s.rest[1:end]
	}
	s.rest = s.rest[end+1:]
	if len(tag) == 0 {
		return nil, fmt.Errorf("%w: empty tag", errXML)
	}
	return tag, nil
}

// attributesEnd returns the index of the ">" that ends the tag at the start of b
// and stands in no quotes, or -1.
func attributesEnd(b []byte) int {
	for i := 1; ; i++ {
		j := bytes.IndexAny(b[i:], `"'>`)
		if j < 0 {
			return -1
		}
		i += j
		if b[i] == '>' {
			return i
		}
		if j = bytes.IndexByte(b[i+1:], b[i]); j < 0 {
			return -1
		}
		i += 1 + j
	}
}

func (s *scanner) special() bool {
	return len(s.rest) > 1 && (s.rest[1] == '!' || s.rest[1] == '?')
}

// skipSpecial passes a comment, a processing instruction or a CDATA section, of
// which it appends the text to text if that is not nil.
func (s *scanner) skipSpecial(text *[]byte) error {
	for _, form := range []struct{ open, end string }{{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}} {
		body, ok := bytes.CutPrefix(s.rest, []byte(form.open))
		if !ok {
			continue
		}
		inner, rest, ok := bytes.Cut(body, []byte(form.end))
		if !ok {
			return fmt.Errorf("%w: ends within %s", errXML, form.open)
		}
		if text != nil && form.open == "<![CDATA[" {
			*text = append(*text, newlines(inner)...)
		}
		s.rest = rest
		return nil
	}
	return fmt.Errorf("%w: declarations are not accepted", errXML)
}

// open advances into the next element and returns its name.
func (s *scanner) open() ([]byte, error) {
	tag, err := s.token()
	if err != nil {
		return nil, err
	}
	if tag[0] == '/' {
		return nil, fmt.Errorf("%w: unexpected <%s>", errXML, clip(tag))
	}
	return s.name(tag), nil
}

func (s *scanner) name(tag []byte) []byte {
	s.empty = tag[len(tag)-1] == '/'
	if s.empty {
		tag = tag[:len(tag)-1]
	}
	return local(tag)
}

// local cuts attributes and the namespace prefix off a tag.
func local(tag []byte) []byte {
	for i, c := range tag {
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			tag = tag[:i]
			break
		}
	}
	if i := bytes.IndexByte(tag, ':'); i >= 0 {
		tag = tag[i+1:]
	}
	return tag
}

// children calls f at the start of each element directly below the one named
// parent, which was just opened; f must consume it up to its end tag.
func (s *scanner) children(parent []byte, f func(name []byte) error) error {
	if s.empty {
		s.empty = false
		return nil
	}
	for {
		tag, err := s.token()
		if err != nil {
			return err
		}
		if tag[0] == '/' {
			return closes(tag, parent)
		}
		if err := f(s.name(tag)); err != nil {
			return err
		}
	}
}

func closes(tag, name []byte) error {
	if !bytes.Equal(local(tag[1:]), name) {
		return fmt.Errorf("%w: <%s> closes %q", errXML, clip(tag), clip(name))
	}
	return nil
}

// text returns the character data of the element name, which was just opened,
// and passes its end.
func (s *scanner) text(name []byte) (string, error) {
	b, err := s.data(name)
	return string(b), err
}

// data is text without a copy: the result is valid until the next call.
func (s *scanner) data(name []byte) ([]byte, error) {
	if s.empty {
		s.empty = false
		return nil, nil
	}
	parts := s.scratch[:0]
	for {
		i := bytes.IndexByte(s.rest, '<')
		if i < 0 {
			return nil, fmt.Errorf("%w: ends within %q", errXML, clip(name))
		}
		raw := s.rest[:i]
		s.rest = s.rest[i:]
		special := s.special()
		if !special {
			if err := s.closing(name); err != nil {
				return nil, err
			}
			if len(parts) == 0 && bytes.IndexByte(raw, '&') < 0 && bytes.IndexByte(raw, '\r') < 0 {
				return raw, nil
			}
		}
		var err error
		if parts, err = unescape(parts, raw); err != nil {
			return nil, err
		}
		if !special {
			s.scratch = parts
			return parts, nil
		}
		if err := s.skipSpecial(&parts); err != nil {
			return nil, err
		}
	}
}

// closing passes the end tag of name, which must be next.
func (s *scanner) closing(name []byte) error {
	tag, err := s.tag()
	if err != nil {
		return err
	}
	if tag[0] != '/' {
		return fmt.Errorf("%w: element within %q", errXML, clip(name))
	}
	return closes(tag, name)
}

// skip passes the element name, which was just opened, with all below it.
func (s *scanner) skip(name []byte) error { return s.skipDepth(name, maxDepth) }

func (s *scanner) skipDepth(name []byte, depth int) error {
	if depth == 0 {
		return fmt.Errorf("%w: nested too deeply", errXML)
	}
	return s.children(name, func(child []byte) error { return s.skipDepth(child, depth-1) })
}

// end checks that nothing but space, comments and instructions follow.
func (s *scanner) end() error {
	for {
		s.rest = bytes.TrimLeft(s.rest, " \t\r\n")
		if len(s.rest) == 0 {
			return nil
		}
		if s.rest[0] != '<' || !s.special() {
			return fmt.Errorf("%w: trailing data", errXML)
		}
		if err := s.skipSpecial(nil); err != nil {
			return err
		}
	}
}

// unescape appends raw to dst with entities resolved and line ends normalised.
func unescape(dst, raw []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(raw, '&')
		if i < 0 {
			return append(dst, newlines(raw)...), nil
		}
		dst = append(dst, newlines(raw[:i])...)
		name, rest, ok := bytes.Cut(raw[i+1:], []byte(";"))
		if !ok {
			return nil, fmt.Errorf("%w: entity without end", errXML)
		}
		r, err := entity(name)
		if err != nil {
			return nil, err
		}
		dst = utf8.AppendRune(dst, r)
		raw = rest
	}
}

func entity(name []byte) (rune, error) {
	switch string(name) {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	digits, ok := bytes.CutPrefix(name, []byte("#"))
	base := 10
	if ok && len(digits) > 0 && digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(string(digits), base, 32)
	if !ok || err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, fmt.Errorf("%w: entity %q", errXML, clip(name))
	}
	return rune(n), nil
}

// newlines turns \r\n and \r into \n, as XML demands.
func newlines(b []byte) []byte {
	if bytes.IndexByte(b, '\r') < 0 {
		return b
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
}

func clip(b []byte) string { return string(b[:min(len(b), 40)]) }
