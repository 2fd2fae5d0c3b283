package ufs

import (
	"errors"

	"github.com/freshet-io/freshet"
)

// ErrStopped in the chain of a Remove's error says that RemoveOptions.Removed
// stopped it.
var ErrStopped = errors.New("the removal was stopped")

// Tell tells Removed, if there is one, of n more entries, and returns the error that
// stops the removal.
func (o RemoveOptions) Tell(op, key string, n int) error {
	if o.Removed == nil || n == 0 {
		return nil
	}
	if err := o.Removed(n); err != nil {
		return Errorf(freshet.KindConflict, op, key, "%w: %w", ErrStopped, err)
	}
	return nil
}
