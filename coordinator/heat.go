package coordinator

import (
	"github.com/freshet-io/freshet/coordinator/placement"
)

// heatSome has blocks that are read much copied to more nodes, as far as their policies
// allow it, and lets copies go that were made so.
func (c *Coordinator) heatSome() {
	now := c.clock.Elapsed()
	var v version
	for i, b := range c.nodes.Hot() {
		if i == 0 || b.ID.File != v.file {
			v = c.copyOf(b.ID.File, true)
		}
		c.nodes.Heat(b.ID, v.copies, v.may, now)
	}
}

// SetPlacement makes other settings of placement apply from now on: a policy, and when
// blocks that are read much get more copies.
func (c *Coordinator) SetPlacement(o placement.Options) {
	c.nodes.SetPolicy(o.Policy)
	c.nodes.SetHeat(o.Heat)
}
