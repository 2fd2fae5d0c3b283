package ufs

import (
	"context"
	"time"
)

// Cleaner is an FS whose storage keeps, out of sight and at a cost, what writers
// that died have left of their uploads.
type Cleaner interface {
	// CleanUploads ends the abandoned uploads below the root of the FS that its
	// driver has begun, in this process or another, and on which nothing was done
	// for idle, or for Features.MaxOpLifetime if that is longer. It never ends one
	// of another program. It returns how many it ended, also with an error. It is
	// safe for concurrent use; once a day by one process is enough.
	CleanUploads(ctx context.Context, idle time.Duration) (n int, err error)
}

// AsCleaner returns the Cleaner in fs; it looks through wrappers that have an
// Unwrap method.
func AsCleaner(fs FS) (Cleaner, bool) {
	for fs != nil {
		if c, ok := fs.(Cleaner); ok {
			return c, true
		}
		w, ok := fs.(interface{ Unwrap() FS })
		if !ok {
			break
		}
		fs = w.Unwrap()
	}
	return nil, false
}
