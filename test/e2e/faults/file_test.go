package faults_test

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// file is a file that one writer changes and everybody reads. A file whose last change
// has an unknown outcome is not changed again.
type file struct {
	id    string // what its pages name; it stays when it is renamed
	owner *e2e.Region

	mu     sync.Mutex
	path   freshet.Path
	moves  int               // renames and removals that have begun
	moving bool              // one of them has not ended
	acked  uint64            // the newest version that was acknowledged; 0: none
	issued uint64            // the newest that was begun
	write  freshet.WriteType // of acked
	// refused are versions of which it was said that nothing was written.
	refused   map[uint64]error
	refusedAt time.Time              // of the last one
	seen      map[*e2e.Region]uint64 // the newest version that somebody read
	there     map[*e2e.Region]bool   // somebody read it at its path

	removed bool
	doubt   doubt
	history []string // what was done, and what was the first read of each version
}

// note adds to the history, with mu held.
func (f *file) note(format string, args ...any) {
	f.history = append(f.history, time.Now().UTC().Format("15:04:05.000")+" "+fmt.Sprintf(format, args...))
}

// doubt is what may also be true of a file.
type doubt struct {
	version uint64       // it may have this one instead
	path    freshet.Path // it may be there instead
	removed bool         // it may not exist
}

func newFile(owner *e2e.Region, p freshet.Path) *file {
	return &file{id: string(p), owner: owner, path: p, refused: map[uint64]error{}, seen: map[*e2e.Region]uint64{}, there: map[*e2e.Region]bool{}}
}

// content is that of a version: of one block, several, or a part of one.
func (f *file) content(version uint64) []byte {
	return e2e.Content(f.id, version, f.size(version))
}

func (f *file) size(version uint64) int {
	switch version % 5 {
	case 0:
		return 3<<20 + int(version)
	case 1:
		return 4096 + int(version)
	default:
		return 300_000 + 90_000*int(version%4)
	}
}

// view is what a reader may expect of a file before it reads.
type view struct {
	f     *file
	r     *e2e.Region
	path  freshet.Path
	moves int
	least uint64 // if it exists
	there bool   // it must exist
	asked time.Time
	by    string // the way in which it is read
}

func (f *file) look(r *e2e.Region) view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := view{f: f, r: r, path: f.path, moves: f.moves, least: f.seen[r], there: f.there[r], asked: time.Now()}
	if r == f.owner {
		v.least, v.there = max(v.least, f.acked), v.there || f.acked > 0
	}
	v.there = v.there && !f.moving
	return v
}

// judge returns what is wrong with an answer, if anything: data from off on, of a
// file of length bytes (negative: not known).
func (v *view) judge(off int64, data []byte, length int64) error {
	f := v.f
	got, err := e2e.VersionOf(f.id, off, data)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", v.path, v.r.Name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	broken := func(format string, args ...any) error {
		err := fmt.Errorf("%s (%s) in %s: "+format, append([]any{v.path, f.id, v.r.Name}, args...)...)
		return fmt.Errorf("%w%s", err, v.told())
	}
	switch refused, ok := f.refused[got]; {
	case ok:
		return broken("version %d, of which was said: %w", got, refused)
	case got > f.issued || got == 0:
		return broken("version %d, which nobody wrote", got)
	case got < v.least:
		return broken("version %d after version %d", got, v.least)
	case length >= 0 && length != int64(f.size(got)):
		return broken("%d bytes of version %d, which has %d", length, got, f.size(got))
	case off+int64(len(data)) > int64(f.size(got)):
		return broken("bytes beyond the end of version %d", got)
	}
	if got > f.seen[v.r] {
		f.seen[v.r] = got
		f.note("version %d was read in %s by %s", got, v.r.Name, v.by)
	}
	f.there[v.r] = f.there[v.r] || v.path == f.path && v.moves == f.moves && !f.moving // who asked during a rename read the old path
	return nil
}

// told returns the file's history for a message, with the file's mu held.
func (v *view) told() string {
	return fmt.Sprintf("\n\tasked at %s\n\t%s", v.asked.UTC().Format("15:04:05.000"), strings.Join(v.f.history, "\n\t"))
}

// leave notes that the file is about to leave its path.
func (f *file) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("it is about to leave %s", f.path)
	f.moves++
	f.moving = true
}

// abandoned bounds for how long a write stays open that a leader began as it lost its place,
// so that nobody was told: it has a minute to start, and is given up then.
const abandoned = 70 * time.Second

// mayBeWritten returns how a rename may be refused: while a write that nobody is at any more
// is open, the file is being written.
func (f *file) mayBeWritten() []freshet.Kind {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusedAt.IsZero() || time.Since(f.refusedAt) > abandoned {
		return nil
	}
	return []freshet.Kind{freshet.KindConflict}
}

// judgeError returns what is wrong with a failure, if anything: errors of the moment
// are not, a file that is denied is.
func (v *view) judgeError(err error) error {
	switch freshet.KindOf(err) { //nolint:exhaustive // all others are wrong
	case freshet.KindUnavailable, freshet.KindDeadline, freshet.KindStale, freshet.KindExhausted, freshet.KindNotLeader:
		return nil
	case freshet.KindNotExist:
		v.f.mu.Lock()
		moved := !v.there || v.moves != v.f.moves
		v.f.mu.Unlock()
		if moved {
			return nil
		}
	}
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	return fmt.Errorf("%s (%s) in %s, of which version %d is known: %w%s", v.path, v.f.id, v.r.Name, v.least, err, v.told())
}
