package activesync

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

// watching is one watch from its first notice on.
type watching struct {
	*source

	since    []byte // the cursor that it began with
	notices  int    // that were applied
	caught   bool   // all that happened before the watch is marked
	began    time.Duration
	cursorAt time.Duration // when the cursor was kept last
}

// newWatching begins where the replicated state says: what its cursor covers was
// marked by whoever led then.
func newWatching(s *source) *watching {
	now := s.e.clock.Elapsed()
	w := &watching{source: s, began: now, cursorAt: now}
	covers := []uint64{}
	if at, ok := s.e.deps.State.WatchCursor(s.w.about.ID); ok && !s.anew {
		w.since, covers = slices.Clone(at.Cursor), at.Covers
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cover(covers)
	return w
}

// take applies one notice. When it returns nil the source may forget it.
func (w *watching) take(ctx context.Context, n ufs.Notice) error {
	users, misses := w.served(), w.misses()
	m := marks{}
	result := w.collect(&m, users, n)
	covers := make([]uint64, 0, len(users))
	for i := range users {
		u := &users[i]
		if w.wrong(u.Generation) != "" {
			continue // it may miss changes even now
		}
		covers = append(covers, u.Generation)
		if misses[u.Generation] > 0 || !slices.Contains(*w.covers.Load(), u.Generation) {
			m.all(u)
		}
	}
	if err := w.commit(ctx, m, n.Cursor, covers); err != nil {
		w.e.metrics.notices.WithLabelValues(w.kind, "failed").Inc()
		return err
	}
	w.notices++
	w.anew = false
	w.covered(covers, misses)
	w.e.metrics.notices.WithLabelValues(w.kind, result).Inc()
	w.measure(n)
	// A notice without changes says that there are no more. The first one need not:
	// it says that the watch is established.
	w.caught = w.caught || result == resultGap || (w.notices > 1 && len(n.Changes) == 0)
	w.hear(w.caught)
	return nil
}

// What was done about a notice.
const (
	resultMarked  = "marked"
	resultIgnored = "ignored"
	resultIdle    = "idle"
	resultGap     = "gap"
)

// collect finds what a notice marks and returns what that is for the metrics.
func (w *watching) collect(m *marks, users []user, n ufs.Notice) string {
	missed := ""
	switch {
	case n.Gap != "":
		missed = n.Gap
		w.e.metrics.gaps.WithLabelValues(w.kind).Inc()
	case w.notices == 0 && len(w.since) == 0:
		missed = "this is the first watch, or the source keeps no cursor"
	case !w.caught && w.e.clock.Elapsed()-w.began > w.e.opts.Silence:
		missed = "what happened meanwhile takes too long to be told"
	}
	if missed != "" {
		w.lose(errors.New("changes may have been missed (" + missed + "): everything is being marked"))
		w.e.log.Info("a storage's notices may have missed changes: its mounts are marked", "source", w.w.about.ID, "reason", missed)
		for i := range users {
			m.all(&users[i])
		}
		return resultGap
	}
	for i := range users {
		u := &users[i]
		switch {
		case n.Of != "":
			m.changes(u, n.Of, n.Changes)
		case u.Domain == w.mount.Domain:
			m.changes(u, "", n.Changes)
		case len(n.Changes) > 0:
			m.all(u) // in whose keys they are is not known
		}
	}
	switch {
	case len(n.Changes) == 0:
		return resultIdle
	case len(*m) == 0:
		return resultIgnored
	}
	return resultMarked
}

// commit replicates marks and the cursor that goes with them.
func (w *watching) commit(ctx context.Context, m marks, cursor []byte, covers []uint64) error {
	now, id := w.e.clock.Elapsed(), w.w.about.ID
	held, _ := w.e.deps.State.WatchCursor(id)
	same := slices.Equal(held.Covers, covers)
	recent := w.notices > 0 && now-w.cursorAt < w.e.opts.CursorEvery
	if len(m) == 0 && (len(cursor) == 0 || (same && (recent || string(held.Cursor) == string(cursor)))) {
		return nil
	}
	err := m.commit(ctx, w.e, func() *namespace.Hint {
		return &namespace.Hint{Domain: w.mount.Domain, Source: id, Cursor: cursor, Covers: covers}
	})
	if err == nil {
		w.cursorAt = now
	}
	return err
}

// measure notes how long after the change its mark came.
func (w *watching) measure(n ufs.Notice) {
	oldest := oldestOf(n.Changes)
	if oldest.IsZero() {
		return
	}
	lag := max(w.e.clock.Now().Sub(oldest), 0)
	w.e.metrics.lag.WithLabelValues(w.kind).Observe(lag.Seconds())
	w.mu.Lock()
	w.lag = lag
	w.mu.Unlock()
}

// oldestOf returns when the oldest of the changes was made, zero if none says so.
func oldestOf(changes []invalidation.Record) time.Time {
	var oldest time.Time
	for i := range changes {
		if at := changes[i].PublishedAt; !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	return oldest
}

// marks are records by domain.
type marks map[freshet.DomainID][]invalidation.Record

// add adds a record once.
func (m marks) add(d freshet.DomainID, r invalidation.Record) {
	if last := m[d]; len(last) == 0 || !slices.ContainsFunc(last[max(0, len(last)-nearby):], func(o invalidation.Record) bool { return same(o, r) }) {
		m[d] = append(last, r)
	}
}

// nearby is how far back a record is looked for before it is added again: the same
// change is often told twice, and soon.
const nearby = 16

func same(a, b invalidation.Record) bool {
	return a.Kind == b.Kind && a.Key == b.Key && a.Key2 == b.Key2 && a.Recursive == b.Recursive && a.Fingerprint == b.Fingerprint
}

// all adds everything that the user holds.
func (m marks) all(u *user) {
	m.add(u.Domain, invalidation.Record{Kind: invalidation.KindSubtree, Key: u.DomainKey, Recursive: true})
}

// changes adds those that concern the user and returns how many they are. Of is
// the storage in whose keys they are; "" if they are in those of the domain.
func (m marks) changes(u *user, of string, changes []invalidation.Record) int {
	n := 0
	for _, r := range changes {
		r, ok := canonical(r), true
		if of != "" {
			r, ok = u.in(of, r)
		}
		if ok && concerns(u.Mount, r) {
			n++
			m.add(u.Domain, r)
		}
	}
	return n
}

// maxEntry bounds the bytes of the names in one log entry, which takes 4 MiB in all.
const maxEntry = 1 << 20

// commit replicates the marks in entries of a bounded size; last, if not nil, makes
// what goes into the last of them, as one with its marks. What fails in between
// leaves marks that do no harm when they are made again.
func (m marks) commit(ctx context.Context, e *Engine, last func() *namespace.Hint) error {
	var cmds []namespace.Command
	records, bytes := 0, 0
	for _, d := range slices.SortedFunc(maps.Keys(m), func(a, b freshet.DomainID) int { return slices.Compare(a[:], b[:]) }) {
		for rest := m[d]; len(rest) > 0; {
			n := 0
			for n < len(rest) && records < e.opts.Batch && bytes < maxEntry {
				bytes += len(rest[n].Key) + len(rest[n].Key2)
				n++
				records++
			}
			cmds = append(cmds, namespace.Command{Hint: &namespace.Hint{Domain: d, Records: rest[:n]}})
			rest = rest[n:]
			if records < e.opts.Batch && bytes < maxEntry {
				continue
			}
			if _, err := e.deps.Propose(ctx, cmds...); err != nil {
				return err
			}
			cmds, records, bytes = nil, 0, 0
		}
	}
	if last != nil {
		cmds = append(cmds, namespace.Command{Hint: last()})
	}
	_, err := e.deps.Propose(ctx, cmds...)
	return err
}
