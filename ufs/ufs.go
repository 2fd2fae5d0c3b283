// Package ufs owns the contract of an under file system, the source of truth of
// every file, and the set of mounts that a process has open. It never caches,
// never retries (a wrapper does) and knows no storage client: each storage lives
// in a package of its own below this one and passes ufs/ufstest.
//
// Keys. A key is relative to the root of the FS, without a leading or trailing
// slash, segments separated by "/"; "" is the root itself. Keys are bytes: any
// legal name works, including spaces, "%", "+" and non-ASCII. Names that start
// with TempPrefix belong to drivers and do not exist for anybody else.
//
// Order. A listing is in ascending byte order of SortKey: the key of a file, the
// key of a directory followed by "/". It is the order in which object stores
// answer ("a-b" < "a/" < "a/b" < "a0"), and the only one that a driver can give
// page by page. Who merges a listing with something of its own must use it too.
//
// Errors. Every error is a *freshet.Error whose Kind is KindNotExist (and only
// if the storage said so: an outage is never "not found"), KindExist,
// KindPermission, KindStale, KindConflict (not empty, not a directory, is a
// directory), KindUnavailable, KindUnsupported, KindInvalid, KindExhausted, or
// KindDeadline when the outcome of an effect is unknown.
package ufs

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
)

// TempPrefix starts the names of temporary files that drivers make. Such names
// are hidden from List and Stat.
const TempPrefix = freshet.ReservedPrefix + "."

// Status is what a storage says of one entry. List and Stat give the same
// Fingerprint for the same version.
type Status struct {
	Key         string // relative to the root of the FS
	Type        freshet.FileType
	Length      int64
	ModTime     time.Time
	Owner       string
	Group       string
	Mode        uint32
	Fingerprint fingerprint.Fingerprint // unknown for directories
	// Op is the operation that wrote the object, if the storage keeps such a
	// mark and gave it in this answer (Stat and Open do, List need not).
	Op freshet.OpID
	// Special is set for what is neither a regular file nor a directory (a
	// fifo, a socket, a device, a link that leaves the root): listed, never
	// opened. The text says what it is.
	Special string
}

// SpecialLeaves is the text of Special for a link that leads out of the root.
const SpecialLeaves = "link that leaves the mount root"

// Unusable says why what is neither a regular file nor a directory is not read,
// replaced or listed, and the Kind of that error; KindOK for all else.
func (s *Status) Unusable() (freshet.Kind, string) {
	switch s.Special {
	case "":
		return freshet.KindOK, ""
	case SpecialLeaves:
		return freshet.KindPermission, "symlink leaves the mount root"
	}
	return freshet.KindConflict, "is a " + s.Special + ", not a regular file"
}

// Features says what a storage can do; callers ask before they promise.
type Features struct {
	Kind               string // "local", "s3"
	AtomicRename       bool   // of files and directories
	RealDirectories    bool   // directories exist by themselves, not as prefixes
	OwnerAndMode       bool   // SetAttr works
	CreateIfAbsent     bool   // CreateOptions.IfAbsent is decided by the storage
	ReplaceIf          bool   // CreateOptions.IfMatch is decided by the storage
	AbortEndsEffects   bool   // after a successful Abort no effect of the upload can land
	OperationMark      bool   // objects carry the OpID that wrote them
	ModTimeResolution  time.Duration
	MaxOpLifetime      time.Duration // how long an effect may still land after its sender died
	ListPage           int           // entries per list call, 0 if not paged
	DirectoryListsSelf bool          // a List of a missing directory is KindNotExist
	// FlatList says that a recursive List costs a call per page and none per
	// directory, and that going on after an entry, with ListOptions.Position, costs at
	// most one for what is before it.
	FlatList bool
}

// FS is one under file system below one root. All methods are safe for
// concurrent use, return promptly when ctx ends and leave nothing behind then.
type FS interface {
	// Features is constant for the life of the FS.
	Features() Features

	// Stat returns the status of key. On a storage without real directories a
	// key that is only a prefix of others is a directory.
	Stat(ctx context.Context, key string) (Status, error)

	// List yields the entries directly below dir, or all below it if
	// opts.Recursive (directories too, each before what it holds, also those
	// that are only prefixes), in ascending byte order of their SortKey, with one
	// storage call per page and none per entry. After an error the sequence ends;
	// what was yielded before is not a complete listing. A dir that does not
	// exist is KindNotExist where Features.DirectoryListsSelf says so, else
	// empty; one that is a file is KindConflict. Where a storage holds both a
	// file a and keys below a/, both are listed, and Stat gives the file.
	List(ctx context.Context, dir string, opts ListOptions) iter.Seq2[Status, error]

	// Open returns n bytes from off (n < 0: to the end) of the version want;
	// KindStale if the storage holds another one or it changes meanwhile, also
	// in the middle of the stream. An unknown want reads whatever is there;
	// the status says which version that is. An offset past the end is
	// KindInvalid; a length past the end is cut to it. A directory, and whatever
	// is not a regular file, is KindConflict.
	Open(ctx context.Context, key string, opts OpenOptions) (io.ReadCloser, Status, error)

	// Create starts an upload that becomes visible, all at once, at Commit.
	// Missing parent directories are made. It replaces an existing file; a
	// directory in the way is KindConflict, as is whatever else is no regular
	// file, a link among them; a link that leaves the root is KindPermission.
	Create(ctx context.Context, key string, opts CreateOptions) (Writer, error)

	// Mkdir makes a directory and its missing parents; KindExist if a file or,
	// without opts.Existing, a directory is there.
	Mkdir(ctx context.Context, key string, opts MkdirOptions) (Status, error)

	// Rename moves a file or directory to a key that does not exist, or over an
	// existing file if the source is a file. Missing parents are made; a move
	// into itself is KindInvalid, a directory in the way KindConflict or
	// KindExist, what is no regular file as for Create. It is atomic only where Features say so. It returns the status
	// of the file at its new key.
	Rename(ctx context.Context, from, to string) (Status, error)

	// Remove removes a file, an empty directory or, if recursive, a tree.
	// KindNotExist if there is nothing, KindConflict if not empty or the root.
	Remove(ctx context.Context, key string, opts RemoveOptions) error

	// SetAttr changes owner, group or mode; KindUnsupported without OwnerAndMode.
	SetAttr(ctx context.Context, key string, attr Attr) (Status, error)

	// AbortUpload ends what is left of the upload op of a writer that died:
	// its temporary file or its multipart upload. ended says that no effect of
	// it can land any more (Features.AbortEndsEffects and it was found, or
	// nothing was ever published by it).
	AbortUpload(ctx context.Context, key string, op freshet.OpID) (ended bool, err error)

	// Close frees what the FS holds. No other method may be called after it.
	Close() error
}

// ListOptions select what List yields.
type ListOptions struct {
	Recursive bool
	// StartAfter skips entries whose SortKey is not above it: to go on after
	// an entry, give its SortKey.
	StartAfter string
	// PageSize bounds one storage call; 0 is the storage's own maximum.
	PageSize int
	// Position, if not nil, is kept up to date while the listing runs, and lets the next
	// one of the same dir, with the same Recursive and a StartAfter from that on,
	// spare what is before. It is for one listing at a time.
	Position *Position
}

// Position is how far a listing came, for storages that can't begin at a name but only
// at a page of theirs. The zero value is the beginning. Its fields are for drivers.
type Position struct {
	Token   string   // the storage's name of the page
	After   string   // every entry before the page has a SortKey up to this
	Last    string   // the storage's last name before the page
	Pending []string // directories named before the page whose turn comes in it or later
}

// OpenOptions select the bytes of Open.
type OpenOptions struct {
	Want   fingerprint.Fingerprint
	Offset int64
	Length int64 // < 0: to the end
}

// CreateOptions guide Create.
type CreateOptions struct {
	// Op marks the upload and, where the storage can, the object.
	Op freshet.OpID
	// Size is the length in bytes if known, else < 0. A Commit after another
	// number of bytes is KindInvalid and publishes nothing.
	Size int64
	// Mode of the new file where the storage has modes; 0 is that of the file
	// that it replaces, whose owner and group it then gets too if the storage
	// lets it, else 0644.
	Mode uint32
	// Owner and Group, where the storage has owners, of a file that replaces none
	// whose owner it gets, and of the missing parents that are made; "" leaves
	// them to the storage. Commit publishes nothing if it can't set them.
	Owner, Group string
	// IfAbsent commits only if nothing is at the key (KindExist otherwise).
	IfAbsent bool
	// IfMatch, when known, commits only if that version is at the key
	// (KindStale otherwise).
	IfMatch fingerprint.Fingerprint
	// Vouched says that the caller knows that no directory is at the key and
	// that its parents are directories or missing: drivers that would have to
	// ask the storage for it save that question.
	Vouched bool
}

// Writer is one upload. Exactly one of Commit and Abort ends it.
type Writer interface {
	io.Writer
	// Seal ends the writing: the bytes are complete, and still hidden. Where objects
	// carry no mark (Features.OperationMark) it returns what the file can be known by
	// once it is visible, whoever asks then: its fingerprint has Moved from this one, and
	// that of no other file has, for which the same holds as for fingerprints at all. It is
	// unknown where there are marks. Commit does it if nobody has.
	Seal(ctx context.Context) (fingerprint.Fingerprint, error)
	// Commit makes the file visible and returns its status from the write's
	// own answer. KindDeadline or KindUnavailable: the effect may still land.
	Commit(ctx context.Context) (Status, error)
	// Abort drops the upload; afterwards nothing of it is visible. It is safe
	// to call it after a failed Write or Commit.
	Abort(ctx context.Context) error
}

// MkdirOptions guide Mkdir.
type MkdirOptions struct {
	Existing bool // an existing directory is not an error
	Mode     uint32
	// Owner and Group of the directory and of the missing parents that are made,
	// where the storage has owners; "" leaves them to the storage. What can't be
	// given to them is not left behind.
	Owner, Group string
}

// RemoveOptions guide Remove.
type RemoveOptions struct {
	Recursive bool
	// Removed, if not nil, is told while a tree is removed how many entries went
	// since it was told last, about every thousand. Its error stops the removal
	// between two entries: nothing of it is under way any more, what is left stays,
	// and Remove returns an error of KindConflict with ErrStopped in its chain. A
	// storage that removes a tree in one step never calls it.
	Removed func(n int) error
}

// Attr are the attributes to change; a nil field stays.
type Attr struct {
	Owner, Group *string
	Mode         *uint32
}
