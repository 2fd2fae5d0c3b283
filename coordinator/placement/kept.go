package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// memoryTier is what nodes call their tiers in memory.
const memoryTier = "memory"

// Keep is a file that is to stay on nodes, for which one is looked for.
type Keep struct {
	Preferred freshet.NodeID   // if it can
	Caller    freshet.Locality // where the bytes come from
	Key       uint64           // spreads files over equal nodes
	Length    int64            // of the file, negative if it is not known
	Durable   bool             // on a disk
	// Fixed, if not nil, is taken for what nodes keep: what stays, however long one waits.
	Fixed map[freshet.NodeID]int64
}

func (k *Keep) may(at *node) bool { return at.keeps && (at.durable || !k.Durable) }

// Keeper is Writer for what stays on nodes: among those that keep such blocks, can hold
// the file beside what they keep already and, if it is to be durable, have a disk. If not,
// one that has a disk is preferred to one that is as near and has memory alone, for that
// loses what it keeps when its process ends. If the length is not known, one of those that
// are as near and have most space.
func (n *Nodes) Keeper(k Keep, now time.Duration) (freshet.Node, uint64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	can := func(at *node) bool { return k.may(at) && n.space(at, k.Fixed) >= max(k.Length, 1) }
	if k.Length == 0 {
		can = k.may
	}
	if at := n.byID[k.Preferred]; at != nil && n.live(at, now) && !at.drains() && can(at) {
		return at.Node, at.incarnation, true
	}
	able := slices.DeleteFunc(n.staying(now), func(at *node) bool { return !can(at) })
	from, hash := n.near(k.Caller), mix(k.Key)
	best := n.writer(able, hash, from)
	if best == nil {
		return freshet.Node{}, 0, false
	}
	distance := from.distance(best)
	able = slices.DeleteFunc(able, func(at *node) bool { return from.distance(at) != distance })
	if slices.ContainsFunc(able, func(at *node) bool { return at.durable }) {
		able = slices.DeleteFunc(able, func(at *node) bool { return !at.durable })
	}
	if k.Length < 0 {
		most := int64(0)
		for _, at := range able {
			most = max(most, n.space(at, k.Fixed))
		}
		able = slices.DeleteFunc(able, func(at *node) bool { return n.space(at, k.Fixed) < most/2 })
	}
	best = n.writer(able, hash, from)
	return best.Node, best.incarnation, true
}

// Room is the space of a node for files that stay on nodes.
type Room struct {
	Node           freshet.Node
	Capacity, Free int64 // bytes; Free is beyond what it keeps
}

// Rooms returns the nodes that live and take such a file, if they have the space, and
// whether another one is known that would: it is silent, or is being drained.
func (n *Nodes) Rooms(k Keep, now time.Duration) (rooms []Room, others bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, at := range n.slots {
		switch {
		case at == nil || !k.may(at):
		case !n.live(at, now) || at.drains():
			others = true
		default:
			rooms = append(rooms, Room{at.Node, at.keepable(), max(n.space(at, k.Fixed), 0)})
		}
	}
	return rooms, others
}

// SetKept says how many bytes of files that are in no storage nodes keep.
func (n *Nodes) SetKept(bytes map[freshet.NodeID]int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept = bytes
}

// Promise counts bytes that a node is about to keep, until the next SetKept.
func (n *Nodes) Promise(id freshet.NodeID, bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kept == nil {
		n.kept = map[freshet.NodeID]int64{}
	}
	n.kept[id] += bytes
}

// space is how many bytes the node can keep beyond those that it does, or those that it
// keeps for sure.
func (n *Nodes) space(at *node, fixed map[freshet.NodeID]int64) int64 {
	if fixed == nil {
		fixed = n.kept
	}
	return at.keepable() - fixed[at.ID]
}

// keepable is how many bytes of such files the node can have: on its disks if it has any.
func (at *node) keepable() int64 {
	if len(at.dirs) == 0 {
		return at.capacity
	}
	var sum int64
	for _, d := range at.dirs {
		switch {
		case at.durable && d.Tier == memoryTier:
		case d.State == "full": // takes no more
			sum += d.Used
		case d.State != "failed":
			sum += d.Capacity
		}
	}
	return sum
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
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.whole(file, length, among, func(at *node) bool { return at.keeps && n.live(at, now) })
}

// LastWhole is Whole by what each node told last, whether it lives or not.
func (n *Nodes) LastWhole(file freshet.FileID, length int64, among []freshet.NodeID) map[freshet.NodeID]uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.whole(file, length, among, func(at *node) bool { return at.keeps })
}

// whole returns those of the nodes that count and hold all bytes of the version. The
// caller holds mu.
func (n *Nodes) whole(file freshet.FileID, length int64, among []freshet.NodeID, counts func(*node) bool) map[freshet.NodeID]uint64 {
	bytes := make(map[*node]int64, len(among))
	for _, id := range among {
		if at := n.byID[id]; at != nil && counts(at) {
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

// InMemory reports whether all of the nodes are known to keep blocks in memory alone.
func (n *Nodes) InMemory(ids []freshet.NodeID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return !slices.ContainsFunc(ids, func(id freshet.NodeID) bool { at := n.byID[id]; return at == nil || at.durable })
}

// Ended reports whether none of the nodes will be heard with more blocks than it has told
// of: it lives, or came back as another.
func (n *Nodes) Ended(ids []freshet.NodeID, now time.Duration) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return !slices.ContainsFunc(ids, func(id freshet.NodeID) bool {
		if at := n.byID[id]; at != nil {
			return !at.told() || !n.live(at, now)
		}
		_, replaced := n.replaced[id]
		return !replaced
	})
}

// maxReplaced bounds the nodes that came back as others which are remembered.
const maxReplaced = 4096

func (n *Nodes) noteReplaced(at freshet.Node) {
	if n.replaced == nil || len(n.replaced) >= maxReplaced {
		n.replaced = map[freshet.NodeID]string{}
	}
	n.replaced[at.ID] = at.Name
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
		if n.live(at, now) && !at.told() {
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
		name := n.replaced[id]
		if at := n.byID[id]; at != nil {
			name = at.Name
		}
		names = append(names, cmp.Or(name, string(id)))
	}
	return names
}
