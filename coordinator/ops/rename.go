package ops

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

const opRename = "rename"

// Rename moves a file or a directory within its mount, with one record.
// KindInvalid into its own subtree; KindConflict across mounts, for mount points,
// while something below is being written, and where a directory is in the way;
// KindExist if the target exists and Overwrite is not set.
func (e *Engine) Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	if err := checkNames(q); err != nil {
		return freshet.Completed{}, err
	}
	q.Op = newOp(q.Op)
	if done, handled, err := e.renameKept(ctx, q); handled || err != nil {
		return done, freshet.Wrap(opRename, q.Path, err)
	}
	var under []namespace.Beneath
	return e.do(ctx, change{
		begin:   namespace.Begin{Op: q.Op, Kind: namespace.OpRename, Path: q.Path, Path2: q.Target},
		beneath: func() []namespace.Beneath { return under },
		prepare: func(ctx context.Context, at place, c *change) (*freshet.Completed, error) {
			src, _, err := lookBoth(ctx, at, q)
			if err != nil {
				return nil, err
			}
			if to, err := e.state.Lookup(q.Target); err != nil || to.Unpersisted && !q.Overwrite && q.Path != q.Target {
				if err == nil {
					err = targetExists(q.Target)
				}
				return nil, err
			}
			if q.Path == q.Target {
				return &freshet.Completed{Info: infoOf(q.Path, at.mount, src)}, nil
			}
			if err := e.measure(q, src, c); err != nil {
				return nil, err
			}
			if c.begin.Recursive = src.IsDir(); !c.begin.Recursive {
				c.begin.Length = &src.Length
				if e.state.Version() >= namespace.VersionUnpersisted {
					c.begin.Source = &src.Fingerprint
				}
			}
			c.compound = !at.fs.Features().AtomicRename
			return nil, nil
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			st, left, err := e.move(ctx, at, q.Path)
			under = left
			return entryOf(q.Target.Base(), st), err
		},
	})
}

// checkNames refuses what no storage can do.
func checkNames(q freshet.RenameQuery) error {
	switch {
	case q.Path != q.Target && q.Path.Contains(q.Target):
		return freshet.Errorf(freshet.KindInvalid, opRename, q.Path, "cannot move %s into its own subtree %s", q.Path, q.Target)
	case q.Path != q.Target && q.Target.Contains(q.Path):
		return freshet.Errorf(freshet.KindConflict, opRename, q.Path, "the target %s is a directory that holds it", q.Target)
	}
	return nil
}

// lookBoth looks at the source and the target of a rename and says why it can't be.
func lookBoth(ctx context.Context, at place, q freshet.RenameQuery) (src ufs.Status, replaces bool, err error) {
	if src, err = at.look(ctx); err != nil || q.Path == q.Target {
		return src, false, err
	}
	dst, err := at.fs.Stat(ctx, at.key2)
	switch {
	case err != nil && !freshet.IsKind(err, freshet.KindNotExist):
		return src, false, err
	case err != nil:
		return src, false, checkParent(ctx, at, at.key2, false)
	case dst.IsDir() && !src.IsDir():
		return src, false, freshet.Errorf(freshet.KindConflict, opRename, q.Target, "is a directory; a file can't replace it")
	case src.IsDir() && !dst.IsDir():
		return src, false, freshet.Errorf(freshet.KindConflict, opRename, q.Target, "is a file; a directory can't replace it")
	case dst.IsDir():
		return src, false, freshet.Errorf(freshet.KindExist, opRename, q.Target, "exists; a directory is never replaced: choose another name, or remove it first")
	case !q.Overwrite:
		return src, false, targetExists(q.Target)
	}
	return src, true, nil
}

// measure says how much a rename moves, if a quota that counts the target does not
// count the source.
func (e *Engine) measure(q freshet.RenameQuery, src ufs.Status, c *change) error {
	if e.state.CoveredAlike(q.Path, q.Target) {
		return nil
	}
	c.begin.MoveBytes = src.Length
	if !src.IsDir() {
		return nil
	}
	below, err := e.state.CountBelow(q.Path)
	c.begin.MoveEntries, c.begin.MoveBytes = below.Entries, below.Bytes
	return err
}

// PlanRename says what Rename would do, and what it would cost where the storage
// can't move: it counts the objects below the source, with one listing. It changes
// nothing; errors are those of Rename. Quotas are not asked.
func (e *Engine) PlanRename(ctx context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	var p freshet.RenamePlan
	if _, err := e.leader(opRename); err != nil {
		return p, err
	}
	if err := checkNames(q); err != nil {
		return p, err
	}
	begin := namespace.Begin{Kind: namespace.OpRename, Path: q.Path, Path2: q.Target}
	at, release, err := e.place(begin)
	if err != nil {
		return p, err
	}
	defer release()
	src, replaces, err := lookBoth(ctx, at, q)
	if err == nil {
		err = e.checkWriters(begin)
	}
	if err != nil {
		return p, freshet.Wrap(opRename, q.Path, err)
	}
	p.Info, p.Replaces, p.Atomic = infoOf(q.Target, at.mount, src), replaces, at.fs.Features().AtomicRename
	if p.Atomic || q.Path == q.Target {
		return p, nil
	}
	if !src.IsDir() {
		p.Objects, p.Bytes = 1, src.Length
		return p, nil
	}
	for st, err := range at.fs.List(ctx, at.key, ufs.ListOptions{Recursive: true}) {
		if err != nil {
			return p, freshet.Wrap(opRename, q.Path, err)
		}
		if !st.IsDir() {
			p.Objects++
			p.Bytes += st.Length
		}
	}
	return p, nil
}
