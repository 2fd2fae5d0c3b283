package ops

import (
	"context"
	"errors"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// track is what this leader remembers of an intent. Nothing of it is in the
// state: a new leader counts every duration from its own beginning (C15).
type track struct {
	path       freshet.Path
	seen       time.Duration // when this leader first saw the intent
	published  bool          // it was seen as one that may publish
	active     bool          // the node named it as running, to this leader
	beat       uint64        // heartbeats of the node when it last named it, or when it was first to name it
	forced     bool          // whoever had the operation gave it up: do not wait
	busy       bool          // a resolution runs
	worked     bool          // one has run
	failed     time.Duration // since when the storage does not answer; 0: it does
	retry      time.Duration // not before
	backoff    time.Duration
	until      time.Duration // end of the quarantine; 0: not known yet
	quarantine bool          // it was seen in quarantine, since seen
	asked      bool          // in quarantine: the storage was asked to end it early
	look       time.Duration // in quarantine: when the storage is looked at again
	landed     bool          // in quarantine: it was seen to have had its effect
	gone       time.Duration // the intent ended; kept for late words about it
}

// keepGone is how long a word about an operation that ended is still understood.
const keepGone = 10 * time.Minute

// adopt takes over what earlier leaders left.
func (e *Engine) adopt(l *lead) {
	for _, in := range e.state.Intents() {
		if f, ok := fenceOf(in.Begin); ok && in.State != namespace.IntentQuarantine {
			l.fences[in.Op] = f
		}
	}
}

// watch looks at the intents at each tick, and when poked.
func (e *Engine) watch(ctx context.Context, l *lead) error {
	timer := e.clock.NewTimer(e.opts.Tick)
	defer timer.Stop()
	for {
		e.look(l)
		timer.Reset(e.opts.Tick)
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C():
		}
	}
}

// look starts what is due for each intent.
func (e *Engine) look(l *lead) {
	now, read := e.now(), e.clock.Elapsed()
	intents := e.state.Intents()
	counts := map[namespace.IntentState]int{}
	present := make(map[freshet.OpID]struct{}, len(intents))
	for _, in := range intents {
		present[in.Op] = struct{}{}
		counts[in.State]++
		if l.flying(in.Op) {
			continue
		}
		t := l.trackOf(in, e.nodes.Presence(in.Node, read).Beats, now)
		if work := e.due(l, in, t, now); work != nil && l.claim(t) {
			e.begin(l, in, t, work)
		}
	}
	l.settleTracks(present, now)
	e.metrics.show(counts, e.nodes.Totals(read))
}

// begin starts what is due, unless the intent went on since it was listed: its
// step was then taken by somebody else, and must not be repeated.
func (e *Engine) begin(l *lead, in namespace.Intent, t *track, work func(context.Context) error) {
	cur, ok := e.state.Intent(in.Op)
	if !ok || cur.State != in.State || l.flying(in.Op) || !e.start(l, "resolve operation", func(ctx context.Context) {
		e.resolved(l, t, in, work(ctx))
	}) {
		l.release(t)
	}
}

// due returns what is to be done about an intent now, nil if nothing is.
func (e *Engine) due(l *lead, in namespace.Intent, t *track, now time.Duration) func(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case t.busy || now < t.retry:
		return nil
	case in.State == namespace.IntentQuarantine:
		return e.dueQuarantine(l, in, t, now)
	case in.Node == "":
		return func(ctx context.Context) error { return e.resolveOwn(ctx, l, in, t) }
	}
	gone, dead := e.writerGone(in, t, now)
	switch {
	case !gone:
		return nil
	case in.State == namespace.IntentUploading:
		return func(ctx context.Context) error { return e.giveUp(ctx, in) }
	}
	return func(ctx context.Context) error { return e.resolveUpload(ctx, in, t, dead) }
}

// writerGone reports whether nobody will say how an upload ended, and whether the
// process that ran it is known to be dead. The caller holds l.mu.
func (e *Engine) writerGone(in namespace.Intent, t *track, now time.Duration) (gone, dead bool) {
	at := e.nodes.Presence(in.Node, e.clock.Elapsed())
	switch {
	case at.Known && at.Incarnation > in.Incarn:
		return true, true
	case t.forced:
		return true, false
	case !at.Live:
		return at.Silence >= e.nodes.DeadAfter(), false
	case at.Incarnation < in.Incarn: // an older process speaks up; wait for the younger one
		return now-t.seen >= e.nodes.DeadAfter(), false
	case e.nodes.Active(in.Node, in.Op):
		return false, false
	}
	// The node lives and does not name the upload: twice in a row means that it
	// has lost it, once that its word was on the way.
	started := t.active || in.State == namespace.IntentMayPublish
	if started && at.Beats >= t.beat+2 {
		return true, false
	}
	return !started && now-t.seen >= e.opts.StartWithin, false
}

// sawActive notes which uploads the node named, as running or as ended.
func (e *Engine) sawActive(l *lead, h freshet.Heartbeat) {
	now, beats := e.now(), e.nodes.Presence(h.Node.ID, e.clock.Elapsed()).Beats
	named := func(op freshet.OpID) {
		if in, ok := e.state.Intent(op); ok && own(in, h) {
			t := l.trackOf(in, beats, now)
			l.mu.Lock()
			t.active, t.beat = true, beats
			l.mu.Unlock()
		}
	}
	for _, op := range h.Active {
		named(op)
	}
	for i := range h.Finished { // it has not lost what it tells the end of
		named(h.Finished[i].Op)
	}
}

// giveUp ends an upload that has not been permitted to publish: from the command
// on it never will be. What it left in the storage is cleared as well as may be.
func (e *Engine) giveUp(ctx context.Context, in namespace.Intent) error {
	_, err := e.propose(ctx, abort(in.Op, false))
	switch {
	case freshet.IsKind(err, freshet.KindConflict):
		return nil // it was permitted meanwhile: the next look sees that
	case err != nil && !freshet.IsKind(err, freshet.KindNotExist):
		return err
	}
	e.metrics.resolutions.WithLabelValues("aborted").Inc()
	e.log.Info("upload given up", "op", in.Op.String(), "node_id", string(in.Node), "mount_id", uint64(in.Mount))
	e.clear(ctx, in)
	return nil
}

// clear removes what an upload that has ended without an effect left in the
// storage, as well as may be.
func (e *Engine) clear(ctx context.Context, in namespace.Intent) {
	fs, release, err := e.storageOf(in)
	if err != nil {
		return // the operation has ended; the rest is a courtesy
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout)
	defer cancel()
	if _, err := fs.AbortUpload(ctx, in.Key, in.Op); err != nil {
		e.log.Warn("remains of an upload could not be removed", "op", in.Op.String(), "error", err)
	}
}

// resolveUpload ends an upload that may have been published: it ends what is left
// of it, looks at what the storage holds, and records that.
func (e *Engine) resolveUpload(ctx context.Context, in namespace.Intent, t *track, dead bool) error {
	fs, release, err := e.storageOf(in)
	if err != nil {
		return e.withoutWord(ctx, in, t, err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout)
	defer cancel()
	ended, err := fs.AbortUpload(ctx, in.Key, in.Op)
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist, freshet.KindUnsupported) {
		return e.withoutWord(ctx, in, t, err)
	}
	ended = ended || e.lifetime(in.Mount, fs, dead) == 0
	if _, err := e.observe(ctx, in, place{fs: fs, key: in.Key}, ended); err != nil {
		return e.withoutWord(ctx, in, t, err)
	}
	return nil
}

// looks is how often the storage is looked at once more at once, because the path was changed
// meanwhile.
const looks = 4

// observe records what the storage holds at the operation's path; ended says that
// nothing of the operation can land any more. moved reports that it is a rename that was
// seen to have had its effect.
func (e *Engine) observe(ctx context.Context, in namespace.Intent, at place, ended bool) (moved bool, err error) {
	var r *namespace.Resolve
	for try := 0; ; try++ {
		start := e.state.Applied()
		if r, err = seen(ctx, in, at); err != nil {
			return false, err
		}
		if e.state.Version() >= namespace.VersionUnpersisted {
			r.Start = start
		}
		// A temporary file that has its name can't get it again.
		r.Ended = ended || r.Ours && !at.fs.Features().OperationMark
		r.Moved = r.Moved && !ended // else the storage has refused it
		e.opts.Hook(PointResolve, in.Op)
		r.At = e.clock.Now()
		_, err = e.propose(ctx, namespace.Command{Resolve: r})
		if err == nil || freshet.IsKind(err, freshet.KindNotExist) {
			break
		}
		if !errors.Is(err, namespace.ErrChanged) || try == looks {
			return false, err
		}
	}
	ended = r.Ended
	result := "quarantined"
	if ended {
		result = "ended"
	}
	e.metrics.resolutions.WithLabelValues(result).Inc()
	e.log.Info("operation resolved", "op", in.Op.String(), "kind", in.Kind.String(), "node_id", string(in.Node),
		"mount_id", uint64(in.Mount), "ours", r.Ours, "ended", ended)
	return r.Moved, nil
}

// seen looks at what the storage holds where the operation has its effect.
func seen(ctx context.Context, in namespace.Intent, at place) (*namespace.Resolve, error) {
	key, name := at.key, in.Path.Base()
	if in.Kind == namespace.OpRename {
		key, name = at.key2, in.Path2.Base()
	}
	gone := false
	if in.Kind == namespace.OpRename { // the source first: the rename may land between the two looks
		_, err := at.fs.Stat(ctx, at.key)
		if gone = freshet.IsKind(err, freshet.KindNotExist); err != nil && !gone {
			return nil, err
		}
	}
	r := &namespace.Resolve{Op: in.Op, Known: true}
	st, err := at.fs.Stat(ctx, key)
	switch {
	case err == nil && st.Special == "":
		r.Observed = entryOf(name, st)
		// Only bytes that say that they are ours may be bound to our file ID, whose
		// blocks hold what we sent (C14): by their mark, or by what their node said
		// before it published them.
		ours := st.Op == in.Op || in.Sealed != nil && st.Fingerprint.Moved(*in.Sealed)
		r.Ours = in.Kind == namespace.OpWrite && ours && !st.IsDir()
		// A file that was copied is known by its length alone: where a rename copies, the
		// fingerprint of the copy may be another.
		r.Copied = gone && in.Source != nil && !at.fs.Features().AtomicRename
		r.Moved = gone && (in.Length == nil || *in.Length == st.Length)
	case err == nil:
		r.Known = false
	case !freshet.IsKind(err, freshet.KindNotExist):
		return nil, err
	}
	return r, nil
}

// withoutWord handles a storage that can't be asked: at first it is asked again,
// then the path is recorded as unknown, so that nobody serves an old version of
// it meanwhile.
func (e *Engine) withoutWord(ctx context.Context, in namespace.Intent, t *track, cause error) error {
	if errors.Is(cause, namespace.ErrChanged) || e.wait(ctx, t, cause) {
		return cause
	}
	e.log.Warn("operation resolved without the storage's word", "op", in.Op.String(), "kind", in.Kind.String(), "error", cause)
	_, err := e.propose(ctx, namespace.Command{Resolve: &namespace.Resolve{Op: in.Op, At: e.clock.Now()}})
	if err == nil {
		e.metrics.resolutions.WithLabelValues("unknown").Inc()
	}
	return err
}

// wait reports whether a storage that can't be asked is to be asked again.
func (e *Engine) wait(ctx context.Context, t *track, cause error) bool {
	now := e.now()
	if t.failed == 0 {
		t.failed = now
	}
	return ctx.Err() != nil || (now-t.failed < e.opts.ObserveWithin && !freshet.IsKind(cause, freshet.KindStale))
}

// resolveOwn ends an operation of a coordinator that died, or that never learnt
// how its effect ended.
func (e *Engine) resolveOwn(ctx context.Context, l *lead, in namespace.Intent, t *track) error {
	at := place{key: in.Key, key2: in.Key2}
	at.mount, _ = e.state.MountByID(in.Mount)
	var release func()
	var err error
	_, tree := fenceOf(in.Begin)
	if at.fs, release, err = e.storageOf(in); err != nil {
		return e.withoutWordOwn(ctx, in, t, tree, err)
	}
	defer release()
	if tree {
		entry, under, done, err := e.forward(ctx, in, at)
		if err != nil && uncertain(err) {
			return e.withoutWordOwn(ctx, in, t, tree, err)
		}
		if err == nil && done {
			// An attempt of the dead may still land: never sure.
			_, err = e.propose(ctx, namespace.Command{Complete: &namespace.Complete{Op: in.Op, Entry: entry, Uncertain: true, At: e.clock.Now(), Beneath: under}})
			if err != nil {
				return err
			}
			t.landed = true
			l.lower(in.Op)
			e.metrics.resolutions.WithLabelValues("rolled_forward").Inc()
			e.log.Info("operation rolled forward", "op", in.Op.String(), "kind", in.Kind.String(), "mount_id", uint64(in.Mount))
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout)
	defer cancel()
	if t.landed, err = e.observe(ctx, in, at, false); err != nil {
		return e.withoutWordOwn(ctx, in, t, tree, err)
	}
	l.lower(in.Op)
	return nil
}

// withoutWordOwn is withoutWord, but an operation that is to be rolled forward
// waits for its storage for as long as it takes.
func (e *Engine) withoutWordOwn(ctx context.Context, in namespace.Intent, t *track, tree bool, cause error) error {
	if tree && !freshet.IsKind(cause, freshet.KindStale) {
		return cause
	}
	return e.withoutWord(ctx, in, t, cause)
}

// storageOf opens the storage in which the operation took place. KindStale if it
// is not the mount's any more: what is there now says nothing about it.
func (e *Engine) storageOf(in namespace.Intent) (ufs.FS, func(), error) {
	if m, ok := e.state.MountByID(in.Mount); !ok || m.Generation != in.Generation {
		return nil, nil, freshet.Errorf(freshet.KindStale, "open storage", in.Path, "the mount was removed or got another storage")
	}
	fs, release, err := e.storage.Get(in.Mount)
	if freshet.IsKind(err, freshet.KindStale) {
		err = &freshet.Error{Op: "open storage", Path: in.Path, Kind: freshet.KindUnavailable, Err: err}
	}
	return fs, release, err
}

// forward takes an operation of several steps to its end after a crash between
// them. done is false if there was nothing to take forward, or nothing that is
// safe to repeat.
func (e *Engine) forward(ctx context.Context, in namespace.Intent, at place) (entry *namespace.Entry, under []namespace.Beneath, done bool, err error) {
	if in.Kind == namespace.OpRemove {
		err := at.fs.Remove(ctx, at.key, ufs.RemoveOptions{Recursive: true})
		if freshet.IsKind(err, freshet.KindNotExist) {
			err = nil
		}
		return nil, nil, err == nil, err
	}
	if at.fs.Features().AtomicRename {
		return nil, nil, false, nil // it happened, or it did not
	}
	if !in.Recursive {
		if ok, err := copied(ctx, at); err != nil || !ok {
			return nil, nil, false, err
		}
	}
	st, under, err := e.move(ctx, at, in.Path)
	if err != nil {
		return nil, nil, false, err
	}
	return entryOf(in.Path2.Base(), st), under, true, nil
}

// copied reports whether a file was copied to its new key and not yet deleted at
// the old one. Any other state is the beginning or the end of the move, or
// something that others wrote since: to repeat the move could destroy it.
func copied(ctx context.Context, at place) (bool, error) {
	var both [2]ufs.Status
	for i, key := range []string{at.key, at.key2} {
		st, err := at.fs.Stat(ctx, key)
		switch {
		case freshet.IsKind(err, freshet.KindNotExist):
			return false, nil
		case err != nil:
			return false, err
		}
		both[i] = st
	}
	from, to := &both[0], &both[1]
	// A copy may have another fingerprint, but it keeps the mark of who wrote the bytes.
	same := from.Fingerprint.SameContent(to.Fingerprint) || from.Op == to.Op && !from.Op.IsZero() && from.Length == to.Length
	return !from.IsDir() && !to.IsDir() && same, nil
}
