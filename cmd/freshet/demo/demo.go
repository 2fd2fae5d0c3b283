// Package demo owns the guided tour: two clusters over one shared storage, what
// Freshet promises shown step by step with measured times. Every step checks what
// it says; the tour fails if one does not hold.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/all"
)

// Options guide the tour.
type Options struct {
	Out, Err io.Writer
	// Executable is the binary that the servers are started from.
	Executable string
	Getenv     func(string) string
	// Storage is the URI of a real storage to use, with StorageOptions; embedded
	// if empty. The tour works below a directory of its own in it.
	Storage        string
	StorageOptions map[string]string
	Rounds         int // of overwrites
	Keep           bool
}

// The clusters of the tour, and where each mounts the storage: at different
// paths, for they need not agree on anything but the storage.
const (
	nameA, nameB   = "eu-west", "us-east"
	mountA, mountB = freshet.Path("/lake"), freshet.Path("/data/shared")
)

// settle bounds how long a promise of the tour may take to come true.
const settle = 20 * time.Second

type tour struct {
	Options

	dir     string
	storage ufs.FS
	uri     string
	options map[string]string
	fleet   *fleet.Fleet
	a, b    *fleet.Cluster
	sa, sb  *fleet.Session
	started time.Time
	step    int
}

// Run takes the tour and returns an error unless every step did what it says.
func Run(ctx context.Context, o Options) error {
	if o.Rounds < 50 {
		o.Rounds = 50
	}
	dir, err := os.MkdirTemp("", "freshet-demo-")
	if err != nil {
		return freshet.Errorf(freshet.KindUnavailable, "demo", "", "%w", err)
	}
	t := &tour{Options: o, dir: dir, started: time.Now()}
	err = t.run(ctx)
	if o.Keep && err == nil && ctx.Err() == nil {
		t.stay(ctx)
	}
	t.close(err)
	return err
}

func (t *tour) run(ctx context.Context) error {
	if err := t.openStorage(ctx); err != nil {
		return err
	}
	t.say("Freshet demo: two clusters, %s and %s, over one shared storage.", nameA, nameB)
	t.say("Each has 3 coordinators (a Raft group) and 1 cache node, as processes on this machine. NOT for production.")
	t.say("The storage is %s: %s mounts it at %s, %s at %s.", t.uri, nameA, mountA, nameB, mountB)
	if err := t.startClusters(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		title string
		do    func(ctx context.Context) error
	}{
		{"A write through " + nameA + " is read in " + nameB, t.readCrossRegion},
		{"Overwrites through " + nameA + " are seen in " + nameB + " because of invalidations", t.overwrites},
		{"Blocks of the old version are evicted in " + nameB, t.eviction},
		{"A change made directly in the storage is found by time-based sync, after its interval and not before", t.timeBased},
		{"The bus is cut and healed; nothing is lost", t.partition},
		{"A leader is killed in each cluster; nothing is lost", t.killLeaders},
	} {
		t.step++
		t.say("\n%d. %s", t.step, s.title)
		if err := s.do(ctx); err != nil {
			t.say("   FAILED: %v", err)
			return fmt.Errorf("step %d, %q: %w", t.step, s.title, err)
		}
	}
	t.say("\nAll %d steps did what they say, in %s.", t.step, time.Since(t.started).Round(100*time.Millisecond))
	return nil
}

func (t *tour) say(format string, args ...any) { fmt.Fprintf(t.Out, format+"\n", args...) }

// point says one measured or checked fact.
func (t *tour) point(format string, args ...any) { t.say("   - "+format, args...) }

// openStorage opens the shared storage directly too, to change it behind the
// clusters' backs.
func (t *tour) openStorage(ctx context.Context) error {
	t.options = map[string]string{}
	maps.Copy(t.options, t.StorageOptions)
	if t.Storage == "" {
		shared := filepath.Join(t.dir, "storage")
		if err := os.MkdirAll(shared, 0o750); err != nil {
			return freshet.Errorf(freshet.KindUnavailable, "demo", "", "%w", err)
		}
		t.uri = "file://" + shared
	} else {
		t.uri = strings.TrimRight(t.Storage, "/") + "/freshet-demo-" + uuid.NewString()[:8]
		if e := t.Getenv("AWS_ENDPOINT_URL"); e != "" && strings.HasPrefix(t.uri, "s3://") && t.options["endpoint"] == "" {
			t.options["endpoint"] = e
		}
		if strings.HasPrefix(t.uri, "file://") {
			t.options["create"] = "true"
		}
	}
	fs, err := all.Openers(nil, nil).Open(ufs.Spec{URI: t.uri, Options: t.options}, ufs.Environment{
		AllowedEndpoints: []string{"127.0.0.0/8", "::1/128"}, Getenv: t.Getenv,
	})
	if err != nil {
		return err
	}
	t.storage = fs
	return ufs.Probe(ctx, fs)
}

func (t *tour) startClusters(ctx context.Context) error {
	begun := time.Now()
	mount := func(p freshet.Path) []config.Mount {
		return []config.Mount{{
			Path: string(p), UFS: t.uri, Options: t.options,
			Consistency: config.Consistency{Level: "invalidate", Interval: "never", DegradedInterval: "5s"},
		}}
	}
	cluster := func(name string, p freshet.Path) fleet.ClusterSpec {
		return fleet.ClusterSpec{Name: name, Coordinators: 3, Nodes: 1, Mounts: mount(p), Heartbeat: time.Second}
	}
	f, err := fleet.Build(ctx, fleet.Spec{
		Binary: t.Executable, Dir: t.dir, Gossip: true, LogLevel: "info",
		Clusters: []fleet.ClusterSpec{cluster(nameA, mountA), cluster(nameB, mountB)},
	})
	if err != nil {
		return err
	}
	t.fleet, t.a, t.b = f, f.Clusters[0], f.Clusters[1]
	if err := f.Start(ctx); err != nil {
		return err
	}
	if t.sa, err = t.a.Connect(); err != nil {
		return err
	}
	if t.sb, err = t.b.Connect(); err != nil {
		return err
	}
	for _, s := range []*fleet.Session{t.sa, t.sb} {
		if err := t.awaitPeers(ctx, s); err != nil {
			return err
		}
	}
	t.say("Both clusters are up, and each follows the other's changes, after %s.", time.Since(begun).Round(10*time.Millisecond))
	return nil
}

// awaitPeers waits until the other cluster is followed.
func (t *tour) awaitPeers(ctx context.Context, s *fleet.Session) error {
	return fleet.Poll(ctx, settle, "the clusters to find each other", func(ctx context.Context) error {
		all, err := s.Peers(ctx)
		if err != nil {
			return err
		}
		for _, p := range all {
			if len(p.Domains) > 0 && !slices.ContainsFunc(p.Domains, func(d freshet.PublisherStatus) bool { return d.State != "synced" }) {
				return nil
			}
		}
		return fmt.Errorf("peers: %+v", all)
	})
}

func (t *tour) close(err error) {
	if err != nil && t.fleet != nil {
		for _, c := range t.fleet.Clusters {
			for _, p := range c.Processes() {
				fmt.Fprintf(t.Err, "--- the log of %s ends:\n%s\n", p.Name, p.Tail(12))
			}
		}
	}
	for _, s := range []*fleet.Session{t.sa, t.sb} {
		if s != nil {
			_ = s.Close() // the process ends
		}
	}
	if t.fleet != nil {
		t.fleet.Close()
	}
	if t.storage != nil {
		if t.Storage != "" {
			t.cleanStorage()
		}
		_ = t.storage.Close() // as above
	}
	if rerr := os.RemoveAll(t.dir); rerr != nil {
		fmt.Fprintf(t.Err, "could not remove %s: %v\n", t.dir, rerr)
	}
}

// cleanStorage removes what the tour wrote into a real storage.
func (t *tour) cleanStorage() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var keys []string
	for st, err := range t.storage.List(ctx, "", ufs.ListOptions{}) {
		if err != nil {
			fmt.Fprintf(t.Err, "could not clean up %s: %v\n", t.uri, err)
			return
		}
		keys = append(keys, st.Key)
	}
	for _, key := range keys {
		if err := t.storage.Remove(ctx, key, ufs.RemoveOptions{Recursive: true}); err != nil {
			fmt.Fprintf(t.Err, "could not clean up %s: %v\n", t.uri, err)
		}
	}
}

// stay leaves the clusters up until the user ends the demo.
func (t *tour) stay(ctx context.Context) {
	t.say("\nThe clusters stay up until Ctrl-C. Talk to them:")
	for _, c := range []*fleet.Cluster{t.a, t.b} {
		t.say("  %-8s export FRESHET_ADDR=%s", c.Name, strings.Join(c.Clients, ","))
		t.say("           REST http://%s/v1/list?path=/   data http://%s/v1/data/PATH", c.HTTP[0], c.NodeHTTP[0])
	}
	t.say("  then     freshet fs ls %s; freshet peers status; freshet explain %s/hello.txt --check   (in %s the same is %s)", mountA, mountA, nameB, mountB)
	t.say("  logs     %s", filepath.Join(t.dir, "*", "*", "log"))
	<-ctx.Done()
}

// write writes a file through a cluster.
func write(ctx context.Context, s *fleet.Session, p freshet.Path, content string) error {
	_, err := s.Files.Write(ctx, p, strings.NewReader(content), client.WriteOptions{Length: int64(len(content))})
	return err
}

// read reads a whole file through a cluster and says where it came from.
func read(ctx context.Context, s *fleet.Session, p freshet.Path) (content, from string, err error) {
	r, err := s.Files.Open(ctx, p, client.Whole())
	if err != nil {
		return "", "", err
	}
	b, err := io.ReadAll(r)
	return string(b), r.From(), errors.Join(err, r.Close())
}
