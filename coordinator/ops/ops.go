// Package ops owns the operations that change under-storage: the tickets of
// uploads, the operations that the coordinator carries out itself, the word of
// the cache nodes about their uploads, and the resolution of operations whose
// writer died or never learnt how they ended.
//
// The rule behind all of it: before an effect can reach the storage its intent is
// in the replicated state, and after it at least one record follows, whoever dies
// in between. Only the leader works here. The package never guesses an outcome:
// what the storage did not say stays unknown, and its path uncachable, until
// nothing of the operation can land any more.
package ops

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/ufs"
)

// Journal replicates commands. A command that the state refuses is a result with
// an Err; an error of Propose itself may leave the commands to be applied later.
type Journal interface {
	Propose(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error)
}

// State is what this package reads of the replicated state.
type State interface {
	Applied() uint64
	Version() int
	Identity() namespace.Identity
	Mounts() (mounts []freshet.Mount, revision uint64)
	MountAt(p freshet.Path) (freshet.Mount, bool)
	MountByID(id freshet.MountID) (freshet.Mount, bool)
	Intents() []namespace.Intent
	OpenOps() int
	Intent(op freshet.OpID) (namespace.Intent, bool)
	OpResult(op freshet.OpID) (freshet.Completed, bool, error)
	Lookup(p freshet.Path) (namespace.Lookup, error)
	Unpersisted(limit int, want func(*namespace.Unpersisted, freshet.OpID) bool) ([]namespace.UnpersistedFile, error)
	UnpersistedOf(id freshet.FileID) (namespace.UnpersistedFile, bool)
	UnpersistedTotals() namespace.UnpersistedTotals
	// Release returns those of the versions whose blocks need not be kept any more.
	Release(cluster freshet.ClusterID, ids []freshet.FileID) []freshet.FileID
	FileLive(ids []freshet.FileID) []bool
	// CoveredAlike reports whether the same quotas count the entries at both paths;
	// CountBelow counts what the namespace holds below p.
	CoveredAlike(a, b freshet.Path) bool
	CountBelow(p freshet.Path) (namespace.Usage, error)
}

// Storage gives the storages that this process has open.
type Storage interface {
	Get(id freshet.MountID) (fs ufs.FS, release func(), err error)
}

// Deps are what an Engine works with; Journal, State, Storage and Nodes are
// required.
type Deps struct {
	Journal Journal
	State   State
	Storage Storage
	// Look has the state take what the storage has at a path. Nil leaves what lies beneath
	// files that stay on nodes to what the state knew as their writes began.
	Look func(ctx context.Context, p freshet.Path) error
	// Nodes is emptied when Run begins.
	Nodes   *placement.Nodes
	Clock   clock.Clock           // nil is the machine's
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil counts for nobody
}

// Options are the settings of an Engine; the zero value is usable.
type Options struct {
	// Lease is how long after it sent a heartbeat a node may publish uploads. It
	// must be shorter than the silence after which the node counts as dead, and
	// is 4 s by default.
	Lease time.Duration
	// Tick is how often the intents are looked at; 250 ms by default.
	Tick time.Duration
	// StartWithin is how long after its Begin an upload may be unknown to its
	// node before it is given up; a minute by default.
	StartWithin time.Duration
	// EffectTimeout bounds one effect of the coordinator's own operations, but not
	// a recursive one or a rename that copies; a minute by default.
	EffectTimeout time.Duration
	// UnknownLifetime is how long an effect may still land on a storage that names
	// no bound, when its sender is not known to be dead; a minute by default.
	UnknownLifetime time.Duration
	// ObserveWithin is how long the storage may be out of reach before an upload
	// is resolved without its word; 10 s by default.
	ObserveWithin time.Duration
	// KeepOutcomes is how long the outcome of an operation is kept for clients that
	// repeat it; an hour by default. It must be more than twice the longest time
	// for which an effect may land after its sender died.
	KeepOutcomes time.Duration
	// MaxIntents bounds the operations that have begun and not ended; 10,000 by
	// default.
	MaxIntents int
	// MaxFree bounds the blocks that one answer tells a node to free; 10,000 by
	// default.
	MaxFree int
	// RemovePage is how many entries a page of RemoveTree has; 1,000 by default.
	RemovePage int
	// Hook, if not nil, is called at the named points of every operation, for
	// tests that stop there: see the Point constants.
	Hook func(point string, op freshet.OpID)
}

// The points at which Options.Hook is called.
const (
	PointBegin    = "begin"    // before the intent is proposed
	PointEffect   = "effect"   // the intent is durable, the effect comes next
	PointComplete = "complete" // the storage answered, the completion comes next
	PointDone     = "done"     // the completion is durable, the answer comes next
	PointResolve  = "resolve"  // the storage was looked at, the resolution comes next
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.Lease, 4*time.Second)
	set(&o.Tick, 250*time.Millisecond)
	set(&o.StartWithin, time.Minute)
	set(&o.EffectTimeout, time.Minute)
	set(&o.UnknownLifetime, time.Minute)
	set(&o.ObserveWithin, 10*time.Second)
	set(&o.KeepOutcomes, time.Hour)
	if o.MaxIntents <= 0 {
		o.MaxIntents = 10_000
	}
	if o.MaxFree <= 0 {
		o.MaxFree = 10_000
	}
	if o.RemovePage <= 0 {
		o.RemovePage = 1000
	}
	if o.Hook == nil {
		o.Hook = func(string, freshet.OpID) {}
	}
}

// Engine carries out operations while this member leads. Its methods are safe for
// concurrent use and return freshet.KindNotLeader while Run is not running.
type Engine struct {
	journal Journal
	state   State
	storage Storage
	lookAt  func(ctx context.Context, p freshet.Path) error
	nodes   *placement.Nodes
	clock   clock.Clock
	log     *slog.Logger
	metrics *metrics
	opts    Options
	origin  time.Duration // reading of the clock when the engine was made

	mu    sync.Mutex
	lead  *lead         // nil while this member does not lead
	begun chan struct{} // closed while it does
}

// lead is one term of leadership.
type lead struct {
	term    uint64
	ctx     context.Context //nolint:containedctx // it is the term: it ends with it
	group   *run.Group
	wake    chan struct{}
	persist chan struct{} // asks for a look at the queue of what is to be persisted

	mu      sync.Mutex
	flights map[freshet.OpID]*flight
	tracks  map[freshet.OpID]*track
	fences  map[freshet.OpID]fence
	ending  map[freshet.OpID]int      // how many calls are about to end a write
	forced  map[freshet.OpID]struct{} // of which there is no track yet
	begins  int                       // proposed and not answered yet
	keeps   map[freshet.FileID]*keepOrder
	fixed   map[freshet.NodeID]int64 // see keptSums
}

// New returns an Engine. It starts nothing.
func New(d Deps, opts Options) *Engine {
	opts.setDefaults()
	e := &Engine{journal: d.Journal, state: d.State, storage: d.Storage, lookAt: d.Look, nodes: d.Nodes, clock: d.Clock, log: d.Log, opts: opts, begun: make(chan struct{})}
	if e.clock == nil {
		e.clock = clock.Real{}
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.origin = e.clock.Elapsed()
	e.metrics = newMetrics(d.Metrics)
	return e
}

// now returns the time since the engine was made, always above zero.
func (e *Engine) now() time.Duration { return e.clock.Elapsed() - e.origin + 1 }

// Run does the leader's part until ctx ends, which it must when the leadership
// does: it forgets what earlier leaders heard from the nodes, takes over the
// intents, carries out operations and resolves those without a writer. Call it
// once the first barrier of the term has been applied (C18). It returns after all
// it started has ended, nil if ctx ended. Only one Run may run at a time.
func (e *Engine) Run(ctx context.Context, term uint64) error {
	group := run.NewGroup(ctx)
	l := &lead{
		term: term, ctx: group.Context(), group: group, wake: make(chan struct{}, 1), persist: make(chan struct{}, 1),
		flights: map[freshet.OpID]*flight{}, tracks: map[freshet.OpID]*track{}, fences: map[freshet.OpID]fence{}, ending: map[freshet.OpID]int{}, forced: map[freshet.OpID]struct{}{},
	}
	e.nodes.Reset(e.clock.Elapsed())
	e.adopt(l)
	e.mu.Lock()
	if e.lead != nil {
		e.mu.Unlock()
		return freshet.Errorf(freshet.KindInternal, "lead", "", "the term %d began while that before it had not ended", term)
	}
	e.lead = l
	close(e.begun)
	e.mu.Unlock()
	defer e.metrics.rest()
	group.Go("resolve operations", func(ctx context.Context) error { return e.watch(ctx, l) })
	group.Go("persist files", func(ctx context.Context) error { return e.persistFiles(ctx, l) })
	group.Go("forget outcomes", func(ctx context.Context) error { return e.forgetOutcomes(ctx, l) })
	<-l.ctx.Done()
	e.mu.Lock()
	e.lead, e.begun = nil, make(chan struct{})
	e.mu.Unlock()
	return group.Wait()
}

// Begun waits until Run carries out operations. The error is that of ctx.
func (e *Engine) Begun(ctx context.Context) error {
	e.mu.Lock()
	begun := e.begun
	e.mu.Unlock()
	select {
	case <-begun:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leader returns the term that this member leads.
func (e *Engine) leader(op string) (*lead, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lead == nil || e.lead.ctx.Err() != nil {
		return nil, freshet.Errorf(freshet.KindNotLeader, op, "", "this member does not lead the cluster, or has just begun to")
	}
	return e.lead, nil
}

// start runs fn in the term's group, unless the term is over.
func (e *Engine) start(l *lead, name string, fn func(ctx context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lead != l || l.ctx.Err() != nil {
		return false
	}
	l.group.Go(name, func(ctx context.Context) error { fn(ctx); return nil })
	return true
}

// Wake has the intents looked at now instead of at the next tick. It never blocks.
func (e *Engine) Wake() {
	e.mu.Lock()
	l := e.lead
	e.mu.Unlock()
	if l != nil {
		l.poke()
	}
}

func (l *lead) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// propose proposes one command. The error is that of the proposal or the state's
// refusal.
func (e *Engine) propose(ctx context.Context, cmd namespace.Command) (namespace.Result, error) {
	results, err := e.journal.Propose(ctx, cmd)
	if err != nil {
		return namespace.Result{}, err
	}
	return results[0], results[0].Err
}

// settle proposes a command that must not get lost while this member leads: it is
// safe to propose it twice.
func (e *Engine) settle(ctx context.Context, cmd namespace.Command) (namespace.Result, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		results, err := e.journal.Propose(ctx, cmd)
		if err == nil {
			return results[0], results[0].Err
		}
		if !freshet.IsKind(err, freshet.KindUnavailable, freshet.KindExhausted, freshet.KindDeadline) {
			return namespace.Result{}, err
		}
		select {
		case <-ctx.Done():
			return namespace.Result{}, err
		case <-e.clock.After(wait):
		}
	}
}
