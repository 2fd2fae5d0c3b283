package fingerprint

import (
	"errors"
	"fmt"
	"strings"
)

// ErrSyntax is the cause of every failed parse.
var ErrSyntax = errors.New("malformed fingerprint")

// String returns the text form: the parts joined by ';', "content;change;meta",
// and "-" for a fingerprint of which nothing is known. ParseText reads it back.
func (f Fingerprint) String() string {
	if f.IsZero() {
		return "-"
	}
	return f.Content + ";" + f.Change + ";" + f.Meta
}

// Append appends the text form to b.
func (f Fingerprint) Append(b []byte) []byte {
	if f.IsZero() {
		return append(b, '-')
	}
	b = append(append(b, f.Content...), ';')
	b = append(append(b, f.Change...), ';')
	return append(b, f.Meta...)
}

// ParseText reads the text form. It accepts exactly what String returns.
func ParseText(s string) (Fingerprint, error) {
	if s == "-" {
		return Fingerprint{}, nil
	}
	if len(s) > MaxLen {
		return Fingerprint{}, fmt.Errorf("%w: %d bytes, more than %d", ErrSyntax, len(s), MaxLen)
	}
	if n := strings.Count(s, ";") + 1; n != 3 {
		return Fingerprint{}, fmt.Errorf("%w: %d parts instead of 3", ErrSyntax, n)
	}
	var parts [3]string
	parts[0], s, _ = strings.Cut(s, ";")
	parts[1], parts[2], _ = strings.Cut(s, ";")
	for _, part := range parts {
		if !printable(part) {
			return Fingerprint{}, fmt.Errorf("%w: character outside printable ASCII", ErrSyntax)
		}
	}
	f := Fingerprint{Content: parts[0], Change: parts[1], Meta: parts[2]}
	if f.IsZero() {
		return Fingerprint{}, fmt.Errorf("%w: three empty parts; the unknown fingerprint is \"-\"", ErrSyntax)
	}
	return f, nil
}

// MarshalText makes a Fingerprint readable in JSON.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	v, err := ParseText(string(b))
	if err != nil {
		return err
	}
	*f = v
	return nil
}

// Encode returns the wire form, which is also what is stored: empty for the
// unknown fingerprint, else the text form's bytes. One form is enough: it is
// compact, lossless and readable in a dump.
func (f Fingerprint) Encode() []byte {
	if f.IsZero() {
		return nil
	}
	return []byte(f.String())
}

// Decode reads the wire form.
func Decode(b []byte) (Fingerprint, error) {
	if len(b) == 0 {
		return Fingerprint{}, nil
	}
	f, err := ParseText(string(b))
	if err == nil && f.IsZero() {
		return Fingerprint{}, fmt.Errorf("%w: \"-\" on the wire", ErrSyntax)
	}
	return f, err
}
