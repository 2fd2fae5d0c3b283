package ops

import (
	"context"
	"fmt"
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
			st, err := at.fs.Mkdir(ctx, at.key, ufs.MkdirOptions{Existing: q.Parents, Mode: q.Mode, Owner: q.Owner, Group: q.Group})
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
			return &freshet.Error{Kind: freshet.KindConflict, Err: fmt.Errorf("%s is not a directory", p)}
		case !freshet.IsKind(err, freshet.KindNotExist):
			return err
		case !missing:
			return &freshet.Error{Kind: freshet.KindNotExist, Err: fmt.Errorf("the parent directory %s does not exist", p)}
		}
	}
	return nil
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
			_, err := at.look(ctx)
			return nil, err
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			st, err := at.fs.SetAttr(ctx, at.key, ufs.Attr{Owner: q.Owner, Group: q.Group, Mode: q.Mode})
			return entryOf(q.Path.Base(), st), err
		},
	})
}
