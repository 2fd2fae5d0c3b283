package journal

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
)

// State is what the journal needs of the replicated state. Apply and Restore are
// called by one goroutine, one call at a time; the others at any time, also while
// Apply runs.
type State interface {
	// Apply applies the commands of one log entry and returns one result for each.
	// An entry at or below Applied changes nothing.
	Apply(index uint64, cmds []namespace.Command) ([]namespace.Result, namespace.Changes)
	// Applied returns the index of the last entry that was applied.
	Applied() uint64
	// Err returns the failure of the state's store, nil if there was none. The
	// journal looks at it after each Apply and then stops this member.
	Err() error
	// Flush makes everything that was applied before the call durable.
	Flush() error
	// Dump writes a consistent copy and returns the index that it has applied.
	Dump(w io.Writer) (applied uint64, err error)
	// Restore replaces the state by a copy.
	Restore(r io.Reader) error
}

// Applied is one log entry after it was applied.
type Applied struct {
	Index    uint64
	Commands []namespace.Command
	Results  []namespace.Result
	Changes  namespace.Changes
}

// Options are the settings of a Journal. ID is required, and either Dir with
// Listener or Memory with Network. Everything else has a default.
type Options struct {
	// ID is this member's Raft server ID, for ever.
	ID string
	// Dir is the data directory, made with mode 0700.
	Dir string
	// Listener accepts the other members' connections and Dial connects to them;
	// both may wrap TLS. The journal closes Listener. A nil Dial is plain TCP.
	Listener net.Listener
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	// Advertise is the address that the others dial; by default the listener's.
	Advertise string
	// Memory and Network replace Dir and Listener in a simulation.
	Memory  *Memory
	Network *MemoryNetwork

	// Identity returns the cluster's ID as the state knows it, zero if it does not
	// yet. A dump of another cluster is refused.
	Identity func() freshet.ClusterID
	// Gate refuses commands before they are proposed; nil refuses none.
	Gate func([]namespace.Command) error
	// OnApply is told each entry after it was applied, in order, on the goroutine
	// that applies: it must not block.
	OnApply func(Applied)
	// OnRestore is told that the state was replaced by a copy.
	OnRestore func(applied uint64)

	// Heartbeat is how long a follower waits for the leader before it stands for
	// election; all members must have the same. Election is how long a candidate
	// waits for votes (default: Heartbeat). LeaderLease is after how long without a
	// quorum the leader steps down (default: Heartbeat).
	Heartbeat, Election, LeaderLease time.Duration
	// LeaseFor is how long reads trust a heartbeat that a quorum answered. It must
	// be shorter than LeaderLease (default: three eighths of it).
	LeaseFor time.Duration
	// SnapshotEvery is how often the log's length is looked at, SnapshotAfter how
	// many new entries make a snapshot, TrailingLogs how many entries stay for
	// followers that lag a little.
	SnapshotEvery               time.Duration
	SnapshotAfter, TrailingLogs uint64
	// LogBytes bounds the log by its size too: beyond three quarters of it a snapshot
	// is made if necessary and the newest half stays. While a member is brought up by
	// a copy four times as much is kept for it. A negative number is no limit.
	LogBytes int64
	// NoSync skips fsync of the log: acknowledged commands can be lost with the
	// machine's power. Each unclean start must then bump the epoch.
	NoSync bool

	// MaxBatch is the number of commands in one entry, InFlight the number of
	// entries on their way. QueueLimit and QueueBytes bound what waits.
	MaxBatch, InFlight, QueueLimit int
	QueueBytes                     int64

	Log     *slog.Logger
	Metrics prometheus.Registerer
	Clock   clock.Clock
}

// Limits of one entry. A batch stops growing at softEntryBytes; one call's
// commands are never split and may have up to MaxProposalBytes. Raft sends up to
// maxAppendEntries entries in one message.
const (
	softEntryBytes   = 512 << 10
	maxAppendEntries = 64
	// MaxProposalBytes is the encoded size up to which the commands of one Propose
	// are accepted.
	MaxProposalBytes = 4 << 20
)

// DefaultLogBytes is the default of Options.LogBytes.
const DefaultLogBytes = 256 << 20

const transportTimeout = 5 * time.Second

// check sets the defaults and refuses settings that can't work.
func (o *Options) check() error {
	setDefault(&o.Heartbeat, time.Second)
	setDefault(&o.Election, o.Heartbeat)
	setDefault(&o.LeaderLease, o.Heartbeat)
	setDefault(&o.LeaseFor, o.LeaderLease*3/8)
	setDefault(&o.SnapshotEvery, 30*time.Second)
	setDefault(&o.SnapshotAfter, 8192)
	setDefault(&o.TrailingLogs, 10240)
	setDefault(&o.LogBytes, DefaultLogBytes)
	setDefault(&o.MaxBatch, 256)
	setDefault(&o.InFlight, 4)
	setDefault(&o.QueueLimit, 8192)
	setDefault(&o.QueueBytes, 64<<20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Identity == nil {
		o.Identity = func() freshet.ClusterID { return freshet.ClusterID{} }
	}
	const op = "open journal"
	switch {
	case o.ID == "":
		return freshet.Errorf(freshet.KindInvalid, op, "", "the member has no server ID")
	case (o.Memory == nil) != (o.Network == nil):
		return freshet.Errorf(freshet.KindInvalid, op, "", "a log in memory and a network in memory go together")
	case o.Memory == nil && o.Dir == "":
		return freshet.Errorf(freshet.KindInvalid, op, "", "no data directory is set")
	case o.Memory == nil && o.Listener == nil:
		return freshet.Errorf(freshet.KindInvalid, op, "", "no listener for the other members is given")
	case o.LeaseFor >= o.LeaderLease:
		return freshet.Errorf(freshet.KindInvalid, op, "",
			"reads trust a lease for %v, which must be less than the leader's lease timeout of %v", o.LeaseFor, o.LeaderLease)
	case o.MaxBatch < 0 || o.InFlight < 0 || o.QueueLimit < 0 || o.QueueBytes < 0:
		return freshet.Errorf(freshet.KindInvalid, op, "", "a limit of the proposal queue is negative")
	}
	if err := raft.ValidateConfig(o.raftConfig()); err != nil {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%w", err)
	}
	return nil
}

func setDefault[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}

// raftConfig translates the settings.
func (o *Options) raftConfig() *raft.Config {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(o.ID)
	cfg.HeartbeatTimeout = o.Heartbeat
	cfg.ElectionTimeout = o.Election + 1 // see lookAtOnce
	cfg.LeaderLeaseTimeout = o.LeaderLease
	cfg.SnapshotInterval = o.SnapshotEvery
	cfg.SnapshotThreshold = o.SnapshotAfter
	cfg.TrailingLogs = o.TrailingLogs
	cfg.MaxAppendEntries = maxAppendEntries
	cfg.BatchApplyCh = true
	cfg.NoSnapshotRestoreOnStart = true // the state is durable by itself
	cfg.NoLegacyTelemetry = true
	cfg.ShutdownOnRemove = false // a removed member keeps answering "not leader"
	cfg.Logger = newRaftLog(o.Log)
	return cfg
}
