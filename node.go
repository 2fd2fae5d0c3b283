package freshet

import "time"

// Mount is a storage attached to a path of the namespace.
type Mount struct {
	ID   MountID
	Path Path
	URI  string
	// Options are the storage's settings; secrets are references only.
	Options  map[string]string
	ReadOnly bool
	Level    Level
	// Interval is the sync interval of the mount; a policy of a longer or equal
	// path overrides it. DegradedInterval applies while a publisher of the
	// domain is unreachable.
	Interval         Interval
	DegradedInterval Interval
	// ActiveSync says that the storage's own notices of changes are listened to.
	ActiveSync bool `codec:",omitempty"`
	// Generation changes whenever the mount is added or its storage changes;
	// loads and blocks of an older generation are refused.
	Generation uint64
	Domain     DomainID
	// DomainKey is the key of the mount's root inside the domain: "/" or "/a/b".
	DomainKey string
	// MaxOpLifetime bounds how long an effect may land after its sender died.
	MaxOpLifetime time.Duration
	CreatedAt     time.Time
	// Origin says who made it: "config", "operator", "apply".
	Origin string
}

// BlockReport is one cached block in a node's report.
type BlockReport struct {
	ID     BlockID
	Length int64 // bytes
}

// FinishedOp is the end of an upload as the node saw it.
type FinishedOp struct {
	Op OpID
	// Written is set when the storage acknowledged the commit.
	Written *Written
	// Uncertain means that an effect was attempted and no definite answer came.
	Uncertain bool
	// Failure is why an order to persist a file had no effect; Conflict says that the
	// storage holds another version than the one that may be replaced.
	Failure  string
	Conflict bool
}

// Heartbeat is what a cache node tells the leader, each second.
type Heartbeat struct {
	Node        Node
	Incarnation uint64 // grows at each start of the node
	Rack, Zone  string
	// Term is the leader term of the last answer; the leader asks for a full
	// report when it is not its own.
	Term uint64
	// Full says that Added lists all blocks of the node, with those of the parts that
	// follow.
	Full bool
	// A report of many blocks is sent in parts: More says that others follow this one,
	// and Continued that it goes on with those before it.
	More, Continued bool
	Added           []BlockReport
	Removed         []BlockID
	Active          []OpID // uploads in progress
	Finished        []FinishedOp
	Used            int64 // bytes
	Capacity        int64
	Tier            string // "memory" or "disk"
	// MountRevision is the revision of the mount table that the node has.
	MountRevision uint64
	// PinRevision is that of the answer to the node's last full report.
	PinRevision uint64
	// Damaged are blocks whose bytes, as a checksum showed since the last report, were
	// not what was written. The node has dropped them.
	Damaged []BlockID
	// TakesCopies says that the node does what HeartbeatReply.Copy asks for.
	TakesCopies bool
	// TakesWarms says that the node does what HeartbeatReply.Warm asks for; Warmed is
	// what became of what that asked for last.
	TakesWarms bool
	Warmed     []WarmedBlock
	// Directories are those of its cache, the fastest tier first.
	Directories []CacheDirectory
	// Hot are the blocks that were read most since the last report, a few of them.
	Hot []BlockHeat
	// Kept are versions whose blocks the node keeps because they may not be in the
	// storage: a part of them, if they are many.
	Kept []FileID
	// Keeps says that the node keeps blocks of files that are not in the storage, and
	// does what HeartbeatReply.Persist asks for; Durable that it does so on a disk.
	Keeps, Durable bool
	// Took are files of HeartbeatReply.Keep that the node keeps durably by now.
	Took []FileID
	// Cluster is the one that the node belongs to, whose versions Kept are; zero before
	// one has answered it.
	Cluster ClusterID
}

// Damage is what cache nodes found of the blocks of one version.
type Damage struct {
	Blocks int           // that were found damaged, and dropped
	Nodes  []string      // names of the nodes that found them, in order
	Ago    time.Duration // since the last one was reported
}

// BlockCopy is a block that a node is to fetch, with the nodes that hold it and where
// it comes from.
type BlockCopy struct {
	Block  Block
	Source Source
}

// HeartbeatReply is the leader's answer. Until Lease has passed since the
// heartbeat was sent, the node may publish uploads.
type HeartbeatReply struct {
	Cluster       ClusterID
	Epoch         uint64
	Term          uint64
	Lease         time.Duration
	NeedFull      bool
	MountRevision uint64
	Mounts        []Mount // set if the node's revision was another
	Free          []BlockID
	// PinRevision is that of the rules of what is pinned. A node that has another one
	// is asked for a full report. Pinned lists the versions whose blocks are not to
	// be evicted: of those that this heartbeat added, or, if it was full, all.
	PinRevision uint64
	Pinned      []FileID
	// Copy lists blocks that the node is to fetch from the nodes that are named as
	// holding them, when it has nothing better to do. They are named again until the
	// node reports to have them, or the leader thinks better of it.
	Copy []BlockCopy
	// Warm lists blocks that the node is to bring into its tiers, from the nodes that
	// are named as holding them or from the storage. They are named again until the
	// leader has heard, by Heartbeat.Warmed, what became of them.
	Warm []BlockCopy
	// Draining: the node is to be emptied. It keeps no new blocks.
	Draining bool
	// Released are those of the heartbeat's Kept that need not be kept any more.
	Released []FileID
	// Persist lists files that the node is to write to the storage. They are named
	// again until the node reports the upload as active or finished.
	Persist []PersistOrder
	// Keep lists files that are in no storage, of which the node is to keep a durable
	// copy. They are named again until it has reported that, or the leader thinks better
	// of it.
	Keep []KeepOrder
	// Settled lists reported Finished ops that need not be reported again.
	Settled []OpID
	// Abort lists Active ops that the cluster no longer knows.
	Abort []OpID
}

// Completed is the answer to a change: what is visible now, and the proof of it.
type Completed struct {
	Info  Info
	Token Token
}
