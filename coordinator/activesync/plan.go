package activesync

import (
	"cmp"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
)

// user is a mount that listens, with the place of its root by the storage's own
// names, if its driver keeps one.
type user struct {
	freshet.Mount

	place  ufs.Place
	placed bool
	// hidden: the storage can't be opened now, and the mount's options give it
	// another name than its own, so that it may be any.
	hidden bool
}

// newUser asks an open storage where the root of a mount lies.
func newUser(m freshet.Mount, fs ufs.FS) user {
	u := user{Mount: m}
	u.place, u.placed = ufs.PlaceOf(fs)
	return u
}

// closedUser is a mount whose storage can't be opened now.
func closedUser(m freshet.Mount) user {
	return user{Mount: m, hidden: m.Options[ufs.OptionDomain] != "" || m.Options[ufs.OptionDomainRoot] != ""}
}

// in returns what a record about the storage of says in the user's domain.
func (u *user) in(of string, r invalidation.Record) (invalidation.Record, bool) {
	if u.placed {
		return u.place.Translate(u.DomainKey, of, r)
	}
	return r, u.isOf(of)
}

func (u *user) isOf(authority string) bool {
	if u.placed {
		return u.place.Authority == authority
	}
	return ufs.Canonical{Authority: authority}.Domain() == u.Domain
}

// plan is which sources the mounts need.
type plan struct {
	sources map[string]*source
	users   map[string][]user
	hooks   []user
	broken  map[freshet.MountID]deaf
	whole   bool // every mount said what it needs
}

// plan asks the mounts with active sync for their sources. Of each source the
// storage of the oldest mount is kept open, to be watched.
func (e *Engine) plan(mounts []freshet.Mount) plan {
	p := plan{sources: map[string]*source{}, users: map[string][]user{}, broken: map[freshet.MountID]deaf{}, whole: true}
	mounts = slices.Clone(mounts)
	slices.SortFunc(mounts, func(a, b freshet.Mount) int { return cmp.Compare(a.ID, b.ID) })
	for _, m := range mounts {
		if m.ActiveSync {
			e.planMount(&p, m)
		}
	}
	return p
}

func (e *Engine) planMount(p *plan, m freshet.Mount) {
	fs, release, err := e.deps.Storage(m)
	if err != nil {
		p.broken[m.ID], p.whole = deaf{"its storage", "the storage can't be opened: " + err.Error()}, false
		return
	}
	w, about, err := SourceOf(fs)
	if err != nil {
		release()
		p.broken[m.ID], p.whole = deaf{"its storage", err.Error()}, false
		return
	}
	u := newUser(m, fs)
	if _, ok := events.IsWebhook(about.ID); ok {
		release()
		p.hooks = append(p.hooks, u)
		return
	}
	if p.sources[about.ID] == nil {
		p.sources[about.ID] = newSource(e, m, fs.Features().Kind, watcher{w, about, release})
	} else {
		release()
	}
	p.users[about.ID] = append(p.users[about.ID], u)
}

// SourceOf returns the watcher of a storage and what it watches: KindUnsupported
// with what can be done if it has none, KindInvalid if an option is missing.
func SourceOf(fs ufs.FS) (ufs.Watcher, ufs.WatchSource, error) {
	const op = "listen to storage"
	w := ufs.WatcherOf(fs)
	if w == nil {
		return nil, ufs.WatchSource{}, freshet.Errorf(freshet.KindUnsupported, op, "",
			"storage of kind %q does not tell of changes: active sync is for hdfs:// (as superuser), file:// with events=inotify (changes made on the leader's machine), s3:// with events=sqs:URL, and s3://, gs:// and abfs:// with events=webhook",
			fs.Features().Kind)
	}
	about, err := w.WatchSource()
	if err != nil {
		return nil, about, &freshet.Error{Op: op, Kind: freshet.KindOf(err), Err: err}
	}
	return w, about, nil
}

// deaf is the ear of a mount whose source is not known.
type deaf struct{ source, why string }

func (d deaf) of() uint64 { return 0 }

func (d deaf) heard() (complete, ok bool) { return false, false }

func (d deaf) status() freshet.ActiveSyncStatus {
	return freshet.ActiveSyncStatus{Source: d.source, Reason: "not heard by this leader: " + d.why, SinceNotice: -1, Lag: -1}
}

// watcher is what is watched, kept open until release.
type watcher struct {
	ufs.Watcher

	about   ufs.WatchSource
	release func()
}
