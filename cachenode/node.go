// Package cachenode owns a cache node: it serves reads of blocks, takes uploads
// and tells the cluster's leader what it holds and what became of the uploads.
//
// It knows blocks, sources and tickets, never the namespace: every request says
// all that is needed to serve it, and a read costs no call to a coordinator. It
// never makes an upload visible without a permit and a lease from the leader, and
// what became of an upload whose outcome is unknown it leaves to the leader.
package cachenode

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/fill"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/ufs"
)

// Coordinator is the leader of the cluster, wherever it is. KindUnavailable,
// KindNotLeader and KindDeadline mean that it could not be asked or that its
// answer was lost; all calls may be repeated.
type Coordinator interface {
	Heartbeat(ctx context.Context, hb freshet.Heartbeat) (freshet.HeartbeatReply, error)
	// Permit allows the upload that node runs in that incarnation to take effect
	// in the storage.
	Permit(ctx context.Context, q freshet.PermitQuery) error
	// Complete makes the file visible.
	Complete(ctx context.Context, op freshet.OpID, w freshet.Written) (freshet.Completed, error)
	// Abort ends the upload; definite says that it had no effect and never will.
	Abort(ctx context.Context, op freshet.OpID, definite bool) error
}

// Mounts is the set of storages that the node has open; *ufs.Mounts is one.
type Mounts interface {
	// Set makes the set equal to mounts.
	Set(mounts []freshet.Mount) error
	// Get returns the storage; release is called after its last use.
	Get(id freshet.MountID) (fs ufs.FS, release func(), err error)
}

// Deps are what a Node works with. Log, Metrics and Clock may be nil.
type Deps struct {
	Coordinator Coordinator
	Mounts      Mounts
	Blocks      *store.Store // not run by the node
	Identity    *Identity
	Remote      fill.Remote // nil: other nodes' caches are not used
	Peers       Peers       // nil: no other node keeps copies of files that are in no storage
	Log         *slog.Logger
	Metrics     prometheus.Registerer
	Clock       clock.Clock
}

// Options are the settings of a Node; the zero value is usable.
type Options struct {
	// Node is what clients need to know of the node; its ID is that of the
	// Identity.
	Node       freshet.Node
	Rack, Zone string
	// Heartbeat is the time between two heartbeats. 0 is a second.
	Heartbeat time.Duration
	// MaxUploads is how many uploads the node takes at the same time. 0 is 256.
	MaxUploads int
	// UploadIdle is how long an upload may go without a byte from its client.
	// 0 is ten minutes.
	UploadIdle time.Duration
	// CommitTimeout bounds the storage's answer to a commit. 0 is two minutes.
	CommitTimeout time.Duration
	// LeaderTimeout bounds how long an upload waits for a leader to permit or
	// to complete it. 0 is 30 seconds.
	LeaderTimeout time.Duration
	// MountTimeout bounds how long a read or an upload waits for a mount that the
	// node has not heard of yet. 0 is five seconds.
	MountTimeout time.Duration
	// StopTimeout is how long uploads may go on after the node was told to stop.
	// 0 is ten seconds.
	StopTimeout time.Duration
	// Caching is what is kept of what is read below mounts that do not say.
	Caching ufs.Caching
	// RoomTimeout is how long an upload that stays on the node waits for room in its
	// tiers. 0 is 30 seconds.
	RoomTimeout time.Duration
	// Fill are the settings of fetches.
	Fill fill.Options
	// Hook, if not nil, is called at the points of an upload at which a crash
	// matters: after-create, before-permit, after-permit, after-commit,
	// after-complete; of one that stays on the node after-keep, and of one that is
	// persisted before-persist-commit and after-persist-commit. For fault injection.
	Hook func(point string)
}

func (o *Options) setDefaults() {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&o.Heartbeat, time.Second)
	set(&o.UploadIdle, 10*time.Minute)
	set(&o.CommitTimeout, 2*time.Minute)
	set(&o.LeaderTimeout, 30*time.Second)
	set(&o.MountTimeout, 5*time.Second)
	set(&o.StopTimeout, 10*time.Second)
	set(&o.RoomTimeout, 30*time.Second)
	if o.MaxUploads <= 0 {
		o.MaxUploads = 256
	}
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
}

// Node is one cache node. It is safe for concurrent use. Before Run, and after
// it, reads are served uncached and uploads are refused.
type Node struct {
	opts     Options
	deps     Deps
	filler   *fill.Filler
	metrics  *metrics
	kill     context.Context //nolint:containedctx // ends the commits that outlast a stop
	killAll  context.CancelFunc
	wake     chan struct{} // asks for a heartbeat now
	remains  chan remain
	copies   copies
	warms    warms
	persists persists
	keeps    keeps
	heat     heat
	// draining: the leader has the node emptied, so it keeps nothing new.
	draining atomic.Bool

	dirtyMu sync.Mutex // apart from mu, because the tier calls with its own lock held
	dirty   changes

	mu       sync.Mutex
	joined   bool // a leader has answered since the start
	cluster  freshet.ClusterID
	epoch    uint64
	term     uint64
	revision uint64        // of the mount table
	keptFrom int           // of the versions that are kept: where the next heartbeat asks on
	pins     uint64        // revision of the rules of what is pinned
	answers  uint64        // to heartbeats
	lease    time.Duration // on the clock's Elapsed; publishing is allowed before it
	needFull bool
	running  bool
	cachings map[freshet.MountID]ufs.Caching // of the mounts
	changed  chan struct{}                   // closed when any of the above or an upload changes
	uploads  map[freshet.OpID]*upload
	finished map[freshet.OpID]freshet.FinishedOp
}

// New returns a Node. It starts nothing. The blocks are observed by the node from
// now on.
func New(deps Deps, opts Options) *Node {
	opts.setDefaults()
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real{}
	}
	opts.Node.ID, opts.Node.Incarnation = deps.Identity.Node(), deps.Identity.Incarnation()
	n := &Node{
		opts: opts, deps: deps, metrics: newMetrics(deps.Metrics, deps.Blocks),
		wake: make(chan struct{}, 1), remains: make(chan remain, maxRemains), dirty: newChanges(),
		cluster: deps.Identity.Cluster(), needFull: true, changed: make(chan struct{}),
		uploads: make(map[freshet.OpID]*upload), finished: make(map[freshet.OpID]freshet.FinishedOp),
	}
	n.copies.wake = make(chan struct{}, copyWorkers)
	n.warms.wake = make(chan struct{}, warmWorkers)
	n.persists.wake = make(chan struct{}, persistWorkers)
	n.keeps.wake = make(chan struct{}, keepWorkers)
	n.kill, n.killAll = context.WithCancel(context.Background())
	n.filler = fill.New(fill.Deps{
		Blocks: deps.Blocks, Mounts: deps.Mounts, Remote: deps.Remote, AwaitMount: n.awaitMount, Identity: n.identity, Self: opts.Node.ID,
		Caching: n.caching, Watch: n.metrics.background(), Clock: deps.Clock,
	}, opts.Fill)
	deps.Blocks.Observe(n.observe)
	deps.Blocks.ObserveMoves(func(from, to store.Kind) {
		n.metrics.moves.WithLabelValues(string(from), string(to)).Inc()
	})
	return n
}

// Run serves until ctx ends. Then it refuses new uploads, lets the running ones
// end within StopTimeout, aborts the rest, and tells the leader what became of
// them. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	n.update(func() { n.running = true })
	defer n.killAll()
	return run.Ordered(ctx,
		run.Part{Name: "heartbeat", Run: n.heartbeats},
		run.Part{Name: "remains", Run: n.clearRemains},
		run.Part{Name: "fetches", Run: n.filler.Run},
		run.Part{Name: "copies", Run: n.copyBlocks},
		run.Part{Name: "warms", Run: n.warmBlocks},
		run.Part{Name: "persists", Run: n.persistFiles},
		run.Part{Name: "copies of kept files", Run: n.keepFiles},
		run.Part{Name: "uploads", Run: n.drain},
	)
}

// Node returns what clients need to know of the node.
func (n *Node) Node() freshet.Node { return n.opts.Node }

// Ready returns nil when the node is registered with a leader and has heard of it
// lately, else KindUnavailable with the reason.
func (n *Node) Ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.running:
		return freshet.Errorf(freshet.KindUnavailable, "check node", "", "the node is stopping or not started yet")
	case !n.joined:
		return freshet.Errorf(freshet.KindUnavailable, "check node", "", "no coordinator has answered yet: check the list of coordinators and their certificates")
	case !n.leased():
		return freshet.Errorf(freshet.KindUnavailable, "check node", "", "no coordinator has answered lately")
	}
	return nil
}

// Read returns the bytes that req asks for, from the tier, another node or the
// storage. The stream ends with ctx. On a block that lies on this node's disk it
// also has the methods File and Skip of fill.Stream. KindInvalid: the bytes are
// not in the block. KindStale: the storage holds another version; the path must
// be synced. KindNotExist: the node does not hold the block, if req.Cached.
func (n *Node) Read(ctx context.Context, req freshet.BlockRead) (freshet.BlockStream, error) {
	n.heat.note(req.Block.ID, 1)
	if n.draining.Load() {
		req.Type = freshet.ReadNoCache
	}
	s, err := n.filler.Read(ctx, req)
	if err != nil {
		return nil, err
	}
	return &countedStream{Stream: s, node: n, id: req.Block.ID}, nil
}

// identity is asked for the headers of blocks.
func (n *Node) identity() (freshet.ClusterID, uint64, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cluster, n.epoch, n.joined
}

// caching returns what is kept of what is read below a mount.
func (n *Node) caching(id freshet.MountID) ufs.Caching {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.cachings[id]; ok {
		return c
	}
	return n.opts.Caching
}

// update changes the state and wakes whoever waits for a change.
func (n *Node) update(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// await waits until ready, which is called with the node locked, returns true.
func (n *Node) await(ctx context.Context, ready func() bool) error {
	for {
		n.mu.Lock()
		ok, changed := ready(), n.changed
		n.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitMount asks the leader for the table of mounts and waits for the mount: it
// may have been added since the last heartbeat. Whoever waited asks Mounts again,
// which gives the error if it has not come.
func (n *Node) awaitMount(ctx context.Context, id freshet.MountID) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.MountTimeout)
	defer cancel()
	n.mu.Lock()
	asked := n.answers
	n.mu.Unlock()
	n.heartbeatNow()
	_ = n.await(ctx, func() bool { //nolint:errcheck // see above
		_, release, err := n.deps.Mounts.Get(id)
		if err == nil {
			release()
		}
		// The first answer may be to a heartbeat that was on its way; the second
		// has the table as it was after we asked.
		return !freshet.IsKind(err, freshet.KindNotExist) || n.answers >= asked+2
	})
}

// awaitJoined waits, for a while, until a leader has answered. The leader counts a
// node as live, and sends clients to it, as soon as it has heard from it: the answer
// may still be on its way.
func (n *Node) awaitJoined(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.MountTimeout)
	defer cancel()
	_ = n.await(ctx, func() bool { return n.joined || !n.running }) //nolint:errcheck // the caller looks again
}

// leased reports whether the node may publish. The caller holds mu.
func (n *Node) leased() bool { return n.deps.Clock.Elapsed() < n.lease }

// observe is called by the tier, locked, for each block that comes or goes.
func (n *Node) observe(c tier.Change) {
	n.dirtyMu.Lock()
	n.dirty.note(c)
	n.dirtyMu.Unlock()
	if !c.Added {
		n.metrics.evictions.WithLabelValues(string(c.Reason)).Inc()
	}
}

// heartbeatNow asks for a heartbeat before its time.
func (n *Node) heartbeatNow() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}
