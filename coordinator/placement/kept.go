package placement

import (
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Keeper is Writer for what stays on nodes: among those that keep such blocks and, if
// durable, on a disk.
func (n *Nodes) Keeper(preferred freshet.NodeID, caller freshet.Locality, key uint64, durable bool, now time.Duration) (freshet.Node, uint64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	may := func(at *node) bool { return at.keeps && (at.durable || !durable) }
	if at := n.byID[preferred]; at != nil && n.live(at, now) && !at.drains() && may(at) {
		return at.Node, at.incarnation, true
	}
	able := slices.DeleteFunc(n.staying(now), func(at *node) bool { return !may(at) })
	best := n.writer(able, mix(key), n.near(caller))
	if best == nil {
		return freshet.Node{}, 0, false
	}
	return best.Node, best.incarnation, true
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

// Took notes that a node holds a whole file of length bytes, which it has just told by
// another way than its next heartbeat: who was told that the file is there can read it
// at once. It counts only for the run of the node that is heard; a full report that is
// on its way will say it too.
func (n *Nodes) Took(id freshet.NodeID, incarnation uint64, file freshet.FileID, length, blockSize int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.byID[id]
	if at == nil || at.incarnation != incarnation || !at.full || blockSize <= 0 {
		return
	}
	for off := int64(0); off < length; off += blockSize {
		b := freshet.BlockReport{ID: freshet.BlockID{File: file, Index: uint32(off / blockSize)}, Length: min(blockSize, length-off)} //nolint:gosec // blocks are numbered by 32 bits
		if n.index.add(b, at.slot) {
			at.blocks++
		}
		n.mark(keyOf(b.ID))
	}
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
