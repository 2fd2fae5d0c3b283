package freshet

import "time"

// The kinds of stamps that an explanation tells of.
const (
	StampSelf          = "self"           // of the entry
	StampListing       = "listing"        // of the directory itself
	StampParentListing = "parent listing" // of the directory that would have the path
	StampRecursive     = "recursive"      // of an ancestor, with all below it
	StampRemembered    = "remembered"     // of a path that is not held
)

// ExplainedStamp is a mark that covers a path.
type ExplainedStamp struct {
	Kind  string
	Path  Path   // where it was set
	Index uint64 // of the log
	// Cause says what made it, as far as this leader remembers.
	Cause string
	At    time.Time // zero if this leader does not know
}

// Operation is one that has begun and not ended.
type Operation struct {
	ID           OpID
	Kind         string // "write", "mkdir", "remove", "rename", "set attributes"
	Path, Target Path   // Target of a rename
	State        string // "uploading", "may publish", "quarantine"
	Node         string // that carries it out; "" for the coordinators
	Since        time.Time
	Until        time.Time // when it ends at the latest; zero if that is not known
	Remedy       string    // what a person can do
}
