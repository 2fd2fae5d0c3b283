package metasync

import (
	"context"
	"iter"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// A storage of objects lists a whole tree for as little as one directory: a
// request per page. In the order of sort keys all that is below a directory
// follows it ("a-b" < "a/" < "a/b" < "a/c/" < "a/c/d" < "a0"), so such a listing is
// a walk, depth first, in which each directory comes in the order in which its own
// listing would come. It is compared by one diff for each directory on the way from
// the root to the entry at hand.
//
// It pays where directories are small. Where they are large it saves no request
// and does one after the other what listings by directory do beside each other. So
// every portion, which is a segment, shows whether the rest is worth it, see pays.
// If not, the listings of the directories on the way go on by directory, from
// where they are, and no request was made in vain.

// flatSample is how many held entries of a directory say whether it is worth to
// list all below it.
const flatSample = 256

// flatly reports whether all below dir, which is to be listed, is listed at once:
//
//   - the storage can, and nothing else is mounted in it;
//   - it is not known that there are no directories;
//   - where MaxAge may spare directories: it does not spare most of those in dir.
func (w *walk) flatly(dir freshet.Path, l *namespace.Lookup) (bool, error) {
	if !w.opts.Recursive || l.Virtual {
		return false, nil
	}
	fs, release, err := w.s.Storage(l.Mount)
	if err != nil {
		return false, err
	}
	release()
	if !fs.Features().FlatList {
		return false, nil
	}
	mounts, _ := w.s.State.Mounts()
	for _, m := range mounts {
		if m.Path != dir && dir.Contains(m.Path) {
			return false, nil
		}
	}
	if !l.Listing.Complete {
		return true, nil
	}
	page, err := w.s.State.List(dir, "", flatSample)
	if err != nil {
		return false, err
	}
	dirs, spared := 0, 0
	for i := range page {
		if page[i].Info.Type != freshet.TypeDirectory {
			continue
		}
		dirs++
		if w.opts.MaxAge != freshet.Always {
			fresh, err := w.spares(page[i].Info.Path)
			if err != nil {
				return false, err
			}
			if fresh {
				spared++
			}
		}
	}
	return dirs > 2*spared, nil
}

// spares reports whether the listing of dir needs no look.
func (w *walk) spares(dir freshet.Path) (bool, error) {
	c := w.call
	w.s.reads(&c)
	l, err := w.s.State.Lookup(dir)
	return err == nil && w.s.judgeListing(dir, &l, c).Fresh, err
}

// flat is one listing of a tree.
type flat struct {
	w     *walk
	loads loads
	fs    ufs.FS
	look  *look[listingAnswer] // begun with the present segment
	way   []*diff              // from the root of the listing to the entry at hand
	over  []*diff              // listed to their end; to be settled when the loads are sent
	skip  string               // what begins with it is not shown
	at    ufs.Position         // of the listing
	last  ufs.Status           // that was taken
	dirs  int                  // directories of the present segment
	due   int                  // those of them that had to be listed
	next  []step               // to be done by others
	bad   error                // not of the storage
}

// flat lists all below dir, and returns what is left to be done by directory. Not
// listed: dir itself is to be looked at.
func (w *walk) flat(ctx context.Context, dir freshet.Path, l *namespace.Lookup) (next []step, listed bool, err error) {
	fs, release, err := w.s.Storage(l.Mount)
	if err != nil {
		return nil, false, err
	}
	defer release()
	f := &flat{w: w, fs: fs, loads: loads{s: w.s, least: listingBatch}}
	f.look = begin[listingAnswer](w.s)
	f.enter(dir, l)
	f.dirs = 0
	started := f.look.at
	defer func() { w.s.metrics.took("tree", w.s.opts.Clock.Elapsed()-started) }()
	page := fs.Features().ListPage
	segment := page * w.s.opts.SegmentPages
	for after := ""; ; {
		n, err := f.segment(ctx, segment, after)
		switch {
		case f.bad != nil:
			return f.failed(dir, l, f.bad)
		case ctx.Err() != nil:
			return nil, true, err
		case err != nil && after == "" && freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict):
			return nil, false, nil
		case freshet.IsKind(err, freshet.KindUnsupported): // out of order: to go on behind an entry would be wrong
			return nil, false, nil
		case err == nil && n < segment:
			if err := f.end(ctx); err != nil {
				return f.failed(dir, l, err)
			}
			return f.next, true, nil
		}
		if f.last.Key != "" {
			after = f.last.SortKey()
		}
		if err != nil || !f.pays() {
			if err := f.giveUp(ctx, after); err != nil {
				return f.failed(dir, l, err)
			}
			return f.next, true, nil
		}
		for _, d := range f.way {
			if err := d.flush(ctx, false); err != nil {
				return f.failed(dir, l, err)
			}
		}
		f.dirs, f.due = 0, 0
	}
}

// pays reports whether the segment that is over had at least so many directories
// that had to be listed that workers beside each other, half of them at any
// time, would have taken as long to list them. A directory that has shown none is
// listed the same either way.
func (f *flat) pays() bool {
	return f.due*2 >= f.w.s.opts.SegmentPages*f.w.s.opts.Parallel || f.dirs == 0 && len(f.way) == 1
}

// segment takes a part of the listing.
func (f *flat) segment(ctx context.Context, most int, after string) (n int, err error) {
	root := f.way[0]
	in := feed{s: f.w.s, mount: root.mount.ID, bite: f.fs.Features().ListPage, most: most}
	in.began = func() {
		f.look = begin[listingAnswer](f.w.s)
		for _, d := range f.way {
			d.start = f.look.index
		}
	}
	opts := ufs.ListOptions{Recursive: true, StartAfter: after, Position: &f.at}
	err = in.run(ctx, root.dir, func(ctx context.Context) iter.Seq2[ufs.Status, error] { return f.fs.List(ctx, root.key, opts) },
		func(st *ufs.Status) error {
			f.bad = f.take(ctx, st)
			f.last = *st
			return f.bad
		})
	return in.n, err
}

// failed is the answer for an error that is not the storage's. A mount that was
// changed meanwhile is listed anew.
func (f *flat) failed(dir freshet.Path, l *namespace.Lookup, err error) ([]step, bool, error) {
	now, lost := f.w.s.State.Lookup(dir)
	if lost == nil && now.HasMount && (now.Mount.ID != l.Mount.ID || now.Mount.Generation != l.Mount.Generation) {
		return append(f.next, step{dir: dir}), true, nil
	}
	return f.next, true, err
}

// take takes one entry.
func (f *flat) take(ctx context.Context, st *ufs.Status) error {
	if f.skip != "" && strings.HasPrefix(st.Key, f.skip) {
		return nil
	}
	for len(f.way) > 1 && !below(f.top().key, st.Key) {
		if err := f.leave(ctx); err != nil {
			return err
		}
	}
	top := f.top()
	shown, err := top.next(ctx, st)
	switch {
	case err != nil || !st.IsDir():
		return err
	case !shown:
		f.skip = st.Key + "/"
		return nil
	}
	dir := top.dir.Join(st.Key[strings.LastIndexByte(st.Key, '/')+1:])
	l, err := f.w.s.State.Lookup(dir)
	if err != nil {
		return err
	}
	if l.Mount.ID != top.mount.ID || l.Mount.Generation != top.mount.Generation {
		f.skip = st.Key + "/" // it is another mount's meanwhile
		return nil
	}
	if top.turned { // what is below it can't be loaded before
		if err := top.flush(ctx, false); err != nil {
			return err
		}
	}
	f.enter(dir, &l)
	return nil
}

func (f *flat) top() *diff { return f.way[len(f.way)-1] }

// below reports whether key is below the directory dir.
func below(dir, key string) bool {
	return len(key) > len(dir) && key[len(dir)] == '/' && key[:len(dir)] == dir
}

// enter begins with a directory.
func (f *flat) enter(dir freshet.Path, l *namespace.Lookup) {
	c := f.w.call
	f.w.s.reads(&c)
	if !f.w.s.judgeListing(dir, l, c).Fresh {
		f.due++
	}
	f.dirs++
	d := f.w.s.newDiff(dir, f.look, l)
	d.loads = &f.loads
	f.way = append(f.way, d)
}

// leave ends the directory at hand: nothing of it follows.
func (f *flat) leave(ctx context.Context) error {
	d := f.top()
	f.way = f.way[:len(f.way)-1]
	if err := d.rest(ctx); err != nil {
		return err
	}
	if err := d.end(ctx); err != nil {
		return err
	}
	f.over = append(f.over, d)
	if len(f.over) >= listingBatch {
		if err := f.loads.send(ctx); err != nil {
			return err
		}
	}
	return f.settle(ctx)
}

// settle records what was listed to its end, if nothing of it is still to be sent.
func (f *flat) settle(ctx context.Context) error {
	if len(f.loads.queue) > 0 {
		return nil
	}
	over := f.over
	f.over = nil
	for _, d := range over {
		if err := d.settle(); err != nil {
			return err
		}
		found := freshet.SyncProgress{Directories: 1}
		dirs, err := f.w.listedFlat(ctx, d, &found)
		f.w.count(func(pr *freshet.SyncProgress) {
			add(pr, &found)
			pr.Current = d.dir
		})
		f.next = append(f.next, dirs...)
		if err != nil {
			return err
		}
	}
	return nil
}

// end leaves all directories after the last entry.
func (f *flat) end(ctx context.Context) error {
	for len(f.way) > 0 {
		if err := f.leave(ctx); err != nil {
			return err
		}
	}
	if err := f.loads.send(ctx); err != nil {
		return err
	}
	return f.settle(ctx)
}

// giveUp leaves what is behind the sort key after to listings by directory.
func (f *flat) giveUp(ctx context.Context, after string) error {
	for _, d := range f.way {
		if err := d.flush(ctx, false); err != nil {
			return err
		}
	}
	if err := f.loads.send(ctx); err != nil {
		return err
	}
	if err := f.settle(ctx); err != nil {
		return err
	}
	for _, d := range f.way {
		d.loads = &loads{s: f.w.s}
		f.next = append(f.next, step{dir: d.dir, rest: d, beyond: after})
	}
	return nil
}

// goOn goes on with a listing that a flat one left, and with what is below it.
func (w *walk) goOn(ctx context.Context, at step) ([]step, freshet.SyncProgress, error) {
	found := freshet.SyncProgress{Directories: 1}
	d := at.rest
	fs, release, err := w.s.Storage(d.mount)
	if err != nil {
		return nil, found, err
	}
	defer release()
	if err := d.run(ctx, fs, at.beyond); err != nil {
		w.s.metrics.failed.Inc()
		w.s.count(resultFailed)
		return nil, found, err
	}
	a, err := d.finish(ctx)
	if err != nil {
		return nil, found, err
	}
	next, err := w.listedFlat(ctx, d, &found)
	if a.leaf {
		return next, found, err
	}
	rel := at.beyond
	if d.key != "" && rel != "" {
		rel = rel[len(d.key)+1:]
	}
	return append(next, step{dir: d.dir, expand: true, beyond: rel}), found, err
}

// listedFlat is listed for a directory of a flat listing. Of the entries that it
// does not vouch for it returns those that are directories: what is below them
// was not listed with them.
func (w *walk) listedFlat(ctx context.Context, d *diff, found *freshet.SyncProgress) ([]step, error) {
	found.Entries += d.answer.entries
	found.Changed += d.answer.changed
	if len(d.answer.doubts) == 0 {
		return nil, nil
	}
	dirs, changed, err := w.lookAt(ctx, d.dir, d.answer.doubts)
	found.Changed += changed
	steps := make([]step, len(dirs))
	for i := range dirs {
		steps[i].dir = dirs[i]
	}
	return steps, err
}
