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
