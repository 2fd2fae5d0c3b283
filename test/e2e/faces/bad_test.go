package faces_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// badPaths are the cases 1 to 14: each through REST data, REST JSON and the
// command line.
func badPaths(t *testing.T, w *e2e.World) {
	node, coord := "http://"+w.A.NodeHTTP[0], "http://"+w.A.HTTP[0]
	deep := strings.Repeat("/d", freshet.MaxPathDepth+1)
	for _, c := range []struct {
		name, path string
		says       string
		noArgument bool // it can't be an argument of a command
	}{
		{"dot dot", "/../../etc/passwd", `".." segment`, false},
		{"dot", "/a/./b", `"." segment`, false},
		{"NUL", "/a\x00b", "NUL", true},
		{"newline", "/a\nb", "control character 0x0a at byte 2", false},
		{"escape", "/a\x1b[31m", "control character 0x1b", false},
		{"invalid UTF-8", "/a\xff", "not valid UTF-8", false},
		{"overlong slash", "/a\xc0\xafb", "not valid UTF-8", false},
		{"too long", "/" + strings.Repeat(strings.Repeat("x", 200)+"/", 21), "longer than 4096", false},
		{"segment too long", "/" + strings.Repeat("x", 256), "longer than 255", false},
		{"too deep", deep, "more than 128", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			says := strings.ReplaceAll(c.says, `"`, `\"`) // as in JSON
			escaped := (&url.URL{Path: c.path}).EscapedPath()
			if strings.Contains(c.path, "..") { // as no client library sends it
				escaped = strings.ReplaceAll(c.path, ".", "%2e")
			}
			unchanged(t, w, func() {
				e2e.HTTP(t, "GET", node+"/v1/data"+escaped, "").Want(t, 400, says, `"invalid"`)
				e2e.HTTP(t, "PUT", node+"/v1/data"+escaped, "x").Want(t, 400, says)
				e2e.HTTP(t, "GET", coord+"/v1/data"+escaped, "").Want(t, 400, says)
				if !strings.Contains(c.says, "UTF-8") { // JSON and query strings are UTF-8
					e2e.HTTP(t, "GET", coord+"/v1/status?path="+url.QueryEscape(c.path), "").Want(t, 400, says)
				}
				if c.noArgument {
					return
				}
				for _, args := range [][]string{{"stat", c.path}, {"mkdir", c.path}, {"rm", c.path}, {"mv", "/rest", c.path}} {
					got := w.A.CLI(t, append([]string{"fs"}, args...)...)
					if !strings.Contains(c.says, "UTF-8") || args[0] != "stat" {
						got.Want(t, freshet.ExitUsage, c.says)
					} else if got.Code == 0 {
						t.Errorf("fs %q succeeded", args)
					}
				}
			})
		})
	}
	for _, path := range []string{"/%2e%2e%2fetc", `/..\..\etc`, "/a%00b"} { // literal names that do not exist
		e2e.HTTP(t, "GET", node+"/v1/data"+(&url.URL{Path: path}).EscapedPath(), "").Want(t, 404, `"not_exist"`)
		w.A.CLI(t, "fs", "stat", path).Want(t, freshet.ExitNotFound)
	}
	e2e.HTTP(t, "GET", node+"/v1/data/%252e%252e%252fetc", "").Want(t, 404)
	// Doubled slashes mean the same everywhere.
	e2e.HTTP(t, "PUT", node+"/v1/data/slashes//f", "x").Want(t, 201, `"/slashes/f"`)
	w.A.CLI(t, "fs", "cat", "//slashes///f").Want(t, 0, "x")
	// Look-alikes and right-to-left marks are names like others, shown inert.
	for _, name := range []string{"раураl", "paypal", "a\u202eb", "<script>alert(1)</script>", "=cmd()", "${jndi:x}"} {
		e2e.HTTP(t, "PUT", node+"/v1/data/odd/"+url.PathEscape(name), name).Want(t, 201)
		w.A.CLI(t, "fs", "cat", "/odd/"+name).Want(t, 0, name)
	}
	if got := w.A.CLI(t, "fs", "ls", "/odd").Want(t, 0, `a\u202eb`); strings.Contains(got.Out, "\u202e") {
		t.Error("a right-to-left override reaches the terminal")
	}
	// Reserved names.
	unchanged(t, w, func() {
		for _, path := range []string{"/.freshet", "/d/.freshet.tmp-1"} {
			w.A.CLI(t, "fs", "mkdir", "-p", path).Want(t, freshet.ExitDenied, "reserved name")
			e2e.HTTP(t, "PUT", node+"/v1/data"+path, "x").Want(t, 403, "reserved name")
			w.A.CLI(t, "fs", "mv", "/rest", path).Want(t, freshet.ExitDenied, "reserved name")
		}
	})
}

// badOperations are the cases 15 to 20.
func badOperations(t *testing.T, w *e2e.World) {
	node, coord := "http://"+w.A.NodeHTTP[0], "http://"+w.A.HTTP[0]
	e2e.HTTP(t, "PUT", node+"/v1/data/ops/d/f", "x").Want(t, 201)
	other := t.TempDir()
	w.A.CLI(t, "mount", "add", "/othermount", "file://"+other).Want(t, 0)
	unchanged(t, w, func() {
		w.A.CLI(t, "fs", "mv", "/ops", "/ops/d/inside").Want(t, freshet.ExitUsage, "own subtree")
		e2e.HTTP(t, "POST", coord+"/v1/rename", `{"path":"/ops","target":"/ops/d/inside"}`).Want(t, 400, "own subtree")
		e2e.HTTP(t, "POST", coord+"/v1/rename", `{"path":"/ops/d/f","target":"/othermount/f"}`).Want(t, 412, "mount")
		for _, path := range []string{"/", "/othermount"} {
			w.A.CLI(t, "fs", "rm", "-r", path).Want(t, freshet.ExitConflict, "mount point")
			e2e.HTTP(t, "POST", coord+"/v1/remove", fmt.Sprintf(`{"path":%q,"recursive":true}`, path)).Want(t, 412, "mount point")
		}
		e2e.HTTP(t, "POST", coord+"/v1/remove", `{"path":"/ops"}`).Want(t, 412, "not empty")
		e2e.HTTP(t, "PUT", node+"/v1/data/ops/d/f/below", "x").Want(t, 412, "not a directory")
		w.A.CLI(t, "fs", "mkdir", "/ops/d/f/below").Want(t, freshet.ExitConflict, "not a directory")
		e2e.HTTP(t, "PUT", node+"/v1/data/ops/d", "x").Want(t, 412, "directory")
		e2e.HTTP(t, "POST", coord+"/v1/setattr", `{"path":"/ops/none","mode":384}`).Want(t, 404)
	})
	w.A.CLI(t, "mount", "rm", "/othermount").Want(t, 0)
}

// hostileEntries are the cases 22 to 26.
func hostileEntries(t *testing.T, w *e2e.World) {
	dir, ok := w.Storage.(e2e.Dir)
	if !ok {
		t.Fatal("needs a directory")
	}
	secret := e2e.File(t, "secret", []byte("secret outside"))
	at := func(name string) string { return filepath.Join(string(dir), "hostile", name) }
	if err := os.MkdirAll(at("real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(at("real/f"), []byte("inside"), 0o600),
		os.Symlink(secret, at("out")),
		os.Symlink(filepath.Dir(secret), at("outdir")),
		os.Symlink("/etc", at("etc")),
		os.Symlink("../../../../../../../etc/passwd", at("up")),
		syscall.Mkfifo(at("fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	defer os.RemoveAll(at(""))
	node := "http://" + w.A.NodeHTTP[0]
	for _, path := range []string{"out", "outdir/secret", "etc/passwd", "up"} {
		a := e2e.HTTP(t, "GET", node+"/v1/data/hostile/"+path+"?sync_interval=always", "")
		if a.Status != 403 && a.Status != 404 && a.Status != 412 || strings.Contains(a.Body, "secret outside") || strings.Contains(a.Body, "root:x:") {
			t.Errorf("%s: status %d, %.200q", path, a.Status, a.Body)
		}
		got := w.A.CLI(t, "fs", "cat", "--sync-interval", "always", "/hostile/"+path)
		if got.Code != freshet.ExitDenied && got.Code != freshet.ExitNotFound && got.Code != freshet.ExitConflict || got.Out != "" {
			t.Errorf("%s: exit code %d, %q", path, got.Code, got.Out)
		}
	}
	got := w.A.CLI(t, "fs", "cat", "--timeout", "20s", "/hostile/fifo") // no hang
	if got.Code == 0 {
		t.Errorf("a fifo was read: %q", got.Out)
	}
	if got := e2e.HTTP(t, "PUT", node+"/v1/data/hostile/outdir/planted", "x"); got.Status < 400 {
		t.Errorf("a file was planted through a symlink: %d", got.Status)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(secret), "planted")); err == nil {
		t.Error("a file was planted outside")
	}
	w.A.CLI(t, "fs", "ls", "--sync-interval", "always", "/hostile").Want(t, 0, "/hostile/real")
	// They are in no listing, and not absent for that; nor are they ever replaced.
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"out": {403, "symlink leaves the mount root"}, "up": {403, "symlink leaves the mount root"}, "etc/passwd": {403, "symlink leaves the mount root"},
		"fifo": {412, "is a fifo, not a regular file"}, "none": {404, "does not exist"},
	} {
		e2e.HTTP(t, "GET", node+"/v1/data/hostile/"+path, "").Want(t, want.status, want.text)
		if want.status != 404 {
			e2e.HTTP(t, "PUT", node+"/v1/data/hostile/"+path, "x").Want(t, want.status)
		}
	}
	if info, err := os.Lstat(at("fifo")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the fifo is now %v, %v", info, err)
	}
	if target, err := os.Readlink(at("out")); err != nil || target != secret {
		t.Errorf("the link now leads to %q, %v", target, err)
	}
	// New content lets nobody in whom the old one kept out.
	e2e.HTTP(t, "PUT", node+"/v1/data/hostile/real/f", "inside").Want(t, 201)
	if info, err := os.Stat(at("real/f")); err != nil || info.Mode() != 0o600 {
		t.Errorf("after an overwrite the file is %v, %v", info, err)
	}
	w.A.CLI(t, "fs", "cat", "/hostile/real/f").Want(t, 0, "inside")
	if err := os.RemoveAll(at("")); err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "sync", "now", "--recursive", "/").Want(t, 0)
}

// badMounts are the cases 27 to 37 that need no storage of their own.
func badMounts(t *testing.T, w *e2e.World) {
	coord := "http://" + w.A.HTTP[0]
	leader, err := w.A.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s3 := func(endpoint string) []string { return []string{"s3://bucket", "--option", "endpoint=" + endpoint} }
	var before, after struct{ Mounts []struct{ Path string } }
	e2e.HTTP(t, "GET", coord+"/v1/mounts", "").Want(t, 200).JSON(t, &before)
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"proc", []string{"file:///proc"}, freshet.ExitDenied, "/proc"},
		{"dev", []string{"file:///dev"}, freshet.ExitDenied, "/dev"},
		{"sys below", []string{"file:///sys/kernel"}, freshet.ExitDenied, "/sys"},
		{"our own data", []string{"file://" + filepath.Join(filepath.Dir(leader.Config), "data")}, freshet.ExitDenied, "data"},
		{"metadata address", s3("http://169.254.169.254"), freshet.ExitDenied, "169.254.169.254"},
		{"metadata address in IPv6", s3("http://[::ffff:169.254.169.254]"), freshet.ExitDenied, "169.254.169.254"},
		{"metadata address as a number", s3("http://2852039166"), freshet.ExitDenied, "169.254.169.254"},
		{"unknown option", []string{"s3://bucket", "--option", "regoin=x"}, freshet.ExitUsage, "region"},
		{"inline secret", []string{"s3://bucket", "--option", "secret_key=secretcanary", "--option", "access_key=env:A"}, freshet.ExitUsage, "env:"},
		{"credentials in the URI", []string{"s3://AKIA:secretcanary@bucket"}, freshet.ExitUsage, "credentials"},
		{"unknown scheme", []string{"gopher://x"}, freshet.ExitUsage, "gopher"},
		{"dot dot in the URI", []string{"file:///tmp/../etc"}, freshet.ExitUsage, ".."},
		{"negative interval", []string{"file:///srv", "--sync-interval", "-5s"}, freshet.ExitUsage, "-5s"},
		{"interval in parsecs", []string{"file:///srv", "--sync-interval", "5 parsecs"}, freshet.ExitUsage, "5 parsecs"},
		{"endless interval", []string{"file:///srv", "--sync-interval", "1e9h"}, freshet.ExitUsage, "1e9h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.A.CLI(t, append([]string{"mount", "add", "/bad"}, c.args...)...).Want(t, c.code, c.says)
			if strings.Contains(got.Out+got.Err, "secretcanary") {
				t.Errorf("a secret is shown: %s%s", got.Out, got.Err)
			}
		})
	}
	e2e.HTTP(t, "POST", coord+"/v1/mounts", `{"path":"/bad","ufs":"file:///proc"}`).Want(t, 403, "/proc")
	e2e.HTTP(t, "POST", coord+"/v1/mounts", `{"path":"/../bad","ufs":"file:///srv"}`).Want(t, 400)
	e2e.HTTP(t, "DELETE", coord+"/v1/mounts?path=/none", "").Want(t, 404)
	e2e.HTTP(t, "DELETE", coord+"/v1/mounts?path=/&dry_run=true", "").Want(t, 200)
	e2e.HTTP(t, "GET", coord+"/v1/mounts", "").Want(t, 200).JSON(t, &after)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("mounts before %v, after %v", before, after)
	}
	for _, p := range w.A.Processes() {
		if b, err := os.ReadFile(p.Log); err != nil || strings.Contains(string(b), "secretcanary") {
			t.Errorf("the log of %s has a secret (%v)", p.Name, err)
		}
	}
}
