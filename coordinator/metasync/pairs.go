package metasync

import (
	"context"
	"iter"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// Pair is one name directly below a directory, as the state holds it and as the
// storage lists it.
type Pair struct {
	Name string
	Held *namespace.Child // nil: the state does not hold it
	Got  *ufs.Status      // nil: the storage does not list it
	// Same: both have it, in the same version.
	Same bool
	// Unshown: the storage lists what can't be shown: it is neither a file nor a
	// directory, or its name can't be a name here. Held is nil.
	Unshown bool
}

// Compare calls each for every name that the state or the storage has directly
// below dir, of which l is the lookup, in the order of the storage's listing. It
// changes nothing, holds neither side as a whole, and leaves out mount points. A
// directory that the storage does not have is compared as an empty one, but for a
// mount's root, which is KindUnavailable. What each is given is valid until it
// returns; an error of it ends the comparison.
func (s *Syncer) Compare(ctx context.Context, dir freshet.Path, l *namespace.Lookup, each func(*Pair) error) error {
	fs, release, err := s.Storage(l.Mount)
	if err != nil {
		return err
	}
	defer release()
	c := comparison{key: l.Key, each: each}
	c.held.next = s.heldBelow(dir)
	f := feed{s: s, mount: l.Mount.ID, bite: fs.Features().ListPage, began: func() {}}
	err = f.run(ctx, dir, func(ctx context.Context) iter.Seq2[ufs.Status, error] { return fs.List(ctx, l.Key, ufs.ListOptions{}) }, c.next)
	switch {
	case c.failed != nil:
		return c.failed
	case freshet.IsKind(err, freshet.KindNotExist) && l.Key == "":
		return rootGone(dir)
	case err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict):
		return err
	}
	return c.before("")
}

func rootGone(dir freshet.Path) error {
	return freshet.Errorf(freshet.KindUnavailable, opList, dir, "the root of the mount is gone from the storage, or is not visible to it")
}

// heldBelow returns an iterator over the held children of dir in the order of their
// names, without mount points and the ways to them that are not held.
func (s *Syncer) heldBelow(dir freshet.Path) func() (held, bool, error) {
	var page []namespace.Child
	after, end := "", false
	return func() (held, bool, error) {
		for {
			for len(page) == 0 {
				if end {
					return held{}, false, nil
				}
				var err error
				if page, err = s.State.List(dir, after, childPage); err != nil {
					return held{}, false, err
				}
				if end = len(page) < childPage; !end {
					after = page[len(page)-1].Name
				}
			}
			c := page[0]
			page = page[1:]
			if c.Info.MountPoint || (c.Virtual && c.Info.Mount == 0) {
				continue
			}
			return held{name: c.Name, dir: c.Info.Type == freshet.TypeDirectory, child: c}, true, nil
		}
	}
}

// comparison is one pass over a listing and the held children.
type comparison struct {
	key    string // of the directory
	held   reorder
	hidden shadow
	each   func(*Pair) error
	failed error // of each or of the state, not of the listing
}

// next takes one entry of the storage's listing.
func (c *comparison) next(st *ufs.Status) error {
	c.failed = c.take(st)
	return c.failed
}

func (c *comparison) take(st *ufs.Status) error {
	name, ok := nameIn(c.key, st.Key)
	if !ok || st.Special != "" {
		return c.each(&Pair{Name: name, Got: st, Unshown: true}) // what is held under the name counts as gone
	}
	if c.hidden.hides(*st, name) {
		return nil
	}
	at := st.SortKey()
	if c.key != "" {
		at = at[len(c.key)+1:]
	}
	if err := c.before(at); err != nil {
		return err
	}
	p := Pair{Name: name, Got: st}
	h, err := c.held.peek()
	switch {
	case err != nil:
		return err
	case h != nil && h.sortKey() == at:
		child := h.child
		c.held.take()
		p.Held, p.Same = &child, !child.Placeholder && same(&child.Info, st)
	default:
		if h, ok := c.held.drop(name); ok { // a directory that became a file
			p.Held = &h.child
		}
	}
	return c.each(&p)
}

// before gives the held children before a sort key, all that are left if it is "".
func (c *comparison) before(at string) error {
	for {
		h, err := c.held.peek()
		if err != nil || h == nil || (at != "" && h.sortKey() >= at) {
			return err
		}
		child := h.child
		c.held.take()
		if err := c.each(&Pair{Name: child.Name, Held: &child}); err != nil {
			return err
		}
	}
}

// Absences returns up to limit of the paths at which a look of this term found
// nothing, from position from on, and the position to go on at; negative at the end.
// Those that come or go meanwhile may be missing.
func (s *Syncer) Absences(from, limit int) (paths []freshet.Path, next int) {
	a := s.mem.Load().absent
	a.mu.Lock()
	defer a.mu.Unlock()
	end := min(from+limit, len(a.ring))
	for i := from; i < end; i++ {
		paths = append(paths, a.ring[i].path)
	}
	if end == len(a.ring) {
		return paths, -1
	}
	return paths, end
}
