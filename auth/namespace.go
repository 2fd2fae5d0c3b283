package auth

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
)

const (
	read    = acl.Read
	look    = acl.Read | acl.Execute // into a directory
	nothing = acl.Perm(0)
)

// Stat implements rpc.Namespace.
func (g *Guard) Stat(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	if err := g.use(ctx, "stat", p, opts, nothing, nothing); err != nil {
		return freshet.Status{}, err
	}
	st, err := g.region.Stat(ctx, p, opts)
	if err == nil && st.Lease > 0 {
		st.Lease, err = g.keep(ctx, "stat", p, nothing, st.Lease)
	}
	return st, err
}

// List implements rpc.Namespace. A recursive listing ends with an error at the first
// directory that the caller may not read: one that left it out would look complete.
func (g *Guard) List(ctx context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	who, w, err := g.reach(ctx, "list", q.Path, q.Options)
	if err != nil {
		return freshet.ListPage{}, err
	}
	if r := w.entry(); r != nil && r.Type == freshet.TypeDirectory {
		if err := g.need(ctx, who, r, look, "list", q.Path); err != nil {
			return freshet.ListPage{}, err
		}
	}
	if !who.Super {
		q.Enter = func(ctx context.Context, dir freshet.Path) error {
			r, err := g.region.Rights(ctx, dir, freshet.ReadOptions{})
			if err == nil {
				err = g.need(ctx, who, &r, look, "list", q.Path)
			}
			return err
		}
	}
	return g.region.List(ctx, q)
}

// Mkdir implements rpc.Namespace.
func (g *Guard) Mkdir(ctx context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	const op = "mkdir"
	who, w, err := g.reach(ctx, op, q.Path, freshet.ReadOptions{})
	if err == nil && !who.Super && !w.exists {
		err = g.change(ctx, who, &w, op, q.Path)
	}
	if err == nil {
		q.Owner, q.Group, err = g.heirs(ctx, who, &w, q.Path)
	}
	if err != nil {
		return freshet.Completed{}, err
	}
	return g.region.Mkdir(ctx, q)
}

// Rename implements rpc.Namespace.
func (g *Guard) Rename(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	if err := g.rename(ctx, q); err != nil {
		return freshet.Completed{}, err
	}
	return g.region.Rename(ctx, q)
}

// PlanRename implements rpc.Namespace.
func (g *Guard) PlanRename(ctx context.Context, q freshet.RenameQuery) (freshet.RenamePlan, error) {
	if err := g.rename(ctx, q); err != nil {
		return freshet.RenamePlan{}, err
	}
	return g.region.PlanRename(ctx, q)
}

func (g *Guard) rename(ctx context.Context, q freshet.RenameQuery) error {
	const op = "rename"
	for _, p := range []freshet.Path{q.Path, q.Target} {
		who, w, err := g.reach(ctx, op, p, freshet.ReadOptions{})
		if err == nil && !who.Super {
			err = g.change(ctx, who, &w, op, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Remove implements rpc.Namespace.
func (g *Guard) Remove(ctx context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	if err := g.remove(ctx, q); err != nil {
		return freshet.Completed{}, err
	}
	return g.region.Remove(ctx, q)
}

// RemoveTree implements rpc.Namespace.
func (g *Guard) RemoveTree(ctx context.Context, q freshet.RemoveQuery, report func(freshet.RemoveProgress) error) error {
	q.Recursive = true // it removes trees whatever is asked for
	if err := g.remove(ctx, q); err != nil {
		return err
	}
	return g.region.RemoveTree(ctx, q, report)
}

func (g *Guard) remove(ctx context.Context, q freshet.RemoveQuery) error {
	const op = "remove"
	who, w, err := g.reach(ctx, op, q.Path, freshet.ReadOptions{})
	if err != nil || who.Super {
		return err
	}
	if err := g.change(ctx, who, &w, op, q.Path); err != nil {
		return err
	}
	if e := w.entry(); e != nil && q.Recursive && e.Type == freshet.TypeDirectory {
		return g.below(ctx, who, e, op, q.Path)
	}
	return nil
}

// SetAttr implements rpc.Namespace.
func (g *Guard) SetAttr(ctx context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	const op = "set attributes"
	who, r, err := g.owned(ctx, op, q.Path)
	if err == nil && r != nil {
		err = mayGive(who, r, &q, op)
	}
	if err != nil {
		return freshet.Completed{}, err
	}
	return g.region.SetAttr(ctx, q)
}

// mayGive checks what an owner may do with its own entry: it may give it to no other
// user, to those groups that it is in, and to nobody the rights of a group that it is
// not in.
func mayGive(who *Caller, r *freshet.Rights, q *freshet.SetAttrQuery, op string) error {
	refuse := func(format string, args ...any) error {
		return freshet.Errorf(freshet.KindPermission, op, q.Path, format, args...)
	}
	group := r.Group
	if q.Group != nil {
		group = *q.Group
	}
	switch {
	case q.Owner != nil && *q.Owner != r.Owner:
		return refuse("user %q may not give it to %q: it takes the superuser", who.Name, *q.Owner)
	case group != r.Group && !who.in(group):
		return refuse("user %q may not give it to group %q: it takes a member, or the superuser", who.Name, group)
	case q.Mode != nil && *q.Mode&setgid != 0 && !who.in(group):
		return refuse("user %q may not set setgid: it takes a member of group %q, or the superuser", who.Name, group)
	}
	return nil
}

// Locate implements rpc.Namespace.
func (g *Guard) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	if err := g.use(ctx, "read", q.Path, q.Options, read, nothing); err != nil {
		return freshet.Location{}, err
	}
	loc, err := g.region.Locate(ctx, q)
	if err == nil && loc.Lease > 0 {
		loc.Lease, err = g.keep(ctx, "read", q.Path, read, loc.Lease)
	}
	return loc, err
}

// keep returns for how long a caller may keep an answer about a file that the region
// lets it keep for a time. The caller's rights are looked at again: from when the lease
// was granted on, a change of them calls it back; what was found before may have changed
// in between. An access control list may change unnoticed, so who needs one keeps
// nothing.
func (g *Guard) keep(ctx context.Context, op string, p freshet.Path, want acl.Perm, granted time.Duration) (time.Duration, error) {
	who, w, err := g.reach(ctx, op, p, freshet.ReadOptions{})
	if err != nil || who.Super {
		return granted, err
	}
	if r := w.entry(); r != nil && want != 0 {
		if err := g.need(ctx, who, r, want, op, p); err != nil {
			return 0, err
		}
	}
	for i := range w.at {
		if granted = min(granted, w.at[i].Keep); w.at[i].Listed && who.Name != w.at[i].Owner {
			granted = 0
		}
	}
	return max(granted, 0), nil
}

// BeginWrite implements rpc.Namespace. A file that is there takes the right to write
// it, and keeps its owner; a new one that to write its directory.
func (g *Guard) BeginWrite(ctx context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	const op = "write"
	who, w, err := g.reach(ctx, op, q.Path, freshet.ReadOptions{})
	switch e := w.entry(); {
	case err != nil || who.Super:
	case e == nil:
		err = g.change(ctx, who, &w, op, q.Path)
	case e.Type == freshet.TypeFile:
		err = g.need(ctx, who, e, acl.Write, op, q.Path)
	}
	if err == nil {
		q.Owner, q.Group, err = g.heirs(ctx, who, &w, q.Path)
	}
	if err != nil {
		return freshet.BeginWriteAnswer{}, err
	}
	return g.region.BeginWrite(ctx, q)
}

// AbortWrite implements rpc.Namespace. Nobody but who began a write knows its ID.
func (g *Guard) AbortWrite(ctx context.Context, op freshet.OpID) error {
	if _, err := g.who(ctx); err != nil {
		return err
	}
	return g.region.AbortWrite(ctx, op)
}

// Explain implements rpc.Namespace. What is under way below a directory is shown to
// the superuser only.
func (g *Guard) Explain(ctx context.Context, p freshet.Path, check bool) (freshet.Explanation, error) {
	who, err := g.who(ctx)
	if err == nil {
		err = g.use(ctx, "explain", p, freshet.ReadOptions{}, read, look)
	}
	if err != nil {
		return freshet.Explanation{}, err
	}
	x, err := g.region.Explain(ctx, p, check)
	if !who.Super && (x.Info == nil || x.Info.Type == freshet.TypeDirectory) {
		x.Intents, x.Operations = nil, nil
	}
	return x, err
}

// Sync implements rpc.Namespace. A recursive one tells of all that is below, and takes
// the storage's time for it.
func (g *Guard) Sync(ctx context.Context, p freshet.Path, recursive bool, report func(freshet.SyncProgress) error) error {
	var err error
	if recursive {
		err = g.super(ctx, "sync recursively", p)
	} else {
		err = g.use(ctx, "sync", p, freshet.ReadOptions{}, read, look)
	}
	if err != nil {
		return err
	}
	return g.region.Sync(ctx, p, recursive, report)
}

// Xattrs implements rpc.Access.
func (g *Guard) Xattrs(ctx context.Context, p freshet.Path) (map[string][]byte, error) {
	if err := g.use(ctx, "read attributes", p, freshet.ReadOptions{}, read, read); err != nil {
		return nil, err
	}
	return g.region.Xattrs(ctx, p)
}

// SetXattr implements rpc.Access.
func (g *Guard) SetXattr(ctx context.Context, q freshet.SetXattrQuery) (freshet.Completed, error) {
	if err := g.use(ctx, "set attribute", q.Path, freshet.ReadOptions{}, acl.Write, acl.Write); err != nil {
		return freshet.Completed{}, err
	}
	return g.region.SetXattr(ctx, q)
}

// RemoveXattr implements rpc.Access.
func (g *Guard) RemoveXattr(ctx context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error) {
	if err := g.use(ctx, "remove attribute", q.Path, freshet.ReadOptions{}, acl.Write, acl.Write); err != nil {
		return freshet.Completed{}, err
	}
	return g.region.RemoveXattr(ctx, q)
}

// ACL implements rpc.Access. Who may see an entry may see whose it is.
func (g *Guard) ACL(ctx context.Context, p freshet.Path) (freshet.ACL, error) {
	if err := g.use(ctx, "read access control list", p, freshet.ReadOptions{}, nothing, nothing); err != nil {
		return freshet.ACL{}, err
	}
	return g.region.ACL(ctx, p)
}

// SetACL implements rpc.Access.
func (g *Guard) SetACL(ctx context.Context, q freshet.SetACLQuery) (freshet.Completed, error) {
	if _, _, err := g.owned(ctx, "set access control list", q.Path); err != nil {
		return freshet.Completed{}, err
	}
	return g.region.SetACL(ctx, q)
}
