package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
)

// failovers measures from the kill of a leader to the next acknowledged write.
func (b *bench) failovers(ctx context.Context) error {
	for _, heartbeat := range b.heartbeats() {
		for _, kept := range []bool{false, true} {
			if err := b.failover(ctx, heartbeat, kept); err != nil {
				return err
			}
		}
	}
	return nil
}

// failover measures it while nobody keeps an answer, or while somebody reads a file all
// the time under a lease.
func (b *bench) failover(ctx context.Context, heartbeat time.Duration, kept bool) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: fmt.Sprintf("failover-%s-%t", heartbeat, kept), clusters: 1, coordinators: 3, heartbeat: heartbeat})
	if err != nil {
		return err
	}
	defer f.Close()
	c, what := f.Clusters[0], ""
	if kept {
		what = " while a file is read under a lease"
		end, err := readUnderLease(ctx, c, storage)
		if err != nil {
			return err
		}
		defer end()
	}
	var took []time.Duration
	for i := range b.kills {
		leader, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		s, err := c.Connect()
		if err != nil {
			return err
		}
		if err := b.write(ctx, s, i, 0); err != nil {
			return err
		}
		if err := leader.Kill(); err != nil {
			return err
		}
		begun := time.Now()
		for try := 1; ; try++ {
			one, done := context.WithTimeout(ctx, 30*time.Second)
			err := b.write(one, s, i, try)
			done()
			if err == nil {
				break
			}
			if time.Since(begun) > time.Minute {
				return fmt.Errorf("no write for a minute after the leader was killed: %w", err)
			}
		}
		took = append(took, time.Since(begun))
		if err := s.Close(); err != nil {
			return err
		}
		if err := leader.Start(); err != nil {
			return err
		}
		if err := c.AwaitReady(ctx); err != nil {
			return err
		}
	}
	slices.Sort(took)
	b.add(fmt.Sprintf("leader killed → next acknowledged write%s, heartbeat %s, %d kills", what, heartbeat, len(took)),
		fmt.Sprintf("min %.2f s, p50 %.2f s, max %.2f s", took[0].Seconds(), percentile(took, 0.5).Seconds(), took[len(took)-1].Seconds()), "", "")
	return nil
}

// readUnderLease has a client ask for a file again and again until end is called.
func readUnderLease(ctx context.Context, c *fleet.Cluster, storage string) (end func(), err error) {
	if err := os.WriteFile(filepath.Join(storage, "hot"), []byte("x"), 0o600); err != nil {
		return nil, err
	}
	s, err := c.Connect()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	held := client.NewLeases(s.Coordinator.Leases(), client.LeaseOptions{})
	var running sync.WaitGroup
	running.Go(func() { _ = held.Run(ctx) })
	running.Go(func() {
		for ctx.Err() == nil {
			_, _ = held.Stat(ctx, s.Coordinator, "/hot", freshet.ReadOptions{}) // fails while there is no leader
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	end = func() {
		cancel()
		running.Wait()
		_ = s.Close() // nothing to be done about it
	}
	if err := fleet.Poll(ctx, time.Minute, "a session", func(context.Context) error {
		if !held.Holds() {
			return errors.New("there is none yet")
		}
		return nil
	}); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// write is a change that needs the log and no cache node.
func (b *bench) write(ctx context.Context, s *fleet.Session, round, try int) error {
	_, err := s.SetPolicy(ctx, freshet.SyncPolicy{Path: path("/r%d-%d", round, try), Interval: freshet.Never}, false)
	return err
}

// mounts is the one mount of a measured cluster.
func mounts(storage string) []config.Mount {
	return []config.Mount{{Path: "/", UFS: "file://" + storage}}
}
