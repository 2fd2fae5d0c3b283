package coordinator_test

import (
	"context"
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// feed is a storage's log of its changes, as its watchers read it.
type feed struct {
	source ufs.WatchSource
	// queue: it keeps its own position, and gives no cursors.
	queue bool
	// wild, if not nil, repeats and reorders what is told, and breaks off.
	wild *rand.Rand

	mu       sync.Mutex
	log      []invalidation.Record
	first    uint64 // the log begins after it
	taken    uint64 // of a queue
	news     chan struct{}
	down     error // of every watch
	mute     bool  // says nothing
	fitness  error // of CheckSource
	watches  int
	watching int
	cursors  []uint64 // that watches began with
	cleaned  []time.Duration
	cleaning error
}

func newFeed(id string, complete bool) *feed {
	return &feed{source: ufs.WatchSource{ID: id, Complete: complete}}
}

// set changes the feed and wakes its watchers.
func (f *feed) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	if f.news != nil {
		close(f.news)
		f.news = nil
	}
}

// tell appends a change.
func (f *feed) tell(kind invalidation.Kind, key string) {
	f.set(func() { f.log = append(f.log, invalidation.Record{Kind: kind, Key: key, PublishedAt: time.Now()}) })
}

// end returns the position after the last change.
func (f *feed) end() uint64 { return f.first + uint64(len(f.log)) }

// purge forgets what was told so far.
func (f *feed) purge() { f.set(func() { f.first, f.log = f.end(), nil }) }

func (f *feed) counts() (watches, watching int, cursors []uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watches, f.watching, slices.Clone(f.cursors)
}

// begin returns where a watch starts, and why changes are missing.
func (f *feed) begin(since []byte) (at uint64, gap string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches++
	f.watching++
	switch {
	case f.queue:
		return f.taken, ""
	case since == nil:
		return f.end(), ""
	}
	at = binary.BigEndian.Uint64(since)
	f.cursors = append(f.cursors, at)
	if at < f.first {
		return f.first, "the log was purged"
	}
	return at, ""
}

// next returns what follows at, and a channel for what comes after; nothing while
// the feed is mute.
func (f *feed) next(at uint64) (records []invalidation.Record, end uint64, news <-chan struct{}, down error, mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at = max(at, f.first)
	if f.news == nil { // made in the bubble
		f.news = make(chan struct{})
	}
	records = slices.Clone(f.log[at-f.first:])
	if f.wild != nil && len(records) > 0 {
		records = records[:1+f.wild.IntN(len(records))]
		end = at + uint64(len(records))
		records = append(records, records[f.wild.IntN(len(records))])
		if !f.source.Complete {
			f.wild.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		}
		if f.wild.IntN(4) == 0 {
			return nil, 0, f.news, errDown, false
		}
		return records, end, f.news, f.down, f.mute
	}
	return records, at + uint64(len(records)), f.news, f.down, f.mute
}

func (f *feed) watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		at, gap := f.begin(since)
		defer f.set(func() { f.watching-- })
		cursor := func(at uint64) []byte {
			if f.queue {
				return nil
			}
			return binary.BigEndian.AppendUint64(nil, at)
		}
		for first := true; ; first = false {
			records, end, news, down, mute := f.next(at)
			if down != nil {
				yield(ufs.Notice{}, down)
				return
			}
			if first {
				records, end = nil, at // only says that the watch is established
			}
			if !mute && !yield(ufs.Notice{Changes: records, Gap: gap, Cursor: cursor(end)}, nil) {
				return
			}
			if !mute {
				at, gap = end, ""
				f.mu.Lock()
				f.taken = max(f.taken, at)
				f.mu.Unlock()
			}
			if first || (!mute && len(records) > 0) {
				continue
			}
			tick := time.NewTimer(5 * time.Second)
			select {
			case <-news:
			case <-tick.C:
			case <-ctx.Done():
			}
			tick.Stop()
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// telling opens storages that tell of changes.
type telling struct {
	ufs.Opener

	feed *feed
}

func (t telling) Open(spec ufs.Spec, env ufs.Environment) (ufs.FS, error) {
	fs, err := t.Opener.Open(spec, env)
	if err != nil {
		return nil, err
	}
	return &tellingFS{fs, t.feed}, nil
}

type tellingFS struct {
	ufs.FS

	feed *feed
}

func (t *tellingFS) Unwrap() ufs.FS { return t.FS }

func (t *tellingFS) WatchSource() (ufs.WatchSource, error) {
	if t.feed.source.ID == "" {
		return ufs.WatchSource{}, freshet.Errorf(freshet.KindInvalid, "watch", "", "set the option events=sqs:URL")
	}
	return t.feed.source, nil
}

func (t *tellingFS) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return t.feed.watch(ctx, since)
}

func (t *tellingFS) CheckSource(context.Context) error {
	t.feed.mu.Lock()
	defer t.feed.mu.Unlock()
	return t.feed.fitness
}

// CleanUploads implements ufs.Cleaner.
func (t *tellingFS) CleanUploads(_ context.Context, idle time.Duration) (int, error) {
	t.feed.mu.Lock()
	defer t.feed.mu.Unlock()
	t.feed.cleaned = append(t.feed.cleaned, idle)
	return 2, t.feed.cleaning
}

// active makes a mount listen.
func active(m freshet.MountChange) freshet.MountChange {
	yes := true
	m.ActiveSync = &yes
	return m
}

// status returns the mount at /data.
func (w *world) mountAt(m *member, p freshet.Path) freshet.MountAnswer {
	w.Helper()
	mounts, _, err := m.Mounts(w.Context(), p)
	if err != nil {
		w.Fatal(err)
	}
	return mounts[0]
}

// heard waits until a mount is, or is not, heard.
func (w *world) heard(m *member, p freshet.Path, want bool) freshet.MountAnswer {
	w.Helper()
	var a freshet.MountAnswer
	w.await("the mount is heard or not", func() bool {
		a = w.mountAt(m, p)
		return a.ActiveSync != nil && a.ActiveSync.Heard == want
	})
	return a
}
