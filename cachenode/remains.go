package cachenode

import (
	"context"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// maxRemains is how many uploads may wait for their storage to be cleaned up.
	maxRemains = 1024
	// remainsLife is how long the node tries.
	remainsLife = 15 * time.Minute
	// The wait between two tries doubles.
	remainsFirst, remainsMax = 500 * time.Millisecond, 5 * time.Second
)

// remain is an upload that had no effect, or none that is known, and that could not
// be cleaned up because its storage did not answer. The leader can end what the
// storage shows to be of the operation; an upload that had not got so far only the
// process that has begun it can tell from those of other programs.
type remain struct {
	op      freshet.OpID
	writer  ufs.Writer
	release func() // gives the mount back
	since   time.Duration
}

// leave hands an upload that could not be cleaned up over to clearRemains.
func (n *Node) leave(u *upload) {
	_, release, err := n.deps.Mounts.Get(u.ticket.Target.Mount)
	if err != nil {
		return // unmounted meanwhile
	}
	select {
	case n.remains <- remain{op: u.ticket.Op, writer: u.writer, release: release, since: n.deps.Clock.Elapsed()}:
	default:
		release()
		n.deps.Log.Warn("too many uploads wait to be cleaned up: this one may stay in the storage", "op", u.ticket.Op.String())
	}
}

// clearRemains cleans up until ctx ends.
func (n *Node) clearRemains(ctx context.Context) error {
	var left []remain
	defer func() {
		for _, r := range left {
			r.release()
		}
	}()
	wait := remainsFirst
	for {
		var again <-chan time.Time
		if len(left) > 0 {
			again = n.deps.Clock.After(wait)
		}
		select {
		case r := <-n.remains:
			left, wait = append(left, r), remainsFirst
		case <-again:
			left = slices.DeleteFunc(left, func(r remain) bool { return n.cleared(ctx, r) })
			wait = min(2*wait, remainsMax)
		case <-ctx.Done():
			return nil
		}
	}
}

// cleared tries once and reports whether nothing is left to be tried.
func (n *Node) cleared(ctx context.Context, r remain) bool {
	ctx, cancel := context.WithTimeout(ctx, abortTimeout)
	defer cancel()
	err := r.writer.Abort(ctx)
	over := n.deps.Clock.Elapsed()-r.since > remainsLife
	switch {
	case err == nil:
		n.deps.Log.Info("an upload was cleaned up at last", "op", r.op.String())
	case over:
		n.deps.Log.Warn("an upload could not be cleaned up and may stay in the storage", "op", r.op.String(), "error", err)
	default:
		return false
	}
	r.release()
	return true
}
