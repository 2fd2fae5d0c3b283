// Package clock owns the way code of the project reads time: a small interface
// that is passed in as a value, the machine's clock behind it, and a clock that
// tests move by hand.
//
// It never decides what a time means: leases, intervals and deadlines belong to
// the packages that hold them.
//
// Three readings, for three uses:
//   - Now is for people and for storages: what a log, a status or a modification
//     time shows. The wall clock may be set, so nothing correct depends on it.
//   - Elapsed is for ages: is this entry older than its interval, has this lease
//     run out. It never goes back and it also counts the time a suspended
//     machine slept, so that a laptop or a paused virtual machine does not wake
//     up believing that its cache is young.
//   - NewTimer and After are for waiting. A timer stands still while the machine
//     is suspended, so whoever wakes up must look at Elapsed before it relies on
//     how much time has passed.
//
// Code that only waits inside a Run loop may use package time directly: both the
// real clock and package time follow the fake time of a testing/synctest bubble.
package clock

import "time"

// Clock tells time. Implementations are safe for use by many goroutines.
type Clock interface {
	// Now returns the wall clock's time. It carries Go's monotonic reading, so
	// differences between two results are sound within a process, except for
	// the time a suspended machine slept.
	Now() time.Time
	// Since returns the time since t, which came from Now of the same clock.
	Since(t time.Time) time.Duration
	// Elapsed returns the time since a fixed but arbitrary point. Only
	// differences of two results of one process mean something. It never goes
	// back, and counts time spent suspended where the system can tell (Linux).
	Elapsed() time.Duration
	// NewTimer returns a timer that fires once, d from now. A d of zero or less
	// fires at once.
	NewTimer(d time.Duration) Timer
	// After returns the channel of a new timer, for waits that nobody stops.
	After(d time.Duration) <-chan time.Time
}

// Timer fires once on its channel. It follows the rules of time.Timer as of
// Go 1.23: after Stop or Reset returns, no value of an earlier setting is
// received any more.
type Timer interface {
	// C returns the channel on which the time is sent.
	C() <-chan time.Time
	// Stop prevents the timer from firing and reports whether it was running.
	Stop() bool
	// Reset sets the timer to fire d from now and reports whether it was running.
	Reset(d time.Duration) bool
}
