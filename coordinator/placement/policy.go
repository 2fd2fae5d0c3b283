package placement

import (
	"time"

	"github.com/freshet-io/freshet"
)

// The placement policies: which node fetches a block that nobody holds, and which takes
// an upload. A block that is held is read from the nearest node, whatever the policy.
const (
	// PolicyRendezvous has a block fetched by the winner of rendezvous hashing, the same
	// for all who ask, weighted by capacity; an upload goes to the nearest node.
	PolicyRendezvous = "rendezvous"
	// PolicyLocal has both done by the node nearest to who asks: on its host, in its
	// rack, in its zone; among equals by rendezvous hashing.
	PolicyLocal = "local_first"
	// PolicyAvailable weights rendezvous hashing by free space and by the uploads that
	// a node runs, and looks at no distance.
	PolicyAvailable = "most_available"
)

// Policies returns the names of the placement policies, the default first.
func Policies() []string { return []string{PolicyRendezvous, PolicyLocal, PolicyAvailable} }

// SetPolicy makes another policy apply to what is asked from now on.
func (n *Nodes) SetPolicy(policy string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.policy = policy
}

// fetcher returns the node that should fetch a block.
func (n *Nodes) fetcher(nodes []*node, hash uint64, from near) *node {
	switch n.policy {
	case PolicyLocal:
		return best(nodes, func(a, b *node) bool { return closer(from, a, b, hash) })
	case PolicyAvailable:
		return best(nodes, func(a, b *node) bool { return aheadBy(a, b, hash, (*node).available) })
	}
	return rank(nodes, hash)
}

// writer returns the node that should take an upload.
func (n *Nodes) writer(nodes []*node, hash uint64, from near) *node {
	if n.policy == PolicyAvailable {
		return n.fetcher(nodes, hash, from)
	}
	return best(nodes, func(a, b *node) bool { return closer(from, a, b, hash) })
}

// best returns the node that is better than all others.
func best(nodes []*node, better func(a, b *node) bool) (found *node) {
	for _, at := range nodes {
		if found == nil || better(at, found) {
			found = at
		}
	}
	return found
}

// available is the weight of a node by its free space, a hundredth of its capacity at
// least since full caches make space, shared by the uploads that it runs.
func (at *node) available() float64 {
	free := max(at.capacity-at.used, at.capacity/100, 1)
	return float64(free) / float64(1+len(at.active))
}

// sized is the weight of a node by its capacity.
func (at *node) sized() float64 { return float64(max(at.capacity, 1)) }

// Writer returns the node that should take an upload, and its incarnation: the
// preferred one if it lives and is not to be emptied, else the choice of the policy,
// where key spreads uploads over equal nodes.
func (n *Nodes) Writer(preferred freshet.NodeID, at freshet.Locality, key uint64, now time.Duration) (freshet.Node, uint64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if p := n.byID[preferred]; p != nil && n.live(p, now) && !p.drains() {
		return p.Node, p.incarnation, true
	}
	w := n.writer(n.staying(now), mix(key), n.near(at))
	if w == nil {
		return freshet.Node{}, 0, false
	}
	return w.Node, w.incarnation, true
}
