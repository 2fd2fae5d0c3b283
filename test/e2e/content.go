package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// PageSize is the unit that Content proves: every page names the file, the
// version and its own place.
const PageSize = 4096

// Content returns size bytes of the version of the named file. Contents of
// different names or versions have no equal page.
func Content(name string, version uint64, size int) []byte {
	out := make([]byte, size)
	for off := 0; off < size; off += PageSize {
		copy(out[off:], page(name, version, uint64(off/PageSize)))
	}
	return out
}

const headerSize = 24

func page(name string, version, index uint64) []byte {
	p := make([]byte, PageSize)
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	binary.LittleEndian.PutUint64(p, h.Sum64())
	binary.LittleEndian.PutUint64(p[8:], version)
	binary.LittleEndian.PutUint64(p[16:], index)
	x := h.Sum64() ^ version<<32 ^ index ^ 0x9e3779b97f4a7c15
	for i := headerSize; i < PageSize; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
	return p
}

// Reader returns the same as Content, made as it is read.
func Reader(name string, version uint64, size int64) io.Reader {
	return &reader{name: name, version: version, left: size}
}

type reader struct {
	name    string
	version uint64
	next    uint64 // page
	left    int64
	rest    []byte // of the page before
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		b := page(r.name, r.version, r.next)
		r.rest = b[:min(int64(len(b)), r.left)]
		r.left -= int64(len(r.rest))
		r.next++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// VersionOf proves that data, which starts at a multiple of PageSize in the file,
// is the named file's content at one version, and returns that.
func VersionOf(name string, off int64, data []byte) (uint64, error) {
	if len(data) < headerSize {
		return 0, fmt.Errorf("%s: %d bytes prove no version", name, len(data))
	}
	version := binary.LittleEndian.Uint64(data[8:])
	for i := 0; i < len(data); i += PageSize {
		got := data[i:min(i+PageSize, len(data))]
		want := page(name, version, uint64(off+int64(i))/PageSize)[:len(got)]
		if bytes.Equal(got, want) {
			continue
		}
		other := uint64(0)
		if len(got) >= headerSize {
			other = binary.LittleEndian.Uint64(got[8:])
		}
		return 0, fmt.Errorf("%s: the page at %d is not of version %d but, by its head, of version %d: bytes of several versions or damaged ones",
			name, off+int64(i), version, other)
	}
	return version, nil
}
