package freshet

import (
	"encoding/hex"
	"time"
)

// LeaseID names a session under which answers may be kept; zero is none. Nobody can
// guess it: who knows it may say that the session ended.
type LeaseID [16]byte

// IsZero reports whether there is none.
func (id LeaseID) IsZero() bool { return id == LeaseID{} }

// String returns the ID in hexadecimal digits.
func (id LeaseID) String() string { return hex.EncodeToString(id[:]) }

// LeaseOpening is what a client says that begins a session. It keeps nothing of all that
// it names, and never will.
type LeaseOpening struct {
	// ID is the name of the session, 16 random bytes that were never used before; zero lets
	// the leader choose one. The leader may choose another all the same.
	ID LeaseID
	// Previous is the session that the client had before; zero is none.
	Previous LeaseID
	// Unanswered are those that it tried to open since: a leader may have written down
	// such a name and died before it answered. At most MaxUnanswered.
	Unanswered []LeaseID
}

// MaxUnanswered bounds LeaseOpening.Unanswered.
const MaxUnanswered = 100

// LeaseBreak calls answers back: all that were kept on the line of one of Paths, which
// is the path itself, what is above it and what is below it. It also voids answers
// that are still on their way.
type LeaseBreak struct {
	// Number counts the breaks of a session from 1.
	Number uint64
	Paths  []Path
}

// LeaseClock is how far the clocks of two processes are trusted to differ in rate: by
// one part in so many. Who keeps an answer counts that much less than it was granted,
// and who granted it waits that much more.
const LeaseClock = 100

// KeepFor returns how long an answer that was granted for d may be kept, from before it
// was asked for.
func KeepFor(d time.Duration) time.Duration { return d - d/LeaseClock }

// AwaitFor returns for how long after it was granted an answer may still be kept
// somewhere.
func AwaitFor(d time.Duration) time.Duration { return d + d/LeaseClock }
