package namespace

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// keptNodeRoles bounds the nodes with a role. Of more, those that were decommissioned
// first are forgotten.
const keptNodeRoles = 1024

// NodeRole is what was decided about a cache node: that it is to be emptied, or is
// refused. As a command it replaces what was decided before; with the role of all nodes
// nothing is kept. A node that keeps no identity over a restart is known again by its
// name and address. KindExhausted: too many nodes are draining.
type NodeRole struct {
	ID   freshet.NodeID   `codec:"id"`
	Name string           `codec:"n"`
	GRPC string           `codec:"g"`
	Role freshet.NodeRole `codec:"r"`
	At   time.Time        `codec:"t"`
}

// NodeRoles returns the cache nodes that have a role, in the order of their IDs.
func (s *State) NodeRoles() []NodeRole {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.nodes), func(a, b NodeRole) int { return cmp.Compare(a.ID, b.ID) })
}

func (t *txn) setNodeRole(c *NodeRole) Result {
	const op = "set role of node"
	if c.ID == "" {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "the node has no ID")}
	}
	switch c.Role {
	case freshet.RoleServing:
		t.dropNodeRole(c.ID)
		return Result{}
	case freshet.RoleDraining, freshet.RoleDecommissioned:
	default:
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a role", string(c.Role))}
	}
	if _, known := t.nodes[c.ID]; !known && len(t.nodes) >= keptNodeRoles && !t.forgetNodeRole() {
		return Result{Err: freshet.Errorf(freshet.KindExhausted, op, "", "%d nodes are draining", len(t.nodes))}
	}
	r := *c
	r.At = r.At.UTC()
	t.nodes[r.ID] = r
	t.setRow(t.keys.text(tableNode, string(r.ID)), &r)
	t.changes.Nodes = true
	return Result{}
}

// forgetNodeRole forgets the node that was decommissioned first; false if there is
// none.
func (t *txn) forgetNodeRole() bool {
	var oldest *NodeRole
	for _, id := range slices.Sorted(maps.Keys(t.nodes)) {
		r := t.nodes[id]
		if r.Role == freshet.RoleDecommissioned && (oldest == nil || r.At.Before(oldest.At)) {
			oldest = &r
		}
	}
	if oldest == nil {
		return false
	}
	t.dropNodeRole(oldest.ID)
	return true
}

func (t *txn) dropNodeRole(id freshet.NodeID) {
	if _, known := t.nodes[id]; !known {
		return
	}
	delete(t.nodes, id)
	t.del(t.keys.text(tableNode, string(id)))
	t.changes.Nodes = true
}

func (x *index) readNodeRole(_, value []byte) error {
	var r NodeRole
	if err := decode(value, &r); err != nil {
		return err
	}
	x.nodes[r.ID] = r
	return nil
}
