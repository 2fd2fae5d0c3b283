package store

import (
	"context"
	"math/bits"

	"github.com/freshet-io/freshet"
)

// Shed does what Run does when a watermark is crossed.
func (s *Store) Shed(ctx context.Context) { s.shed(ctx) }

// Promote does what Run does with blocks that were read often, and returns how many
// there were.
func (s *Store) Promote() (n int) {
	for {
		select {
		case p := <-s.promote:
			s.moveUp(p)
			n++
		default:
			return n
		}
	}
}

// Check does what Run does with directories: with again also with those that are
// out of service.
func (s *Store) Check(again bool) {
	for _, d := range s.dirs {
		if d.level.Kind != Memory {
			s.check(d, again)
		}
	}
}

// Where returns the directory of the fastest tier that has the block.
func (s *Store) Where(id freshet.BlockID) string {
	return s.dirs[bits.TrailingZeros64(s.lookup(id).dirs)].spec.Path
}
