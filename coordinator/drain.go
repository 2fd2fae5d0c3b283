package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
)

// Cache nodes that leave: which ones is in the state, so that a new leader goes on; how
// far they are is looked up when somebody asks.

// roles knows whether the registry of nodes has heard of the roles in the state.
type roles struct {
	changes atomic.Uint64 // of the roles
	heard   atomic.Uint64 // changes of which the registry has heard, and one
	mu      sync.Mutex    // while it is told, so that it hears of the last change last
}

// changed notes that roles changed; it may be called with the state locked.
func (r *roles) changed() { r.changes.Add(1) }

// current reports whether the registry has heard of all changes.
func (r *roles) current() bool { return r.heard.Load() == r.changes.Load()+1 }

// applyRoles tells the registry of nodes what the state says of them.
func (c *Coordinator) applyRoles() {
	if c.roles.current() {
		return
	}
	c.roles.mu.Lock()
	defer c.roles.mu.Unlock()
	if c.roles.current() {
		return
	}
	changes := c.roles.changes.Load()
	defer c.roles.heard.Store(changes + 1) // once SetRoles has returned
	rows := c.state.NodeRoles()
	list := make([]placement.Role, 0, len(rows))
	for _, r := range rows {
		list = append(list, placement.Role{ID: r.ID, Name: r.Name, GRPC: r.GRPC, Role: r.Role})
	}
	c.nodes.SetRoles(list)
}

// fleetNode is a cache node by what is known of it: by the leader, the state, or both.
type fleetNode struct {
	status freshet.NodeStatus
	known  bool // to the leader
	row    namespace.NodeRole
}

// fleetNode finds a node by its ID or name.
func (c *Coordinator) fleetNode(op, name string) (fleetNode, error) {
	c.applyRoles()
	var found []fleetNode
	rows := c.state.NodeRoles()
	for _, s := range c.nodes.List(c.clock.Elapsed()) {
		if (string(s.Node.ID) == name || s.Node.Name == name) && s.Role != freshet.RoleDecommissioned {
			n := fleetNode{status: s, known: true}
			for _, r := range rows {
				if r.ID == s.Node.ID || (s.Role != freshet.RoleServing && r.Name == s.Node.Name && r.GRPC == s.Node.GRPC) {
					n.row = r
				}
			}
			found = append(found, n)
		}
	}
	for _, r := range rows {
		if (string(r.ID) == name || r.Name == name) && !slices.ContainsFunc(found, func(n fleetNode) bool { return n.row.ID == r.ID }) {
			found = append(found, fleetNode{row: r, status: freshet.NodeStatus{Node: freshet.Node{ID: r.ID, Name: r.Name, GRPC: r.GRPC}, Role: r.Role}})
		}
	}
	// Of nodes with one name that which lives is meant, unless several do.
	if live := slices.DeleteFunc(slices.Clone(found), func(n fleetNode) bool { return !n.status.Live }); len(found) > 1 && len(live) == 1 {
		found = live
	}
	switch len(found) {
	case 0:
		if err := c.nodesHeard(op); err != nil {
			return fleetNode{}, err
		}
		return fleetNode{}, freshet.Errorf(freshet.KindNotExist, op, "", "no cache node has the ID or name %q; see 'freshet cluster nodes'", name)
	case 1:
		return found[0], nil
	}
	return fleetNode{}, freshet.Errorf(freshet.KindConflict, op, "", "%d cache nodes have the name %q: give the ID of one, as in 'freshet cluster nodes --output json'", len(found), name)
}

// nodesHeard is KindUnavailable while this leader may not have heard from every node yet.
func (c *Coordinator) nodesHeard(op string) error {
	if c.nodes.AllHeard(c.clock.Elapsed()) {
		return nil
	}
	return freshet.Errorf(freshet.KindUnavailable, op, "", "this leader has just begun and may not have heard from all cache nodes: try again in some seconds")
}

// DrainNode has a cache node emptied, or ends that.
func (c *Coordinator) DrainNode(ctx context.Context, q freshet.DrainChange) (freshet.NodeDrain, error) {
	const op = "drain node"
	if err := c.barrier(ctx); err != nil {
		return freshet.NodeDrain{}, err
	}
	n, err := c.fleetNode(op, q.Node)
	if err != nil {
		return freshet.NodeDrain{}, err
	}
	role := freshet.RoleDraining
	switch {
	case q.Undo:
		role = freshet.RoleServing
	case n.status.Role == freshet.RoleDecommissioned:
		return freshet.NodeDrain{}, freshet.Errorf(freshet.KindConflict, op, "", "%s was decommissioned; --undo lets it serve again", n.status.Node.Name)
	case c.nodes.Staying(n.status.Node.ID, c.clock.Elapsed()) == 0:
		if err := c.nodesHeard(op); err != nil {
			return freshet.NodeDrain{}, err
		}
		return freshet.NodeDrain{}, freshet.Errorf(freshet.KindConflict, op, "", "no other cache node lives that could take over from %s: start one first", n.status.Node.Name)
	}
	return c.setRole(ctx, &n, role, q.DryRun)
}

// DecommissionNode forgets a cache node that was drained, and has it refused.
func (c *Coordinator) DecommissionNode(ctx context.Context, q freshet.Decommission) (freshet.NodeDrain, error) {
	const op = "decommission node"
	if err := c.barrier(ctx); err != nil {
		return freshet.NodeDrain{}, err
	}
	n, err := c.fleetNode(op, q.Node)
	if err != nil {
		return freshet.NodeDrain{}, err
	}
	if !q.Force && n.status.Role == freshet.RoleDraining {
		if err := c.nodesHeard(op); err != nil { // what it holds is not known yet
			return freshet.NodeDrain{}, err
		}
	}
	d, kept := c.drainOf(&n), c.keptOn(n.status.Node.ID)
	if state := d.State(); !q.Force && state != "drained" && state != "decommissioned" {
		loses := "what only it holds in the cache"
		if kept > 0 {
			loses += fmt.Sprintf(", and %d files that are kept there and are not in the storage", kept)
		}
		if !d.Live && kept == 0 {
			return d, freshet.Errorf(freshet.KindConflict, op, "", "%s is %s and does not answer, so nobody knows what only it holds in the cache: start it again, or --force to lose that", d.Name, state)
		}
		return d, freshet.Errorf(freshet.KindConflict, op, "", "%s is %s, not drained: drain it first with 'freshet cluster drain %s --wait', or --force to lose %s", d.Name, state, d.Name, loses)
	}
	d, err = c.setRole(ctx, &n, freshet.RoleDecommissioned, q.DryRun)
	if err == nil && kept > 0 {
		d.WaitsFor = []string{fmt.Sprintf("%d files that are kept there are not in the storage: 'freshet cluster drain %s --undo' brings them back while its disks are there", kept, d.Name)}
		if !q.DryRun {
			c.log.Warn("a cache node was decommissioned that keeps files which are not in the storage", "node", d.Name, "node_id", string(d.ID), "files", kept)
		}
	}
	return d, err
}

func (c *Coordinator) setRole(ctx context.Context, n *fleetNode, role freshet.NodeRole, dryRun bool) (freshet.NodeDrain, error) {
	if n.status.Role == role {
		return c.drainOf(n), nil
	}
	row := namespace.NodeRole{ID: n.status.Node.ID, Name: n.status.Node.Name, GRPC: n.status.Node.GRPC, Role: role, At: c.clock.Now().UTC()}
	var cmds []namespace.Command
	if n.row.ID != "" && n.row.ID != row.ID { // it was decided of an earlier run
		cmds = append(cmds, namespace.Command{SetNodeRole: &namespace.NodeRole{ID: n.row.ID}})
	}
	cmds = append(cmds, namespace.Command{SetNodeRole: &row})
	if dryRun {
		if err := c.gate(cmds); err != nil {
			return freshet.NodeDrain{}, err
		}
	} else if _, err := c.propose(ctx, cmds...); err != nil {
		return freshet.NodeDrain{}, err
	} else {
		c.roles.changed()
		c.applyRoles()
		c.bounds.wake.raise()
		c.log.Info("the role of a cache node was changed", "node", row.Name, "node_id", string(row.ID), "role", string(role))
	}
	n.status.Role, n.row = role, row
	return c.drainOf(n), nil
}

// Drain says how far a cache node is on its way out.
func (c *Coordinator) Drain(ctx context.Context, node string) (freshet.NodeDrain, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.NodeDrain{}, err
	}
	n, err := c.fleetNode("show drain", node)
	if err != nil {
		return freshet.NodeDrain{}, err
	}
	return c.drainOf(&n), nil
}

// leaving is one reason why a draining node has to stay: how many there are of what.
type leaving struct {
	n    int64
	what string
}

// drainOf says how far a node is. What else must leave a node before it may go has its
// row in holds.
func (c *Coordinator) drainOf(n *fleetNode) freshet.NodeDrain {
	s := &n.status
	heard := c.nodes.AllHeard(c.clock.Elapsed()) // before it is looked at, and after
	d := freshet.NodeDrain{ID: s.Node.ID, Name: s.Node.Name, Role: s.Role, Live: s.Live, Blocks: s.Blocks, Used: s.Used}
	if s.Role != freshet.RoleServing {
		d.Since = n.row.At
	}
	if s.Role == freshet.RoleDecommissioned {
		return d
	}
	if s.Live {
		d.LeftBlocks, d.LeftBytes = c.onlyThere(s.Node.ID)
	}
	d.Uploads = int64(c.nodes.Uploads(s.Node.ID))
	if s.Role != freshet.RoleDraining {
		return d
	}
	holds := []leaving{
		{d.LeftBlocks, "blocks that policies want to be kept have no copy elsewhere yet"},
		{d.Uploads, "uploads run"},
		{c.keptOn(s.Node.ID), "of the files kept there are neither in the storage nor on enough other nodes: they are copied to such as have a disk and room, or persist them with 'freshet persist'"},
	}
	for _, h := range holds {
		if h.n > 0 {
			d.WaitsFor = append(d.WaitsFor, fmt.Sprintf("%d %s", h.n, h.what))
		}
	}
	switch {
	case !heard || !c.nodes.AllHeard(c.clock.Elapsed()):
		d.WaitsFor = append(d.WaitsFor, "the leader has just begun, or a node: it does not know yet what all nodes hold")
	case !s.Live:
		d.WaitsFor = append(d.WaitsFor, fmt.Sprintf("the node does not answer, so nobody knows what only it holds: bring it back, or let it go with 'freshet cluster decommission %s --force'", d.Name))
	}
	return d
}

// silentNodes names the cache nodes that do not answer, some of them if they are many.
func (c *Coordinator) silentNodes() string {
	const most = 5
	var names []string
	for _, n := range c.nodes.List(c.clock.Elapsed()) {
		if !n.Live && n.Role != freshet.RoleDecommissioned {
			names = append(names, cmp.Or(n.Node.Name, string(n.Node.ID)))
		}
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

// keptOn counts the files that are in no storage, and that too few nodes keep besides
// this one which stay.
func (c *Coordinator) keptOn(id freshet.NodeID) int64 {
	all, err := c.ops.Kept()
	if err != nil {
		return 1 // nobody knows: it stays
	}
	n := int64(0)
	for i := range all {
		f := &all[i]
		if slices.Contains(f.Nodes, id) && !c.ops.KeptWithout(f, id) {
			n++
		}
	}
	return n
}

// onlyThere counts the blocks of a node that policies want to be kept, pinned or by
// replication_min, and that too few other nodes hold which stay.
func (c *Coordinator) onlyThere(id freshet.NodeID) (blocks, bytes int64) {
	now := c.clock.Elapsed()
	possible := max(c.nodes.Staying(id, now), 1)
	var v version
	for i, s := range c.nodes.Holdings(id, min(possible, freshet.MaxCopies), now) {
		if i == 0 || s.File != v.file {
			v = c.copyOf(s.File, true)
		}
		if v.may && s.Others < min(v.copies.Min, possible) {
			blocks += s.Blocks
			bytes += s.Bytes
		}
	}
	return blocks, bytes
}
