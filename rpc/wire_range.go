package rpc

import (
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/freshet-io/freshet"
)

// The fields of ranges.proto. Its messages are written and read here alone: each is
// many small ones.
const (
	askRange = 1<<3 | asBytes

	rangeFile        = 1<<3 | asVarint
	rangeIndex       = 2<<3 | asVarint
	rangeBlock       = 3<<3 | asVarint
	rangeFingerprint = 4<<3 | asBytes
	rangeOffset      = 5<<3 | asVarint
	rangeLength      = 6<<3 | asVarint

	giveOutcome = 1<<3 | asBytes
	giveData    = 2<<3 | asBytes

	outcomeLength  = 1<<3 | asVarint
	outcomeError   = 2<<3 | asBytes
	outcomeMessage = 3<<3 | asBytes
)

// askedRange is a range of a block of one version.
type askedRange struct {
	id          freshet.BlockID
	block       int64 // length of the whole block
	fingerprint string
	off, n      int64
}

// rangeRoom is enough for a range besides its fingerprint.
const rangeRoom = 64

func (r *askedRange) size() int { return rangeRoom + len(r.fingerprint) }

func (r *askedRange) appendTo(w *writer) {
	at := w.message(askRange)
	w.varint(rangeFile, uint64(r.id.File))
	w.varint(rangeIndex, uint64(r.id.Index))
	w.varint(rangeBlock, uint64(r.block)) //nolint:gosec // as the format has negative ones
	w.text(rangeFingerprint, r.fingerprint)
	w.varint(rangeOffset, uint64(r.off)) //nolint:gosec // as above
	w.varint(rangeLength, uint64(r.n))   //nolint:gosec // as above
	w.end(at)
}

// rangesAsked is a request for ranges, as it is read.
type rangesAsked struct{ ranges []askedRange }

// readFrom implements decoder. More ranges than MaxRanges are not read.
func (q *rangesAsked) readFrom(b []byte) error {
	q.ranges = q.ranges[:0]
	c := cursor{rest: b}
	for c.next() {
		if c.key != uint64(askRange) {
			continue
		}
		if len(q.ranges) == MaxRanges {
			return freshet.Errorf(freshet.KindInvalid, "read ranges", "", "more than %d ranges in a request", MaxRanges)
		}
		q.ranges = append(q.ranges, askedRange{})
		last := &q.ranges[len(q.ranges)-1]
		if n := len(q.ranges); n > 1 {
			last.fingerprint = q.ranges[n-2].fingerprint // most are of one file
		}
		if err := last.readFrom(c.bytes); err != nil {
			return err
		}
	}
	return c.err
}

func (r *askedRange) readFrom(b []byte) error {
	before := r.fingerprint
	r.fingerprint = ""
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(rangeFile):
			r.id.File = freshet.FileID(c.value)
		case uint64(rangeIndex):
			r.id.Index = uint32(c.value) //nolint:gosec // as generated code reads it
		case uint64(rangeBlock):
			r.block = int64(c.value) //nolint:gosec // as above
		case uint64(rangeFingerprint):
			if text := c.text(); string(text) == before {
				r.fingerprint = before
			} else {
				r.fingerprint = string(text)
			}
		case uint64(rangeOffset):
			r.off = int64(c.value) //nolint:gosec // as above
		case uint64(rangeLength):
			r.n = int64(c.value) //nolint:gosec // as above
		}
	}
	return c.err
}

// rangesGiven is the answer: an outcome for each range, and the bytes of those that
// succeeded behind each other.
type rangesGiven struct {
	outcomes []rangeOutcome
	data     mem.BufferSlice
}

// rangeOutcome is how many bytes a range came to, or why it came to none.
type rangeOutcome struct {
	n      int64
	failed bool
	kind   string
	reason string
}

func (o *rangeOutcome) fail(err error) {
	*o = rangeOutcome{failed: true, kind: kindOf(err).String(), reason: strings.ToValidUTF8(fmt.Sprintf("%.*s", maxReason, err.Error()), "\ufffd")}
}

// err returns what a range failed with.
func (o *rangeOutcome) err() error {
	if !o.failed {
		return nil
	}
	kind, known := freshet.ParseKind(o.kind)
	if !known {
		kind = freshet.KindInternal
	}
	return &freshet.Error{Kind: kind, Err: &remoteError{kind: kind, message: o.reason}}
}

// pack implements parcel. The data go to the caller.
func (a *rangesGiven) pack() (mem.BufferSlice, error) {
	w := writer{b: make([]byte, 0, tagRoom+8*len(a.outcomes))}
	for i := range a.outcomes {
		o := &a.outcomes[i]
		at := w.message(giveOutcome)
		if o.failed {
			in := w.message(outcomeError)
			w.text(errorKind, o.kind)
			w.end(in)
			w.text(outcomeMessage, o.reason)
		} else {
			w.varint(outcomeLength, uint64(o.n)) //nolint:gosec // not negative
		}
		w.end(at)
	}
	if w.err != nil {
		a.free()
		return nil, w.err
	}
	if n := a.data.Len(); n > 0 {
		w.b = protowire.AppendVarint(append(w.b, giveData), uint64(n)) //nolint:gosec // not negative
	}
	out := append(mem.BufferSlice{mem.SliceBuffer(w.b)}, a.data...)
	a.data = nil
	return out, nil
}

// unpack implements parcel.
func (a *rangesGiven) unpack(message mem.BufferSlice) error {
	a.free()
	a.outcomes = a.outcomes[:0]
	in := segments{rest: message, left: message.Len()}
	var rest []byte
	for in.left > 0 {
		tag, err := in.varint()
		if err != nil {
			return err
		}
		number, t := protowire.DecodeTag(tag)
		if number < protowire.MinValidNumber || number > protowire.MaxValidNumber {
			return errField
		}
		switch tag {
		case uint64(giveData):
			n, err := in.varint()
			if err != nil {
				return err
			}
			a.free() // the last one counts
			if a.data, err = in.take(n); err != nil {
				return err
			}
		case uint64(giveOutcome):
			n, err := in.varint()
			if err == nil && n > uint64(in.left) { //nolint:gosec // not negative
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
			if rest, err = a.outcome(in.join(int(n), rest)); err != nil { //nolint:gosec // not more than are left
				return err
			}
		default:
			if rest, err = in.field(rest[:0], t); err != nil {
				return err
			}
		}
	}
	return nil
}

// outcome reads the next outcome from b, and returns scratch for the one after it.
func (a *rangesGiven) outcome(b, scratch []byte) ([]byte, error) {
	if len(a.outcomes) == MaxRanges {
		return scratch, freshet.Errorf(freshet.KindInternal, "read ranges", "", "the node sent more than %d answers", MaxRanges)
	}
	var o rangeOutcome
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(outcomeLength):
			o.n = int64(c.value) //nolint:gosec // as generated code reads it
		case uint64(outcomeError):
			o.failed = true
			c.into(o.readError)
		case uint64(outcomeMessage):
			o.reason = string(c.text())
		}
	}
	a.outcomes = append(a.outcomes, o)
	return scratch, c.err
}

func (o *rangeOutcome) readError(b []byte) error {
	c := cursor{rest: b}
	for c.next() {
		switch c.key {
		case uint64(errorKind):
			o.kind = string(c.text())
		case uint64(errorOp), uint64(errorPath), uint64(errorLeader):
			c.text()
		}
	}
	return c.err
}

// free gives up the data.
func (a *rangesGiven) free() {
	a.data.Free()
	a.data = nil
}
