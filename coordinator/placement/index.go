package placement

import (
	"cmp"
	"slices"

	"github.com/freshet-io/freshet"
)

// pageBlocks is how many indexes of a file one page of the index holds, so that
// adding a block to a huge file moves little memory.
const pageBlocks = 256

// pageKey names the records of up to pageBlocks blocks of a file.
type pageKey struct {
	file freshet.FileID
	page uint32
}

// record is one copy of a block: 12 bytes, no pointer.
type record struct {
	index  uint32
	length uint32 // bytes; a block has at most 2^30
	slot   slot
}

func compareRecords(a, b record) int {
	return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.slot, b.slot))
}

// index says which nodes hold which blocks.
type index struct {
	pages map[pageKey][]record // sorted; never empty
	// more has the pages beyond the first, in order, of the files that have any.
	more map[freshet.FileID][]uint32
}

func newIndex() index {
	return index{pages: map[pageKey][]record{}, more: map[freshet.FileID][]uint32{}}
}

func keyOf(b freshet.BlockID) pageKey { return pageKey{b.File, b.Index / pageBlocks} }

func (x *index) add(b freshet.BlockReport, s slot) bool {
	k := keyOf(b.ID)
	r := record{index: b.ID.Index, length: uint32(min(max(b.Length, 0), freshet.MaxBlockSize)), slot: s} //nolint:gosec // bounded
	page := x.pages[k]
	at, found := slices.BinarySearchFunc(page, r, compareRecords)
	if found {
		page[at].length = r.length
		return false
	}
	x.pages[k] = slices.Insert(page, at, r)
	if page == nil && k.page > 0 {
		more := x.more[k.file]
		at, _ := slices.BinarySearch(more, k.page)
		x.more[k.file] = slices.Insert(more, at, k.page)
	}
	return true
}

func (x *index) remove(b freshet.BlockID, s slot) bool {
	k := keyOf(b)
	page := x.pages[k]
	at, found := slices.BinarySearchFunc(page, record{index: b.Index, slot: s}, compareRecords)
	if !found {
		return false
	}
	x.store(k, slices.Delete(page, at, at+1))
	return true
}

func (x *index) store(k pageKey, page []record) {
	if len(page) > 0 {
		x.pages[k] = page
		return
	}
	delete(x.pages, k)
	if k.page == 0 {
		return
	}
	more := x.more[k.file]
	if at, found := slices.BinarySearch(more, k.page); found {
		more = slices.Delete(more, at, at+1)
	}
	if x.more[k.file] = more; len(more) == 0 {
		delete(x.more, k.file)
	}
}

// dropSlot removes all records of a node. It walks the whole index.
func (x *index) dropSlot(s slot) {
	for k, page := range x.pages {
		if slices.ContainsFunc(page, func(r record) bool { return r.slot == s }) {
			x.store(k, slices.DeleteFunc(page, func(r record) bool { return r.slot == s }))
		}
	}
}

// block returns the records of one block, in the order of their slots.
func (x *index) block(b freshet.BlockID) []record {
	page := x.pages[keyOf(b)]
	from, _ := slices.BinarySearchFunc(page, record{index: b.Index}, compareRecords)
	to := from
	for to < len(page) && page[to].index == b.Index {
		to++
	}
	return page[from:to]
}

// file calls fn for each record of the file, in the order of the blocks.
func (x *index) file(f freshet.FileID, fn func(record)) {
	for _, r := range x.pages[pageKey{f, 0}] {
		fn(r)
	}
	for _, p := range x.more[f] {
		for _, r := range x.pages[pageKey{f, p}] {
			fn(r)
		}
	}
}
