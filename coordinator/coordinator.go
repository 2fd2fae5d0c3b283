// Package coordinator owns the metadata service of a cluster: it composes the
// replicated state, its log, the looks at under-storage, the operations and the
// registry of cache nodes into what clients, nodes, operators and the bus ask of
// a coordinator. It is where a question becomes a decision: which rule applies,
// whether an answer may be given, and what has to happen first.
//
// It never talks to a network, except through the storages that are mounted and
// the journal's own connections: serving, forwarding to the leader and the bus
// between clusters belong to others, who know this package by the shape of its
// methods.
package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/activesync"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/leases"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/ufs"
)

// Options are the settings of a Coordinator. Member.ID, Cluster and the parts of
// Journal that its own comment requires are required.
type Options struct {
	// Cluster is the name of the cluster: it founds one of that name, and refuses
	// to serve one of another.
	Cluster string
	// Member is this member with the addresses that others reach it at.
	Member namespace.Member
	// Journal are the settings of the log. ID, Identity, OnApply, OnRestore, Log,
	// Metrics and Clock are set by New.
	Journal journal.Options
	// Found lists the members that found the cluster together, if this is the one
	// that does it (see journal.Bootstrapper). It is ignored when the member has
	// taken part in a cluster before.
	Found []journal.Server
	// Mounts, Policies and Quotas seed the state when the cluster is founded; later
	// changes come through the methods.
	Mounts   []freshet.MountChange
	Policies []freshet.PolicyChange
	Quotas   []freshet.QuotaChange

	// Environment is what this process allows when it opens storages.
	Environment ufs.Environment
	// Wrap, if not nil, is put around each storage that is opened, and WrapMount,
	// if not nil, around that.
	Wrap      func(ufs.FS) ufs.FS
	WrapMount func(freshet.Mount, ufs.FS) ufs.FS

	Sync      metasync.Options // Log, Metrics and Clock are set by New
	Ops       ops.Options
	Placement placement.Options
	State     namespace.Options

	// TokenWait is how long a read with a token of another cluster waits for it;
	// 2 s by default.
	TokenWait time.Duration
	// ProbeTimeout bounds the look at a storage that is to be mounted; 15 s by
	// default.
	ProbeTimeout time.Duration
	// Active are the settings of active sync.
	Active activesync.Options
	// Leases say for how long clients may keep answers. Clock and Metrics are set by
	// New.
	Leases leases.Options
	// Clean says when what dead writers left in the storages is ended.
	Clean Clean
	// Audit says how fast the leader compares what is cached with the storages.
	Audit Audit
	// Retention says what of the own logs is kept.
	Retention Retention
	// Tick is how often the leader tidies up; 5 s by default.
	Tick time.Duration
	// Version is shown to operators.
	Version string
	// Applies is the version of the state that this member says it applies;
	// namespace.Version by default. Less stands for an older release.
	Applies int
}

// Deps are what a Coordinator works with. Store and Openers are required.
type Deps struct {
	// Store keeps the state. Its owner closes it after Run, or Close, has returned.
	Store   kv.Store
	Openers ufs.Openers
	// Scratch makes an empty store for the time of a restore, as large as the state,
	// and what removes it; nil is memory.
	Scratch func() (store kv.Store, remove func() error, err error)
	Clock   clock.Clock           // nil is the machine's
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil counts for nobody
}

// Hooks are what the coordinator asks of parts that are built after it. Any may
// be nil. They must not block.
type Hooks struct {
	// Nudge asks the bus to hurry for news of a publisher.
	Nudge func(cluster freshet.ClusterID, domain freshet.DomainID)
	// Publishers returns what the bus knows of the publishers of a domain.
	Publishers func(domain freshet.DomainID) []freshet.PublisherStatus
	// Acked returns the lowest position that a live subscriber of an own log has
	// acknowledged; false if there is none.
	Acked func(domain freshet.DomainID) (uint64, bool)
	// Announce tells the leader, at its client address, who this member is. It may
	// take its time.
	Announce func(ctx context.Context, leader string, self freshet.Member) error
}

// Coordinator is one member's metadata service. Its methods are safe for
// concurrent use; those that only the leader can answer return
// freshet.KindNotLeader elsewhere.
type Coordinator struct {
	opts    Options
	openers ufs.Openers
	scratch func() (kv.Store, func() error, error)
	clock   clock.Clock
	log     *slog.Logger
	hooks   atomic.Pointer[Hooks]

	state   *namespace.State
	journal *journal.Journal
	mounts  *ufs.Mounts
	sync    *metasync.Syncer
	ops     *ops.Engine
	nodes   *placement.Nodes
	active  *activesync.Engine
	leases  *leases.Table
	holders holders
	metrics *metrics

	term     atomic.Uint64 // of the memory of validations
	contacts contacts
	watch    watch
	jobs     syncJobs
	warms    warmJobs
	roles    roles
	// membership is held by who changes the members and the rows of their
	// addresses, so that neither is changed between the two steps of another.
	membership sync.Mutex
	versions   versions
	restoring  sync.Mutex // one restore at a time
	lead       leadership
	freed      freedQueue
	pins       pins
	bounds     bounds    // of the copies of blocks
	uses       uses      // what a TTL counts from
	again      reminder  // to say once more that anything may have changed
	marks      marks     // the newest, with their causes
	answers    sync.Pool // of *metasync.Entry: they are large
	tops       tops
}

// New opens the state and the log and founds the cluster if it is asked to. It
// starts nothing: call Run, or Close.
func New(opts Options, deps Deps) (*Coordinator, error) {
	const op = "open coordinator"
	setDefault(&opts.TokenWait, 2*time.Second)
	setDefault(&opts.ProbeTimeout, 15*time.Second)
	setDefault(&opts.Tick, 5*time.Second)
	setDefault(&opts.Applies, namespace.Version)
	opts.Retention.setDefaults()
	opts.Clean.setDefaults()
	if deps.Clock == nil {
		deps.Clock = clock.Real{}
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Cluster == "" || opts.Member.ID == "" {
		return nil, freshet.Errorf(freshet.KindInvalid, op, "", "the cluster needs a name and the member an ID")
	}
	c := &Coordinator{opts: opts, openers: deps.Openers, scratch: deps.Scratch, clock: deps.Clock, log: deps.Log}
	c.hooks.Store(&Hooks{})
	c.contacts.init(deps.Clock)
	opts.Leases.Clock, opts.Leases.Metrics = deps.Clock, deps.Metrics
	c.leases = leases.New(opts.Leases)
	c.holders.turn = make(chan struct{}, 1)
	c.pins.changed() // nothing was read yet
	c.bounds.changed()
	c.lead.init()
	c.freed.init()
	var err error
	if c.state, err = namespace.Open(deps.Store, opts.State); err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	if v := c.state.Version(); v > opts.Applies {
		return nil, freshet.Errorf(freshet.KindUnsupported, op, "", "version %d of the state is in force, this member applies 1 to %d; upgrade it", v, opts.Applies)
	}
	if err := c.checkSeeds(); err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	c.mounts = ufs.NewMounts(deps.Openers, opts.Environment, ufs.MountsOptions{Wrap: opts.Wrap, WrapMount: opts.WrapMount, Log: deps.Log})
	if err := c.openJournal(deps); err != nil {
		return nil, freshet.Wrap(op, "", errors.Join(err, c.mounts.Close()))
	}
	opts.Sync.Log, opts.Sync.Metrics, opts.Sync.Clock = deps.Log, deps.Metrics, deps.Clock
	if opts.Sync.Prefetch.Rule == nil {
		opts.Sync.Prefetch.Rule = c.ruleOf(nil)
	}
	c.sync = metasync.New(metasync.Deps{State: c.state, Propose: c.commit, Storage: c.storage}, opts.Sync)
	c.nodes = placement.New(opts.Placement)
	c.ops = ops.New(ops.Deps{
		Journal: c.sync.Effects(c.commit), State: c.state, Storage: storages{c}, Nodes: c.nodes,
		Look: c.lookAt, Clock: deps.Clock, Log: deps.Log, Metrics: deps.Metrics,
	}, opts.Ops)
	c.active = activesync.New(activesync.Deps{
		State: c.state, Mounts: c.mountsAndChange, Storage: c.storage, Propose: c.propose,
		Clock: deps.Clock, Log: deps.Log, Metrics: deps.Metrics,
	}, opts.Active)
	c.warms.init(c)
	c.metrics = newMetrics(deps.Metrics, c)
	return c, nil
}

// checkSeeds refuses a configuration that can't found the cluster, or is that of
// another one, before anything runs.
func (c *Coordinator) checkSeeds() error {
	if id := c.state.Identity(); id.Cluster != (freshet.ClusterID{}) {
		if id.Name != c.opts.Cluster {
			return freshet.Errorf(freshet.KindConflict, "check cluster", "", "the data directory belongs to cluster %q, the configuration says %q", id.Name, c.opts.Cluster)
		}
		return nil
	}
	var planned []freshet.Mount
	for _, seed := range c.opts.Mounts {
		m, _, err := c.planMount(seed)
		if err == nil {
			err = checkBeside(m, planned)
		}
		if err != nil {
			return err
		}
		planned = append(planned, m)
	}
	for _, p := range c.opts.Policies {
		if _, err := c.seedPolicy(p); err != nil {
			return freshet.Wrap("check policy", "", err)
		}
	}
	for _, q := range c.opts.Quotas {
		if _, err := c.seedQuota(q); err != nil {
			return freshet.Wrap("check quota", "", err)
		}
	}
	return nil
}

func setDefault[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}

// openJournal opens the log and founds the cluster's log if that is due.
func (c *Coordinator) openJournal(deps Deps) error {
	o := c.opts.Journal
	o.ID, o.Log, o.Metrics, o.Clock = c.opts.Member.ID, deps.Log, deps.Metrics, deps.Clock
	o.Identity = func() freshet.ClusterID { return c.state.Identity().Cluster }
	o.OnApply, o.OnRestore, o.Gate = c.applied, c.restored, c.gate
	j, err := journal.Open(o, c.state)
	if err != nil {
		return err
	}
	has, err := j.HasState()
	if err == nil && !has && len(c.opts.Found) > 0 {
		err = j.Bootstrap(c.opts.Found)
	}
	if err != nil {
		return errors.Join(err, j.Close())
	}
	c.journal = j
	return nil
}

// Attach sets the hooks. Call it before Run.
func (c *Coordinator) Attach(h Hooks) { c.hooks.Store(&h) }

// Run takes part in the cluster until ctx ends and returns after all that it
// started has ended. An error means that this member can't go on and the process
// should end. It is called once.
func (c *Coordinator) Run(ctx context.Context) error {
	g := run.NewGroup(ctx)
	g.Cleanup("close storages", c.mounts.Close)
	g.Cleanup("await proposals", c.awaitSettled)
	g.Go("journal", c.journal.Run)
	g.Go("lead", c.runLeader)
	g.Go("open storages", c.keepMounts)
	g.Go("free blocks", c.runFreed)
	g.Go("announce", c.runAnnounce)
	return g.Wait()
}

// Close closes a coordinator that was not run.
func (c *Coordinator) Close() error { return errors.Join(c.journal.Close(), c.mounts.Close()) }

// applied is told of each log entry; it must not block.
func (c *Coordinator) applied(a journal.Applied) {
	c.noteMarks(&a)
	c.appliedLeases(a.Changes.Marked)
	c.watch.note(a.Changes)
	if a.Changes.Subs {
		c.contacts.changed()
	}
	c.freed.add(a.Changes.Freed)
	if a.Changes.Policies {
		c.pins.changed()
		c.bounds.changed()
	}
	if a.Changes.Nodes {
		c.roles.changed()
	}
	if a.Changes.Intents {
		c.ops.Wake()
	}
	if a.Changes.Unpersisted {
		c.ops.PersistNow()
	}
	c.ops.Withdrawn(a.Changes.Withdrawn)
}

// restored is told that the state was replaced by a copy. A leader's, by an operator:
// what it keeps in memory is of another state, so it begins anew as in a new term.
func (c *Coordinator) restored(uint64) {
	c.pins.changed()
	c.bounds.changed()
	c.roles.changed()
	c.term.Store(0)
	c.lead.anew(errRestored)
	c.contacts.changed()
	c.watch.note(namespace.Changes{Heads: true, Mounts: true, Policies: true, Epoch: true, Intents: true, Subs: true, Members: true, Jobs: true})
}

// storage returns the storage of a mount and opens it if this process has not
// done so yet, or has another generation.
func (c *Coordinator) storage(m freshet.Mount) (ufs.FS, func(), error) {
	fs, release, err := c.mounts.GetAt(m.ID, m.Generation)
	if err == nil {
		return fs, release, nil
	}
	if err := c.mounts.Put(m); err != nil {
		return nil, nil, unavailable("open storage", m.Path, err)
	}
	if fs, release, err = c.mounts.GetAt(m.ID, m.Generation); err != nil {
		return nil, nil, unavailable("open storage", m.Path, err)
	}
	return fs, release, nil
}

// unavailable hides kinds that would say something about the path.
func unavailable(op string, p freshet.Path, err error) error {
	if freshet.IsKind(err, freshet.KindNotExist, freshet.KindStale, freshet.KindExist, freshet.KindConflict, freshet.KindInvalid) {
		return &freshet.Error{Op: op, Path: p, Kind: freshet.KindUnavailable, Err: err}
	}
	return freshet.Wrap(op, p, err)
}

// storages is the coordinator's storages as the operations need them.
type storages struct{ c *Coordinator }

// Get implements ops.Storage.
func (s storages) Get(id freshet.MountID) (ufs.FS, func(), error) {
	m, ok := s.c.state.MountByID(id)
	if !ok {
		return nil, nil, freshet.Errorf(freshet.KindNotExist, "open storage", "", "mount %d was removed", id)
	}
	return s.c.storage(m)
}

// reopenEvery is how often a storage that could not be opened is tried again.
const reopenEvery = 10 * time.Second

// keepMounts opens and closes storages as the mount table changes, on every
// member, for each may come to lead. What can't be opened is tried again.
func (c *Coordinator) keepMounts(ctx context.Context) error {
	for {
		changed := c.watch.mounts.wait()
		mounts, _ := c.state.Mounts()
		if err := c.mounts.Set(mounts); err != nil {
			c.log.Warn("not all storages could be opened", "error", err)
		}
		if !c.awaitMounts(ctx, changed) {
			return nil
		}
	}
}

// awaitMounts waits for a change of the mount table and opens meanwhile what
// could not be opened; false at the end of ctx.
func (c *Coordinator) awaitMounts(ctx context.Context, changed <-chan struct{}) bool {
	for {
		again := c.clock.NewTimer(reopenEvery)
		select {
		case <-changed:
			again.Stop()
			return true
		case <-again.C():
			if err := c.mounts.Reopen(); err != nil {
				c.log.Debug("not all storages could be opened", "error", err)
			}
		case <-ctx.Done():
			again.Stop()
			return false
		}
	}
}

// freedQueue takes the versions that an entry freed to the registry of nodes,
// off the goroutine that applies.
type freedQueue struct {
	mu    sync.Mutex
	files []freshet.FileID
	wake  chan struct{}
}

func (q *freedQueue) init() { q.wake = make(chan struct{}, 1) }

func (q *freedQueue) add(files []freshet.FileID) {
	if len(files) == 0 {
		return
	}
	q.mu.Lock()
	q.files = append(q.files, files...)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (c *Coordinator) runFreed(ctx context.Context) error {
	for {
		select {
		case <-c.freed.wake:
		case <-ctx.Done():
			return nil
		}
		c.freed.mu.Lock()
		files := c.freed.files
		c.freed.files = nil
		c.freed.mu.Unlock()
		c.ops.Freed(files)
	}
}
