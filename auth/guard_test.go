package auth_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/auth"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/rpc"
)

// region is a tree of rights. What the guard lets through is noted in done.
type region struct {
	auth.Region

	tree  map[freshet.Path]freshet.Rights
	lists map[freshet.Path]acl.List
	done  []string
	mkdir freshet.MkdirQuery
	begin freshet.BeginWriteQuery
}

func (r *region) Rights(_ context.Context, p freshet.Path, _ freshet.ReadOptions) (freshet.Rights, error) {
	e, ok := r.tree[p]
	if !ok {
		return e, freshet.Errorf(freshet.KindNotExist, "stat", p, "does not exist")
	}
	e.Path, e.Listed = p, r.lists[p] != nil
	return e, nil
}

func (r *region) AccessList(_ context.Context, p freshet.Path) (acl.List, error) {
	return r.lists[p], nil
}

func (r *region) List(ctx context.Context, q freshet.ListQuery) (page freshet.ListPage, err error) {
	r.done = append(r.done, "list")
	paths := []freshet.Path{}
	for p := range r.tree {
		if p != q.Path && q.Path.Contains(p) && (q.Recursive || p.Parent() == q.Path) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		if r.tree[p].Type == freshet.TypeDirectory && q.Recursive && q.Enter != nil {
			if err := q.Enter(ctx, p); err != nil {
				return page, err
			}
		}
		if string(p) > q.PageToken {
			page.Entries = append(page.Entries, freshet.Info{Path: p, Type: r.tree[p].Type, Owner: r.tree[p].Owner})
		}
		if len(page.Entries) == 2 { // so that there are several pages
			page.NextPageToken = string(p)
			return page, nil
		}
	}
	return page, nil
}

func (r *region) note(what string) (freshet.Completed, error) {
	r.done = append(r.done, what)
	return freshet.Completed{}, nil
}

func (r *region) Stat(context.Context, freshet.Path, freshet.ReadOptions) (freshet.Status, error) {
	_, err := r.note("stat")
	return freshet.Status{}, err
}

func (r *region) Mkdir(_ context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	r.mkdir = q
	return r.note("mkdir")
}

func (r *region) Rename(context.Context, freshet.RenameQuery) (freshet.Completed, error) {
	return r.note("rename")
}

func (r *region) Remove(context.Context, freshet.RemoveQuery) (freshet.Completed, error) {
	return r.note("remove")
}

func (r *region) SetAttr(context.Context, freshet.SetAttrQuery) (freshet.Completed, error) {
	return r.note("set attributes")
}

func (r *region) SetACL(context.Context, freshet.SetACLQuery) (freshet.Completed, error) {
	return r.note("set list")
}

func (r *region) SetXattr(context.Context, freshet.SetXattrQuery) (freshet.Completed, error) {
	return r.note("set attribute")
}

func (r *region) Xattrs(context.Context, freshet.Path) (map[string][]byte, error) {
	_, err := r.note("attributes")
	return nil, err
}

func (r *region) Locate(context.Context, freshet.LocateQuery) (freshet.Location, error) {
	_, err := r.note("read")
	return freshet.Location{}, err
}

func (r *region) BeginWrite(_ context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	r.begin = q
	_, err := r.note("write")
	return freshet.BeginWriteAnswer{}, err
}

func (r *region) RemoveMount(context.Context, freshet.Path, freshet.RemoveMountOptions) (freshet.MountAnswer, error) {
	_, err := r.note("unmount")
	return freshet.MountAnswer{}, err
}

func (r *region) Cluster(context.Context) (freshet.ClusterStatus, error) {
	return freshet.ClusterStatus{QuarantinedOps: []freshet.Operation{{Path: "/secret"}}}, nil
}

func (r *region) Explain(context.Context, freshet.Path, bool) (freshet.Explanation, error) {
	return freshet.Explanation{Info: &freshet.Info{Type: freshet.TypeDirectory}, Operations: []freshet.Operation{{Path: "/secret"}}, Intents: []string{"/secret"}}, nil
}

// entry reads "owner:group mode", mode in octal; of a path that ends in a slash it is
// a directory.
func tree(t *testing.T, entries map[string]string) map[freshet.Path]freshet.Rights {
	t.Helper()
	out := map[freshet.Path]freshet.Rights{}
	for name, text := range entries {
		who, mode, ok := strings.Cut(text, " ")
		owner, group, ok2 := strings.Cut(who, ":")
		if !ok || !ok2 {
			t.Fatalf("entry %q", text)
		}
		r := freshet.Rights{Owner: owner, Group: group, Kept: true}
		for _, digit := range mode {
			r.Mode = r.Mode<<3 | uint32(digit-'0')
		}
		p := freshet.Root
		if name != "/" {
			p = freshet.Path(strings.TrimSuffix(name, "/"))
		}
		if strings.HasSuffix(name, "/") {
			r.Type = freshet.TypeDirectory
		}
		out[p] = r
	}
	return out
}

func newUsers(superuser string) *auth.Users {
	return auth.NewUsers(auth.UsersOptions{
		Superuser: superuser, Supergroup: "admins",
		Groups: map[string][]string{"alice": {"alice", "staff"}, "bob": {"bob", "staff"}, "carol": {"carol"}, "dave": {"admins"}, "root": nil},
		Lookup: func(name string) (string, []string, error) { return name, nil, nil },
	})
}

func as(t *testing.T, users ...string) context.Context {
	t.Helper()
	return rpc.FromUsers(t.Context(), users...)
}

// standard is a tree with one of each.
func standard(t *testing.T) *region {
	t.Helper()
	return &region{
		tree: tree(t, map[string]string{
			"/": "root:root 755", "/home/": "root:root 755", "/home/alice/": "alice:alice 700", "/home/alice/f": "alice:alice 644",
			"/home/alice/d/": "alice:alice 755", "/home/alice/d/g": "bob:bob 600",
			"/shared/": "root:staff 770", "/shared/r": "bob:staff 640", "/shared/mine": "alice:staff 600", "/shared/odd": "alice:staff 066",
			"/shared/closed/": "bob:bob 700", "/shared/empty/": "bob:bob 700", "/shared/closed/x": "alice:alice 666",
			"/tmp/": "root:root 1777", "/tmp/b": "bob:bob 666", "/tmp/bd/": "bob:bob 777", "/tmp/ad/": "alice:alice 700",
			"/tmp/ad/sub/": "alice:alice 1777", "/tmp/ad/sub/b": "bob:bob 600",
			"/ro/": "root:root 755", "/ro/f": "root:root 644", "/ro/x/": "root:root 711", "/ro/x/f": "root:root 604",
			"/shared/wide/": "root:root 777", "/shared/wide/1": "bob:bob 600", "/shared/wide/2": "bob:bob 600", "/shared/wide/3/": "bob:bob 700", "/shared/wide/3/f": "bob:bob 600",
		}),
		lists: map[freshet.Path]acl.List{},
	}
}

func mode(bits uint32) freshet.SetAttrQuery { return freshet.SetAttrQuery{Mode: &bits} }

func to(owner, group string) (q freshet.SetAttrQuery) {
	if owner != "" {
		q.Owner = &owner
	}
	if group != "" {
		q.Group = &group
	}
	return q
}

// call makes one of the calls by name; a is its first path and b its second.
func call(ctx context.Context, g *auth.Guard, name string, a, b freshet.Path) (err error) {
	set := func(q freshet.SetAttrQuery) error {
		q.Path = a
		_, err := g.SetAttr(ctx, q)
		return err
	}
	switch name {
	case "stat":
		_, err = g.Stat(ctx, a, freshet.ReadOptions{})
	case "list":
		_, err = g.List(ctx, freshet.ListQuery{Path: a})
	case "list -R":
		_, err = g.List(ctx, freshet.ListQuery{Path: a, Recursive: true})
	case "read":
		_, err = g.Locate(ctx, freshet.LocateQuery{Path: a})
	case "write":
		_, err = g.BeginWrite(ctx, freshet.BeginWriteQuery{Path: a})
	case "mkdir":
		_, err = g.Mkdir(ctx, freshet.MkdirQuery{Path: a})
	case "rename":
		_, err = g.Rename(ctx, freshet.RenameQuery{Path: a, Target: b})
	case "remove":
		_, err = g.Remove(ctx, freshet.RemoveQuery{Path: a})
	case "remove -r":
		_, err = g.Remove(ctx, freshet.RemoveQuery{Path: a, Recursive: true})
	case "chmod":
		err = set(mode(0o600))
	case "chmod g+s":
		err = set(mode(0o2750))
	case "chown bob":
		err = set(to("bob", ""))
	case "chown alice":
		err = set(to("alice", ""))
	case "chgrp staff":
		err = set(to("", "staff"))
	case "chgrp bob":
		err = set(to("", "bob"))
	case "setfacl":
		_, err = g.SetACL(ctx, freshet.SetACLQuery{Path: a})
	case "xattrs":
		_, err = g.Xattrs(ctx, a)
	case "setxattr":
		_, err = g.SetXattr(ctx, freshet.SetXattrQuery{Path: a})
	case "unmount":
		_, err = g.RemoveMount(ctx, a, freshet.RemoveMountOptions{})
	}
	return err
}

// TestRights: owner, group, other, sticky directories and the superuser, on every
// component of a path.
func TestRights(t *testing.T) {
	for _, c := range []struct {
		who, call string
		a, b      freshet.Path
		denied    string // a part of the message, "" if allowed
	}{
		{"alice", "stat", "/home/alice/f", "", ""},
		{"bob", "stat", "/home/alice/f", "", "search (x) on /home/alice,"},
		{"bob", "stat", "/home/alice/none", "", "search (x) on /home/alice,"},
		{"bob", "stat", "/home/alice", "", ""}, // it takes the directory above only
		{"bob", "stat", "/ro/x/none", "", ""},  // the region says that it does not exist
		{"root", "stat", "/home/alice/f", "", ""},
		{"dave", "read", "/home/alice/f", "", ""}, // of the supergroup
		{"erin", "read", "/ro/f", "", ""},         // whom nobody knows is other
		{"erin", "read", "/shared/r", "", "on /shared,"},

		{"alice", "read", "/shared/r", "", ""},
		{"carol", "read", "/shared/r", "", "on /shared,"},
		{"alice", "read", "/shared/odd", "", "read (r) on /shared/odd, which is alice:staff ---rw-rw-"}, // the owner's bits alone
		{"bob", "read", "/shared/odd", "", ""},
		{"alice", "read", "/home/alice/d/g", "", "read (r)"},
		{"carol", "read", "/ro/x/f", "", ""}, // through a directory that can't be listed
		{"carol", "list", "/ro/x", "", "read and search (rx)"},
		{"carol", "list", "/ro", "", ""},
		{"carol", "list -R", "/ro", "", "on /ro/x,"},
		{"carol", "list -R", "/tmp", "", "on /tmp/ad,"},
		{"alice", "list -R", "/shared", "", "on /shared/closed,"},
		{"root", "list -R", "/shared", "", ""},

		{"alice", "write", "/shared/new", "", ""},
		{"alice", "write", "/shared/r", "", "write (w) on /shared/r,"},
		{"alice", "write", "/tmp/b", "", ""}, // by its own mode
		{"alice", "write", "/ro/new", "", "write and search (wx) on /ro,"},
		{"alice", "write", "/ro/a/b/new", "", "on /ro,"},
		{"alice", "write", "/tmp/a/b/new", "", ""},
		{"alice", "mkdir", "/shared/dir", "", ""},
		{"carol", "mkdir", "/shared/dir", "", "on /shared,"},
		{"alice", "mkdir", "/ro", "", ""}, // which is there: the region says so
		{"root", "mkdir", "/ro/dir", "", ""},

		{"alice", "remove", "/shared/r", "", ""},
		{"alice", "remove", "/ro/f", "", "on /ro,"},
		{"alice", "remove", "/tmp/b", "", "sticky"},
		{"bob", "remove", "/tmp/b", "", ""},
		{"root", "remove", "/tmp/b", "", ""},
		{"alice", "remove -r", "/shared/closed", "", "rwx) on /shared/closed,"},
		{"alice", "remove -r", "/shared/empty", "", ""}, // nothing in it
		{"bob", "remove -r", "/shared/closed", "", ""},
		{"alice", "remove -r", "/shared/wide", "", "rwx) on /shared/wide/3,"}, // on the second page
		{"bob", "remove -r", "/shared/wide", "", ""},
		{"alice", "remove -r", "/home/alice", "", "on /home,"},
		{"alice", "remove -r", "/home/alice/d", "", ""}, // what is in her directory she may remove
		{"alice", "remove -r", "/tmp/ad", "", ""},       // she owns the sticky directory below
		{"bob", "remove -r", "/tmp/bd", "", ""},
		{"alice", "remove -r", "/tmp/bd", "", "sticky"},

		{"alice", "rename", "/shared/r", "/tmp/r", ""},
		{"alice", "rename", "/shared/r", "/ro/r", "on /ro,"},
		{"alice", "rename", "/ro/f", "/tmp/f", "on /ro,"},
		{"alice", "rename", "/tmp/b", "/tmp/c", "sticky"},
		{"alice", "rename", "/shared/mine", "/tmp/b", "sticky"}, // over somebody else's
		{"alice", "rename", "/shared/mine", "/home/alice/f", ""},
		{"bob", "rename", "/shared/r", "/home/alice/r", "on /home/alice,"},

		{"alice", "chmod", "/home/alice/f", "", ""},
		{"alice", "chmod", "/shared/r", "", "takes the owner"},
		{"root", "chmod", "/shared/r", "", ""},
		{"alice", "chmod g+s", "/shared/mine", "", ""},
		{"carol", "chmod g+s", "/ro/f", "", "takes the owner"},
		{"bob", "chown bob", "/shared/r", "", ""}, // it is
		{"bob", "chown alice", "/shared/r", "", "superuser"},
		{"root", "chown alice", "/shared/r", "", ""},
		{"alice", "chgrp staff", "/home/alice/f", "", ""},
		{"alice", "chgrp bob", "/home/alice/f", "", "may not give it to group"},
		{"bob", "chgrp staff", "/home/alice/f", "", "search (x)"},
		{"alice", "setfacl", "/shared/r", "", "takes the owner"},
		{"bob", "setfacl", "/shared/r", "", ""},
		{"alice", "xattrs", "/shared/r", "", ""},
		{"alice", "setxattr", "/shared/r", "", "write (w)"},
		{"bob", "setxattr", "/shared/r", "", ""},

		{"alice", "unmount", "/ro", "", "takes the superuser"},
		{"dave", "unmount", "/ro", "", ""},
	} {
		t.Run(c.who+" "+c.call+" "+string(c.a)+" "+string(c.b), func(t *testing.T) {
			r := standard(t)
			err := call(as(t, c.who), auth.NewGuard(r, newUsers("root")), c.call, c.a, c.b)
			switch {
			case c.denied == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.denied == "" && len(r.done) == 0:
				t.Error("let through, and not done")
			case c.denied != "" && (!freshet.IsKind(err, freshet.KindPermission) || !strings.Contains(err.Error(), c.denied)):
				t.Errorf("error %v, want a refusal that says %q", err, c.denied)
			case c.denied != "" && !freshet.IsKind(err, freshet.KindPermission):
				t.Errorf("kind of %v", err)
			case c.denied != "" && len(r.done) > 0 && !strings.HasPrefix(r.done[len(r.done)-1], "list"):
				t.Errorf("done all the same: %q", r.done)
			}
		})
	}
}

// TestSetgidNeedsTheGroup: an owner who is not in the group of its file may not lend
// the group's rights to who runs it.
func TestSetgidNeedsTheGroup(t *testing.T) {
	r := standard(t)
	r.tree["/home/alice/f"] = freshet.Rights{Owner: "alice", Group: "wheel", Mode: 0o644, Kept: true}
	g := auth.NewGuard(r, newUsers("root"))
	if err := call(as(t, "alice"), g, "chmod g+s", "/home/alice/f", ""); !freshet.IsKind(err, freshet.KindPermission) {
		t.Errorf("setgid: %v", err)
	}
	bits, staff := uint32(0o2755), "staff"
	if _, err := g.SetAttr(as(t, "alice"), freshet.SetAttrQuery{Path: "/home/alice/f", Mode: &bits, Group: &staff}); err != nil {
		t.Errorf("setgid for a group that she is in: %v", err)
	}
}

// TestLists: entries of access control lists take the place of group and other, and
// the mask bounds them.
func TestLists(t *testing.T) {
	parse := func(text string) acl.List {
		l, err := acl.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return l.Sorted()
	}
	for _, c := range []struct {
		list  string
		who   string
		read  bool
		write bool
	}{
		{"user::---,group::rwx,other::rwx", "bob", false, false}, // the owner
		{"user::rw-,group::---,group:staff:r--,mask::rwx,other::---", "alice", true, false},
		{"user::rw-,group::---,user:alice:r--,mask::rwx,other::rwx", "alice", true, false},
		{"user::rw-,group::rwx,user:alice:---,mask::rwx,other::rwx", "alice", false, false}, // her own entry first
		{"user::rw-,group::rwx,user:alice:rwx,mask::r--,other::---", "alice", true, false},
		{"user::rw-,group::r--,group:alice:-w-,mask::rwx,other::---", "alice", true, true}, // each by one of her groups
		{"user::rw-,group::---,group:alice:---,mask::rwx,other::rwx", "alice", false, false},
		{"user::rw-,group::---,user:alice:rwx,mask::rwx,other::r--", "carol", true, false},
		{"user::rw-,group::r--,other::---,default:user::rwx,default:user:carol:rwx,default:group::rwx,default:mask::rwx,default:other::rwx", "carol", false, false},
	} {
		r := standard(t)
		r.tree["/shared"] = freshet.Rights{Type: freshet.TypeDirectory, Owner: "root", Group: "root", Mode: 0o777}
		l := parse(c.list)
		r.lists["/shared/r"] = l
		r.tree["/shared/r"] = freshet.Rights{Owner: "bob", Group: "staff", Mode: l.Mode(), Kept: true}
		g := auth.NewGuard(r, newUsers("root"))
		if err := call(as(t, c.who), g, "read", "/shared/r", ""); (err == nil) != c.read {
			t.Errorf("%s: %s reads: %v, want allowed %t", c.list, c.who, err, c.read)
		}
		if err := call(as(t, c.who), g, "write", "/shared/r", ""); (err == nil) != c.write {
			t.Errorf("%s: %s writes: %v, want allowed %t", c.list, c.who, err, c.write)
		}
	}
}

// TestWhatIsMadeBelongsToTheCaller: owner and group go along, the group is that of the
// directory; where the storage keeps no owners, none.
func TestWhatIsMadeBelongsToTheCaller(t *testing.T) {
	for _, c := range []struct{ who, path, owner, group string }{
		{"alice", "/shared/new", "alice", "staff"},
		{"alice", "/tmp/a/b/new", "alice", "root"},
		{"alice", "/shared/mine", "alice", "staff"}, // of an existing file it is asked if it goes meanwhile
		{"root", "/shared/new", "root", "staff"},
		{"dave", "/home/alice/x/y", "dave", "alice"},
		{"alice", "/bucket/new", "", ""},
	} {
		r := standard(t)
		r.tree["/bucket"] = freshet.Rights{Type: freshet.TypeDirectory, Owner: "alice", Mode: 0o755, MountOf: "/bucket"}
		g := auth.NewGuard(r, newUsers("root"))
		if err := call(as(t, c.who), g, "write", freshet.Path(c.path), ""); err != nil {
			t.Fatal(err)
		}
		if err := call(as(t, c.who), g, "mkdir", freshet.Path(c.path), ""); err != nil {
			t.Fatal(err)
		}
		if r.begin.Owner != c.owner || r.begin.Group != c.group || r.mkdir.Owner != c.owner || r.mkdir.Group != c.group {
			t.Errorf("%+v: a file for %s:%s, a directory for %s:%s", c, r.begin.Owner, r.begin.Group, r.mkdir.Owner, r.mkdir.Group)
		}
	}
}

// TestRightsOfAMount: a refusal says where the rights come from.
func TestRightsOfAMount(t *testing.T) {
	r := standard(t)
	r.tree["/bucket"] = freshet.Rights{Type: freshet.TypeDirectory, Mode: 0o700, MountOf: "/bucket"}
	err := call(as(t, "alice"), auth.NewGuard(r, newUsers("root")), "list", "/bucket", "")
	if !freshet.IsKind(err, freshet.KindPermission) || !strings.Contains(err.Error(), "the superuser:no group rwx------ by the options owner, group and mode of the mount at /bucket") {
		t.Error(err)
	}
}

// TestCallers: who does not say who it is, or says it wrongly, gets nothing but the
// state of the cluster, without paths.
func TestCallers(t *testing.T) {
	r := standard(t)
	g := auth.NewGuard(r, newUsers("root"))
	for _, c := range []struct {
		users []string
		kind  freshet.Kind
	}{
		{nil, freshet.KindUnauthenticated},
		{[]string{""}, freshet.KindInvalid},
		{[]string{"alice", "root"}, freshet.KindInvalid},
		{[]string{"a b"}, freshet.KindInvalid},
		{[]string{"a\nb"}, freshet.KindInvalid},
		{[]string{strings.Repeat("a", 256)}, freshet.KindInvalid},
	} {
		ctx := as(t, c.users...)
		for _, name := range []string{"stat", "list", "read", "write", "mkdir", "rename", "remove", "chmod", "setfacl", "xattrs", "setxattr", "unmount"} {
			if err := call(ctx, g, name, "/ro/f", "/ro/g"); !freshet.IsKind(err, c.kind) {
				t.Errorf("%q: %s: %v, want %v", c.users, name, err, c.kind)
			}
		}
		if st, err := g.Cluster(ctx); err != nil || len(st.QuarantinedOps) > 0 {
			t.Errorf("%q: cluster %v, %v", c.users, st, err)
		}
	}
	if len(r.done) > 0 {
		t.Errorf("done: %q", r.done)
	}
	for who, shown := range map[string]bool{"root": true, "alice": false} {
		st, err := g.Cluster(as(t, who))
		if err != nil || (len(st.QuarantinedOps) > 0) != shown {
			t.Errorf("%s: cluster %v, %v", who, st, err)
		}
		x, err := g.Explain(as(t, who), "/ro", false)
		if err != nil || (len(x.Operations) > 0) != shown || (len(x.Intents) > 0) != shown {
			t.Errorf("%s: explain %+v, %v", who, x, err)
		}
	}
}

// TestUsers: groups come from the settings, else from the machine, which is asked
// again after a minute; a number is the name that the machine has for it.
func TestUsers(t *testing.T) {
	now := clock.NewFake(time.Now())
	asked, groups := 0, []string{"games"}
	u := auth.NewUsers(auth.UsersOptions{
		Superuser: "root", Groups: map[string][]string{"alice": {"staff"}}, Clock: now,
		Lookup: func(name string) (string, []string, error) {
			if asked++; name == "0" {
				name = "root"
			}
			return name, groups, nil
		},
	})
	want := func(name string, want auth.Caller, times int) {
		t.Helper()
		got, err := u.Caller(name)
		if err != nil || got.Name != want.Name || got.Super != want.Super || !slices.Equal(got.Groups, want.Groups) || asked != times {
			t.Errorf("%s: %+v, %v, asked %d times, want %+v, %d", name, got, err, asked, want, times)
		}
	}
	want("alice", auth.Caller{Name: "alice", Groups: []string{"staff"}}, 0)
	want("bob", auth.Caller{Name: "bob", Groups: []string{"games"}}, 1)
	want("0", auth.Caller{Name: "root", Groups: []string{"games"}, Super: true}, 2)
	groups = nil
	want("bob", auth.Caller{Name: "bob", Groups: []string{"games"}}, 2)
	now.Advance(time.Minute)
	want("bob", auth.Caller{Name: "bob"}, 3)
}

// TestMachine: what this machine says of its own users.
func TestMachine(t *testing.T) {
	if name, groups, err := auth.Machine("4294960000"); err != nil || name != "4294960000" || len(groups) > 0 {
		t.Errorf("a number that nobody has: %q, %q, %v", name, groups, err)
	}
	name, groups, err := auth.Machine("0")
	if err != nil || name != "root" || !slices.Contains(groups, "root") && !slices.Contains(groups, "wheel") {
		t.Errorf("0: %q, %q, %v", name, groups, err)
	}
}
