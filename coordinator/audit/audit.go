// Package audit owns the comparison of what a cluster has cached with what its
// storages hold, in both directions, and says of each difference whether a read
// would be answered with it. It asks storages and never changes one; it changes the
// state only to repair, by a mark and a look like any other.
package audit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/internal/clock"
)

const opCheck = "check"

// Options are the settings of an Auditor. The zero value is usable.
type Options struct {
	// Parallel is how many directories one check compares at once, and how many
	// entries of each it looks at again; 0 is 4. All of it is background work of the
	// syncer, which bounds the calls to storages.
	Parallel int
	// Batch is how many differences are gathered before they are looked at again;
	// 0 is 256.
	Batch int
	// ReportEvery is how often a check tells its progress; 0 is 250 ms.
	ReportEvery time.Duration
	// Pace, if not nil, is called for each entry that is compared, and waits as long
	// as the comparison is to take. An error of it ends the comparison.
	Pace  func() error
	Clock clock.Clock
}

// Deps are what an Auditor works with. All are required.
type Deps struct {
	Sync *metasync.Syncer
	Rule metasync.Rule
	// Barrier returns when a read of the state is linearizable.
	Barrier func(ctx context.Context) error
	// Mark invalidates one path.
	Mark func(ctx context.Context, p freshet.Path) error
	// Busy reports whether an operation that has not ended concerns the path.
	Busy func(p freshet.Path) bool
	// Coming says which news of other clusters is known to be on its way, "" if
	// none is.
	Coming func(m *freshet.Mount) string
	// Blocks returns the cached blocks of a version.
	Blocks func(f freshet.FileID) []freshet.ExplainedBlock
	// Damage returns what cache nodes found damaged of a version, and Evict has them
	// drop what they hold of it.
	Damage func(f freshet.FileID) freshet.Damage
	Evict  func(f freshet.FileID)
}

// Auditor compares. It is safe for concurrent use and has no goroutine of its own
// but those of running checks.
type Auditor struct {
	Deps
	opts Options
}

// New returns an Auditor.
func New(deps Deps, opts Options) *Auditor {
	if opts.Parallel <= 0 {
		opts.Parallel = 4
	}
	if opts.Batch <= 0 {
		opts.Batch = 256
	}
	if opts.ReportEvery <= 0 {
		opts.ReportEvery = 250 * time.Millisecond
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	return &Auditor{Deps: deps, opts: opts}
}

// errLimit ends a check that has reported enough.
var errLimit = errors.New("the limit of reported differences was reached")

// Check compares what lies at and below q.Path. report is called for each
// difference and now and then with the progress, by one goroutine at a time, and
// once at the end with Done; an error of it cancels the check. KindNotExist means
// that the path is neither cached nor in a storage. What can't be compared is
// counted, does not stop the rest, and its first error is returned at the end; a
// storage that does not answer ends the check.
func (a *Auditor) Check(ctx context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	began := a.opts.Clock.Elapsed()
	ctx, cancel := context.WithCancelCause(metasync.WithClass(ctx, metasync.ClassBackground))
	defer cancel(nil)
	r := &run{Auditor: a, q: q, report: report, began: began, cancel: cancel, helpers: make(chan struct{}, a.opts.Parallel-1)}
	done := make(chan error, 1)
	go func() { done <- r.start(ctx) }()
	tick := a.opts.Clock.NewTimer(a.opts.ReportEvery)
	defer tick.Stop()
	var err error
	for running := true; running; {
		select {
		case err = <-done:
			running = false
		case <-tick.C():
			r.tell()
			tick = a.opts.Clock.NewTimer(a.opts.ReportEvery)
		}
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLimit):
		r.progress.Limited = true
	case r.stopped != nil:
		return r.stopped
	case cause != nil:
		return &freshet.Error{Op: opCheck, Path: q.Path, Kind: freshet.KindDeadline, Err: cause}
	case err != nil:
		return err
	}
	r.progress.Done = true
	r.tell()
	if r.unsaid != nil {
		return freshet.Wrap(opCheck, q.Path, r.unsaid)
	}
	return r.first
}

// run is one check.
type run struct {
	*Auditor

	q       freshet.CheckQuery
	report  func(freshet.CheckReport) error
	began   time.Duration
	cancel  context.CancelCauseFunc
	helpers chan struct{} // a slot for each goroutine beside the first
	entries atomic.Int64

	mu       sync.Mutex
	progress freshet.CheckProgress
	reported int64
	first    error // of what could not be compared
	stopped  error // what ended the check: a storage that does not answer
	unsaid   error // of report
}

// tell reports the progress.
func (r *run) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.say(nil)
}

// say is called with mu held.
func (r *run) say(d *freshet.Difference) {
	if r.unsaid != nil {
		return
	}
	p := r.progress
	p.Entries, p.Elapsed = r.entries.Load(), r.opts.Clock.Elapsed()-r.began
	if r.unsaid = r.report(freshet.CheckReport{Difference: d, Progress: p}); r.unsaid != nil {
		r.cancel(r.unsaid)
	}
}

// found counts a difference and reports it.
func (r *run) found(d *freshet.Difference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.q.Limit > 0 && r.reported >= r.q.Limit {
		return // found by another goroutine before it heard of the end
	}
	if d.Served {
		r.progress.Served++
	} else {
		r.progress.Excused++
	}
	if d.Repaired {
		r.progress.Repaired++
	}
	if !d.Served && !r.q.All && !r.q.Repair {
		return
	}
	r.say(d)
	if r.reported++; r.reported == r.q.Limit {
		r.cancel(errLimit)
	}
}

// failed counts what could not be compared.
func (r *run) failed(ctx context.Context, p freshet.Path, err error) {
	if ctx.Err() != nil {
		return // cut short, not failed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Failed++
	err = freshet.Wrap(opCheck, p, err)
	if r.first == nil {
		r.first = err
	}
	if freshet.IsKind(err, freshet.KindUnavailable, freshet.KindDeadline, freshet.KindNotLeader, freshet.KindExhausted) && r.stopped == nil {
		r.stopped = err
		r.cancel(err)
	}
}
