package metasync

import (
	"cmp"
	"context"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

// Entry is the answer about one path.
type Entry struct {
	// Info has no FileID if the answer must not leave anything behind.
	Info    freshet.Info
	Lookup  namespace.Lookup // what the state knew; of no use if Cached is false
	Cached  bool             // the entry is held and fresh
	Verdict Verdict
	Changed bool // a look for this answer changed what the state holds
}

// entryAnswer is what a look at one entry found out.
type entryAnswer struct {
	exists   bool
	status   ufs.Status
	rejected bool
	changed  bool // what the state holds
}

const opStat = "stat"

// specialError is why what is neither a file nor a directory is not served.
type specialError string

func (e specialError) Error() string { return string(e) }

// Entry returns the entry at p, fresh under the rule, and looks at the
// storage if it has to. KindNotExist means that the storage, or a fresh complete
// listing, says so.
func (s *Syncer) Entry(ctx context.Context, p freshet.Path, rule Rule) (Entry, error) {
	var e Entry
	err := s.EntryInto(ctx, p, rule, &e)
	return e, err
}

// EntryInto is Entry for callers that have a place for the answer, in which
// nothing is kept of what was there.
func (s *Syncer) EntryInto(ctx context.Context, p freshet.Path, rule Rule, e *Entry) error {
	return s.entryFor(ctx, p, s.call(), rule, e)
}

// entry is Entry for a call whose interval is known.
func (s *Syncer) entry(ctx context.Context, p freshet.Path, c call) (Entry, error) {
	var e Entry
	err := s.entryFor(ctx, p, c, Fixed(c.interval), &e)
	return e, err
}

func (s *Syncer) entryFor(ctx context.Context, p freshet.Path, c call, rule Rule, e *Entry) error {
	e.Changed = false
	for try := 1; ; try++ {
		s.reads(&c)
		l := &e.Lookup
		e.Cached, e.Verdict = false, Verdict{}
		if err := s.State.LookupInto(p, l); err != nil {
			e.Info = freshet.Info{}
			return err
		}
		c.interval = rule(l)
		if done, err := s.held(p, c, e); done {
			if e.Info.FromCache = try == 1 && err == nil; try == 1 {
				s.prefetch.answered(ctx, p, l)
			}
			return err
		}
		a, err := s.look(ctx, p, l.Need, c)
		if err != nil {
			return freshet.Wrap(opStat, p, err)
		}
		e.Changed = e.Changed || a.changed
		if !a.exists && l.Unpersisted {
			e.Info = l.Info // files below the directory are not in the storage yet, nor is it
			return nil
		}
		if !a.exists {
			return notExist(p)
		}
		if kind, why := a.status.Unusable(); kind != freshet.KindOK {
			return &freshet.Error{Op: opStat, Path: p, Kind: kind, Err: specialError(why)}
		}
		if l.Uncachable || try >= s.opts.Attempts {
			// It was true while this reader waited, and that is all.
			e.Info = infoOf(p, l, &a.status)
			return nil
		}
	}
}

// look makes or shares a look at one entry.
func (s *Syncer) look(ctx context.Context, p freshet.Path, need uint64, c call) (*entryAnswer, error) {
	lk, joined, err := s.entries.do(ctx, p, func(k *look[entryAnswer]) bool { return mayShare(k, s.mem.Load(), need, c) },
		func() *look[entryAnswer] { return begin[entryAnswer](s) },
		func(ctx context.Context, k *look[entryAnswer]) (entryAnswer, error) { return s.lookAt(ctx, p, k) })
	if joined {
		s.metrics.joined.Inc()
	}
	if err != nil {
		return nil, err
	}
	s.prefetch.looked(ctx, p)
	return &lk.answer, nil
}

// held answers from the state if that is allowed, by what e has of it. Without an
// answer there is no Info.
func (s *Syncer) held(p freshet.Path, c call, e *Entry) (bool, error) {
	l := &e.Lookup
	if l.HasMount || l.Virtual {
		if v := s.judgeEntry(p, l, c); v.Fresh {
			e.Info, e.Cached, e.Verdict = l.Info, true, v
			return true, nil
		}
	}
	e.Info = freshet.Info{}
	if !l.HasMount && !l.Virtual {
		return true, freshet.Errorf(freshet.KindNotExist, opStat, p, "no storage is mounted there")
	}
	if v := s.judgeAbsent(l, c); v.Fresh {
		s.metrics.servedAbsent(&v)
		e.Verdict = v
		return true, notExist(p)
	}
	return false, nil
}

func notExist(p freshet.Path) error {
	return freshet.Errorf(freshet.KindNotExist, opStat, p, "does not exist")
}

func infoOf(p freshet.Path, l *namespace.Lookup, st *ufs.Status) freshet.Info {
	info := freshet.Info{
		Path: p, Type: st.Type, Length: st.Length, ModTime: st.ModTime, Owner: st.Owner, Group: st.Group, Mode: st.Mode,
		Fingerprint: st.Fingerprint, Mount: l.Mount.ID,
	}
	if st.Type == freshet.TypeFile {
		info.BlockSize = cmp.Or(l.Policy.BlockSize, freshet.DefaultBlockSize)
	} else {
		info.Length = 0
	}
	return info
}

// begin makes a look that starts now. The index is read before anything else.
func begin[T any](s *Syncer) *look[T] {
	mem := s.mem.Load()
	return &look[T]{index: s.State.Applied(), at: s.opts.Clock.Elapsed(), began: mem.next(), mem: mem}
}

// lookAt asks the storage about p and makes the state agree with the answer.
func (s *Syncer) lookAt(ctx context.Context, p freshet.Path, k *look[entryAnswer]) (entryAnswer, error) {
	defer func() { s.metrics.took("entry", s.opts.Clock.Elapsed()-k.at) }()
	l, err := s.State.Lookup(p)
	if err != nil {
		return entryAnswer{}, err
	}
	st, exists, err := s.Ask(ctx, &l)
	if err != nil {
		s.metrics.failed.Inc()
		s.count(resultFailed)
		return entryAnswer{}, err
	}
	if exists {
		k.mem.absent.exists(p)
	}
	a := entryAnswer{exists: exists, status: st}
	load, result, err := s.compare(p, &l, k, &a)
	if err != nil || load == nil {
		switch {
		case err != nil:
		case exists:
			k.mem.validated(p, k.record())
			s.count(resultUnchanged)
		default:
			k.mem.foundNothing(p, &l.Mount, k.record())
		}
		return a, err
	}
	if k.mem.entry(p).index > k.index { // a later look, at the listing, found another answer
		a.rejected = true
		return a, nil
	}
	results, err := s.Propose(ctx, namespace.Command{LoadEntry: load})
	if err != nil {
		return a, err
	}
	if !results[0].Installed {
		a.rejected = true
		s.metrics.rejected.Inc()
		return a, nil
	}
	s.count(result)
	a.changed = true
	if exists {
		k.mem.validated(p, k.record())
	} else {
		k.mem.doubt(p)
		k.mem.foundNothing(p, &l.Mount, k.record())
	}
	return a, nil
}

func (s *Syncer) count(result string) { s.metrics.entries[result].Inc() }

// Ask asks the storage about the path of a lookup and changes nothing. An entry
// that is neither a file nor a directory exists, and says so in Special.
func (s *Syncer) Ask(ctx context.Context, l *namespace.Lookup) (st ufs.Status, exists bool, err error) {
	fs, release, err := s.Storage(l.Mount)
	if err != nil {
		return ufs.Status{}, false, err
	}
	defer release()
	if l.Key != "" && ufs.IsTemp(l.Key) {
		return ufs.Status{}, false, nil
	}
	slot, err := s.slots.Take(ctx, l.Mount.ID)
	if err != nil {
		return ufs.Status{}, false, ended(ctx, l.Info.Path)
	}
	defer slot.Release()
	bounded, cancel := context.WithTimeout(ctx, s.opts.StatTimeout)
	defer cancel()
	st, err = fs.Stat(bounded, l.Key)
	switch {
	case err == nil:
		return st, true, nil
	case freshet.IsKind(err, freshet.KindNotExist):
		return ufs.Status{}, false, nil
	case bounded.Err() != nil && ctx.Err() == nil:
		return ufs.Status{}, false, freshet.Errorf(freshet.KindUnavailable, "ask storage", l.Info.Path, "the storage did not answer within %v: %w", s.opts.StatTimeout, err)
	}
	return ufs.Status{}, false, err
}

// compare returns the load that makes the state agree with the answer, nil if
// it does already.
func (s *Syncer) compare(p freshet.Path, asked *namespace.Lookup, k *look[entryAnswer], a *entryAnswer) (*namespace.LoadEntry, string, error) {
	now, err := s.State.Lookup(p)
	if err != nil {
		return nil, "", err
	}
	if now.Mount.ID != asked.Mount.ID || now.Mount.Generation != asked.Mount.Generation {
		return nil, "", freshet.Errorf(freshet.KindUnavailable, "sync", p, "the mount was changed meanwhile; try again")
	}
	if now.Unpersisted && (now.Info.Type == freshet.TypeFile || !a.exists) {
		return nil, "", nil // (C8)
	}
	load := &namespace.LoadEntry{Mount: asked.Mount.ID, Generation: asked.Mount.Generation, Path: p, Start: k.index}
	switch {
	case !a.exists || a.status.Special != "":
		load.Special = a.exists
		switch {
		case now.Found:
			return load, resultRemoved, nil
		case load.Special && now.KnownAbsent:
			return load, resultUnchanged, nil
		}
		return nil, "", nil
	case now.Found && !now.Placeholder && same(&now.Info, &a.status):
		return nil, "", nil
	}
	load.Entry = entryOf(p.Base(), &a.status)
	if now.Found && !now.Placeholder {
		return load, resultChanged, nil
	}
	return load, resultAdded, nil
}

func entryOf(name string, st *ufs.Status) *namespace.Entry {
	e := &namespace.Entry{
		Name: name, Type: st.Type, Length: st.Length, ModTime: st.ModTime, Owner: st.Owner, Group: st.Group, Mode: st.Mode,
		Fingerprint: st.Fingerprint,
	}
	if st.IsDir() {
		e.Length = 0
	}
	return e
}

// same reports whether what is held says what the storage said. The modification
// time of a directory changes with every child and is not compared, and a file
// without an ID needs a load to get one.
func same(held *freshet.Info, st *ufs.Status) bool {
	if held.Type != st.Type {
		return false
	}
	if st.IsDir() {
		return held.Owner == st.Owner && held.Group == st.Group && held.Mode == st.Mode
	}
	return held.FileID != 0 && held.Length == st.Length && held.Fingerprint.Equal(st.Fingerprint)
}
