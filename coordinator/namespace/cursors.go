package namespace

import (
	"maps"
	"slices"

	"github.com/freshet-io/freshet"
)

// WatchCursors returns where the watches of the storages' own notices go on, in
// the order of their sources. The cursors must not be changed.
func (s *State) WatchCursors() []WatchCursor {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]WatchCursor, 0, len(s.cursors))
	for _, source := range slices.Sorted(maps.Keys(s.cursors)) {
		all = append(all, s.cursors[source])
	}
	return all
}

// WatchCursor returns where the watch of a source goes on; false if that is not
// known. It must not be changed.
func (s *State) WatchCursor(source string) (WatchCursor, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.cursors[source]
	return c, ok
}

// watched reports whether a mount of the domain wants the storage's notices.
func (t *txn) watched(d freshet.DomainID) bool {
	return slices.ContainsFunc(t.mounts, func(m *mount) bool { return m.Domain == d && m.ActiveSync })
}

func (t *txn) saveCursor(c WatchCursor) {
	t.cursors[c.Source] = c
	t.setRow(t.keys.text(tableCursor, c.Source), &c)
}

func (t *txn) dropCursor(source string) {
	delete(t.cursors, source)
	t.del(t.keys.text(tableCursor, source))
}

// dropCursors drops what belongs to a domain whose notices nobody wants any more:
// a mount that wants them later starts anew, for nothing was marked meanwhile.
func (t *txn) dropCursors(d freshet.DomainID) {
	if t.watched(d) {
		return
	}
	for source, c := range t.cursors {
		if c.Domain == d {
			t.dropCursor(source)
		}
	}
}

// uncover says that what a mount holds need not be what its source told.
func (t *txn) uncover(generation uint64) {
	for _, c := range t.cursors {
		if at := slices.Index(c.Covers, generation); at >= 0 {
			c.Covers = slices.Concat(c.Covers[:at], c.Covers[at+1:])
			t.saveCursor(c)
		}
	}
}

func (t *txn) forgetWatch(c *ForgetWatch) Result {
	if _, ok := t.cursors[c.Source]; !ok {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "forget watch", "", "%q has no cursor", c.Source)}
	}
	t.dropCursor(c.Source)
	return Result{}
}

func (x *index) readCursor(_, value []byte) error {
	var c WatchCursor
	if err := decode(value, &c); err != nil {
		return err
	}
	x.cursors[c.Source] = c
	return nil
}
