package tier

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// A block file is a header of one page, the bytes, and one 8-byte checksum for
// each chunk of them. The bytes start on a page, for direct readers; the table
// stands behind them, because the length of an upload's last block is known only
// at its end. All numbers are little-endian.
const (
	headerSize    = 4096
	headerVersion = 1
	headerMagic   = "FRSHTBLK"

	offVersion     = 8
	offPrintLen    = 10
	offChunk       = 12
	offCluster     = 16
	offEpoch       = 32
	offFile        = 40
	offIndex       = 48
	offLength      = 56
	offTableSum    = 64
	offPrint       = 72
	offHeaderSum   = headerSize - 8
	endOfUsedBytes = offPrint + fingerprint.MaxLen
)

// header is the decoded header of a block.
type header struct {
	meta     Meta
	id       freshet.BlockID
	length   int64
	tableSum uint64
}

func encodeHeader(h header) []byte {
	b := make([]byte, headerSize)
	version := h.meta.Fingerprint.Encode()
	copy(b, headerMagic)
	binary.LittleEndian.PutUint16(b[offVersion:], headerVersion)
	binary.LittleEndian.PutUint16(b[offPrintLen:], uint16(len(version)))
	binary.LittleEndian.PutUint32(b[offChunk:], ChunkSize)
	copy(b[offCluster:], h.meta.Cluster[:])
	binary.LittleEndian.PutUint64(b[offEpoch:], h.meta.Epoch)
	binary.LittleEndian.PutUint64(b[offFile:], uint64(h.id.File))
	binary.LittleEndian.PutUint32(b[offIndex:], h.id.Index)
	binary.LittleEndian.PutUint64(b[offLength:], uint64(h.length))
	binary.LittleEndian.PutUint64(b[offTableSum:], h.tableSum)
	copy(b[offPrint:endOfUsedBytes], version)
	binary.LittleEndian.PutUint64(b[offHeaderSum:], xxh3.Hash(b[:offHeaderSum]))
	return b
}

// decodeHeader reads what encodeHeader wrote and nothing else.
func decodeHeader(b []byte) (header, error) {
	if len(b) != headerSize || string(b[:len(headerMagic)]) != headerMagic {
		return header{}, fmt.Errorf("not a block")
	}
	if sum := binary.LittleEndian.Uint64(b[offHeaderSum:]); sum != xxh3.Hash(b[:offHeaderSum]) {
		return header{}, fmt.Errorf("the header's checksum is wrong")
	}
	if v := binary.LittleEndian.Uint16(b[offVersion:]); v != headerVersion {
		return header{}, fmt.Errorf("format %d, not %d", v, headerVersion)
	}
	if c := binary.LittleEndian.Uint32(b[offChunk:]); c != ChunkSize {
		return header{}, fmt.Errorf("chunks of %d bytes, not %d", c, ChunkSize)
	}
	n := int(binary.LittleEndian.Uint16(b[offPrintLen:]))
	if n > fingerprint.MaxLen {
		return header{}, fmt.Errorf("a fingerprint of %d bytes", n)
	}
	version, err := fingerprint.Decode(b[offPrint : offPrint+n])
	if err != nil {
		return header{}, err
	}
	h := header{
		meta: Meta{Epoch: binary.LittleEndian.Uint64(b[offEpoch:]), Fingerprint: version},
		id: freshet.BlockID{
			File:  freshet.FileID(binary.LittleEndian.Uint64(b[offFile:])),
			Index: binary.LittleEndian.Uint32(b[offIndex:]),
		},
		length:   int64(binary.LittleEndian.Uint64(b[offLength:])),
		tableSum: binary.LittleEndian.Uint64(b[offTableSum:]),
	}
	copy(h.meta.Cluster[:], b[offCluster:])
	if h.length <= 0 || h.length > freshet.MaxBlockSize {
		return header{}, fmt.Errorf("a length of %d bytes", h.length)
	}
	if string(encodeHeader(h)) != string(b) {
		return header{}, fmt.Errorf("bytes set that must be zero")
	}
	return h, nil
}

func encodeTable(table []uint64) []byte {
	b := make([]byte, 0, 8*len(table))
	for _, sum := range table {
		b = binary.LittleEndian.AppendUint64(b, sum)
	}
	return b
}

// decodeTable reads the checksums of the chunks and verifies them as a whole.
func decodeTable(b []byte, h header) ([]uint64, error) {
	if xxh3.Hash(b) != h.tableSum {
		return nil, fmt.Errorf("the checksum of the table of checksums is wrong")
	}
	table := make([]uint64, len(b)/8)
	for i := range table {
		table[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return table, nil
}

// fileSize is the size of the file of a block of that length.
func fileSize(length int64) int64 { return headerSize + length + 8*chunks(length) }

// lengthOf is the inverse of fileSize; false for a size that no block has.
func lengthOf(size int64) (int64, bool) {
	rest := size - headerSize
	if rest <= 8 || size > fileSize(freshet.MaxBlockSize) {
		return 0, false
	}
	n := (rest + ChunkSize + 8 - 1) / (ChunkSize + 8) // chunks, each with its checksum
	length := rest - 8*n
	return length, fileSize(length) == size
}
