package metasync

import (
	"context"
	"iter"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// listingAnswer is what a look at one listing found out.
type listingAnswer struct {
	entries, changed int64
	absent, file     bool
	// leaf: neither the storage nor the state has a directory in it.
	leaf     bool
	complete bool // the state holds the listing as complete and true as of the look
	// doubts are the names that changed while the listing was looked at: what the
	// state holds, or does not hold, under them is not the listing's word.
	doubts []string
}

const (
	opList = "list"
	// listingBatch is how many differences are proposed in one command.
	listingBatch = 256
	// childPage is how many held children are read at once.
	childPage = 512
)

// Listing makes the listing of dir fresh under the rule: children that the
// state holds are those that the storage lists, each as it lists it, unless they
// were marked since. It returns the judgement and whether the storage was asked.
// KindNotExist and KindConflict (a file) are the storage's word.
func (s *Syncer) Listing(ctx context.Context, dir freshet.Path, rule Rule) (Verdict, bool, error) {
	v, asked, _, err := s.listing(ctx, dir, rule)
	return v, asked, err
}

// listing is Listing, and returns the names that are to be looked at one by one,
// whether they are held or not.
func (s *Syncer) listing(ctx context.Context, dir freshet.Path, rule Rule) (Verdict, bool, []string, error) {
	c := s.call()
	for try := 1; ; try++ {
		s.reads(&c)
		l, err := s.State.Lookup(dir)
		if err != nil {
			return Verdict{}, try > 1, nil, err
		}
		c.interval = rule(&l)
		v, done, err := s.heldListing(dir, &l, c)
		if done || err != nil {
			s.prefetch.use(ctx, dir, true)
			return v, try > 1, nil, err
		}
		lk, err := s.lookAtListing(ctx, dir, l.Listing.Need, c)
		if err != nil {
			return v, true, nil, err
		}
		s.prefetch.listed(ctx, dir)
		switch a := lk.answer; {
		case a.absent && l.Unpersisted && l.Info.Type == freshet.TypeDirectory:
			return v, true, nil, nil // what is below it is not in the storage yet
		case a.absent && !l.MountPoint && !l.Virtual:
			return v, true, nil, freshet.Errorf(freshet.KindNotExist, opList, dir, "does not exist")
		case a.absent && !l.MountPoint:
			return v, true, nil, nil // only mount points are below it
		case a.absent:
			return v, true, nil, freshet.Errorf(freshet.KindUnavailable, opList, dir, "the root of the mount is gone from the storage, or is not visible to it")
		case a.file:
			return v, true, nil, freshet.Errorf(freshet.KindConflict, opList, dir, "is not a directory")
		}
		if l.Listing.Uncachable || try >= s.opts.Attempts {
			// Children that changed meanwhile are looked at one by one.
			return v, true, lk.answer.doubts, nil
		}
	}
}

// lookAtListing makes or shares a look at a listing.
func (s *Syncer) lookAtListing(ctx context.Context, dir freshet.Path, need uint64, c call) (*look[listingAnswer], error) {
	lk, joined, err := s.listings.do(ctx, dir, func(k *look[listingAnswer]) bool { return mayShare(k, s.mem.Load(), need, c) },
		func() *look[listingAnswer] { return begin[listingAnswer](s) },
		func(ctx context.Context, k *look[listingAnswer]) (listingAnswer, error) { return s.list(ctx, dir, k) })
	if joined {
		s.metrics.joined.Inc()
	}
	return lk, freshet.Wrap(opList, dir, err)
}

// heldListing answers from the state if that is allowed.
func (s *Syncer) heldListing(dir freshet.Path, l *namespace.Lookup, c call) (Verdict, bool, error) {
	if !l.HasMount && !l.Virtual {
		return Verdict{}, true, freshet.Errorf(freshet.KindNotExist, opList, dir, "no storage is mounted there")
	}
	if v := s.judgeListing(dir, l, c); v.Fresh {
		return v, true, nil
	}
	if v := s.judgeAbsent(l, c); v.Fresh && !l.Found {
		s.metrics.servedAbsent(&v)
		return v, true, freshet.Errorf(freshet.KindNotExist, opList, dir, "does not exist")
	}
	if l.Found && !l.Placeholder && l.Info.Type == freshet.TypeFile {
		if v := s.judgeEntry(dir, l, c); v.Fresh {
			return v, true, freshet.Errorf(freshet.KindConflict, opList, dir, "is not a directory")
		}
	}
	return Verdict{Age: -1, Need: l.Listing.Need}, false, nil
}

// list asks the storage for the listing of dir and makes the state agree.
func (s *Syncer) list(ctx context.Context, dir freshet.Path, k *look[listingAnswer]) (listingAnswer, error) {
	defer func() { s.metrics.took("listing", s.opts.Clock.Elapsed()-k.at) }()
	s.prefetch.begins(ctx)
	l, err := s.State.Lookup(dir)
	if err != nil {
		return listingAnswer{}, err
	}
	fs, release, err := s.Storage(l.Mount)
	if err != nil {
		return listingAnswer{}, err
	}
	defer release()
	d := s.newDiff(dir, k, &l)
	d.passMounts()
	err = d.run(ctx, fs, "")
	switch {
	case err == nil:
		return d.finish(ctx)
	case freshet.IsKind(err, freshet.KindNotExist):
		d.answer.absent = true
	case freshet.IsKind(err, freshet.KindConflict):
		d.answer.file = true
	default:
		s.metrics.failed.Inc()
		s.count(resultFailed)
		return d.answer, err
	}
	return d.answer, s.notDirectory(ctx, dir, k)
}

// notDirectory lets a look at the entry itself record what it is, if it is held
// as something else.
func (s *Syncer) notDirectory(ctx context.Context, dir freshet.Path, k *look[listingAnswer]) error {
	l, err := s.State.Lookup(dir)
	if err != nil || !l.Found || l.MountPoint {
		return err
	}
	e := &look[entryAnswer]{index: k.index, at: k.at, began: k.began, mem: k.mem}
	_, err = s.lookAt(ctx, dir, e)
	return err
}

// diff compares one listing of a storage with the children that are held, in one
// pass, and proposes the differences.
type diff struct {
	s      *Syncer
	dir    freshet.Path
	key    string
	mount  freshet.Mount
	k      *look[listingAnswer]
	start  uint64 // applied index before the present segment was asked for
	held   reorder
	hidden shadow
	points map[string]bool // names at which mounts are: the storage has no say
	loads  *loads
	whole  bool // the listing was complete before
	// special: the storage lists what is neither a file nor a directory; known:
	// the state says so.
	special, known bool

	batch   namespace.LoadListing
	pending []string // of the kinds of the batch, for metrics
	doubts  []string // names that the listing does not vouch for
	sent    bool
	turned  bool // a file became a directory, which is in the batch
	answer  listingAnswer
}

func (s *Syncer) newDiff(dir freshet.Path, k *look[listingAnswer], l *namespace.Lookup) *diff {
	d := &diff{s: s, dir: dir, key: l.Key, mount: l.Mount, k: k, start: k.index, whole: l.Listing.Complete, known: l.Listing.Special, loads: &loads{s: s}}
	d.answer.leaf = true
	d.held.next = d.children()
	return d
}

// passMounts leaves the places of mounts below the directory to these.
func (d *diff) passMounts() {
	d.points = map[string]bool{}
	mounts, _ := d.s.State.Mounts()
	for _, m := range mounts {
		if m.Path == d.dir || !d.dir.Contains(m.Path) {
			continue
		}
		d.answer.leaf = false
		if m.Path.Parent() == d.dir {
			d.points[m.Path.Base()] = true
		}
	}
}

// children returns an iterator over the held children in the order of names.
func (d *diff) children() func() (held, bool, error) {
	var page []namespace.Child
	after, end, size := "", false, childPage/16 // most directories are small
	return func() (held, bool, error) {
		for {
			if len(page) == 0 {
				if end {
					return held{}, false, nil
				}
				var err error
				if page, err = d.s.State.List(d.dir, after, size); err != nil {
					return held{}, false, err
				}
				if end = len(page) < size; len(page) == 0 {
					return held{}, false, nil
				}
				after, size = page[len(page)-1].Name, min(2*size, childPage)
			}
			c := page[0]
			page = page[1:]
			if d.points[c.Name] || c.Info.MountPoint {
				continue
			}
			isDir := c.Info.Type == freshet.TypeDirectory
			d.answer.leaf = d.answer.leaf && !isDir
			return held{name: c.Name, dir: isDir, child: c}, true, nil
		}
	}
}

// run goes through the storage's listing behind the sort key after. Where the
// storage lists by pages the listing is asked for in segments of whole pages.
func (d *diff) run(ctx context.Context, fs ufs.FS, after string) error {
	page := fs.Features().ListPage
	segment := page * d.s.opts.SegmentPages
	opts := ufs.ListOptions{StartAfter: after, Position: new(ufs.Position)}
	for {
		f := feed{s: d.s, mount: d.mount.ID, bite: page, most: segment}
		f.began = func() { d.start = d.s.State.Applied() }
		err := f.run(ctx, d.dir, func(ctx context.Context) iter.Seq2[ufs.Status, error] { return fs.List(ctx, d.key, opts) },
			func(st *ufs.Status) error {
				_, err := d.next(ctx, st)
				return err
			})
		switch {
		case err != nil:
			return err
		case segment == 0 || f.n < segment:
			return d.rest(ctx)
		}
		if err := d.flush(ctx, false); err != nil {
			return err
		}
		opts.StartAfter = f.last
	}
}

// next takes one entry of the storage's listing and reports whether it is the
// directory's to show.
func (d *diff) next(ctx context.Context, st *ufs.Status) (bool, error) {
	name, ok := nameIn(d.key, st.Key)
	if !ok || st.Special != "" {
		d.special = d.special || st.Special != ""
		d.skip(st)
		return false, nil // what is held under the name counts as gone
	}
	if d.points[name] || d.hidden.hides(*st, name) {
		return false, nil
	}
	d.s.prefetch.entry(ctx, name)
	d.answer.entries++
	d.answer.leaf = d.answer.leaf && !st.IsDir()
	at := st.SortKey()
	if d.key != "" {
		at = at[len(d.key)+1:]
	}
	for {
		h, err := d.held.peek()
		if err != nil {
			return true, err
		}
		if h == nil || h.sortKey() > at {
			break
		}
		c := *h
		d.held.take()
		if c.sortKey() == at {
			return true, d.both(ctx, &c.child, st)
		}
		if err := d.gone(ctx, &c.child); err != nil {
			return true, err
		}
	}
	d.held.drop(name) // a directory that became a file: replaced, not removed
	return true, d.upsert(ctx, name, st, resultAdded)
}

func (d *diff) skip(st *ufs.Status) {
	d.s.metrics.skipped.Inc()
	if !d.s.special.Swap(true) {
		d.s.opts.Log.Warn("the storage holds entries that can't be shown; see freshet_sync_skipped_total",
			"directory", string(d.dir), "key", st.Key, "special", st.Special)
	}
}

// both compares an entry that the state and the storage have.
func (d *diff) both(ctx context.Context, c *namespace.Child, st *ufs.Status) error {
	if c.ValidFrom == namespace.Unshakable || !c.Placeholder && same(&c.Info, st) {
		d.s.count(resultUnchanged)
		return nil
	}
	return d.upsert(ctx, c.Name, st, resultChanged)
}

func (d *diff) upsert(ctx context.Context, name string, st *ufs.Status, result string) error {
	if d.outdated(name) {
		return nil
	}
	if i := slices.Index(d.batch.Removes, name); i >= 0 { // a file that became a directory
		d.batch.Removes = slices.Delete(d.batch.Removes, i, i+1)
		d.turned = true
	}
	d.batch.Upserts = append(d.batch.Upserts, *entryOf(name, st))
	return d.add(ctx, result)
}

// gone takes a child that the storage did not list. What the state learned of it
// after the listing began stays.
func (d *diff) gone(ctx context.Context, c *namespace.Child) error {
	if c.Virtual || c.Unpersisted { // (C8)
		return nil
	}
	if c.ValidFrom > d.start || c.Need > d.start || d.outdated(c.Name) {
		d.doubts = append(d.doubts, c.Name)
		return nil
	}
	d.batch.Removes = append(d.batch.Removes, c.Name)
	return d.add(ctx, resultRemoved)
}

// outdated reports whether a look at the child that began later than this one
// found another answer: then this one is not news.
func (d *diff) outdated(name string) bool {
	if d.k.mem.entry(d.dir.Join(name)).index <= d.start {
		return false
	}
	d.doubts = append(d.doubts, name)
	return true
}

func (d *diff) add(ctx context.Context, result string) error {
	d.pending = append(d.pending, result)
	if len(d.pending) < listingBatch {
		return nil
	}
	return d.flush(ctx, false)
}

// rest takes the children behind the end of the storage's listing.
func (d *diff) rest(ctx context.Context) error {
	for {
		h, err := d.held.peek()
		if err != nil || h == nil {
			return err
		}
		c := h.child
		d.held.take()
		if err := d.gone(ctx, &c); err != nil {
			return err
		}
	}
}

// flush hands over what has gathered.
func (d *diff) flush(ctx context.Context, complete bool) error {
	if len(d.pending) == 0 && !complete {
		return nil
	}
	d.batch.Mount, d.batch.Generation, d.batch.Dir = d.mount.ID, d.mount.Generation, d.dir
	d.batch.Start, d.batch.ListStart, d.batch.Complete = d.start, d.k.index, complete
	d.batch.Special = complete && d.special
	load := load{d: d, listing: d.batch, results: d.pending}
	d.sent, d.turned = true, false
	d.batch, d.pending = namespace.LoadListing{}, nil
	return d.loads.add(ctx, &load)
}

// finish ends the listing: it is declared complete if it was not or something
// differed, and its validation is recorded.
func (d *diff) finish(ctx context.Context) (listingAnswer, error) {
	if err := d.end(ctx); err != nil {
		return d.answer, err
	}
	if err := d.loads.send(ctx); err != nil {
		return d.answer, err
	}
	return d.answer, d.settle()
}

// end hands over the last of the listing.
func (d *diff) end(ctx context.Context) error {
	d.answer.complete = true
	if d.sent || len(d.pending) > 0 || !d.whole || d.special != d.known {
		return d.flush(ctx, true)
	}
	return nil
}

// settle records the validation, after all loads were installed or refused.
func (d *diff) settle() error {
	now, err := d.s.State.Lookup(d.dir)
	switch {
	case err != nil:
		return err
	case now.Mount.ID != d.mount.ID || now.Mount.Generation != d.mount.Generation:
		return freshet.Errorf(freshet.KindUnavailable, "sync", d.dir, "the mount was changed meanwhile; try again")
	}
	for _, name := range d.doubts {
		d.k.mem.doubt(d.dir.Join(name))
	}
	d.k.mem.listed(d.dir, d.k.record())
	d.answer.doubts = d.doubts
	return nil
}
