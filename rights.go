package freshet

import "time"

// Rights is what decides who may use an entry: its own owner, group and mode, or
// those of its mount where the storage keeps none.
type Rights struct {
	Path Path
	Type FileType
	// Owner and Group are "" where nobody but the superuser owns the entry: a
	// directory that is there only because mount points lie below it.
	Owner, Group string
	Mode         uint32 // permission bits, with those for setuid, setgid and sticky
	// Kept: the storage keeps them for each entry, so that what is made there can
	// belong to somebody.
	Kept bool
	// Listed: the entry may have an access control list that says more.
	Listed bool
	// MountOf is the path of the mount whose settings they are, "" if they are the
	// entry's own.
	MountOf Path
	// Keep is for how long an answer may be kept that rests on them.
	Keep time.Duration
}
