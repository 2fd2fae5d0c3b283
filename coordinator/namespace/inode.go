package namespace

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// inode is one entry of the tree in its decoded form. A value that readers can
// see is never changed: a transaction changes a copy.
type inode struct {
	dir    bool
	loaded bool   // the storage, or an effect of ours, spoke of the entry itself
	id     uint64 // of a directory: the parent in its children's keys
	length int64
	mtime  int64 // Unix nanoseconds; see noTime
	attr   attr
	// content and change are the other parts of the fingerprint.
	content   string
	change    string
	file      freshet.FileID
	blockSize int64 // 0 is the default

	validFrom uint64 // start of the load that made it, or index of the effect
	self      uint64 // stamps, see mark
	subtree   uint64

	// Of directories only.
	children uint64
	below    uint64
	missing  uint64
	complete bool   // the listing is complete
	special  bool   // but for entries that are neither files nor directories
	listFrom uint64 // start of the load that listed it
}

// attr is what many entries have in common; it is stored once.
type attr struct {
	owner string
	group string
	mode  uint32
	meta  string // part of the fingerprint
}

// noTime is the modification time of an entry that has none.
const noTime = -1 << 63

func nanos(t time.Time) int64 {
	if t.IsZero() || t.Year() < 1679 || t.Year() > 2261 {
		return noTime
	}
	return t.UnixNano()
}

func (n *inode) modTime() time.Time {
	if n.mtime == noTime {
		return time.Time{}
	}
	return time.Unix(0, n.mtime).UTC()
}

func (n *inode) fingerprint() fingerprint.Fingerprint {
	return fingerprint.Fingerprint{Content: n.content, Change: n.change, Meta: n.attr.meta}
}

// newest returns the largest stamp at or below n.
func (n *inode) newest() uint64 {
	return max(n.self, n.subtree, n.children, n.below, n.missing)
}

// Flags of the first byte of a stored inode, and of the second.
const (
	flagDir = 1 << iota
	flagLoaded
	flagComplete
	flagMarked // stamps follow
	flagInlineAttr
	flagBlockSize
	flagTime
	flagChangeTime // the change part is a time, stored relative to the modification time
)

// The forms of a content part. Those that repeat the length or the modification
// time are stored without them.
// A flag of directories is beside the form.
const (
	formText  = iota
	formS3    // "s3:LENGTH:" and 32 hexadecimal digits
	formLocal // "local:INODE:LENGTH:MTIME"
	formNone

	flagSpecial = 1 << 7
)

var errInode = errors.New("malformed inode record")

// appendInode appends the stored form of n. attrID is the number under which
// n.attr is interned, 0 if it is not.
func appendInode(b []byte, n *inode, attrID uint32) []byte {
	flags := byte(0)
	set := func(on bool, flag byte) {
		if on {
			flags |= flag
		}
	}
	marked := max(n.self, n.subtree, n.children, n.below, n.missing) != 0
	form, body := contentForm(n)
	timed := n.mtime != noTime
	change, isTime := changeTime(n)
	set(n.dir, flagDir)
	set(n.loaded, flagLoaded)
	set(n.complete, flagComplete)
	set(marked, flagMarked)
	set(attrID == 0, flagInlineAttr)
	set(n.blockSize != 0, flagBlockSize)
	set(timed, flagTime)
	set(isTime, flagChangeTime)
	second := byte(form)
	if n.special {
		second |= flagSpecial
	}
	b = append(b, flags, second)
	b = binary.AppendUvarint(b, n.validFrom)
	b = appendAttr(b, n.attr, attrID)
	if timed {
		b = binary.AppendVarint(b, n.mtime)
	}
	if n.dir {
		b = binary.AppendUvarint(b, n.id)
		b = binary.AppendUvarint(b, n.listFrom)
	} else {
		b = binary.AppendUvarint(b, uint64(n.file))
	}
	b = binary.AppendVarint(b, n.length)
	if n.blockSize != 0 {
		b = binary.AppendVarint(b, n.blockSize)
	}
	if form != formNone {
		b = appendText(b, body)
	}
	if isTime {
		b = binary.AppendVarint(b, change-n.mtime)
	} else {
		b = appendText(b, n.change)
	}
	if marked {
		b = binary.AppendUvarint(b, n.self)
		b = binary.AppendUvarint(b, n.subtree)
		if n.dir {
			b = binary.AppendUvarint(b, n.children)
			b = binary.AppendUvarint(b, n.below)
			b = binary.AppendUvarint(b, n.missing)
		}
	}
	return b
}

func appendAttr(b []byte, a attr, id uint32) []byte {
	if id != 0 {
		return binary.AppendUvarint(b, uint64(id))
	}
	b = appendText(b, a.owner)
	b = appendText(b, a.group)
	b = binary.AppendUvarint(b, uint64(a.mode))
	return appendText(b, a.meta)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// timeText is the form of a time in a local fingerprint: seconds and nanoseconds
// since 1970. parseTime reads exactly what timeText returns.
func timeText(ns int64) string { return string(appendTime(nil, ns)) }

func appendTime(b []byte, ns int64) []byte {
	sec, nsec := ns/1e9, ns%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	return strconv.AppendInt(append(strconv.AppendInt(b, sec, 10), '.'), nsec, 10)
}

func parseTime(s string) (ns int64, ok bool) {
	a, b, ok := strings.Cut(s, ".")
	if !ok {
		return 0, false
	}
	sec, errA := strconv.ParseInt(a, 10, 64)
	nsec, errB := strconv.ParseInt(b, 10, 64)
	if errA != nil || errB != nil {
		return 0, false
	}
	ns = sec*1e9 + nsec
	return ns, timeText(ns) == s
}

// changeTime returns the change part as the time that it is on local storage.
func changeTime(n *inode) (ns int64, ok bool) {
	if n.change == "" || n.mtime == noTime {
		return 0, false
	}
	return parseTime(n.change)
}

// contentForm returns the shortest form that gives n.content back exactly.
func contentForm(n *inode) (form int, body string) {
	if n.content == "" {
		return formNone, ""
	}
	if rest, ok := strings.CutPrefix(n.content, "s3:"+strconv.FormatInt(n.length, 10)+":"); ok && len(rest) == 32 {
		raw, err := hex.DecodeString(rest)
		if err == nil && hex.EncodeToString(raw) == rest {
			return formS3, string(raw)
		}
	}
	if rest, ok := strings.CutPrefix(n.content, "local:"); ok && n.mtime != noTime {
		id, ok := strings.CutSuffix(rest, ":"+strconv.FormatInt(n.length, 10)+":"+timeText(n.mtime))
		v, err := strconv.ParseUint(id, 10, 64)
		if ok && err == nil && strconv.FormatUint(v, 10) == id {
			return formLocal, string(binary.AppendUvarint(nil, v))
		}
	}
	return formText, n.content
}

// appendContent appends the content that a form and its body stand for.
func appendContent(b []byte, n *inode, form int, body []byte) ([]byte, bool) {
	switch form {
	case formText:
		return append(b, body...), true
	case formS3:
		b = strconv.AppendInt(append(b, "s3:"...), n.length, 10)
		return hex.AppendEncode(append(b, ':'), body), len(body) == 16
	case formLocal:
		v, k := binary.Uvarint(body)
		b = strconv.AppendUint(append(b, "local:"...), v, 10)
		b = strconv.AppendInt(append(b, ':'), n.length, 10)
		return appendTime(append(b, ':'), n.mtime), k == len(body) && k > 0
	}
	return b, false
}

// decodeInode reads the stored form; attrs resolves interned attributes.
func decodeInode(b []byte, attrs []attr) (*inode, error) {
	n := new(inode)
	if err := n.decode(b, attrs); err != nil {
		return nil, err
	}
	return n, nil
}

// isDirRow reports whether a stored form is that of a directory.
func isDirRow(b []byte) bool { return len(b) > 0 && b[0]&flagDir != 0 }

// decode sets n to what a stored form says, and to anything if there is an error.
func (n *inode) decode(b []byte, attrs []attr) error {
	_, err := n.decodeAfter("", nil, b, attrs)
	return err
}

// decodeAfter is decode that also returns dir and name as one text: it and those of
// n take one allocation.
func (n *inode) decodeAfter(dir string, name, b []byte, attrs []attr) (path string, err error) {
	d := reader{rest: b}
	flags, second := d.byte(), d.byte()
	form := int(second &^ flagSpecial)
	*n = inode{
		dir: flags&flagDir != 0, loaded: flags&flagLoaded != 0, complete: flags&flagComplete != 0, special: second&flagSpecial != 0,
		mtime: noTime,
	}
	n.validFrom = d.uvarint()
	n.attr = d.attr(flags&flagInlineAttr != 0, attrs)
	if flags&flagTime != 0 {
		n.mtime = d.varint()
	}
	if n.dir {
		n.id, n.listFrom = d.uvarint(), d.uvarint()
	} else {
		n.file = freshet.FileID(d.uvarint())
	}
	n.length = d.varint()
	if flags&flagBlockSize != 0 {
		n.blockSize = d.varint()
	}
	var buf [256]byte
	texts, ok := append(append(buf[:0], dir...), name...), true
	led := len(texts)
	if form != formNone {
		texts, ok = appendContent(texts, n, form, d.bytes(d.uvarint()))
	}
	cut := len(texts)
	if flags&flagChangeTime != 0 {
		texts = appendTime(texts, n.mtime+d.varint())
	} else {
		texts = append(texts, d.bytes(d.uvarint())...)
	}
	if flags&flagMarked != 0 {
		n.self, n.subtree = d.uvarint(), d.uvarint()
		if n.dir {
			n.children, n.below, n.missing = d.uvarint(), d.uvarint(), d.uvarint()
		}
	}
	if !ok || d.bad || len(d.rest) != 0 || (n.mtime == noTime && flags&flagTime != 0) {
		return "", errInode
	}
	if len(texts) > 0 {
		s := string(texts)
		path, n.content, n.change = s[:led], s[led:cut], s[cut:]
	}
	return path, nil
}

// reader reads fields off a slice; after the first error it returns zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (d *reader) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *reader) byte() byte {
	if b := d.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *reader) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *reader) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *reader) text() string { return string(d.bytes(d.uvarint())) }

func (d *reader) attr(inline bool, attrs []attr) attr {
	if inline {
		return attr{owner: d.text(), group: d.text(), mode: uint32(d.uvarint()), meta: d.text()}
	}
	id := d.uvarint()
	if id == 0 || id > uint64(len(attrs)) {
		d.bad = true
		return attr{}
	}
	return attrs[id-1]
}

// place is where an entry is: its row in the inode table.
type place struct {
	parent uint64
	name   string
}

func (p place) encode() []byte { return p.append(make([]byte, 0, 10+len(p.name))) }

func (p place) append(b []byte) []byte { return append(binary.AppendUvarint(b, p.parent), p.name...) }

func decodePlace(b []byte) (place, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return place{}, fmt.Errorf("%w: place", errInode)
	}
	return place{parent: v, name: string(b[n:])}, nil
}
