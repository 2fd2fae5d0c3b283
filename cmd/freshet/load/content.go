package load

import (
	"encoding/binary"
	"io"
)

// Content returns size bytes of which no stretch repeats itself, another for each seed.
func Content(seed uint64, size int64) io.Reader {
	return &content{state: seed*0x9e3779b97f4a7c15 + 1, left: size}
}

type content struct {
	state uint64
	left  int64
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.left)]
	var word [8]byte
	for at := 0; at < len(p); at += 8 {
		c.state ^= c.state << 13
		c.state ^= c.state >> 7
		c.state ^= c.state << 17
		binary.LittleEndian.PutUint64(word[:], c.state)
		copy(p[at:], word[:])
	}
	c.left -= int64(len(p))
	return len(p), nil
}
