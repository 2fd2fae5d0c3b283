package tier

import (
	"errors"
	"sync/atomic"
	"time"
)

// How long an access to the directory may take: errHung is what it fails with then.
// Nothing can end a system call on a disk that does not answer; it is left to itself,
// and until it returns all other accesses fail at once. What it does late harms
// nothing: a file under a block's name is verified when it is opened, and a temporary
// one is removed at the next start.
const (
	defaultPatience = 15 * time.Second
	// With the tier locked nothing waits longer than that.
	lockedPatience = time.Second
)

var errHung = errors.New("the disk does not answer")

// within makes an access that may be given up, so that it must write to no memory of
// the caller's; then late, if not nil, is called when it has ended at last.
func (d *disk) within(limit time.Duration, op string, access func() error, late func()) error {
	if d.stuck() {
		return errHung
	}
	done := make(chan error, 1)
	var left atomic.Bool
	go func() {
		var err error
		if d.fault != nil {
			err = d.fault(op)
		}
		if err == nil && !left.Load() {
			err = access()
		}
		done <- err
	}()
	timer := time.NewTimer(min(limit, d.patience))
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	left.Store(true)
	d.pending.Add(1)
	go func() {
		<-done //nolint:errcheck // nobody waits for it
		if late != nil {
			late()
		}
		d.pending.Add(-1)
	}()
	return errHung
}

// hung reports whether err says that the disk did not answer, which says nothing of a
// block.
func hung(err error) bool { return errors.Is(err, errHung) }

// Stuck reports whether an access that was given up is not answered yet.
func (t *Tier) Stuck() bool { return t.medium.stuck() }
