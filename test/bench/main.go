// Command bench measures whole clusters of real processes on this machine and
// prints a table for docs/performance.md: rates, rates per CPU-second of client
// and servers together, and the ratio to a bare limit that is measured in the
// same run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == emptyServerFlag {
		if err := serveEmpty(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == dataServerFlag {
		if err := serveData(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == linkFlag {
		if err := serveLink(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == hogFlag {
		if err := hog(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var b bench
	flag.StringVar(&b.binary, "bin", "bin/freshet", "path of the freshet binary")
	flag.DurationVar(&b.length, "length", 4*time.Second, "how long each rate is measured")
	flag.IntVar(&b.files, "files", 100_000, "files of the sync measurement")
	flag.IntVar(&b.rounds, "rounds", 300, "rounds of the latency measurements")
	flag.IntVar(&b.kills, "kills", 7, "kills of the failover measurement")
	flag.StringVar(&b.beats, "heartbeats", "300ms,500ms,1s", "comma-separated heartbeats of the failover and elections measurements")
	flag.IntVar(&b.hogs, "hogs", 4, "programs that only take CPU beside the elections measurement")
	flag.IntVar(&b.inodeDirs, "dirs", 1000, "directories of 1,000 entries of the inode measurement")
	flag.StringVar(&b.profiles, "profiles", "", "directory for CPU profiles of the first coordinator, one per measurement")
	flag.StringVar(&b.storages, "storages", "local,s3,"+linked+",hdfs,azure,gcs,sqs", "comma-separated storages of the parts storages, notices, cold and upload; sqs is for notices only")
	flag.IntVar(&b.noticeRounds, "changes", 60, "changes by others of the notices measurement")
	flag.DurationVar(&b.pause, "pause", 200*time.Millisecond, "longest pause between two of these changes")
	only := flag.String("only", "", "comma-separated parts: inodes, meta, complete, create, sync, read, random, cold, upload, local, streams, mustcache, lease, latency, failover, elections, storages, notices")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	binary        string
	length        time.Duration
	files, rounds int
	kills, hogs   int
	beats         string
	inodeDirs     int
	profiles      string
	storages      string
	noticeRounds  int
	pause         time.Duration

	dir, load string
	heading   heading
	rows      []row
	profileAt string // HTTP address of the first coordinator
}

// heading is that of the two columns which are not the same for all tables.
type heading struct{ perCPU, limit string }

// row is one line of a table.
type row struct {
	heading                     heading
	what, result, perCPU, limit string
}

// under says what the columns of the next rows are.
func (b *bench) under(limit, perCPU string) { b.heading = heading{perCPU, limit} }

func (b *bench) add(what, result, perCPU, limit string) {
	b.rows = append(b.rows, row{b.heading, what, result, perCPU, limit})
	fmt.Fprintf(os.Stderr, "%-64s %s   %s   %s\n", what, result, perCPU, limit)
}

func (b *bench) run(ctx context.Context, only string) error {
	dir, err := os.MkdirTemp("", "freshet-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system cleans up what is left
	b.dir, b.load = dir, loadAverage()
	if b.profiles != "" {
		if err := os.MkdirAll(b.profiles, 0o755); err != nil {
			return err
		}
	}
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"inodes", b.inodes},
		{"meta", b.metadata},
		{"complete", b.completes},
		{"create", b.creates},
		{"sync", b.syncs},
		{"read", b.reads},
		{"random", b.randoms},
		{"cold", b.colds},
		{"upload", b.uploads},
		{"local", b.locals},
		{"streams", b.streams},
		{"mustcache", b.mustCache},
		{"lease", b.leases},
		{"latency", b.latencies},
		{"failover", b.failovers},
		{"elections", b.elections},
		{"storages", b.compare},
		{"notices", b.notices},
	} {
		b.under("limit in the same run", "per CPU-second, client and servers")
		if only != "" && !slices.Contains(strings.Split(only, ","), part.name) {
			continue
		}
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.print()
	return nil
}

func (b *bench) print() {
	fmt.Printf("Machine: %d CPUs, %s, %s, load average %s before the run and %s at its end.\n", runtime.NumCPU(), cpuModel(), runtime.Version(), b.load, loadAverage())
	var last heading
	for _, r := range slices.SortedStableFunc(slices.Values(b.rows), func(x, y row) int { return b.first(x.heading) - b.first(y.heading) }) {
		if r.heading != last {
			fmt.Printf("\n| what | result | %s | %s |\n| --- | --- | --- | --- |\n", r.heading.perCPU, r.heading.limit)
			last = r.heading
		}
		fmt.Printf("| %s | %s | %s | %s |\n", r.what, r.result, r.perCPU, r.limit)
	}
}

// first is the place of the first row below a heading.
func (b *bench) first(h heading) int {
	return slices.IndexFunc(b.rows, func(r row) bool { return r.heading == h })
}

// clusterOptions describe a cluster to measure.
type clusterOptions struct {
	name         string
	clusters     int
	coordinators int
	tier         string
	heartbeat    time.Duration
	bare         bool // nothing is mounted
	sockets      bool // the nodes have Unix sockets
	env          []string
}

// cluster starts clusters over one directory, mounted at / in each unless they are to
// be bare.
func (b *bench) cluster(ctx context.Context, o clusterOptions) (*fleet.Fleet, string, error) {
	dir := filepath.Join(b.dir, o.name)
	storage := filepath.Join(dir, "storage")
	if err := os.MkdirAll(storage, 0o755); err != nil {
		return nil, "", err
	}
	spec := fleet.Spec{Binary: b.binary, Dir: dir, Gossip: o.clusters > 1, LogLevel: "warn", Env: o.env}
	roots := mounts(storage)
	if o.bare {
		roots = nil
	}
	for i := range o.clusters {
		spec.Clusters = append(spec.Clusters, fleet.ClusterSpec{
			Name: fmt.Sprintf("r%d", i), Coordinators: o.coordinators, Nodes: 1, Tier: o.tier, TierSize: "4GiB", Alone: o.clusters == 1,
			Mounts: roots, Heartbeat: o.heartbeat, Sockets: o.sockets,
		})
	}
	f, err := fleet.Build(ctx, spec)
	if err != nil {
		return nil, "", err
	}
	if err := f.Start(ctx); err != nil {
		f.Close()
		return nil, "", err
	}
	for _, c := range f.Clusters {
		if err := leaderFirst(ctx, c); err != nil {
			f.Close()
			return nil, "", err
		}
	}
	b.profileAt = f.Clusters[0].HTTP[0]
	return f, storage, nil
}

// leaderFirst has clients dial the leader: else it is left to chance whether a
// measurement has another member forward each call.
func leaderFirst(ctx context.Context, c *fleet.Cluster) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	i := slices.Index(c.Coordinators, leader)
	c.Clients[0], c.Clients[i] = c.Clients[i], c.Clients[0]
	c.HTTP[0], c.HTTP[i] = c.HTTP[i], c.HTTP[0]
	return nil
}

func perSecond(n int64, d time.Duration) float64 { return float64(n) / d.Seconds() }

func rate(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M/s", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1f k/s", v/1e3)
	}
	return fmt.Sprintf("%.0f /s", v)
}

func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p))]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func path(format string, args ...any) freshet.Path { return freshet.Path(fmt.Sprintf(format, args...)) }
