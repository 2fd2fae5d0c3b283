package ops

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// SetXattr sets an extended attribute, with one record that says that the metadata
// changed. KindUnsupported on a storage that keeps none, KindExist and KindNotExist
// as the query's condition says.
func (e *Engine) SetXattr(ctx context.Context, q freshet.SetXattrQuery) (freshet.Completed, error) {
	const op = "set attribute"
	if len(q.Value) > freshet.MaxXattr {
		return freshet.Completed{}, freshet.Errorf(freshet.KindInvalid, op, q.Path, "%d bytes, more than the %d that an attribute may have", len(q.Value), freshet.MaxXattr)
	}
	return e.changeXattr(ctx, op, q.Op, q.Path, q.Name, func(ctx context.Context, x ufs.Xattrs, key string) error {
		return x.SetXattr(ctx, key, q.Name, q.Value, q.When)
	})
}

// RemoveXattr removes an extended attribute; KindNotExist if it is not there.
func (e *Engine) RemoveXattr(ctx context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error) {
	return e.changeXattr(ctx, "remove attribute", q.Op, q.Path, q.Name, func(ctx context.Context, x ufs.Xattrs, key string) error {
		return x.RemoveXattr(ctx, key, q.Name)
	})
}

func (e *Engine) changeXattr(
	ctx context.Context, op string, id freshet.OpID, p freshet.Path, name string,
	effect func(ctx context.Context, x ufs.Xattrs, key string) error,
) (freshet.Completed, error) {
	if err := freshet.CheckXattrName(op, p, name); err != nil {
		return freshet.Completed{}, err
	}
	return e.do(ctx, change{
		begin: namespace.Begin{Op: id, Kind: namespace.OpSetAttr, Path: p},
		prepare: func(ctx context.Context, at place, _ *change) (*freshet.Completed, error) {
			if _, err := XattrsAt(op, p, at.fs); err != nil {
				return nil, err
			}
			_, err := at.look(ctx)
			return nil, err
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			x, err := XattrsAt(op, p, at.fs)
			if err == nil {
				err = effect(ctx, x, at.key)
			}
			if err != nil {
				return nil, err
			}
			return changed(ctx, p, at)
		},
	})
}

// XattrsAt returns the extended attributes of a storage, or why it has none.
func XattrsAt(op string, p freshet.Path, fs ufs.FS) (ufs.Xattrs, error) {
	x, ok := ufs.XattrsOf(fs)
	if !ok {
		return nil, freshet.Errorf(freshet.KindUnsupported, op, p, "the %s storage keeps no extended attributes", fs.Features().Kind)
	}
	return x, nil
}

// ACLsAt returns the access control lists of a storage, or why it has none.
func ACLsAt(op string, p freshet.Path, fs ufs.FS) (ufs.ACLs, error) {
	a, ok := ufs.ACLsOf(fs)
	if !ok {
		return nil, freshet.Errorf(freshet.KindUnsupported, op, p, "the %s storage keeps no access control lists", fs.Features().Kind)
	}
	return a, nil
}

// changed looks at an entry after an effect on it. That the look fails says nothing
// of the effect: whatever the storage answers, the outcome is unknown then.
func changed(ctx context.Context, p freshet.Path, at place) (*namespace.Entry, error) {
	st, err := at.fs.Stat(ctx, at.key)
	if err != nil {
		return nil, freshet.Errorf(freshet.KindUnavailable, "look at the change", p, "%v", err)
	}
	return entryOf(p.Base(), st), nil
}

// SetACL changes an access control list, with one record that says that the
// metadata changed. KindUnsupported on a storage that keeps none, KindInvalid for a
// list that the entry can't have.
func (e *Engine) SetACL(ctx context.Context, q freshet.SetACLQuery) (freshet.Completed, error) {
	const op = "set access control list"
	if err := q.Change.Check(); err != nil {
		return freshet.Completed{}, freshet.Errorf(freshet.KindInvalid, op, q.Path, "%w", err)
	}
	return e.do(ctx, change{
		begin:    namespace.Begin{Op: q.Op, Kind: namespace.OpSetAttr, Path: q.Path},
		compound: true, // the access scope and the default one
		prepare: func(ctx context.Context, at place, _ *change) (*freshet.Completed, error) {
			a, err := ACLsAt(op, q.Path, at.fs)
			if err != nil {
				return nil, err
			}
			st, err := at.look(ctx)
			if err != nil {
				return nil, err
			}
			// What can't be is refused before anything is written down.
			old, err := a.ACL(ctx, at.key)
			if err != nil {
				return nil, err
			}
			if _, err := q.Change.Apply(old, st.IsDir()); err != nil {
				return nil, freshet.Errorf(freshet.KindInvalid, op, q.Path, "%w", err)
			}
			return nil, nil
		},
		effect: func(ctx context.Context, at place) (*namespace.Entry, error) {
			ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout) // as what takes one step
			defer cancel()
			a, err := ACLsAt(op, q.Path, at.fs)
			if err == nil {
				err = a.ChangeACL(ctx, at.key, q.Change)
			}
			if err != nil {
				return nil, err
			}
			return changed(ctx, q.Path, at)
		},
	})
}
