// Package inotify owns following the changes that others make in an HDFS: a
// small client of Hadoop RPC that polls the edit log of the active NameNode, as
// Hadoop's own DFSInotifyEventInputStream does, and the translation of its
// events into records of the bus. It never reads or writes a file, keeps no
// position (the consumer does) and speaks no Kerberos.
//
// What is told. Every transaction of the name space that makes, closes, appends
// to, truncates, concatenates, moves or removes something, and every change of
// times, owner, permissions, ACL, extended attributes and replication. The edit
// log has them all in order, and numbers without holes, so silence means that
// nothing happened, and a hole is a Gap.
//
// What is not told, because HDFS makes no event of it:
//   - what a writer adds to a file that is still open, be it flushed (hflush,
//     hsync) or whole blocks: the file is told when it is opened and again when
//     it is closed, by its writer or by lease recovery;
//   - snapshots made, renamed or deleted, so that a listing of a directory's
//     .snapshot may be old; the files in a snapshot never change. Bringing one
//     back is a copy or a move out of it, and told like any other;
//   - quotas, storage policies, block reports, balancing, safe mode: none of
//     them changes bytes or attributes that Freshet shows;
//   - the time of the last access; it has an event, which is dropped.
//
// When what follows can't be joined to what was told before, it says so by a
// Gap: the edits in between were purged, the name space was formatted, brought
// back to an older state or upgraded, or the position is unreadable. That holds
// too when the new history has overtaken the old position: a position names the
// name space and the last change, and both are checked on every connection.
package inotify

import (
	"context"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Options of a Source. Zero values mean the defaults, except for Addrs and User.
type Options struct {
	// Addrs are host:port of the RPC ports of all NameNodes of the name space.
	Addrs []string
	// User is who asks. It must be a superuser of the HDFS.
	User string
	// Dial connects; default a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log; default none.
	Log *slog.Logger
	// CallTimeout bounds each call, and a connection attempt if below 5 s;
	// default 20 s.
	CallTimeout time.Duration
	// MinPoll and MaxPoll bound the wait between two polls, which is a
	// twentieth of the time since the last change; default 10 ms and 250 ms. Where
	// the NameNode itself is slow to answer it is twice as long as the answer
	// took, at most 5 s.
	MinPoll, MaxPoll time.Duration
	// Heartbeat is how long nothing is yielded at most while the NameNode
	// answers; default 5 s.
	Heartbeat time.Duration
	// Patience is how long a failure that may pass is tried again before the
	// sequence ends with it; default 10 s.
	Patience time.Duration
}

func (o Options) withDefaults() Options {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.CallTimeout, 20 * time.Second},
		{&o.MinPoll, 10 * time.Millisecond},
		{&o.MaxPoll, 250 * time.Millisecond},
		{&o.Heartbeat, 5 * time.Second},
		{&o.Patience, 10 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	return o
}

// Source follows the changes of one name space. It is safe for concurrent use;
// each Watch has a connection of its own.
type Source struct {
	opts   Options
	active atomic.Int64 // index of the NameNode that answered last
}

// New returns a Source. It connects to nothing yet.
func New(opts Options) *Source { return &Source{opts: opts.withDefaults()} }

// Watch yields the changes after the cursor since, nil for from now on, as
// ufs.Watcher says. Keys are paths in the HDFS. Failures that may pass are
// tried again for a while; KindUnavailable is one that did not. KindPermission:
// the user is no superuser; KindUnsupported: the cluster wants Kerberos or is
// too old; KindCorrupt: what answers is no NameNode.
func (s *Source) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		w := &watch{s: s, yield: yield}
		defer w.hangUp()
		err := w.run(ctx, since)
		switch {
		case err == nil || w.stopped:
		case ctx.Err() != nil:
			yield(ufs.Notice{}, ufs.ContextError(ctx, op, ""))
		default:
			yield(ufs.Notice{}, s.fault(err))
		}
	}
}

// backOff is the wait before attempt n+1, between 50 ms and 1 s, and random so
// that regions do not return all at once.
func backOff(n int) time.Duration {
	d := min(50*time.Millisecond<<min(n, 10), time.Second)
	return d/2 + rand.N(d/2) //nolint:gosec // not for secrets
}

// pause waits for d. It is an error if ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// checkOptions refuses a Source that can't work.
func (s *Source) checkOptions() error {
	if len(s.opts.Addrs) == 0 || s.opts.User == "" {
		return freshet.Errorf(freshet.KindInvalid, op, "", "following an HDFS needs the addresses of its NameNodes and a user")
	}
	return nil
}
