package tier

import (
	"fmt"
	"time"

	"github.com/freshet-io/freshet"
)

// HeaderSize is the size of a block file's header.
const HeaderSize = headerSize

// RecodeHeader decodes b and encodes the result again.
func RecodeHeader(b []byte) ([]byte, error) {
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	return encodeHeader(h), nil
}

// MakeHeader encodes a header.
func MakeHeader(id freshet.BlockID, meta Meta, length int64) []byte {
	return encodeHeader(header{meta: meta, id: id, length: length, tableSum: 7})
}

// FileSize and LengthOf translate between the length of a block and its file.
func FileSize(length int64) int64       { return fileSize(length) }
func LengthOf(size int64) (int64, bool) { return lengthOf(size) }
func BlockFile(id freshet.BlockID) string {
	return fmt.Sprintf("blocks/%s/%s", shardOf(id), blockName(id))
}

// Policy is an eviction policy without a tier around it.
type Policy struct{ policy }

// NewPolicy returns the policy of that name.
func NewPolicy(name string, capacity int64) (Policy, error) {
	p, err := newPolicy(name, capacity)
	return Policy{p}, err
}

// Add, Touch, Remove and Victim are those of the policy.
func (p Policy) Add(id freshet.BlockID, size int64) { p.add(id, size) }
func (p Policy) Touch(id freshet.BlockID)           { p.touch(id) }
func (p Policy) Remove(id freshet.BlockID)          { p.remove(id) }

// Victim is that of the policy.
func (p Policy) Victim(busy func(freshet.BlockID) bool) (freshet.BlockID, bool) {
	return p.victim(busy)
}

// SetPatience sets that of a tier on a disk, which nobody uses at the moment.
func SetPatience(t *Tier, d time.Duration) {
	if m, ok := t.medium.(*disk); ok {
		m.patience = d
	}
}
