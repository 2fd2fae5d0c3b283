//go:build !linux

package clock

// measureSuspended knows nothing about suspension here: Elapsed then stands
// still while the machine sleeps, as Go's own monotonic time does.
func measureSuspended() int64 { return 0 }
