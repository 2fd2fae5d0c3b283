package membus

import (
	"context"
	"fmt"

	"github.com/freshet-io/freshet/crosscluster"
)

// Transport is the way of a world of clusters in memory.
type Transport struct{ Network *Network }

// Address returns the address of a member.
func (t Transport) Address(cluster string, member int) string {
	return fmt.Sprintf("%s/%d", cluster, member)
}

// Listen serves a member at its address until stop is called.
func (t Transport) Listen(addr string, h Handler) (stop func()) { return t.Network.Attach(addr, h) }

// Dialer returns the way to all members, without faults.
func (t Transport) Dialer() crosscluster.Dialer {
	return func(_ context.Context, addr string) (crosscluster.Peer, error) { return t.Network.reach(addr) }
}

// Gossip returns a member's way into the pool, with faults.
func (t Transport) Gossip(cluster, addr string, _ int) crosscluster.Gossip {
	return t.Network.Gossip(cluster, addr)
}
