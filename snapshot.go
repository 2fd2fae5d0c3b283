package freshet

// StateHash is the hash of one member's replicated state. Members of one format
// that have applied the same index have the same hash.
type StateHash struct {
	Member  string
	Applied uint64 // index of the last log entry in the state
	Hash    [32]byte
	Format  int
}

// RestoreOptions say how a snapshot is restored.
type RestoreOptions struct {
	Force  bool // take the state of another cluster too
	DryRun bool // check everything, change nothing
}

// Restored says what a snapshot had and what it replaced.
type Restored struct {
	Cluster     ClusterID // that the snapshot was made of
	ClusterName string
	Index       uint64 // of the last log entry in the snapshot
	OldEpoch    uint64 // of the snapshot
	Entries     uint64
	Mounts      int
	// Replaced is what the cluster had, or still has after a dry run.
	ReplacedIndex   uint64
	ReplacedEntries uint64
	Epoch           uint64 // the new one; 0 in a dry run
}
