package placement

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// near is a place in the network from which nodes are looked at.
type near struct{ host, rack, zone string }

// near returns the locality of a caller of which only the host is known: rack and
// zone are those of a node on that host.
func (n *Nodes) near(host string) near {
	if host == "" {
		return near{}
	}
	at := near{host: host}
	for _, m := range n.slots { // few, and in the order of the slots
		if m != nil && m.Host == host {
			at.rack, at.zone = m.rack, m.zone
			break
		}
	}
	return at
}

// distance is 0 on the same host, 1 in the same rack, 2 in the same zone, else 3.
func (at near) distance(m *node) int {
	switch {
	case at.host != "" && m.Host == at.host:
		return 0
	case at.rack != "" && m.rack == at.rack && m.zone == at.zone:
		return 1
	case at.zone != "" && m.zone == at.zone:
		return 2
	}
	return 3
}

// Spot is where one block is and who should fetch it otherwise.
type Spot struct {
	// Nodes hold the block and live, the nearest first.
	Nodes []freshet.Node
	// Fetch is the live node that should fetch the block; zero if none lives.
	Fetch freshet.Node
	// Via is the live node on the reader's own host if others hold the block but none
	// on that host does; else zero.
	Via freshet.Node
}

// Locate returns where the blocks first..last of the file are, as seen from host
// (empty if it is not known). Nodes at the same distance come in the order of the
// block's own ranking, so that the readers of a popular block spread over them.
func (n *Nodes) Locate(file freshet.FileID, first, last uint32, host string, now time.Duration) []Spot {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if last < first {
		return nil
	}
	from, live := n.near(host), n.alive(now)
	spots := make([]Spot, 0, int(last-first)+1)
	for i := uint64(first); i <= uint64(last); i++ {
		id := freshet.BlockID{File: file, Index: uint32(i)}
		var s Spot
		if best := rank(live, hashBlock(id)); best != nil {
			s.Fetch = best.Node
		}
		s.Nodes = n.holders(id, from, now)
		s.Via = between(from, s.Nodes, live, hashBlock(id))
		spots = append(spots, s)
	}
	return spots
}

// between returns the node on the host from which a block is read that is to take a
// copy, zero if there is none, or one has it.
func between(from near, holders []freshet.Node, live []*node, hash uint64) freshet.Node {
	if from.host == "" || len(holders) == 0 || holders[0].Host == from.host {
		return freshet.Node{}
	}
	here := slices.DeleteFunc(slices.Clone(live), func(at *node) bool { return at.Host != from.host })
	if best := rank(here, hash); best != nil {
		return best.Node
	}
	return freshet.Node{}
}

// holders returns the live nodes that hold the block, the nearest first.
func (n *Nodes) holders(id freshet.BlockID, from near, now time.Duration) []freshet.Node {
	type holder struct {
		at       *node
		distance int
		score    float64
	}
	var found []holder
	hash := hashBlock(id)
	for _, r := range n.index.block(id) {
		if at := n.slots[r.slot]; at != nil && n.live(at, now) {
			found = append(found, holder{at, from.distance(at), score(at, hash)})
		}
	}
	slices.SortFunc(found, func(a, b holder) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(b.score, a.score), cmp.Compare(a.at.ID, b.at.ID))
	})
	var nodes []freshet.Node
	for _, h := range found {
		nodes = append(nodes, h.at.Node)
	}
	return nodes
}

// Writer returns the node that should take an upload, and its incarnation: the
// preferred one if it lives, else the one nearest to host, among those at the
// same distance by the ranking for key, which spreads uploads by capacity.
func (n *Nodes) Writer(preferred freshet.NodeID, host string, key uint64, now time.Duration) (freshet.Node, uint64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if at := n.byID[preferred]; at != nil && n.live(at, now) {
		return at.Node, at.incarnation, true
	}
	from := n.near(host)
	var best *node
	for _, at := range n.alive(now) {
		if best == nil || closer(from, at, best, mix(key)) {
			best = at
		}
	}
	if best == nil {
		return freshet.Node{}, 0, false
	}
	return best.Node, best.incarnation, true
}

func closer(from near, a, b *node, hash uint64) bool {
	if da, db := from.distance(a), from.distance(b); da != db {
		return da < db
	}
	return ahead(a, b, hash)
}

// alive returns the live nodes in the order of their slots.
func (n *Nodes) alive(now time.Duration) []*node {
	live := make([]*node, 0, len(n.slots))
	for _, at := range n.slots {
		if at != nil && n.live(at, now) {
			live = append(live, at)
		}
	}
	return live
}

// rank returns the winner of rendezvous hashing: each node has a score for the
// block that no other node influences, so that a node that comes or goes moves
// only its own share.
func rank(live []*node, hash uint64) *node {
	var best *node
	for _, at := range live {
		if best == nil || ahead(at, best, hash) {
			best = at
		}
	}
	return best
}

func ahead(a, b *node, hash uint64) bool {
	sa, sb := score(a, hash), score(b, hash)
	return sa > sb || (sa == sb && a.ID < b.ID)
}

// score is weighted by capacity: a node of twice the size wins twice as often.
func score(at *node, hash uint64) float64 {
	h := mix(hash ^ at.hash)
	u := (float64(h>>11) + 0.5) / (1 << 53) // in (0, 1)
	return float64(max(at.capacity, 1)) / -math.Log(u)
}

func hashBlock(id freshet.BlockID) uint64 {
	return mix(mix(uint64(id.File)) ^ bits.RotateLeft64(uint64(id.Index), 32))
}

// mix is the finaliser of a well-known generator: each bit of x moves half of the
// bits of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashText is FNV-1a, mixed.
func hashText(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// CachedBytes returns how many bytes of the file live nodes hold, each block
// counted once.
func (n *Nodes) CachedBytes(file freshet.FileID, now time.Duration) int64 {
	var total int64
	n.each(file, now, func(_, length uint32, first bool, _ *node) {
		if first {
			total += int64(length)
		}
	})
	return total
}

// Blocks returns the blocks of the file that live nodes hold, in order, with the
// names of the nodes.
func (n *Nodes) Blocks(file freshet.FileID, now time.Duration) []freshet.ExplainedBlock {
	var all []freshet.ExplainedBlock
	n.each(file, now, func(index, length uint32, first bool, at *node) {
		if first {
			all = append(all, freshet.ExplainedBlock{Index: index, Length: int64(length)})
		}
		b := &all[len(all)-1]
		b.Nodes = append(b.Nodes, at.Name)
	})
	return all
}

// each calls fn for each copy on a live node; first says that it is the first copy
// of its block.
func (n *Nodes) each(file freshet.FileID, now time.Duration, fn func(index, length uint32, first bool, at *node)) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	last := int64(-1)
	n.index.file(file, func(r record) {
		at := n.slots[r.slot]
		if at == nil || !n.live(at, now) {
			return
		}
		fn(r.index, r.length, int64(r.index) != last, at)
		last = int64(r.index)
	})
}
