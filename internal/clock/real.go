package clock

import (
	"sync/atomic"
	"time"
)

// Real is the machine's clock. The zero value is ready for use. Inside a
// testing/synctest bubble it follows the bubble's fake time.
type Real struct{}

var _ Clock = Real{}

// These are facts of the process, not settings.
var (
	origin       = time.Now() // the point that Elapsed counts from
	suspendedMax atomic.Int64 // how long the machine is known to have slept, ns
	lastDrift    atomic.Int64 // wall minus monotonic time when that was last measured, ns
)

// maxDrift is how far the wall clock may move against the monotonic one before
// the suspended time is measured again. Waking up sets the wall clock forward,
// so a sleep longer than this is noticed by the first reading after it. It
// keeps two system calls out of nearly every reading.
const maxDrift = 20 * time.Millisecond

// Now implements Clock.
func (Real) Now() time.Time { return time.Now() }

// Since implements Clock.
func (Real) Since(t time.Time) time.Duration { return time.Since(t) }

// Elapsed implements Clock.
func (Real) Elapsed() time.Duration {
	now := time.Now()
	running := now.Sub(origin)
	drift := now.UnixNano() - int64(running)
	if time.Duration(drift-lastDrift.Load()).Abs() > maxDrift {
		noteSuspended(measureSuspended())
		lastDrift.Store(drift)
	}
	return running + time.Duration(suspendedMax.Load())
}

// NewTimer implements Clock.
func (Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

// After implements Clock.
func (Real) After(d time.Duration) <-chan time.Time { return time.After(d) }

// noteSuspended keeps the largest measurement. One can only come out too small
// (see measureSuspended), and the truth never shrinks, so the largest is the
// best known and never goes back.
func noteSuspended(measured int64) {
	for {
		known := suspendedMax.Load()
		if measured <= known || suspendedMax.CompareAndSwap(known, measured) {
			return
		}
	}
}

type realTimer struct{ timer *time.Timer }

func (t realTimer) C() <-chan time.Time        { return t.timer.C }
func (t realTimer) Stop() bool                 { return t.timer.Stop() }
func (t realTimer) Reset(d time.Duration) bool { return t.timer.Reset(d) }
