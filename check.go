package freshet

import "time"

// The classes of differences between a cache and its storage.
const (
	// DifferenceOnlyStorage: a complete listing lacks what the storage has.
	DifferenceOnlyStorage = "only-storage"
	// DifferenceOnlyCache: the storage does not have what is cached.
	DifferenceOnlyCache = "only-cache"
	// DifferenceType: a file in one place, a directory, or what is neither, in the other.
	DifferenceType = "type"
	// DifferenceContent: another version of a file.
	DifferenceContent = "content"
	// DifferenceMetadata: the same content with another owner, group or mode.
	DifferenceMetadata = "metadata"
	// DifferenceBlocks: blocks of the version that can't be parts of it, or that a
	// cache node found damaged. They are never served.
	DifferenceBlocks = "blocks"
)

// CheckQuery asks for a comparison of cache and storage.
type CheckQuery struct {
	Path      Path
	Recursive bool
	// Repair marks what differs and looks at it, so that the cache agrees.
	Repair bool
	// All reports differences that the next read would find, too.
	All bool
	// Limit ends the check after so many reported differences; 0 is none.
	Limit int64
}

// Difference is one entry of which cache and storage say different things.
type Difference struct {
	Path  Path
	Class string
	// Served: a read would be answered with what the cache has. Else the next read
	// looks at the storage, and the difference is excused.
	Served bool
	Reason string // why it would be served, or is excused
	// Cached and Storage are what each has; nil if it has nothing there.
	Cached   *Info
	Storage  *Info
	Repaired bool
	// RepairError says why a repair failed, "" if it did not or was not asked for.
	RepairError string
}

// CheckProgress counts what a check has seen. Differences that were repaired are
// counted as what they were, too.
type CheckProgress struct {
	Directories int64 // compared
	Entries     int64
	NotLoaded   int64 // directories whose listing was never complete: only what is cached of them was compared
	Skipped     int64 // entries of the storage that can't be shown
	Served      int64 // differences that a read would be answered with
	Excused     int64 // differences that the next read would find
	Repaired    int64
	Failed      int64 // directories and entries that could not be compared
	Elapsed     time.Duration
	Current     Path
	Limited     bool // it ended at the limit
	Done        bool
}

// CheckReport is a difference, or, if that is nil, how far the check is.
type CheckReport struct {
	Difference *Difference
	Progress   CheckProgress
}
