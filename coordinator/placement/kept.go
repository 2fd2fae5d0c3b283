package placement

import (
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Keeper is Writer for what stays on nodes: among those that keep such blocks and, if
// durable, on a disk. If not, one that has a disk is preferred to one that is as near and
// has memory alone, for that loses what it keeps when its process ends.
func (n *Nodes) Keeper(preferred freshet.NodeID, caller freshet.Locality, key uint64, durable bool, now time.Duration) (freshet.Node, uint64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	may := func(at *node) bool { return at.keeps && (at.durable || !durable) }
	if at := n.byID[preferred]; at != nil && n.live(at, now) && !at.drains() && may(at) {
		return at.Node, at.incarnation, true
	}
	able := slices.DeleteFunc(n.staying(now), func(at *node) bool { return !may(at) })
	from := n.near(caller)
	best := n.writer(able, mix(key), from)
	if best == nil {
		return freshet.Node{}, 0, false
	}
	if !best.durable {
		beside := slices.DeleteFunc(able, func(at *node) bool { return !at.durable || from.distance(at) != from.distance(best) })
		if on := n.writer(beside, mix(key), from); on != nil {
			best = on
		}
	}
	return best.Node, best.incarnation, true
}

// Acknowledged takes note that a node has all blocks of a version that is about to become
// visible and is nowhere else. The node reports them too, with its next heartbeat; until
// then nobody could read the file, and it would pass for lost. Of a node whose full
// report is on the way nothing is noted, and of another run of it than that with the
// incarnation, if it is not 0.
func (n *Nodes) Acknowledged(id freshet.NodeID, incarnation uint64, file freshet.FileID, length, blockSize int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.byID[id]
	if at == nil || !at.full || blockSize <= 0 || (incarnation != 0 && incarnation != at.incarnation) {
		return
	}
	for i := uint32(0); length > 0; i++ {
		b := freshet.BlockReport{ID: freshet.BlockID{File: file, Index: i}, Length: min(length, blockSize)}
		if n.index.add(b, at.slot) {
			at.blocks++
		}
		n.mark(keyOf(b.ID))
		length -= blockSize
	}
}

// Whole returns those of the nodes that live and hold all bytes of the version, with
// their incarnations.
func (n *Nodes) Whole(file freshet.FileID, length int64, among []freshet.NodeID, now time.Duration) map[freshet.NodeID]uint64 {
	bytes := make(map[*node]int64, len(among))
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, id := range among {
		if at := n.byID[id]; at != nil && at.keeps && n.live(at, now) {
			bytes[at] = 0
		}
	}
	n.index.file(file, func(r record) {
		if at := n.slots[r.slot]; at != nil {
			if _, ok := bytes[at]; ok {
				bytes[at] += int64(r.length)
			}
		}
	})
	whole := make(map[freshet.NodeID]uint64, len(bytes))
	for at, have := range bytes {
		if have == length {
			whole[at.ID] = at.incarnation
		}
	}
	return whole
}

// AllHeard reports whether this leader has listened for long enough to have heard from
// every node that lives.
func (n *Nodes) AllHeard(now time.Duration) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if now-n.start < n.opts.DeadAfter {
		return false
	}
	for _, at := range n.byID {
		if n.live(at, now) && !at.full {
			return false // its report is on the way
		}
	}
	return true
}

// Named returns the names of nodes, or the IDs of those that are not known.
func (n *Nodes) Named(ids []freshet.NodeID) []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		if at := n.byID[id]; at != nil && at.Name != "" {
			names = append(names, at.Name)
		} else {
			names = append(names, string(id))
		}
	}
	return names
}
