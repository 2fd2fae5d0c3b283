package faces_test

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
)

// The users of the tests are numbers, which no machine need know.
const (
	alice, bob, carol = "50001", "50002", "50003"
	staff             = "50100"
)

// lake is a directory with entries of several users.
type lake struct{ dir string }

func newLake(t *testing.T) lake {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make files for others, and Freshet must be root to do so")
	}
	return lake{t.TempDir()}
}

func (l lake) make(t *testing.T, name, owner, group string, mode uint32, content string) {
	t.Helper()
	p := filepath.Join(l.dir, name)
	var err error
	if strings.HasSuffix(name, "/") {
		err = os.Mkdir(p, 0o700)
	} else {
		err = os.WriteFile(p, []byte(content), 0o600)
	}
	if err = errors.Join(err, os.Chown(p, number(t, owner), number(t, group)), syscall.Chmod(p, mode)); err != nil {
		t.Fatal(err)
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// owner returns whose a file of the storage is, and its mode.
func (l lake) owner(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Lstat(filepath.Join(l.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return strconv.Itoa(int(st.Uid)) + ":" + strconv.Itoa(int(st.Gid))
}

func simple() config.Auth {
	return config.Auth{Mode: "simple", Groups: map[string][]string{alice: {alice, staff}, bob: {bob, staff}, carol: {carol}}}
}

// world starts three coordinators, so that most calls come to a follower.
func (l lake) world(t *testing.T) *e2e.Region {
	t.Helper()
	w := e2e.NewBareWorld(t, e2e.Dir(l.dir), nil, e2e.Options{Nodes: 1, Lone: true, Auth: simple()})
	w.A.Mount(t, "/m", "file://"+l.dir, nil) // by root, who is the superuser
	return w.A
}

// TestPermissions: every component of a path is checked for the user that a caller
// says it is, whichever member is asked, and by whichever face; what a user makes is
// its own.
func TestPermissions(t *testing.T) {
	l := newLake(t)
	for _, e := range []struct {
		name, owner, group string
		mode               uint32
	}{
		{"home/", "0", "0", 0o755},
		{"home/alice/", alice, alice, 0o700},
		{"home/alice/open", alice, alice, 0o644},
		{"shared/", "0", staff, 0o770},
		{"shared/report", bob, staff, 0o640},
		{"shared/secret/", bob, bob, 0o700},
		{"shared/secret/x", bob, bob, 0o644},
		{"tmp/", "0", "0", 0o1777},
		{"tmp/bobs", bob, bob, 0o666},
		{"public/", "0", "0", 0o755},
		{"public/f", "0", "0", 0o644},
	} {
		l.make(t, e.name, e.owner, e.group, e.mode, "bytes of "+e.name)
	}
	r := l.world(t)
	// Each member once: all but one hand the call, and the caller's name, on.
	as := func(who string, args ...string) e2e.Ran {
		t.Helper()
		var first e2e.Ran
		for i, addr := range r.Clients {
			ran := e2e.CLI(t, "", append([]string{"--addr", addr, "--user", who}, args...)...)
			if i == 0 {
				first = ran
			}
			if ran.Code != first.Code {
				t.Errorf("%v as %s: member %d says %d %s, member 0 %d %s", args, who, i, ran.Code, ran.Err, first.Code, first.Err)
			}
		}
		return first
	}
	const denied = 6
	t.Run("read", func(t *testing.T) {
		as(alice, "fs", "cat", "/m/home/alice/open").Want(t, 0, "bytes of")
		as(bob, "fs", "cat", "/m/home/alice/open").Want(t, denied, "search (x)", "/m/home/alice", alice+":"+alice+" rwx------")
		as(bob, "fs", "stat", "/m/home/alice/open").Want(t, denied, "search (x)")
		as(bob, "fs", "stat", "/m/home/alice/nothing").Want(t, denied, "search (x)")
		as(bob, "fs", "ls", "/m/home/alice").Want(t, denied, "read and search (rx)")
		as("root", "fs", "cat", "/m/home/alice/open").Want(t, 0, "bytes of")
		as(alice, "fs", "cat", "/m/shared/report").Want(t, 0, "bytes of") // by her group
		as(carol, "fs", "cat", "/m/shared/report").Want(t, denied, "/m/shared,")
		as(carol, "fs", "cat", "/m/public/f").Want(t, 0)
		as(alice, "fs", "ls", "-R", "/m/shared").Want(t, denied, "/m/shared/secret")
		as(bob, "fs", "ls", "-R", "/m/shared").Want(t, 0, "secret/x")
		as(alice, "explain", "/m/shared/secret/x").Want(t, denied)
	})
	t.Run("write", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		put := func(who, to string) e2e.Ran {
			return e2e.CLI(t, "", "--addr", r.Clients[0], "--user", who, "fs", "cp", "file:"+file, to)
		}
		put(alice, "/m/shared/hers").Want(t, 0)
		put(alice, "/m/home/alice/a/b/deep").Want(t, 0)
		put(alice, "/m/public/no").Want(t, denied, "write and search (wx)", "/m/public")
		put(alice, "/m/shared/report").Want(t, denied, "write (w)", "/m/shared/report")
		put(alice, "/m/tmp/bobs").Want(t, 0) // by its mode
		for name, want := range map[string]string{
			"shared/hers": alice + ":" + staff, "home/alice/a": alice + ":" + alice, "home/alice/a/b": alice + ":" + alice,
			"home/alice/a/b/deep": alice + ":" + alice, "tmp/bobs": bob + ":" + bob,
		} {
			if got := l.owner(t, name); got != want {
				t.Errorf("%s belongs to %s, want %s", name, got, want)
			}
		}
		// What she made is hers to change.
		as(alice, "fs", "chmod", "600", "/m/shared/hers").Want(t, 0)
		as(bob, "fs", "chmod", "644", "/m/shared/hers").Want(t, denied, "takes the owner")
		as(bob, "fs", "cat", "/m/shared/hers").Want(t, denied, "read (r)")
		as(alice, "fs", "chgrp", staff, "/m/shared/hers").Want(t, 0)
		as(alice, "fs", "chgrp", bob, "/m/shared/hers").Want(t, denied, "may not give")
		as(alice, "fs", "chown", bob, "/m/shared/hers").Want(t, denied, "superuser")
		as("root", "fs", "chown", bob, "/m/shared/hers").Want(t, 0)
	})
	t.Run("change", func(t *testing.T) {
		one := func(who string, args ...string) e2e.Ran {
			t.Helper()
			return e2e.CLI(t, "", append([]string{"--addr", r.Clients[1], "--user", who}, args...)...)
		}
		one(alice, "fs", "mkdir", "-p", "/m/tmp/x/y").Want(t, 0)
		if got := l.owner(t, "tmp/x") + " " + l.owner(t, "tmp/x/y"); got != alice+":0 "+alice+":0" {
			t.Errorf("the directories belong to %s", got)
		}
		one(bob, "fs", "mkdir", "/m/home/alice/no").Want(t, denied)
		one(bob, "fs", "mv", "/m/tmp/x", "/m/tmp/z").Want(t, denied, "sticky")
		one(bob, "fs", "rm", "-r", "/m/tmp/x").Want(t, denied, "sticky")
		one(alice, "fs", "rm", "/m/tmp/bobs").Want(t, denied, "sticky")
		one(alice, "fs", "rm", "-r", "/m/shared/secret").Want(t, denied, "/m/shared/secret")
		one(alice, "fs", "mv", "/m/tmp/x", "/m/public/x").Want(t, denied, "/m/public")
		one(alice, "fs", "mv", "/m/tmp/x", "/m/home/alice/x").Want(t, 0)
		one(alice, "fs", "rm", "-r", "/m/home/alice/x").Want(t, 0)
		one(alice, "fs", "rm", "/m/home/alice/open").Want(t, 0)
	})
	t.Run("cluster", func(t *testing.T) {
		for _, args := range [][]string{
			{"mount", "rm", "/m"},
			{"policy", "set", "/m", "--sync-interval", "1m"},
			{"quota", "set", "/m", "--entries", "10"},
			{"sync", "now", "--recursive", "/m"},
			{"check", "/m"},
			{"cluster", "snapshot", "save", filepath.Join(t.TempDir(), "s")},
			{"cluster", "state-hash"},
			{"cluster", "bump-epoch", "--dry-run"},
		} {
			as(alice, args...).Want(t, denied, "superuser")
		}
		as(alice, "mount", "ls").Want(t, 0)
		as("root", "cluster", "state-hash").Want(t, 0)
	})
	t.Run("rest", func(t *testing.T) {
		node := "http://" + r.NodeHTTP[0]
		for _, coord := range r.HTTP {
			coord = "http://" + coord
			e2e.HTTP(t, "GET", coord+"/v1/status?path=/m/public/f", "").Want(t, 401, "X-Freshet-User", "unauthenticated")
			e2e.HTTP(t, "GET", coord+"/v1/status?path=/m/shared/report", "", "X-Freshet-User", alice).Want(t, 200)
			e2e.HTTP(t, "GET", coord+"/v1/status?path=/m/shared/report", "", "X-Freshet-User", carol).Want(t, 403, "search (x)", `"permission"`)
			e2e.HTTP(t, "GET", coord+"/v1/status?path=/m/public/f", "", "X-Freshet-User", "a b").Want(t, 400)
			e2e.HTTP(t, "POST", coord+"/v1/sync", `{"path":"/m/shared/report"}`, "X-Freshet-User", carol).Want(t, 403)
			e2e.HTTP(t, "POST", coord+"/v1/sync", `{"path":"/m/shared/report"}`, "X-Freshet-User", bob).Want(t, 200)
			e2e.HTTP(t, "GET", coord+"/readyz", "").Want(t, 200)
			e2e.HTTP(t, "GET", coord+"/v1/cluster", "").Want(t, 200)
		}
		e2e.HTTP(t, "GET", node+"/v1/data/m/shared/report", "", "X-Freshet-User", bob).Want(t, 200, "bytes of")
		e2e.HTTP(t, "GET", node+"/v1/data/m/shared/report", "", "X-Freshet-User", carol).Want(t, 403)
		e2e.HTTP(t, "HEAD", node+"/v1/data/m/shared/report", "", "X-Freshet-User", carol).Want(t, 403)
		e2e.HTTP(t, "GET", node+"/v1/data/m/shared/report", "").Want(t, 401)
		e2e.HTTP(t, "PUT", node+"/v1/data/m/shared/report", "x", "X-Freshet-User", alice).Want(t, 403)
		e2e.HTTP(t, "PUT", node+"/v1/data/m/shared/rest", "x", "X-Freshet-User", alice).Want(t, 201)
		if got := l.owner(t, "shared/rest"); got != alice+":"+staff {
			t.Errorf("what was put belongs to %s", got)
		}
	})
	t.Run("lists", func(t *testing.T) {
		if ran := as("root", "fs", "setfacl", "-m", "user:"+carol+":--x", "/m/shared"); ran.Code != 0 {
			t.Skipf("the file system of the test keeps no access control lists: %s", ran.Err)
		}
		as("root", "fs", "setfacl", "-m", "user:"+carol+":r--,user:"+alice+":---", "/m/shared/report").Want(t, 0)
		as(carol, "fs", "cat", "/m/shared/report").Want(t, 0)
		as(carol, "fs", "ls", "/m/shared").Want(t, denied, "access control list")
		as(alice, "fs", "cat", "/m/shared/report").Want(t, denied, "read (r)")
		as(alice, "fs", "setfacl", "-b", "/m/shared/report").Want(t, denied, "takes the owner")
		as(bob, "fs", "setfacl", "-b", "/m/shared/report").Want(t, 0)
		as(carol, "fs", "cat", "/m/shared/report").Want(t, denied)
	})
}

// TestPermissionsWithoutTheLeader: the members that are left go on in the names that
// callers give, and what is made under the next leader is the caller's as before.
func TestPermissionsWithoutTheLeader(t *testing.T) {
	l := newLake(t)
	l.make(t, "home/", alice, alice, 0o700, "")
	l.make(t, "home/f", alice, alice, 0o644, "hers")
	r := l.world(t)
	leader, err := r.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	for i, p := range r.Coordinators {
		if p == leader {
			continue
		}
		as := func(who string, args ...string) e2e.Ran {
			return e2e.CLI(t, "", append([]string{"--addr", r.Clients[i], "--user", who}, args...)...)
		}
		err := fleet.Poll(t.Context(), e2e.Patience, "the next leader", func(context.Context) error {
			if ran := as(alice, "fs", "cat", "/m/home/f"); ran.Code != 0 {
				return errors.New(ran.Err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		as(bob, "fs", "cat", "/m/home/f").Want(t, 6, "search (x)")
		dir := "by" + strconv.Itoa(i)
		as(alice, "fs", "mkdir", "/m/home/"+dir).Want(t, 0)
		if got := l.owner(t, "home/"+dir); got != alice+":"+alice {
			t.Errorf("the directory made through member %d belongs to %s", i, got)
		}
	}
}

// TestCallersOfTheSystem: without a name the command line takes the user who runs it,
// whose groups the coordinator looks up itself.
func TestCallersOfTheSystem(t *testing.T) {
	l := newLake(t)
	self, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	l.make(t, "f", "0", "0", 0o600, "x")
	r := l.world(t)
	r.CLI(t, "fs", "cat", "/m/f").Want(t, 0, "x") // root runs the test, and the coordinators
	r.CLI(t, "--user", self.Uid, "fs", "cat", "/m/f").Want(t, 0)
	r.CLI(t, "--user", carol, "fs", "cat", "/m/f").Want(t, 6)
	r.CLI(t, "--user", "a b", "fs", "cat", "/m/f").Want(t, 2, "not the name of a user")
}
