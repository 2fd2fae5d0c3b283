package ops

import (
	"context"
	"errors"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// removal is one way to remove.
type removal struct {
	freshet.RemoveQuery

	// removed, if not nil, is told how many entries went, and may stop the removal.
	removed func(n int) error
	// again: an earlier page of the same removal was removed, and what is left may
	// be nothing.
	again bool
}

// Remove removes a file, an empty directory or, if Recursive, a tree, all of it
// with one record. KindConflict for a mount point, for what mount points lie in,
// and for a directory that is not empty; KindNotExist if there is nothing.
func (e *Engine) Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	q.Op = newOp(q.Op)
	return e.remove(ctx, removal{RemoveQuery: q})
}

func (e *Engine) remove(ctx context.Context, q removal) (freshet.Completed, error) {
	absent := q.again // that nothing is there is no error
	return e.do(ctx, change{
		begin: namespace.Begin{Op: q.Op, Kind: namespace.OpRemove, Path: q.Path},
		prepare: func(ctx context.Context, at place, c *change) (*freshet.Completed, error) {
			kept, dir, err := e.keptAt(q.Path)
			if err == nil && kept && dir && !q.Recursive {
				err = namespace.NotEmpty("remove", q.Path)
			}
			if err != nil {
				return nil, err
			}
			absent = absent || kept
			st, err := at.look(ctx)
			tree := err == nil && st.IsDir() && q.Recursive
			switch gone := absent && freshet.IsKind(err, freshet.KindNotExist); {
			case gone, tree:
				c.begin.Recursive, c.compound = true, true
				return nil, nil
			case err != nil:
				return nil, err
			case kept: // nothing of it may begin before it has gone
				c.begin.Recursive = true
				return nil, nil
			case !st.IsDir():
				return nil, nil
			}
			return nil, checkEmpty(ctx, at, q.Path)
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			err := at.fs.Remove(ctx, at.key, ufs.RemoveOptions{Recursive: q.Recursive, Removed: q.removed})
			if !freshet.IsKind(err, freshet.KindNotExist) {
				return nil, err
			}
			kept, _, kerr := e.keptAt(q.Path) // a write may have ended since the first look
			switch {
			case kerr != nil:
				err = kerr
			case absent || kept:
				err = nil
			}
			return nil, err
		},
	})
}

// errPage ends a page of the removal of a tree.
var errPage = errors.New("a page was removed")

// RemoveTree removes a tree page by page. Each page is an operation of its own,
// under the same ID: it ends with a record and with marks on the whole tree, so that
// nobody here or elsewhere serves what is gone, and other operations get their turn.
// report is called after each page. When ctx ends, or report returns an error, the
// removal stops at the next page: what was removed is gone, in the storage and for
// all who look, and the rest is there; the error is KindDeadline, or report's.
//
// Once the last page is acknowledged the same operation ID gives the outcome. If
// the leader dies, the page that it had begun is taken to the end of the tree.
// Storages that remove a tree in one step, and files, make one page.
func (e *Engine) RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) (freshet.Completed, error) {
	q.Op, q.Recursive = newOp(q.Op), true
	total := int64(0)
	for pages := 0; ; pages++ {
		page := 0 // written by the operation, which has ended when do returns errPage or nil
		r := removal{RemoveQuery: q, again: pages > 0, removed: func(n int) error {
			if page += n; page >= e.opts.RemovePage {
				return errPage
			}
			return ctx.Err()
		}}
		done, err := e.remove(ctx, r)
		switch {
		case err == nil:
			total += int64(page)
			return done, report(freshet.RemoveProgress{Entries: total + 1, Current: q.Path, Done: true, Token: done.Token})
		case ctx.Err() != nil:
			return done, freshet.Errorf(freshet.KindDeadline, "remove", q.Path,
				"stopped after %d entries or more; what is left is still there: repeat the removal to go on: %w", total, context.Cause(ctx))
		case !errors.Is(err, errPage):
			return done, err
		}
		total += int64(page)
		if err := report(freshet.RemoveProgress{Entries: total, Current: q.Path}); err != nil {
			return done, err
		}
	}
}
