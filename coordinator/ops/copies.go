package ops

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/ufs"
)

const (
	// maxCopies bounds the unpersisted files of a directory whose versions in the storage
	// are looked up when it is renamed by copying, and parallelLooks how many at a time.
	maxCopies     = 10_000
	parallelLooks = 8
)

// original is what the storage has under an unpersisted file below a directory that is renamed
// by copying.
type original struct {
	file freshet.FileID
	key  string // below the directory, with the slash before it
	st   ufs.Status
}

// move renames in the storage, and returns what that left under the unpersisted files of a
// directory that was copied.
func (e *Engine) move(ctx context.Context, at place, p freshet.Path) (st ufs.Status, under []namespace.Beneath, err error) {
	var of []original
	if kept, dir, err := e.keptAt(p); err == nil && kept && dir && !at.fs.Features().AtomicRename {
		of = e.originals(ctx, at)
	}
	if st, err = at.fs.Rename(ctx, at.key, at.key2); err != nil {
		return st, nil, err
	}
	return st, copies(ctx, at, of), nil
}

// originals returns what lies under the unpersisted files below at.key, where it still is
// what they were written over. What can't be seen is left out: such files are in conflict
// when they are persisted.
func (e *Engine) originals(ctx context.Context, at place) []original {
	all, err := e.state.Unpersisted(0, func(u *namespace.Unpersisted, _ freshet.OpID) bool { return u.Beneath.Known() })
	if err != nil {
		return nil
	}
	var below []original
	for i := range all {
		rel, ok := strings.CutPrefix(all[i].Key, at.key)
		if ok && strings.HasPrefix(rel, "/") && all[i].Mount == at.mount.ID && len(below) < maxCopies {
			below = append(below, original{file: all[i].File, key: rel, st: ufs.Status{Fingerprint: all[i].Beneath}})
		}
	}
	return lookAll(ctx, at.fs, at.key, below, func(o *original, st ufs.Status) bool {
		return st.Fingerprint.SameContent(o.st.Fingerprint)
	})
}

// copies returns what the storage has under the same files below at.key2, where it is a
// copy of the original: of its length and with its writer's mark.
func copies(ctx context.Context, at place, of []original) []namespace.Beneath {
	var out []namespace.Beneath
	for _, o := range lookAll(ctx, at.fs, at.key2, of, func(o *original, st ufs.Status) bool {
		return st.Length == o.st.Length && st.Op == o.st.Op && st.Fingerprint.Known()
	}) {
		out = append(out, namespace.Beneath{File: o.file, Fingerprint: o.st.Fingerprint})
	}
	return out
}

// lookAll returns those whose status below dir is as it must be, with that.
func lookAll(ctx context.Context, fs ufs.FS, dir string, all []original, right func(*original, ufs.Status) bool) []original {
	var group errgroup.Group
	group.SetLimit(parallelLooks)
	var mu sync.Mutex
	var out []original
	for _, o := range all {
		group.Go(func() error {
			st, err := fs.Stat(ctx, dir+o.key)
			if err != nil || st.IsDir() || !right(&o, st) {
				return nil //nolint:nilerr // it is left out
			}
			o.st = st
			mu.Lock()
			defer mu.Unlock()
			out = append(out, o)
			return nil
		})
	}
	_ = group.Wait() // nobody fails
	return out
}
