package freshet

import (
	"context"
	"time"

	"github.com/freshet-io/freshet/fingerprint"
)

// ReadOptions guide any read of metadata.
type ReadOptions struct {
	// SyncInterval overrides the interval that applies, for this request only.
	SyncInterval *Interval
	// After: the answer sees at least the write that this token proves.
	After Token
	// Lease is the session under which the caller would keep the answer. It is of no
	// use together with the others, nor for listings.
	Lease LeaseID
}

// Freshness says under which rule an answer counts as fresh.
type Freshness struct {
	Fresh    bool
	Level    Level
	Interval Interval
	Rule     Path // of the policy or mount that the interval comes from
	// Age is the time since the last validation began; negative if that was
	// before the present leader's term.
	Age            time.Duration
	Degraded       bool
	DegradedReason string
}

// Status is the answer to a stat.
type Status struct {
	Info        Info
	Freshness   Freshness
	CachedBytes int64
	// Lease is for how long the answer may be kept unless it is called back; see
	// KeepFor. 0: not at all.
	Lease time.Duration
}

// StatOutcome is the answer about one of many paths: Err, or else Status.
type StatOutcome struct {
	Status Status
	Err    error
}

// ListQuery asks for a page of a directory.
type ListQuery struct {
	Path Path
	// PageToken is the NextPageToken of the page before, "" for the first.
	PageToken string
	PageSize  int // 0 is the maximum, MaxListPage
	Recursive bool
	// Prefix selects names that begin with it; of a recursive listing, paths
	// relative to Path.
	Prefix string
	// StartAfter begins behind this name or, of a recursive listing, behind this
	// path relative to Path; neither needs to exist. A PageToken takes its place.
	StartAfter string
	Options    ReadOptions
	// Enter, if not nil, is asked before a recursive listing enters a directory
	// below Path. Its error ends the listing. It does not travel.
	Enter func(ctx context.Context, dir Path) error
}

// MaxListPage is the largest number of entries of a page.
const MaxListPage = 1000

// ListPage is a page in byte order of the paths; NextPageToken is "" on the last.
type ListPage struct {
	Entries       []Info
	NextPageToken string
}

// MkdirQuery asks for a directory.
type MkdirQuery struct {
	Op      OpID // zero: the server makes one
	Path    Path
	Parents bool // make missing parents and accept an existing directory
	Mode    uint32
	// Owner and Group of what is made, "" for those of Freshet's own user.
	Owner, Group string
}

// RenameQuery asks to move an entry within its mount.
type RenameQuery struct {
	Op           OpID
	Path, Target Path
	Overwrite    bool
}

// RemoveQuery asks to remove an entry.
type RemoveQuery struct {
	Op        OpID
	Path      Path
	Recursive bool
}

// RemoveProgress is a report of the removal of a tree.
type RemoveProgress struct {
	Entries int64 // files and directories removed so far
	Current Path
	Done    bool
	Token   Token // of the removal, once it is done
}

// RenamePlan is what a rename would do and what it costs the storage.
type RenamePlan struct {
	Info Info // the entry as it would be at its new path
	// Atomic: the storage moves it in one step. Else every object is copied and then
	// deleted: so many objects and bytes.
	Atomic         bool
	Objects, Bytes int64
	Replaces       bool // an existing file
}

// SetAttrQuery asks to change attributes; nil stays.
type SetAttrQuery struct {
	Op           OpID
	Path         Path
	Owner, Group *string
	Mode         *uint32
}

// LocateQuery asks where the bytes of a range are.
type LocateQuery struct {
	Path    Path
	Offset  int64
	Length  int64 // negative: to the end
	Options ReadOptions
	Host    string // locality of the caller
	// Rack and Zone of the caller; "" for those of a node on the same host.
	Rack, Zone string
	// StaleFingerprint is the text form of the version that the storage
	// refused as stale: look at the storage again.
	StaleFingerprint string
	// Again says that the answer before was of no use: an answer that the caller's own
	// process keeps is not to be given again. It does not travel.
	Again bool
}

// BeginWriteQuery asks to write one file.
type BeginWriteQuery struct {
	Op        OpID
	Path      Path
	Write     WriteType // ByPolicy: none was named
	BlockSize int64     // 0: by the policy of the path
	Host      string    // locality of the caller
	// Rack and Zone of the caller; "" for those of a node on the same host.
	Rack, Zone string
	Node       NodeID // preferred, if it lives
	// DurableReplicas is on how many nodes a file of must_cache or async_through is
	// durable when it is acknowledged; 0: by the policy of the path.
	DurableReplicas int
	// Length in bytes, if it is known, is checked against quotas at once; else they
	// are asked before the file becomes visible.
	Length *int64
	// Owner and Group of a file that is new, and of the directories made for it, ""
	// for those of Freshet's own user.
	Owner, Group string
}

// BeginWriteAnswer is a ticket, or the outcome if the operation is done.
type BeginWriteAnswer struct {
	Ticket    Ticket
	Done      bool
	Completed Completed
}

// PermitQuery asks whether the effect of an upload may be attempted.
type PermitQuery struct {
	Op          OpID
	Node        NodeID
	Incarnation uint64
	Length      int64 // negative: not known
	// Sealed is what the file will be known by in the storage (ufs.Writer), if it is.
	Sealed fingerprint.Fingerprint
}

// CompleteQuery tells of an upload that the storage acknowledged.
type CompleteQuery struct {
	Op      OpID
	Written Written
}

// Each is what became of one of many calls that are made together.
type Each[A any] struct {
	Answer A
	Err    error
}

// SyncProgress is a report of a running sync.
type SyncProgress struct {
	Directories, Entries, Changed, Failed int64
	// Fresh directories were not listed again because they had been recently enough.
	Fresh   int64
	Elapsed time.Duration
	Done    bool
	Current Path
}

// PublisherStatus is the position in another cluster's log of one domain.
type PublisherStatus struct {
	Cluster      string
	ID           ClusterID
	Epoch        uint64
	Domain       DomainID
	Authority    string // readable name of the domain, if known
	Applied      uint64
	Head         uint64
	State        string        // "synced", "gap", "reset", "degraded"
	SinceContact time.Duration // negative: never
	LastReset    time.Time
	ResetReason  string
}

// Peer is another cluster on the bus.
type Peer struct {
	Name          string
	ID            ClusterID
	Epoch         uint64
	Addresses     []string
	State         string // "connected", "degraded", "left", "unknown"
	Reason        string
	Domains       []PublisherStatus
	SinceContact  time.Duration // negative: never
	GossipMembers int
}

// Explanation is all that a cluster knows of one entry's freshness.
type Explanation struct {
	Path           Path
	Verdict        string // "fresh", "stale", "unknown", "absent", "uncachable"
	Reason         string
	Info           *Info
	Freshness      Freshness
	Mount          *Mount
	LastValidation string
	ValidatedAt    time.Time // zero if unknown
	ValidFrom      uint64
	Need           uint64
	NextCheck      string
	Publishers     []PublisherStatus
	ActiveSync     *ActiveSyncStatus // nil if the mount has no active sync
	Blocks         []ExplainedBlock
	MoreBlocks     int // that are cached too, after those in Blocks
	Intents        []string
	Storage        *StorageView
	Remedy         string
	Stamps         []ExplainedStamp // that cover the path, the newest first
	Operations     []Operation      // that concern the path and have not ended
	RuleOrigin     string           // who set the rule that gives the interval
	Effective      []Setting        // what applies to the path, each property once
	Quotas         []Quota          // that count the path, the outermost first
	// Replication of a file; nil where nothing bounds the copies of its blocks.
	Replication *ReplicationStatus
}

// ExplainedBlock is one cached block and the names of the nodes that hold it.
type ExplainedBlock struct {
	Index  uint32
	Length int64
	Nodes  []string
}

// StorageView is what the storage said when it was asked.
type StorageView struct {
	Exists      bool
	Info        Info
	SameContent bool
	SameMeta    bool
	Error       string
}

// MountChange describes a new mount or changes of one. For an update, nil and
// empty fields stay, and an Options value of "" removes the option.
type MountChange struct {
	Path             Path
	URI              *string
	Options          map[string]string
	ReadOnly         *bool
	Level            *Level
	Interval         *Interval
	DegradedInterval *Interval
	ActiveSync       *bool
	Origin           string
	DryRun           bool
	IfGeneration     uint64
}

// MountAnswer is a mount with what a person should know of it.
type MountAnswer struct {
	Mount          Mount
	Authority      string // readable name of its domain
	Degraded       bool
	DegradedReason string
	ActiveSync     *ActiveSyncStatus // nil without active sync
	Notes          []string
}

// ActiveSyncStatus is how a mount's storage is heard: its own notices of changes.
type ActiveSyncStatus struct {
	Source string // who tells, such as "hdfs://nn:8020"
	// Complete: the source tells of every change, so that while it is heard the
	// mount's sync interval does not apply.
	Complete bool
	Heard    bool
	Reason   string // why it is not heard
	// HeardSince is when it was heard first without a break; zero if it is not.
	HeardSince time.Time
	// SinceNotice is how long ago it said something; negative: never.
	SinceNotice time.Duration
	// Lag is the age of the last change when it was marked; negative if unknown.
	Lag       time.Duration
	LastError string // of the last watch that failed, "" if none did
	// Connecting: it is not heard yet, for it was only just asked to tell.
	Connecting bool
}

// SyncPolicy is a sync interval for a path and what lies below it.
type SyncPolicy struct {
	Path     Path
	Interval Interval
	Origin   string // "config", "operator", "apply", "mount"
	SetAt    time.Time
}

// Member is one coordinator of the cluster.
type Member struct {
	ID, Name      string
	GRPC, HTTP    string
	Raft, Bus     string
	Leader, Voter bool
	// StateVersion is the version of the replicated state that the member applies; 0 if
	// it has not said so.
	StateVersion int
}

// ClusterStatus describes a cluster and its health.
type ClusterStatus struct {
	Name                 string
	ID                   ClusterID
	Epoch                uint64
	Members              []Member
	Leader               string
	Term                 uint64
	AppliedIndex         uint64
	Entries, Mounts      int64
	LiveNodes, DeadNodes int64
	Intents, Quarantined int64
	Healthy              bool
	Problems             []string
	Version              string
	StateVersion         int // of the replicated state, in force
	Raft                 map[string]string
	// QuarantinedOps are the first of the operations in quarantine.
	QuarantinedOps []Operation
}

// NodeStatus is a cache node as the leader sees it.
type NodeStatus struct {
	Node           Node
	Rack, Zone     string
	Live           bool
	Used, Capacity int64
	Blocks         int64
	Tier           string
	SinceHeartbeat time.Duration
	Role           NodeRole
	// Directories of its cache, as it told last.
	Directories []CacheDirectory
}

// RemoveMountOptions guide the removal of a mount.
type RemoveMountOptions struct {
	DryRun bool
	Force  bool // also with unresolved operations
}

// EventPost is what somebody posted who says that a storage changed.
type EventPost struct {
	Body  []byte
	Token string // the bearer token that came with it, "" if none
	// Trusted: the poster is on the same machine as the member that took it, or
	// has a certificate of the cluster's authority.
	Trusted bool
}

// EventAnswer counts the changes of a post by what was done about them.
type EventAnswer struct {
	Marked     int    // in storages that are mounted; the marks are replicated
	Ignored    int    // in storages, or parts of them, that no mount has
	Unread     int    // changes that could not be made out: everything is marked instead
	Validation string // what the poster wants to hear, if it asked whether it may post
	Confirm    string // address that a person has to open for the poster to go on, if it asked for it
}
