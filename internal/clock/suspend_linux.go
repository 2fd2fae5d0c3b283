package clock

import "golang.org/x/sys/unix"

// measureSuspended returns CLOCK_BOOTTIME minus CLOCK_MONOTONIC in nanoseconds:
// the first runs on while the machine sleeps, the second does not. The clock
// that is subtracted is read last, so a pause between the two calls makes the
// result smaller, never larger.
func measureSuspended() int64 {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil ||
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return boot.Nano() - mono.Nano()
}
