package metasync

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
)

// reportEvery is how often a running sync reports.
const reportEvery = 250 * time.Millisecond

const opSync = "sync"

// SyncOptions guide a sync.
type SyncOptions struct {
	// Recursive includes everything below the path, mounts in it too. The looks
	// of a recursive sync are of the background, unless its context says otherwise.
	Recursive bool
	// MaxAge spares what was looked at that recently and not marked since: a
	// directory that was is not listed again, those below it are considered each
	// by itself. Always, which is zero, spares nothing.
	MaxAge freshet.Interval
}

// Sync looks at p: the entry and, of a directory, its listing, or everything
// below it. It marks nothing. report is called now and then, by one goroutine at
// a time, and once with Done; an error of it ends the caller's part in the sync.
// Directories that fail are counted and do not stop the others; the first failure
// is returned at the end.
//
// One sync of a path and depth runs at a time. Who comes while one runs shares it
// under the rule of all looks: nothing that it covers was marked since it began,
// and it began late enough, by MaxAge. Else the next one is shared by all who
// wait for it.
func (s *Syncer) Sync(ctx context.Context, p freshet.Path, opts SyncOptions, report func(freshet.SyncProgress) error) error {
	start := s.opts.Clock.Elapsed()
	if opts.Recursive && urgencyOf(ctx) == nil {
		ctx = WithClass(ctx, ClassBackground)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var shared atomic.Pointer[walk]
	done := make(chan error, 1)
	go func() { done <- s.share(ctx, p, opts, &shared) }()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return freshet.Wrap(opSync, p, err)
			}
			w := shared.Load()
			if err := report(w.snapshot(s.opts.Clock.Elapsed()-start, true)); err != nil {
				return freshet.Wrap(opSync, p, err)
			}
			return w.failure()
		case <-tick.C:
			if w := shared.Load(); w != nil && ctx.Err() == nil {
				if err := report(w.snapshot(s.opts.Clock.Elapsed()-start, false)); err != nil {
					cancel(freshet.Errorf(freshet.KindDeadline, opSync, p, "cancelled: %w", err))
				}
			}
		}
	}
}

// share takes part in the sync of p that runs, or starts one, and returns when it
// has ended. The walk is known before that.
func (s *Syncer) share(ctx context.Context, p freshet.Path, opts SyncOptions, shared *atomic.Pointer[walk]) error {
	c := s.call()
	c.interval = opts.MaxAge
	need, err := s.State.Newest(p)
	if err != nil {
		return err
	}
	which := s.syncs[0]
	if opts.Recursive {
		which = s.syncs[1]
	}
	k, joined, err := which.do(ctx, p,
		func(k *look[struct{}]) bool {
			may := mayShare(k, s.mem.Load(), need, c)
			if may {
				shared.Store(k.walk)
			}
			return may
		},
		func() *look[struct{}] {
			k := begin[struct{}](s)
			k.walk = newWalk(s, opts, call{at: k.at, began: k.began, interval: opts.MaxAge})
			shared.Store(k.walk)
			return k
		},
		func(ctx context.Context, k *look[struct{}]) (struct{}, error) { return struct{}{}, k.walk.run(ctx, p) })
	if err != nil {
		return err
	}
	if joined {
		s.metrics.joined.Inc()
	}
	shared.Store(k.walk)
	return nil
}
