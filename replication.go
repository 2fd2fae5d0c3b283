package freshet

// MaxCopies is the most that PropertyReplicationMin and PropertyReplicationMax
// may ask for.
const MaxCopies = 64

// Replication bounds the live copies of each cached block. The zero value bounds
// nothing.
type Replication struct {
	Min int // 0 and 1 force nothing: a cached block has a copy
	Max int // 0 is no limit
}

// Bounds returns the bounds as they apply: where paths above and below each other
// have set a least number above the most, the least number wins.
func (r Replication) Bounds() (least, most int) {
	if r.Max > 0 && r.Max < r.Min {
		return r.Min, r.Min
	}
	return r.Min, r.Max
}

// None reports whether there is nothing to keep to.
func (r Replication) None() bool { return r.Min < 2 && r.Max == 0 }

// ReplicationStatus is how the cached blocks of a file stand to the bounds of its
// path.
type ReplicationStatus struct {
	Replication
	Short  int    // blocks with fewer live copies than Min
	Reason string // why there are such blocks, or why Max does not apply; else ""
}
