package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
	"github.com/freshet-io/freshet/internal/run"
)

// shedEvery is how often the watermarks are looked at without being asked: blocks
// of unknown length grow.
const shedEvery = time.Second

// promotion is a block that was read so often that it should move up.
type promotion struct {
	id   freshet.BlockID
	from *dir
}

// Run moves blocks between tiers, keeps space free, and takes directories out of
// service and puts them back, until ctx ends. It may be called once.
func (s *Store) Run(ctx context.Context) error {
	return run.Ordered(ctx,
		run.Part{Name: "tiers", Run: s.moveBlocks},
		run.Part{Name: "cache directories", Run: s.checkDirs},
	)
}

func (s *Store) moveBlocks(ctx context.Context) error {
	timer := s.opts.Clock.NewTimer(shedEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.promote:
			s.moveUp(p)
		case <-s.shedding:
			s.shed(ctx)
		case <-timer.C():
			s.shed(ctx)
			timer.Reset(shedEvery)
		}
	}
}

// noteRead asks for a block to move up that was read often enough.
func (s *Store) noteRead(d *dir, r *tier.Reader) {
	if d.level.at == 0 || r.Reads() < s.opts.PromoteReads {
		return
	}
	select {
	case s.promote <- promotion{r.ID(), d}:
	default: // it will be read again
	}
}

// watermarks returns how many bytes may be taken before blocks leave, and how many
// when enough have left.
func (d *dir) watermarks() (high, low int64) {
	c := d.tier.Load().Capacity()
	if d.level.Kind == Memory && d.level.at == len(d.store.levels)-1 {
		return c, c
	}
	const most = 4 << 30
	low = c - min(c/20, most)
	high = low + (c-low)/2
	if h := d.level.High; h > 0 {
		high = int64(h * float64(c))
	}
	if l := d.level.Low; l > 0 {
		low = int64(l * float64(c))
	}
	return high, min(low, high)
}

// shedIfHigh wakes Run if a directory is fuller than it should be.
func (s *Store) shedIfHigh(d *dir) {
	if high, _ := d.watermarks(); d.tier.Load().Used() > high {
		signal(s.shedding)
	}
}

// shed makes blocks leave the directories that are above their high watermark, the
// slowest tier first, so that those above find space there.
func (s *Store) shed(ctx context.Context) {
	for _, l := range slices.Backward(s.levels) {
		for _, d := range l.dirs {
			if st, _ := d.status(); st == stateFailed {
				continue
			}
			t := d.tier.Load()
			high, low := d.watermarks()
			if t.Used() <= high {
				continue
			}
			for t.Used() > low && ctx.Err() == nil && s.pushOut(d) {
			}
		}
	}
}

// pushOut makes one block leave the directory, to a slower tier if there is one;
// false if none can.
func (s *Store) pushOut(d *dir) bool {
	t := d.tier.Load()
	below := s.levels[d.level.at+1:]
	if len(below) == 0 {
		return t.Evict()
	}
	r, err := t.OpenVictim()
	if err != nil {
		return freshet.IsKind(err, freshet.KindCorrupt) // then it has left
	}
	if r == nil {
		return false
	}
	defer func() { _ = r.Close() }() //nolint:errcheck // only read from
	err = s.copyTo(below, d, r, true)
	if err != nil && !freshet.IsKind(err, freshet.KindExist) {
		s.opts.Log.Debug("a block could not move to a slower tier and is dropped", "error", err)
		r.Leave(tier.ReasonCapacity)
	}
	return true
}

// moveUp copies a block to the tier above, if that has free space. A copy in memory
// leaves the block on its disk, where a restart finds it; its way back costs
// nothing then.
func (s *Store) moveUp(p promotion) {
	t := p.from.tier.Load()
	r, err := t.OpenAny(p.id)
	if err != nil || r == nil {
		return
	}
	defer func() { _ = r.Close() }() //nolint:errcheck // only read from
	up := s.levels[p.from.level.at-1]
	if room(up, r.Length()) {
		if err := s.copyTo([]*level{up}, p.from, r, up.Kind != Memory); err != nil {
			s.opts.Log.Debug("a block could not move to a faster tier", "error", err)
		}
	}
}

// room reports whether a directory of the tier has free space for so many bytes.
func room(l *level, n int64) bool {
	for _, d := range l.byFree() {
		if d.free() > n+n/1024+4096 {
			return true
		}
	}
	return false
}

// copyTo copies the block to one of the levels; leave says that it leaves where it
// was. KindExist: it was there already, and has left if it should.
func (s *Store) copyTo(levels []*level, from *dir, r *tier.Reader, leave bool) error {
	for _, l := range levels {
		for _, d := range l.dirs {
			if s.lookup(r.ID()).dirs&d.bit != 0 {
				if leave {
					s.moveMu.Lock()
					defer s.moveMu.Unlock()
					r.Leave(tier.ReasonMoved)
				}
				return freshet.Errorf(freshet.KindExist, "move block", "", "the block is in both tiers")
			}
		}
	}
	w, to, err := s.createIn(levels, r.ID(), r.Length())
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := r.CopyTo(w, 0, r.Length()); err != nil {
		return err
	}
	if err := s.finish(w, to, r, leave); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved(from.level.Kind, to.level.Kind)
	return nil
}

// finish makes the copy a block, takes what is known of the original over, and
// undoes it if the original was removed meanwhile: it is not wanted any more.
func (s *Store) finish(w *tier.Writer, to *dir, r *tier.Reader, leave bool) error {
	if err := w.Seal(r.Meta()); err != nil { // which may wait for the disk
		return err
	}
	s.moveMu.Lock()
	defer s.moveMu.Unlock()
	if err := w.Commit(r.Meta()); err != nil {
		return err
	}
	held, pinned := r.Held()
	if held && leave {
		r.Leave(tier.ReasonMoved)
	}
	switch t := to.tier.Load(); {
	case !held:
		t.Remove(r.ID())
	case pinned:
		t.Pin(false, r.ID().File)
	}
	return nil
}

// checkDirs looks at the directories whenever one has failed, and from time to time
// at those that are out of service. It waits for none of them: one that does not
// answer may take long.
func (s *Store) checkDirs(ctx context.Context) error {
	timer := s.opts.Clock.NewTimer(s.opts.CheckEvery)
	defer timer.Stop()
	var running sync.WaitGroup
	defer running.Wait() // an access has a time limit
	for {
		again := false
		select {
		case <-ctx.Done():
			return nil
		case <-s.checking:
		case <-timer.C():
			timer.Reset(s.opts.CheckEvery)
			again = true
		}
		for _, d := range s.dirs {
			if d.level.Kind == Memory || ctx.Err() != nil || !d.checked.CompareAndSwap(false, true) {
				continue
			}
			running.Go(func() {
				s.check(d, again)
				d.checked.Store(false)
				if st, _ := d.status(); st != stateFailed && d.suspect.Load() { // it failed again since
					signal(s.checking)
				}
			})
		}
	}
}

// check finds out what a directory is good for. again says that those that are out
// of service get another chance.
func (s *Store) check(d *dir, again bool) {
	st, _ := d.status()
	if st == stateFailed {
		if again {
			s.reopen(d)
		}
		return
	}
	if !d.suspect.Swap(false) && !(st == stateFull && again) {
		return
	}
	t := d.tier.Load()
	if d.noSpace.Load() {
		// Somebody else uses the disk too: leave it some of what blocks take.
		for low := t.Used() - t.Used()/20 - (1 << 20); t.Used() > low && t.Evict(); {
		}
	}
	err := t.Probe()
	d.suspect.Store(false) // of the probe's own making
	log := s.opts.Log.With("directory", d.spec.Path, "tier", string(d.level.Kind))
	switch {
	case err == nil:
		if st == stateFull {
			log.Info("the cache directory has space again")
		}
		d.setFull(false, nil)
	case freshet.IsKind(err, freshet.KindExhausted):
		if st != stateFull {
			log.Warn("the disk of a cache directory is full: it serves its blocks and takes no others until there is space; give it a smaller size", "error", err)
		}
		d.setFull(true, err)
	default:
		log.Error("a cache directory fails and is out of service; its blocks are read from elsewhere", "error", err)
		d.fail(err)
	}
}

// reopen puts a directory back into service if it works again.
func (s *Store) reopen(d *dir) {
	log := s.opts.Log.With("directory", d.spec.Path, "tier", string(d.level.Kind))
	if t := d.tier.Load(); t != nil {
		if t.Stuck() {
			return // it does not answer yet
		}
		_ = t.Close() //nolint:errcheck // only the lock, which is taken again
	}
	if err := d.open(); err != nil {
		log.Debug("the cache directory is still out of service", "error", err)
		d.fail(err)
		return
	}
	log.Info("the cache directory works again and is back in service", "bytes", d.tier.Load().Used())
}
