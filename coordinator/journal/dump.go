package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
)

// A dump is the state in one stream:
//
//	magic[8] version[u32] cluster[16]
//	( length[u32] bytes )*  length 0
//	applied[u64] total payload length[u64] xxh3-128 of all before[16]
//
// Numbers are big endian.
const (
	dumpMagic   = "FRSHDUMP"
	dumpVersion = 1
	dumpChunk   = 256 << 10
	headSize    = 8 + 4 + 16
	tailSize    = 8 + 8 + 16
)

// DumpInfo is what a dump says of itself.
type DumpInfo struct {
	Cluster freshet.ClusterID
	Applied uint64 // index that the state in it has applied
	Bytes   int64  // length of the state in it
}

// WriteDump writes the state as a dump: what is sent to a lagging member, and a
// backup.
func WriteDump(w io.Writer, cluster freshet.ClusterID, dump func(io.Writer) (uint64, error)) (DumpInfo, error) {
	hash := xxh3.New()
	out := io.MultiWriter(w, hash)
	head := append([]byte(dumpMagic), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(head[8:], dumpVersion)
	if _, err := out.Write(append(head, cluster[:]...)); err != nil {
		return DumpInfo{}, err
	}
	chunks := &chunkWriter{out: out}
	buffered := bufio.NewWriterSize(chunks, dumpChunk)
	applied, err := dump(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return DumpInfo{}, err
	}
	info := DumpInfo{Cluster: cluster, Applied: applied, Bytes: chunks.total}
	tail := binary.BigEndian.AppendUint32(nil, 0)
	tail = binary.BigEndian.AppendUint64(tail, applied)
	tail = binary.BigEndian.AppendUint64(tail, uint64(chunks.total))
	if _, err := out.Write(tail); err != nil {
		return DumpInfo{}, err
	}
	sum := hash.Sum128().Bytes()
	_, err = w.Write(sum[:])
	return info, err
}

type chunkWriter struct {
	out   io.Writer
	total int64
}

func (c *chunkWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), dumpChunk)
		if _, err := c.out.Write(binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
			return len(p) - len(rest), err
		}
		if _, err := c.out.Write(rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		c.total += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// CheckDump reads a dump to its end and returns what it says of itself. It is
// KindCorrupt if it is not whole, KindUnsupported if a newer version wrote it and
// KindConflict if it is of another cluster than want; a zero want accepts any.
func CheckDump(r io.Reader, want freshet.ClusterID) (DumpInfo, error) {
	return ReadDump(r, want, func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
}

// ReadDump hands the state in a dump to restore and checks it as CheckDump does;
// but what restore gets is known to be whole only at the end, so check first.
func ReadDump(r io.Reader, want freshet.ClusterID, restore func(io.Reader) error) (DumpInfo, error) {
	const op = "read snapshot"
	corrupt := func(format string, args ...any) (DumpInfo, error) {
		return DumpInfo{}, freshet.Errorf(freshet.KindCorrupt, op, "", format, args...)
	}
	hash := xxh3.New()
	plain := bufio.NewReaderSize(r, dumpChunk)
	in := io.TeeReader(plain, hash)
	var head [headSize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return corrupt("it is cut off in its first bytes: %w", err)
	}
	if string(head[:8]) != dumpMagic {
		return corrupt("this is not a snapshot of Freshet")
	}
	if v := binary.BigEndian.Uint32(head[8:]); v != dumpVersion {
		return DumpInfo{}, freshet.Errorf(freshet.KindUnsupported, op, "",
			"format %d is not supported (this version reads %d)", v, dumpVersion)
	}
	info := DumpInfo{Cluster: freshet.ClusterID(head[12:])}
	if want != (freshet.ClusterID{}) && info.Cluster != want {
		return info, freshet.Errorf(freshet.KindConflict, op, "", "it belongs to cluster %s, this one is %s", info.Cluster, want)
	}
	chunks := &chunkReader{in: in}
	if err := restore(chunks); err != nil {
		if framing, ok := errors.AsType[*framingError](err); ok {
			return corrupt("%w", framing)
		}
		return info, err
	}
	if _, err := io.Copy(io.Discard, chunks); err != nil { // what restore left
		return corrupt("%w", err)
	}
	var tail [tailSize]byte
	if _, err := io.ReadFull(in, tail[:16]); err != nil {
		return corrupt("it is cut off: %w", err)
	}
	want128 := hash.Sum128().Bytes()
	if _, err := io.ReadFull(plain, tail[16:]); err != nil {
		return corrupt("it is cut off: %w", err)
	}
	if want128 != [16]byte(tail[16:]) {
		return corrupt("checksum mismatch")
	}
	info.Applied = binary.BigEndian.Uint64(tail[:])
	info.Bytes = int64(binary.BigEndian.Uint64(tail[8:]))
	if info.Bytes != chunks.total {
		return corrupt("it has %d bytes, its end says %d", chunks.total, info.Bytes)
	}
	if _, err := plain.ReadByte(); !errors.Is(err, io.EOF) {
		return corrupt("bytes follow its end")
	}
	return info, nil
}

// framingError marks what went wrong in the frame, so that restore may wrap it.
type framingError struct{ err error }

func (e *framingError) Error() string { return e.err.Error() }
func (e *framingError) Unwrap() error { return e.err }

// chunkReader returns the bytes of the chunks and io.EOF after the last.
type chunkReader struct {
	in    io.Reader
	left  int
	total int64
	end   bool
	bad   error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.bad != nil {
		return 0, c.bad
	}
	if c.left == 0 && !c.end {
		var length [4]byte
		if _, err := io.ReadFull(c.in, length[:]); err != nil {
			return 0, c.fail(fmt.Errorf("it is cut off: %w", noEOF(err)))
		}
		c.left = int(binary.BigEndian.Uint32(length[:]))
		c.end = c.left == 0
		if c.left > dumpChunk {
			return 0, c.fail(fmt.Errorf("a chunk of %d bytes is longer than any", c.left))
		}
	}
	if c.end {
		return 0, io.EOF
	}
	n, err := c.in.Read(p[:min(len(p), c.left)])
	c.left -= n
	c.total += int64(n)
	if err != nil {
		return n, c.fail(fmt.Errorf("it is cut off: %w", noEOF(err)))
	}
	return n, nil
}

func (c *chunkReader) fail(err error) error {
	c.bad = &framingError{err}
	return c.bad
}

// noEOF keeps a cut from looking like an end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
