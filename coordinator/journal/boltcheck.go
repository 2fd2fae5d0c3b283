package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The file format of bbolt, as far as it takes to see that no page is torn, used
// twice, or both used and free. The library's own check ends the process when it
// meets some kinds of damage, and opening does not look at all.
const (
	boltMagic      = 0xED0CDAED
	boltPageHead   = 16
	boltElement    = 16
	boltBranch     = 0x01
	boltLeaf       = 0x02
	boltFreelist   = 0x10
	boltNoFreelist = ^uint64(0)
	boltBucketFlag = 0x01
	boltMetaBytes  = 64 // after the page's head
	maxBoltPage    = 64 << 10
	maxBoltDepth   = 64
)

// boltFile is a log file that is being checked.
type boltFile struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64 // all pages are below
	used     map[uint64]struct{}
}

// checkBoltFile returns what is wrong with the file, nil if nothing is.
func checkBoltFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkBoltPages(f, info.Size())
}

func checkBoltPages(r io.ReaderAt, size int64) error {
	b := &boltFile{r: r, used: map[uint64]struct{}{}}
	root, freelist, err := b.newestMeta()
	if err != nil {
		return err
	}
	if uint64(size) < b.pages*uint64(b.pageSize) {
		return fmt.Errorf("it has %d bytes, %d pages of %d are in use", size, b.pages, b.pageSize)
	}
	b.used[0], b.used[1] = struct{}{}, struct{}{}
	if err := b.walk(root, nil, 0); err != nil {
		return err
	}
	if freelist == boltNoFreelist {
		return nil
	}
	return b.free(freelist)
}

// newestMeta reads the two heads; one of them may be torn by a crash.
func (b *boltFile) newestMeta() (root, freelist uint64, err error) {
	var newest uint64
	found := false
	first := make([]byte, boltPageHead+boltMetaBytes)
	sizes := []int64{int64(os.Getpagesize())}
	for s := int64(1024); s <= maxBoltPage; s *= 2 { // written on another machine
		sizes = append(sizes, s)
	}
	for _, at := range append([]int64{0}, sizes...) {
		if _, err := b.r.ReadAt(first, at); err != nil {
			continue
		}
		m := first[boltPageHead:]
		hash := fnv.New64a()
		_, _ = hash.Write(m[:56]) // a hash's Write never fails
		if binary.LittleEndian.Uint32(m) != boltMagic || hash.Sum64() != binary.LittleEndian.Uint64(m[56:]) {
			continue
		}
		pageSize := int64(binary.LittleEndian.Uint32(m[8:]))
		if at != 0 && at != pageSize || pageSize < 1024 || pageSize > maxBoltPage {
			continue
		}
		if txid := binary.LittleEndian.Uint64(m[48:]); !found || txid > newest {
			found, newest, b.pageSize = true, txid, pageSize
			root = binary.LittleEndian.Uint64(m[16:])
			freelist = binary.LittleEndian.Uint64(m[32:])
			b.pages = binary.LittleEndian.Uint64(m[40:])
		}
	}
	if !found {
		return 0, 0, errors.New("neither of its heads is whole")
	}
	return root, freelist, nil
}

// page reads a page with what overflows from it and marks it as used.
func (b *boltFile) page(id uint64) (data []byte, flags uint16, count int, err error) {
	if id < 2 || id >= b.pages {
		return nil, 0, 0, fmt.Errorf("page %d is not one of %d", id, b.pages)
	}
	data = make([]byte, b.pageSize)
	if _, err := b.r.ReadAt(data, int64(id)*b.pageSize); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	overflow := uint64(binary.LittleEndian.Uint32(data[12:]))
	if own := binary.LittleEndian.Uint64(data); own != id || overflow >= b.pages-id {
		return nil, 0, 0, fmt.Errorf("page %d is torn", id)
	}
	if overflow > 0 {
		data = make([]byte, int64(overflow+1)*b.pageSize)
		if _, err := b.r.ReadAt(data, int64(id)*b.pageSize); err != nil {
			return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
		}
	}
	for p := id; p <= id+overflow; p++ {
		if _, twice := b.used[p]; twice {
			return nil, 0, 0, fmt.Errorf("page %d is used twice", p)
		}
		b.used[p] = struct{}{}
	}
	return data, binary.LittleEndian.Uint16(data[8:]), int(binary.LittleEndian.Uint16(data[10:])), nil
}

// walk checks the tree below a page whose keys are not less than low.
func (b *boltFile) walk(id uint64, low []byte, depth int) error {
	data, flags, count, err := b.page(id)
	if err != nil {
		return err
	}
	if depth > maxBoltDepth || (flags != boltBranch && flags != boltLeaf) {
		return fmt.Errorf("page %d is not part of a tree", id)
	}
	for i := range count {
		at := boltPageHead + i*boltElement
		if at+boltElement > len(data) {
			return fmt.Errorf("page %d is torn", id)
		}
		e := data[at:]
		pos, keySize, valueSize := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:]), uint32(0)
		if flags == boltLeaf {
			pos, keySize, valueSize = binary.LittleEndian.Uint32(e[4:]), binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		}
		end := uint64(pos) + uint64(keySize) + uint64(valueSize)
		if end > uint64(len(e)) {
			return fmt.Errorf("page %d is torn", id)
		}
		key := e[pos : pos+keySize]
		if order := bytes.Compare(low, key); order > 0 || (order == 0 && i > 0) {
			return fmt.Errorf("page %d is out of order", id)
		}
		low = key
		switch {
		case flags == boltBranch:
			err = b.walk(binary.LittleEndian.Uint64(e[8:]), key, depth+1)
		case binary.LittleEndian.Uint32(e)&boltBucketFlag != 0:
			err = b.bucket(e[pos+keySize:end], depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket checks the tree of a bucket, unless it is small and lies in its value.
func (b *boltFile) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return errors.New("a bucket is torn")
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return b.walk(root, nil, depth+1)
	}
	return nil
}

// free checks that no page is both used and free.
func (b *boltFile) free(id uint64) error {
	data, flags, count, err := b.page(id)
	if err != nil {
		return err
	}
	ids := data[boltPageHead:]
	n := uint64(count)
	if n == 0xFFFF { // more than fit into the head
		n, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if flags != boltFreelist || n > uint64(len(ids)/8) {
		return fmt.Errorf("page %d is not a list of free pages", id)
	}
	for i := range n {
		p := binary.LittleEndian.Uint64(ids[8*i:])
		if p < 2 || p >= b.pages {
			return fmt.Errorf("free page %d is not one of %d", p, b.pages)
		}
		if _, used := b.used[p]; used {
			return fmt.Errorf("page %d is used and free", p)
		}
		b.used[p] = struct{}{} // not free twice either
	}
	return nil
}
