package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/cmd/freshet/cli"
)

// attributes are what the cluster of these tests keeps beside its files.
type attributes struct {
	fails  map[freshet.Path]freshet.Kind // of changes
	before func(p freshet.Path)          // a change, if not nil
}

func (c *cluster) broken(p freshet.Path) error {
	if c.before != nil {
		c.before(p)
	}
	if k, ok := c.fails[p]; ok {
		return freshet.Errorf(k, "set attributes", p, "so it is")
	}
	return nil
}

func textOf(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

func (c *cluster) Xattrs(_ context.Context, p freshet.Path) (map[string][]byte, error) {
	_, err := c.info(p)
	return map[string][]byte{"user.x": []byte("y"), "user.bytes": {0, 0xff}}, err
}

func (c *cluster) SetXattr(_ context.Context, q freshet.SetXattrQuery) (freshet.Completed, error) {
	return freshet.Completed{}, c.change("set %s=%q %d %s", q.Name, q.Value, q.When, q.Path)
}

func (c *cluster) RemoveXattr(_ context.Context, q freshet.RemoveXattrQuery) (freshet.Completed, error) {
	return freshet.Completed{}, c.change("unset %s %s", q.Name, q.Path)
}

func (c *cluster) ACL(_ context.Context, p freshet.Path) (freshet.ACL, error) {
	i, err := c.info(p)
	l, _ := acl.Parse("u::rwx,u:al:rwx,g::r-x,m::r-x,o::-")
	return freshet.ACL{Path: p, Type: i.Type, Owner: "al", Group: "dev", Mode: 0o750, List: l}, err
}

func (c *cluster) SetACL(_ context.Context, q freshet.SetACLQuery) (freshet.Completed, error) {
	if err := c.broken(q.Path); err != nil {
		return freshet.Completed{}, err
	}
	return freshet.Completed{}, c.change("setfacl %s %s %s", q.Change.Kind, q.Change.Entries, q.Path)
}

func TestSymbolicModes(t *testing.T) {
	c := newCluster(t) // everything in it has the mode 0640
	for _, tc := range []struct{ mode, file, dir string }{
		{"0", "0", "0"},
		{"7777", "7777", "7777"},
		{"u+x", "740", "740"},
		{"+x", "751", "751"},
		{"a-r", "200", "200"},
		{"go=", "600", "600"},
		{"u=rwX,go=rX", "644", "755"},
		{"u+x,g+X", "750", "750"},
		{"g=u", "660", "660"},
		{"o+g", "644", "644"},
		{"u-w+x", "540", "540"},
		{"u+s,g+s", "6640", "6640"},
		{"o+s", "640", "640"},
		{"+t", "1640", "1640"},
		{"ug+t", "1640", "1640"},
		{"uo=r", "444", "444"},
	} {
		for p, want := range map[string]string{"/d/f": tc.file, "/d": tc.dir} {
			c.changes = nil
			if r := run(c, "", "fs", "chmod", tc.mode, p); r.code != 0 || !slices.Equal(c.changes, []string{"chmod " + want + " " + p}) {
				t.Errorf("%s: exit %d, %v, want %s: %s", tc.mode, r.code, c.changes, want, r.err)
			}
		}
	}
}

func TestRecursiveChanges(t *testing.T) {
	c := newCluster(t)
	for i := range 50 {
		c.put(freshet.Path(fmt.Sprintf("/d/s/%02d", i)), "x")
	}
	c.put("/d/s/", "")
	for _, tc := range []struct {
		args            string
		what            string
		fails           map[freshet.Path]freshet.Kind
		code            int
		changed, fails2 int
	}{
		{"fs chmod -R 600 /d", "chmod 600 ", nil, 0, 53, 0},
		{"fs chown -R al:dev /d /empty --parallel 1", "chown al:dev ", nil, 0, 54, 0},
		{"fs chgrp -R dev /d", "chown -:dev ", map[freshet.Path]freshet.Kind{"/d/s/07": freshet.KindPermission, "/d/s": freshet.KindNotExist}, 8, 51, 2},
		{"fs chmod -R 600 /d", "chmod ", map[freshet.Path]freshet.Kind{"/d": freshet.KindUnsupported}, 1, 0, 1},
		{"fs chmod -R 600 /no /d/f", "chmod 600 /d/f", nil, 8, 1, 1},
		{"fs setfacl -R -m u:al:rx,d:u:al:r /d", "setfacl modify user:al:r-x", nil, 0, 53, 0},
		{"fs setfacl -R -m d:u:al:r /d", "setfacl modify default:user:al:r-- /d", nil, 0, 2, 0},
		{"fs setfacl -R -k /d", "setfacl remove_default  /d", nil, 0, 2, 0},
		{"fs setfacl -R -b /d", "setfacl remove_all  /d", nil, 0, 53, 0},
	} {
		c.changes, c.fails = nil, tc.fails
		r := run(c, "", append(strings.Fields(tc.args), "-o", "json")...)
		var out struct {
			Changed, Failed int `json:",string"`
		}
		if err := json.Unmarshal([]byte(r.out), &out); err != nil || r.code != tc.code || out.Changed != tc.changed || out.Failed != tc.fails2 {
			t.Errorf("%s: exit %d, %s, %v, want %d and %d: %s", tc.args, r.code, r.out, err, tc.changed, tc.fails2, r.err)
		}
		for _, change := range c.changes {
			if !strings.HasPrefix(change, tc.what) {
				t.Errorf("%s: %s", tc.args, change)
			}
		}
		if len(c.changes) != tc.changed {
			t.Errorf("%s: %d changes", tc.args, len(c.changes))
		}
		c.changes, c.fails = nil, nil
		if r := run(c, "", append(strings.Fields(tc.args), "--dry-run")...); len(c.changes) > 0 || (r.code == 0) == strings.Contains(tc.args, "/no") || !strings.Contains(r.err, "dry run") {
			t.Errorf("%s --dry-run: exit %d, %v, %s", tc.args, r.code, c.changes, r.err)
		}
	}
}

func TestEndedRecursiveChangeSaysWhatItDid(t *testing.T) {
	c := newCluster(t)
	for i := range 50 {
		c.put(freshet.Path(fmt.Sprintf("/d/s/%02d", i)), "x")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int32 // the call under way when the command ends may end after it
	c.before = func(freshet.Path) {
		if asked.Add(1) == 10 { // one at a time
			cancel()
		}
	}
	var stdout, stderr bytes.Buffer
	streams := cli.Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(string) string { return "" }}
	code := cli.Run(ctx, []string{"fs", "chmod", "-R", "600", "/d", "--parallel", "1", "-o", "json", "--addr", c.addr}, streams, nil)
	var out struct {
		Changed, Failed int `json:",string"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil || code != 8 || out.Changed < 9 || out.Changed > 10 || !strings.Contains(stderr.String(), "stopped after") {
		t.Errorf("exit %d, %s, %v: %s", code, stdout.String(), err, stderr.String())
	}
	if n := asked.Load(); n > 11 {
		t.Errorf("%d changes after the end", n-10)
	}
}

func TestRecursiveChangeThatDidNothing(t *testing.T) {
	c := newCluster(t)
	c.err = freshet.Errorf(freshet.KindPermission, "list", "/d", "so it is")
	if r := run(c, "", "fs", "chmod", "-R", "600", "/d"); r.code != 6 || !strings.Contains(r.err, "so it is") {
		t.Errorf("nothing done: exit %d, %s", r.code, r.err)
	}
}

func TestAccessOutput(t *testing.T) {
	c := newCluster(t)
	r := run(c, "", "fs", "getfacl", "/d")
	if want := "# file: /d\n# owner: al\n# group: dev\nuser::rwx\nuser:al:rwx\t#effective:r-x\ngroup::r-x\nmask::r-x\nother::---\n"; r.code != 0 || r.out != want {
		t.Errorf("getfacl: exit %d, %q, want %q", r.code, r.out, want)
	}
	if r := run(c, "", "fs", "xattr", "get", "/d/f", "user.bytes"); r.code != 0 || r.out != "\x00\xff" {
		t.Errorf("xattr get: exit %d, %q, %s", r.code, r.out, r.err)
	}
	if r := run(c, "", "fs", "xattr", "ls", "/d/f"); r.code != 0 || !strings.Contains(r.out, `"\x00\xff"`) || !strings.Contains(r.out, "user.x") {
		t.Errorf("xattr ls: exit %d, %q, %s", r.code, r.out, r.err)
	}
	if r := run(c, "a\x00b", "fs", "xattr", "set", "/d/f", "user.a", "--file", "-"); r.code != 0 || !slices.Equal(c.changes, []string{`set user.a="a\x00b" 0 /d/f`}) {
		t.Errorf("xattr set: exit %d, %q, %s", r.code, c.changes, r.err)
	}
	if r := run(c, strings.Repeat("x", 64<<10+1), "fs", "xattr", "set", "/d/f", "user.a", "--file", "-"); r.code != 2 {
		t.Errorf("a large value: exit %d, %s", r.code, r.err)
	}
}
