package store

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// Durable reports whether the node has a tier whose blocks survive its end.
func (s *Store) Durable() bool {
	return slices.ContainsFunc(s.levels, func(l *level) bool { return l.Kind != Memory })
}

// CreateKept starts a block of a version that is on nodes alone: from then on, and
// until Release, no block of the version leaves the node in any way but by damage. It
// goes to a disk, the fastest that has space, or to memory if there is no other tier.
// KindExhausted: there is no space, and nothing that may leave.
func (s *Store) CreateKept(id freshet.BlockID, length int64) (*tier.Writer, error) {
	levels := slices.DeleteFunc(slices.Clone(s.levels), func(l *level) bool { return s.Durable() && l.Kind == Memory })
	w, d, err := s.createIn(levels, id, length)
	if err != nil {
		return nil, err
	}
	if err := d.tier.Load().Hold(id.File); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Settle has a block that the node holds on a disk, and that is what want says, kept as
// if CreateKept had made it. KindNotExist: there is none.
func (s *Store) Settle(id freshet.BlockID, want tier.Want) error {
	for left := s.lookup(id).dirs; left != 0; left &= left - 1 {
		d := s.dirs[bits.TrailingZeros64(left)]
		t := d.tier.Load()
		if t == nil || d.level.Kind == Memory {
			continue
		}
		r, err := t.Open(id, want)
		if err != nil {
			continue // the bytes can be had elsewhere
		}
		_ = r.Close() //nolint:errcheck // nothing was read
		if err := t.Hold(id.File); err != nil {
			return err
		}
		if err := t.Settle(id); !freshet.IsKind(err, freshet.KindNotExist) {
			return err
		}
	}
	return freshet.Errorf(freshet.KindNotExist, "hold blocks", "", "no disk of this node holds the block")
}

// Kept returns the versions that are held, in order.
func (s *Store) Kept() []freshet.FileID {
	var all []freshet.FileID
	for _, d := range s.dirs {
		if t := d.tier.Load(); t != nil {
			all = append(all, t.Held()...)
		}
	}
	slices.SortFunc(all, func(a, b freshet.FileID) int { return cmp.Compare(a, b) })
	return slices.Compact(all)
}

// KeptBytes returns the bytes that the blocks of versions that are held take.
func (s *Store) KeptBytes() int64 { return s.sum((*tier.Tier).HeldBytes) }

// Release makes the blocks of versions like all others: they may be evicted and
// removed.
func (s *Store) Release(files ...freshet.FileID) {
	if len(files) > 0 {
		s.eachTier(func(t *tier.Tier) { t.Release(files...) })
	}
}

// Drop releases a version and removes its blocks.
func (s *Store) Drop(file freshet.FileID, blocks ...freshet.BlockID) {
	s.Release(file)
	s.Remove(blocks...)
}
