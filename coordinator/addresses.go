package coordinator

import (
	"context"

	"github.com/freshet-io/freshet"
)

// BusAddresses returns the cluster-to-cluster addresses of the members.
func (c *Coordinator) BusAddresses() []string {
	var out []string
	for _, m := range c.state.Members() {
		if m.Bus != "" {
			out = append(out, m.Bus)
		}
	}
	return out
}

// Founded waits until the cluster that this member belongs to has an identity.
func (c *Coordinator) Founded(ctx context.Context) error {
	for {
		changed := c.watch.identity.wait()
		if c.state.Identity().Cluster != (freshet.ClusterID{}) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
