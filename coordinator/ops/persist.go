package ops

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/coordinator/placement"
)

const (
	opPersist = "persist"
	// persistPerNode bounds the files that one node is ordered to write at a time, and
	// persistBatch those that one pass orders.
	persistPerNode = 32
	persistBatch   = 512
	// lossEvery is how often it is looked whether the bytes are still where they were
	// promised to be.
	lossEvery = time.Second
	// lossesTold bounds the files that are named in the log when a node is lost.
	lossesTold = 20
)

// lossWatch is what the leader knows of unpersisted files whose bytes no live node has.
type lossWatch struct {
	lost map[freshet.FileID]struct{}
	// short are on fewer live nodes than was promised.
	short map[freshet.FileID]struct{}
}

// persistFiles orders nodes to write what is queued to the storage, until ctx ends.
func (e *Engine) persistFiles(ctx context.Context, l *lead) error {
	timer := e.clock.NewTimer(e.opts.Tick)
	defer timer.Stop()
	watch := lossWatch{lost: map[freshet.FileID]struct{}{}}
	looked := time.Duration(0)
	defer e.metrics.unpersisted.Reset()
	for {
		some := e.state.UnpersistedTotals().Files > 0
		if some {
			if err := e.persistDue(ctx, l); err != nil && l.ctx.Err() == nil {
				e.log.Warn("files could not be ordered to be persisted", "error", err)
			}
		}
		if now := e.now(); now-looked >= lossEvery {
			looked = now
			e.lookAfter(l, &watch)
		}
		timer.Reset(e.opts.Tick)
		select {
		case <-ctx.Done():
			return nil
		case <-l.persist:
		case <-timer.C():
		}
	}
}

// persistDue begins what is due and a node can do now, the oldest versions first. What no
// node can do now holds up nothing else, however much it is.
func (e *Engine) persistDue(ctx context.Context, l *lead) error {
	at := e.clock.Now()
	p := e.newPersisters()
	var due []*namespace.Unpersisted // rows of the state are replaced, never changed
	_, err := e.state.Unpersisted(0, func(u *namespace.Unpersisted, op freshet.OpID) bool {
		if u.Queued && op.IsZero() && !u.Next.After(at) && p.some(u) {
			due = append(due, u)
		}
		return false
	})
	if err != nil {
		return err
	}
	slices.SortFunc(due, func(a, b *namespace.Unpersisted) int { return cmp.Compare(a.File, b.File) })
	var cmds []namespace.Command
	defer func() { l.begun(len(cmds)) }()
	for _, u := range due {
		if len(cmds) == persistBatch {
			break
		}
		node, incarnation, ok := p.best(u)
		if !ok {
			continue
		}
		f, ok := e.state.UnpersistedOf(u.File)
		if !ok || l.checkFences(opPersist, f.Path) != nil {
			continue
		}
		if !e.reserve(l) {
			break
		}
		p.busy[node]++
		cmds = append(cmds, namespace.Command{Begin: &namespace.Begin{
			Op: newOp(freshet.OpID{}), Kind: namespace.OpWrite, Path: f.Path, Node: node, Incarn: incarnation, Write: freshet.AsyncThrough,
			BlockSize: f.BlockSize, Length: &f.Length, At: at, Owner: f.Owner, Group: f.Group, Persist: f.File,
		}})
	}
	if len(cmds) == 0 {
		return nil
	}
	results, err := e.journal.Propose(ctx, cmds...)
	for i, r := range results {
		if r.Err != nil && !freshet.IsKind(r.Err, freshet.KindConflict) { // it changed meanwhile
			e.log.Warn("a file could not be ordered to be persisted", "error", r.Err)
		}
		begin := cmds[i].Begin
		if r.Err == nil && l.checkFences(opPersist, begin.Path) != nil { // a rename may have begun after the first look
			if _, err := e.propose(ctx, abort(begin.Op, false)); err != nil {
				e.log.Debug("an order to persist a file could not be withdrawn", "op", begin.Op.String(), "error", err)
				continue
			}
			e.start(l, "clear a withdrawn upload", func(ctx context.Context) { e.clear(ctx, r.Intent) })
		}
	}
	return err
}

// persisters are the nodes that may be ordered to persist files, in one pass.
type persisters struct {
	nodes *placement.Nodes
	now   time.Duration
	busy  map[freshet.NodeID]int // orders that have not ended
	live  map[freshet.NodeID]bool
}

func (e *Engine) newPersisters() *persisters {
	p := &persisters{nodes: e.nodes, now: e.clock.Elapsed(), busy: map[freshet.NodeID]int{}, live: map[freshet.NodeID]bool{}}
	for _, in := range e.state.Intents() {
		if in.Persist != 0 {
			p.busy[in.Node]++
		}
	}
	return p
}

// free reports whether the node lives and may be ordered more.
func (p *persisters) free(id freshet.NodeID) bool {
	if p.busy[id] >= persistPerNode {
		return false
	}
	live, known := p.live[id]
	if !known {
		live = p.nodes.Presence(id, p.now).Live
		p.live[id] = live
	}
	return live
}

// some reports whether a node may be free to persist the file. It costs little: there may
// be very many files.
func (p *persisters) some(u *namespace.Unpersisted) bool { return slices.ContainsFunc(u.Nodes, p.free) }

// best returns the node that is to write the file: one that has all of it and the least
// to do.
func (p *persisters) best(u *namespace.Unpersisted) (best freshet.NodeID, incarnation uint64, ok bool) {
	if !p.some(u) {
		return "", 0, false
	}
	whole := p.nodes.Whole(u.File, u.Length, u.Nodes, p.now)
	for _, id := range u.Nodes { // in an order that is the same each time
		if inc, has := whole[id]; has && p.free(id) && (!ok || p.busy[id] < p.busy[best]) {
			best, incarnation, ok = id, inc, true
		}
	}
	return best, incarnation, ok
}

// orders returns the files that the node is to persist and does not say that it does.
func (e *Engine) orders(h *freshet.Heartbeat) []freshet.PersistOrder {
	if !h.Keeps || e.state.UnpersistedTotals().Files == 0 {
		return nil
	}
	var all []freshet.PersistOrder
	for _, in := range e.state.Intents() {
		if in.Persist == 0 || in.State != namespace.IntentUploading || !own(in, *h) || slices.Contains(h.Active, in.Op) {
			continue
		}
		f, ok := e.state.UnpersistedOf(in.Persist)
		if !ok {
			continue
		}
		all = append(all, freshet.PersistOrder{
			Op: in.Op, File: in.Persist, Path: in.Path, Target: freshet.Source{Mount: in.Mount, Key: in.Key}, Length: f.Length, BlockSize: f.BlockSize,
			Beneath: f.Beneath, Owner: f.Owner, Group: f.Group, Mode: f.Mode,
		})
	}
	return all
}

// notPersisted is the command that ends an order which had no effect.
func (e *Engine) notPersisted(in *namespace.Intent, f *freshet.FinishedOp) namespace.Command {
	wait := namespace.PersistRetryMax // of a conflict
	u, ok := e.state.UnpersistedOf(in.Persist)
	ours := !ok || u.Laid > in.Started || e.overtaken(in) // what it came upon is of this cluster
	if ours || !f.Conflict {
		wait = u.Backoff()
	}
	if ours {
		return namespace.Command{PersistFailed: &namespace.PersistFailed{Op: in.Op, Error: f.Failure, Next: e.clock.Now().Add(wait)}}
	}
	log := e.log.With("path", string(in.Path), "file_id", uint64(in.Persist), "node_id", string(in.Node), "again_in", wait, "expected", u.Beneath.String(), "error", f.Failure)
	if f.Conflict {
		log.Error("a file can't be persisted: the storage holds another version; both are kept")
	} else {
		log.Warn("a file could not be persisted; it is tried again")
	}
	return namespace.Command{PersistFailed: &namespace.PersistFailed{
		Op: in.Op, Error: f.Failure, Conflict: f.Conflict, Next: e.clock.Now().Add(wait),
	}}
}

// overtaken reports whether another operation on the path may have reached the storage and
// has not ended.
func (e *Engine) overtaken(in *namespace.Intent) bool {
	return slices.ContainsFunc(e.state.Intents(), func(o namespace.Intent) bool {
		if o.Op == in.Op || o.Mount != in.Mount || o.State == namespace.IntentUploading {
			return false
		}
		return o.Kind == namespace.OpWrite && o.Key == in.Key || o.TakesAway(in.Key)
	})
}

// StateOf says in a word what is the matter with an unpersisted file, and which live
// nodes have all of it.
func (e *Engine) StateOf(f *namespace.UnpersistedFile) (string, Standing) {
	at := e.standing(f)
	switch {
	case at.Heard && len(at.Live) == 0:
		return freshet.UnpersistedLost, at
	case !f.Persisting.IsZero():
		return freshet.UnpersistedPersisting, at
	case f.Conflict:
		return freshet.UnpersistedConflict, at
	case f.Attempts > 0 && f.Error != "" && f.Queued:
		return freshet.UnpersistedFailed, at
	case f.Queued:
		return freshet.UnpersistedQueued, at
	}
	return freshet.UnpersistedKept, at
}

// Kept returns all unpersisted files without their paths, which would have to be read.
func (e *Engine) Kept() ([]namespace.UnpersistedFile, error) {
	var all []namespace.UnpersistedFile
	_, err := e.state.Unpersisted(0, func(u *namespace.Unpersisted, op freshet.OpID) bool {
		all = append(all, namespace.UnpersistedFile{Unpersisted: *u, Persisting: op})
		return false
	})
	return all, err
}

// lookAfter finds out whether bytes that no storage has are lost, and says so.
func (e *Engine) lookAfter(l *lead, w *lossWatch) {
	all, err := e.Kept()
	if err != nil {
		return
	}
	l.forgetKeeps(func(id freshet.FileID) bool { _, ok := e.state.UnpersistedOf(id); return ok })
	counts := map[string]float64{}
	shorts := map[freshet.FileID]struct{}{}
	for _, s := range []string{
		freshet.UnpersistedKept, freshet.UnpersistedQueued, freshet.UnpersistedPersisting, freshet.UnpersistedFailed, freshet.UnpersistedConflict, freshet.UnpersistedLost,
	} {
		counts[s] = 0
	}
	lost, sums := map[freshet.FileID]struct{}{}, newKeptSums()
	var gone []*namespace.UnpersistedFile
	lag, bytes := time.Duration(0), int64(0)
	for i := range all {
		f := &all[i]
		state, at := e.StateOf(f)
		counts[state]++
		e.lookForShort(w, shorts, f, at)
		e.orderKeeper(l, f, at)
		sums.add(&f.Unpersisted, &at)
		bytes += f.Length
		if f.Queued {
			lag = max(lag, e.clock.Now().Sub(f.Waits()))
		}
		if state == freshet.UnpersistedLost {
			gone = append(gone, f)
			lost[f.File] = struct{}{}
		}
	}
	e.tellLosses(w.lost, gone)
	l.tookSums(e, sums)
	switch now, before := len(lost), len(w.lost); {
	case now > before:
		e.log.Error("files that are not in the storage are whole on no live node", "files", now)
	case now < before && now == 0:
		e.log.Info("no file that is not in the storage is missing any more")
	}
	w.lost = lost
	if len(shorts) > 0 && len(w.short) == 0 {
		e.log.Warn("files that are not in the storage are on fewer live nodes than was promised; they are copied, or persisted from the others", "files", len(shorts))
	}
	w.short = shorts
	for s, n := range counts {
		e.metrics.unpersisted.WithLabelValues(s).Set(n)
	}
	e.metrics.unpersistedBytes.Set(float64(bytes))
	e.metrics.lost.Set(float64(len(lost)))
	e.metrics.short.Set(float64(len(shorts)))
	e.metrics.lag.Set(lag.Seconds())
}

// acknowledged has the nodes looked for a file that only they have at once, and not when
// they have sent their next heartbeats.
func (e *Engine) acknowledged(in *namespace.Intent, c *namespace.Complete) {
	if !in.Keeps() {
		return
	}
	nodes := c.Nodes
	if len(nodes) == 0 {
		nodes = []freshet.NodeID{in.Node}
	}
	for _, id := range nodes {
		incarnation := uint64(0)
		if id == in.Node {
			incarnation = in.Incarn
		}
		e.nodes.Acknowledged(id, incarnation, in.File, c.Entry.Length, in.BlockSize)
	}
}

// PersistNow has the queue looked at. It never blocks.
func (e *Engine) PersistNow() {
	e.mu.Lock()
	l := e.lead
	e.mu.Unlock()
	if l == nil {
		return
	}
	select {
	case l.persist <- struct{}{}:
	default:
	}
}

// Withdrawn has what uploads left in the storage removed that a change of the state ended:
// their nodes may be dead and never hear of it. It may be called on any member; it never
// blocks.
func (e *Engine) Withdrawn(uploads []namespace.Intent) {
	e.mu.Lock()
	l := e.lead
	e.mu.Unlock()
	if l == nil || len(uploads) == 0 {
		return
	}
	e.start(l, "clear withdrawn uploads", func(ctx context.Context) {
		for i := range uploads {
			e.clear(ctx, uploads[i])
		}
	})
}

// stopPersists withdraws the uploads of unpersisted files at and below the paths, and
// waits for those that may be published at this moment; kept says that there are such files.
func (e *Engine) stopPersists(ctx context.Context, paths ...freshet.Path) (kept bool, err error) {
	if kept, err = e.keptIn(paths...); err != nil || !kept {
		return false, err
	}
	err = e.repeat(ctx, func() (again bool, err error) {
		r, err := e.propose(ctx, namespace.Command{StopPersist: &namespace.StopPersist{Paths: paths}})
		return r.More, err
	})
	if err == nil {
		err = e.repeat(ctx, func() (again bool, err error) {
			if _, err = e.catchUpBelow(ctx, paths...); errors.Is(err, namespace.ErrChanged) {
				return true, nil
			}
			return false, err
		})
	}
	return true, err
}

// repeat calls fn until it has nothing more to do.
func (e *Engine) repeat(ctx context.Context, fn func() (again bool, err error)) error {
	for from := e.now(); ; {
		again, err := fn()
		if err != nil || !again {
			return err
		}
		if e.now()-from > e.opts.EffectTimeout {
			return freshet.Errorf(freshet.KindUnavailable, opPersist, "", "a file is on its way to the storage, which does not answer: try again later")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.clock.After(50 * time.Millisecond):
		}
	}
}

// keptAt reports whether the path is an unpersisted file, or a directory that one lies
// below.
func (e *Engine) keptAt(p freshet.Path) (kept, dir bool, err error) {
	l, err := e.state.Lookup(p)
	return err == nil && l.Unpersisted, l.Info.Type == freshet.TypeDirectory, err
}

// keptIn is keptAt of any of the paths. Empty ones do not count.
func (e *Engine) keptIn(paths ...freshet.Path) (kept bool, err error) {
	for _, p := range paths {
		if p == "" {
			continue
		}
		if kept, _, err = e.keptAt(p); err != nil || kept {
			return kept, err
		}
	}
	return false, nil
}

// renameKept renames an unpersisted file of which the storage has no version; handled
// is false if the path is nothing of that kind.
func (e *Engine) renameKept(ctx context.Context, q freshet.RenameQuery) (done freshet.Completed, handled bool, err error) {
	if q.Path == q.Target || e.state.UnpersistedTotals().Files == 0 {
		return done, false, nil
	}
	err = e.repeat(ctx, func() (bool, error) {
		if now, ok, err := e.state.OpResult(q.Op); ok || err != nil {
			done, handled = now, true
			return false, err
		}
		l, err := e.state.Lookup(q.Path)
		if err != nil {
			return false, err
		}
		f, ok := e.state.UnpersistedOf(l.Info.FileID)
		if handled = ok && l.Unpersisted && l.Info.Type == freshet.TypeFile && !f.Beneath.Known(); !handled {
			return false, nil
		}
		done, err = e.moveKept(ctx, q)
		if freshet.IsKind(err, freshet.KindUnavailable) {
			return true, nil
		}
		return false, err
	})
	return done, handled, err
}

func (e *Engine) moveKept(ctx context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	begin := namespace.Begin{Op: q.Op, Kind: namespace.OpRename, Path: q.Path, Path2: q.Target}
	at, release, err := e.place(begin)
	if err != nil {
		return freshet.Completed{}, err
	}
	defer release()
	l, err := e.leader(opRename)
	if err != nil {
		return freshet.Completed{}, err
	}
	if err := l.raise(begin); err != nil {
		return freshet.Completed{}, err
	}
	defer l.lower(q.Op)
	if landed, err := e.catchUpBelow(ctx, q.Path); err != nil || landed {
		return freshet.Completed{}, cmp.Or(err, freshet.Errorf(freshet.KindUnavailable, opRename, q.Path, "an older version of the file is in the storage by now: try again"))
	}
	move := &namespace.MoveUnpersisted{Op: q.Op, Path: q.Path, Path2: q.Target, Start: e.state.Applied()}
	st, err := at.fs.Stat(ctx, at.key2)
	switch {
	case err == nil && st.IsDir():
		return freshet.Completed{}, freshet.Errorf(freshet.KindConflict, opRename, q.Target, "is a directory; a file can't replace it")
	case err == nil:
		move.Beneath = st.Fingerprint
	case !freshet.IsKind(err, freshet.KindNotExist):
		return freshet.Completed{}, err
	}
	to, err := e.state.Lookup(q.Target)
	if err != nil {
		return freshet.Completed{}, err
	}
	if (st.Key != "" || st.Fingerprint.Known() || to.Unpersisted) && !q.Overwrite {
		return freshet.Completed{}, targetExists(q.Target)
	}
	if parent, err := e.state.Lookup(q.Target.Parent()); err != nil || !parent.Unpersisted {
		if err == nil {
			err = checkParent(ctx, at, at.key2, false)
		}
		if err != nil {
			return freshet.Completed{}, err
		}
	}
	r, err := e.propose(ctx, namespace.Command{MoveUnpersisted: move})
	return r.Completed, err
}

func targetExists(p freshet.Path) error {
	return freshet.Errorf(freshet.KindExist, opRename, p, "exists; ask for it to be overwritten, choose another name, or remove it first")
}

// checkKeptBelow refuses to replace a directory with files that the storage does not know
// of: it may know nothing of the directory either.
func (e *Engine) checkKeptBelow(from, to freshet.Path) error {
	l, err := e.state.Lookup(to)
	if err != nil || from == to || !l.Unpersisted || l.Info.Type != freshet.TypeDirectory {
		return err
	}
	return freshet.Errorf(freshet.KindExist, opRename, to, "is a directory with files that are not in the storage yet; a directory is never replaced: choose another name, or remove it first")
}
