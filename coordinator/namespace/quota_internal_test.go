package namespace

import (
	"testing"
)

// Recount sums up all entries by what the tags of their directories say: what each
// quota must have as used at any moment.
func (s *State) Recount() (map[uint64]Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := newTxn(s, s.meta.Applied)
	defer t.b.Close()
	sums := map[uint64]Usage{}
	for id := range s.quotas.byID {
		sums[id] = Usage{}
	}
	start, end := s.keys.bounds(tableInode)
	err := s.store.Scan(start, end, func(key, value []byte) bool {
		n, err := decodeInode(value, s.attrs)
		if err != nil {
			t.fail(err)
			return false
		}
		p := place{parent: u64Of(key[2:10]), name: string(key[10:])}
		for _, id := range t.tagOf(p.parent).at(p.name) {
			if _, ok := sums[id]; ok {
				sums[id] = sums[id].plus(weigh(n), 1)
			}
		}
		return true
	})
	if err == nil {
		err = t.err
	}
	return sums, err
}

// Tags returns how many directories are tagged, and how many of those are not held.
func (s *State) Tags() (tags, lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, end := s.keys.bounds(tableTag)
	_ = s.store.Scan(start, end, func(key, _ []byte) bool { // a store in memory
		tags++
		if _, ok, _ := s.store.Get(s.keys.u64(tableDir, u64Of(key))); !ok {
			lost++
		}
		return true
	})
	return tags, lost
}

func FuzzTag(f *testing.F) {
	f.Add((&tag{ids: []uint64{1, 300}}).encode())
	f.Add((&tag{ids: []uint64{1}, moving: true, next: []uint64{1, 2}, cursor: "name", again: true}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeTag(b)
		if err != nil {
			return
		}
		again, err := decodeTag(g.encode())
		if err != nil || string(again.encode()) != string(g.encode()) {
			t.Fatalf("%x is read as %+v, and back as %+v, %v", b, g, again, err)
		}
	})
}
