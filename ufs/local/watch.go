package local

import (
	"context"
	"errors"
	"iter"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// The option by which a mount hears of changes.
const (
	optionEvents  = "events"
	eventsInotify = "inotify"
)

func eventOptions() ufs.OptionTable {
	return ufs.OptionTable{{
		Name: optionEvents, Type: ufs.OptionChoice, Choices: []string{eventsInotify},
		Help: "inotify: hear of changes that other programs on the same machine make; needs one watch for each directory (sysctl fs.inotify.max_user_watches)",
	}}
}

const (
	watchBuffer = 4096 // events, on top of the system's own queue
	watchBatch  = 4096 // events in one notice
	// watchGather is how long more events are waited for after one: a file that is
	// being written makes many.
	watchGather  = 5 * time.Millisecond
	watchSilence = 5 * time.Second // then an empty notice
)

var _ ufs.Watcher = (*FS)(nil)

// WatchSource returns the inotify of the machine for the root. It is not complete:
// it sees neither what other machines do to a network file system, nor writes
// through a memory map or under another name of the same file.
func (f *FS) WatchSource() (ufs.WatchSource, error) {
	if f.events != eventsInotify {
		return ufs.WatchSource{}, freshet.Errorf(freshet.KindInvalid, "watch", "", "the mount does not hear of changes: set the option %s=%s if they are made on the machine of the coordinators", optionEvents, eventsInotify)
	}
	c := f.Resolve(f.named)
	return ufs.WatchSource{ID: eventsInotify + ":" + f.path + " " + c.Authority + " " + c.DomainKey}, nil
}

// cursor only says that there was a watch before: what happened since is not known.
const cursor = "watched"

// Watch follows the whole tree below the root; links are not followed.
func (f *FS) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		gap := ""
		if len(since) > 0 {
			gap = "the directory was not watched for a while"
		}
		for {
			overflow, err := f.follow(ctx, gap, yield)
			if err != nil {
				yield(ufs.Notice{}, err)
			}
			if !overflow {
				return
			}
			gap = "more changes at once than the system keeps (sysctl fs.inotify.max_queued_events)"
		}
	}
}

// follow watches until an error, the consumer's end, or an overflow of the
// system's queue, after which everything is set up again: directories may be
// among what was missed.
func (f *FS) follow(ctx context.Context, gap string, yield func(ufs.Notice, error) bool) (overflow bool, err error) {
	w, err := fsnotify.NewBufferedWatcher(watchBuffer)
	if err != nil {
		return false, watchError("", err)
	}
	failed, drained := drain(w)
	defer func() { _ = w.Close(); <-drained }()
	t := newTree(f, w, failed)
	if err := t.add(ctx, ""); err != nil {
		return false, err
	}
	n := ufs.Notice{Gap: gap}
	silence := time.NewTimer(watchSilence)
	defer silence.Stop()
	for {
		n.Cursor = []byte(cursor)
		if !yield(n, nil) {
			return false, nil
		}
		silence.Reset(watchSilence)
		switch n, err = t.next(ctx, silence.C); {
		case errors.Is(err, fsnotify.ErrEventOverflow):
			return true, nil
		case err != nil:
			return false, err
		}
	}
}

// drain takes the errors of w, which would stand still until somebody does, and
// keeps the first that counts. That a watch was gone when it was to be removed
// does not.
func drain(w *fsnotify.Watcher) (failed <-chan error, drained <-chan struct{}) {
	first, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		for err := range w.Errors {
			switch {
			case errors.Is(err, syscall.EINVAL), errors.Is(err, fsnotify.ErrNonExistentWatch):
				continue
			case !errors.Is(err, fsnotify.ErrEventOverflow):
				err = watchError("", err)
			}
			select {
			case first <- err:
			default:
			}
		}
	}()
	return first, done
}

// next waits for events and returns what they say, or an empty notice when
// silence fires.
func (t *tree) next(ctx context.Context, silence <-chan time.Time) (ufs.Notice, error) {
	var gathered <-chan time.Time
	changed := newChanges()
	for changed.events < watchBatch {
		select {
		case <-ctx.Done():
			return ufs.Notice{}, ufs.ContextError(ctx, "watch", "")
		case err := <-t.failed:
			return ufs.Notice{}, err
		case <-silence:
			return t.notice(changed)
		case <-gathered:
			return t.notice(changed)
		case ev, ok := <-t.w.Events:
			if !ok {
				return ufs.Notice{}, ufs.Errorf(freshet.KindUnavailable, "watch", "", "the system ended the watch")
			}
			if err := t.event(ctx, ev, changed); err != nil {
				return ufs.Notice{}, err
			}
			if gathered == nil {
				timer := time.NewTimer(watchGather)
				defer timer.Stop()
				gathered = timer.C
			}
		}
	}
	return t.notice(changed)
}

// changes are the keys that a batch of events named, in order.
type changes struct {
	events int
	order  []string
	seen   map[string]fsnotify.Op
}

func newChanges() *changes { return &changes{seen: map[string]fsnotify.Op{}} }

func (c *changes) add(key string, op fsnotify.Op) {
	was, known := c.seen[key]
	if !known {
		c.order = append(c.order, key)
	}
	c.seen[key] = was | op
}

// notice looks at what the batch named, as it is now: who holds that version
// already need not look again. A later change is a later event.
func (t *tree) notice(c *changes) (ufs.Notice, error) {
	var n ufs.Notice
	if t.fs.gone() { // which no event says of a directory that is open
		return n, t.fs.removed("watch")
	}
	for _, key := range c.order {
		r := invalidation.Record{Kind: invalidation.KindContent, Key: t.domainKey(key)}
		st, err := t.fs.stat("watch", key)
		switch {
		case freshet.IsKind(err, freshet.KindNotExist):
			r.Kind, r.Recursive = invalidation.KindDelete, true
		case c.seen[key]&(fsnotify.Remove|fsnotify.Rename) != 0, // it may have been a directory
			c.seen[key]&fsnotify.Create != 0 && (err != nil || st.IsDir() || st.Special != ""):
			r.Kind, r.Recursive = invalidation.KindSubtree, true
		case err != nil:
		case st.IsDir():
			r.Kind = invalidation.KindMeta
		default:
			r.Fingerprint = st.Fingerprint
		}
		n.Changes = append(n.Changes, r)
	}
	return n, nil
}

func (t *tree) domainKey(key string) string {
	switch {
	case key == "":
		return t.base
	case t.base == "/":
		return "/" + key
	}
	return t.base + "/" + key
}
