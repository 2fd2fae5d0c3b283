package ops

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
	"github.com/freshet-io/freshet/ufs"
)

// lifetime returns how long an effect on the storage may land after its sender
// stopped; 0 if none can.
func (e *Engine) lifetime(id freshet.MountID, fs ufs.FS, dead bool) time.Duration {
	if m, ok := e.state.MountByID(id); ok && m.MaxOpLifetime > 0 {
		return m.MaxOpLifetime
	}
	if fs != nil {
		if d := fs.Features().MaxOpLifetime; d > 0 {
			return d
		}
	}
	if dead {
		return 0
	}
	return e.opts.UnknownLifetime
}

// dueQuarantine asks the storage once to end a quarantine early, and otherwise
// ends it when its time is up. The caller holds l.mu.
func (e *Engine) dueQuarantine(l *lead, in namespace.Intent, t *track, now time.Duration) func(context.Context) error {
	switch {
	case !t.asked:
		return func(ctx context.Context) error { return e.askStorage(ctx, l, in, t) }
	case t.until != 0 && now >= t.until:
		return func(ctx context.Context) error { return e.endQuarantine(ctx, in, t) }
	case (in.Kind == namespace.OpRename || in.Persist != 0) && !t.landed && now >= t.look:
		t.look = now + lookAgain
		return func(ctx context.Context) (err error) {
			if t.landed, err = e.catchUp(ctx, in); err != nil {
				e.log.Debug("it is not known yet whether an operation landed late", "op", in.Op.String(), "error", err)
			}
			return nil // it is looked again, and at the end it counts
		}
	}
	return nil
}

// lookAgain is how often it is looked whether a rename or the upload of an unpersisted file
// in quarantine has landed, which such files must follow, or lie over.
const lookAgain = time.Second

// catchUp has unpersisted files follow an operation that landed after the storage was looked
// at: whoever led before, or runs the upload, may live, and be at it still. A removal needs
// none of this, it is rolled forward.
func (e *Engine) catchUp(ctx context.Context, in namespace.Intent) (landed bool, err error) {
	if kept, err := e.keptIn(in.Path, in.Path2); err != nil || !kept {
		return false, err
	}
	r, err := e.seenLate(ctx, in)
	switch {
	case freshet.IsKind(err, freshet.KindStale): // its storage is gone, and what it left there with it
		return false, nil
	case err != nil:
		return false, err
	case !r.Moved && !r.Ours || r.Ours && e.liesBeneath(in, r.Observed):
		return false, nil
	}
	_, err = e.propose(ctx, namespace.Command{Resolve: r})
	switch {
	case freshet.IsKind(err, freshet.KindNotExist): // it has ended meanwhile, by a look of its own
		return true, nil
	case errors.Is(err, namespace.ErrChanged):
		return false, freshet.Errorf(freshet.KindUnavailable, in.Kind.String(), in.Path, "%w", err)
	case err != nil:
		return false, err
	}
	e.log.Info("operation landed after it was resolved", "op", in.Op.String(), "kind", in.Kind.String(), "mount_id", uint64(in.Mount))
	return true, nil
}

// catchUpBelow is catchUp of the uploads at and below paths that are about to be moved: what
// they left would stay behind. landed says that one was seen to have left something.
func (e *Engine) catchUpBelow(ctx context.Context, paths ...freshet.Path) (landed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(beneathLooks)
	var seen atomic.Bool
	for _, in := range e.state.Intents() {
		if in.Persist == 0 || in.State != namespace.IntentQuarantine || !slices.ContainsFunc(paths, func(p freshet.Path) bool { return p.Contains(in.Path) }) {
			continue
		}
		group.Go(func() error {
			landed, err := e.catchUp(ctx, in)
			if landed {
				seen.Store(true)
			}
			return err
		})
	}
	err = group.Wait()
	return seen.Load(), err
}

// liesBeneath reports whether the unpersisted file at the operation's path is known to lie
// over what was seen.
func (e *Engine) liesBeneath(in namespace.Intent, seen *namespace.Entry) bool {
	l, err := e.state.Lookup(in.Path)
	if err != nil || seen == nil {
		return false
	}
	f, ok := e.state.UnpersistedOf(l.Info.FileID)
	return ok && f.Beneath == seen.Fingerprint
}

// seenLate looks at what the storage holds by now.
func (e *Engine) seenLate(ctx context.Context, in namespace.Intent) (*namespace.Resolve, error) {
	start := e.state.Applied()
	fs, release, err := e.storageOf(in)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout)
	defer cancel()
	r, err := seen(ctx, in, place{fs: fs, key: in.Key, key2: in.Key2})
	if err != nil {
		return nil, err
	}
	r.Late, r.Start, r.At = true, start, e.clock.Now()
	return r, nil
}

// askStorage learns how long the quarantine lasts. An upload whose remains can be
// ended for certain needs none.
func (e *Engine) askStorage(ctx context.Context, l *lead, in namespace.Intent, t *track) error {
	now := e.now()
	fs, release, err := e.storageOf(in)
	if err == nil {
		defer release()
	}
	l.mu.Lock()
	if t.until == 0 {
		// Its time counts from when this leader saw it, whatever was before.
		t.until = t.seen + e.lifetime(in.Mount, fs, false)
	}
	l.mu.Unlock()
	ended := in.Done
	if err == nil && !ended && in.Kind == namespace.OpWrite && in.Node != "" {
		ctx, cancel := context.WithTimeout(ctx, e.opts.EffectTimeout)
		defer cancel()
		if ended, err = fs.AbortUpload(ctx, in.Key, in.Op); freshet.IsKind(err, freshet.KindUnsupported, freshet.KindNotExist) {
			err = nil
		}
	}
	if err != nil && now < t.until && !freshet.IsKind(err, freshet.KindStale) {
		return err
	}
	if ended {
		return e.endQuarantine(ctx, in, t) // if it can't be ended now, the storage is asked again
	}
	l.mu.Lock()
	t.asked = true
	l.mu.Unlock()
	return nil
}

// endQuarantine ends an intent of which nothing can land any more. If unpersisted files are
// where it had its effect, they follow what that turned out to be.
func (e *Engine) endQuarantine(ctx context.Context, in namespace.Intent, t *track) error {
	done, err := e.followLate(ctx, in)
	if err != nil {
		inDoubt := in.Done && !freshet.IsKind(err, freshet.KindStale) // which only the storage can end
		if inDoubt || errors.Is(err, namespace.ErrChanged) || e.wait(ctx, t, err) {
			return err
		}
		e.log.Warn("quarantine ends without the storage's word", "op", in.Op.String(), "kind", in.Kind.String(), "error", err)
	}
	if !done {
		_, err = e.propose(ctx, namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: in.Op, At: e.clock.Now()}})
	}
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
		return err
	}
	e.metrics.resolutions.WithLabelValues("quarantine_ended").Inc()
	e.log.Info("quarantine ended", "op", in.Op.String(), "kind", in.Kind.String(), "mount_id", uint64(in.Mount))
	return nil
}

// followLate ends the quarantine with the storage's word, if unpersisted files may have to
// follow; done says that it did.
func (e *Engine) followLate(ctx context.Context, in namespace.Intent) (done bool, err error) {
	if kept, err := e.keptIn(in.Path, in.Path2); err != nil || !kept {
		return false, err
	}
	r, err := e.seenLate(ctx, in)
	if err != nil {
		return false, err
	}
	r.Ended = true
	if _, err = e.propose(ctx, namespace.Command{Resolve: r}); freshet.IsKind(err, freshet.KindNotExist) {
		err = nil
	}
	return err == nil, err
}

// lateEffect hears of an upload that was given up. While the intent is in
// quarantine its end will publish the path; after it, the effect came later than
// anything of it was thought to be able to: the path is published once more, by
// an operation of its own.
func (e *Engine) lateEffect(l *lead, f freshet.FinishedOp, quarantine bool) {
	if f.Written == nil && !f.Uncertain {
		return
	}
	if _, ok, err := e.state.OpResult(f.Op); ok || err != nil {
		return // it is the second word on what is known
	}
	l.mu.Lock()
	t := l.tracks[f.Op]
	heard := t != nil && t.forced && f.Written == nil
	l.mu.Unlock()
	if heard {
		return // it was resolved because of this very word, which is repeated until it is settled
	}
	e.metrics.late.Inc()
	if quarantine || t == nil {
		e.log.Warn("an upload was published after it had been given up", "op", f.Op.String(), "in_quarantine", quarantine)
		return
	}
	e.log.Error("an upload was published after nothing of it should have been able to land: max_op_lifetime is too short, or a clock stood still", "op", f.Op.String())
	e.start(l, "publish a late effect", func(ctx context.Context) {
		_, err := e.settle(ctx, namespace.Command{Begin: &namespace.Begin{
			Op: newOp(freshet.OpID{}), Kind: namespace.OpWrite, Path: t.path, Incarn: l.term, At: e.clock.Now(),
		}})
		if err != nil {
			e.log.Error("a late effect could not be published", "op", f.Op.String(), "error", err)
		}
	})
}

// trackOf returns the track of an intent, made at the first sight of it.
func (l *lead) trackOf(in namespace.Intent, beats uint64, now time.Duration) *track {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tracks[in.Op]
	if t == nil {
		t = &track{path: in.Path, seen: now, beat: beats}
		_, t.forced = l.forced[in.Op]
		delete(l.forced, in.Op)
		l.tracks[in.Op] = t
	}
	if in.State == namespace.IntentMayPublish && !t.published {
		t.published, t.beat = true, beats
	}
	if in.State == namespace.IntentQuarantine && !t.quarantine {
		t.quarantine, t.seen = true, now
	}
	return t
}

// force has an operation resolved without waiting for its writer.
func (l *lead) force(op freshet.OpID) {
	l.mu.Lock()
	if t := l.tracks[op]; t != nil {
		t.forced = true
	} else {
		l.forced[op] = struct{}{}
	}
	l.mu.Unlock()
	l.poke()
}

func (l *lead) claim(t *track) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.busy {
		return false
	}
	t.busy = true
	return true
}

func (l *lead) release(t *track) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.busy = false
}

// resolved notes how a step of a resolution ended.
func (e *Engine) resolved(l *lead, t *track, in namespace.Intent, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.busy, t.worked = false, true
	if err == nil {
		t.backoff, t.retry, t.failed = 0, 0, 0 // the next step comes with the next tick
		return
	}
	t.backoff = min(max(2*t.backoff, e.opts.Tick), 30*time.Second)
	level := slog.LevelWarn
	if errors.Is(err, namespace.ErrChanged) { // the storage answers, and others wait for this
		t.backoff, level = min(t.backoff, lookAgain), slog.LevelDebug
	}
	t.retry = e.now() + t.backoff
	if l.ctx.Err() == nil {
		e.log.Log(l.ctx, level, "an operation could not be resolved yet", "op", in.Op.String(), "kind", in.Kind.String(),
			"state", in.State.String(), "retry_in", t.backoff, "error", err)
	}
}

// settleTracks forgets the tracks of intents that ended long ago.
func (l *lead) settleTracks(present map[freshet.OpID]struct{}, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for op, t := range l.tracks {
		_, ok := present[op]
		switch {
		case ok || t.busy:
			t.gone = 0
		case !t.worked:
			delete(l.tracks, op)
		case t.gone == 0:
			t.gone = now
		case now-t.gone > keepGone:
			delete(l.tracks, op)
		}
	}
	for op := range l.forced {
		if _, ok := present[op]; !ok {
			delete(l.forced, op)
		}
	}
	for op := range l.fences {
		if _, ok := present[op]; !ok && l.flights[op] == nil {
			delete(l.fences, op)
		}
	}
}

// show sets what only a leader can tell.
func (m *metrics) show(intents map[namespace.IntentState]int, t placement.Totals) {
	for _, s := range []namespace.IntentState{namespace.IntentUploading, namespace.IntentMayPublish, namespace.IntentQuarantine} {
		m.intents.WithLabelValues(s.String()).Set(float64(intents[s]))
	}
	m.nodes.WithLabelValues("live").Set(float64(t.Live))
	m.nodes.WithLabelValues("dead").Set(float64(t.Dead))
}
