package inotify

import (
	"encoding/binary"
	"errors"
)

// position is where in the history of a name space a watch stands.
type position struct {
	identity string // of the name space, "" if the NameNode did not say
	txid     int64  // all up to it were told
	// The last transaction with an event, 0 if none was seen, and what it was:
	// the same number may stand for another change after a name space was
	// brought back to an older state.
	witness int64
	digest  digest
}

const (
	cursorVersion = 1
	cursorFixed   = 1 + 8 + 8 + len(digest{})
	cursorMax     = cursorFixed + 1024
)

var errCursor = errors.New("the saved position is not one of HDFS")

// cursor encodes p: a version byte, the numbers, the digest and the identity.
func (p position) cursor() []byte {
	b := make([]byte, 0, cursorFixed+len(p.identity))
	b = append(b, cursorVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(p.txid))
	b = binary.BigEndian.AppendUint64(b, uint64(p.witness))
	b = append(b, p.digest[:]...)
	return append(b, p.identity...)
}

// parseCursor reads what cursor wrote.
func parseCursor(b []byte) (position, error) {
	if len(b) < cursorFixed || len(b) > cursorMax || b[0] != cursorVersion {
		return position{}, errCursor
	}
	p := position{
		txid:     int64(binary.BigEndian.Uint64(b[1:])),
		witness:  int64(binary.BigEndian.Uint64(b[9:])),
		digest:   digest(b[17:cursorFixed]),
		identity: string(b[cursorFixed:]),
	}
	if p.txid < 0 || p.witness < 0 || p.witness > p.txid {
		return position{}, errCursor
	}
	return p, nil
}
