package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc/local"
)

// Streams that a node serves at once, and the length of each in bytes.
const (
	streamCount  = 64
	streamLength = 1 << 30
)

// streams measures what a node needs beyond its memory tier while it serves many long
// streams at once, each to a reader that takes all of it.
func (b *bench) streams(ctx context.Context) error {
	b.under("of which its blocks; at rest, without them", "per CPU-second, client and servers")
	for _, tier := range []string{"disk", "memory"} {
		if err := b.streamsOf(ctx, tier); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) streamsOf(ctx context.Context, tier string) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: "streams-" + tier, clusters: 1, coordinators: 1, tier: tier})
	if err != nil {
		return err
	}
	defer f.Close()
	pid := f.Clusters[0].Nodes[0].PID()
	atRest, err := anonymousBytes(pid)
	if err != nil {
		return err
	}
	if err := sparse(filepath.Join(storage, "long"), streamLength); err != nil {
		return err
	}
	f.Clusters[0].Local = local.Options{Off: true}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	if err := readAll(ctx, s); err != nil {
		return err
	}
	if err := s.AwaitCached(ctx, "/long", streamLength, time.Minute); err != nil {
		return err
	}
	cpu, begun := cpuTime(servers(f)), time.Now()
	peak, err := peakWhile(pid, func() error {
		group, ctx := errgroup.WithContext(ctx)
		for range streamCount {
			group.Go(func() error { return readAll(ctx, s) })
		}
		return group.Wait()
	})
	if err != nil {
		return err
	}
	wall, used := time.Since(begun), cpuTime(servers(f))-cpu
	blocks := int64(0)
	if tier == "memory" {
		nodes, err := s.Nodes(ctx)
		if err != nil {
			return err
		}
		blocks = nodes[0].Used
	}
	speed := func(d time.Duration) string {
		return fmt.Sprintf("%.2f GB/s", streamCount*float64(streamLength)/d.Seconds()/1e9)
	}
	b.add(fmt.Sprintf("memory of a node with %d streams of 1 GiB, %s tier, beyond its blocks", streamCount, tier),
		fmt.Sprintf("%d MiB at most, %s", (peak-blocks)>>20, speed(wall)), speed(used), fmt.Sprintf("%d MiB; %d MiB", blocks>>20, atRest>>20))
	return nil
}

func sparse(name string, length int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(length), f.Close())
}

// readAll reads the file to its end.
func readAll(ctx context.Context, s *fleet.Session) error {
	r, err := s.Files.Open(ctx, "/long", client.Whole())
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != streamLength {
		err = fmt.Errorf("%d bytes", n)
	}
	return errors.Join(err, r.Close())
}

// peakWhile returns the most anonymous memory that a process has while do works.
func peakWhile(pid int, do func() error) (peak int64, err error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return peak, err
		case <-tick.C:
			n, err := anonymousBytes(pid)
			if err != nil {
				return peak, errors.Join(err, <-done)
			}
			peak = max(peak, n)
		}
	}
}

// anonymousBytes returns the memory of a process that is not that of files.
func anonymousBytes(pid int) (int64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("the system does not say how much memory a process has")
}
