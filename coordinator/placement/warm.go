package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Candidate is a node that could take a block.
type Candidate struct {
	ID       freshet.NodeID
	Capacity int64 // bytes
}

// Spread is where a block is in a place, and where else in it it could go.
type Spread struct {
	// Held are the live nodes of the place that hold the block.
	Held []Candidate
	// Free are others of the place that take what a warm asks for, the best first: the
	// one that a read would choose, or the one farthest from those that hold it.
	Free []Candidate
	// From are the live nodes that hold the block, wherever they are, as from the
	// first of Free.
	From []freshet.Node
}

// Spread returns where the block is.
func (n *Nodes) Spread(id freshet.BlockID, length int64, place freshet.CachePlace, now time.Duration) Spread {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var s Spread
	var has []*node
	for _, r := range n.index.block(id) {
		at := n.slots[r.slot]
		if at == nil || !n.live(at, now) {
			continue
		}
		if _, goes := at.free[id]; goes || !within(at, place) {
			continue
		}
		has = append(has, at)
		s.Held = append(s.Held, Candidate{at.ID, at.capacity})
	}
	left := slices.DeleteFunc(n.staying(now), func(at *node) bool {
		return !at.warms || !at.full || at.capacity < length || !within(at, place) || slices.Contains(has, at)
	})
	hash := hashBlock(id)
	for len(left) > 0 {
		best := 0
		for i, at := range left[1:] {
			if prefer(at, left[best], has, length, hash) {
				best = i + 1
			}
		}
		has = append(has, left[best])
		s.Free = append(s.Free, Candidate{left[best].ID, left[best].capacity})
		left = slices.Delete(left, best, best+1)
	}
	if len(s.Free) > 0 {
		at := n.byID[s.Free[0].ID]
		s.From = n.holders(id, near{at.Host, at.rack, at.zone}, now)
	}
	return s
}

// prefer reports whether a should get the next copy rather than b: who is farther from
// the copies that there are, then who has room, then who wins the ranking, as for reads.
func prefer(a, b *node, has []*node, length int64, hash uint64) bool {
	if da, db := apart(a, has), apart(b, has); da != db {
		return da > db
	}
	if c := compareBool(a.room(length), b.room(length)); c != 0 {
		return c > 0
	}
	return ahead(a, b, hash)
}

func within(at *node, p freshet.CachePlace) bool {
	return (p.Node == "" || p.Node == at.Name || p.Node == string(at.ID)) && (p.Host == "" || p.Host == at.Host) &&
		(p.Rack == "" || p.Rack == at.rack) && (p.Zone == "" || p.Zone == at.zone)
}

// Takers returns how many live nodes are in the place that take what a warm asks for,
// and how many of them have told what they hold, and so get it.
func (n *Nodes) Takers(p freshet.CachePlace, now time.Duration) (all, ready int) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, at := range n.staying(now) {
		if !at.warms || !within(at, p) {
			continue
		}
		all++
		if at.full {
			ready++
		}
	}
	return all, ready
}

// Exists reports whether a node is in the place, whether it lives or not, or could be
// without this leader knowing it yet.
func (n *Nodes) Exists(p freshet.CachePlace, now time.Duration) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if p == (freshet.CachePlace{}) || !n.settled(now) {
		return true
	}
	return slices.ContainsFunc(n.slots, func(at *node) bool { return at != nil && within(at, p) })
}

// Settled reports whether all nodes that live have told this leader what they hold, or
// had the time to.
func (n *Nodes) Settled(now time.Duration) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.settled(now)
}

// Shares returns what the live nodes of a place hold of the first so many blocks of a
// file, in the order of their names, and the sum, each block counted once.
func (n *Nodes) Shares(file freshet.FileID, blocks int64, p freshet.CachePlace, now time.Duration) (shares []freshet.NodeShare, count, bytes int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	by := map[*node]*freshet.NodeShare{}
	last := int64(-1)
	n.index.file(file, func(r record) {
		at := n.slots[r.slot]
		if at == nil || !n.live(at, now) || int64(r.index) >= blocks || !within(at, p) {
			return
		}
		if _, goes := at.free[freshet.BlockID{File: file, Index: r.index}]; goes {
			return
		}
		s := by[at]
		if s == nil {
			s = &freshet.NodeShare{Node: at.Name, Tier: at.tier}
			by[at] = s
		}
		s.Blocks++
		s.Bytes += int64(r.length)
		if int64(r.index) != last {
			last = int64(r.index)
			count++
			bytes += int64(r.length)
		}
	})
	for _, at := range n.slots {
		if s := by[at]; at != nil && s != nil {
			shares = append(shares, *s)
		}
	}
	slices.SortStableFunc(shares, func(a, b freshet.NodeShare) int { return cmp.Compare(a.Node, b.Node) })
	return shares, count, bytes
}

// Copies returns how many copies of blocks of the file live nodes hold, and their
// bytes; those that a node is to free count only if pending is set, and then no others.
func (n *Nodes) Copies(file freshet.FileID, pending bool, now time.Duration) (copies, bytes int64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	n.index.file(file, func(r record) {
		at := n.slots[r.slot]
		if at == nil || !n.live(at, now) {
			return
		}
		if _, goes := at.free[freshet.BlockID{File: file, Index: r.index}]; goes == pending {
			copies++
			bytes += int64(r.length)
		}
	})
	return copies, bytes
}
