package client

import (
	"container/list"
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// kept is what is kept of one path for one caller.
type kept struct {
	path   freshet.Path
	caller string
	place  *list.Element

	stat      freshet.Status
	statUntil time.Duration // by clock.Elapsed
	loc       freshet.Location
	locUntil  time.Duration
}

// askKey names a question that those who have it too wait for.
type askKey struct {
	path     freshet.Path
	caller   string
	stat     bool
	off, len int64
}

// ask is a question that is on its way.
type ask struct {
	done chan struct{}
	void bool // called back, or of another session
}

// wide makes a question one about all around it. Who reads a file in parts, and again,
// shall have to ask for few of them; who reads one part only shall not have to be told of
// all others.
func wide(q freshet.LocateQuery, blockSize int64) freshet.LocateQuery {
	span := min(window, maxAnswer*max(blockSize, 1))
	q.Offset, q.Length = q.Offset-q.Offset%span, span
	return q
}

// maxAnswer is about how many blocks a coordinator names in one answer.
const maxAnswer = 256

// Locate answers q from what is kept or asks ns.
func (l *Leases) Locate(ctx context.Context, ns rpc.Namespace, q freshet.LocateQuery) (freshet.Location, error) {
	if q.StaleFingerprint != "" || q.Again {
		l.mu.Lock()
		l.forget(q.Path)
		l.mu.Unlock()
		return ns.Locate(ctx, q)
	}
	if !keeps(&q.Options) {
		return ns.Locate(ctx, q)
	}
	caller := rpc.Caller(ctx)
	key := askKey{path: q.Path, caller: caller, off: q.Offset, len: q.Length}
	for joined := false; ; joined = true {
		loc, ok := l.located(caller, &q)
		if ok {
			l.metrics.hits.Inc()
			return loc, nil
		}
		a, session, first := l.begin(key)
		if !first && !joined && a != nil {
			if err := await(ctx, a, q.Path); err != nil {
				return freshet.Location{}, err
			}
			continue
		}
		if session.IsZero() {
			return ns.Locate(ctx, q)
		}
		l.metrics.misses.Inc()
		if !first { // who came later than the question may not have its answer unless it is kept
			q.Options.Lease = freshet.LeaseID{}
			return ns.Locate(ctx, q)
		}
		defer l.end(key, a)
		q.Options.Lease = session
		if size := loc.Info.BlockSize; size > 0 { // another part is kept
			if all, err := l.locate(ctx, ns, wide(q, size), key, a); err == nil && covers(&all, q.Offset) {
				return part(&all, &q), nil
			}
		}
		return l.locate(ctx, ns, q, key, a)
	}
}

// locate asks, and keeps what may be kept.
func (l *Leases) locate(ctx context.Context, ns rpc.Namespace, q freshet.LocateQuery, key askKey, a *ask) (freshet.Location, error) {
	sent := l.opts.Clock.Elapsed()
	loc, err := ns.Locate(ctx, q)
	if err == nil {
		l.keep(key, a, loc.Lease, func(k *kept) { k.loc, k.locUntil = loc, sent+freshet.KeepFor(loc.Lease) })
	}
	return loc, err
}

// located returns what is kept, and whether it answers q: it has the block that q begins
// in.
func (l *Leases) located(caller string, q *freshet.LocateQuery) (loc freshet.Location, ok bool) {
	l.mu.Lock()
	k := l.find(q.Path, caller)
	if k == nil || l.opts.Clock.Elapsed() >= k.locUntil {
		l.mu.Unlock()
		return loc, false
	}
	loc = k.loc
	l.mu.Unlock()
	if !covers(&loc, q.Offset) {
		return loc, false
	}
	return part(&loc, q), true
}

// covers reports whether an answer has the block at an offset, or says that there is none.
func covers(loc *freshet.Location, off int64) bool {
	n := len(loc.Blocks)
	if off >= loc.Info.Length {
		return off == loc.Info.Length
	}
	return n > 0 && off >= loc.Blocks[0].Offset && off < loc.Blocks[n-1].Offset+loc.Blocks[n-1].Length
}

// part returns the part of an answer that is asked for.
func part(loc *freshet.Location, q *freshet.LocateQuery) freshet.Location {
	out := *loc
	end := loc.Info.Length
	if q.Length >= 0 && q.Length < end-q.Offset {
		end = q.Offset + q.Length
	}
	blocks := loc.Blocks
	for len(blocks) > 0 && blocks[0].Offset+blocks[0].Length <= q.Offset {
		blocks = blocks[1:]
	}
	n := len(blocks)
	for n > 0 && blocks[n-1].Offset >= end {
		n--
	}
	out.Blocks = blocks[:n:n]
	return out
}

// Stat answers from what is kept or asks ns. What a kept answer says of cached bytes is
// as old as the answer.
func (l *Leases) Stat(ctx context.Context, ns rpc.Namespace, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	if !keeps(&opts) {
		return ns.Stat(ctx, p, opts)
	}
	key := askKey{path: p, caller: rpc.Caller(ctx), stat: true}
	for joined := false; ; joined = true {
		if st, ok := l.status(p, key.caller); ok {
			l.metrics.hits.Inc()
			return st, nil
		}
		a, session, first := l.begin(key)
		if !first && !joined && a != nil {
			if err := await(ctx, a, p); err != nil {
				return freshet.Status{}, err
			}
			continue
		}
		if session.IsZero() || !first {
			return ns.Stat(ctx, p, opts)
		}
		l.metrics.misses.Inc()
		defer l.end(key, a)
		opts.Lease = session
		sent := l.opts.Clock.Elapsed()
		st, err := ns.Stat(ctx, p, opts)
		if err == nil {
			l.keep(key, a, st.Lease, func(k *kept) { k.stat, k.statUntil = st, sent+freshet.KeepFor(st.Lease) })
		}
		return st, err
	}
}

func (l *Leases) status(p freshet.Path, caller string) (st freshet.Status, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.find(p, caller)
	now := l.opts.Clock.Elapsed()
	if k == nil || now >= k.statUntil {
		return st, false
	}
	st = k.stat
	if st.Freshness.Age >= 0 { // as of the end of its time it is at most so old
		st.Freshness.Age += max(now-(k.statUntil-freshet.KeepFor(st.Lease)), 0)
	}
	return st, true
}

// keeps reports whether a read takes what is kept: one that has an interval or a token of
// its own asks for more than a lease says.
func keeps(opts *freshet.ReadOptions) bool { return opts.SyncInterval == nil && opts.After.IsZero() }

// find returns what is kept of a path for a caller who asks, nil if nothing is. The caller
// holds mu.
func (l *Leases) find(p freshet.Path, caller string) *kept {
	l.used = true
	all, _ := l.tree.Get(p)
	k := all[caller]
	if k != nil {
		l.order.MoveToBack(k.place)
	}
	return k
}

// begin returns the question of a key: first says that it is the caller's to ask and to
// end. Without a session there is none.
func (l *Leases) begin(key askKey) (a *ask, session freshet.LeaseID, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session.IsZero() {
		l.want()
	}
	if a = l.asks[key]; a != nil || l.session.IsZero() {
		return a, l.session, false
	}
	a = &ask{done: make(chan struct{})}
	l.asks[key] = a
	return a, l.session, true
}

// end lets those go on who wait for a question.
func (l *Leases) end(key askKey, a *ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.asks, key)
	close(a.done)
}

// await waits for the question of another.
func await(ctx context.Context, a *ask, p freshet.Path) error {
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return &freshet.Error{Op: "locate", Path: p, Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
	}
}

// keep keeps an answer that was granted for a time unless it was called back meanwhile.
func (l *Leases) keep(key askKey, a *ask, granted time.Duration, set func(*kept)) {
	if granted <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.void {
		return
	}
	all, _ := l.tree.Get(key.path)
	k := all[key.caller]
	if k == nil {
		for l.order.Len() >= l.opts.Max {
			l.evict()
		}
		if all, _ = l.tree.Get(key.path); all == nil { // it may have been evicted
			all = map[string]*kept{}
			l.tree.Set(key.path, all)
		}
		k = &kept{path: key.path, caller: key.caller}
		k.place = l.order.PushBack(k)
		all[key.caller] = k
	}
	set(k)
}

// evict forgets what was not used for the longest time.
func (l *Leases) evict() {
	k, ok := l.order.Front().Value.(*kept)
	if !ok {
		return
	}
	l.order.Remove(k.place)
	all, _ := l.tree.Get(k.path)
	if delete(all, k.caller); len(all) == 0 {
		l.tree.Delete(k.path)
	}
}
