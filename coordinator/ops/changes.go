package ops

import (
	"context"
	"path"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// Mkdir makes a directory. With Parents missing parents are made and an existing
// directory is no error; without, its parent must exist (KindNotExist) and the
// path must not (KindExist). A parent that is a file is KindConflict.
func (e *Engine) Mkdir(ctx context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	if m, ok := e.state.MountAt(q.Path); q.Path.IsRoot() || (ok && m.Path == q.Path) {
		if _, err := e.leader("mkdir"); err != nil {
			return freshet.Completed{}, err
		}
		if !q.Parents {
			return freshet.Completed{}, freshet.Errorf(freshet.KindExist, "mkdir", q.Path, "the directory exists")
		}
		return freshet.Completed{Info: freshet.Info{Path: q.Path, Type: freshet.TypeDirectory, Mount: m.ID, MountPoint: ok && m.Path == q.Path}}, nil
	}
	return e.do(ctx, change{
		begin:    namespace.Begin{Op: q.Op, Kind: namespace.OpMkdir, Path: q.Path},
		compound: q.Parents,
		prepare: func(ctx context.Context, at place, _ *change) (*freshet.Completed, error) {
			st, err := at.fs.Stat(ctx, at.key)
			switch {
			case err == nil && q.Parents && st.IsDir():
				return &freshet.Completed{Info: infoOf(q.Path, at.mount, st)}, nil
			case err == nil && st.IsDir():
				return nil, freshet.Errorf(freshet.KindExist, "mkdir", q.Path, "the directory exists")
			case err == nil:
				return nil, freshet.Errorf(freshet.KindExist, "mkdir", q.Path, "a file is there")
			case !freshet.IsKind(err, freshet.KindNotExist):
				return nil, err
			}
			return nil, checkParent(ctx, at, at.key, q.Parents)
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			st, err := at.fs.Mkdir(ctx, at.key, ufs.MkdirOptions{Existing: q.Parents, Mode: q.Mode})
			return entryOf(q.Path.Base(), st), err
		},
	})
}

// checkParent refuses a key whose parent is a file, or missing unless it may be.
func checkParent(ctx context.Context, at place, key string, missing bool) error {
	for up := ufs.ParentKey(key); up != ""; up = ufs.ParentKey(up) {
		p := at.mount.Path.Join(up)
		st, err := at.fs.Stat(ctx, up)
		switch {
		case err == nil && st.IsDir():
			return nil
		case err == nil:
			return freshet.Errorf(freshet.KindConflict, "look at parent", p, "%s is not a directory", p)
		case !freshet.IsKind(err, freshet.KindNotExist):
			return err
		case !missing:
			return freshet.Errorf(freshet.KindNotExist, "look at parent", p, "the parent directory %s does not exist", p)
		}
	}
	return nil
}

// Remove removes a file, an empty directory or, if Recursive, a tree, all of it
// with one record. KindConflict for a mount point, for what mount points lie in,
// and for a directory that is not empty; KindNotExist if there is nothing.
func (e *Engine) Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	return e.do(ctx, change{
		begin: namespace.Begin{Op: q.Op, Kind: namespace.OpRemove, Path: q.Path},
		prepare: func(ctx context.Context, at place, c *change) (*freshet.Completed, error) {
			st, err := at.fs.Stat(ctx, at.key)
			if err != nil || !st.IsDir() {
				return nil, err
			}
			if q.Recursive {
				c.begin.Recursive, c.compound = true, true
				return nil, nil
			}
			return nil, checkEmpty(ctx, at, q.Path)
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			return nil, at.fs.Remove(ctx, at.key, ufs.RemoveOptions{Recursive: q.Recursive})
		},
	})
}

// checkEmpty refuses a directory that holds anything. What is in no listing is
// named: the directory looks empty to who asks.
func checkEmpty(ctx context.Context, at place, p freshet.Path) error {
	const most = 3 // names in the error
	var special []string
	for st, err := range at.fs.List(ctx, at.key, ufs.ListOptions{PageSize: most + 1}) {
		if err != nil {
			return err
		}
		if st.Special == "" {
			return freshet.Errorf(freshet.KindConflict, "remove", p, "the directory is not empty: remove it recursively")
		}
		if special = append(special, path.Base(st.Key)); len(special) > most {
			special[most] = "…"
			break
		}
	}
	if len(special) > 0 {
		return freshet.Errorf(freshet.KindConflict, "remove", p,
			"the directory holds entries that are not files or directories: %s; remove it recursively", strings.Join(special, ", "))
	}
	return nil
}

// Rename moves a file or a directory within its mount, with one record.
// KindInvalid into its own subtree; KindConflict across mounts, for mount points,
// while something below is being written, and where a directory is in the way;
// KindExist if the target exists and Overwrite is not set.
func (e *Engine) Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	const op = "rename"
	switch {
	case q.Path != q.Target && q.Path.Contains(q.Target):
		return freshet.Completed{}, freshet.Errorf(freshet.KindInvalid, op, q.Path, "cannot move %s into its own subtree %s", q.Path, q.Target)
	case q.Path != q.Target && q.Target.Contains(q.Path):
		return freshet.Completed{}, freshet.Errorf(freshet.KindConflict, op, q.Path, "the target %s is a directory that holds it", q.Target)
	}
	return e.do(ctx, change{
		begin: namespace.Begin{Op: q.Op, Kind: namespace.OpRename, Path: q.Path, Path2: q.Target},
		prepare: func(ctx context.Context, at place, c *change) (*freshet.Completed, error) {
			src, err := at.fs.Stat(ctx, at.key)
			if err != nil {
				return nil, err
			}
			if q.Path == q.Target {
				return &freshet.Completed{Info: infoOf(q.Path, at.mount, src)}, nil
			}
			if err := e.measure(q, src, c); err != nil {
				return nil, err
			}
			c.begin.Recursive = src.IsDir()
			c.compound = !at.fs.Features().AtomicRename
			dst, err := at.fs.Stat(ctx, at.key2)
			switch {
			case err != nil && !freshet.IsKind(err, freshet.KindNotExist):
				return nil, err
			case err != nil:
				return nil, checkParent(ctx, at, at.key2, false)
			case dst.IsDir() && !src.IsDir():
				return nil, freshet.Errorf(freshet.KindConflict, op, q.Target, "is a directory; a file can't replace it")
			case src.IsDir() && !dst.IsDir():
				return nil, freshet.Errorf(freshet.KindConflict, op, q.Target, "is a file; a directory can't replace it")
			case dst.IsDir() || !q.Overwrite:
				return nil, freshet.Errorf(freshet.KindExist, op, q.Target, "exists")
			}
			return nil, nil
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			st, err := at.fs.Rename(ctx, at.key, at.key2)
			return entryOf(q.Target.Base(), st), err
		},
	})
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

// SetAttr changes owner, group or mode. KindUnsupported on a storage that keeps
// none.
func (e *Engine) SetAttr(ctx context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	const op = "set attributes"
	if q.Owner == nil && q.Group == nil && q.Mode == nil {
		return freshet.Completed{}, freshet.Errorf(freshet.KindInvalid, op, q.Path, "nothing to change: give an owner, a group or a mode")
	}
	return e.do(ctx, change{
		begin:    namespace.Begin{Op: q.Op, Kind: namespace.OpSetAttr, Path: q.Path},
		compound: q.Mode != nil && (q.Owner != nil || q.Group != nil),
		prepare: func(ctx context.Context, at place, _ *change) (*freshet.Completed, error) {
			if f := at.fs.Features(); !f.OwnerAndMode {
				return nil, freshet.Errorf(freshet.KindUnsupported, op, q.Path, "the %s storage keeps no owner, group or mode", f.Kind)
			}
			_, err := at.fs.Stat(ctx, at.key)
			return nil, err
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			st, err := at.fs.SetAttr(ctx, at.key, ufs.Attr{Owner: q.Owner, Group: q.Group, Mode: q.Mode})
			return entryOf(q.Path.Base(), st), err
		},
	})
}
