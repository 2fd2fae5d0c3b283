// Package namespace owns the replicated state of a cluster: the tree of entries,
// mounts, policies, stamps, the log of published records, intents, positions in
// the logs of other clusters, members. It is a deterministic state machine over
// an ordered key-value store: no clock, goroutine, socket, log or metric, and no
// call to a storage. The same commands at the same indexes make the same state
// on every member.
package namespace

import (
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// Command is one change of the state; exactly one field is set, but for Once. Commands travel
// in the Raft log in batches, see EncodeBatch. Times in commands were taken by
// the leader that proposed them and are data, never deadlines.
type Command struct {
	Bootstrap    *Bootstrap    `codec:"boot,omitempty"`
	BumpEpoch    *BumpEpoch    `codec:"epoch,omitempty"`
	SetMember    *Member       `codec:"mem,omitempty"`
	RemoveMember *RemoveMember `codec:"rmmem,omitempty"`
	SetVersion   *SetVersion   `codec:"ver,omitempty"`
	SetNodeRole  *NodeRole     `codec:"node,omitempty"`
	SetLeases    *SetLeases    `codec:"lease,omitempty"`

	// Once, beside the one field, makes a change of settings happen once: a command
	// with the ID of one that was applied does nothing, and its result is Done.
	Once *freshet.OpID `codec:"once,omitempty"`

	AddMount     *AddMount     `codec:"mnt,omitempty"`
	UpdateMount  *UpdateMount  `codec:"upmnt,omitempty"`
	RemoveMount  *RemoveMount  `codec:"rmmnt,omitempty"`
	SetPolicy    *Policy       `codec:"pol,omitempty"`
	RemovePolicy *RemovePolicy `codec:"rmpol,omitempty"`
	ChangePolicy *ChangePolicy `codec:"chpol,omitempty"`
	Expire       *Expire       `codec:"exp,omitempty"`
	SetQuota     *SetQuota     `codec:"quo,omitempty"`
	RemoveQuota  *RemoveQuota  `codec:"rmquo,omitempty"`
	CountQuotas  *CountQuotas  `codec:"coquo,omitempty"`

	LoadEntry   *LoadEntry   `codec:"load,omitempty"`
	LoadListing *LoadListing `codec:"list,omitempty"`
	Mark        *Mark        `codec:"mark,omitempty"`

	Begin         *Begin         `codec:"begin,omitempty"`
	Permit        *Permit        `codec:"permit,omitempty"`
	Complete      *Complete      `codec:"done,omitempty"`
	Abort         *Abort         `codec:"abort,omitempty"`
	Resolve       *Resolve       `codec:"resolve,omitempty"`
	EndQuarantine *EndQuarantine `codec:"endq,omitempty"`

	Invalidate  *Invalidate  `codec:"inval,omitempty"`
	Hint        *Hint        `codec:"hint,omitempty"`
	ResetSub    *ResetSub    `codec:"reset,omitempty"`
	BeginSub    *BeginSub    `codec:"sub,omitempty"`
	ForgetSub   *ForgetSub   `codec:"forget,omitempty"`
	ForgetWatch *ForgetWatch `codec:"forgetw,omitempty"`
	PublishAll  *PublishAll  `codec:"all,omitempty"`

	MoveUnpersisted *MoveUnpersisted `codec:"mvunp,omitempty"`
	QueuePersist    *QueuePersist    `codec:"qpers,omitempty"`
	StopPersist     *StopPersist     `codec:"stpers,omitempty"`
	PersistFailed   *PersistFailed   `codec:"pfail,omitempty"`
	AddKeeper       *AddKeeper       `codec:"keeper,omitempty"`

	StartSync *StartSync `codec:"sync,omitempty"`
	EndSync   *EndSync   `codec:"endsync,omitempty"`
	StartWarm *StartWarm `codec:"warm,omitempty"`
	EndWarm   *EndWarm   `codec:"endwarm,omitempty"`

	Compact   *Compact   `codec:"compact,omitempty"`
	Purge     *Purge     `codec:"purge,omitempty"`
	ForgetOps *ForgetOps `codec:"forgetops,omitempty"`
}

// Result is the answer of one command. Err is a *freshet.Error; a command that
// fails changes nothing. Only the fields that the command names are set.
type Result struct {
	Index     uint64 // of the log entry
	Err       error
	Mount     freshet.Mount             // AddMount, UpdateMount, RemoveMount
	Intent    Intent                    // Begin, Permit
	Completed freshet.Completed         // Complete; Begin of an operation that is done
	Done      bool                      // Begin: the operation was done before, see Completed
	Sync      SyncJob                   // StartSync, EndSync
	Warm      WarmJob                   // StartWarm, EndWarm
	Installed bool                      // LoadEntry, LoadListing, Complete: what was found is servable now, or gone if it was not found
	Rejected  []string                  // LoadListing: names whose guard failed
	Verdict   invalidation.Verdict      // Invalidate; ResetSub: Apply, or Ignore for an older epoch
	Position  invalidation.Subscription // Invalidate, ResetSub, BeginSub
	Epoch     uint64                    // Bootstrap, BumpEpoch
	More      bool                      // Purge, CountQuotas, StopPersist: there is more to do
	Dropped   int                       // Expire, QueuePersist: how many were dropped, or queued
}

// Bootstrap founds the cluster: its identity, first mounts, policies and quotas. It is
// KindExist once the cluster is founded.
type Bootstrap struct {
	Cluster  freshet.ClusterID `codec:"id"`
	Name     string            `codec:"n"`
	Epoch    uint64            `codec:"e"`
	Mounts   []freshet.Mount   `codec:"m"`
	Policies []Policy          `codec:"p"`
	Quotas   []SetQuota        `codec:"q,omitempty"`
	At       time.Time         `codec:"t"`
}

// BumpEpoch raises the epoch to max(old+1, Floor).
type BumpEpoch struct {
	Floor uint64 `codec:"f"`
}

// Member is a coordinator of the cluster with the addresses that it advertises.
type Member struct {
	ID   string `codec:"id"` // Raft server ID
	Name string `codec:"n"`
	Raft string `codec:"r"`
	GRPC string `codec:"g"` // for clients
	HTTP string `codec:"h"`
	Bus  string `codec:"b"` // cluster to cluster
}

// RemoveMember forgets a member's addresses.
type RemoveMember struct {
	ID string `codec:"id"`
}

// AddMount attaches a storage. ID and Generation of Mount are assigned by the
// state. KindExist if the path is a mount point, KindConflict if the path holds
// entries of the enclosing mount or if the mount's part of its domain overlaps
// that of another mount.
type AddMount struct {
	Mount freshet.Mount `codec:"m"`
}

// UpdateMount replaces the settings of the mount at Mount.Path: everything but
// ID, Path, Domain, DomainKey and CreatedAt. If URI or Options changed, the
// generation grows and everything below is marked, unless SameStorage says that
// what changed concerns how the storage is asked only. IfGeneration, when not 0,
// must be the current one (KindConflict).
type UpdateMount struct {
	Mount        freshet.Mount `codec:"m"`
	IfGeneration uint64        `codec:"g"`
	SameStorage  bool          `codec:"s,omitempty"`
}

// RemoveMount detaches the mount and drops what is known below it. KindConflict
// while mounts are nested in it or an intent of it is unresolved and Force is
// not set.
type RemoveMount struct {
	Path  freshet.Path `codec:"p"`
	Force bool         `codec:"f"`
}

// Entry is what the storage said of one entry.
type Entry struct {
	Name        string                  `codec:"n"` // last segment
	Type        freshet.FileType        `codec:"y"`
	Length      int64                   `codec:"l"`
	ModTime     time.Time               `codec:"t"`
	Owner       string                  `codec:"o"`
	Group       string                  `codec:"g"`
	Mode        uint32                  `codec:"m"`
	Fingerprint fingerprint.Fingerprint `codec:"f"`
}

// LoadEntry commits the answer of one stat that began when Start was the applied
// index. It installs nothing (Installed is false) if the mount's generation is
// another, a stamp newer than Start covers the path, or the entry was made by a
// later load. Entry nil means that the storage said it does not exist: the entry
// and all below it are dropped, unless something below changed since Start; then
// the directory is marked instead. A load that found nothing new is worth a
// command only if the entry's ValidFrom is below its Need. Special says that there
// is something, which can't be an entry: the listing that it should be in proves
// no absence from then on.
type LoadEntry struct {
	Mount      freshet.MountID `codec:"m"`
	Generation uint64          `codec:"g"`
	Path       freshet.Path    `codec:"p"`
	Start      uint64          `codec:"s"`
	Entry      *Entry          `codec:"e"`
	Special    bool            `codec:"x,omitempty"`
}

// LoadListing commits differences that one listing call found: entries that are
// new or changed, and names that are gone, each under its own guard as in
// LoadEntry. Start is the applied index before the page was asked for. Complete
// says that with this command everything between the first page, which began at
// ListStart, and the end is committed: the directory is then listed completely,
// unless a stamp newer than ListStart covers its listing. Special says that the
// storage also listed what is neither a file nor a directory: a name that is not
// held may be such an entry.
type LoadListing struct {
	Mount      freshet.MountID `codec:"m"`
	Generation uint64          `codec:"g"`
	Dir        freshet.Path    `codec:"p"`
	Start      uint64          `codec:"s"`
	Upserts    []Entry         `codec:"u"`
	Removes    []string        `codec:"r"`
	Complete   bool            `codec:"c"`
	ListStart  uint64          `codec:"ls"`
	Special    bool            `codec:"x,omitempty"`
}

// Mark invalidates a path on behalf of an operator or a storage's notification.
type Mark struct {
	Path      freshet.Path `codec:"p"`
	Recursive bool         `codec:"r"`
}

// OpKind says what an operation does to the storage.
type OpKind uint8

// The kinds of operation.
const (
	OpWrite OpKind = iota + 1
	OpMkdir
	OpRemove
	OpRename
	OpSetAttr
)

// Begin records the intent of an operation before any byte of it can reach the
// storage. The same Op again returns the same intent, or the recorded outcome
// with Done. It checks what the state knows: mounts, read-only, reserved names,
// mount points, file under file.
type Begin struct {
	Op        freshet.OpID      `codec:"op"`
	Kind      OpKind            `codec:"k"`
	Path      freshet.Path      `codec:"p"`
	Path2     freshet.Path      `codec:"p2"` // target of a rename
	Recursive bool              `codec:"r"`  // of a directory with all below it
	Node      freshet.NodeID    `codec:"n"`  // who uploads; "" for the coordinator itself
	Incarn    uint64            `codec:"i"`
	Write     freshet.WriteType `codec:"w"`
	BlockSize int64             `codec:"b"`
	At        time.Time         `codec:"t"`
	// Length of a write, if it is known, or of the file that a rename moves; MoveEntries and MoveBytes are what the
	// namespace holds below the directory that a rename moves, if quotas ask for it.
	Length      *int64 `codec:"ln,omitempty"`
	MoveEntries int64  `codec:"me,omitempty"`
	MoveBytes   int64  `codec:"mb,omitempty"`
	// Owner and Group of the file of a write, if it is new.
	Owner string `codec:"ow,omitempty"`
	Group string `codec:"gr,omitempty"`
	// Persist is the unpersisted version at Path that is written to the storage, 0 if
	// it is a new one that is written.
	Persist freshet.FileID `codec:"pf,omitempty"`
	// Source is what the storage had of the file that a rename moves; nil if that is not
	// known, or a directory moves.
	Source *fingerprint.Fingerprint `codec:"sf,omitempty"`
	// Replicas is on how many nodes a file that stays on nodes has to be durable before
	// it becomes visible; 0 is 1.
	Replicas int `codec:"dr,omitempty"`
}

// IntentState is the state of an intent.
type IntentState uint8

// The states. An operation of the coordinator itself begins as MayPublish.
const (
	IntentUploading  IntentState = iota + 1 // no effect was attempted
	IntentMayPublish                        // an effect may have been attempted
	IntentQuarantine                        // the outcome is unknown; an effect may still land
)

// Intent is an operation that has begun and not ended.
type Intent struct {
	Begin
	Started    uint64 // index of its Begin
	State      IntentState
	File       freshet.FileID // of the version being written
	Mount      freshet.MountID
	Generation uint64
	Key        string // relative to the mount's root
	Key2       string
	Resolved   uint64 // index at which it went into quarantine
	// Sealed is what the file of an upload is known by in the storage, if its Permit said.
	Sealed *fingerprint.Fingerprint `codec:"Sealed,omitempty"`
	// Done says of an operation in quarantine that the storage acknowledged it: nothing of
	// it can land any more, and what is there by now is to be looked at.
	Done bool `codec:"Done,omitempty"`
}

// Permit allows the effect: the node asks just before it. Length is that of the
// upload, if the node tells it: KindExhausted if it exceeds a quota. KindUnavailable while
// another write of the file has a permit, if one of the two persists a version. Sealed is
// what the file will be known by in the storage, where that does not mark what is ours.
type Permit struct {
	Op     freshet.OpID             `codec:"op"`
	Node   freshet.NodeID           `codec:"n"`
	Incarn uint64                   `codec:"i"`
	Length *int64                   `codec:"ln,omitempty"`
	Sealed *fingerprint.Fingerprint `codec:"sf,omitempty"`
}

// Complete ends an operation whose effect the storage acknowledged: the tree
// changes, the paths are marked, a record is appended, the intent ends and the
// outcome is kept under Op, all in one. Entry is the entry at Path (of a rename:
// at Path2) after the effect; nil for a removal. Uncertain says that some attempt
// of the effect ended without a definite answer: the intent then goes into
// quarantine, whose end appends a second record.
type Complete struct {
	Op        freshet.OpID `codec:"op"`
	Entry     *Entry       `codec:"e"`
	Uncertain bool         `codec:"u"`
	At        time.Time    `codec:"t"`
	// Nodes, of a file that stays unpersisted, are those that keep its bytes; the one
	// that took them, if there are none.
	Nodes []freshet.NodeID `codec:"n,omitempty"`
	// Memory says that they keep them in memory alone.
	Memory bool `codec:"m,omitempty"`
	// Beneath is what a rename of a directory by copying left under unpersisted files.
	Beneath []Beneath `codec:"b,omitempty"`
}

// Beneath is what the storage has under an unpersisted file.
type Beneath struct {
	File        freshet.FileID          `codec:"f"`
	Fingerprint fingerprint.Fingerprint `codec:"b"`
}

// Abort ends an operation without an effect and without a record. It is
// KindConflict if an effect may have been attempted and Definite, the storage's
// own word that there was none, is not set.
type Abort struct {
	Op       freshet.OpID `codec:"op"`
	Definite bool         `codec:"d"`
}

// Resolve ends the operation of a writer that died or never got an answer: a
// record with what the storage holds now is appended, the paths are marked, and
// the intent goes into quarantine, or ends at once if Ended says that no effect
// can land any more. Observed nil with Known means absent. Ours says that the
// observed object carries our operation or the fingerprint that our upload
// returned: the file ID, whose blocks hold our bytes, may be bound to it. Moved says
// that the storage has nothing at the source of a rename any more, and at the target what
// may have come from there; Copied, that it came as a copy, whose fingerprint is another.
//
// Late says that the storage was looked at again, in quarantine, from when Start was the
// applied index: unpersisted files follow what the operation did by then. KindConflict if
// the paths changed since, or are being changed: look again.
type Resolve struct {
	Op       freshet.OpID `codec:"op"`
	Known    bool         `codec:"k"`
	Observed *Entry       `codec:"e"`
	Ours     bool         `codec:"o"`
	Ended    bool         `codec:"x"`
	At       time.Time    `codec:"t"`
	Moved    bool         `codec:"m,omitempty"`
	Copied   bool         `codec:"c,omitempty"`
	Late     bool         `codec:"l,omitempty"`
	Start    uint64       `codec:"s,omitempty"`
}

// EndQuarantine ends an intent in quarantine: a second record, a second mark.
type EndQuarantine struct {
	Op freshet.OpID `codec:"op"`
	At time.Time    `codec:"t"`
}

// Invalidate applies a batch of another cluster's records: they are judged
// against the position, marked, and the position advances, all in one.
type Invalidate struct {
	Batch invalidation.Batch `codec:"b"`
}

// Hint marks what unverified records name. It advances nothing, unless Source
// names the storage's own source of notices: then Cursor, where a watch of it
// goes on, is kept with the marks, if it is not empty and a mount of the domain
// still wants the notices.
type Hint struct {
	Domain  freshet.DomainID      `codec:"d"`
	Records []invalidation.Record `codec:"r"`
	Source  string                `codec:"s,omitempty"`
	Cursor  []byte                `codec:"c,omitempty"`
	Covers  []uint64              `codec:"g,omitempty"` // see WatchCursor
}

// ForgetWatch drops the cursor of a source that no mount uses any more.
type ForgetWatch struct {
	Source string `codec:"s"`
}

// WatchCursor is where a watch of a storage's own notices goes on. What came
// before it is in the stamps of the mounts that it covers, which are given by
// their generations.
type WatchCursor struct {
	Source string           `codec:"s"`
	Domain freshet.DomainID `codec:"d"`
	Cursor []byte           `codec:"c"`
	Covers []uint64         `codec:"g"`
}

// ResetSub marks every mount of the domain and sets the position to Head. It is
// ignored for an epoch older than the known one.
type ResetSub struct {
	Publisher invalidation.Publisher `codec:"p"`
	Head      invalidation.Head      `codec:"h"`
}

// BeginSub creates a subscription at position 0; KindExist if there is one.
type BeginSub struct {
	Publisher invalidation.Publisher `codec:"p"`
	Domain    freshet.DomainID       `codec:"d"`
}

// ForgetSub marks every mount of the publisher's domains and drops its positions.
type ForgetSub struct {
	Cluster freshet.ClusterID `codec:"c"`
}

// PublishAll appends a record that covers the whole domain to every own log, as
// is due after a restore.
type PublishAll struct {
	At time.Time `codec:"t"`
}

// Compact drops the records of a log below Low.
type Compact struct {
	Domain freshet.DomainID `codec:"d"`
	Low    uint64           `codec:"l"`
}

// Purge frees up to Limit entries of detached subtrees.
type Purge struct {
	Limit int `codec:"l"`
}

// ForgetOps drops the outcomes of operations that ended at or before Index.
type ForgetOps struct {
	Index uint64 `codec:"i"`
}
