package freshet

import "time"

// Quota limits what the namespace may hold strictly below a path. What a sync finds
// in the storage is counted and never refused; changes through Freshet that would
// exceed a quota are KindExhausted.
type Quota struct {
	Path       Path
	MaxEntries int64 // files and directories; 0 is no limit
	MaxBytes   int64 // of files; 0 is no limit
	// What the namespace holds below the path, and what operations that run have
	// announced beyond that.
	UsedEntries, UsedBytes         int64
	ReservedEntries, ReservedBytes int64
	// Counting: something below was moved or removed, or the quota is new, and the
	// usage is still being brought up to date.
	Counting bool
	Origin   string // OriginConfig, OriginApply, OriginOperator, or what a client named
	SetAt    time.Time
}

// QuotaChange sets the limits of a path; those of an existing quota are replaced.
type QuotaChange struct {
	Op                   OpID // zero: the server makes one
	Path                 Path
	MaxEntries, MaxBytes int64  // 0 is no limit; one must be set
	Origin               string // "" is OriginOperator
	DryRun               bool
}

// Normalize checks the change and completes its origin.
func (c *QuotaChange) Normalize() error {
	if c.MaxEntries < 0 || c.MaxBytes < 0 || (c.MaxEntries == 0 && c.MaxBytes == 0) {
		return Errorf(KindInvalid, "check quota", c.Path, "give a limit of entries, of bytes or of both, more than 0")
	}
	var err error
	c.Origin, err = ParseOrigin(c.Origin)
	return err
}

// QuotaRemoval removes the quota of exactly one path.
type QuotaRemoval struct {
	Op     OpID
	Path   Path
	DryRun bool
}
