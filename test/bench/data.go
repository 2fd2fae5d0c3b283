package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
)

// syncs measures the sync of a tree, cold and unchanged.
func (b *bench) syncs(ctx context.Context) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: "sync", clusters: 1, coordinators: 1})
	if err != nil {
		return err
	}
	defer f.Close()
	const dirs = 100
	for d := range dirs {
		dir := filepath.Join(storage, fmt.Sprintf("dir-%03d", d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for i := range b.files / dirs {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("part-%06d.parquet", i)), nil, 0o600); err != nil {
				return err
			}
		}
	}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	leader := f.Clusters[0].Coordinators[0]
	before := residentBytes(leader.PID())
	for _, what := range []string{"cold", "unchanged"} {
		end := b.profiled(servers(f))
		cpu, begun := cpuTime(servers(f)), time.Now()
		var last freshet.SyncProgress
		if err := s.Sync(ctx, "/", true, func(p freshet.SyncProgress) error { last = p; return nil }); err != nil {
			return err
		}
		wall, used := time.Since(begun), cpuTime(servers(f))-cpu
		end()
		b.add(fmt.Sprintf("%s sync of %d local files, entries", what, b.files), rate(perSecond(last.Entries, wall)), rate(perSecond(last.Entries, used)), "")
	}
	b.add(fmt.Sprintf("coordinator's resident memory after it, of which %d MiB before", before>>20),
		fmt.Sprintf("%d MiB", residentBytes(leader.PID())>>20), "", "")
	return nil
}

// latencies measures from A's acknowledgement to B, on loopback and with a round
// trip of 80 ms between the clusters.
func (b *bench) latencies(ctx context.Context) error {
	f, _, err := b.cluster(ctx, clusterOptions{name: "latency", clusters: 2, coordinators: 1})
	if err != nil {
		return err
	}
	defer f.Close()
	for _, oneWay := range []time.Duration{0, 40 * time.Millisecond} {
		for _, c := range f.Clusters {
			for _, r := range c.Bus {
				r.Delay(oneWay)
			}
		}
		if err := b.latency(ctx, f, oneWay); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) latency(ctx context.Context, f *fleet.Fleet, oneWay time.Duration) error {
	sa, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = sa.Close() }() // nothing to be done about it
	sb, err := f.Clusters[1].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = sb.Close() }() // as above
	if err := fleet.Poll(ctx, 30*time.Second, "B to follow A", func(ctx context.Context) error {
		done, err := sa.Files.Write(ctx, "/warm", strings.NewReader("x"), client.WriteOptions{Length: 1})
		if err != nil {
			return err
		}
		_, err = sb.Stat(ctx, "/warm", freshet.ReadOptions{After: done.Token})
		return err
	}); err != nil {
		return err
	}
	marked, read := make([]time.Duration, 0, b.rounds), make([]time.Duration, 0, b.rounds)
	for i := range b.rounds {
		content := fmt.Sprint(i)
		done, err := sa.Files.Write(ctx, "/counter", strings.NewReader(content), client.WriteOptions{Length: int64(len(content))})
		if err != nil {
			return err
		}
		acked := time.Now()
		// The look itself is allowed to be old: only the mark is waited for.
		if _, err := sb.Stat(ctx, "/", freshet.ReadOptions{After: done.Token}); err != nil {
			return err
		}
		marked = append(marked, time.Since(acked))
		r, err := sb.Files.Open(ctx, "/counter", client.Whole())
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != content {
			return fmt.Errorf("read %q instead of %q: %w", got, content, err)
		}
		read = append(read, time.Since(acked))
		if err := r.Close(); err != nil {
			return err
		}
	}
	where := "on loopback"
	if oneWay > 0 {
		where = fmt.Sprintf("with a round trip of %s", 2*oneWay)
	}
	for _, m := range []struct {
		what string
		list []time.Duration
	}{{"A acknowledged → B marked", marked}, {"A acknowledged → B read the new bytes", read}} {
		slices.Sort(m.list)
		b.add(m.what+", "+where, fmt.Sprintf("p50 %s, p99 %s, max %s", millis(percentile(m.list, 0.5)), millis(percentile(m.list, 0.99)), millis(m.list[len(m.list)-1])), "", "")
	}
	return nil
}
