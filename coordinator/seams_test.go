package coordinator_test

import (
	"github.com/freshet-io/freshet/coordinator"
	"github.com/freshet-io/freshet/crosscluster"
	"github.com/freshet-io/freshet/rpc"
)

// The coordinator is what servers and the bus need, by its shape.
var (
	_ rpc.Namespace       = (*coordinator.Coordinator)(nil)
	_ rpc.Mounts          = (*coordinator.Coordinator)(nil)
	_ rpc.Policies        = (*coordinator.Coordinator)(nil)
	_ rpc.Cluster         = (*coordinator.Coordinator)(nil)
	_ rpc.Nodes           = (*coordinator.Coordinator)(nil)
	_ rpc.LeaderFinder    = (*coordinator.Coordinator)(nil)
	_ crosscluster.Region = region{}
)

// region is how cmd makes a Region of a Coordinator: two methods name types of
// the bus.
type region struct{ *coordinator.Coordinator }

func (r region) Identity() crosscluster.Identity {
	return crosscluster.Identity{Publisher: r.Publisher(), Node: r.Node()}
}

func (r region) Roots() ([]crosscluster.Root, <-chan struct{}) {
	roots, changed := r.Coordinator.Roots()
	out := make([]crosscluster.Root, len(roots))
	for i, root := range roots {
		out[i] = crosscluster.Root(root)
	}
	return out, changed
}
