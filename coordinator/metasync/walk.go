package metasync

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// walk is a sync on its way. Its looks are those of one call: what was looked at
// since it began, for whomever, is not looked at again.
type walk struct {
	s    *Syncer
	opts SyncOptions
	call call

	mu       sync.Mutex
	line     frontier
	busy     int
	wake     chan struct{} // closed and replaced when there is more to do, or nothing
	progress freshet.SyncProgress
	first    error // of the directories that failed
	fatal    error // ends the walk
}

// step is one thing to do: to look at a directory, or to go through a part of
// those in it.
type step struct {
	dir    freshet.Path
	expand bool
	after  string // of an expansion: the name to go on behind
	check  bool   // of an expansion: the listing was not made anew, so that each entry counts
	// beyond: of an expansion: directories up to that sort key, relative to dir, were
	// done with all below them.
	beyond string
	// rest is a listing to go on with behind beyond.
	rest *diff
}

func newWalk(s *Syncer, opts SyncOptions, c call) *walk {
	return &walk{s: s, opts: opts, call: c, line: frontier{most: s.opts.Frontier}, wake: make(chan struct{})}
}

func (w *walk) snapshot(elapsed time.Duration, done bool) freshet.SyncProgress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.progress
	p.Elapsed, p.Done = elapsed, done
	return p
}

// failure returns the first failure of a directory.
func (w *walk) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}

// run goes through p and, if it is wanted, all below it.
func (w *walk) run(ctx context.Context, p freshet.Path) error {
	e, err := w.s.entry(ctx, p, w.call)
	w.count(func(pr *freshet.SyncProgress) {
		pr.Current, pr.Entries = p, 1
		if e.Changed {
			pr.Changed = 1
		}
	})
	if err != nil || e.Info.Type != freshet.TypeDirectory {
		return err
	}
	w.line.push(step{dir: p})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range w.s.opts.Parallel {
		wg.Go(func() {
			for {
				at, ok := w.pop(ctx)
				if !ok {
					return
				}
				if w.do(ctx, at) {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fatal != nil {
		return w.fatal
	}
	return context.Cause(ctx)
}

func (w *walk) count(fn func(*freshet.SyncProgress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(&w.progress)
}

// pop takes the next step; false if there will be none.
func (w *walk) pop(ctx context.Context) (step, bool) {
	for {
		w.mu.Lock()
		if w.line.len() > 0 && ctx.Err() == nil {
			at := w.line.pop()
			w.busy++
			w.progress.Current = at.dir
			w.mu.Unlock()
			return at, true
		}
		idle, wake := w.busy == 0 || ctx.Err() != nil, w.wake
		w.mu.Unlock()
		if idle {
			return step{}, false
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return step{}, false
		}
	}
}

// do makes a step and reports whether the walk can't go on.
func (w *walk) do(ctx context.Context, at step) bool {
	var next []step
	var found freshet.SyncProgress
	var err error
	switch {
	case at.rest != nil:
		next, found, err = w.goOn(ctx, at)
	case at.expand:
		next, found, err = w.expand(ctx, at)
	default:
		next, found, err = w.visit(ctx, at.dir)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	pr := &w.progress
	add(pr, &found)
	fatal := false
	if err != nil && ctx.Err() == nil {
		pr.Failed++
		if w.first == nil {
			w.first = err
		}
		// Another member leads now: what is held here proves nothing any more.
		if fatal = freshet.IsKind(err, freshet.KindNotLeader); fatal && w.fatal == nil {
			w.fatal = err
		}
	}
	w.line.push(next...)
	close(w.wake)
	w.wake = make(chan struct{})
	return fatal
}

func add(to, p *freshet.SyncProgress) {
	to.Directories += p.Directories
	to.Fresh += p.Fresh
	to.Entries += p.Entries
	to.Changed += p.Changed
	to.Failed += p.Failed
}

// visit makes the listing of dir fresh and returns what is to be done below it.
func (w *walk) visit(ctx context.Context, dir freshet.Path) ([]step, freshet.SyncProgress, error) {
	found := freshet.SyncProgress{Directories: 1}
	below := []step{{dir: dir, expand: true}}
	if !w.opts.Recursive {
		below = nil
	}
	c := w.call
	w.s.reads(&c)
	l, err := w.s.State.Lookup(dir)
	switch {
	case err != nil:
		return nil, found, err
	case !l.HasMount: // a virtual directory has nothing to look at
		return below, found, nil
	case w.s.judgeListing(dir, &l, c).Fresh:
		found.Fresh = 1
		return []step{{dir: dir, expand: true, check: true}}, found, nil
	}
	if flat, err := w.flatly(dir, &l); flat || err != nil {
		if err != nil {
			return nil, found, err
		}
		next, listed, err := w.flat(ctx, dir, &l)
		if listed || err != nil {
			return next, freshet.SyncProgress{}, err
		}
	}
	lk, err := w.s.lookAtListing(ctx, dir, l.Listing.Need, w.call)
	if err != nil {
		return nil, found, err
	}
	a := &lk.answer
	switch {
	case a.absent && l.MountPoint:
		return nil, found, rootGone(dir)
	case a.absent && !l.Virtual, a.file: // gone meanwhile, or a file: that is a finding, not a failure
		return nil, found, nil
	}
	err = w.listed(ctx, dir, a, &found)
	if a.leaf && len(a.doubts) == 0 {
		below = nil
	}
	return below, found, err
}

// listed counts a listing and looks at the entries that it does not vouch for.
func (w *walk) listed(ctx context.Context, dir freshet.Path, a *listingAnswer, found *freshet.SyncProgress) error {
	_, changed, err := w.lookAt(ctx, dir, a.doubts)
	found.Entries += a.entries
	found.Changed += a.changed + changed
	return err
}

// expand goes through a page of what is held in a directory, looks at entries
// that are not known to be fresh if the listing is not new, and returns the
// directories among them and how to go on.
func (w *walk) expand(ctx context.Context, at step) ([]step, freshet.SyncProgress, error) {
	var found freshet.SyncProgress
	page, err := w.s.State.List(at.dir, at.after, childPage)
	if err != nil {
		return nil, found, err
	}
	var next []step
	if len(page) == childPage {
		next = append(next, step{dir: at.dir, expand: true, after: page[len(page)-1].Name, check: at.check, beyond: at.beyond})
	}
	if at.check {
		l, err := w.s.State.Lookup(at.dir)
		if err != nil {
			return next, found, err
		}
		var doubtful []string
		var vouched []namespace.Child
		mem := w.s.mem.Load()
		for i := range page {
			if page[i].Virtual || w.s.vouched(mem, &page[i], &l, w.call) {
				vouched = append(vouched, page[i])
			} else {
				doubtful = append(doubtful, page[i].Name)
			}
		}
		page, found.Entries = vouched, int64(len(doubtful))
		var dirs []freshet.Path
		dirs, found.Changed, err = w.lookAt(ctx, at.dir, doubtful)
		for i := 0; i < len(dirs) && w.opts.Recursive; i++ {
			next = append(next, step{dir: dirs[i]})
		}
		if err != nil {
			return next, found, err
		}
	}
	for i := range page {
		if w.opts.Recursive && page[i].Info.Type == freshet.TypeDirectory && (at.beyond == "" || page[i].Name+"/" > at.beyond) {
			next = append(next, step{dir: page[i].Info.Path})
		}
	}
	return next, found, nil
}

// lookAt looks at single entries of dir, several at once, and returns those that
// are directories, and how many changed. What is no entry any more is no failure.
func (w *walk) lookAt(ctx context.Context, dir freshet.Path, names []string) ([]freshet.Path, int64, error) {
	infos, keep := make([]freshet.Info, len(names)), make([]bool, len(names))
	which := make([]int, len(names))
	for i, name := range names {
		infos[i].Path, which[i], keep[i] = dir.Join(name), i, true
	}
	changed, err := w.s.lookAtEach(ctx, which, infos, keep, w.call)
	var dirs []freshet.Path
	for i := range infos {
		if keep[i] && infos[i].Type == freshet.TypeDirectory {
			dirs = append(dirs, infos[i].Path)
		}
	}
	return dirs, changed, err
}

// frontier holds the steps that are to be made. While they are few the oldest
// comes first, so that the walk goes breadth first; when they are many the newest,
// so that they do not become more but by a page per level.
type frontier struct {
	most  int
	steps []step
	head  int
}

func (f *frontier) len() int { return len(f.steps) - f.head }

// push adds steps, of which the first may be to go on with the directory that
// the others are in: it comes after them.
func (f *frontier) push(next ...step) {
	if len(next) > 1 && next[0].expand && f.len() < f.most {
		f.steps = append(append(f.steps, next[1:]...), next[0])
		return
	}
	f.steps = append(f.steps, next...)
}

func (f *frontier) pop() step {
	if f.len() >= f.most {
		at := f.steps[len(f.steps)-1]
		f.steps = f.steps[:len(f.steps)-1]
		return at
	}
	at := f.steps[f.head]
	f.steps[f.head] = step{}
	f.head++
	if f.head > 1024 && f.head > len(f.steps)/2 {
		f.steps = append([]step(nil), f.steps[f.head:]...)
		f.head = 0
	}
	return at
}
