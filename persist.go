package freshet

import (
	"time"

	"github.com/freshet-io/freshet/fingerprint"
)

// PersistOrder tells a node to write an unpersisted file, whose blocks it keeps, to
// the storage.
type PersistOrder struct {
	Op        OpID
	File      FileID
	Path      Path
	Target    Source // Fingerprint is empty
	Length    int64  // bytes
	BlockSize int64
	// Beneath is the version that it may replace; unknown: nothing may be there.
	Beneath      fingerprint.Fingerprint
	Owner, Group string
	Mode         uint32
}

// PersistQuery asks to write unpersisted files to the storage.
type PersistQuery struct {
	Path      Path
	Recursive bool // all below a directory
	// Overwrite replaces what the storage holds at the path of a single file, whatever
	// that is.
	Overwrite bool
	DryRun    bool
}

// UnpersistedQuery asks which files at and below a path are not in the storage.
type UnpersistedQuery struct {
	Path  Path
	Limit int // of Files; 0 is DefaultUnpersisted, negative: none
}

// DefaultUnpersisted and MaxUnpersistedPage bound the files that an answer names.
const (
	DefaultUnpersisted = 100
	MaxUnpersistedPage = 10_000
)

// Unpersisted says which files are not in the storage. The numbers are of all of
// them, Files of the oldest, those that need attention first.
type Unpersisted struct {
	Count, Bytes int64
	Queued       int64 // are to be persisted
	Persisting   int64 // are being written at the moment
	Failed       int64 // the last attempt failed; they are tried again
	Conflicts    int64 // the storage holds another version
	Lost         int64 // no live node has all of their bytes
	// Short are those of which fewer live nodes than was promised have all bytes, but one
	// has.
	Short int64
	// Oldest is for how long the one that has waited longest of those that are queued does.
	Oldest time.Duration
	Files  []UnpersistedFile
}

// The states of an unpersisted file.
const (
	UnpersistedKept       = "kept"       // until somebody has it persisted
	UnpersistedQueued     = "queued"     // to be persisted
	UnpersistedPersisting = "persisting" // is being written
	UnpersistedFailed     = "failed"     // the last attempt failed; it is tried again
	UnpersistedConflict   = "conflict"   // the storage holds another version
	UnpersistedLost       = "lost"       // no live node has all of its bytes
)

// UnpersistedFile is a file that is not in the storage.
type UnpersistedFile struct {
	Path   Path
	File   FileID
	Length int64
	Since  time.Time // when it was acknowledged
	State  string
	Nodes  []string // names, or IDs, of the nodes that keep it
	// Replicas is on how many nodes it was durable when it was acknowledged; on Live nodes
	// that live is all of it.
	Replicas, Live int
	Attempts       int    // that failed
	Error          string // of the last one
	Next           time.Time
}
