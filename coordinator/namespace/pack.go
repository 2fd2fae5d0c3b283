package namespace

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/freshet-io/freshet/fingerprint"
)

// What every new file needs is written and read without reflection: the commands
// Begin, Permit and Complete, intents and outcomes. The bytes are those of handle,
// which the tests hold them to; so nobody can tell who wrote them, and what is not
// of exactly this form is left to handle.

// The first bytes of values of msgpack.
const (
	packNil     = 0xc0
	packFalse   = 0xc2
	packTrue    = 0xc3
	packBin8    = 0xc4
	packExt8    = 0xc7
	packUint8   = 0xcc
	packUint16  = 0xcd
	packUint32  = 0xce
	packUint64  = 0xcf
	packInt8    = 0xd0
	packInt16   = 0xd1
	packInt32   = 0xd2
	packInt64   = 0xd3
	packFixExt4 = 0xd6
	packFixExt8 = 0xd7
	packStr8    = 0xd9
	packStr16   = 0xda
	packStr32   = 0xdb
	packArray16 = 0xdc
	packArray32 = 0xdd
	packMap16   = 0xde

	packFixMap   = 0x80
	packFixArray = 0x90
	packFixStr   = 0xa0

	packTimeTag = 0xff
	// packSeconds are the bits of the seconds of a time in 8 bytes.
	packSeconds = 34
)

// appendBatch appends commands if all are of those that every new file needs.
func appendBatch(b []byte, cmds []Command) ([]byte, bool) {
	switch n := len(cmds); {
	case n < 16:
		b = append(b, packFixArray|byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, packArray16), uint16(n))
	default:
		return nil, false
	}
	for i := range cmds {
		c := &cmds[i]
		switch begin, permit, done := c.Begin, c.Permit, c.Complete; {
		case *c == Command{Begin: begin} && begin != nil:
			b = packBegin(append(b, packFixMap|1, packFixStr|5, 'b', 'e', 'g', 'i', 'n'), begin)
		case *c == Command{Permit: permit} && permit != nil:
			b = packPermit(append(b, packFixMap|1, packFixStr|6, 'p', 'e', 'r', 'm', 'i', 't'), permit)
		case *c == Command{Complete: done} && done != nil && len(done.Nodes) == 0 && !done.Memory && len(done.Beneath) == 0:
			b = packComplete(append(b, packFixMap|1, packFixStr|4, 'd', 'o', 'n', 'e'), done)
		default:
			return nil, false
		}
	}
	return b, true
}

func packBegin(b []byte, c *Begin) []byte {
	return packBeginFields(packMap(b, 10+optional(c)), c, nil)
}

// optional counts the fields of a Begin that are left out when they are empty.
func optional(c *Begin) (n int) {
	if c.Length != nil {
		n++
	}
	if c.MoveBytes != 0 {
		n++
	}
	if c.MoveEntries != 0 {
		n++
	}
	if c.Owner != "" {
		n++
	}
	if c.Group != "" {
		n++
	}
	if c.Persist != 0 {
		n++
	}
	if c.Replicas != 0 {
		n++
	}
	if c.Source != nil {
		n++
	}
	return n
}

// packBeginFields appends the fields of a Begin, with those of the intent between
// them that sort there, if it is one's.
func packBeginFields(b []byte, c *Begin, in *intent) []byte {
	b = packInt(packKey(b, "b"), c.BlockSize)
	if c.Replicas != 0 {
		b = packInt(packKey(b, "dr"), int64(c.Replicas))
	}
	if c.Group != "" {
		b = packString(packKey(b, "gr"), c.Group)
	}
	b = packUint(packKey(b, "i"), c.Incarn)
	b = packUint(packKey(b, "k"), uint64(c.Kind))
	if c.Length != nil {
		b = packInt(packKey(b, "ln"), *c.Length)
	}
	if c.MoveBytes != 0 {
		b = packInt(packKey(b, "mb"), c.MoveBytes)
	}
	if c.MoveEntries != 0 {
		b = packInt(packKey(b, "me"), c.MoveEntries)
	}
	b = packString(packKey(b, "n"), string(c.Node))
	b = pack16(packKey(b, "op"), c.Op)
	if c.Owner != "" {
		b = packString(packKey(b, "ow"), c.Owner)
	}
	b = packString(packKey(b, "p"), string(c.Path))
	b = packString(packKey(b, "p2"), string(c.Path2))
	if c.Persist != 0 {
		b = packUint(packKey(b, "pf"), uint64(c.Persist))
	}
	if in != nil && in.NeedBytes != 0 {
		b = packInt(packKey(b, "qb"), in.NeedBytes)
	}
	if in != nil && in.NeedEntries != 0 {
		b = packInt(packKey(b, "qe"), in.NeedEntries)
	}
	b = packBool(packKey(b, "r"), c.Recursive)
	if c.Source != nil {
		b = packFingerprint(packKey(b, "sf"), c.Source)
	}
	b = packTime(packKey(b, "t"), c.At)
	return packUint(packKey(b, "w"), uint64(c.Write))
}

func packPermit(b []byte, c *Permit) []byte {
	n := 3
	if c.Length != nil {
		n++
	}
	if c.Sealed != nil {
		n++
	}
	b = packUint(packKey(packMap(b, n), "i"), c.Incarn)
	if c.Length != nil {
		b = packInt(packKey(b, "ln"), *c.Length)
	}
	b = packString(packKey(b, "n"), string(c.Node))
	b = pack16(packKey(b, "op"), c.Op)
	if c.Sealed != nil {
		b = packFingerprint(packKey(b, "sf"), c.Sealed)
	}
	return b
}

func packComplete(b []byte, c *Complete) []byte {
	b = packKey(packMap(b, 4), "e")
	if e := c.Entry; e == nil {
		b = append(b, packNil)
	} else {
		b = packFingerprint(packKey(packMap(b, 8), "f"), &e.Fingerprint)
		b = packString(packKey(b, "g"), e.Group)
		b = packInt(packKey(b, "l"), e.Length)
		b = packUint(packKey(b, "m"), uint64(e.Mode))
		b = packString(packKey(b, "n"), e.Name)
		b = packString(packKey(b, "o"), e.Owner)
		b = packTime(packKey(b, "t"), e.ModTime)
		b = packUint(packKey(b, "y"), uint64(e.Type))
	}
	b = pack16(packKey(b, "op"), c.Op)
	b = packTime(packKey(b, "t"), c.At)
	return packBool(packKey(b, "u"), c.Uncertain)
}

func packIntent(b []byte, in *intent) []byte {
	n := 21 + optional(&in.Begin)
	if in.NeedBytes != 0 {
		n++
	}
	if in.NeedEntries != 0 {
		n++
	}
	if in.Sealed != nil {
		n++
	}
	if in.Done {
		n++
	}
	b = pack16(packKey(packMap(b, n), "Domain"), in.Domain)
	if in.Done {
		b = packBool(packKey(b, "Done"), in.Done)
	}
	b = packUint(packKey(b, "File"), uint64(in.File))
	b = packUint(packKey(b, "Generation"), in.Generation)
	b = packString(packKey(b, "Key"), in.Key)
	b = packString(packKey(b, "Key2"), in.Key2)
	b = packUint(packKey(b, "Mount"), uint64(in.Mount))
	b = packUint(packKey(b, "Resolved"), in.Resolved)
	b = packString(packKey(b, "Root"), in.Root)
	if in.Sealed != nil {
		b = packFingerprint(packKey(b, "Sealed"), in.Sealed)
	}
	b = packBool(packKey(b, "Shared"), in.Shared)
	b = packUint(packKey(b, "Started"), in.Started)
	b = packUint(packKey(b, "State"), uint64(in.State))
	return packBeginFields(b, &in.Begin, in)
}

func packOutcome(b []byte, o *outcome) []byte {
	i, t := &o.Completed.Info, &o.Completed.Token
	b = packKey(packMap(packKey(packMap(b, 2), "Completed"), 2), "Info")
	b = packInt(packKey(packMap(b, 13), "BlockSize"), i.BlockSize)
	b = packUint(packKey(b, "FileID"), uint64(i.FileID))
	b = packFingerprint(packKey(b, "Fingerprint"), &i.Fingerprint)
	b = packBool(packKey(b, "FromCache"), i.FromCache)
	b = packString(packKey(b, "Group"), i.Group)
	b = packInt(packKey(b, "Length"), i.Length)
	b = packTime(packKey(b, "ModTime"), i.ModTime)
	b = packUint(packKey(b, "Mode"), uint64(i.Mode))
	b = packUint(packKey(b, "Mount"), uint64(i.Mount))
	b = packBool(packKey(b, "MountPoint"), i.MountPoint)
	b = packString(packKey(b, "Owner"), i.Owner)
	b = packString(packKey(b, "Path"), string(i.Path))
	b = packUint(packKey(b, "Type"), uint64(i.Type))
	b = pack16(packKey(packMap(packKey(b, "Token"), 4), "Cluster"), t.Cluster)
	b = pack16(packKey(b, "Domain"), t.Domain)
	b = packUint(packKey(b, "Epoch"), t.Epoch)
	b = packUint(packKey(b, "Seq"), t.Seq)
	return packUint(packKey(b, "Index"), o.Index)
}

func packFingerprint(b []byte, f *fingerprint.Fingerprint) []byte {
	b = packString(packKey(packMap(b, 3), "Change"), f.Change)
	b = packString(packKey(b, "Content"), f.Content)
	return packString(packKey(b, "Meta"), f.Meta)
}

func packMap(b []byte, n int) []byte {
	if n < 16 {
		return append(b, packFixMap|byte(n))
	}
	return append(b, packMap16, 0, byte(n))
}

// packKey appends the name of a field, which is short.
func packKey(b []byte, name string) []byte {
	return append(append(b, packFixStr|byte(len(name))), name...)
}

func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, packFixStr|byte(n))
	case n <= math.MaxUint8:
		b = append(b, packStr8, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, packStr16), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, packStr32), uint32(n))
	}
	return append(b, s...)
}

func pack16[T ~[16]byte](b []byte, v T) []byte {
	id := [16]byte(v)
	return append(append(b, packBin8, byte(len(id))), id[:]...)
}

func packUint(b []byte, v uint64) []byte {
	switch {
	case v <= math.MaxInt8:
		return append(b, byte(v))
	case v <= math.MaxUint8:
		return append(b, packUint8, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, packUint16), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, packUint32), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, packUint64), v)
}

func packInt(b []byte, v int64) []byte {
	switch {
	case v >= -32 && v <= math.MaxInt8:
		return append(b, byte(v))
	case v < -32 && v >= math.MinInt8:
		return append(b, packInt8, byte(v))
	case v >= math.MinInt16 && v <= math.MaxInt16:
		return binary.BigEndian.AppendUint16(append(b, packInt16), uint16(v))
	case v >= math.MinInt32 && v <= math.MaxInt32:
		return binary.BigEndian.AppendUint32(append(b, packInt32), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, packInt64), uint64(v))
}

func packBool(b []byte, v bool) []byte {
	if v {
		return append(b, packTrue)
	}
	return append(b, packFalse)
}

func packTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, packNil)
	}
	sec, nsec := t.Unix(), uint64(t.Nanosecond())
	if sec < 0 || sec>>packSeconds != 0 {
		b = binary.BigEndian.AppendUint32(append(b, packExt8, 12, packTimeTag), uint32(nsec))
		return binary.BigEndian.AppendUint64(b, uint64(sec))
	}
	if v := nsec<<packSeconds | uint64(sec); v > math.MaxUint32 {
		return binary.BigEndian.AppendUint64(append(b, packFixExt8, packTimeTag), v)
	}
	return binary.BigEndian.AppendUint32(append(b, packFixExt4, packTimeTag), uint32(sec))
}
