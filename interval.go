package freshet

import (
	"fmt"
	"strings"
	"time"
)

// Interval says how old the validation of an entry may be before the next access
// syncs it with the storage again: Always (every access), a positive duration,
// or Never.
type Interval time.Duration

// The two intervals that are not durations.
const (
	Always Interval = 0
	Never  Interval = -1
)

// MaxInterval is the longest interval that is accepted: ten years.
const MaxInterval = Interval(10 * 365 * 24 * time.Hour)

// ParseInterval reads "always" or "0", "never" or "-1", or a Go duration such as
// "90s". Anything else, and a duration below zero or above MaxInterval, is
// KindInvalid.
func ParseInterval(s string) (Interval, error) {
	switch s {
	case "always", "0":
		return Always, nil
	case "never", "-1":
		return Never, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || Interval(d) > MaxInterval {
		return 0, Errorf(KindInvalid, "parse interval", "",
			"%q is not a sync interval: use \"always\", \"never\" or a duration up to %s such as \"90s\" or \"5m\"", s, time.Duration(MaxInterval))
	}
	return Interval(d), nil
}

// String returns the form that ParseInterval reads.
func (i Interval) String() string {
	switch {
	case i == Always:
		return "always"
	case i < 0:
		return "never"
	}
	return time.Duration(i).String()
}

// MarshalText makes an Interval readable in JSON and YAML.
func (i Interval) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (i *Interval) UnmarshalText(b []byte) error {
	v, err := ParseInterval(string(b))
	if err != nil {
		return err
	}
	*i = v
	return nil
}

// Expired reports whether a validation of that age needs a sync under i.
func (i Interval) Expired(age time.Duration) bool {
	return i >= 0 && age >= time.Duration(i)
}

// WriteType says where a write goes before it is acknowledged.
type WriteType uint8

// The write types.
const (
	CacheThrough WriteType = iota // storage and cache; the default
	Through                       // storage only
	MustCache                     // cache nodes only, until it is persisted on demand
	AsyncThrough                  // cache nodes; storage soon after
)

// ByPolicy names no write type: that of the policy of the path applies, else
// CacheThrough. It is never that of a ticket.
const ByPolicy WriteType = 255

// ReadType says what a read leaves behind.
type ReadType uint8

// The read types.
const (
	ReadCache   ReadType = iota // blocks that had to be fetched are cached; the default
	ReadNoCache                 // nothing is cached
)

// Level is the consistency level of a mount.
type Level uint8

// The levels. LevelBounded and LevelStrict are part of the language but not
// served yet.
const (
	LevelInvalidate Level = iota // eventual, no lost invalidation; the default
	LevelInterval                // time-based sync only
	LevelBounded
	LevelStrict
)

type word interface{ ~uint8 }

func wordOf[T word](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("unknown(%d)", v)
}

func parseWord[T word](what string, names []string, s string) (T, error) {
	for i, name := range names {
		if name == s {
			return T(i), nil
		}
	}
	return 0, Errorf(KindInvalid, "parse "+what, "", "%q is not a %s: use one of %s", s, what, strings.Join(names, ", "))
}

func writeTypes() []string {
	return []string{"cache_through", "through", "must_cache", "async_through"}
}
func readTypes() []string { return []string{"cache", "no_cache"} }
func levels() []string    { return []string{"invalidate", "interval", "bounded", "strict"} }

// String returns the word for w, "" for ByPolicy.
func (w WriteType) String() string {
	if w == ByPolicy {
		return ""
	}
	return wordOf(writeTypes(), w)
}

// Keeps reports whether what is written so stays on cache nodes at first, without a word of
// the storage.
func (w WriteType) Keeps() bool { return w == MustCache || w == AsyncThrough }

// String returns the word for r.
func (r ReadType) String() string { return wordOf(readTypes(), r) }

// String returns the word for l.
func (l Level) String() string { return wordOf(levels(), l) }

// ParseWriteType reads the word for a WriteType; "" is ByPolicy.
func ParseWriteType(s string) (WriteType, error) {
	if s == "" {
		return ByPolicy, nil
	}
	return parseWord[WriteType]("write type", writeTypes(), s)
}

// ParseReadType reads the word for a ReadType; "" is the default.
func ParseReadType(s string) (ReadType, error) {
	if s == "" {
		return ReadCache, nil
	}
	return parseWord[ReadType]("read type", readTypes(), s)
}

// ParseLevel reads the word for a Level; "" is the default.
func ParseLevel(s string) (Level, error) {
	if s == "" {
		return LevelInvalidate, nil
	}
	return parseWord[Level]("consistency level", levels(), s)
}
