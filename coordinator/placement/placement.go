// Package placement owns what the leader knows of the cache nodes: who they are,
// who lives, which blocks they hold, and which node should fetch a block or take
// an upload. It is soft state, rebuilt from heartbeats by each leader. It is pure:
// time comes as a value, and it never calls, waits, logs or counts.
package placement

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

// DefaultDeadAfter is how long a node may be silent before it counts as dead, and
// DefaultForgetAfter how long before it is forgotten.
const (
	DefaultDeadAfter   = 5 * time.Second
	DefaultForgetAfter = time.Hour
)

// Options are the settings of Nodes; the zero value is usable.
type Options struct {
	// DeadAfter is the silence after which a node is dead; 0 is DefaultDeadAfter.
	DeadAfter time.Duration
	// ForgetAfter is the silence after which a node is no longer listed; 0 is
	// DefaultForgetAfter.
	ForgetAfter time.Duration
	// Policy is one of Policies; "" is the first.
	Policy string
	// Heat are the settings of copies for blocks that are read much.
	Heat HeatOptions
}

// Nodes is the registry of cache nodes and the index of their blocks. Times are
// readings of the leader's own clock since an arbitrary point. All methods are
// safe for concurrent use; none blocks for longer than its work takes.
type Nodes struct {
	opts Options

	mu    sync.RWMutex
	start time.Duration // since when this leader listens
	byID  map[freshet.NodeID]*node
	slots []*node // by slot; nil: free
	index index
	harm  damages
	roles []Role
	kept  map[freshet.NodeID]int64 // bytes, see SetKept
	// replaced are the names of nodes that came back as others, some of them.
	replaced map[freshet.NodeID]string

	policy string
	heat   heat
	copies copies
}

// slot is the number of a node in the index.
type slot = uint16

// node is one cache node.
type node struct {
	freshet.Node
	rack, zone  string
	incarnation uint64
	slot        slot
	full        bool          // a full report of this incarnation was taken
	partial     bool          // one is being taken, part by part
	began       time.Duration // since when, or since when it is tried
	used        int64
	capacity    int64
	tier        string
	heard       time.Duration
	hash        uint64
	blocks      int64
	active      map[freshet.OpID]struct{}
	beats       uint64 // heartbeats of this incarnation
	role        freshet.NodeRole
	dirs        []freshet.CacheDirectory
	free        map[freshet.BlockID]struct{}
	keeps       bool // blocks of files that are in no storage
	durable     bool // on a disk
	carrier
	warms bool // it brings blocks that it is ordered to
}

// New returns an empty registry.
func New(opts Options) *Nodes {
	if opts.DeadAfter <= 0 {
		opts.DeadAfter = DefaultDeadAfter
	}
	if opts.ForgetAfter <= 0 {
		opts.ForgetAfter = DefaultForgetAfter
	}
	n := &Nodes{opts: opts, policy: opts.Policy, heat: heat{opts: opts.Heat}}
	n.Reset(0)
	return n
}

// DeadAfter returns the silence after which a node is dead.
func (n *Nodes) DeadAfter() time.Duration { return n.opts.DeadAfter }

// Reset forgets everything but the roles of nodes and the settings: a new leader began
// to listen at now.
func (n *Nodes) Reset(now time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.start, n.byID, n.slots, n.index = now, map[freshet.NodeID]*node{}, nil, newIndex()
	n.harm = damages{}
	n.heat.blocks, n.kept = nil, nil
	n.resetCopies(n.copies.on)
}

// Report is what a heartbeat changed.
type Report struct {
	New       bool // the node was not known to this leader
	Restarted bool // it has another incarnation than before
	// NeedFull: the blocks were not taken, a full report is needed.
	NeedFull bool
}

// Heartbeat takes the word of a node, heard at now. sameTerm says that the node's
// deltas are relative to what it told this very leader; a full report always
// counts. KindConflict if a later incarnation of the node has been heard, and
// KindExhausted if there are more nodes than can be numbered.
func (n *Nodes) Heartbeat(h freshet.Heartbeat, sameTerm bool, now time.Duration) (Report, error) {
	const op = "heartbeat"
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.Node.ID == "" {
		return Report{}, freshet.Errorf(freshet.KindInvalid, op, "", "the heartbeat names no node")
	}
	var r Report
	role := n.roleOf(h.Node)
	if role.Role == freshet.RoleDecommissioned {
		return r, freshet.Errorf(freshet.KindPermission, op, "", "node %s was decommissioned: stop it, or let it serve again with 'freshet cluster drain %s --undo'", h.Node.Name, h.Node.Name)
	}
	at := n.byID[h.Node.ID]
	switch {
	case at == nil:
		s, ok := n.freeSlot()
		if !ok {
			return r, freshet.Errorf(freshet.KindExhausted, op, "", "more cache nodes than %d", len(n.slots))
		}
		n.prune(h.Node, now)
		at = &node{slot: s, hash: hashText(string(h.Node.ID)), incarnation: h.Incarnation, carrier: carrier{since: now}}
		n.slots[s], n.byID[h.Node.ID] = at, at
		r.New = true
	case h.Incarnation < at.incarnation:
		return r, freshet.Errorf(freshet.KindConflict, op, "", "a later run of node %s (incarnation %d) has registered: two processes share one data directory or one identity", h.Node.ID, at.incarnation)
	case h.Incarnation > at.incarnation:
		n.forgetBlocks(at)
		at.incarnation, at.full, at.partial, at.beats = h.Incarnation, false, false, 0
		at.carrier = carrier{since: now}
		r.Restarted = true
	}
	if !n.live(at, now) && !r.New { // it did not carry out what it could not hear
		at.orders, at.bytes = nil, 0
	}
	n.warm(at, h.Hot, now)
	at.Node, at.rack, at.zone = h.Node, h.Rack, h.Zone
	at.used, at.capacity, at.tier, at.heard = h.Used, h.Capacity, h.Tier, now
	if !h.Continued { // it is of the same moment as the part before it
		at.beats++
	}
	at.takes, at.warms, at.role, at.dirs = h.TakesCopies, h.TakesWarms, role.Role, h.Directories
	at.keeps, at.durable = h.Keeps, h.Durable
	n.harm.note(h.Damaged, at.Name, now)
	at.active = make(map[freshet.OpID]struct{}, len(h.Active))
	for _, op := range h.Active {
		at.active[op] = struct{}{}
	}
	switch {
	case h.Full:
		n.forgetBlocks(at)
		if !at.partial {
			at.partial, at.began = true, now
		}
	case h.Continued && at.partial && sameTerm:
	case !at.full || !sameTerm || at.partial:
		at.full, at.partial = false, false
		r.NeedFull = true
		return r, nil
	}
	n.take(at, h)
	if at.partial && !h.More {
		at.full, at.partial = true, false
		n.copies.asked = n.copies.on
	}
	return r, nil
}

func (n *Nodes) take(at *node, h freshet.Heartbeat) {
	for _, b := range h.Removed {
		if n.index.remove(b, at.slot) {
			at.blocks--
			n.mark(keyOf(b))
		}
		delete(at.free, b)
	}
	for _, b := range h.Added {
		if n.index.add(b, at.slot) {
			at.blocks++
		}
		if !at.partial { // after a full report all is looked at
			n.mark(keyOf(b.ID))
		}
		at.withdraw(b.ID)
		delete(at.free, b.ID) // it came anew
	}
}

// told reports whether all that the node holds is known.
func (at *node) told() bool { return at.full && !at.partial }

func (n *Nodes) forgetBlocks(at *node) {
	if at.blocks > 0 {
		n.index.dropSlot(at.slot)
	}
	at.blocks, at.free = 0, nil
}

func (n *Nodes) freeSlot() (slot, bool) {
	for i, at := range n.slots {
		if at == nil {
			return slot(i), true
		}
	}
	if len(n.slots) > int(^slot(0)) {
		return 0, false
	}
	n.slots = append(n.slots, nil)
	return slot(len(n.slots) - 1), true
}

// prune forgets nodes that will not be heard again when another registers: those
// silent for very long, and those whose name and address the new one has. A node
// that keeps nothing over a restart comes back as another one.
func (n *Nodes) prune(by freshet.Node, now time.Duration) {
	for id, at := range n.byID {
		replaced := at.Name == by.Name && at.GRPC == by.GRPC && by.GRPC != ""
		if replaced {
			n.noteReplaced(at.Node)
		}
		if replaced || now-at.heard > n.opts.ForgetAfter {
			n.forget(id, at)
		}
	}
}

func (n *Nodes) forget(id freshet.NodeID, at *node) {
	n.forgetBlocks(at)
	delete(n.byID, id)
	n.slots[at.slot] = nil
}

func (n *Nodes) live(at *node, now time.Duration) bool { return now-at.heard < n.opts.DeadAfter }

// Presence is what is known of one run of a node.
type Presence struct {
	Known       bool
	Live        bool
	Incarnation uint64
	Silence     time.Duration // since its last heartbeat, or since this leader listens
	// Beats counts the heartbeats of this incarnation that this leader heard.
	Beats uint64
}

// Presence returns what is known of the node at now.
func (n *Nodes) Presence(id freshet.NodeID, now time.Duration) Presence {
	n.mu.RLock()
	defer n.mu.RUnlock()
	at := n.byID[id]
	if at == nil {
		return Presence{Silence: now - n.start}
	}
	return Presence{Known: true, Live: n.live(at, now), Incarnation: at.incarnation, Silence: now - at.heard, Beats: at.beats}
}

// Active reports whether the node's last heartbeat named the upload as running.
func (n *Nodes) Active(id freshet.NodeID, op freshet.OpID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	at := n.byID[id]
	if at == nil {
		return false
	}
	_, ok := at.active[op]
	return ok
}

// Node returns the node as clients need to know it.
func (n *Nodes) Node(id freshet.NodeID) (freshet.Node, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if at := n.byID[id]; at != nil {
		return at.Node, true
	}
	return freshet.Node{}, false
}

// List returns all nodes, the dead ones too, in the order of their names.
func (n *Nodes) List(now time.Duration) []freshet.NodeStatus {
	n.mu.RLock()
	defer n.mu.RUnlock()
	all := make([]freshet.NodeStatus, 0, len(n.byID))
	for _, at := range n.byID {
		all = append(all, freshet.NodeStatus{
			Node: at.Node, Rack: at.rack, Zone: at.zone, Live: n.live(at, now), Used: at.used,
			Capacity: at.capacity, Blocks: at.blocks, Tier: at.tier, SinceHeartbeat: now - at.heard,
			Role: at.role, Directories: at.dirs,
		})
	}
	for _, r := range n.roles {
		if r.Role == freshet.RoleDecommissioned {
			all = append(all, freshet.NodeStatus{Node: freshet.Node{ID: r.ID, Name: r.Name, GRPC: r.GRPC}, Role: r.Role})
		}
	}
	slices.SortFunc(all, func(a, b freshet.NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Node.Name, b.Node.Name), cmp.Compare(a.Node.ID, b.Node.ID))
	})
	return all
}

// Totals are sums over the nodes that live.
type Totals struct {
	Live, Dead     int64
	Used, Capacity int64 // bytes
	Blocks         int64 // copies on live nodes
	Draining       int64 // of those that live
}

// Totals returns the sums at now.
func (n *Nodes) Totals(now time.Duration) Totals {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var t Totals
	for _, at := range n.byID {
		if !n.live(at, now) {
			t.Dead++
			continue
		}
		t.Live++
		if at.drains() {
			t.Draining++
		}
		t.Used += at.used
		t.Capacity += at.capacity
		t.Blocks += at.blocks
	}
	return t
}
