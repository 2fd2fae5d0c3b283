package invalidation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/freshet-io/freshet"
)

// MaxFrame is the size that a gossiped payload must not exceed, in bytes: what is
// larger never leaves a gossip member, and nobody is told.
const MaxFrame = 1000

// ErrFrame is the cause of every gossip payload that can't be read.
var ErrFrame = errors.New("malformed gossip payload")

const (
	frameMagic   = 0xF1
	digestMagic  = 0xF2
	frameVersion = 1
	hashed       = 1 << 4 // a fingerprint's hash follows the keys
	second       = 1 << 5 // a second key follows the first
	recursive    = 1 << 6
	kindMask     = 0x0f
)

// Hint is one change as a frame tells it: enough to mark, too little to trust.
type Hint struct {
	Kind      Kind
	Key       string
	Key2      string
	Recursive bool
	// Version is the hash of the fingerprint after the change, zero if unknown.
	Version [8]byte
}

// Record returns the hint as a record without a fingerprint.
func (h Hint) Record(seq uint64) Record {
	return Record{Seq: seq, Kind: h.Kind, Key: h.Key, Key2: h.Key2, Recursive: h.Recursive}
}

// Frame is a run of changes of one log, small enough to be gossiped: the first
// has sequence number First, the others follow without a hole.
type Frame struct {
	Publisher freshet.ClusterID
	Epoch     uint64
	Domain    freshet.DomainID
	First     uint64
	Hints     []Hint
}

// Last returns the sequence number of the last change of f.
func (f Frame) Last() uint64 { return f.First + uint64(len(f.Hints)) - 1 }

// Digest is what a publisher gossips of its log heads.
type Digest struct {
	Publisher freshet.ClusterID
	Epoch     uint64
	Heads     []Head
}

// PackFrame puts as many of the batch's records into one payload of at most limit
// bytes as fit, from the first on, and returns how many it took. A record that
// alone exceeds a payload can't be gossiped: for it n is 0.
func PackFrame(b Batch, limit int) (payload []byte, n int) {
	head := append(make([]byte, 0, limit), frameMagic, frameVersion)
	head = append(head, b.Publisher[:]...)
	head = binary.AppendUvarint(head, b.Epoch)
	head = append(head, b.Domain[:]...)
	head = binary.AppendUvarint(head, b.After+1)
	body := make([]byte, 0, limit)
	var previous string
	for i := range b.Records {
		next := appendHint(body, previous, b.Records[i])
		if len(head)+binary.MaxVarintLen16+len(next)+crc32.Size > limit {
			break
		}
		body, previous, n = next, b.Records[i].Key, i+1
	}
	if n == 0 {
		return nil, 0
	}
	head = binary.AppendUvarint(head, uint64(n))
	return seal(append(head, body...)), n
}

func appendHint(b []byte, previous string, r Record) []byte {
	head := byte(r.Kind) & kindMask
	if r.Recursive {
		head |= recursive
	}
	if r.Key2 != "" {
		head |= second
	}
	if !r.Fingerprint.IsZero() {
		head |= hashed
	}
	b = appendDelta(append(b, head), previous, r.Key)
	if r.Key2 != "" {
		b = appendDelta(b, r.Key, r.Key2)
	}
	if !r.Fingerprint.IsZero() {
		hash := r.Fingerprint.Hash()
		b = append(b, hash[:]...)
	}
	return b
}

// appendDelta writes key as the length of the prefix that it shares with base,
// and the rest.
func appendDelta(b []byte, base, key string) []byte {
	shared := 0
	for shared < len(base) && shared < len(key) && base[shared] == key[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	return appendString(b, key[shared:])
}

func (d *decoder) delta(base string) string {
	shared := d.uvarint()
	if shared > uint64(len(base)) {
		d.fail()
		return ""
	}
	return base[:shared] + d.string(maxKey-int(shared))
}

// DecodeFrame reads what PackFrame wrote. It accepts nothing that a flipped bit
// or a foreign program could have made.
func DecodeFrame(payload []byte) (Frame, error) {
	d, err := unseal(payload, frameMagic)
	if err != nil {
		return Frame{}, err
	}
	var f Frame
	copy(f.Publisher[:], d.bytes(len(f.Publisher)))
	f.Epoch = d.uvarint()
	copy(f.Domain[:], d.bytes(len(f.Domain)))
	f.First = d.uvarint()
	n := d.uvarint()
	if d.err != nil || n == 0 || n > MaxFrame || f.First == 0 || f.First+n < f.First {
		return Frame{}, fmt.Errorf("%w: sequence numbers", ErrFrame)
	}
	var previous string
	for range n {
		h := d.hint(previous)
		if d.err != nil || !clean(h.Key) || (h.Key2 != "" && !clean(h.Key2)) {
			return Frame{}, fmt.Errorf("%w: change", ErrFrame)
		}
		previous = h.Key
		f.Hints = append(f.Hints, h)
	}
	if len(d.rest) != 0 {
		return Frame{}, fmt.Errorf("%w: %d bytes too many", ErrFrame, len(d.rest))
	}
	return f, nil
}

func (d *decoder) hint(previous string) Hint {
	head := d.byte()
	h := Hint{Kind: Kind(head & kindMask), Recursive: head&recursive != 0}
	h.Key = d.delta(previous)
	if head&second != 0 {
		h.Key2 = d.delta(h.Key)
	}
	if head&hashed != 0 {
		copy(h.Version[:], d.bytes(len(h.Version)))
	}
	if d.err == nil && (h.Key == "" || h.Key[0] != '/' || (h.Key2 != "" && h.Key2[0] != '/')) {
		d.fail()
	}
	if d.err == nil && (h.Kind == 0 || h.Kind > KindAll) {
		r := Record{Key: h.Key, Key2: h.Key2}
		r.widen()
		h = Hint{Kind: r.Kind, Key: r.Key, Recursive: true}
	}
	return h
}

// PackDigest puts as many heads as fit into one payload of at most limit bytes
// and returns how many it took.
func PackDigest(g Digest, limit int) (payload []byte, n int) {
	head := append(make([]byte, 0, limit), digestMagic, frameVersion)
	head = append(head, g.Publisher[:]...)
	head = binary.AppendUvarint(head, g.Epoch)
	var body []byte
	for i, h := range g.Heads {
		next := append(body, h.Domain[:]...)
		next = binary.AppendUvarint(next, h.Low)
		next = binary.AppendUvarint(next, h.High)
		next = append(next, h.Hash[:]...)
		if len(head)+binary.MaxVarintLen16+len(next)+crc32.Size > limit {
			break
		}
		body, n = next, i+1
	}
	head = binary.AppendUvarint(head, uint64(n))
	return seal(append(head, body...)), n
}

// DecodeDigest reads what PackDigest wrote.
func DecodeDigest(payload []byte) (Digest, error) {
	d, err := unseal(payload, digestMagic)
	if err != nil {
		return Digest{}, err
	}
	var g Digest
	copy(g.Publisher[:], d.bytes(len(g.Publisher)))
	g.Epoch = d.uvarint()
	n := d.uvarint()
	if d.err != nil || n > MaxFrame {
		return Digest{}, fmt.Errorf("%w: number of heads", ErrFrame)
	}
	for range n {
		var h Head
		copy(h.Domain[:], d.bytes(len(h.Domain)))
		h.Low, h.High = d.uvarint(), d.uvarint()
		copy(h.Hash[:], d.bytes(len(h.Hash)))
		if d.err != nil || h.Low == 0 || (h.Low > h.High && h.Low-1 != h.High) {
			return Digest{}, fmt.Errorf("%w: head", ErrFrame)
		}
		g.Heads = append(g.Heads, h)
	}
	if len(d.rest) != 0 {
		return Digest{}, fmt.Errorf("%w: %d bytes too many", ErrFrame, len(d.rest))
	}
	return g, nil
}

// seal appends the checksum.
func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func unseal(payload []byte, magic byte) (*decoder, error) {
	end := len(payload) - crc32.Size
	switch {
	case end < 2 || len(payload) > MaxFrame:
		return nil, fmt.Errorf("%w: %d bytes", ErrFrame, len(payload))
	case payload[0] != magic:
		return nil, fmt.Errorf("%w: magic 0x%02x", ErrFrame, payload[0])
	case crc32.Checksum(payload[:end], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(payload[end:]):
		return nil, fmt.Errorf("%w: checksum", ErrFrame)
	case payload[1] != frameVersion:
		return nil, fmt.Errorf("%w: version %d", ErrFrame, payload[1])
	}
	return &decoder{rest: payload[2:end]}, nil
}
