package object

import (
	"errors"

	"github.com/freshet-io/freshet/ufs"
)

// Outcome returns what is to be said of effects that were sent side by side, nil
// if all of them succeeded. All must have ended: one that was given up because
// another failed may still land. An outcome that is not known comes before one that
// is, and ufs.ErrNotSent is kept only if it holds for all.
func Outcome(all ...error) error {
	var worst error
	unsent := true
	for _, err := range all {
		unsent = unsent && errors.Is(err, ufs.ErrNotSent)
		if worst == nil || uncertain(err) && !uncertain(worst) {
			worst = err
		}
	}
	if unsent {
		return worst
	}
	return begun(worst)
}
