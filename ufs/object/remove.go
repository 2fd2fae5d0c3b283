package object

import (
	"context"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// checkWay looks for what makes key unusable for a file or a new directory: a
// directory there, or a file in the place of one of its parents. If anything is
// below the parent, somebody was let through before, and its own parents are not
// asked again.
func (f *FS) checkWay(ctx context.Context, op, key string) error {
	first, err := f.first(ctx, op, key, 1)
	if err != nil {
		return err
	}
	if len(first) > 0 {
		return isDirectory(op, key)
	}
	if f.limits.DirObjects {
		st, found, err := f.head(ctx, op, key)
		switch {
		case err != nil:
			return err
		case found && st.IsDir():
			return isDirectory(op, key)
		case found:
			return nil // whoever made it was let through
		}
	}
	return f.checkParents(ctx, op, key)
}

func (f *FS) checkParents(ctx context.Context, op, key string) error {
	parent := ufs.ParentKey(key)
	if parent == "" {
		return nil
	}
	first, err := f.first(ctx, op, parent, 1)
	if err != nil || len(first) > 0 {
		return err
	}
	for ; parent != ""; parent = ufs.ParentKey(parent) {
		st, found, err := f.head(ctx, op, parent)
		switch {
		case err != nil:
			return err
		case found && st.IsDir():
			return nil
		case found:
			return ufs.Errorf(freshet.KindConflict, op, key, "%q is not a directory", parent)
		}
	}
	return nil
}

// Mkdir writes the marker of a directory; its parents, if missing, exist as
// prefixes of it.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	const op = "mkdir"
	if key == "" && opts.Existing {
		return f.Stat(ctx, key)
	}
	if key == "" {
		return ufs.Status{}, ufs.Errorf(freshet.KindExist, op, key, "the root exists")
	}
	if err := ufs.CheckWrite(op, key); err != nil {
		return ufs.Status{}, err
	}
	st, found, err := f.head(ctx, op, key)
	switch {
	case err != nil:
		return ufs.Status{}, err
	case found && !st.IsDir():
		return ufs.Status{}, ufs.Errorf(freshet.KindExist, op, key, "a file is there")
	case found && opts.Existing:
		return st, nil
	case found:
		return ufs.Status{}, dirExists(op, key)
	}
	first, err := f.first(ctx, op, key, 1)
	switch {
	case err != nil:
		return ufs.Status{}, err
	case len(first) == 0:
		err = f.checkParents(ctx, op, key)
	case !opts.Existing:
		err = dirExists(op, key)
	case first[0] == f.marker(key):
		return directory(key), nil
	}
	if err != nil {
		return ufs.Status{}, err
	}
	return directory(key), f.mark(ctx, op, key)
}

func dirExists(op, key string) error {
	return ufs.Errorf(freshet.KindExist, op, key, "the directory exists")
}

// mark writes the marker of the directory key.
func (f *FS) mark(ctx context.Context, op, key string) error {
	return f.failure(ctx, op, key, f.store.Mark(ctx, f.marker(key)))
}

// Remove removes an object, or a directory with all below it. The directory that
// held it stays: where that was only a prefix, its marker is written first.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	const op = "remove"
	if err := ufs.CheckWrite(op, key); err != nil {
		return err
	}
	st, found, err := f.head(ctx, op, key)
	if err != nil {
		return err
	}
	if found && !st.IsDir() {
		return f.leaving(ctx, op, key, func() error { return f.delete(ctx, op, key, []string{f.root + key}) })
	}
	first, err := f.first(ctx, op, key, 2)
	switch {
	case err != nil:
		return err
	case len(first) == 0 && !found:
		return notExist(op, key)
	case !opts.Recursive && (len(first) > 1 || len(first) == 1 && first[0] != f.marker(key)):
		return ufs.Errorf(freshet.KindConflict, op, key, "directory is not empty")
	}
	return f.leaving(ctx, op, key, func() error { return f.deleteTree(ctx, op, key, opts) })
}

// leaving runs remove, which takes away key, so that the parent directory does
// not vanish with its last child. Removals that run beside it in the same
// directory count as done; those of other processes can't be seen.
func (f *FS) leaving(ctx context.Context, op, key string, remove func() error) error {
	parent := ufs.ParentKey(key)
	if parent == "" {
		return remove()
	}
	f.mu.Lock()
	f.removing[parent]++
	others := f.removing[parent] > 1
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.removing[parent]--; f.removing[parent] == 0 {
			delete(f.removing, parent)
		}
	}()
	marked, err := f.keep(ctx, op, parent, key, others)
	if err != nil {
		return err
	}
	if err = remove(); marked {
		return begun(err)
	}
	return err
}

// keep writes the marker of dir unless it is there, or something other than
// child is and nobody else is removing. It reports whether it did.
func (f *FS) keep(ctx context.Context, op, dir, child string, others bool) (marked bool, err error) {
	prefix := f.marker(dir)
	stays, some := false, false
	see := func(name string) {
		some = true
		stays = stays || name == prefix || !others && name != f.root+child && name != f.marker(child)
	}
	err = f.pages(ctx, op, dir, ListRequest{Prefix: prefix, Delimited: true, Max: 3}, func(p Page) (bool, error) {
		for _, o := range p.Objects {
			see(o.Name)
		}
		for _, name := range p.Prefixes {
			see(name)
		}
		return !stays && !(others && some), nil // the marker comes first
	})
	if err != nil || stays || !some { // nothing: it vanished already
		return false, err
	}
	if f.limits.DirObjects {
		if st, found, err := f.head(ctx, op, dir); err != nil || found && st.IsDir() {
			return false, err
		}
	}
	return true, f.mark(ctx, op, dir)
}

// delete removes objects by as few requests as the store needs.
func (f *FS) delete(ctx context.Context, op, key string, names []string) error {
	first := true
	for batch := range slices.Chunk(names, f.limits.DeleteBatch) {
		if err := f.failure(ctx, op, key, f.store.Delete(ctx, batch)); err != nil {
			if !first {
				err = begun(err)
			}
			return err
		}
		first = false
	}
	return nil
}

// deleteTree removes all objects below key in batches, one per page of the
// listing, each from its end to its start, and the marker of key last: the tree
// is there until nothing is in it. Objects that stand for directories go after
// all others, the inner ones first.
func (f *FS) deleteTree(ctx context.Context, op, key string, opts ufs.RemoveOptions) (err error) {
	prefix := f.marker(key)
	var dirs []string
	some := false
	defer func() {
		if some {
			err = begun(err)
		}
	}()
	err = f.pages(ctx, op, key, ListRequest{Prefix: prefix}, func(p Page) (bool, error) {
		names := make([]string, 0, len(p.Objects))
		for _, o := range slices.Backward(p.Objects) {
			switch {
			case o.Dir:
				dirs = append(dirs, o.Name)
			case o.Name != prefix:
				names = append(names, o.Name)
			}
		}
		err := f.delete(ctx, op, key, names)
		some = some || err == nil && len(names) > 0
		if err == nil {
			err = opts.Tell(op, key, len(names))
		}
		return true, err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(dirs, func(a, b string) int { return strings.Compare(b, a) })
	for _, dir := range dirs {
		if err := f.delete(ctx, op, key, []string{dir}); err != nil {
			return err
		}
		some = true
		if err := opts.Tell(op, key, 1); err != nil {
			return err
		}
	}
	if err := f.delete(ctx, op, key, []string{prefix}); err != nil || !f.limits.DirObjects {
		return err
	}
	st, found, err := f.head(ctx, op, key)
	if err != nil || !found || !st.IsDir() {
		return err
	}
	return f.delete(ctx, op, key, []string{f.root + key})
}
