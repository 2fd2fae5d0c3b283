package namespace

import (
	"fmt"
	"reflect"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/freshet-io/freshet"
)

// batchVersion is the first byte of an encoded batch.
const batchVersion = 1

// handle is the encoding of everything that is rare: commands and the small
// tables. It is canonical, for equal states must have equal bytes.
func handle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{WriteExt: true}
	h.Canonical = true
	h.MapType = reflect.TypeFor[map[string]any]()
	return h
}

// EncodeBatch returns the form of commands that travels in one log entry. It is
// safe for concurrent use.
func EncodeBatch(cmds []Command) ([]byte, error) {
	b := []byte{batchVersion}
	var body []byte
	if err := codec.NewEncoderBytes(&body, handle()).Encode(cmds); err != nil {
		return nil, freshet.Errorf(freshet.KindInternal, "encode commands", "", "%w", err)
	}
	return append(b, body...), nil
}

// DecodeBatch reads what EncodeBatch returned. Malformed input is KindCorrupt.
// It is safe for concurrent use.
func DecodeBatch(b []byte) ([]Command, error) {
	if len(b) == 0 || b[0] != batchVersion {
		return nil, freshet.Errorf(freshet.KindCorrupt, "decode commands", "", "unknown version of a log entry: was it written by a newer release?")
	}
	var cmds []Command
	if err := decode(b[1:], &cmds); err != nil {
		return nil, freshet.Errorf(freshet.KindCorrupt, "decode commands", "", "%w", err)
	}
	return cmds, nil
}

// encode returns the stored form of a row of a small table.
func encode(v any) ([]byte, error) {
	var b []byte
	err := codec.NewEncoderBytes(&b, handle()).Encode(v)
	return b, err
}

func decode(b []byte, v any) (err error) {
	defer func() { // the decoder panics on some malformed input
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed encoding: %v", r)
		}
	}()
	d := codec.NewDecoderBytes(b, handle())
	if err := d.Decode(v); err != nil {
		return err
	}
	if n := d.NumBytesRead(); n != len(b) {
		return fmt.Errorf("%d bytes too many", len(b)-n)
	}
	return nil
}
