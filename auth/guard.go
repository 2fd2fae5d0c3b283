package auth

import (
	"context"
	"fmt"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/rpc"
)

// Services are what a coordinator does for callers.
type Services interface {
	rpc.Namespace
	rpc.Mounts
	rpc.Policies
	rpc.Cluster
	rpc.Access
	rpc.Quotas
	rpc.Syncs
	rpc.Cache
	rpc.Fleet
	rpc.Checker
	rpc.Persister
	rpc.States
}

// Region is a coordinator, and how it says who may use an entry.
type Region interface {
	Services

	// Rights returns what decides who may use p; KindNotExist if nothing is there.
	Rights(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Rights, error)
	// AccessList returns the access control list of p, nil if it has none.
	AccessList(ctx context.Context, p freshet.Path) (acl.List, error)
}

// Guard does of a region only what the caller of a context may do; rpc.User
// says who that is. It has no method that it does not check: what a coordinator
// learns, it has to decide on. Safe for concurrent use.
type Guard struct {
	region Region
	users  *Users
}

var _ Services = (*Guard)(nil)

// NewGuard returns a Guard around region.
func NewGuard(region Region, users *Users) *Guard { return &Guard{region: region, users: users} }

// who returns the caller. KindUnauthenticated if it does not say who it is.
func (g *Guard) who(ctx context.Context) (*Caller, error) {
	name, err := rpc.User(ctx)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, freshet.Errorf(freshet.KindUnauthenticated, "identify caller", "",
			"this cluster has auth mode simple: say in whose name you call, by --user, FRESHET_USER or the header X-Freshet-User")
	}
	who, err := g.users.Caller(name)
	return &who, err
}

// super refuses all but the superuser.
func (g *Guard) super(ctx context.Context, op string, p freshet.Path) error {
	who, err := g.who(ctx)
	if err == nil && !who.Super {
		err = freshet.Errorf(freshet.KindPermission, op, p, "user %q may not: it takes the superuser", who.Name)
	}
	return err
}

// need refuses a caller that lacks a right on an entry; what says what for.
func (g *Guard) need(ctx context.Context, who *Caller, r *freshet.Rights, want acl.Perm, op string, p freshet.Path) error {
	if who.Super {
		return nil
	}
	var list acl.List
	if r.Listed && who.Name != r.Owner { // the owner's entry of a list is in the mode
		var err error
		if list, err = g.region.AccessList(ctx, r.Path); err != nil {
			return err
		}
	}
	listed := list.Scope(false).Extended()
	if listed && mayByList(who, r, list, want) || !listed && mayBy(who, r, want) {
		return nil
	}
	return denied(who, r, want, listed, op, p)
}

// denied says which component lacks which right.
func denied(who *Caller, r *freshet.Rights, want acl.Perm, listed bool, op string, p freshet.Path) error {
	names := map[acl.Perm]string{
		acl.Read: "read (r)", acl.Write: "write (w)", acl.Execute: "search (x)", acl.Read | acl.Execute: "read and search (rx)",
		acl.Write | acl.Execute: "write and search (wx)", acl.Read | acl.Write | acl.Execute: "read, write and search (rwx)",
	}
	more := ""
	if listed {
		more = " with an access control list"
	}
	return freshet.Errorf(freshet.KindPermission, op, p, "user %q needs %s on %s, which is %s%s", who.Name, names[want], r.Path, describe(r), more)
}

// describe says whose an entry is.
func describe(r *freshet.Rights) string {
	owner, group := r.Owner, r.Group
	if owner == "" {
		owner = "the superuser"
	}
	if group == "" {
		group = "no group"
	}
	text := fmt.Sprintf("%s:%s %s", owner, group, permissions(r.Mode))
	if r.MountOf != "" {
		text += fmt.Sprintf(" by the options owner, group and mode of the mount at %s", r.MountOf)
	}
	return text
}

func permissions(mode uint32) string {
	text := fmt.Sprintf("%s%s%s", acl.Perm(mode>>6)&7, acl.Perm(mode>>3)&7, acl.Perm(mode)&7) //nolint:gosec // three bits each
	if mode&sticky != 0 {
		text += " sticky"
	}
	return text
}

// way is what the walk to a path found.
type way struct {
	// at are the rights of what is there on the way, the root first, the path itself
	// last if it exists.
	at     []freshet.Rights
	exists bool
}

// entry returns the rights of the path itself, nil if it does not exist.
func (w *way) entry() *freshet.Rights {
	if !w.exists {
		return nil
	}
	return &w.at[len(w.at)-1]
}

// dir returns the rights of the lowest directory above the path that is there, which
// decides what may be made or removed there; nil above the root.
func (w *way) dir() *freshet.Rights {
	n := len(w.at)
	if w.exists {
		n--
	}
	if n == 0 {
		return nil
	}
	return &w.at[n-1]
}

// walk takes a caller to a path. Every directory on the way must let it through.
func (g *Guard) walk(ctx context.Context, who *Caller, op string, p freshet.Path, opts freshet.ReadOptions) (way, error) {
	var w way
	opts.SyncInterval = nil // of the path alone
	for up := range ancestors(p) {
		r, err := g.region.Rights(ctx, up, opts)
		switch {
		case freshet.IsKind(err, freshet.KindNotExist):
			return w, nil // the operation says so itself
		case err != nil:
			return w, err
		}
		if up == p {
			w.at, w.exists = append(w.at, r), true
			return w, nil
		}
		if r.Type != freshet.TypeDirectory {
			return w, nil // as above
		}
		if err := g.need(ctx, who, &r, acl.Execute, op, p); err != nil {
			return w, err
		}
		w.at = append(w.at, r)
	}
	return w, nil
}

// ancestors yields the directories above p, the root first, and p.
func ancestors(p freshet.Path) func(yield func(freshet.Path) bool) {
	return func(yield func(freshet.Path) bool) {
		if !yield(freshet.Root) || p.IsRoot() {
			return
		}
		for i := 1; i < len(p); i++ {
			if p[i] == '/' && !yield(p[:i]) {
				return
			}
		}
		yield(p)
	}
}

// reach takes the caller of a context to a path. The superuser needs no walk.
func (g *Guard) reach(ctx context.Context, op string, p freshet.Path, opts freshet.ReadOptions) (who *Caller, w way, err error) {
	if who, err = g.who(ctx); err != nil || who.Super {
		return who, w, err
	}
	w, err = g.walk(ctx, who, op, p, opts)
	return who, w, err
}

// use lets the caller use an existing entry if it has the rights: want on files and
// dir on directories. What does not exist is left to the operation.
func (g *Guard) use(ctx context.Context, op string, p freshet.Path, opts freshet.ReadOptions, file, dir acl.Perm) error {
	who, w, err := g.reach(ctx, op, p, opts)
	if err != nil || who.Super {
		return err
	}
	r := w.entry()
	if r == nil {
		return nil
	}
	want := file
	if r.Type == freshet.TypeDirectory {
		want = dir
	}
	if want == 0 {
		return nil
	}
	return g.need(ctx, who, r, want, op, p)
}

// owned lets only the owner of an entry through. It returns the entry, nil for the
// superuser and for what does not exist.
func (g *Guard) owned(ctx context.Context, op string, p freshet.Path) (*Caller, *freshet.Rights, error) {
	who, w, err := g.reach(ctx, op, p, freshet.ReadOptions{})
	if err != nil || who.Super {
		return who, nil, err
	}
	r := w.entry()
	if r != nil && r.Owner != who.Name {
		return who, nil, freshet.Errorf(freshet.KindPermission, op, p, "user %q may not: it takes the owner of %s, which is %s, or the superuser", who.Name, p, describe(r))
	}
	return who, r, nil
}

// change checks that the caller may make, remove or replace the entry that a walk
// led to.
func (g *Guard) change(ctx context.Context, who *Caller, w *way, op string, p freshet.Path) error {
	dir := w.dir()
	if dir == nil {
		return nil // the root: the operation refuses
	}
	if err := g.need(ctx, who, dir, acl.Write|acl.Execute, op, p); err != nil {
		return err
	}
	if e := w.entry(); e != nil {
		return checkSticky(who, dir, e.Owner, op, p)
	}
	return nil
}

// checkSticky keeps what is in a sticky directory for its owner and the directory's.
func checkSticky(who *Caller, dir *freshet.Rights, owner, op string, p freshet.Path) error {
	if who.Super || dir.Mode&sticky == 0 || who.Name == dir.Owner || who.Name == owner {
		return nil
	}
	return freshet.Errorf(freshet.KindPermission, op, p, "user %q may not: %s is sticky (%s), so that it takes the owner of %s, %q, the directory's, or the superuser",
		who.Name, dir.Path, describe(dir), p, owner)
}

// heirs returns whom something new belongs to: the caller and, as in HDFS, the group
// of the directory that it is made in. Both are "" where the storage keeps no owners.
func (g *Guard) heirs(ctx context.Context, who *Caller, w *way, p freshet.Path) (owner, group string, err error) {
	dir := w.dir()
	if who.Super { // who did not walk
		for up := p; !up.IsRoot() && dir == nil; {
			up = up.Parent()
			r, err := g.region.Rights(ctx, up, freshet.ReadOptions{})
			switch {
			case err == nil:
				dir = &r
			case !freshet.IsKind(err, freshet.KindNotExist):
				return "", "", err
			}
		}
	}
	if dir == nil || !dir.Kept {
		return "", "", nil
	}
	return who.Name, dir.Group, nil
}

// below checks that a caller may remove all that is in a directory, as POSIX and HDFS
// do: each directory that is not empty has to be readable, writable and searchable.
func (g *Guard) below(ctx context.Context, who *Caller, dir *freshet.Rights, op string, p freshet.Path) error {
	var dirs []string
	for q, first := (freshet.ListQuery{Path: dir.Path}), true; ; first = false {
		page, err := g.region.List(ctx, q)
		if err != nil {
			return err
		}
		if first && len(page.Entries) > 0 {
			if err := g.need(ctx, who, dir, acl.Read|acl.Write|acl.Execute, op, p); err != nil {
				return err
			}
		}
		for i := range page.Entries {
			e := &page.Entries[i]
			if err := checkSticky(who, dir, e.Owner, op, e.Path); err != nil {
				return err
			}
			if e.Type == freshet.TypeDirectory {
				dirs = append(dirs, e.Path.Base())
			}
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			break
		}
	}
	for _, name := range dirs {
		r, err := g.region.Rights(ctx, dir.Path.Join(name), freshet.ReadOptions{})
		switch {
		case freshet.IsKind(err, freshet.KindNotExist):
			continue // gone meanwhile
		case err == nil:
			err = g.below(ctx, who, &r, op, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
