package ufs

import (
	"context"
	"iter"
	"time"

	"github.com/freshet-io/freshet/invalidation"
)

// WatchSilence is how long a Watcher may say nothing before it counts as deaf: each
// yields a Notice, if need be an empty one, at least three times as often.
const WatchSilence = 30 * time.Second

// WatchSource says where notices come from.
type WatchSource struct {
	// ID names the source. FSs of the same ID hear the same notices, so one watch
	// serves all their mounts: one poller per NameNode, one receiver per queue.
	ID string
	// Complete says that the source tells of every change, in order, and says so
	// when it can't: silence then proves that nothing changed, so that the sync
	// interval of a mount need not apply while the source is heard. Without it
	// notices only make changes visible sooner.
	Complete bool
}

// Notice is what a Watcher heard. It is a hint, like a record of the bus whose
// publisher may know less than we do: it marks, and never says what is true.
type Notice struct {
	// Changes have keys of the domain (Canonical.DomainKey of the mount's root and
	// below, but also of other roots of the domain) and no sequence number.
	Changes []invalidation.Record
	// Of, if not empty, is the Authority of the Place that Changes are about: the
	// source tells of more storages than the FS (a queue that several buckets
	// share), or by names that the options domain and domain_root replace. Keys
	// are keys of Places then: the consumer gives every mount of the source what
	// Place.Translate makes of them. A Gap concerns all mounts of the source.
	Of string
	// Gap, if not empty, says why changes before these may have been missed.
	Gap string
	// Cursor is where to go on once this notice was applied; nil if the source
	// keeps its own position (a queue) or has none.
	Cursor []byte
}

// Watcher is an FS whose storage tells of changes that others make.
type Watcher interface {
	// WatchSource is constant for the life of the FS. It is KindInvalid, with
	// what to set, if the mount's options name no source.
	WatchSource() (WatchSource, error)
	// Watch yields notices after the cursor since, nil for from now on. The first
	// notice comes as soon as the watch is established: what happens after it
	// will be told. That the consumer asks for the next notice says that it has
	// applied this one for good; a source may forget it then. After an error
	// the sequence ends; the consumer watches again from the last cursor.
	// A source that forgot the cursor yields a Gap.
	Watch(ctx context.Context, since []byte) iter.Seq2[Notice, error]
}

// Place is where the root of a mount lies by the storage's own names, whatever the
// options domain and domain_root say: what a storage tells of a change says
// nothing of those.
type Place struct {
	Authority string // Canonical.Authority without the option domain
	Key       string // Canonical.DomainKey without the option domain_root
}

// SourceChecker is a Watcher that can ask its storage whether it tells the source
// of changes at all. A source that several mounts share is watched through one of
// them; the others should be checked at the start and every minute.
type SourceChecker interface {
	// CheckSource is nil if the storage tells the source, or doesn't let us know.
	// The error says what to set up.
	CheckSource(ctx context.Context) error
}

// PlaceOf returns the Place of fs, looking through wrappers; false if its driver
// keeps none: then Canonical says it all.
func PlaceOf(fs FS) (Place, bool) {
	for fs != nil {
		if p, ok := fs.(interface{ Place() Place }); ok {
			return p.Place(), true
		}
		u, ok := fs.(interface{ Unwrap() FS })
		if !ok {
			break
		}
		fs = u.Unwrap()
	}
	return Place{}, false
}

// Translate returns r, which names the storage of by its own keys, in keys of
// the domain in which the mount at p has the root domainKey. It is false if r is
// about another storage, or, where the two keys of the root differ, about
// nothing in the mount.
func (p Place) Translate(domainKey, of string, r invalidation.Record) (invalidation.Record, bool) {
	switch {
	case of != p.Authority:
		return invalidation.Record{}, false
	case r.Kind == invalidation.KindAll:
		return invalidation.Record{Kind: invalidation.KindSubtree, Key: domainKey, Recursive: true, PublishedAt: r.PublishedAt}, true
	case p.Key == domainKey:
		return r, true
	}
	all := r.Recursive || r.Kind == invalidation.KindDelete || r.Kind == invalidation.KindRename || r.Kind == invalidation.KindSubtree
	rel, in := invalidation.Matches(p.Key, r.Key, all)
	rel2, in2 := "", false
	if r.Key2 != "" {
		rel2, in2 = invalidation.Matches(p.Key, r.Key2, all)
	}
	switch {
	case in && (in2 || r.Key2 == ""):
		r.Key = under(domainKey, rel)
		if in2 {
			r.Key2 = under(domainKey, rel2)
		}
		return r, true
	case !in && !in2:
		return invalidation.Record{}, false
	case in2:
		rel = rel2
	}
	return invalidation.Record{Kind: invalidation.KindSubtree, Key: under(domainKey, rel), Recursive: true, PublishedAt: r.PublishedAt}, true
}

func under(root, rel string) string {
	switch {
	case rel == "":
		return root
	case root == "/":
		return root + rel
	}
	return root + "/" + rel
}

// WatcherOf returns the Watcher below fs and its wrappers, nil if it has none.
func WatcherOf(fs FS) Watcher {
	for fs != nil {
		if w, ok := fs.(Watcher); ok {
			return w
		}
		u, ok := fs.(interface{ Unwrap() FS })
		if !ok {
			return nil
		}
		fs = u.Unwrap()
	}
	return nil
}
