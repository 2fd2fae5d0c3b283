package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// change is an operation that the coordinator carries out itself.
type change struct {
	begin namespace.Begin
	// prepare looks at the storage before the intent. It may refuse, find that
	// there is nothing to do (done is the answer then), and complete the rest.
	prepare func(ctx context.Context, at place, c *change) (done *freshet.Completed, err error)
	// effect changes the storage and returns the entry that is there afterwards.
	effect func(ctx context.Context, at place) (*namespace.Entry, error)
	// compound effects take several steps: a refusal of one does not undo those
	// before it.
	compound bool
	// beneath, if it is set, returns what the effect left under unpersisted files.
	beneath func() []namespace.Beneath
}

// place is where an operation takes place.
type place struct {
	fs        ufs.FS
	mount     freshet.Mount
	key, key2 string
}

// look is Stat of the place's key, whose absence is told in words that go with the
// path of the operation.
func (at place) look(ctx context.Context) (ufs.Status, error) {
	st, err := at.fs.Stat(ctx, at.key)
	if freshet.IsKind(err, freshet.KindNotExist) {
		err = &freshet.Error{Kind: freshet.KindNotExist, Err: errors.New("does not exist")}
	}
	return st, err
}

// flight is a change that runs, and its outcome.
type flight struct {
	kind      namespace.OpKind
	path      freshet.Path
	path2     freshet.Path
	done      chan struct{}
	waits     bool // only for the resolution of an earlier attempt; guarded by the lead's mu
	completed freshet.Completed
	err       error
}

// do carries out c, or waits for the outcome of the same operation if it runs
// already. The operation goes on when ctx ends before it does.
func (e *Engine) do(ctx context.Context, c change) (freshet.Completed, error) {
	kind, p := c.begin.Kind.String(), c.begin.Path
	l, err := e.leader(kind)
	if err != nil {
		return freshet.Completed{}, err
	}
	c.begin.Op = newOp(c.begin.Op)
	c.begin.Incarn = l.term
	f, mine := l.board(&c)
	if mine && !e.start(l, kind, func(ctx context.Context) {
		defer l.land(c.begin.Op, f)
		f.completed, f.err = e.perform(ctx, l, c)
		e.count(c.begin.Kind, f.err)
	}) {
		l.land(c.begin.Op, f)
		_, err := e.leader(kind)
		return freshet.Completed{}, err
	}
	if f.kind != c.begin.Kind || f.path != p || f.path2 != c.begin.Path2 {
		return freshet.Completed{}, freshet.Errorf(freshet.KindConflict, kind, p,
			"operation ID %s is in use for another operation, %s of %s: make a new one", c.begin.Op, f.kind, f.path)
	}
	select {
	case <-f.done:
		return f.completed, freshet.Wrap(kind, p, f.err)
	case <-ctx.Done():
		return freshet.Completed{}, freshet.Errorf(freshet.KindDeadline, kind, p,
			"the operation still runs, its outcome is not known yet: ask again with operation ID %s: %w", c.begin.Op, context.Cause(ctx))
	}
}

func (l *lead) board(c *change) (f *flight, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.flights[c.begin.Op]; ok {
		return f, false
	}
	f = &flight{kind: c.begin.Kind, path: c.begin.Path, path2: c.begin.Path2, done: make(chan struct{})}
	f.err = freshet.Errorf(freshet.KindUnavailable, c.begin.Kind.String(), c.begin.Path, "the leadership ended: try again")
	l.flights[c.begin.Op] = f
	return f, true
}

func (l *lead) land(op freshet.OpID, f *flight) {
	l.mu.Lock()
	delete(l.flights, op)
	l.mu.Unlock()
	close(f.done)
	if f.err != nil {
		l.poke()
	}
}

// flying reports whether op is being carried out here.
func (l *lead) flying(op freshet.OpID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.flights[op]
	return ok && !f.waits
}

// waits says that the flight of op does nothing but wait for its resolution,
// which must not wait for the flight.
func (l *lead) waits(op freshet.OpID) {
	l.mu.Lock()
	if f, ok := l.flights[op]; ok {
		f.waits = true
	}
	l.mu.Unlock()
	l.poke()
}

func (e *Engine) count(kind namespace.OpKind, err error) {
	outcome := "done"
	switch {
	case err == nil:
	case uncertain(err) && !errors.Is(err, ufs.ErrNotSent):
		outcome = "unknown"
	default:
		outcome = "refused"
	}
	e.metrics.operations.WithLabelValues(kind.String(), outcome).Inc()
}

// uncertain reports whether an effect that ended with err may have happened, or
// may still happen.
func uncertain(err error) bool {
	return freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable, freshet.KindInternal, freshet.KindCorrupt, freshet.KindNotLeader)
}

// look prepares c; over says that it ends with that.
func (c *change) look(ctx context.Context, at place) (done freshet.Completed, over bool, err error) {
	switch already, err := c.prepare(ctx, at, c); {
	case err != nil:
		return done, true, err
	case already != nil:
		return *already, true, nil
	}
	return done, false, nil
}

// perform takes c from its first look at the storage to its completion.
func (e *Engine) perform(ctx context.Context, l *lead, c change) (freshet.Completed, error) {
	if done, ok, err := e.state.OpResult(c.begin.Op); err != nil || ok {
		return done, err
	}
	if in, ok := e.state.Intent(c.begin.Op); ok {
		l.waits(c.begin.Op)
		return e.await(ctx, c, in)
	}
	at, release, err := e.place(c.begin)
	if err != nil {
		return freshet.Completed{}, err
	}
	defer release()
	if done, over, err := c.look(ctx, at); over {
		return done, err
	}
	if err := l.raise(c.begin); err != nil {
		return freshet.Completed{}, err
	}
	ended := true
	defer func() {
		if ended {
			l.lower(c.begin.Op)
		}
	}()
	again, err := e.clearWay(ctx, c.begin) // asked last, with the fence up
	if err != nil {
		return freshet.Completed{}, err
	}
	if again {
		if done, over, err := c.look(ctx, at); over {
			return done, err
		}
	}
	completed, ended, err := e.carryOut(ctx, l, c, at)
	return completed, err
}

// clearWay refuses to move what is being written, and waits for the uploads of unpersisted
// files that the operation would meet. again says that the storage is to be looked at once
// more: what lies beneath such a file may have come after the first look.
func (e *Engine) clearWay(ctx context.Context, b namespace.Begin) (again bool, err error) {
	switch b.Kind { //nolint:exhaustive // the others change one entry
	case namespace.OpRename:
		if err := e.checkWriters(b); err != nil {
			return false, err
		}
		if again, err = e.stopPersists(ctx, b.Path, b.Path2); err != nil {
			return false, err
		}
		if again {
			err = e.checkWriters(b) // that took its time
		}
		return again, cmp.Or(err, e.checkKeptBelow(b.Path, b.Path2))
	case namespace.OpRemove:
		_, err = e.stopPersists(ctx, b.Path)
	}
	return false, err
}

// checkWriters refuses to move what is being written: the file would be left
// behind, or lost where a move is a copy and a delete.
func (e *Engine) checkWriters(b namespace.Begin) error {
	for _, in := range e.state.Intents() {
		if in.Kind != namespace.OpWrite || in.State == namespace.IntentQuarantine || in.Persist != 0 {
			continue // of the last kind none is under way once clearWay has ended
		}
		if b.Path.Contains(in.Path) || b.Path2.Contains(in.Path) {
			return freshet.Errorf(freshet.KindConflict, b.Kind.String(), b.Path, "%s is being written: try again when that has ended", in.Path)
		}
	}
	return nil
}

// carryOut takes c from its intent to its completion. ended is false if the
// operation is left to the resolution.
func (e *Engine) carryOut(ctx context.Context, l *lead, c change, at place) (done freshet.Completed, ended bool, err error) {
	kind, p, op := c.begin.Kind.String(), c.begin.Path, c.begin.Op
	if !e.reserve(l) {
		return done, true, freshet.Errorf(freshet.KindExhausted, kind, p, "%d operations are open, the most that are allowed: try again later", e.opts.MaxIntents)
	}
	e.opts.Hook(PointBegin, op)
	c.begin.At = e.clock.Now()
	res, err := e.propose(ctx, namespace.Command{Begin: &c.begin})
	l.begun(1)
	switch {
	case err != nil:
		return done, !uncertain(err), err
	case res.Done:
		return res.Completed, true, nil
	}
	e.opts.Hook(PointEffect, op)
	entry, err := e.effect(ctx, c, at)
	e.opts.Hook(PointComplete, op)
	switch {
	case err == nil:
		end := &namespace.Complete{Op: op, Entry: entry, At: e.clock.Now()}
		if c.beneath != nil {
			end.Beneath = c.beneath()
		}
		res, err := e.settle(ctx, namespace.Command{Complete: end})
		if err != nil {
			return done, false, freshet.Errorf(freshet.KindDeadline, kind, p, "the storage was changed, but the change could not be recorded yet; it will be: %w", err)
		}
		e.opts.Hook(PointDone, op)
		return res.Completed, true, nil
	case uncertain(err) && !errors.Is(err, ufs.ErrNotSent):
		return done, false, freshet.Errorf(freshet.KindDeadline, kind, p, "the outcome is unknown, the path is looked at again: %w", err)
	case c.compound:
		// Some steps may have been taken; none is under way any more.
		if _, rerr := e.observe(ctx, res.Intent, at, true); rerr != nil {
			e.log.Warn("an operation that failed half-way could not be resolved yet", "op", op.String(), "error", rerr)
			return done, false, err
		}
		return done, true, err
	}
	if _, aerr := e.settle(ctx, abort(op, true)); aerr != nil {
		return done, false, err // resolved later, with a record that says nothing new
	}
	return done, true, err
}

func (e *Engine) effect(ctx context.Context, c change, at place) (*namespace.Entry, error) {
	if !c.compound {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.opts.EffectTimeout)
		defer cancel()
	}
	return c.effect(ctx, at)
}

// await waits until an operation that an earlier leader began has been resolved.
func (e *Engine) await(ctx context.Context, c change, in namespace.Intent) (freshet.Completed, error) {
	kind, p, op := c.begin.Kind.String(), c.begin.Path, c.begin.Op
	if in.Kind != c.begin.Kind || in.Path != p || in.Path2 != c.begin.Path2 {
		return freshet.Completed{}, otherUse(kind, p, in)
	}
	for {
		if done, ok, err := e.state.OpResult(op); err != nil || ok {
			return done, err
		}
		if in, ok := e.state.Intent(op); !ok || in.State == namespace.IntentQuarantine {
			return freshet.Completed{}, unknownOutcome(kind, p, op)
		}
		select {
		case <-ctx.Done():
			return freshet.Completed{}, unknownOutcome(kind, p, op)
		case <-e.clock.After(e.opts.Tick):
		}
	}
}

// place checks what the state knows of the operation's paths and opens their
// storage.
func (e *Engine) place(b namespace.Begin) (place, func(), error) {
	kind := b.Kind.String()
	for _, p := range []freshet.Path{b.Path, b.Path2} {
		if p == "" {
			continue
		}
		if err := e.checkTarget(kind, p); err != nil {
			return place{}, nil, err
		}
	}
	m, ok := e.state.MountAt(b.Path)
	if !ok {
		return place{}, nil, freshet.Errorf(freshet.KindNotExist, kind, b.Path, "no storage is mounted there")
	}
	if err := e.checkNested(b); err != nil {
		return place{}, nil, err
	}
	at := place{mount: m, key: m.Path.Rel(b.Path)}
	if b.Path2 != "" {
		to, ok := e.state.MountAt(b.Path2)
		if !ok || to.ID != m.ID {
			return place{}, nil, acrossMounts(b, m, to)
		}
		at.key2 = m.Path.Rel(b.Path2)
	}
	var release func()
	var err error
	if at.fs, release, err = e.storage.Get(m.ID); err != nil {
		return place{}, nil, freshet.Wrap(kind, b.Path, err)
	}
	return at, release, nil
}

// acrossMounts refuses a rename that no single storage can do.
func acrossMounts(b namespace.Begin, from, to freshet.Mount) error {
	target := fmt.Sprintf("on the mount at %s", to.Path)
	if to.ID == 0 {
		target = "where nothing is mounted"
	}
	return freshet.Errorf(freshet.KindConflict, b.Kind.String(), b.Path,
		"cross-mount rename not supported: %s is on the mount at %s, the target %s is %s: copy it with 'freshet fs cp -r %s %s' and then remove it with 'freshet fs rm -r %s'",
		b.Path, from.Path, b.Path2, target, b.Path, b.Path2, b.Path)
}

// checkNested refuses to remove or to move what mount points lie in.
func (e *Engine) checkNested(b namespace.Begin) error {
	if b.Kind != namespace.OpRemove && b.Kind != namespace.OpRename {
		return nil
	}
	mounts, _ := e.state.Mounts()
	for _, m := range mounts {
		if b.Path.Contains(m.Path) || (b.Path2 != "" && b.Path2.Contains(m.Path)) {
			return freshet.Errorf(freshet.KindConflict, b.Kind.String(), b.Path, "%s is a mount point; detach it with 'freshet mount rm'", m.Path)
		}
	}
	return nil
}

// entryOf turns the storage's word into what the state keeps.
func entryOf(name string, st ufs.Status) *namespace.Entry {
	return &namespace.Entry{
		Name: name, Type: st.Type, Length: st.Length, ModTime: st.ModTime,
		Owner: st.Owner, Group: st.Group, Mode: st.Mode, Fingerprint: st.Fingerprint,
	}
}

func infoOf(p freshet.Path, m freshet.Mount, st ufs.Status) freshet.Info {
	return freshet.Info{
		Path: p, Type: st.Type, Length: st.Length, ModTime: st.ModTime, Owner: st.Owner, Group: st.Group,
		Mode: st.Mode, Fingerprint: st.Fingerprint, Mount: m.ID,
	}
}
