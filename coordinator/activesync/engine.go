// Package activesync owns how a cluster listens to the changes that its storages
// tell of themselves: which sources there are, one watch for each, where a watch
// goes on after a failure or under another leader, and whether a source can be
// trusted to be heard now. What it hears becomes marks through the same door as
// the news of other clusters.
//
// It runs on the leader only. It never believes a notice (a notice marks, the
// next look decides), never publishes what it heard to other clusters, and never
// says that a source is heard before everything that it may have missed is marked.
package activesync

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/internal/run"
	"github.com/freshet-io/freshet/ufs"
)

// Options are the settings of an Engine; the zero value is usable.
type Options struct {
	// Batch bounds the changes of one log entry; 1000 by default.
	Batch int
	// First and Most bound the wait after a watch that failed; it doubles, give or
	// take a half. 200 ms and 15 s by default.
	First, Most time.Duration
	// Silence makes a source deaf; ufs.WatchSilence by default.
	Silence time.Duration
	// CursorEvery is how often a cursor is kept while nothing changes; 30 s by
	// default. Changes always take theirs along.
	CursorEvery time.Duration
	// Reopen is how often a mount whose source is not known is tried again; 10 s by
	// default.
	Reopen time.Duration
	// Check is how often storages are asked whether they tell their sources; a
	// minute by default.
	Check time.Duration
}

func (o Options) withDefaults() Options {
	setDefault(&o.Batch, 1000)
	setDefault(&o.First, 200*time.Millisecond)
	setDefault(&o.Most, 15*time.Second)
	setDefault(&o.Silence, ufs.WatchSilence)
	setDefault(&o.CursorEvery, 30*time.Second)
	setDefault(&o.Reopen, 10*time.Second)
	setDefault(&o.Check, time.Minute)
	return o
}

func setDefault[T int | time.Duration](value *T, def T) {
	if *value <= 0 {
		*value = def
	}
}

// State is what of the replicated state the Engine reads.
type State interface {
	WatchCursor(source string) (namespace.WatchCursor, bool)
	WatchCursors() []namespace.WatchCursor
}

// Deps are what an Engine works with. Clock, Log and Metrics may be nil.
type Deps struct {
	State State
	// Mounts returns the mounts, and a channel that is closed when they change.
	Mounts func() ([]freshet.Mount, <-chan struct{})
	// Storage returns the storage of a mount; release it when done.
	Storage func(m freshet.Mount) (fs ufs.FS, release func(), err error)
	// Propose replicates commands and returns the first refusal.
	Propose func(ctx context.Context, cmds ...namespace.Command) ([]namespace.Result, error)
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Engine listens to the sources of all mounts with active sync. It is safe for
// concurrent use.
type Engine struct {
	deps    Deps
	opts    Options
	clock   clock.Clock
	log     *slog.Logger
	metrics *metrics

	// ears is what Run listens with, by mount; nil while nothing runs.
	ears atomic.Pointer[hearing]
	// posting is held while a post is applied.
	posting sync.Mutex
}

// hearing is what one term listens with. It is replaced, never changed.
type hearing struct {
	term  uint64
	ears  map[freshet.MountID]ear
	hooks map[freshet.DomainID]*hook
	// posted are the mounts that listen to what is posted.
	posted []user
}

// ear is what a mount hears its storage by.
type ear interface {
	// of is the generation of the mount.
	of() uint64
	// heard is asked at each look at an entry: it must be quick.
	heard() (complete, ok bool)
	status() freshet.ActiveSyncStatus
}

// New returns an Engine that listens to nothing until Run.
func New(deps Deps, opts Options) *Engine {
	if deps.Clock == nil {
		deps.Clock = clock.Real{}
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{deps: deps, opts: opts.withDefaults(), clock: deps.Clock, log: deps.Log, metrics: newMetrics(deps.Metrics)}
}

// Heard reports whether the source of a mount, as it is in the given generation, is
// heard in the term, and whether it tells of every change.
func (e *Engine) Heard(mount freshet.MountID, generation, term uint64) (complete, ok bool) {
	h := e.ears.Load()
	if h == nil || h.term != term {
		return false, false
	}
	at := h.ears[mount]
	if at == nil || at.of() != generation { // it was changed, and is not listened for yet
		return false, false
	}
	return at.heard()
}

// Status returns how the source of a mount is heard in the term.
func (e *Engine) Status(mount freshet.MountID, term uint64) freshet.ActiveSyncStatus {
	if h := e.ears.Load(); h != nil && h.term == term && h.ears[mount] != nil {
		return h.ears[mount].status()
	}
	return freshet.ActiveSyncStatus{Source: "its storage", Reason: "not heard yet: this leader has only begun to listen", SinceNotice: -1, Lag: -1, Connecting: true}
}

// Run listens until ctx, the leadership of the term, ends.
func (e *Engine) Run(ctx context.Context, term uint64) error {
	defer e.ears.Store(nil)
	g := run.NewGroup(ctx)
	g.Go("sources of notices", func(ctx context.Context) error { return e.keepSources(ctx, g, term) })
	return g.Wait()
}

// keepSources starts and stops watches as the mounts change; what goes on to be
// used is left alone.
func (e *Engine) keepSources(ctx context.Context, g *run.Group, term uint64) error {
	running := map[string]*source{}
	planned := make(chan struct{}, 1)
	g.Go("check sources of notices", func(ctx context.Context) error { return e.checkSources(ctx, planned) })
	defer func() {
		for _, s := range running {
			s.stop()
		}
	}()
	for {
		mounts, changed := e.deps.Mounts()
		p := e.plan(mounts)
		for id, s := range running {
			if next := p.sources[id]; next == nil || !next.same(s) {
				s.stop()
				delete(running, id)
			}
		}
		for id, s := range p.sources {
			if running[id] != nil {
				s.release()
				p.sources[id] = running[id]
				continue
			}
			running[id] = s
			s.serve(p.users[id])
			s.start(ctx, g)
		}
		for id, s := range running {
			s.serve(p.users[id])
		}
		e.ears.Store(e.listen(p, term))
		select {
		case planned <- struct{}{}:
		default:
		}
		e.forget(ctx, p)
		var again <-chan time.Time
		if !p.whole {
			again = e.clock.After(e.opts.Reopen)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// listen gives each mount of a plan its ear. Hooks are kept from one plan to the
// next, for they know when something was posted.
func (e *Engine) listen(p plan, term uint64) *hearing {
	hooks := map[freshet.DomainID]*hook{}
	if old := e.ears.Load(); old != nil {
		hooks = old.hooks
	}
	h := &hearing{term: term, ears: map[freshet.MountID]ear{}, hooks: map[freshet.DomainID]*hook{}}
	for id, s := range p.sources {
		for _, u := range p.users[id] {
			h.ears[u.ID] = sourceEar{source: s, user: u}
		}
	}
	for _, m := range p.hooks {
		h.posted = append(h.posted, m)
		at := cmp.Or(h.hooks[m.Domain], hooks[m.Domain])
		if at == nil {
			at = newHook(e.clock)
		}
		h.hooks[m.Domain] = at
		h.ears[m.ID] = hookEar{hook: at, generation: m.Generation, most: maxSilence(m.Mount)}
	}
	for id, why := range p.broken {
		h.ears[id] = why
	}
	return h
}

// forget drops the cursors of sources that no mount names any more. While a mount
// can't say what it names, none is dropped.
func (e *Engine) forget(ctx context.Context, p plan) {
	if !p.whole {
		return
	}
	for _, c := range e.deps.State.WatchCursors() {
		if p.sources[c.Source] != nil {
			continue
		}
		e.drop(ctx, c.Source)
	}
}

// drop drops the cursor of a source.
func (e *Engine) drop(ctx context.Context, source string) {
	_, err := e.deps.Propose(ctx, namespace.Command{ForgetWatch: &namespace.ForgetWatch{Source: source}})
	if err != nil && ctx.Err() == nil && !freshet.IsKind(err, freshet.KindNotExist) {
		e.log.Warn("the cursor of a source of notices was not dropped", "source", source, "error", err)
	}
}
