package freshet

import "time"

// SyncQuery asks for a sync that goes on without its caller.
type SyncQuery struct {
	Op        OpID // the same one again returns the job that it started; zero: the server makes one
	Path      Path
	Recursive bool
	// MaxAge spares directories that were listed that recently and not marked
	// since; Always, which is zero, spares none.
	MaxAge Interval
}

// SyncState is what became of a sync.
type SyncState string

// The states of a sync.
const (
	SyncQueued    SyncState = "queued"
	SyncRunning   SyncState = "running"
	SyncDone      SyncState = "done"
	SyncFailed    SyncState = "failed" // all or in part: see Progress.Failed
	SyncCancelled SyncState = "cancelled"
)

// Ended reports whether the sync is over.
func (s SyncState) Ended() bool { return s != SyncQueued && s != SyncRunning }

// SyncJob is a sync that goes on without its caller, also when another member
// comes to lead: that one starts it anew.
type SyncJob struct {
	ID        uint64
	Path      Path
	Recursive bool
	MaxAge    Interval
	State     SyncState
	StartedAt time.Time
	EndedAt   time.Time // zero while it runs
	// Progress counts from the last start; Elapsed too.
	Progress SyncProgress
	Kind     Kind   // of the error
	Error    string // why it failed
}
