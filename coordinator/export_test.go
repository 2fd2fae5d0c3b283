package coordinator

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

// ParsePageToken is parsePageToken.
func ParsePageToken(q freshet.ListQuery) (string, error) { return parsePageToken(q) }

// PageToken is pageToken.
func PageToken(q freshet.ListQuery, last freshet.Path) string { return pageToken(q, last) }

// Low is low.
func (r Retention) Low(h invalidation.Head, aged, ack uint64, live bool) uint64 {
	return r.low(h, aged, ack, live)
}

// Need makes commands need other versions of the state than this release says.
func (c *Coordinator) Need(needs func(*namespace.Command) int) {
	c.versions.mu.Lock()
	defer c.versions.mu.Unlock()
	c.versions.needs = needs
}

// Gate is gate.
func (c *Coordinator) Gate(cmds ...namespace.Command) error { return c.gate(cmds) }
