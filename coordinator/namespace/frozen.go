package namespace

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
)

// Frozen is the state as of one index, whatever is applied after. It must be closed,
// for the store keeps what it shows.
type Frozen struct {
	Applied uint64 // index of the last log entry in it
	view    kv.View
	keys    keys
}

// Hash returns the hash of the whole state, as State.Hash does. It reads everything.
func (f *Frozen) Hash() ([32]byte, error) {
	h, err := hashRows(f.view, f.keys)
	return h, freshet.Wrap("hash state", "", err)
}

// Close gives up what the store keeps for it.
func (f *Frozen) Close() error { return f.view.Close() }

// hashRows returns the hash of the rows of a generation.
func hashRows(r kv.Reader, k keys) ([32]byte, error) {
	sum := newRowHash()
	var buf []byte
	err := rows(r, k, func(key, value []byte) bool {
		buf = appendRow(buf[:0], key, value)
		sum.add(buf)
		return true
	})
	return [32]byte(sum.h.Sum(nil)), err
}

// awaited is a call of At that waits for its index.
type awaited struct {
	index uint64
	take  func(*Frozen, error)
}

// At calls take with the state as of index: when the last entry up to it is applied,
// before the next one is; at once, with what is applied, if that is index or more.
// take must not block nor use the State. The function that At returns withdraws the
// call; it reports false if take was called already. Safe for concurrent use.
func (s *State) At(index uint64, take func(*Frozen, error)) (withdraw func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &awaited{index: index, take: take}
	if s.failed != nil || s.meta.Applied >= index {
		s.freeze(w)
		return func() bool { return false }
	}
	s.awaited = append(s.awaited, w)
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.awaited {
			if s.awaited[i] == w {
				s.awaited = append(s.awaited[:i:i], s.awaited[i+1:]...)
				return true
			}
		}
		return false
	}
}

// freeze calls take with the state as it is.
func (s *State) freeze(w *awaited) {
	if s.failed != nil {
		w.take(nil, s.failed)
		return
	}
	v, err := s.store.View()
	if err != nil {
		w.take(nil, freshet.Errorf(freshet.KindUnavailable, "read state", "", "%w", err))
		return
	}
	w.take(&Frozen{Applied: s.meta.Applied, view: v, keys: s.keys}, nil)
}

// freezeBelow serves the calls that wait for an index below next: no entry up to
// theirs is missing.
func (s *State) freezeBelow(next uint64) {
	if len(s.awaited) == 0 {
		return
	}
	var rest []*awaited
	for _, w := range s.awaited {
		if w.index < next {
			s.freeze(w)
		} else {
			rest = append(rest, w)
		}
	}
	s.awaited = rest
}
