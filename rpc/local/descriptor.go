package local

import (
	"errors"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

var (
	errShort   = errors.New("the file ends early")
	errDamaged = errors.New("the checksum of the bytes is wrong")
	errChanges = errors.New("the file changes all the time")
)

// maxChanges bounds how often a read begins anew because the file was changed.
const maxChanges = 4

// descriptor is a block that was borrowed. It is closed when the cache and all who
// read by it have let it go.
type descriptor struct {
	key     key
	version fingerprint.Fingerprint
	layout  freshet.BlockLayout
	fd      int
	close   func()
	refs    atomic.Int64
	used    uint64 // when it was last used; guarded by the pool's mu
	from    *conn  // who lends it, and as what
	loan    uint64

	verdict atomic.Pointer[verdict]
}

// verdict says which chunks were found right since the file has its stamp.
type verdict struct {
	stamp freshet.FileStamp
	bits  []atomic.Uint64
}

func (v *verdict) isRight(i int64) bool { return v.bits[i/64].Load()&(1<<(i%64)) != 0 }
func (v *verdict) setRight(i int64)     { v.bits[i/64].Or(1 << (i % 64)) }

// newDescriptor takes over fd, with one reference. What the node has verified counts
// if the file is still as it was then.
func newDescriptor(k key, version fingerprint.Fingerprint, l freshet.BlockLayout, fd int, closed func()) (*descriptor, error) {
	d := &descriptor{key: k, version: version, layout: l, fd: fd, close: closed}
	d.refs.Store(1)
	v := &verdict{stamp: l.Stamp, bits: make([]atomic.Uint64, len(l.Verified))}
	if !l.Sealed {
		now, err := stampOf(fd)
		if err != nil {
			return nil, err
		}
		if now != l.Stamp {
			v.stamp = now
			d.verdict.Store(v)
			return d, nil
		}
	}
	for i, word := range l.Verified {
		v.bits[i].Store(word)
	}
	d.verdict.Store(v)
	return d, nil
}

// acquire takes a reference, unless the descriptor is closed.
func (d *descriptor) acquire() bool {
	for {
		n := d.refs.Load()
		if n <= 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (d *descriptor) release() {
	if d.refs.Add(-1) == 0 {
		closeAll([]int{d.fd})
		d.close()
	}
}

// damage is an error that tells which chunk has a wrong checksum.
type damage struct{ chunk int64 }

func (e *damage) Error() string { return errDamaged.Error() }

// readAt fills p from off of the block, all of which must lie in it. The caller has a
// reference. Every byte that it returns is of a chunk that was verified when, or
// since, the file last changed: that it has not changed is looked up after the read.
func (d *descriptor) readAt(p []byte, off int64) error {
	for range maxChanges {
		v := d.verdict.Load()
		if err := d.read(v, p, off); err != nil {
			return err
		}
		if d.layout.Sealed {
			return nil
		}
		now, err := stampOf(d.fd)
		if err != nil {
			return err
		}
		if now == v.stamp {
			return nil
		}
		// Removing the block changes its file too, but not its bytes.
		d.verdict.CompareAndSwap(v, &verdict{stamp: now, bits: make([]atomic.Uint64, len(v.bits))})
	}
	return errChanges
}

// read reads the chunks that are known to be right as they are, and verifies others.
func (d *descriptor) read(v *verdict, p []byte, off int64) error {
	for len(p) > 0 {
		n := d.known(v, off, int64(len(p)))
		if n == 0 {
			var err error
			if n, err = d.readUnknown(v, p, off); err != nil {
				return err
			}
		} else if err := readFull(d.fd, p[:n], d.layout.Offset+off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// known returns how many of the n bytes from off are of chunks that were verified.
func (d *descriptor) known(v *verdict, off, n int64) int64 {
	size := d.layout.ChunkSize
	end := off
	for end < off+n && v.isRight(end/size) {
		end = (end/size + 1) * size
	}
	return min(end-off, n)
}

// readUnknown verifies the chunk at off and reads what p wants of it.
func (d *descriptor) readUnknown(v *verdict, p []byte, off int64) (int64, error) {
	size := d.layout.ChunkSize
	i := off / size
	start := i * size
	length := min(size, d.layout.Length-start)
	n := min(int64(len(p)), start+length-off)
	b := p[:n]
	if n < length {
		b = make([]byte, length) // once for each chunk
	}
	if err := readFull(d.fd, b, d.layout.Offset+start); err != nil {
		return 0, err
	}
	if xxh3.Hash(b) != d.layout.Sums[i] {
		return 0, &damage{i}
	}
	v.setRight(i)
	if n < length {
		copy(p, b[off-start:])
	}
	return n, nil
}
