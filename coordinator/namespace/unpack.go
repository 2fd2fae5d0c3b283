package namespace

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// unpacker reads what appendBatch wrote. other is set by whatever has another form,
// which is no error: handle reads it then.
type unpacker struct {
	rest  []byte
	other bool
	// last are the strings that were read before of fields that are often the same.
	last [lasts]string
}

// The fields of unpacker.last.
const (
	lastNode = iota
	lastOwner
	lastGroup
	lastMeta
	lasts
)

// unpackBatch returns false if the batch has a form that is not appendBatch's.
func unpackBatch(b []byte) ([]Command, bool) {
	u := unpacker{rest: b}
	n := u.array()
	if u.other || n > len(u.rest) { // of a command there is more than a byte
		return nil, false
	}
	cmds := make([]Command, n)
	for i := range cmds {
		if u.byte() != packFixMap|1 {
			return nil, false
		}
		switch c := &cmds[i]; {
		case u.is("\xa5begin"):
			c.Begin = new(Begin)
			u.begin(c.Begin)
		case u.is("\xa6permit"):
			c.Permit = new(Permit)
			u.permit(c.Permit)
		case u.is("\xa4done"):
			c.Complete = new(Complete)
			u.complete(c.Complete)
		default:
			return nil, false
		}
		if u.other {
			return nil, false
		}
	}
	return cmds, len(u.rest) == 0
}

func (u *unpacker) begin(c *Begin) {
	n := u.fields()
	u.field("\xa1b")
	c.BlockSize = u.int()
	u.field("\xa1i")
	c.Incarn = u.uint()
	u.field("\xa1k")
	c.Kind = OpKind(u.small())
	if n > 10 && u.is("\xa2ln") {
		n--
		c.Length = u.length()
	}
	u.field("\xa1n")
	c.Node = freshet.NodeID(u.again(lastNode))
	u.field("\xa2op")
	c.Op = u.id()
	u.field("\xa1p")
	c.Path = freshet.Path(u.string())
	u.field("\xa2p2")
	c.Path2 = freshet.Path(u.string())
	u.field("\xa1r")
	c.Recursive = u.bool()
	u.field("\xa1t")
	c.At = u.time()
	u.field("\xa1w")
	c.Write = freshet.WriteType(u.small())
	u.other = u.other || n != 10
}

func (u *unpacker) permit(c *Permit) {
	n := u.fields()
	u.field("\xa1i")
	c.Incarn = u.uint()
	if n > 3 && u.is("\xa2ln") {
		n--
		c.Length = u.length()
	}
	u.field("\xa1n")
	c.Node = freshet.NodeID(u.again(lastNode))
	u.field("\xa2op")
	c.Op = u.id()
	if n > 3 && u.is("\xa2sf") {
		n--
		c.Sealed = new(fingerprint.Fingerprint)
		u.fingerprint(c.Sealed)
	}
	u.other = u.other || n != 3
}

func (u *unpacker) complete(c *Complete) {
	n := u.fields()
	u.field("\xa1e")
	if len(u.rest) > 0 && u.rest[0] == packNil {
		u.rest = u.rest[1:]
	} else {
		c.Entry = new(Entry)
		u.entry(c.Entry)
	}
	u.field("\xa2op")
	c.Op = u.id()
	u.field("\xa1t")
	c.At = u.time()
	u.field("\xa1u")
	c.Uncertain = u.bool()
	u.other = u.other || n != 4
}

func (u *unpacker) entry(e *Entry) {
	n := u.fields()
	u.field("\xa1f")
	u.fingerprint(&e.Fingerprint)
	u.field("\xa1g")
	e.Group = u.again(lastGroup)
	u.field("\xa1l")
	e.Length = u.int()
	u.field("\xa1m")
	mode := u.uint()
	e.Mode = uint32(mode)
	u.field("\xa1n")
	e.Name = u.string()
	u.field("\xa1o")
	e.Owner = u.again(lastOwner)
	u.field("\xa1t")
	e.ModTime = u.time()
	u.field("\xa1y")
	e.Type = freshet.FileType(u.small())
	u.other = u.other || n != 8 || mode > math.MaxUint32
}

func (u *unpacker) fingerprint(f *fingerprint.Fingerprint) {
	n := u.fields()
	u.field("\xa6Change")
	f.Change = u.string()
	u.field("\xa7Content")
	f.Content = u.string()
	u.field("\xa4Meta")
	f.Meta = u.again(lastMeta)
	u.other = u.other || n != 3
}

// is takes what is next if it is s.
func (u *unpacker) is(s string) bool {
	if len(u.rest) < len(s) || string(u.rest[:len(s)]) != s {
		return false
	}
	u.rest = u.rest[len(s):]
	return true
}

func (u *unpacker) field(name string) { u.other = !u.is(name) || u.other }

// take returns the next n bytes; they are zero at the end, which is another form.
func (u *unpacker) take(n int) []byte {
	if n < 0 || n > len(u.rest) {
		u.other, u.rest = true, nil
		return make([]byte, max(min(n, 16), 0))
	}
	b := u.rest[:n]
	u.rest = u.rest[n:]
	return b
}

func (u *unpacker) byte() byte { return u.take(1)[0] }

func (u *unpacker) array() int {
	switch c := u.byte(); {
	case c&0xf0 == packFixArray:
		return int(c & 0x0f)
	case c == packArray16:
		return int(binary.BigEndian.Uint16(u.take(2)))
	}
	u.other = true
	return 0
}

// fields returns the number of fields of what is next, less than 16.
func (u *unpacker) fields() int {
	c := u.byte()
	u.other = u.other || c&0xf0 != packFixMap
	return int(c & 0x0f)
}

func (u *unpacker) uint() uint64 {
	switch c := u.byte(); {
	case c <= math.MaxInt8:
		return uint64(c)
	case c == packUint8:
		return uint64(u.byte())
	case c == packUint16:
		return uint64(binary.BigEndian.Uint16(u.take(2)))
	case c == packUint32:
		return uint64(binary.BigEndian.Uint32(u.take(4)))
	case c == packUint64:
		return binary.BigEndian.Uint64(u.take(8))
	}
	u.other = true
	return 0
}

// small is an uint of a byte.
func (u *unpacker) small() uint8 {
	v := u.uint()
	u.other = u.other || v > math.MaxUint8
	return uint8(v)
}

func (u *unpacker) int() int64 {
	switch c := u.byte(); {
	case c <= math.MaxInt8:
		return int64(c)
	case c == packInt16:
		return int64(int16(binary.BigEndian.Uint16(u.take(2))))
	case c == packInt32:
		return int64(int32(binary.BigEndian.Uint32(u.take(4))))
	case c == packInt64:
		return int64(binary.BigEndian.Uint64(u.take(8)))
	}
	u.other = true // a small negative one too: there are none
	return 0
}

func (u *unpacker) length() *int64 {
	n := u.int()
	return &n
}

func (u *unpacker) bool() bool {
	c := u.byte()
	u.other = u.other || (c != packTrue && c != packFalse)
	return c == packTrue
}

func (u *unpacker) id() (id [16]byte) {
	if u.field("\xc4\x10"); !u.other {
		copy(id[:], u.take(len(id)))
	}
	return id
}

func (u *unpacker) text() []byte {
	switch c := u.byte(); {
	case c&0xe0 == packFixStr:
		return u.take(int(c & 0x1f))
	case c == packStr8:
		return u.take(int(u.byte()))
	case c == packStr16:
		return u.take(int(binary.BigEndian.Uint16(u.take(2))))
	}
	u.other = true // or very long
	return nil
}

func (u *unpacker) string() string { return string(u.text()) }

// again is string for a field that is often the same as in the command before.
func (u *unpacker) again(field int) string {
	b := u.text()
	if string(b) != u.last[field] {
		u.last[field] = string(b)
	}
	return u.last[field]
}

func (u *unpacker) time() time.Time {
	switch c := u.byte(); {
	case c == packNil:
		return time.Time{}
	case c == packFixExt4 && u.byte() == packTimeTag:
		return time.Unix(int64(binary.BigEndian.Uint32(u.take(4))), 0).UTC()
	case c == packFixExt8 && u.byte() == packTimeTag:
		v := binary.BigEndian.Uint64(u.take(8))
		return time.Unix(int64(v&(1<<packSeconds-1)), int64(v>>packSeconds)).UTC()
	}
	u.other = true // or long ago
	return time.Time{}
}
