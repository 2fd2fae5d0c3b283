package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
)

// failovers measures from the kill of a leader to the next acknowledged write.
func (b *bench) failovers(ctx context.Context) error {
	for _, heartbeat := range b.heartbeats() {
		if err := b.failover(ctx, heartbeat); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) failover(ctx context.Context, heartbeat time.Duration) error {
	f, _, err := b.cluster(ctx, clusterOptions{name: "failover-" + heartbeat.String(), clusters: 1, coordinators: 3, heartbeat: heartbeat})
	if err != nil {
		return err
	}
	defer f.Close()
	c := f.Clusters[0]
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
	b.add(fmt.Sprintf("leader killed → next acknowledged write, heartbeat %s, %d kills", heartbeat, len(took)),
		fmt.Sprintf("min %.2f s, p50 %.2f s, max %.2f s", took[0].Seconds(), percentile(took, 0.5).Seconds(), took[len(took)-1].Seconds()), "", "")
	return nil
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
