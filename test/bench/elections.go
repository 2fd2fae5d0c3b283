package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
)

// hogFlag makes this program one that only takes CPU.
const hogFlag = "-hog"

// hog spins until its input ends.
func hog() error {
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
		over.Store(true)
	}()
	for !over.Load() {
	}
	return nil
}

// hogs starts n programs that take all the CPU they get, and returns what ends them.
func hogs(ctx context.Context, n int) (end func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var ends []func() error
	end = func() error {
		var errs []error
		for _, one := range ends {
			errs = append(errs, one())
		}
		return errors.Join(errs...)
	}
	for range n {
		cmd := exec.CommandContext(ctx, self, hogFlag) //nolint:gosec // this very program
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return nil, errors.Join(err, end())
		}
		ends = append(ends, func() error { return errors.Join(in.Close(), cmd.Wait()) })
	}
	return end, nil
}

// elections counts the terms that end without need while nobody gets enough CPU:
// callers that never pause, and programs that only spin, beside three coordinators.
func (b *bench) elections(ctx context.Context) error {
	for _, heartbeat := range b.heartbeats() {
		if err := b.election(ctx, heartbeat); err != nil {
			return err
		}
	}
	return nil
}

// heartbeats are those that the failover and elections parts compare.
func (b *bench) heartbeats() []time.Duration {
	var all []time.Duration
	for one := range strings.SplitSeq(b.beats, ",") {
		if d, err := time.ParseDuration(one); err == nil {
			all = append(all, d)
		}
	}
	return all
}

func (b *bench) election(ctx context.Context, heartbeat time.Duration) error {
	f, storage, err := b.cluster(ctx, clusterOptions{name: "elections-" + heartbeat.String(), clusters: 1, coordinators: 3, heartbeat: heartbeat})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.WriteFile(storage+"/f", []byte("x"), 0o600); err != nil {
		return err
	}
	s, err := f.Clusters[0].Connect()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing to be done about it
	before, err := s.Cluster(ctx)
	if err != nil {
		return err
	}
	end, err := hogs(ctx, b.hogs)
	if err != nil {
		return err
	}
	calls, longest := b.spin(ctx, s, 64)
	if err := end(); err != nil {
		return err
	}
	var after freshet.ClusterStatus
	err = fleet.Poll(ctx, time.Minute, "an answer", func(ctx context.Context) (err error) { after, err = s.Cluster(ctx); return err })
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("elections without need, heartbeat %s, 64 callers and %d hogs for %s", heartbeat, b.hogs, b.length),
		fmt.Sprintf("%d", after.Term-before.Term), "", fmt.Sprintf("%d calls, longest %.2f s; %s", calls, longest.Seconds(), causes(f.Clusters[0])))
	return nil
}

// causes counts in the logs why members gave up a leader.
func causes(c *fleet.Cluster) string {
	silent, lost := 0, 0
	for _, p := range c.Coordinators {
		log := p.Tail(10_000)
		silent += strings.Count(log, "heartbeat timeout reached")
		lost += strings.Count(log, "stepping down")
	}
	return fmt.Sprintf("%d times a follower heard nothing, %d times the leader had no quorum", silent, lost)
}

// spin has callers ask for the status of a file without a pause, and returns how
// many answers they got and the longest time that one took.
func (b *bench) spin(ctx context.Context, s *fleet.Session, callers int) (calls int64, longest time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, b.length)
	defer cancel()
	var total atomic.Int64
	worst := make([]time.Duration, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				if _, err := s.Stat(ctx, "/f", freshet.ReadOptions{}); err == nil {
					total.Add(1)
				}
				worst[i] = max(worst[i], time.Since(begun))
			}
		})
	}
	all.Wait()
	return total.Load(), slices.Max(worst)
}
