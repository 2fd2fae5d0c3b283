package coordinator

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// The TTL of a policy: what nobody used for that long is dropped from the state,
// and with its version the nodes' blocks of it. The storage is not touched, and
// the next access asks it.
//
// The clock of an entry counts from its last use that this leader saw in its
// term: a stat, the opening for a read, or a listing that has it; and from the
// moment that it was loaded or changed, by whomever. A check with the storage that
// none of these asked for (`sync now`, say) and that found nothing new is no use. A new leader counts from the beginning of its term, so
// that a change of leader keeps things longer, never shorter. What is pinned, what
// an operation works on and directories that still hold something stay.

// uses remembers what was used when, by the hash of its path: two paths of one
// hash keep each other alive, which is no harm. Records are kept in two
// generations, as those of validations are, and what was forgotten counts as used
// until it was known: nothing is dropped too early.
type uses struct {
	seed maphash.Seed

	mu         sync.Mutex
	young, old map[uint64]time.Duration
	since      [2]time.Duration // when old, and young, were begun
	marks      []useMark        // the oldest first
	swept      map[freshet.Path]time.Duration
}

// useMark says how far the log was at a moment.
type useMark struct {
	at      time.Duration
	applied uint64
}

// maxUses bounds a generation: about 20 MB.
const maxUses = 1 << 20

// begin forgets everything: a term begins.
func (u *uses) begin(now time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seed = maphash.MakeSeed()
	u.young, u.old = map[uint64]time.Duration{}, map[uint64]time.Duration{}
	u.since = [2]time.Duration{now, now}
	u.marks, u.swept = nil, map[freshet.Path]time.Duration{}
}

// hash returns the key of a path or, with a slash behind it, of a listing.
func (u *uses) hash(p freshet.Path, listing bool) uint64 {
	var h maphash.Hash
	h.SetSeed(u.seed)
	_, _ = h.WriteString(string(p)) // a hash does not fail
	if listing {
		_ = h.WriteByte('/') // as above
	}
	return h.Sum64()
}

func (u *uses) note(now time.Duration, p freshet.Path, listing bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.young == nil {
		return // this member never led
	}
	if len(u.young) >= maxUses {
		u.old, u.young = u.young, map[uint64]time.Duration{}
		u.since = [2]time.Duration{u.since[1], now}
	}
	u.young[u.hash(p, listing)] = now
}

// usedSince reports whether p, or the listing that has it, was used at cutoff or
// later, as far as that is not known to be otherwise.
func (u *uses) usedSince(cutoff time.Duration, p freshet.Path) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if cutoff < u.since[0] {
		return true
	}
	for _, h := range []uint64{u.hash(p, false), u.hash(p, true), u.hash(p.Parent(), true)} {
		for _, gen := range []map[uint64]time.Duration{u.young, u.old} {
			if at, ok := gen[h]; ok && at >= cutoff {
				return true
			}
		}
	}
	return false
}

// tick notes how far the log is now. Marks are kept the denser the younger they
// are: one of about the age that is asked for is there, within an eighth.
func (u *uses) tick(m useMark) {
	u.mu.Lock()
	defer u.mu.Unlock()
	kept := []useMark{m}
	for i, old := range slices.Backward(u.marks) {
		last := kept[len(kept)-1]
		if i == 0 || last.at-u.marks[i-1].at > (m.at-u.marks[i-1].at)/8 {
			kept = append(kept, old)
		}
	}
	slices.Reverse(kept)
	u.marks = kept
}

// before returns the newest mark that is at least age old.
func (u *uses) before(now, age time.Duration) (useMark, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range slices.Backward(u.marks) {
		if now-m.at >= age {
			return m, true
		}
	}
	return useMark{}, false
}

// due reports whether a path with that ttl is to be looked through again, and
// notes that it is.
func (u *uses) due(now, ttl time.Duration, p freshet.Path) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	last, ok := u.swept[p]
	if ok && now-last < ttl/8 {
		return false
	}
	u.swept[p] = now
	return true
}

// used notes a use of p if a TTL applies there.
func (c *Coordinator) used(p freshet.Path, listing bool) {
	e, _ := c.state.EffectiveAt(p)
	c.usedUnder(e.TTL, p, listing)
}

// usedUnder is used where the TTL is known.
func (c *Coordinator) usedUnder(ttl freshet.Interval, p freshet.Path, listing bool) {
	if ttl > 0 {
		c.uses.note(c.clock.Elapsed(), p, listing)
	}
}

// usedPage notes a use of what a listing gave.
func (c *Coordinator) usedPage(q freshet.ListQuery, page *freshet.ListPage) {
	c.used(q.Path, true)
	if !q.Recursive {
		return
	}
	for i := range page.Entries {
		if page.Entries[i].Type == freshet.TypeDirectory {
			c.used(page.Entries[i].Path, true)
		}
	}
}

// expireOnce drops what the TTLs of all paths no longer keep.
func (c *Coordinator) expireOnce(ctx context.Context) error {
	now := c.clock.Elapsed()
	c.uses.tick(useMark{at: now, applied: c.state.Applied()})
	own := c.ttlPaths()
	for p, ttl := range own {
		mark, old := c.uses.before(now, ttl)
		if !old || !c.uses.due(now, ttl, p) {
			continue
		}
		s := sweep{c: c, own: own, root: p, cutoff: mark.at, before: mark.applied}
		if _, err := s.below(ctx, p); err != nil {
			return err
		}
		if s.dropped > 0 {
			c.metrics.expired.Add(float64(s.dropped))
			c.log.Debug("entries that nobody used were dropped from the cache", "path", string(p), "entries", s.dropped, "ttl", ttl)
		}
	}
	return nil
}

// ttlPaths returns the paths that set a TTL, with 0 for those that set none to be.
func (c *Coordinator) ttlPaths() map[freshet.Path]time.Duration {
	own := map[freshet.Path]time.Duration{}
	for _, p := range c.state.Policies() {
		if slices.ContainsFunc(p.Settings, func(s namespace.PolicySetting) bool { return s.Property == freshet.PropertyTTL }) {
			e, _ := c.state.EffectiveAt(p.Path)
			own[p.Path] = max(time.Duration(e.TTL), 0)
		}
	}
	for p, ttl := range own {
		if ttl == 0 {
			own[p] = neverExpires
		}
	}
	return own
}

// neverExpires stands for no TTL.
const neverExpires = time.Duration(freshet.MaxInterval) + 1

// sweep looks once through what is below a path that sets a TTL, but for what
// other paths set below it.
type sweep struct {
	c       *Coordinator
	own     map[freshet.Path]time.Duration
	root    freshet.Path
	cutoff  time.Duration // nothing used since then may go
	before  uint64        // nor what was loaded since this index
	dropped int
}

// sweepPage is how many children are read, and dropped in one command.
const sweepPage = 256

// below drops what is too old below dir and reports whether nothing held stays
// there.
func (s *sweep) below(ctx context.Context, dir freshet.Path) (bool, error) {
	l, err := s.c.state.Lookup(dir)
	if err != nil {
		return false, err
	}
	none := true
	for after := ""; ; {
		children, err := s.c.state.List(dir, after, sweepPage)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		var names []string
		for i := range children {
			gone, err := s.old(ctx, &children[i])
			if err != nil {
				return false, err
			}
			if gone {
				names = append(names, children[i].Name)
			}
		}
		dropped, err := s.drop(ctx, &l, dir, names)
		if err != nil {
			return false, err
		}
		none = none && dropped == len(children)
		if len(children) < sweepPage {
			return none, nil
		}
		after = children[len(children)-1].Name
	}
}

// old reports whether a child may go, after what is below it was looked through.
func (s *sweep) old(ctx context.Context, ch *namespace.Child) (bool, error) {
	p := ch.Info.Path
	if _, other := s.own[p]; other {
		return false, nil // it is looked through by itself
	}
	empty := true
	if ch.Info.Type == freshet.TypeDirectory {
		var err error
		if empty, err = s.below(ctx, p); err != nil {
			return false, err
		}
	}
	if !empty || ch.Virtual || ch.ValidFrom >= s.before || s.c.uses.usedSince(s.cutoff, p) {
		return false, nil
	}
	e, _ := s.c.state.EffectiveAt(p)
	return !e.Pinned, nil
}

func (s *sweep) drop(ctx context.Context, dir *namespace.Lookup, p freshet.Path, names []string) (int, error) {
	if len(names) == 0 || !dir.HasMount {
		return 0, nil
	}
	r, err := s.c.one(ctx, namespace.Command{Expire: &namespace.Expire{
		Mount: dir.Mount.ID, Generation: dir.Mount.Generation, Dir: p, Names: names, Before: s.before,
	}})
	s.dropped += r.Dropped
	return r.Dropped, err
}
