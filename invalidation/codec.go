package invalidation

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// ErrSyntax is the cause of every failed decoding.
var ErrSyntax = errors.New("malformed invalidation record")

const (
	codecVersion = 1
	maxKey       = 2 * freshet.MaxPathLen
	flagRecurse  = 1 << 0
	flagOp       = 1 << 1
	flagsKnown   = flagRecurse | flagOp
)

// AppendRecord appends the canonical binary form of r, which is what is stored,
// sent and hashed: version, kind, flags, seq, time in Unix milliseconds, key,
// key2, fingerprint, operation ID if there is one. Integers are varints, strings
// carry their length.
func AppendRecord(b []byte, r Record) []byte {
	if r.raw != "" {
		return append(b, r.raw...)
	}
	var flags byte
	if r.Recursive {
		flags |= flagRecurse
	}
	if !r.Op.IsZero() {
		flags |= flagOp
	}
	b = append(b, codecVersion, byte(r.Kind), flags)
	b = binary.AppendUvarint(b, r.Seq)
	var ms int64
	if !r.PublishedAt.IsZero() {
		ms = r.PublishedAt.UnixMilli()
	}
	b = binary.AppendVarint(b, ms)
	b = appendString(b, r.Key)
	b = appendString(b, r.Key2)
	b = appendString(b, string(r.Fingerprint.Encode()))
	if !r.Op.IsZero() {
		b = append(b, r.Op[:]...)
	}
	return b
}

// DecodeRecord reads one record, which must fill b. What only a newer version
// can say (an unknown kind or flag, fields behind the last one) and a key that is
// not in canonical form become a KindSubtree of the nearest directory that is
// surely above: marking too much is safe. Such a record keeps its bytes, so
// that AppendRecord and the chain reproduce what the publisher wrote.
func DecodeRecord(b []byte) (Record, error) {
	d := decoder{rest: b}
	version, kind, flags := d.byte(), Kind(d.byte()), d.byte()
	if d.err == nil && version != codecVersion {
		return Record{}, fmt.Errorf("%w: version %d", ErrSyntax, version)
	}
	r := Record{Kind: kind, Recursive: flags&flagRecurse != 0}
	r.Seq = d.uvarint()
	if ms := d.varint(); ms != 0 {
		r.PublishedAt = time.UnixMilli(ms).UTC()
	}
	r.Key, r.Key2 = d.string(maxKey), d.string(maxKey)
	fp := d.string(fingerprint.MaxLen)
	if flags&flagOp != 0 {
		copy(r.Op[:], d.bytes(len(r.Op)))
	}
	newer := flags&^flagsKnown != 0 || r.Kind == 0 || r.Kind > KindAll
	switch {
	case d.err != nil:
		return Record{}, d.err
	case r.Seq == 0:
		return Record{}, fmt.Errorf("%w: sequence number 0", ErrSyntax)
	case len(d.rest) != 0 && !newer:
		return Record{}, fmt.Errorf("%w: %d bytes too many", ErrSyntax, len(d.rest))
	case r.Key == "" || r.Key[0] != '/' || (r.Key2 != "" && r.Key2[0] != '/'):
		return Record{}, fmt.Errorf("%w: key does not start with a slash", ErrSyntax)
	}
	var err error
	if r.Fingerprint, err = fingerprint.Decode([]byte(fp)); err != nil && !newer {
		return Record{}, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if newer || !clean(r.Key) || (r.Key2 != "" && !clean(r.Key2)) {
		r.raw = string(b)
		r.widen()
		return r, nil
	}
	if !bytes.Equal(AppendRecord(nil, r), b) {
		return Record{}, fmt.Errorf("%w: not in canonical form", ErrSyntax)
	}
	return r, nil
}

// widen makes r say that anything may have changed around its keys.
func (r *Record) widen() {
	key := parentKey(cleanPart(r.Key))
	if r.Key2 != "" {
		key = commonKey(key, parentKey(cleanPart(r.Key2)))
	}
	r.Kind, r.Recursive, r.Key, r.Key2 = KindSubtree, true, key, ""
	r.Fingerprint = fingerprint.Fingerprint{}
}

// Next returns the chain's value after r.
func (h Hash) Next(r Record) Hash {
	var buf [512]byte
	next, _ := h.AppendNext(buf[:0], r)
	return next
}

// AppendNext returns the position after r, and b with that position and the
// canonical form of r appended.
func (h Hash) AppendNext(b []byte, r Record) (Hash, []byte) {
	from := len(b)
	b = AppendRecord(append(b, h[:]...), r)
	sum := sha256.Sum256(b[from:])
	next := Hash(sum[:len(h)])
	copy(b[from:], next[:])
	return next, b
}

// clean reports whether key is "/" or "/" and non-empty segments that are not
// "." or "..".
func clean(key string) bool { return key == "/" || len(cleanPart(key)) == len(key) }

// cleanPart returns the longest prefix of whole canonical segments of key.
func cleanPart(key string) string {
	end := 0
	for end < len(key) {
		segment, _, _ := strings.Cut(key[end+1:], "/")
		if segment == "" || segment == "." || segment == ".." {
			break
		}
		end += 1 + len(segment)
	}
	if end == 0 {
		return "/"
	}
	return key[:end]
}

func parentKey(key string) string {
	if i := strings.LastIndexByte(key, '/'); i > 0 {
		return key[:i]
	}
	return "/"
}

// commonKey returns the deepest directory at or above both a and b.
func commonKey(a, b string) string {
	for a != b {
		if len(a) < len(b) {
			a, b = b, a
		}
		a = parentKey(a)
	}
	return a
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads fields off a slice; after the first error it returns zeros.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("%w: truncated or oversized field", ErrSyntax)
	}
	d.rest = nil
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) string(limit int) string {
	n := d.uvarint()
	if limit < 0 || n > uint64(limit) {
		d.fail()
		return ""
	}
	return string(d.bytes(int(n)))
}
