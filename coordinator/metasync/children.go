package metasync

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Children returns up to limit entries of dir in byte order of their names, from
// the first after after, and whether there are more. The listing is made fresh
// under the rule first; a child that was marked since is looked at by itself.
// Whoever pages on gives Fixed(freshet.Never) for what follows the first page, so that
// one directory is not listed anew for each of its pages.
func (s *Syncer) Children(ctx context.Context, dir freshet.Path, after string, limit int, rule Rule) ([]freshet.Info, bool, error) {
	c := s.call()
	_, asked, doubts, err := s.listing(ctx, dir, rule)
	if err != nil {
		return nil, false, err
	}
	s.reads(&c)
	c.now = s.opts.Clock.Elapsed() // the listing may have taken its time
	l, err := s.State.Lookup(dir)
	if err != nil {
		return nil, false, err
	}
	c.interval = rule(&l)
	page, ok := s.pages.Get().(*[]namespace.Child)
	if !ok {
		page = new([]namespace.Child)
	}
	defer s.pages.Put(page)
	children, err := s.State.ListInto((*page)[:0], dir, after, limit+1)
	*page = children
	if err != nil {
		return nil, false, err
	}
	children = withDoubts(children, dir, doubts, after, limit)
	more := len(children) > limit
	if more {
		children = children[:limit]
	}
	infos := make([]freshet.Info, len(children))
	keep := make([]bool, len(children))
	var doubtful []int
	mem := s.mem.Load()
	for i := range children {
		ch := &children[i]
		ch.Info.FromCache = !asked
		infos[i], keep[i] = ch.Info, true
		if !ch.Virtual && !s.vouched(mem, ch, &l, c) {
			doubtful = append(doubtful, i)
		}
	}
	if _, err := s.lookAtEach(ctx, doubtful, infos, keep, call{at: c.at, began: c.began, interval: freshet.Never}); err != nil {
		return nil, false, err
	}
	out := infos[:0]
	for i := range infos {
		if keep[i] {
			out = append(out, infos[i])
		}
	}
	return out, more, nil
}

// withDoubts adds the names that a listing had and that could not be held, because
// they changed meanwhile, to the children behind after, of which limit+1 were asked
// for: the listing must not lack them.
func withDoubts(children []namespace.Child, dir freshet.Path, doubts []string, after string, limit int) []namespace.Child {
	for _, name := range doubts {
		if name <= after || (len(children) > limit && name > children[len(children)-1].Name) {
			continue
		}
		i, held := slices.BinarySearchFunc(children, name, func(c namespace.Child, name string) int { return strings.Compare(c.Name, name) })
		if !held {
			children = slices.Insert(children, i, namespace.Child{Name: name, Info: freshet.Info{Path: dir.Join(name)}, Placeholder: true})
		}
	}
	return children[:min(len(children), limit+1)]
}

// vouched reports whether the child may be shown as it is held.
func (s *Syncer) vouched(mem *memory, ch *namespace.Child, l *namespace.Lookup, c call) bool {
	if ch.Placeholder {
		return false
	}
	if l.Listing.Uncachable {
		now, err := s.State.Lookup(ch.Info.Path)
		if err != nil || now.Uncachable {
			return false
		}
	}
	return s.judge(ch.Freshness, mem.entry(ch.Info.Path), c).Fresh
}

// lookAtEach makes single entries fresh for a call, several at once, and returns
// for how many of them the state changed.
func (s *Syncer) lookAtEach(ctx context.Context, which []int, infos []freshet.Info, keep []bool, c call) (int64, error) {
	if len(which) == 0 {
		return 0, nil
	}
	var changed atomic.Int64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(s.opts.Parallel, len(which)) {
		wg.Go(func() {
			for i := range next {
				e, err := s.entry(ctx, infos[i].Path, c)
				if e.Changed {
					changed.Add(1)
				}
				switch {
				case err == nil:
					infos[i] = e.Info
				case freshet.IsKind(err, freshet.KindNotExist, freshet.KindConflict), errors.As(err, new(specialError)):
					keep[i] = false
				default:
					cancel(err)
				}
			}
		})
	}
feed:
	for _, i := range which {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return changed.Load(), context.Cause(ctx)
	}
	return changed.Load(), nil
}
