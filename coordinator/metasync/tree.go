package metasync

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

// reportEvery is how often a running sync reports.
const reportEvery = 250 * time.Millisecond

// Sync looks at p whatever its age: the entry and, of a directory, its listing,
// or everything below it if recursive, mounts in it too. It marks nothing. report
// is called now and then, by one goroutine at a time, and once with Done; an
// error of it cancels the sync. Directories that fail are counted and do not stop
// the others; the first failure is returned at the end.
func (s *Syncer) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	start := s.opts.Clock.Elapsed()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &walk{s: s, recursive: recursive, wake: make(chan struct{})}
	e, err := s.Entry(ctx, p, Fixed(freshet.Always))
	if err != nil {
		return err
	}
	w.progress.Entries++
	if e.Info.Type == freshet.TypeDirectory {
		w.push(p)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-tick.C:
			if err := report(w.snapshot(s.opts.Clock.Elapsed()-start, false)); err != nil {
				cancel(freshet.Errorf(freshet.KindDeadline, "sync", p, "cancelled: %w", err))
			}
		}
	}
	if ctx.Err() != nil {
		return &freshet.Error{Op: "sync", Path: p, Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
	}
	if err := report(w.snapshot(s.opts.Clock.Elapsed()-start, true)); err != nil {
		return freshet.Wrap("sync", p, err)
	}
	return w.first
}

// walk is a recursive sync.
type walk struct {
	s         *Syncer
	recursive bool

	mu       sync.Mutex
	stack    []freshet.Path
	busy     int
	wake     chan struct{} // closed and replaced when stack grows or the last worker ends
	progress freshet.SyncProgress
	first    error
}

func (w *walk) push(dirs ...freshet.Path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = append(w.stack, dirs...)
	close(w.wake)
	w.wake = make(chan struct{})
}

func (w *walk) snapshot(elapsed time.Duration, done bool) freshet.SyncProgress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.progress
	p.Elapsed, p.Done = elapsed, done
	return p
}

func (w *walk) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range w.s.opts.Parallel {
		wg.Go(func() {
			for {
				dir, ok := w.pop(ctx)
				if !ok {
					return
				}
				w.visit(ctx, dir)
			}
		})
	}
	wg.Wait()
}

// pop takes the directory that was found last, so that few wait.
func (w *walk) pop(ctx context.Context) (freshet.Path, bool) {
	for {
		w.mu.Lock()
		if n := len(w.stack); n > 0 && ctx.Err() == nil {
			dir := w.stack[n-1]
			w.stack = w.stack[:n-1]
			w.busy++
			w.progress.Current = dir
			w.mu.Unlock()
			return dir, true
		}
		idle, wake := w.busy == 0 || ctx.Err() != nil, w.wake
		w.mu.Unlock()
		if idle {
			return "", false
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return "", false
		}
	}
}

func (w *walk) visit(ctx context.Context, dir freshet.Path) {
	answer, err := w.s.forceListing(ctx, dir)
	if err == nil && w.recursive && !answer.leaf {
		err = w.descend(dir)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	w.progress.Directories++
	w.progress.Entries += answer.entries
	w.progress.Changed += answer.changed
	if err != nil && ctx.Err() == nil {
		w.progress.Failed++
		if w.first == nil {
			w.first = err
		}
	}
	close(w.wake)
	w.wake = make(chan struct{})
}

// descend puts the directories of dir on the stack.
func (w *walk) descend(dir freshet.Path) error {
	after := ""
	for {
		page, err := w.s.State.List(dir, after, childPage)
		if err != nil {
			return err
		}
		var dirs []freshet.Path
		for i := range page {
			if page[i].Info.Type == freshet.TypeDirectory {
				dirs = append(dirs, page[i].Info.Path)
			}
		}
		if len(dirs) > 0 {
			w.push(dirs...)
		}
		if len(page) < childPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

// forceListing looks at a listing in any case.
func (s *Syncer) forceListing(ctx context.Context, dir freshet.Path) (listingAnswer, error) {
	l, err := s.State.Lookup(dir)
	if err != nil || !l.HasMount {
		return listingAnswer{}, err // a virtual directory has nothing to look at
	}
	lk, err := s.lookAtListing(ctx, dir, l.Listing.Need, call{at: s.opts.Clock.Elapsed(), began: s.mem.Load().next(), interval: freshet.Always})
	if err != nil {
		return listingAnswer{}, err
	}
	switch a := lk.answer; {
	case a.absent && l.MountPoint:
		return a, freshet.Errorf(freshet.KindUnavailable, opList, dir, "the root of the mount is gone from the storage, or is not visible to it")
	default: // gone meanwhile, or a file: that is a finding, not a failure
		return lk.answer, nil
	}
}
