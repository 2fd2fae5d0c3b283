package rpc

import (
	"io"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The fields that carry bytes of files, as block.proto and ranges.proto have them.
const (
	readData  protowire.Number = 2
	writeData protowire.Number = 3
)

// parcel is a message that the codec hands over as it is: what it is made of is
// neither joined nor copied.
type parcel interface {
	// pack returns the message. The caller owns one reference to each part.
	pack() (mem.BufferSlice, error)
	// unpack takes the message apart. It takes references of its own to what it
	// keeps.
	unpack(message mem.BufferSlice) error
}

// payload is a message of which one field is bytes of a file. On the wire it is the
// message with that field set: only in this process the bytes stay apart.
type payload struct {
	head  proto.Message // without its data; nil is one without any field
	field protowire.Number
	data  mem.BufferSlice
}

func chunkOf(m proto.Message) *payload { return &payload{head: m, field: readData} }
func partOf(m proto.Message) *payload  { return &payload{head: m, field: writeData} }

// tagRoom is enough for the tag of the data and its length.
const tagRoom = 16

// pack implements parcel. The data go to the caller.
func (p *payload) pack() (mem.BufferSlice, error) {
	b := make([]byte, 0, tagRoom)
	if p.head != nil {
		var err error
		if b, err = (proto.MarshalOptions{}).MarshalAppend(b, p.head); err != nil {
			p.free()
			return nil, err
		}
	}
	n := p.data.Len()
	if n == 0 {
		p.free()
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	b = protowire.AppendTag(b, p.field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	out := make(mem.BufferSlice, 0, 1+len(p.data))
	out = append(append(out, mem.SliceBuffer(b)), p.data...)
	p.data = nil
	return out, nil
}

// unpack implements parcel.
func (p *payload) unpack(message mem.BufferSlice) error {
	p.free()
	in := segments{rest: message, left: message.Len()}
	var head []byte
	for in.left > 0 {
		tag, err := in.varint()
		if err != nil {
			return err
		}
		number, t := protowire.DecodeTag(tag)
		if number < protowire.MinValidNumber || number > protowire.MaxValidNumber {
			return errField
		}
		if number == p.field && t == protowire.BytesType {
			n, err := in.varint()
			if err != nil {
				return err
			}
			p.free() // the last one counts
			if p.data, err = in.take(n); err != nil {
				return err
			}
			continue
		}
		if head, err = in.field(protowire.AppendVarint(head, tag), t); err != nil {
			return err
		}
	}
	if p.head == nil {
		return nil
	}
	return proto.Unmarshal(head, p.head)
}

// free gives up the data.
func (p *payload) free() {
	p.data.Free()
	p.data = nil
}

// segments goes through a message that lies in several buffers.
type segments struct {
	rest mem.BufferSlice
	at   int // in the first of them
	left int
}

// next returns up to n bytes that lie together, and goes on behind them.
func (p *segments) next(n int) []byte {
	for len(p.rest) > 0 && p.at == p.rest[0].Len() {
		p.rest, p.at = p.rest[1:], 0
	}
	if len(p.rest) == 0 || n == 0 {
		return nil
	}
	b := p.rest[0].ReadOnlyData()[p.at:]
	b = b[:min(n, len(b))]
	p.at += len(b)
	p.left -= len(b)
	return b
}

func (p *segments) varint() (v uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		b := p.next(1)
		if len(b) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		if shift == 63 && b[0] > 1 {
			break
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return v, nil
		}
	}
	return 0, errField
}

// take returns the next n bytes where they lie.
func (p *segments) take(n uint64) (out mem.BufferSlice, err error) {
	if n > uint64(p.left) {
		return nil, io.ErrUnexpectedEOF
	}
	for n > 0 {
		b := p.next(int(n)) //nolint:gosec // not more than are left
		out = append(out, p.rest[0].Slice(p.at-len(b), p.at))
		n -= uint64(len(b))
	}
	return out, nil
}

// field appends the value of a field to b.
func (p *segments) field(b []byte, t protowire.Type) ([]byte, error) {
	var n uint64
	switch t {
	case protowire.VarintType:
		v, err := p.varint()
		return protowire.AppendVarint(b, v), err
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		var err error
		if n, err = p.varint(); err != nil {
			return b, err
		}
		b = protowire.AppendVarint(b, n)
	default:
		return b, errField // groups are not of this age
	}
	if n > uint64(p.left) {
		return b, io.ErrUnexpectedEOF
	}
	for n > 0 {
		got := p.next(int(n)) //nolint:gosec // not more than are left
		b = append(b, got...)
		n -= uint64(len(got))
	}
	return b, nil
}

// join returns the next n bytes, of which as many are left, in one piece: where they
// lie, or in scratch, which it returns too.
func (p *segments) join(n int, scratch []byte) (b, _ []byte) {
	b = p.next(n)
	if len(b) == n {
		return b, scratch
	}
	scratch = append(scratch[:0], b...)
	for len(scratch) < n {
		scratch = append(scratch, p.next(n-len(scratch))...)
	}
	return scratch, scratch
}
