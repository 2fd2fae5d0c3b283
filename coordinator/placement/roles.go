package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// Role is what an operator decided about a node, which is known by its ID or, since one
// that keeps nothing over a restart comes back with another, by its name and address.
type Role struct {
	ID         freshet.NodeID
	Name, GRPC string
	Role       freshet.NodeRole
}

func (r *Role) is(n freshet.Node) bool {
	return r.ID == n.ID || (r.GRPC != "" && r.GRPC == n.GRPC && r.Name == n.Name)
}

// SetRoles says which nodes have a role. A node that drains takes nothing new, and what
// only it holds does not count as a copy; one that was decommissioned is forgotten.
func (n *Nodes) SetRoles(roles []Role) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.roles = slices.Clone(roles)
	for id, at := range n.byID {
		at.role = n.roleOf(at.Node).Role
		if at.role == freshet.RoleDecommissioned {
			n.forget(id, at)
		}
	}
	n.copies.asked = n.copies.on
}

func (n *Nodes) roleOf(of freshet.Node) Role {
	for i := range n.roles {
		if n.roles[i].is(of) {
			return n.roles[i]
		}
	}
	return Role{}
}

// Draining reports whether a node that lives is to be emptied, and whether the one of
// the ID is.
func (n *Nodes) Draining(id freshet.NodeID, now time.Duration) (some, this bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	at := n.byID[id]
	return n.draining(now), at != nil && at.drains()
}

func (n *Nodes) draining(now time.Duration) bool {
	return slices.ContainsFunc(n.alive(now), (*node).drains)
}

func (at *node) drains() bool { return at.role == freshet.RoleDraining }

// staying returns the live nodes that take what is new, in the order of their slots.
func (n *Nodes) staying(now time.Duration) []*node {
	return slices.DeleteFunc(n.alive(now), (*node).drains)
}

// Staying returns how many nodes live that are not to be emptied, but for the one of
// the ID.
func (n *Nodes) Staying(but freshet.NodeID, now time.Duration) int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(slices.DeleteFunc(n.staying(now), func(at *node) bool { return at.ID == but }))
}

// Share is what a node holds of the blocks of one version that so many other nodes hold
// which live and stay.
type Share struct {
	File          freshet.FileID
	Others        int
	Blocks, Bytes int64
}

// Holdings returns what a node holds that less than limit others do, in the order of the
// versions. It walks the whole index.
func (n *Nodes) Holdings(id freshet.NodeID, limit int, now time.Duration) []Share {
	n.mu.RLock()
	defer n.mu.RUnlock()
	at := n.byID[id]
	if at == nil {
		return nil
	}
	type key struct {
		file   freshet.FileID
		others int
	}
	sums := map[key]Share{}
	for k, page := range n.index.pages {
		for from := 0; from < len(page); {
			to, others, mine := from, 0, int64(-1)
			for ; to < len(page) && page[to].index == page[from].index; to++ {
				switch o := n.slots[page[to].slot]; {
				case o == at:
					mine = int64(page[to].length)
				case o != nil && n.live(o, now) && !o.drains() && !o.frees(freshet.BlockID{File: k.file, Index: page[to].index}):
					others++
				}
			}
			if mine >= 0 && others < limit && !at.frees(freshet.BlockID{File: k.file, Index: page[from].index}) {
				s := sums[key{k.file, others}]
				sums[key{k.file, others}] = Share{k.file, others, s.Blocks + 1, s.Bytes + mine}
			}
			from = to
		}
	}
	all := make([]Share, 0, len(sums))
	for _, s := range sums {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Others, b.Others))
	})
	return all
}

// frees reports whether the node was told to free the block.
func (at *node) frees(id freshet.BlockID) bool {
	_, goes := at.free[id]
	return goes
}

// Uploads returns how many uploads the node runs, as it told last.
func (n *Nodes) Uploads(id freshet.NodeID) int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if at := n.byID[id]; at != nil {
		return len(at.active)
	}
	return 0
}
