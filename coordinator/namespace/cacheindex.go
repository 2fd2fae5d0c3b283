package namespace

// rowIndex finds positions in a ring by the hash of their rows: open addressing,
// linear probing. A slot holds part of the hash and the position, so that almost
// only rows that are looked for are looked at, and the table can grow without them.
type rowIndex struct {
	slots []uint64 // 0: free
	used  int
	max   int // slots that there may be
}

const (
	slotBytes = 8
	// The upper bits of a slot are the tag, of a hash; the others the position in
	// units of a row, plus 1.
	tagBits = 28
	posBits = 64 - tagBits

	minSlots = 64
	// maxProbes bounds a search, whatever the names are: what would need more is
	// not cached. In a table that is full to three quarters that is one of 100,000.
	maxProbes = 256
)

func tagOf(hash uint64) uint64 { return hash >> posBits }

// home returns where the search for a tag begins.
func (x *rowIndex) home(tag uint64) int { return int(tag * uint64(len(x.slots)) >> tagBits) }

func (x *rowIndex) next(i int) int {
	if i++; i == len(x.slots) {
		return 0
	}
	return i
}

func position(slot uint64) uint64 { return (slot&(1<<posBits-1) - 1) * rowUnit }

func slotFor(tag, at uint64) uint64 { return tag<<posBits | (at/rowUnit + 1) }

// find returns the slot and the position of the row with that hash that is says.
func (x *rowIndex) find(hash uint64, is func(at uint64) bool) (slot int, at uint64, ok bool) {
	if len(x.slots) == 0 {
		return 0, 0, false
	}
	tag := tagOf(hash)
	i := x.home(tag)
	for range maxProbes {
		v := x.slots[i]
		if v == 0 {
			return 0, 0, false
		}
		if v>>posBits == tag && is(position(v)) {
			return i, position(v), true
		}
		i = x.next(i)
	}
	return 0, 0, false
}

// slotOf returns the slot of a position.
func (x *rowIndex) slotOf(hash, at uint64) (slot int, ok bool) {
	slot, _, ok = x.find(hash, func(other uint64) bool { return other == at })
	return slot, ok
}

// limit is the number of slots that may be used, of n.
func limit(n int) int { return n - n/4 }

func (x *rowIndex) full() bool { return x.used >= limit(len(x.slots)) }

// reserve makes the table larger if it is full and may grow. What found no slot in
// the larger one is given to lost. False if there can't be any slots.
func (x *rowIndex) reserve(lost func(at uint64)) bool {
	if !x.full() || len(x.slots) >= x.max {
		return len(x.slots) > 0
	}
	old := x.slots
	x.slots, x.used = make([]uint64, min(max(2*len(old), minSlots), x.max)), 0
	for _, v := range old {
		if v != 0 && !x.add(v) {
			lost(position(v))
		}
	}
	return true
}

// insert adds a position. False if it would be found too late.
func (x *rowIndex) insert(hash, at uint64) bool { return x.add(slotFor(tagOf(hash), at)) }

func (x *rowIndex) add(v uint64) bool {
	i := x.home(v >> posBits)
	for range min(maxProbes, len(x.slots)) {
		if x.slots[i] == 0 {
			x.slots[i] = v
			x.used++
			return true
		}
		i = x.next(i)
	}
	return false
}

// move gives a slot another position of the same row.
func (x *rowIndex) move(slot int, at uint64) {
	x.slots[slot] = slotFor(x.slots[slot]>>posBits, at)
}

// remove frees a slot and closes the gap, so that searches need no marks of what
// was removed.
func (x *rowIndex) remove(slot int) {
	x.used--
	free := slot
	for i := x.next(slot); x.slots[i] != 0; i = x.next(i) {
		if home := x.home(x.slots[i] >> posBits); between(free, home, i) {
			continue
		}
		x.slots[free] = x.slots[i]
		free = i
	}
	x.slots[free] = 0
}

// between reports whether home lies behind free and not behind i, around the end.
func between(free, home, i int) bool {
	if free <= i {
		return free < home && home <= i
	}
	return free < home || home <= i
}

func (x *rowIndex) clear() {
	clear(x.slots)
	x.used = 0
}
