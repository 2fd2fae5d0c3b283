package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// keepers returns the live nodes, but for those that drain, which keep blocks of files
// that are in no storage on a disk.
func (n *Nodes) keepers(now time.Duration) []*node {
	return slices.DeleteFunc(n.staying(now), func(at *node) bool { return !at.keeps || !at.durable })
}

// Keepers returns up to limit further nodes that can keep on a disk what the nodes of
// has keep: first those that can hold so many bytes beside what they keep already; of
// them each the farthest from those before it, then one that need not push out blocks for
// it, then the winner of the ranking for key.
func (n *Nodes) Keepers(has []freshet.NodeID, length int64, key uint64, limit int, now time.Duration) []freshet.Node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var chosen []*node
	for _, id := range has {
		if at := n.byID[id]; at != nil {
			chosen = append(chosen, at)
		}
	}
	hash := mix(key)
	left := slices.DeleteFunc(n.keepers(now), func(at *node) bool { return slices.Contains(has, at.ID) })
	better := func(at, than *node) bool {
		d := cmp.Or(compareBool(n.space(at, nil) >= length, n.space(than, nil) >= length), cmp.Compare(apart(at, chosen), apart(than, chosen)), compareBool(at.room(length), than.room(length)))
		return d > 0 || (d == 0 && ahead(at, than, hash))
	}
	var out []freshet.Node
	for len(out) < limit && len(left) > 0 {
		next := best(left, better)
		left = slices.DeleteFunc(left, func(at *node) bool { return at == next })
		chosen = append(chosen, next)
		out = append(out, next.Node)
	}
	return out
}

// KeeperCount returns how many nodes can keep files that are in no storage on a disk.
func (n *Nodes) KeeperCount(now time.Duration) int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.keepers(now))
}

// Standing returns those of the nodes that live and hold all bytes of the version, in
// their order, and which of them are not to be emptied.
func (n *Nodes) Standing(file freshet.FileID, length int64, among []freshet.NodeID, now time.Duration) (live, staying []freshet.Node) {
	whole := n.Whole(file, length, among, now)
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, id := range among {
		if _, ok := whole[id]; !ok {
			continue
		}
		if at := n.byID[id]; at != nil {
			live = append(live, at.Node)
			if !at.drains() {
				staying = append(staying, at.Node)
			}
		}
	}
	return live, staying
}
