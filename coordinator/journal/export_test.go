package journal

import (
	"bytes"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Checksum is that of the small files, so that tests can write some.
func Checksum(b []byte) uint32 { return checksum(b) }

// DecodeEntry and EncodeEntry are fuzzed from outside.
func DecodeEntry(b []byte) ([]namespace.Command, error) { return decodeEntry(b) }

// EncodeEntry joins encoded proposals.
func EncodeEntry(parts ...[]byte) []byte {
	var batch []*proposal
	for _, p := range parts {
		batch = append(batch, &proposal{data: p})
	}
	return encodeEntry(batch)
}

// CheckBolt checks the bytes of a log file.
func CheckBolt(b []byte) error { return checkBoltPages(bytes.NewReader(b), int64(len(b))) }
