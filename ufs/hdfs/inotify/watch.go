package inotify

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// slowest bounds the wait between polls of a NameNode that answers slowly.
	slowest = 5 * time.Second
	// stuckLimit is how long durable edits may be unreadable. It happens for a
	// moment while a NameNode becomes active.
	stuckLimit = 10 * time.Second
)

// watch is one run of Source.Watch.
type watch struct {
	s       *Source
	yield   func(ufs.Notice, error) bool
	stopped bool // the consumer wants no more

	conn *conn
	next int // counts the NameNodes tried; the source remembers who answered last

	pos   position
	known bool   // pos is one to go on from
	gap   string // not told yet

	told    bool      // the first notice was
	caught  bool      // a later one said that there is no more
	yielded time.Time // last notice
	changed time.Time // last change seen
	stuck   time.Time // since when durable edits can't be read; zero if they can

	failures int       // since it worked
	worked   time.Time // last
	cause    error     // of the failures, the one that says most
}

func (w *watch) hangUp() {
	if w.conn != nil {
		w.conn.close()
		w.conn = nil
	}
}

// run polls until the consumer or ctx ends it, or until a failure lasts.
func (w *watch) run(ctx context.Context, since []byte) error {
	if err := w.s.checkOptions(); err != nil {
		return err
	}
	if since != nil {
		var err error
		w.pos, err = parseCursor(since)
		if w.known = err == nil; !w.known {
			w.gap = err.Error()
		}
	}
	w.next = int(w.s.active.Load())
	w.changed, w.worked = time.Now(), time.Now()
	for {
		wait, err := w.step(ctx)
		if w.stopped {
			return nil
		}
		if err != nil {
			if wait, err = w.failed(ctx, err); err != nil {
				return err
			}
		} else {
			w.failures, w.cause, w.worked = 0, nil, time.Now()
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// failed returns how long to wait before the next attempt, or the error to give
// up with.
func (w *watch) failed(ctx context.Context, err error) (time.Duration, error) {
	w.hangUp()
	w.next++
	if ctx.Err() != nil || !w.s.passing(err) {
		return 0, err
	}
	if w.cause == nil || !standby(err) {
		w.cause = err
	}
	if w.failures++; w.failures < len(w.s.opts.Addrs) {
		return 0, nil // the others, before any wait
	}
	if time.Since(w.worked) >= w.s.opts.Patience {
		return 0, w.cause
	}
	return backOff(w.failures - len(w.s.opts.Addrs)), nil
}

// step connects if need be, polls once, tells what is new and returns how long
// to wait before the next one.
func (w *watch) step(ctx context.Context) (time.Duration, error) {
	if w.conn == nil {
		if err := w.connect(ctx); err != nil {
			return 0, err
		}
	}
	asked := time.Now()
	e, err := w.conn.edits(ctx, w.pos.txid+1)
	if err != nil {
		return 0, err
	}
	took := time.Since(asked)
	if e.last < 0 {
		return w.pace(took), w.nothing(e)
	}
	if e.last <= w.pos.txid {
		return 0, fmt.Errorf("%w: asked from transaction %d, got up to %d", errFrame, w.pos.txid+1, e.last)
	}
	w.stuck = time.Time{}
	w.deliver(e)
	if e.last < e.sync {
		return 0, nil
	}
	return w.pace(took), nil
}

// connect opens a connection to the next NameNode and finds out whether what it
// has goes on from the position.
func (w *watch) connect(ctx context.Context) error {
	addrs := w.s.opts.Addrs
	addr := addrs[w.next%len(addrs)]
	c, err := w.s.open(ctx, addr)
	if err != nil {
		return err
	}
	w.conn = c
	identity, err := c.identity(ctx)
	if err != nil {
		return err
	}
	last, err := c.lastTxid(ctx)
	if err != nil {
		return err
	}
	why := ""
	if w.known {
		if why, err = w.parted(ctx, identity, last); err != nil {
			return err
		}
	}
	if !w.known || why != "" {
		w.pos, w.known = position{identity: identity, txid: last}, true
	}
	if why != "" {
		w.gap = why
	}
	w.s.active.Store(int64(w.next % len(addrs)))
	w.s.opts.Log.Debug("following the edits of a NameNode", "addr", addr, "txid", w.pos.txid, "gap", w.gap)
	return nil
}

// parted says why the history of a name space does not go on from the position,
// "" if it does, as far as can be seen: the last change may be purged.
func (w *watch) parted(ctx context.Context, identity string, last int64) (string, error) {
	switch {
	case identity != w.pos.identity:
		return "the name space is another one than before: the NameNode was formatted, restored or upgraded", nil
	case last < w.pos.txid:
		return rewound(w.pos.txid, last), nil
	case w.pos.witness == 0:
		return "", nil
	}
	e, err := w.conn.edits(ctx, w.pos.witness)
	if err != nil || e.last < 0 || e.first > w.pos.witness {
		return "", err
	}
	for _, b := range e.batches {
		if b.txid == w.pos.witness && b.digest == w.pos.digest {
			return "", nil
		}
	}
	return fmt.Sprintf("transaction %d is another change than before: the name space was brought back to an older state", w.pos.witness), nil
}

func rewound(from, to int64) string {
	return fmt.Sprintf("the name space went back from transaction %d to %d: it was formatted or brought back to an older state", from, to)
}

// nothing handles an answer without transactions.
func (w *watch) nothing(e edits) error {
	switch {
	case e.sync > 0 && e.sync < w.pos.txid:
		w.gap = rewound(w.pos.txid, e.sync)
		w.pos = position{identity: w.pos.identity, txid: e.sync}
	case e.sync <= 0 || e.sync > w.pos.txid:
		// There is something, or nobody knows: silence would prove nothing.
		if w.stuck.IsZero() {
			w.stuck = time.Now()
		}
		if time.Since(w.stuck) >= stuckLimit {
			return freshet.Errorf(freshet.KindUnavailable, op, "", "the NameNode can't read its edits from transaction %d on, although it is at %d: see its log", w.pos.txid+1, e.sync)
		}
		return nil
	}
	w.stuck = time.Time{}
	w.idle()
	return nil
}

// idle tells that there is nothing more: at the start, once more as soon as
// all is told that happened before it, and now and then.
func (w *watch) idle() {
	if w.gap != "" || !w.told || !w.caught || time.Since(w.yielded) >= w.s.opts.Heartbeat {
		w.caught = w.told
		w.tell(ufs.Notice{Gap: w.gap, Cursor: w.pos.cursor()})
	}
}

// deliver tells of e.
func (w *watch) deliver(e edits) {
	if len(e.batches) > 0 {
		w.changed = time.Now()
	}
	all, pos := notices(w.pos, e)
	for i, n := range all {
		if i == 0 && w.gap != "" {
			n.Gap = w.gap
		}
		if !w.tell(n) {
			return
		}
	}
	w.pos = pos
	// An empty notice while there are more changes would deny them.
	if len(all) == 0 && (e.last >= e.sync || !w.told) {
		w.idle()
	}
}

// tell yields n and reports whether to go on.
func (w *watch) tell(n ufs.Notice) bool {
	w.told, w.gap = true, ""
	w.stopped = !w.yield(n, nil)
	w.yielded = time.Now()
	return !w.stopped
}

// pace returns the wait before the next poll, after one that took took.
func (w *watch) pace(took time.Duration) time.Duration {
	wait := min(max(time.Since(w.changed)/20, w.s.opts.MinPoll), w.s.opts.MaxPoll)
	return max(wait, min(2*took, slowest))
}
