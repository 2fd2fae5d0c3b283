package freshet

import (
	"path"
	"strings"
	"time"
)

// CacheFilter selects files, and parts of them. The zero value selects all.
type CacheFilter struct {
	// Include and Exclude are patterns, see MatchGlob: a file must match one of
	// Include, if there are any, and none of Exclude.
	Include []string
	Exclude []string
	// NewerThan selects files modified then or later, if it is set.
	NewerThan time.Time
	// MinSize and MaxSize bound the length of files in bytes; 0 of MaxSize is no
	// bound.
	MinSize int64
	MaxSize int64
	// FirstBytes selects the blocks that hold the first so many bytes of each file;
	// 0: all.
	FirstBytes int64
}

// maxPatterns bounds the patterns of a filter, maxPattern the bytes of each.
const maxPatterns, maxPattern = 100, 1024

// Check refuses a filter that makes no sense. KindInvalid.
func (f *CacheFilter) Check() error {
	const op = "check filter"
	if len(f.Include)+len(f.Exclude) > maxPatterns {
		return Errorf(KindInvalid, op, "", "more than %d patterns", maxPatterns)
	}
	for _, all := range [][]string{f.Include, f.Exclude} {
		for _, p := range all {
			if err := CheckGlob(p); err != nil {
				return err
			}
		}
	}
	switch {
	case f.MinSize < 0 || f.MaxSize < 0 || f.FirstBytes < 0:
		return Errorf(KindInvalid, op, "", "a size can't be negative")
	case f.MaxSize > 0 && f.MinSize > f.MaxSize:
		return Errorf(KindInvalid, op, "", "no file has at least %d and at most %d bytes", f.MinSize, f.MaxSize)
	}
	return nil
}

// Selects reports whether the filter selects a file that was found at or below root.
func (f *CacheFilter) Selects(root Path, info *Info) bool {
	if info.Type != TypeFile || info.Length < f.MinSize || (f.MaxSize > 0 && info.Length > f.MaxSize) {
		return false
	}
	if !f.NewerThan.IsZero() && info.ModTime.Before(f.NewerThan) {
		return false
	}
	if len(f.Include)+len(f.Exclude) == 0 {
		return true
	}
	rel := info.Path.Base()
	if root != info.Path {
		rel = root.Rel(info.Path)
	}
	matches := func(all []string) bool {
		for _, p := range all {
			if MatchGlob(p, rel) {
				return true
			}
		}
		return false
	}
	return (len(f.Include) == 0 || matches(f.Include)) && !matches(f.Exclude)
}

// Blocks returns how many blocks of the file the filter asks for, and their bytes.
func (f *CacheFilter) Blocks(info *Info) (blocks, bytes int64) {
	size := info.BlockSize
	if size <= 0 {
		size = DefaultBlockSize
	}
	length := info.Length
	if f.FirstBytes > 0 && f.FirstBytes < length {
		length = min(length, (f.FirstBytes+size-1)/size*size)
	}
	return (length + size - 1) / size, length
}

// CheckGlob refuses a pattern that MatchGlob can't read. KindInvalid.
func CheckGlob(pattern string) error {
	const op = "check pattern"
	if pattern == "" || len(pattern) > maxPattern || strings.HasPrefix(pattern, "/") {
		return Errorf(KindInvalid, op, "", "%q is not a pattern: give one of 1 to %d bytes that does not begin with a slash, such as *.parquet or 2026/**", pattern, maxPattern)
	}
	for part := range strings.SplitSeq(pattern, "/") {
		if part == "" {
			return Errorf(KindInvalid, op, "", "the pattern %q has an empty part between slashes", pattern)
		}
		if _, err := path.Match(part, ""); err != nil {
			return Errorf(KindInvalid, op, "", "the pattern %q is malformed: a \"[\" or \"\\\" without its end", pattern)
		}
	}
	return nil
}

// MatchGlob reports whether a path without a slash at its beginning matches the
// pattern. "*", "?" and "[a-z]" match within a name, as path.Match has it, and a part
// "**" any number of names. A pattern without a slash is compared with the last name
// alone. What CheckGlob refuses matches nothing.
func MatchGlob(pattern, rel string) bool {
	if CheckGlob(pattern) != nil {
		return false
	}
	if !strings.Contains(pattern, "/") && pattern != "**" {
		ok, err := path.Match(pattern, rel[strings.LastIndexByte(rel, '/')+1:])
		return ok && err == nil
	}
	return matchParts(strings.Split(pattern, "/"), strings.Split(rel, "/"))
}

// matchParts goes back to the last "**" only: what an earlier one took does not
// matter once a later one was reached. So the time is bounded by the product of both
// lengths.
func matchParts(pattern, names []string) bool {
	p, n := 0, 0
	star, from := -1, 0
	for n < len(names) {
		if p < len(pattern) && pattern[p] == "**" {
			star, from = p, n
			p++
			continue
		}
		if p < len(pattern) {
			if ok, err := path.Match(pattern[p], names[n]); ok && err == nil {
				p, n = p+1, n+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, n = star+1, from
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

// CachePlace names cache nodes: those for which all that is set is true.
type CachePlace struct {
	Node string // name or ID
	Host string
	Rack string
	Zone string
}

// String names the place for messages.
func (c CachePlace) String() string {
	var parts []string
	for _, s := range []struct{ what, value string }{{"node", c.Node}, {"host", c.Host}, {"rack", c.Rack}, {"zone", c.Zone}} {
		if s.value != "" {
			parts = append(parts, s.what+" "+s.value)
		}
	}
	if len(parts) == 0 {
		return "any node"
	}
	return strings.Join(parts, ", ")
}

// WarmQuery asks to bring files into the cache.
type WarmQuery struct {
	// Op names the request: the same one again returns the job that it started. Zero:
	// the server makes one.
	Op OpID
	// Paths are files, and directories, which stand for all files below them.
	Paths    []Path
	Filter   CacheFilter
	Place    CachePlace
	Replicas int // copies of each block on different nodes; 0 is 1
}

// MaxWarmPaths is how many paths one warm takes.
const MaxWarmPaths = 100

// Normalize checks the query and sets defaults. KindInvalid.
func (q *WarmQuery) Normalize() error {
	const op = "warm"
	if len(q.Paths) == 0 || len(q.Paths) > MaxWarmPaths {
		return Errorf(KindInvalid, op, "", "%d paths are given: use 1 to %d", len(q.Paths), MaxWarmPaths)
	}
	if q.Replicas == 0 {
		q.Replicas = 1
	}
	if q.Replicas < 1 || q.Replicas > MaxCopies {
		return Errorf(KindInvalid, op, "", "%d copies are asked for: use 1 to %d", q.Replicas, MaxCopies)
	}
	if !q.Filter.NewerThan.IsZero() {
		q.Filter.NewerThan = q.Filter.NewerThan.UTC()
	}
	return q.Filter.Check()
}

// WarmJob is a warm that goes on without its caller, also when another member comes
// to lead: that one begins anew and skips what is cached.
type WarmJob struct {
	ID        uint64
	Query     WarmQuery
	State     SyncState
	StartedAt time.Time
	EndedAt   time.Time // zero while it runs
	Progress  WarmProgress
	Kind      Kind   // of the error
	Error     string // why it failed
}

// WarmProgress is how far a warm is, since it was begun last. Bytes count once for
// each copy that is wanted.
type WarmProgress struct {
	Counted     bool // TotalFiles and TotalBytes are final
	TotalFiles  int64
	TotalBytes  int64
	Files       int64 // that were gone through, the failed ones too
	CachedBytes int64 // that were cached before
	WarmedBytes int64 // that nodes fetched
	Failed      int64 // files that are not cached as was asked
	Elapsed     time.Duration
	Current     Path
	Failures    []FileFailure // the first ones
}

// FileFailure is a file with which something did not go as asked.
type FileFailure struct {
	Path  Path
	Kind  Kind
	Error string
}

// MaxFileFailures is how many failures of files are listed.
const MaxFileFailures = 20

// WarmedBlock is what became of the order to bring a block to a node.
type WarmedBlock struct {
	Block   BlockID
	Fetched bool // else it was there
	Kind    Kind // KindOK, or why the block could not be had
	Error   string
}

// CacheQuery asks what is cached.
type CacheQuery struct {
	Path      Path
	Recursive bool
	Filter    CacheFilter
	Place     CachePlace
	PageSize  int // 0 is the maximum, MaxListPage
	PageToken string
}

// CachedFile is an entry and what is cached of the version that readers see. Of a
// directory only Path and Type are set.
type CachedFile struct {
	Path         Path
	Type         FileType
	Length       int64 // bytes that the filter asks for
	Blocks       int64
	CachedBytes  int64 // each block counts once
	CachedBlocks int64
	Pinned       bool
	Nodes        []NodeShare
}

// NodeShare is what one node holds of a file.
type NodeShare struct {
	Node   string // its name
	Tier   string // its tiers
	Blocks int64
	Bytes  int64
}

// CachePage is a page of what is cached.
type CachePage struct {
	Files         []CachedFile
	NextPageToken string // "" on the last page
}

// FreeQuery asks to drop the cached blocks of files.
type FreeQuery struct {
	Path      Path
	Recursive bool
	Filter    CacheFilter // FirstBytes is not used: files are freed whole
	DryRun    bool
}

// FreeResult is what was dropped.
type FreeResult struct {
	Files    int64 // of which something was cached
	Copies   int64 // of blocks, on all nodes
	Bytes    int64 // of the copies
	Pending  int64 // copies that nodes did not report to be gone yet
	Refused  int64 // files that stay
	Refusals []FileFailure
}
