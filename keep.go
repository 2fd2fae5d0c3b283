package freshet

import "strconv"

// MaxDurableReplicas is the most that PropertyDurableReplicas, and a write, may ask for.
const MaxDurableReplicas = 8

// ParseDurableReplicas reads on how many nodes a file is to be durable. KindInvalid for
// what is not a number from 1 to MaxDurableReplicas.
func ParseDurableReplicas(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxDurableReplicas {
		return 0, Errorf(KindInvalid, "read durable_replicas", "", "durable_replicas is %q: use a number of nodes from 1 to %d", s, MaxDurableReplicas)
	}
	return n, nil
}

// CheckDurableReplicas refuses a number that a write can't ask for; 0 leaves it to the
// policy of the path. What is in the storage when it is acknowledged has no use for one.
func CheckDurableReplicas(n int, w WriteType) error {
	const op = "check write"
	switch {
	case n < 0 || n > MaxDurableReplicas:
		return Errorf(KindInvalid, op, "", "durable_replicas is %d: use a number of nodes from 1 to %d", n, MaxDurableReplicas)
	case n > 0 && (w == CacheThrough || w == Through):
		return Errorf(KindInvalid, op, "", "durable_replicas is for writes of type must_cache and async_through: one of type %s is in the storage when it is acknowledged", w)
	}
	return nil
}

// BlockKeep asks a node to keep a durable copy of a block of a file that is in no
// storage. Block.Nodes hold it.
type BlockKeep struct {
	Cluster ClusterID
	Epoch   uint64
	// Node, in this run of it, is whom the request is for: another one may not have what
	// was kept before.
	Node        NodeID
	Incarnation uint64
	Block       Block
}

// KeepOrder tells a node to keep a durable copy of a file that is in no storage.
type KeepOrder struct {
	File      FileID
	Length    int64 // bytes
	BlockSize int64
	Nodes     []Node // that hold all of it, the best first
}
