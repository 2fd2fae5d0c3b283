package namespace

import (
	"slices"

	"github.com/freshet-io/freshet"
)

// AddKeeper notes that one more node keeps all bytes of an unpersisted file durably.
// KindNotExist if the file is not unpersisted any more.
type AddKeeper struct {
	File freshet.FileID `codec:"f"`
	Node freshet.NodeID `codec:"n"`
}

func (t *txn) addKeeper(c *AddKeeper) Result {
	u := t.files.rows[c.File]
	switch {
	case u == nil:
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "keep file", "", "version %d was persisted, replaced or removed", c.File)}
	case c.Node == "":
		return Result{Err: freshet.Errorf(freshet.KindInvalid, "keep file", "", "no node is named")}
	case !slices.Contains(u.Nodes, c.Node):
		more := *u
		more.Nodes, more.Memory = append(slices.Clone(u.Nodes), c.Node), false
		t.saveUnpersisted(&more)
	}
	return Result{}
}

// distinct returns the nodes in their order, each once.
func distinct(nodes []freshet.NodeID) []freshet.NodeID {
	var out []freshet.NodeID
	for _, n := range nodes {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Promised returns on how many nodes the file was durable when it was acknowledged.
func (u *Unpersisted) Promised() int { return max(u.Replicas, 1) }
