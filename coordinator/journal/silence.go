package journal

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// stagger is the part of a heartbeat by which followers stand for election at
// different times, so that they do not split the votes.
const stagger = 8

// watchLeader has a follower stand for election as soon as the leader has been silent
// for Options.Heartbeat, until ctx ends. Left to itself Raft looks only now and then,
// and notices after one to three heartbeats: the silence that is tolerated could be a
// third of the time that a failover takes. The time between two looks is random.
func (j *Journal) watchLeader(ctx context.Context, r *raft.Raft) error {
	limit := j.opts.Heartbeat
	for {
		wait := limit / stagger
		if r.State() == raft.Follower {
			if left := limit - time.Since(r.LastContact()); left >= 0 {
				wait = left + rand.N(limit/stagger) + time.Millisecond //nolint:gosec // no secret
			} else {
				j.lookAtOnce(r)
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// lookAtOnce makes a follower compare the silence with the limit now. Raft does so
// when its timeout is made shorter, which is why it is one nanosecond longer for an
// instant.
func (j *Journal) lookAtOnce(r *raft.Raft) {
	settings := r.ReloadableConfig()
	for _, timeout := range []time.Duration{j.opts.Heartbeat + 1, j.opts.Heartbeat} {
		settings.HeartbeatTimeout = timeout
		if err := r.ReloadConfig(settings); err != nil { // a defect: both are valid
			j.opts.Log.Warn("the silence of the leader could not be looked at", "error", err)
			return
		}
	}
}
