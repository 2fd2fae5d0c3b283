package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// Mkdir implements ufs.FS.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	const op = "mkdir"
	if err := beginWrite(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	to, err := heirOf(op, key, opts.Owner, opts.Group)
	if err != nil {
		return ufs.Status{}, err
	}
	existed, err := f.makeParents(op, key, to)
	if err != nil {
		return ufs.Status{}, err
	}
	mode := opts.Mode
	if mode == 0 {
		mode = defaultDirMode
	}
	switch err := f.root.Mkdir(key, fileMode(mode)); {
	case errors.Is(err, syscall.EEXIST):
		st, err := f.stat(op, key)
		if err == nil && (!st.IsDir() || !opts.Existing) {
			return ufs.Status{}, ufs.Errorf(freshet.KindExist, op, key, "a %s is there", st.Type)
		}
		return st, err
	case err != nil:
		return ufs.Status{}, f.fail(op, key, err)
	}
	if !to.nobody() {
		if err := f.root.Lchown(key, to.uid, to.gid); err != nil {
			f.removeEmpty(key, existed)
			return ufs.Status{}, f.fail(op, key, err)
		}
	}
	if err := f.syncUp(key, existed); err != nil {
		return ufs.Status{}, f.fail(op, key, err)
	}
	return f.stat(op, key)
}

// Remove implements ufs.FS. A link goes, never what it leads to.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	const op = "remove"
	if err := beginWrite(ctx, op, key); err != nil {
		return err
	}
	info, err := f.root.Lstat(key)
	if err != nil {
		return f.fail(op, key, err)
	}
	if info.IsDir() && opts.Recursive {
		err = f.removeTree(ctx, key, opts)
	} else if err = f.root.Remove(key); errors.Is(err, syscall.ENOTEMPTY) {
		err = f.notEmpty(ctx, op, key)
	} else if err != nil {
		err = f.fail(op, key, err)
	}
	if err != nil {
		return err
	}
	if err := f.syncUp(key, ufs.ParentKey(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fail(op, key, err)
	}
	return nil
}

// notEmpty says why a directory is not removed. What it holds need not be in a
// listing that callers see: then the error names it.
func (f *FS) notEmpty(ctx context.Context, op, key string) error {
	const most = 3 // names in the error
	d, err := f.root.Open(key)
	if err != nil {
		return f.fail(op, key, err)
	}
	defer d.Close() //nolint:errcheck // nothing was written
	names, err := d.Readdirnames(-1)
	if err != nil {
		return f.fail(op, key, err)
	}
	slices.Sort(names)
	var hidden []string
	for _, n := range names {
		if strings.HasPrefix(n, ufs.TempPrefix) {
			continue
		}
		if err := ufs.ContextError(ctx, op, key); err != nil {
			return err
		}
		if st, err := f.stat(op, ufs.JoinKey(key, n)); err != nil || st.Special == "" {
			return f.fail(op, key, syscall.ENOTEMPTY)
		}
		hidden = append(hidden, n)
	}
	if len(hidden) == 0 {
		return ufs.Errorf(freshet.KindConflict, op, key, "the directory holds files of uploads that have not ended: try again, or remove it recursively")
	}
	more := ""
	if n := len(hidden) - most; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return ufs.Errorf(freshet.KindConflict, op, key, "the directory is not empty: it holds entries that are not files or directories: %s%s",
		strings.Join(hidden[:min(len(hidden), most)], ", "), more)
}

// removeTree removes a directory with all in it, also temporary files: an upload
// into a directory that is removed ends with it.
func (f *FS) removeTree(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	const op = "remove"
	d, err := f.root.Open(key)
	if err != nil {
		return f.fail(op, key, err)
	}
	defer d.Close() //nolint:errcheck // nothing was written
	for again := 0; ; again++ {
		if err := f.empty(ctx, d, key, opts); err != nil {
			return err
		}
		err := f.root.Remove(key)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
			return nil
		case !errors.Is(err, syscall.ENOTEMPTY) || again == refills:
			return f.fail(op, key, err)
		}
		if _, err := d.Seek(0, io.SeekStart); err != nil { // it was written into meanwhile
			return f.fail(op, key, err)
		}
	}
}

// refills is how often a directory that is removed with all in it may be found to have been
// written into meanwhile.
const refills = 16

// empty removes what the rest of d lists.
func (f *FS) empty(ctx context.Context, d *os.File, key string, opts ufs.RemoveOptions) error {
	const op = "remove"
	for {
		entries, err := d.ReadDir(512)
		files := 0
		for _, e := range entries {
			if err := ufs.ContextError(ctx, op, key); err != nil {
				return err
			}
			if err := f.removeEntry(ctx, ufs.JoinKey(key, e.Name()), e.IsDir(), opts); err != nil {
				return err
			}
			if !e.IsDir() {
				files++
			}
		}
		if err := opts.Tell(op, key, files); err != nil {
			return err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return f.fail(op, key, err)
		}
		if len(entries) == 0 {
			return nil
		}
	}
}

func (f *FS) removeEntry(ctx context.Context, key string, isDir bool, opts ufs.RemoveOptions) error {
	if isDir {
		err := f.removeTree(ctx, key, opts)
		if freshet.IsKind(err, freshet.KindNotExist) {
			return nil
		}
		if err == nil {
			err = opts.Tell("remove", key, 1)
		}
		return err
	}
	if err := f.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.fail("remove", key, err)
	}
	return nil
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	const op = "rename"
	if err := beginWrite(ctx, op, from); err != nil {
		return ufs.Status{}, err
	}
	if err := ufs.CheckWrite(op, to); err != nil {
		return ufs.Status{}, err
	}
	if strings.HasPrefix(to, from+"/") {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, from, "cannot move %q into its own subtree %q", from, to)
	}
	src, err := f.root.Lstat(from)
	if err != nil {
		return ufs.Status{}, f.fail(op, from, err)
	}
	if from != to {
		if err := f.move(op, from, to, src.IsDir()); err != nil {
			return ufs.Status{}, err
		}
	}
	st, err := f.stat(op, to)
	if err != nil {
		return st, err
	}
	before, after := f.status(to, fromInfo(src)).Fingerprint, st.Fingerprint
	if after.Known() && !after.Moved(before) {
		st.Fingerprint = fingerprint.Fingerprint{} // somebody was quicker: not what was moved
	}
	return st, nil
}

func (f *FS) move(op, from, to string, isDir bool) error {
	switch _, found, err := f.replaceable(op, to); {
	case err != nil:
		return err
	case found && isDir:
		return ufs.Errorf(freshet.KindConflict, op, to, "a file is there")
	}
	existed, err := f.makeParents(op, to, heir{-1, -1})
	if err != nil {
		return err
	}
	if err := f.root.Rename(from, to); err != nil {
		return f.fail(op, from, err)
	}
	err = f.syncUp(to, existed)
	if err == nil {
		err = f.syncUp(from, ufs.ParentKey(from))
	}
	if err != nil {
		return ufs.Errorf(freshet.KindUnavailable, op, from, "moved, but not known to be durable: %w", err)
	}
	return nil
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	const op = "setattr"
	if err := begin(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	if _, err := f.stat(op, key); err != nil {
		return ufs.Status{}, err
	}
	uid, gid := -1, -1
	var err error
	if attr.Owner != nil {
		uid, err = userID(*attr.Owner)
	}
	if attr.Group != nil && err == nil {
		gid, err = groupID(*attr.Group)
	}
	if err != nil {
		return ufs.Status{}, freshet.Wrap(op, freshet.Path(key), err)
	}
	if uid >= 0 || gid >= 0 {
		if err := f.root.Chown(name(key), uid, gid); err != nil {
			return ufs.Status{}, f.fail(op, key, err)
		}
	}
	if attr.Mode != nil {
		if err := f.root.Chmod(name(key), fileMode(*attr.Mode)); err != nil {
			return ufs.Status{}, f.fail(op, key, err)
		}
	}
	return f.stat(op, key)
}
