package namespace

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/freshet-io/freshet"
)

// batchVersion is the first byte of an encoded batch: the format of the release
// that wrote it. A release that knows no formats ignored fields that it did not
// know, so that it must not read what may have them; since format 2 they stop the
// member that does not know them, see decode.
const batchVersion = Format

// handle is the encoding of everything that is rare, and of commands. It is
// canonical, for equal states must have equal bytes. It is never changed; what it
// learns of types once would cost more than the encoding if learnt each time.
var handle = newHandle()

func newHandle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{WriteExt: true}
	h.Canonical = true
	h.ErrorIfNoField = true // who skipped what it does not know would differ from the others
	h.MapType = reflect.TypeFor[map[string]any]()
	return h
}

// encoders holds encoders that nobody uses: one costs more than most batches.
var encoders sync.Pool

// packedCommand is about the size of a command that every new file needs.
const packedCommand = 192

// EncodeBatch returns the form of commands that travels in one log entry. It is
// safe for concurrent use.
func EncodeBatch(cmds []Command) ([]byte, error) {
	if b, ok := appendBatch(append(make([]byte, 0, 8+packedCommand*len(cmds)), batchVersion), cmds); ok {
		return b, nil
	}
	e, ok := encoders.Get().(*rowEncoder)
	if !ok {
		e = &rowEncoder{}
	}
	defer encoders.Put(e)
	b, err := e.encode(cmds)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "encode commands", "", "%w", err)
	}
	return append(append(make([]byte, 0, 1+len(b)), batchVersion), b...), nil
}

// unknownField is what the decoder says of a field that the type does not have.
const unknownField = "no matching struct field"

// DecodeBatch reads what EncodeBatch returned, of this release or an older one.
// Malformed input is KindCorrupt, what a newer release added is KindUnsupported.
// It is safe for concurrent use.
func DecodeBatch(b []byte) ([]Command, error) {
	const op = "decode commands"
	if len(b) == 0 || b[0] == 0 {
		return nil, freshet.Errorf(freshet.KindCorrupt, op, "", "the entry has no version")
	}
	if b[0] > batchVersion {
		return nil, freshet.Errorf(freshet.KindUnsupported, op, "", "%w: an entry of the log has format %d, this version reads formats 1 to %d; upgrade this member", errNewer, b[0], batchVersion)
	}
	if cmds, ok := unpackBatch(b[1:]); ok {
		return cmds, nil
	}
	var cmds []Command
	err := decode(b[1:], &cmds)
	switch {
	case err == nil:
		if err := checkVersions(cmds); err != nil {
			return nil, err
		}
		return cmds, nil
	case strings.Contains(err.Error(), unknownField):
		return nil, freshet.Errorf(freshet.KindUnsupported, op, "", "%w: an entry of the log has a part that this version does not know; upgrade this member: %w", errNewer, err)
	}
	return nil, freshet.Errorf(freshet.KindCorrupt, op, "", "%w", err)
}

// rowEncoder makes the stored form of rows of the small tables.
type rowEncoder struct {
	buf []byte
	enc *codec.Encoder
}

// encode returns the form of v, valid until the next call.
func (r *rowEncoder) encode(v any) ([]byte, error) {
	if r.enc == nil {
		r.enc = codec.NewEncoderBytes(&r.buf, handle)
	}
	r.buf = r.buf[:0]
	r.enc.ResetBytes(&r.buf)
	err := r.enc.Encode(v)
	return r.buf, err
}

func decode(b []byte, v any) (err error) {
	defer func() { // the decoder panics on some malformed input
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed encoding: %v", r)
		}
	}()
	d := codec.NewDecoderBytes(b, handle)
	if err := d.Decode(v); err != nil {
		return err
	}
	if n := d.NumBytesRead(); n != len(b) {
		return fmt.Errorf("%d bytes too many", len(b)-n)
	}
	return nil
}
