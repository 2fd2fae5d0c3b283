package coordinator

import (
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs"
)

// SetXattr sets an extended attribute in the storage.
func (c *Coordinator) SetXattr(ctx context.Context, q freshet.SetXattrQuery) (freshet.Completed, error) {
	return change(c, ctx, q.Path, q, c.ops.SetXattr)
}

// RemoveXattr removes an extended attribute from the storage.
func (c *Coordinator) RemoveXattr(ctx context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error) {
	return change(c, ctx, q.Path, q, c.ops.RemoveXattr)
}

// SetACL changes an access control list in the storage.
func (c *Coordinator) SetACL(ctx context.Context, q freshet.SetACLQuery) (freshet.Completed, error) {
	return change(c, ctx, q.Path, q, c.ops.SetACL)
}

// Xattrs returns the extended attributes of p as the storage has them now. Nothing
// of them is cached.
func (c *Coordinator) Xattrs(ctx context.Context, p freshet.Path) (all map[string][]byte, err error) {
	const op = "read attributes"
	err = c.ask(ctx, op, p, func(fs ufs.FS, key string) error {
		x, err := ops.XattrsAt(op, p, fs)
		if err == nil {
			all, err = x.Xattrs(ctx, key)
		}
		return err
	})
	return all, err
}

// ACL returns the access control list of p as the storage has it now. Nothing of it
// is cached.
func (c *Coordinator) ACL(ctx context.Context, p freshet.Path) (freshet.ACL, error) {
	const op = "read access control list"
	out := freshet.ACL{Path: p}
	err := c.ask(ctx, op, p, func(fs ufs.FS, key string) error {
		a, err := ops.ACLsAt(op, p, fs)
		if err != nil {
			return err
		}
		st, err := fs.Stat(ctx, key)
		if err != nil {
			return err
		}
		out.Type, out.Owner, out.Group, out.Mode = st.Type, st.Owner, st.Group, st.Mode
		out.List, err = a.ACL(ctx, key)
		return err
	})
	return out, err
}

// ask asks the storage of p about it, past all that is cached.
func (c *Coordinator) ask(ctx context.Context, op string, p freshet.Path, f func(fs ufs.FS, key string) error) error {
	if err := c.prepare(ctx, p, freshet.ReadOptions{}); err != nil {
		return c.leaderHint(err)
	}
	m, ok := c.state.MountAt(p)
	if !ok {
		return freshet.Errorf(freshet.KindNotExist, op, p, "no storage is mounted there")
	}
	fs, release, err := c.storage(m)
	if err != nil {
		return err
	}
	defer release()
	return freshet.Wrap(op, p, f(fs, m.Path.Rel(p)))
}
