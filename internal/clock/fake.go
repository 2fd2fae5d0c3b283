package clock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Fake is a clock that stands still until a test moves it. Use it where a
// testing/synctest bubble can't be used, for example with real sockets. It is
// safe for use by many goroutines.
type Fake struct {
	mu      sync.Mutex
	now     time.Time
	elapsed time.Duration
	armed   []*fakeTimer  // running timers, in the order in which they were set
	changed chan struct{} // closed and replaced whenever armed grows
}

var _ Clock = (*Fake)(nil)

// NewFake returns a clock that shows start. Its Elapsed begins at zero.
func NewFake(start time.Time) *Fake {
	return &Fake{now: start.Round(0), changed: make(chan struct{})}
}

// Now implements Clock.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Since implements Clock.
func (f *Fake) Since(t time.Time) time.Duration { return f.Now().Sub(t) }

// Elapsed implements Clock.
func (f *Fake) Elapsed() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.elapsed
}

// NewTimer implements Clock.
func (f *Fake) NewTimer(d time.Duration) Timer {
	t := &fakeTimer{clock: f, ch: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

// After implements Clock.
func (f *Fake) After(d time.Duration) <-chan time.Time { return f.NewTimer(d).C() }

// Advance moves the clock forward by d and fires the timers that come due, in
// the order of their times, each seeing its own time. It panics if d is
// negative.
func (f *Fake) Advance(d time.Duration) {
	if d < 0 {
		panic("clock: a fake clock can't go back; use SetWall to set the wall clock alone")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.elapsed + d
	for {
		next := f.earliest()
		if next == nil || next.due > end {
			break
		}
		f.move(next.due)
		f.fire(next)
	}
	f.move(end)
}

// SetWall sets the wall clock, forward or back, as an operator or a time service
// would. Elapsed and the timers do not notice.
func (f *Fake) SetWall(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now.Round(0)
}

// AwaitTimers waits until at least n timers are running, which is how a test
// knows that the code under test has begun to wait. It returns the context's
// error if that ends first.
func (f *Fake) AwaitTimers(ctx context.Context, n int) error {
	for {
		f.mu.Lock()
		reached, changed := len(f.armed) >= n, f.changed
		f.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// move sets the time to elapsed. The caller holds mu.
func (f *Fake) move(elapsed time.Duration) {
	f.now = f.now.Add(elapsed - f.elapsed)
	f.elapsed = elapsed
}

// earliest returns the running timer that is due first, the oldest of equals.
// The caller holds mu.
func (f *Fake) earliest() *fakeTimer {
	var first *fakeTimer
	for _, t := range f.armed {
		if first == nil || t.due < first.due {
			first = t
		}
	}
	return first
}

// fire sends the time on a timer's channel and disarms it. The caller holds mu.
func (f *Fake) fire(t *fakeTimer) {
	f.disarm(t)
	t.ch <- f.now // never blocks: the channel is empty whenever the timer runs
}

// disarm stops a timer and reports whether it was running. The caller holds mu.
func (f *Fake) disarm(t *fakeTimer) bool {
	i := slices.Index(f.armed, t)
	if i < 0 {
		return false
	}
	f.armed = slices.Delete(f.armed, i, i+1)
	return true
}

type fakeTimer struct {
	clock *Fake
	ch    chan time.Time
	due   time.Duration // on the clock's Elapsed
}

func (t *fakeTimer) C() <-chan time.Time { return t.ch }

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.stop()
}

func (t *fakeTimer) Reset(d time.Duration) bool {
	f := t.clock
	f.mu.Lock()
	defer f.mu.Unlock()
	running := t.stop()
	t.due = f.elapsed + d
	f.armed = append(f.armed, t)
	if d <= 0 {
		t.due = f.elapsed
		f.fire(t)
		return running
	}
	close(f.changed)
	f.changed = make(chan struct{})
	return running
}

// stop disarms the timer and forgets a value that nobody has received. The
// caller holds the clock's mu.
func (t *fakeTimer) stop() bool {
	select {
	case <-t.ch:
		return true // as time.Timer: fired but not received counts as running
	default:
	}
	return t.clock.disarm(t)
}
