package ufs

import (
	"maps"
	"time"

	"github.com/freshet-io/freshet"
)

// Names of the options of every storage that say how a process treats it.
const (
	OptionMaxRequestsPerSecond  = "max_requests_per_second"
	OptionMaxConcurrentRequests = "max_concurrent_requests"
	OptionBreakerFailures       = "breaker_failures"
	OptionBreakerPause          = "breaker_pause"
)

// Guards say how a process treats the storage of a mount, whatever its kind. They
// hold for one process: a region of ten cache nodes asks ten times as often.
type Guards struct {
	// RequestsPerSecond and ConcurrentRequests bound what is sent to the storage;
	// 0 is no bound.
	RequestsPerSecond, ConcurrentRequests int
	// BreakerFailures is after how many failures in a row the storage is left
	// alone for BreakerPause; 0 is never.
	BreakerFailures int
	BreakerPause    time.Duration
}

// Adjuster is what can take other bounds while it works.
type Adjuster interface {
	// Adjust makes the bounds of g hold, for calls that wait too.
	Adjust(g Guards)
}

// SameStorage reports whether two sets of options of a mount differ at most in bounds,
// which an Adjuster takes, and in what is cached of it: what is open stays open, and
// what is known of the storage stays true.
func SameStorage(a, b map[string]string) bool {
	bare := func(m map[string]string) map[string]string {
		m = maps.Clone(m)
		delete(m, OptionMaxRequestsPerSecond)
		delete(m, OptionMaxConcurrentRequests)
		delete(m, OptionPartialCaching)
		delete(m, OptionPassiveCaching)
		return m
	}
	return maps.Equal(bare(a), bare(b))
}

// adjust gives the bounds of a mount to all that is around its storage.
func adjust(fs FS, mount freshet.Mount) error {
	g, err := ParseGuards(mount.Options)
	if err != nil {
		return err
	}
	for fs != nil {
		if a, ok := fs.(Adjuster); ok {
			a.Adjust(g)
		}
		w, ok := fs.(interface{ Unwrap() FS })
		if !ok {
			break
		}
		fs = w.Unwrap()
	}
	return nil
}

func guardOptions() OptionTable {
	return OptionTable{
		{Name: OptionMaxRequestsPerSecond, Type: OptionInt, Max: 1_000_000, Default: "0", Help: "requests that each process sends to the storage per second, 0 for no bound"},
		{Name: OptionMaxConcurrentRequests, Type: OptionInt, Max: 100_000, Default: "0", Help: "requests, open files and uploads that each process has at the storage at a time, 0 for no bound"},
		{Name: OptionBreakerFailures, Type: OptionInt, Max: 1_000_000, Default: "10", Help: "calls in a row that find the storage down before a process leaves it alone for breaker_pause, 0 for never"},
		{Name: OptionBreakerPause, Type: OptionDuration, Min: int64(100 * time.Millisecond), Max: int64(time.Hour), Default: "5s", Help: "how long a storage that is down is left alone before one call tries it again"},
	}
}

// ParseGuards reads the Guards of a mount from its options and ignores all other
// options. Wrong values are KindInvalid.
func ParseGuards(options map[string]string) (Guards, error) {
	table, mine := guardOptions(), map[string]string{}
	for _, o := range table {
		if text, ok := options[o.Name]; ok {
			mine[o.Name] = text
		}
	}
	v, err := table.Check("every storage", mine)
	if err != nil {
		return Guards{}, freshet.Wrap("check options", "", err)
	}
	return Guards{
		RequestsPerSecond: int(v.Int(OptionMaxRequestsPerSecond)), ConcurrentRequests: int(v.Int(OptionMaxConcurrentRequests)),
		BreakerFailures: int(v.Int(OptionBreakerFailures)), BreakerPause: v.Duration(OptionBreakerPause),
	}, nil
}
