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

// near returns the locality of a caller. If only the host is known, rack and zone are
// those of a node on it.
func (n *Nodes) near(caller freshet.Locality) near {
	at := near{caller.Host, caller.Rack, caller.Zone}
	if at.host == "" || at.rack != "" || at.zone != "" {
		return at
	}
	for _, m := range n.slots { // few, and in the order of the slots
		if m != nil && m.Host == at.host {
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

// farthest is beyond all distances.
const farthest = 4

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

// Locate returns where the blocks first..last of the file are, as seen by the caller.
// Nodes at the same distance come in the order of the block's own ranking, so that the
// readers of different blocks spread over them; those that hold a block which is read
// much come in turns.
func (n *Nodes) Locate(file freshet.FileID, first, last uint32, caller freshet.Locality, now time.Duration) []Spot {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if last < first {
		return nil
	}
	from, takers := n.near(caller), n.staying(now)
	if len(takers) == 0 { // rather than nobody
		takers = n.alive(now)
	}
	spots := make([]Spot, 0, int(last-first)+1)
	for i := uint64(first); i <= uint64(last); i++ {
		id := freshet.BlockID{File: file, Index: uint32(i)}
		var s Spot
		if f := n.fetcher(takers, hashBlock(id), from); f != nil {
			s.Fetch = f.Node
		}
		s.Nodes = n.holders(id, from, now)
		s.Via = between(from, s.Nodes, takers, hashBlock(id))
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

// holders returns the live nodes that hold the block, the nearest first, and those that
// are to be emptied last.
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
			d := from.distance(at)
			if at.drains() {
				d = farthest
			}
			found = append(found, holder{at, d, score(at, hash, (*node).sized)})
		}
	}
	slices.SortFunc(found, func(a, b holder) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(b.score, a.score), cmp.Compare(a.at.ID, b.at.ID))
	})
	if len(found) > 1 && n.heat.hot(id) {
		first := found[0].distance
		equal := slices.IndexFunc(found, func(h holder) bool { return h.distance != first })
		if equal < 0 {
			equal = len(found)
		}
		turn := int(n.heat.turn.Add(1) % uint64(equal)) //nolint:gosec // small
		slices.Reverse(found[:turn])
		slices.Reverse(found[turn:equal])
		slices.Reverse(found[:equal])
	}
	var nodes []freshet.Node
	for _, h := range found {
		nodes = append(nodes, h.at.Node)
	}
	return nodes
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
	return best(live, func(a, b *node) bool { return ahead(a, b, hash) })
}

func ahead(a, b *node, hash uint64) bool { return aheadBy(a, b, hash, (*node).sized) }

func aheadBy(a, b *node, hash uint64, weight func(*node) float64) bool {
	sa, sb := score(a, hash, weight), score(b, hash, weight)
	return sa > sb || (sa == sb && a.ID < b.ID)
}

// score is weighted: a node of twice the weight wins twice as often.
func score(at *node, hash uint64, weight func(*node) float64) float64 {
	h := mix(hash ^ at.hash)
	u := (float64(h>>11) + 0.5) / (1 << 53) // in (0, 1)
	return weight(at) / -math.Log(u)
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
