package coordinator

import (
	"context"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Clean says when the leader ends what writers that died have left of their uploads
// in the storages. The zero value is usable.
type Clean struct {
	// Every is how often each storage is looked through; an hour by default.
	Every time.Duration
	// Idle is for how long nothing was done on an upload that is ended: what is
	// younger may still be alive. A day by default; longer where effects may land
	// for longer.
	Idle time.Duration
}

func (o *Clean) setDefaults() {
	setDefault(&o.Every, time.Hour)
	setDefault(&o.Idle, 24*time.Hour)
}

// cleanStorages looks through the storages now and then until ctx ends.
func (c *Coordinator) cleanStorages(ctx context.Context) error {
	for {
		select {
		case <-c.clock.After(c.opts.Clean.Every):
		case <-ctx.Done():
			return nil
		}
		mounts, _ := c.state.Mounts()
		for _, m := range mounts {
			if err := c.cleanStorage(ctx, m); err != nil && ctx.Err() == nil {
				c.log.Warn("what dead writers left in a storage could not be ended; it is tried again", "path", string(m.Path), "error", err)
			}
		}
	}
}

func (c *Coordinator) cleanStorage(ctx context.Context, m freshet.Mount) error {
	if m.ReadOnly {
		return nil
	}
	fs, release, err := c.storage(m)
	if err != nil {
		return err
	}
	defer release()
	cleaner, ok := ufs.AsCleaner(fs)
	if !ok {
		return nil
	}
	n, err := cleaner.CleanUploads(ctx, max(c.opts.Clean.Idle, m.MaxOpLifetime))
	c.metrics.cleaned.Add(float64(n))
	if n > 0 {
		c.log.Info("abandoned uploads were ended", "path", string(m.Path), "uploads", n)
	}
	return err
}
