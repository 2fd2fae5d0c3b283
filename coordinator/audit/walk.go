package audit

import (
	"context"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

const (
	// childPage is how many held children are read at once.
	childPage = 512
	// oneByOne is up to how many held children of a directory that was never listed
	// completely are asked for one by one: beyond it, a listing costs less.
	oneByOne = 32
)

// start compares the path itself and then what lies below it.
func (r *run) start(ctx context.Context) error {
	l, err := r.Sync.State.Lookup(r.q.Path)
	switch {
	case err != nil:
		return err
	case !l.HasMount && !l.Virtual:
		return freshet.Errorf(freshet.KindNotExist, opCheck, r.q.Path, "no storage is mounted there")
	}
	if l.HasMount && !l.MountPoint && !l.Virtual {
		r.entries.Add(1)
		e, err := r.examine(ctx, r.q.Path)
		switch {
		case err != nil:
			r.failed(ctx, r.q.Path, err)
			return nil
		case !e.held && !e.exists && e.difference == nil:
			return freshet.Errorf(freshet.KindNotExist, opCheck, r.q.Path, "is neither cached nor in the storage")
		case e.difference != nil:
			r.conclude(ctx, e.difference)
		}
	}
	if l, err = r.Sync.State.Lookup(r.q.Path); err != nil {
		return err
	}
	switch {
	case l.Virtual || l.MountPoint || (l.Found && l.Info.Type == freshet.TypeDirectory):
		r.visit(ctx, r.q.Path)
	case !l.Found:
		r.mu.Lock()
		r.progress.NotLoaded++
		r.mu.Unlock()
	}
	r.absences(ctx)
	return nil
}

// absencePage is how many remembered absences are taken at once.
const absencePage = 256

// absences compares the paths at which a look found nothing, where no complete
// listing says so: readers are told that they do not exist.
func (r *run) absences(ctx context.Context) {
	b := batch{run: r, ctx: ctx}
	for at := 0; at >= 0 && ctx.Err() == nil; {
		var page []freshet.Path
		page, at = r.Sync.Absences(at, absencePage)
		for _, p := range page {
			if p == r.q.Path || !r.q.Path.Contains(p) || (!r.q.Recursive && p.Parent() != r.q.Path) {
				continue
			}
			parent, err := r.Sync.State.Lookup(p.Parent())
			if err != nil {
				r.failed(ctx, p, err)
				return
			}
			if parent.Listing.Complete {
				continue // its directory was compared
			}
			if r.count() != nil {
				return
			}
			if b.dir = p.Parent(); b.add(p.Base(), true) != nil || b.flush() != nil {
				return
			}
		}
	}
}

// visit compares a directory, and what is held below it if that is wanted: what is
// not held can't be served.
func (r *run) visit(ctx context.Context, dir freshet.Path) {
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	r.progress.Current = dir
	r.mu.Unlock()
	l, err := r.Sync.State.Lookup(dir)
	if err == nil && l.HasMount {
		err = r.directory(ctx, dir, &l)
	}
	if err == nil && r.q.Recursive {
		err = r.descend(ctx, dir)
	}
	if err != nil {
		r.failed(ctx, dir, err)
	}
}

// descend visits the held directories of dir, some beside the caller if there is
// room for it. So few wait, however many there are.
func (r *run) descend(ctx context.Context, dir freshet.Path) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for after, end := "", false; !end && ctx.Err() == nil; {
		page, err := r.Sync.State.List(dir, after, childPage)
		if err != nil {
			return err
		}
		if end = len(page) < childPage; !end {
			after = page[len(page)-1].Name
		}
		for i := range page {
			if page[i].Info.Type != freshet.TypeDirectory {
				continue
			}
			below := page[i].Info.Path
			select {
			case r.helpers <- struct{}{}:
				wg.Go(func() {
					defer func() { <-r.helpers }()
					r.visit(ctx, below)
				})
			default:
				r.visit(ctx, below)
			}
		}
	}
	return nil
}

// directory compares the children of dir.
func (r *run) directory(ctx context.Context, dir freshet.Path, l *namespace.Lookup) error {
	b := batch{run: r, ctx: ctx, dir: dir}
	whole := l.Listing.Complete
	r.mu.Lock()
	r.progress.Directories++
	if !whole {
		r.progress.NotLoaded++
	}
	r.mu.Unlock()
	if !whole {
		few, err := r.few(&b, dir)
		if few || err != nil {
			return err
		}
	}
	err := r.Sync.Compare(ctx, dir, l, func(p *metasync.Pair) error {
		if err := r.count(); err != nil {
			return err
		}
		switch {
		case p.Unshown:
			r.mu.Lock()
			r.progress.Skipped++
			r.mu.Unlock()
		case p.Held == nil && !whole, p.Held != nil && p.Held.Placeholder:
			// It was not loaded: a read looks.
		case p.Same:
			r.blocks(&p.Held.Info)
		default:
			return b.add(p.Name, p.Held == nil)
		}
		return ctx.Err()
	})
	if ferr := b.flush(); err == nil {
		err = ferr
	}
	if err == nil && b.repaired && whole {
		_, _, err = r.Sync.Listing(ctx, dir, metasync.Fixed(freshet.Never))
	}
	return err
}

// count counts an entry, in its time.
func (r *run) count() error {
	r.entries.Add(1)
	if r.opts.Pace == nil {
		return nil
	}
	return r.opts.Pace()
}

// few compares the held children of a directory that was never listed, one by one,
// if they are few. What of them is as the storage has it is counted as an entry too.
func (r *run) few(b *batch, dir freshet.Path) (bool, error) {
	page, err := r.Sync.State.List(dir, "", oneByOne+1)
	if err != nil || len(page) > oneByOne {
		return false, err
	}
	for i := range page {
		if page[i].Placeholder || page[i].Virtual {
			continue
		}
		if err := r.count(); err != nil {
			return true, err
		}
		if err := b.add(page[i].Name, false); err != nil {
			return true, err
		}
	}
	return true, b.flush()
}

// batch gathers what may differ, to look at it again: a listing is old news when it
// has come to its end, and what is held may have changed meanwhile.
type batch struct {
	run      *run
	ctx      context.Context //nolint:containedctx // it lives for one directory
	dir      freshet.Path
	names    []suspect
	repaired bool
}

type suspect struct {
	name string
	// only: the storage alone has it, under this type.
	only bool
}

func (b *batch) add(name string, only bool) error {
	b.names = append(b.names, suspect{name, only})
	if len(b.names) < b.run.opts.Batch {
		return nil
	}
	return b.flush()
}

// flush looks at what was gathered, several at once.
func (b *batch) flush() error {
	r := b.run
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := make(chan suspect)
	for range min(r.opts.Parallel, len(b.names)) {
		wg.Go(func() {
			for s := range next {
				p := b.dir.Join(s.name)
				e, err := r.examine(b.ctx, p)
				switch {
				case err != nil:
					r.failed(b.ctx, p, err)
				case e.difference == nil:
					r.blocks(e.cached)
				case s.only && e.difference.Class != freshet.DifferenceOnlyStorage:
					// It is held under another type, and was reported as such.
				default:
					fixed := r.conclude(b.ctx, e.difference)
					mu.Lock()
					b.repaired = b.repaired || fixed
					mu.Unlock()
				}
			}
		})
	}
	for _, s := range b.names {
		if b.ctx.Err() != nil {
			break
		}
		next <- s
	}
	close(next)
	wg.Wait()
	b.names = b.names[:0]
	return b.ctx.Err()
}
