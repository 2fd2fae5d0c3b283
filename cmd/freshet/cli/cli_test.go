package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/cli"
	"github.com/freshet-io/freshet/fingerprint"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// cluster is a coordinator, and its one cache node, that the command line talks to.
type cluster struct {
	rpc.Namespace
	rpc.Mounts
	rpc.Policies
	rpc.Cluster
	rpc.Peers

	addr    string
	err     error
	healthy bool
	syncs   syncs
	// quarantined are the operations whose outcome is not known.
	quarantined []freshet.Operation

	mu      sync.Mutex              // several files are copied at a time
	files   map[freshet.Path]string // a directory ends in "/"
	changes []string

	attributes // see access_test.go
}

func (c *cluster) text(p freshet.Path) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, ok := c.files[p]
	return text, ok
}

func (c *cluster) put(p freshet.Path, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[p] = text
}

func (c *cluster) names() []freshet.Path {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.files))
}

func (c *cluster) change(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.changes = append(c.changes, fmt.Sprintf(format, args...))
	}
	return c.err
}

func (c *cluster) info(p freshet.Path) (freshet.Info, error) {
	i := freshet.Info{Path: p, Fingerprint: fingerprint.Fingerprint{Content: "c", Change: "h", Meta: "m"}, Mode: 0o640, ModTime: time.Unix(1_700_000_000, 0).UTC()}
	if text, ok := c.text(p); ok {
		i.Length = int64(len(text))
		return i, nil
	}
	if _, ok := c.text(p + "/"); ok || p == "/" {
		i.Type = freshet.TypeDirectory
		return i, nil
	}
	return i, freshet.Errorf(freshet.KindNotExist, "stat", p, "does not exist")
}

func (c *cluster) Stat(_ context.Context, p freshet.Path, _ freshet.ReadOptions) (freshet.Status, error) {
	if c.err != nil {
		return freshet.Status{}, c.err
	}
	i, err := c.info(p)
	return freshet.Status{Info: i}, err
}

func (c *cluster) List(_ context.Context, q freshet.ListQuery) (freshet.ListPage, error) {
	var page freshet.ListPage
	for _, p := range c.names() {
		p = freshet.Path(strings.TrimSuffix(string(p), "/"))
		if q.Path != p && q.Path.Contains(p) {
			i, _ := c.info(p)
			page.Entries = append(page.Entries, i)
		}
	}
	return page, c.err
}

func (c *cluster) Locate(_ context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	i, err := c.info(q.Path)
	l := freshet.Location{Info: i, Source: freshet.Source{Key: string(q.Path), Fingerprint: i.Fingerprint}}
	if i.Length > 0 {
		l.Blocks = []freshet.Block{{Length: i.Length, Fetch: freshet.Node{ID: "n", GRPC: c.addr}}}
	}
	return l, err
}

func (c *cluster) Read(_ context.Context, q freshet.BlockRead) (freshet.BlockStream, error) {
	text, _ := c.text(freshet.Path(q.Source.Key))
	return stream{strings.NewReader(text[q.Offset : q.Offset+q.Length]), q.Length}, nil
}

type stream struct {
	io.Reader

	length int64
}

func (stream) Close() error                         { return nil }
func (s stream) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, s.Reader) }
func (s stream) Length() int64                      { return s.length }
func (stream) Origin() freshet.Origin               { return freshet.OriginHit }

func (c *cluster) BeginWrite(_ context.Context, q freshet.BeginWriteQuery) (freshet.BeginWriteAnswer, error) {
	return freshet.BeginWriteAnswer{Ticket: freshet.Ticket{Path: q.Path, Node: freshet.Node{GRPC: c.addr}}}, c.err
}

func (c *cluster) Write(_ context.Context, t freshet.Ticket, body io.Reader, _ int64) (freshet.Completed, error) {
	b, err := io.ReadAll(body)
	if err == nil {
		c.put(t.Path, string(b))
		err = c.change("write %s", t.Path)
	}
	return freshet.Completed{}, err
}

func (c *cluster) Mkdir(_ context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	return freshet.Completed{}, c.change("mkdir %s", q.Path)
}

func (c *cluster) Remove(_ context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	return freshet.Completed{}, c.change("rm %s", q.Path)
}

func (c *cluster) Rename(_ context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	return freshet.Completed{}, c.change("mv %s %s", q.Path, q.Target)
}

func (c *cluster) SetAttr(_ context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	if err := c.broken(q.Path); err != nil {
		return freshet.Completed{}, err
	}
	if q.Mode != nil {
		return freshet.Completed{}, c.change("chmod %o %s", *q.Mode, q.Path)
	}
	return freshet.Completed{}, c.change("chown %s:%s %s", textOf(q.Owner), textOf(q.Group), q.Path)
}

func (c *cluster) Explain(_ context.Context, p freshet.Path, check bool) (freshet.Explanation, error) {
	if p == explainedPath {
		return explained(), c.err
	}
	x := freshet.Explanation{Path: p, Verdict: "fresh"}
	i, err := c.info(p)
	x.Info = &i
	if check {
		x.Storage = &freshet.StorageView{Exists: true} // another version
	}
	return x, err
}

func (c *cluster) mountsAt(p freshet.Path) []freshet.MountAnswer {
	a := freshet.MountAnswer{Mount: freshet.Mount{Path: p, URI: "s3://b", Origin: "operator"}}
	if p == connectingPath {
		a.Degraded, a.DegradedReason = true, "not heard yet"
		a.ActiveSync = &freshet.ActiveSyncStatus{Source: "sqs:q", Connecting: true, SinceNotice: -1, Lag: -1}
	}
	return []freshet.MountAnswer{a}
}

type mounts struct{ *cluster }

func (m mounts) Mounts(_ context.Context, _ freshet.Path) ([]freshet.MountAnswer, uint64, error) {
	return m.mountsAt("/"), 1, m.err
}

func (m mounts) AddMount(_ context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	if c.DryRun {
		return m.mountsAt(c.Path)[0], m.err
	}
	return m.mountsAt(c.Path)[0], m.change("mount %s %s", c.Path, *c.URI)
}

type admin struct{ *cluster }

func (a admin) Cluster(context.Context) (freshet.ClusterStatus, error) {
	return freshet.ClusterStatus{Name: "eu", Leader: "c1", Healthy: a.healthy, QuarantinedOps: a.quarantined, Members: []freshet.Member{{ID: "c1", Leader: true}}}, a.err
}

func (a admin) TransferLeadership(context.Context, string) (string, error) { return "", a.err }

func (a admin) Nodes(context.Context) ([]freshet.NodeStatus, error) {
	return []freshet.NodeStatus{{Node: freshet.Node{Name: "n1"}, Live: true}}, a.err
}

func (a admin) Peers(context.Context) ([]freshet.Peer, error) {
	return []freshet.Peer{{Name: "us", State: "degraded"}}, a.err
}

func (c *cluster) policy() freshet.SyncPolicy {
	return freshet.SyncPolicy{Path: "/", Interval: freshet.Never, Origin: "mount"}
}

type policies struct{ *cluster }

func (p policies) Policies(context.Context, freshet.Path) ([]freshet.SyncPolicy, error) {
	return []freshet.SyncPolicy{p.policy()}, p.err
}

func (p policies) SetPolicy(_ context.Context, rule freshet.SyncPolicy, dryRun bool) (freshet.SyncPolicy, error) {
	if dryRun {
		return rule, p.err
	}
	return rule, p.change("sync %s %s", rule.Path, rule.Interval)
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{healthy: true, files: map[freshet.Path]string{"/d/": "", "/d/f": "one\ntwo\nthree\n", "/empty": ""}}
	srv := rpc.NewServer(rpc.ServerOptions{MaxMessage: rpc.MaxDataMessage})
	r := srv.Registrar()
	rpc.RegisterNamespace(r, rpc.NewNamespaceServer(c, nil))
	freshetv1.RegisterMountServiceServer(r, rpc.NewMountServer(mounts{c}, nil))
	freshetv1.RegisterPolicyServiceServer(r, rpc.NewPolicyServer(policies{c}, nil))
	freshetv1.RegisterQuotaServiceServer(r, rpc.NewQuotaServer(quotas{c}, nil))
	freshetv1.RegisterClusterServiceServer(r, rpc.NewClusterServer(admin{c}, admin{c}, nil))
	freshetv1.RegisterBlockServiceServer(r, rpc.NewBlockServer(c))
	freshetv1.RegisterSyncServiceServer(r, rpc.NewSyncServer(&c.syncs, nil))
	freshetv1.RegisterCheckServiceServer(r, rpc.NewCheckServer(checker{c}, nil))
	freshetv1.RegisterAccessServiceServer(r, rpc.NewAccessServer(c, nil))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

type result struct {
	code     int
	out, err string
}

// run executes a command line against c, without --addr if c is nil.
func run(c *cluster, stdin string, args ...string) result {
	var out, errOut bytes.Buffer
	env := map[string]string{"NO_COLOR": "1"}
	if c != nil {
		env["FRESHET_ADDR"] = c.addr
	}
	streams := cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errOut, Getenv: func(k string) string { return env[k] }}
	code := cli.Run(context.Background(), args, streams, func(cli.Streams) []*cobra.Command { return nil })
	return result{code, out.String(), errOut.String()}
}

func TestExitCodes(t *testing.T) {
	c := newCluster(t)
	for _, row := range freshet.Kinds()[1:] {
		c.err = freshet.Errorf(row.Kind, "stat", "/d/f", "so it is")
		r := run(c, "", "fs", "stat", "/d/f", "--timeout", "20s")
		if r.code != row.Exit || r.out != "" || !strings.Contains(r.err, "so it is") || strings.Contains(r.err, "rpc error") {
			t.Errorf("%s: exit %d, want %d; stdout %q, stderr %q", row.Name, r.code, row.Exit, r.out, r.err)
		}
	}
	c.err = nil
	for _, tc := range []struct {
		want int
		args string
	}{
		{0, "fs test -e /d/f"},
		{0, "fs test -d /d"},
		{0, "fs test -z /empty"},
		{1, "fs test -d /d/f"},
		{1, "fs test -f /d"},
		{1, "fs test -z /d/f"},
		{3, "fs test -e /no"},
		{3, "fs cat /no"},
		{2, "fs stat relative"},
		{2, "fs stat"},
		{2, "fs stat /a /b"},
		{2, "no-such-command"},
		{2, "fs no-such-command"},
		{2, "fs ls / --no-such-flag"},
		{2, "fs ls / -o xml"},
		{2, "sync set /a"},
		{2, "sync set /a --interval soon"},
		{2, "fs chmod 999 /d/f"},
		{2, "fs chmod u+q /d/f"},
		{2, "fs chmod u /d/f"},
		{2, "fs chmod 600 -R --parallel 0 /d"},
		{2, "fs chown al: /d/f"},
		{2, "fs chown : /d/f"},
		{2, "fs setfacl /d/f"},
		{2, "fs setfacl -b -k /d/f"},
		{2, "fs setfacl -m nobody /d/f"},
		{2, "fs setfacl -x u: /d/f"},
		{2, "fs xattr set /d/f name v"},
		{2, "fs xattr set /d/f user.a"},
		{2, "fs xattr set /d/f user.a v --file -"},
		{2, "fs xattr get /d/f system.x"},
		{3, "fs xattr get /d/f user.none"},
		{3, "fs chmod -R 600 /no"},
		{2, "fs cp - /d/"},
		{2, "mount add /x s3://b --option novalue"},
		{2, "fs head /d/f -c=-5"},
		{0, "cluster status"},
		{7, "peers status"},
		{3, "peers status mars"},
		{7, "explain /d/f --check"},
		{0, "explain /d/f"},
		{0, "version"},
		{0, ""},
		{8, "fs rm --dry-run /d/f /no"},
		{3, "fs rm --dry-run /no"},
		{0, "fs rm -f --dry-run /no"},
	} {
		if r := run(c, "x", strings.Fields(tc.args)...); r.code != tc.want {
			t.Errorf("%s: exit %d, want %d: %s", tc.args, r.code, tc.want, r.err)
		}
	}
	if r := run(c, "", "cluster", "raft", "transfer-leader"); r.code != 0 || !strings.Contains(r.err, "cluster status") {
		t.Errorf("handed over to nobody knows whom: exit %d, %s%s", r.code, r.out, r.err)
	}
	c.healthy = false
	if r := run(c, "", "cluster", "status"); r.code != 7 || !strings.Contains(r.out, "UNHEALTHY") {
		t.Errorf("unhealthy: exit %d, %s", r.code, r.out)
	}
	if r := run(c, "", "fs", "stat", "/\xff"); r.code != 2 {
		t.Errorf("bytes that are not text: exit %d: %s", r.code, r.err)
	}
	const nobody = "127.0.0.1:1" // no server gets that port
	if r := run(nil, "", "fs", "ls", "/", "--addr", nobody); r.code != 5 || !strings.Contains(r.err, "freshet dev") {
		t.Errorf("nobody there: exit %d: %s", r.code, r.err)
	}
}

func TestOutputs(t *testing.T) {
	c := newCluster(t)
	for _, args := range []string{
		"fs ls /d", "fs stat /d/f", "fs du /d", "fs count /", "mount ls", "mount show /", "sync ls", "sync get /d", "cluster nodes", "cluster status",
		"cluster raft list-peers", "peers ls", "fs getfacl /d", "fs xattr ls /d/f", "explain /d/f", "version", "sync set /d --interval 5s --dry-run", "mount add /x s3://b --dry-run",
	} {
		table := run(c, "", strings.Fields(args)...)
		asJSON := run(c, "", append(strings.Fields(args), "-o", "json")...)
		asYAML := run(c, "", append(strings.Fields(args), "--output", "yaml")...)
		if table.code != 0 || table.out == "" || strings.HasPrefix(table.out, "{") || strings.Contains(table.out+table.err, "\x1b") {
			t.Errorf("%s: exit %d, %q, %q", args, table.code, table.out, table.err)
		}
		if !json.Valid([]byte(asJSON.out)) || asJSON.code != 0 {
			t.Errorf("%s -o json: %s", args, asJSON.out)
		}
		if asYAML.out == "" || json.Valid([]byte(asYAML.out)) || !strings.Contains(asYAML.out, ": ") {
			t.Errorf("%s -o yaml: %s", args, asYAML.out)
		}
	}
	if len(c.changes) != 0 {
		t.Errorf("something was changed: %v", c.changes)
	}
}

func TestDryRunsChangeNothing(t *testing.T) {
	c := newCluster(t)
	local := filepath.Join(t.TempDir(), "l")
	if err := os.WriteFile(local, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ args, change string }{
		{"fs mkdir /new", "mkdir /new"},
		{"fs rm /d/f", "rm /d/f"},
		{"fs mv /d/f /d/g", "mv /d/f /d/g"},
		{"fs chmod 600 /d/f", "chmod 600 /d/f"},
		{"fs chmod u+x,g=u,o-r /d/f", "chmod 770 /d/f"},
		{"fs chmod -R a=rX /empty", "chmod 444 /empty"},
		{"fs chown al /d/f", "chown al:- /d/f"},
		{"fs chown al:dev /d/f", "chown al:dev /d/f"},
		{"fs chown :dev /d/f", "chown -:dev /d/f"},
		{"fs chgrp dev /d/f", "chown -:dev /d/f"},
		{"fs setfacl -m u:al:rw,d:u:al:r /d", "setfacl modify user:al:rw-,default:user:al:r-- /d"},
		{"fs setfacl -x u:al /d/f", "setfacl remove user:al:--- /d/f"},
		{"fs setfacl --set u::r,g::r,o::- /d/f", "setfacl set user::r--,group::r--,other::--- /d/f"},
		{"fs setfacl -b /d/f", "setfacl remove_all  /d/f"},
		{"fs setfacl -k /d", "setfacl remove_default  /d"},
		{"fs xattr set /d/f user.a b", `set user.a="b" 0 /d/f`},
		{"fs xattr set /d/f user.a b --create", `set user.a="b" 1 /d/f`},
		{"fs xattr set /d/f user.a b --replace", `set user.a="b" 2 /d/f`},
		{"fs xattr rm /d/f user.x", "unset user.x /d/f"},
		{"fs touch /new", "write /new"},
		{"fs cp file:" + local + " /d", "write /d/l"},
		{"mount add /x s3://b", "mount /x s3://b"},
		{"sync set /d --interval 5s", "sync /d 5s"},
	} {
		c.changes = nil
		r := run(c, "", append(strings.Fields(tc.args), "--dry-run")...)
		if r.code != 0 || len(c.changes) != 0 || !strings.Contains(r.err, "dry run") {
			t.Errorf("%s --dry-run: exit %d, %v, %s", tc.args, r.code, c.changes, r.err)
		}
		if r = run(c, "", strings.Fields(tc.args)...); r.code != 0 || len(c.changes) != 1 || c.changes[0] != tc.change {
			t.Errorf("%s: exit %d, %v, %s", tc.args, r.code, c.changes, r.err)
		}
		for _, extra := range []string{" -o json --dry-run", " -o json"} {
			if r = run(c, "", strings.Fields(tc.args+extra)...); r.code != 0 || !json.Valid([]byte(r.out)) {
				t.Errorf("%s%s: exit %d, %q, %s", tc.args, extra, r.code, r.out, r.err)
			}
		}
	}
}

func TestTransfers(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	for _, tc := range []struct{ args, out string }{
		{"fs cat /d/f", "one\ntwo\nthree\n"},
		{"fs cat /empty", ""},
		{"fs head /d/f -n 2", "one\ntwo\n"},
		{"fs tail /d/f -n 2", "two\nthree\n"},
		{"fs head /d/f -c 5", "one\nt"},
		{"fs tail /d/f -c 4", "ree\n"},
		{"fs head /d/f -n 0", ""},
		{"fs tail /d/f -n 0", ""},
		{"fs cp /d/f -", "one\ntwo\nthree\n"},
	} {
		if r := run(c, "", strings.Fields(tc.args)...); r.code != 0 || r.out != tc.out {
			t.Errorf("%s: exit %d, %q, %s", tc.args, r.code, r.out, r.err)
		}
	}
	r := run(c, "from stdin", "fs", "cp", "-", "/d/in")
	if text, _ := c.text("/d/in"); r.code != 0 || text != "from stdin" {
		t.Errorf("cp -: exit %d, %q, %s", r.code, text, r.err)
	}
	if r := run(c, "", "fs", "cp", "-r", "/d", "file:"+out); r.code != 0 {
		t.Errorf("cp -r out: %s", r.err)
	}
	if b, err := os.ReadFile(filepath.Join(out, "in")); err != nil || string(b) != "from stdin" {
		t.Errorf("copied out: %q, %v", b, err)
	}
	r = run(c, "", "fs", "cp", "-r", "file:"+out, "/d")
	if text, _ := c.text("/d/out/in"); r.code != 0 || text != "from stdin" {
		t.Errorf("cp -r in: exit %d, %q, %s", r.code, text, r.err)
	}
	if r := run(c, "", "fs", "cp", "/d", "file:"+out); r.code != 4 || !strings.Contains(r.err, "--recursive") {
		t.Errorf("cp of a directory: exit %d, %s", r.code, r.err)
	}
	if r := run(c, "", "fs", "cp", out, "/d/x"); r.code != 3 || !strings.Contains(r.err, "file:"+out) {
		t.Errorf("an absolute local path: exit %d, %s", r.code, r.err)
	}
}

func TestNamesCanNotSteerTheTerminal(t *testing.T) {
	c := newCluster(t)
	c.put("/d/\u202egnp.exe\u009b2J", "x")
	r := run(c, "", "fs", "ls", "/d")
	if r.code != 0 || strings.ContainsAny(r.out, "\u202e\u009b") || !strings.Contains(r.out, `\u202egnp.exe\u009b2J`) {
		t.Errorf("exit %d: %q", r.code, r.out)
	}
}

func TestHelpAndCompletion(t *testing.T) {
	if r := run(nil, ""); r.code != 0 || !strings.Contains(r.out, "Examples:") || !strings.Contains(r.out, "mount") {
		t.Errorf("bare: %s", r.out)
	}
	for _, noun := range []string{"mount", "sync", "fs", "peers", "cluster", "config", "explain", "apply"} {
		if r := run(nil, "", noun, "--help"); r.code != 0 || !strings.Contains(r.out, "Examples:") {
			t.Errorf("%s --help: exit %d, %s", noun, r.code, r.out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := run(nil, "", "completion", shell); r.code != 0 || !strings.Contains(r.out, "freshet") {
			t.Errorf("completion %s: exit %d", shell, r.code)
		}
	}
}
