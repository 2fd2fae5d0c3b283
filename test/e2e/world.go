package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/s3test"
)

// Patience is how long something that must happen may take on a busy machine.
const Patience = 60 * time.Second

// Heartbeat of the coordinators: short elections, but no false ones while other
// tests use the machine.
const Heartbeat = 500 * time.Millisecond

// Options of a World; the zero value has three coordinators and two cache nodes
// in each region.
type Options struct {
	Coordinators, Nodes int
	// Lone builds region A only, without a bus.
	Lone bool
	// NoGossip joins the regions by fixed addresses.
	NoGossip bool
	// Mount changes the mounts of both regions, if set.
	Mount func(region string, m *config.Mount)
	// TLS gives the servers certificates, if set.
	TLS fleet.TLSFor
	// Tiers returns the tiers of a cache node, counted from 0, if set.
	Tiers func(node int) []config.Tier
	// Auth of the coordinators.
	Auth config.Auth
	// Sockets gives each cache node a Unix socket; Tier is "memory" or "disk" (default).
	Sockets bool
	Tier    string
	// UploadMemory bounds the parts of uploads of each node; "" is the default.
	UploadMemory string
}

// World is two regions over one storage.
type World struct {
	S3      *s3test.TestServer // nil over a directory
	Storage Storage
	Fleet   *fleet.Fleet
	A, B    *Region
}

// Region is one cluster and a client's connection to it.
type Region struct {
	*fleet.Cluster

	S       *fleet.Session
	Root    freshet.Path // where the storage is mounted
	Prefix  string       // what the storage's names begin with there
	storage Storage
}

// NewS3World starts two regions over one bucket, mounted at different paths and
// prefixes: what A has as /mnt/a/NAME is /data/x/NAME in B.
func NewS3World(t testing.TB, opts Options) *World {
	t.Helper()
	srv := s3test.Start(t, s3test.Options{})
	w := &World{S3: srv, Storage: NewBucket(t, srv, "lake")}
	options := map[string]string{"endpoint": srv.Endpoint, "region": "us-east-1", "max_op_lifetime": "6s", "request_timeout": "3s"}
	env := []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey}
	a := config.Mount{Path: "/mnt/a", UFS: "s3://lake/x", Options: options}
	b := config.Mount{Path: "/data", UFS: "s3://lake", Options: maps.Clone(options)}
	w.start(t, opts, env, a, b)
	w.A.Prefix = "x/"
	return w
}

// NewDirWorld starts two regions over one directory.
func NewDirWorld(t testing.TB, opts Options) *World {
	t.Helper()
	dir := t.TempDir()
	w := &World{Storage: Dir(dir)}
	w.start(t, opts, nil, config.Mount{Path: "/mnt/a", UFS: "file://" + dir}, config.Mount{Path: "/data", UFS: "file://" + dir})
	return w
}

// NewBareWorld starts two regions that mount nothing yet: Mount does. The servers
// get env.
func NewBareWorld(t testing.TB, storage Storage, env []string, opts Options) *World {
	t.Helper()
	w := &World{Storage: storage}
	w.start(t, opts, env, config.Mount{}, config.Mount{})
	return w
}

// Mount mounts a storage by the command line; more are more of its arguments.
func (r *Region) Mount(t testing.TB, path freshet.Path, uri string, options map[string]string, more ...string) {
	t.Helper()
	args := append([]string{"mount", "add", string(path), uri}, more...)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		args = append(args, "--option", name+"="+options[name])
	}
	r.CLI(t, args...).Want(t, 0)
	r.Root = path
	if t.Failed() {
		t.FailNow()
	}
}

func (w *World) start(t testing.TB, opts Options, env []string, a, b config.Mount) {
	t.Helper()
	// A bus that does nothing can't pass for one that works: what time finds by
	// itself comes after every test has given up, and nothing is listed ahead.
	prefetch := false
	a.Consistency.DegradedInterval, b.Consistency.DegradedInterval = "1h", "1h"
	if opts.Mount != nil {
		opts.Mount("a", &a)
		opts.Mount("b", &b)
	}
	spec := fleet.Spec{
		Binary: Binary(), Dir: scratch(t), Env: append(env, "FRESHET_E2E_GOSSIP="+gossipKey()),
		Gossip: !opts.NoGossip, GossipKey: "env:FRESHET_E2E_GOSSIP", LogLevel: "info", TLS: opts.TLS,
	}
	for _, c := range []struct {
		name  string
		mount config.Mount
	}{{"a", a}, {"b", b}} {
		if opts.Lone && c.name == "b" {
			continue
		}
		mounts := []config.Mount{c.mount}
		if c.mount.UFS == "" {
			mounts = nil
		}
		spec.Clusters = append(spec.Clusters, fleet.ClusterSpec{
			Name: c.name, Coordinators: or(opts.Coordinators, 3), Nodes: or(opts.Nodes, 2), Mounts: mounts,
			Metadata: config.Metadata{Prefetch: &prefetch}, Heartbeat: Heartbeat, Alone: opts.Lone, TierSize: "256MiB", Tiers: opts.Tiers, Auth: opts.Auth, Sockets: opts.Sockets, Tier: opts.Tier, UploadMemory: opts.UploadMemory,
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*Patience)
	defer cancel()
	f, err := fleet.Build(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	w.Fleet = f
	t.Cleanup(f.Close)
	t.Cleanup(func() { w.report(t) })
	if err := f.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w.A = w.region(t, f.Clusters[0], a)
	if !opts.Lone {
		w.B = w.region(t, f.Clusters[1], b)
		if a.UFS != "" {
			w.AwaitBus(t)
		}
	}
}

func or(v, fallback int) int {
	if v == 0 {
		return fallback
	}
	return v
}

func gossipKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// scratch is a directory whose path is short, for the sake of logs and sockets.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fe2e-") //nolint:usetesting // t.TempDir has the test's long name, and goes even if the test failed
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("FRESHET_E2E_KEEP") != "" {
			t.Log("kept", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (w *World) region(t testing.TB, c *fleet.Cluster, m config.Mount) *Region {
	t.Helper()
	s, err := c.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing to be done about it
	return &Region{Cluster: c, S: s, Root: freshet.Path(m.Path), storage: w.Storage}
}

// report prints the ends of all logs if the test failed.
func (w *World) report(t testing.TB) {
	if !t.Failed() {
		return
	}
	for _, c := range w.Fleet.Clusters {
		for _, p := range c.Processes() {
			t.Logf("---- log of %s (running: %v) ends:\n%s", p.Name, p.Running(), p.Tail(25))
		}
	}
}

// AwaitBus waits until each region knows the other and has caught up.
func (w *World) AwaitBus(t testing.TB) {
	t.Helper()
	for _, r := range []*Region{w.A, w.B} {
		if err := fleet.Poll(t.Context(), Patience, "the bus of "+r.Name, r.Synced); err != nil {
			t.Fatal(err)
		}
	}
}

// Synced returns nil if the region has all changes of all its peers.
func (r *Region) Synced(ctx context.Context) error {
	peers, err := r.S.Peers(ctx)
	if err != nil {
		return err
	}
	if len(peers) == 0 {
		return errors.New("no peers")
	}
	for _, p := range peers {
		if p.State != "connected" || len(p.Domains) == 0 {
			return fmt.Errorf("peer %s is %s (%s) with %d domains", p.Name, p.State, p.Reason, len(p.Domains))
		}
		for _, d := range p.Domains {
			if d.State != "synced" || d.Applied < d.Head {
				return fmt.Errorf("peer %s, %s: %s, %d of %d", p.Name, d.Authority, d.State, d.Applied, d.Head)
			}
		}
	}
	return nil
}

// At returns the path of a name of the mount.
func (r *Region) At(name string) freshet.Path {
	if name == "" {
		return r.Root
	}
	return freshet.Path(strings.TrimSuffix(string(r.Root), "/") + "/" + name)
}

// Write writes a file.
func (r *Region) Write(ctx context.Context, name string, data []byte) (freshet.Completed, error) {
	return r.S.Files.Write(ctx, r.At(name), bytes.NewReader(data), client.WriteOptions{Length: int64(len(data))})
}

// Read reads a file.
func (r *Region) Read(ctx context.Context, name string, opts client.ReadOptions) ([]byte, freshet.Info, error) {
	f, err := r.S.Files.Open(ctx, r.At(name), opts)
	if err != nil {
		return nil, freshet.Info{}, err
	}
	data, err := io.ReadAll(f)
	return data, f.Info(), errors.Join(err, f.Close())
}

// After reads a file that shows at least the write of the token.
func After(t freshet.Token) client.ReadOptions {
	return client.ReadOptions{ReadOptions: freshet.ReadOptions{After: t}, Length: -1}
}

// Tree returns everything below the mount as the region has it, without asking
// for a sync.
func (r *Region) Tree(ctx context.Context) (map[string]Object, error) {
	out := map[string]Object{}
	q := freshet.ListQuery{Path: r.Root, Recursive: true}
	for {
		page, err := r.S.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			name := r.Root.Rel(e.Path)
			o := Object{Dir: e.Type == freshet.TypeDirectory}
			if !o.Dir {
				var info freshet.Info
				if o.Data, info, err = r.Read(ctx, name, client.Whole()); err != nil {
					return nil, fmt.Errorf("%s is listed but can't be read: %w", e.Path, err)
				}
				if info.Length != e.Length {
					return nil, fmt.Errorf("%s is listed with %d bytes and opened with %d", e.Path, e.Length, info.Length)
				}
			}
			out[name] = o
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return out, nil
		}
	}
}

// EqualsStorage returns nil if every path of the region is what the storage has,
// and the other way round. Nothing is synced for it.
func (r *Region) EqualsStorage(ctx context.Context) error {
	want, err := r.storage.Tree(ctx, r.Prefix)
	if err != nil {
		return err
	}
	got, err := r.Tree(ctx)
	if err != nil {
		return err
	}
	var diff []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[name]
		w := want[name]
		switch {
		case !ok:
			diff = append(diff, name+": is in the storage and not in region "+r.Name)
		case g.Dir != w.Dir:
			diff = append(diff, fmt.Sprintf("%s: directory is %v, in the storage %v", name, g.Dir, w.Dir))
		case !bytes.Equal(g.Data, w.Data):
			diff = append(diff, fmt.Sprintf("%s: other bytes than in the storage (%d and %d)", name, len(g.Data), len(w.Data)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			diff = append(diff, name+": is in region "+r.Name+" and not in the storage")
		}
	}
	if diff != nil {
		return fmt.Errorf("region %s differs from the storage:\n%s", r.Name, strings.Join(diff, "\n"))
	}
	return nil
}

// Quiet waits until no operation is unfinished anywhere, the bus has delivered
// everything and nothing is left behind in the storage.
func (w *World) Quiet(t testing.TB) {
	t.Helper()
	for _, r := range []*Region{w.A, w.B} {
		begun := time.Now()
		var waited error
		// A ticket that never reached its node is given up after a minute.
		err := fleet.Poll(t.Context(), 2*Patience, "quiet in "+r.Name, func(ctx context.Context) error {
			err := r.settled(ctx)
			if err != nil {
				waited = err
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s was quiet after %s; last waited for: %v", r.Name, time.Since(begun).Round(time.Millisecond), waited)
	}
	// What could not be cleaned up while the storage was away is cleaned up soon.
	err := fleet.Poll(t.Context(), Patience, "a clean storage", func(ctx context.Context) error {
		left, err := w.Storage.Leftovers(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left behind: %q", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// settled returns nil if no operation is unfinished and the bus has delivered all.
func (r *Region) settled(ctx context.Context) error {
	st, err := r.S.Cluster(ctx)
	if err != nil {
		return err
	}
	if st.Intents+st.Quarantined > 0 {
		return fmt.Errorf("%d operations unfinished, %d quarantined", st.Intents, st.Quarantined)
	}
	return r.Synced(ctx)
}

// Converged waits for quiet and until both regions are what the storage is. A region
// is synced as far as it knows: the newest changes of the other may be on their way,
// and nothing else finds them before every test has given up.
func (w *World) Converged(t testing.TB) {
	t.Helper()
	w.Quiet(t)
	for _, r := range []*Region{w.A, w.B} {
		err := fleet.Poll(t.Context(), Patience, r.Name+" to be what the storage is", func(context.Context) error {
			return r.EqualsStorage(t.Context())
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// File returns the path of a new file with the content.
func File(t testing.TB, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
