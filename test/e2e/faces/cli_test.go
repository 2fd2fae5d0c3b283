package faces_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// entry is what fs prints as JSON of an entry.
type entry struct {
	Path, Kind, Length, Fingerprint, Etag string
	Mode                                  uint32
}

func cliFiles(t *testing.T, w *e2e.World) {
	var lines strings.Builder
	for i := range 40 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	text := lines.String()
	in := "file:" + e2e.File(t, "in", []byte(text))
	cli := func(args ...string) e2e.Ran { t.Helper(); return w.A.CLI(t, args...) }
	cli("fs", "mkdir", "-p", "/cli/a/b").Want(t, 0, "token: ")
	cli("fs", "mkdir", "/cli/a").Want(t, freshet.ExitConflict, "/cli/a")
	cli("fs", "cp", in, "/cli/a/text").Want(t, 0, "copied 1 file", "token: ")
	for _, c := range []struct {
		args []string
		out  string
	}{
		{[]string{"cat", "/cli/a/text"}, text},
		{[]string{"cat", "/cli/a/text", "/cli/a/text"}, text + text},
		{[]string{"head", "/cli/a/text"}, strings.Join(strings.SplitAfter(text, "\n")[:10], "")},
		{[]string{"head", "-n", "2", "/cli/a/text"}, "line 0\nline 1\n"},
		{[]string{"head", "-c", "6", "/cli/a/text"}, "line 0"},
		{[]string{"tail", "-n", "2", "/cli/a/text"}, "line 38\nline 39\n"},
		{[]string{"tail", "-c", "3", "/cli/a/text"}, "39\n"},
	} {
		if got := cli(append([]string{"fs"}, c.args...)...).Want(t, 0); got.Out != c.out {
			t.Errorf("fs %q prints %q, want %q", c.args, got.Out, c.out)
		}
	}
	var st entry
	cli("fs", "stat", "-o", "json", "/cli/a/text").Want(t, 0).JSON(t, &st)
	if st.Path != "/cli/a/text" || st.Kind != "file" || st.Length != fmt.Sprint(len(text)) || st.Etag == "" || st.Fingerprint == "-" {
		t.Errorf("stat: %+v", st)
	}
	var ls struct{ Entries []entry }
	cli("fs", "ls", "-R", "-o", "json", "/cli").Want(t, 0).JSON(t, &ls)
	var got []string
	for _, e := range ls.Entries {
		got = append(got, e.Path)
	}
	if fmt.Sprint(got) != "[/cli/a /cli/a/b /cli/a/text]" {
		t.Errorf("ls -R: %v", got)
	}
	cli("fs", "ls", "-o", "yaml", "/cli/a").Want(t, 0, "path: /cli/a/text")
	cli("fs", "chmod", "640", "/cli/a/text").Want(t, 0)
	cli("fs", "ls", "/cli/a").Want(t, 0, "-rw-r-----")
	cli("fs", "chmod", "999", "/cli/a/text").Want(t, freshet.ExitUsage, "octal")
	cli("fs", "touch", "/cli/a/empty", "/cli/a/text").Want(t, 0)
	cli("fs", "test", "-z", "/cli/a/empty").Want(t, 0)
	cli("fs", "test", "-z", "/cli/a/text").Want(t, 1)
	cli("fs", "test", "-d", "/cli/a").Want(t, 0)
	cli("fs", "test", "-f", "/cli/a").Want(t, 1)
	cli("fs", "test", "/cli/none").Want(t, freshet.ExitNotFound)
	var sum struct {
		Directories, Files, Bytes int64 `json:",string"`
	}
	cli("fs", "count", "-o", "json", "/cli").Want(t, 0).JSON(t, &sum)
	if sum.Directories != 3 || sum.Files != 2 || sum.Bytes != int64(len(text)) {
		t.Errorf("count: %+v", sum)
	}
	cli("fs", "du", "/cli").Want(t, 0, fmt.Sprint(len(text)))
	cli("fs", "mv", "/cli/a/text", "/cli/a/b").Want(t, 0) // into the directory
	cli("fs", "stat", "/cli/a/b/text").Want(t, 0)
	cli("fs", "touch", "/cli/a/other").Want(t, 0)
	cli("fs", "mv", "/cli/a/other", "/cli/a/b/text").Want(t, freshet.ExitConflict)
	cli("fs", "mv", "--overwrite", "/cli/a/other", "/cli/a/b/text").Want(t, 0)
	cli("fs", "rm", "/cli/a").Want(t, freshet.ExitConflict)
	cli("fs", "rm", "/cli/none").Want(t, freshet.ExitNotFound)
	cli("fs", "rm", "-f", "/cli/none").Want(t, 0)
	cli("fs", "rm", "/cli/a/empty", "/cli/none").Want(t, freshet.ExitPartly, "1 of 2 failed")
	unchanged(t, w, func() {
		cli("fs", "mkdir", "/cli/dry", "--dry-run").Want(t, 0, "dry run")
		cli("fs", "touch", "/cli/dry", "--dry-run").Want(t, 0, "dry run")
		cli("fs", "cp", in, "/cli/dry", "--dry-run").Want(t, 0, "dry run")
		cli("fs", "mv", "/cli/a/b/text", "/cli/dry", "--dry-run").Want(t, 0, "dry run")
		cli("fs", "rm", "-r", "/cli", "--dry-run").Want(t, 0, "dry run")
		cli("fs", "rm", "-r", "/cli/none", "--dry-run").Want(t, freshet.ExitNotFound)
		cli("fs", "chmod", "600", "/cli/a/b/text", "--dry-run").Want(t, 0, "dry run")
	})
	cli("fs", "rm", "-r", "/cli").Want(t, 0)
	cli("fs", "stat", "/cli").Want(t, freshet.ExitNotFound)
}

func cliCopies(t *testing.T, w *e2e.World) {
	addr := []string{"--addr", strings.Join(w.A.Clients, ",")}
	src := t.TempDir()
	for _, name := range []string{"top", "d1/x", "d1/d2/y"} {
		if err := e2e.Dir(src).Put(t.Context(), name, []byte("content of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	w.A.CLI(t, "fs", "cp", "file:"+src, "/copies").Want(t, freshet.ExitConflict, "--recursive")
	w.A.CLI(t, "fs", "cp", "-r", "file:"+src, "/copies").Want(t, 0, "copied 3 files")
	out := t.TempDir()
	w.A.CLI(t, "fs", "cp", "-r", "/copies", "file:"+out+"/back").Want(t, 0, "copied 3 files")
	for _, name := range []string{"top", "d1/x", "d1/d2/y"} {
		if b, err := os.ReadFile(filepath.Join(out, "back", name)); err != nil || string(b) != "content of "+name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	e2e.CLI(t, "from stdin", append(addr, "fs", "cp", "-", "/copies/stdin")...).Want(t, 0)
	if got := w.A.CLI(t, "fs", "cp", "/copies/stdin", "-").Want(t, 0); got.Out != "from stdin" {
		t.Errorf("stdout: %q", got.Out)
	}
	w.A.CLI(t, "fs", "cp", "/copies/top", "/copies/within").Want(t, 0)
	w.A.CLI(t, "fs", "cat", "/copies/within").Want(t, 0, "content of top")
	w.A.CLI(t, "fs", "cp", "file:"+src+"/none", "/copies/none").Want(t, freshet.ExitNotFound, "local file")
	w.A.CLI(t, "fs", "cp", "/copies/none", "file:"+out+"/none").Want(t, freshet.ExitNotFound)
	if _, err := os.Stat(out + "/none"); err == nil {
		t.Error("a failed copy left a file")
	}
	w.A.CLI(t, "fs", "cp", "--write-type", "never", "file:"+src+"/top", "/copies/mc").Want(t, freshet.ExitUsage, "must_cache")
	w.A.CLI(t, "fs", "cp", "--write-type", "through", "file:"+src+"/top", "/copies/through").Want(t, 0)
}

func cliCluster(t *testing.T, w *e2e.World) {
	var st struct {
		Name    string
		Healthy bool
		Members []struct {
			Name   string
			Leader bool
		}
	}
	w.A.CLI(t, "cluster", "status", "-o", "json").Want(t, 0).JSON(t, &st)
	if st.Name != "a" || !st.Healthy || len(st.Members) != 3 {
		t.Errorf("status: %+v", st)
	}
	w.A.CLI(t, "cluster", "nodes").Want(t, 0, "n1", "live")
	w.A.CLI(t, "cluster", "raft", "list-peers").Want(t, 0, "leader", "c1", "c2", "c3")
	follower := ""
	for _, m := range st.Members {
		if !m.Leader {
			follower = m.Name
		}
	}
	w.A.CLI(t, "cluster", "raft", "transfer-leader", follower).Want(t, 0)
	leader, err := w.A.Leader(t.Context())
	if err != nil || leader.Name != "a-"+follower {
		t.Errorf("after the transfer to %s: %v, %v", follower, leader, err)
	}
	for i, addr := range w.A.Clients { // any member answers
		e2e.CLI(t, "", "--addr", addr, "fs", "mkdir", fmt.Sprintf("/by-member-%d", i)).Want(t, 0)
	}
	w.A.CLI(t, "cluster", "raft", "remove", "c9", "--dry-run").Want(t, freshet.ExitNotFound)
	w.A.CLI(t, "cluster", "bump-epoch", "--dry-run").Want(t, 0)
	e2e.CLI(t, "", "--addr", "127.0.0.1:1", "--timeout", "2s", "fs", "ls", "/").Want(t, freshet.ExitUnavailable)
	w.A.CLI(t, "fs", "frobnicate").Want(t, freshet.ExitUsage, "frobnicate")
	w.A.CLI(t, "frobnicate").Want(t, freshet.ExitUsage, "frobnicate")
	w.A.CLI(t, "fs", "ls").Want(t, freshet.ExitUsage)
	w.A.CLI(t, "fs", "ls", "/", "--frobnicate").Want(t, freshet.ExitUsage, "frobnicate")
	w.A.CLI(t, "fs", "ls", "/", "-o", "xml").Want(t, freshet.ExitUsage, "xml")
	var version struct{ Version string }
	w.A.CLI(t, "version", "-o", "json").Want(t, 0).JSON(t, &version)
	if version.Version == "" {
		t.Error("no version")
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		w.A.CLI(t, "completion", shell).Want(t, 0, "freshet")
	}
	w.A.CLI(t).Want(t, 0, "freshet demo", "mount add")
}

const coordinatorFile = `cluster: eu
node: {name: c1, data_dir: /tmp/freshet-never-used}
listen: {client: "127.0.0.1:0", http: "127.0.0.1:0", raft: "127.0.0.1:0"}
`

func cliConfig(t *testing.T, w *e2e.World) {
	for _, c := range []struct {
		name, text string
		code       int
		says       []string
	}{
		{"good", coordinatorFile, 0, []string{"ok"}},
		{"unknown key", coordinatorFile + "raft: {hartbeat: 1s}\n", 2, []string{":4:8", `"hartbeat"`, "heartbeat"}},
		{"negative duration", coordinatorFile + "raft: {heartbeat: -5s}\n", 2, []string{":4:", "raft.heartbeat", "-5s"}},
		{"duration in parsecs", coordinatorFile + "raft: {heartbeat: 5 parsecs}\n", 2, []string{"raft.heartbeat", "5 parsecs"}},
		{"huge duration", coordinatorFile + "sync: [{path: /, interval: 1e9h}]\n", 2, []string{"sync[0]", "1e9h"}},
		{"negative size", coordinatorFile + "raft: {state_cache: \"-1\"}\n", 2, []string{"raft.state_cache", "-1"}},
		{"huge size", coordinatorFile + "raft: {state_cache: 9999999TB}\n", 2, []string{"raft.state_cache", "9999999TB"}},
		{"no number", coordinatorFile + "raft: {state_cache: NaN}\n", 2, []string{"raft.state_cache", "NaN"}},
		{"aliases", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", 2, []string{":1:", "aliases"}},
		{"no YAML", "cluster: [", 2, []string{":1:"}},
		{"huge", "# " + strings.Repeat("x", 2<<20), 2, []string{"larger than"}},
		{
			"plain text off loopback", strings.Replace(coordinatorFile, "127.0.0.1:0", "0.0.0.0:7400", 1), 2,
			[]string{"refusing to listen on 0.0.0.0:7400 without TLS"},
		},
		{"even number of coordinators", coordinatorFile + "raft: {bootstrap_expect: 2}\n", 2, []string{"raft.bootstrap_expect"}},
		{"misspelt option", coordinatorFile + "mounts: [{path: /, ufs: \"s3://bucket\", options: {regoin: x}}]\n", 2, []string{"regoin", "region"}},
		{"credentials in the URI", coordinatorFile + "mounts: [{path: /, ufs: \"s3://AKIAKEY:secretcanary@bucket\"}]\n", 2, []string{"credentials"}},
		{"inline secret", coordinatorFile + "mounts: [{path: /, ufs: \"s3://bucket\", options: {secret_key: secretcanary, access_key: \"env:A\"}}]\n", 2, []string{"env:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := e2e.File(t, "c.yaml", []byte(c.text))
			got := w.A.CLI(t, "config", "validate", file).Want(t, c.code, c.says...)
			if strings.Contains(got.Out+got.Err, "secretcanary") {
				t.Errorf("a secret is shown: %s%s", got.Out, got.Err)
			}
			if c.code != 0 { // a server refuses it the same way
				w.A.CLI(t, "coordinator", "--config", file).Want(t, c.code, c.says...)
			}
		})
	}
	w.A.CLI(t, "config", "validate", "/none.yaml").Want(t, 2, "/none.yaml")
}

func cliApply(t *testing.T, w *e2e.World) {
	dir := t.TempDir()
	file := func(text string) string { return e2e.File(t, "lake.yaml", []byte(text)) }
	one := file(fmt.Sprintf("mounts: [{path: /applied, ufs: \"file://%s\"}]\nsync: [{path: /applied/hot, interval: 10s}]\n", dir))
	w.A.CLI(t, "apply", "-f", one, "--dry-run").Want(t, 0, "/applied", "nothing changed")
	w.A.CLI(t, "plan", "-f", one).Want(t, 0, "/applied/hot")
	w.A.CLI(t, "mount", "show", "/applied").Want(t, freshet.ExitNotFound)
	w.A.CLI(t, "apply", "-f", one).Want(t, 0, "2 changes made")
	w.A.CLI(t, "mount", "show", "/applied").Want(t, 0, "apply")
	w.A.CLI(t, "sync", "get", "/applied/hot/f").Want(t, 0, "10s", "/applied/hot")
	w.A.CLI(t, "apply", "-f", one).Want(t, 0, "0 changes")
	two := file(fmt.Sprintf("mounts: [{path: /applied, ufs: \"file://%s\", read_only: true}]\n", dir))
	w.A.CLI(t, "apply", "-f", two).Want(t, 0, "1 change made")
	w.A.CLI(t, "sync", "get", "/applied/hot/f").Want(t, 0, "10s")
	w.A.CLI(t, "apply", "-f", two, "--prune").Want(t, 0)
	w.A.CLI(t, "sync", "ls").Want(t, 0)
	if got := w.A.CLI(t, "sync", "get", "/applied/hot/f").Want(t, 0); strings.Contains(got.Out, "10s") {
		t.Errorf("the pruned interval is still there: %s", got.Out)
	}
	w.A.CLI(t, "apply", "-f", file("mounts: [{path: relative, ufs: \"file:///x\"}]\n")).Want(t, 2, "mounts[0]")
	w.A.CLI(t, "apply", "-f", file("{}\n"), "--prune").Want(t, 0)
	w.A.CLI(t, "mount", "show", "/applied").Want(t, freshet.ExitNotFound)
}
