package freshet

import "time"

// CacheDirectory is the state of one directory of a node's cache, or of its memory.
type CacheDirectory struct {
	Tier string
	Path string // "" for memory
	// State is "serving"; "full": its disk has no space, it takes no new blocks; or
	// "failed": it is out of service, because it fails or does not answer.
	State          string
	Reason         string // why it is not serving
	Used, Capacity int64  // bytes
}

// BlockHeat says how often a block was read at a node since its last report.
type BlockHeat struct {
	ID    BlockID
	Reads uint32
}

// Locality says where a caller is, as far as that is known. With the host alone, rack
// and zone are those of a node on that host.
type Locality struct{ Host, Rack, Zone string }

// NodeRole is what an operator decided about a cache node.
type NodeRole string

// The roles.
const (
	RoleServing        NodeRole = ""               // it is like all others
	RoleDraining       NodeRole = "draining"       // it is to be emptied, and takes nothing new
	RoleDecommissioned NodeRole = "decommissioned" // it is forgotten, and refused
)

// NodeDrain says how far a cache node is on its way out of the cluster.
type NodeDrain struct {
	ID    NodeID
	Name  string
	Role  NodeRole
	Since time.Time // of the role; zero for RoleServing
	Live  bool
	// What the node holds, in blocks and bytes.
	Blocks, Used int64
	// What has to be copied to other nodes first.
	LeftBlocks, LeftBytes int64
	Uploads               int64 // that it still runs
	// WaitsFor says what it waits for, in words; nothing if it may go.
	WaitsFor []string
}

// State is "serving", "draining", "drained" if nothing is lost when the node goes, or
// "decommissioned".
func (d NodeDrain) State() string {
	switch {
	case d.Role == RoleServing:
		return "serving"
	case d.Role == RoleDraining && len(d.WaitsFor) == 0:
		return "drained"
	}
	return string(d.Role)
}

// DrainChange has a cache node emptied, or ends that. Node is its name or ID.
type DrainChange struct {
	Node   string
	Undo   bool
	DryRun bool
}

// Decommission lets a cache node go that was drained, or with Force any. Node is its
// name or ID.
type Decommission struct {
	Node   string
	Force  bool
	DryRun bool
}
