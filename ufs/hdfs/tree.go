package hdfs

import (
	"context"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	defaultFileMode = 0o644
	defaultDirMode  = 0o755
)

// Mkdir implements ufs.FS. Of two who make the same directory at the same time
// both may succeed; it then belongs to the later one.
func (f *FS) Mkdir(ctx context.Context, key string, opts ufs.MkdirOptions) (ufs.Status, error) {
	const op = "mkdir"
	if err := beginWrite(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	switch st, _, found, err := f.find(ctx, op, key); {
	case err != nil:
		return ufs.Status{}, err
	case found && st.IsDir() && opts.Existing:
		return st, nil
	case found:
		return ufs.Status{}, ufs.Errorf(freshet.KindExist, op, key, "a %s is there", st.Type)
	}
	mode := opts.Mode
	if mode == 0 {
		mode = defaultDirMode
	}
	made, err := f.missing(ctx, op, key, opts.Owner, opts.Group)
	if err == nil {
		err = f.mkdirs(ctx, op, key, f.path(key), mode)
	}
	if err == nil {
		err = f.give(ctx, op, made, opts.Owner, opts.Group)
	}
	if err != nil {
		return ufs.Status{}, err
	}
	st, _, err := f.stat(ctx, op, key)
	return st, err
}

// missing returns the directories that are to be made for dir, dir among them, from
// the top; none where nobody is to get them.
func (f *FS) missing(ctx context.Context, op, dir, owner, group string) (made []string, err error) {
	if owner == "" && group == "" {
		return nil, nil
	}
	for ; dir != ""; dir = ufs.ParentKey(dir) {
		_, _, found, err := f.find(ctx, op, dir)
		if found || err != nil {
			slices.Reverse(made)
			return made, err
		}
		made = append(made, dir)
	}
	slices.Reverse(made)
	return made, nil
}

// give gives new directories to an owner and a group. What HDFS refuses to give
// away is removed again.
func (f *FS) give(ctx context.Context, op string, made []string, owner, group string) error {
	for _, dir := range made {
		err := f.setAttr(ctx, op, dir, f.path(dir), heirs(owner, group))
		if err == nil {
			continue
		}
		if !freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable) {
			for _, left := range slices.Backward(made) {
				if rerr := f.Remove(ctx, left, ufs.RemoveOptions{}); rerr != nil {
					f.log.Warn("a directory that could not be given to its owner may be left behind", "error", rerr)
					break
				}
			}
		}
		return err
	}
	return nil
}

// heirs are the attributes of what is given to an owner and a group; "" leaves one.
func heirs(owner, group string) (a ufs.Attr) {
	if owner != "" {
		a.Owner = &owner
	}
	if group != "" {
		a.Group = &group
	}
	return a
}

func (f *FS) mkdirs(ctx context.Context, op, key, path string, mode uint32) error {
	err := f.call(ctx, op, key, idempotent, func(c *client, _ bool) error { return c.mkdirs(path, mode&permBits) })
	if freshet.IsKind(err, freshet.KindExist) {
		return ufs.Errorf(freshet.KindConflict, op, key, "a file is where a directory should be")
	}
	return err
}

// makeParents makes the directories above key, for an owner and a group if they are
// not "".
func (f *FS) makeParents(ctx context.Context, op, key, owner, group string) error {
	dir := ufs.ParentKey(key)
	made, err := f.missing(ctx, op, dir, owner, group)
	if err == nil {
		err = f.mkdirs(ctx, op, key, f.path(dir), defaultDirMode)
	}
	if err == nil {
		err = f.give(ctx, op, made, owner, group)
	}
	return err
}

// Remove implements ufs.FS. It is one call, however much there is below key. It
// does not use the trash of HDFS.
func (f *FS) Remove(ctx context.Context, key string, opts ufs.RemoveOptions) error {
	const op = "remove"
	if err := beginWrite(ctx, op, key); err != nil {
		return err
	}
	found := false
	err := f.call(ctx, op, key, once, func(c *client, _ bool) (err error) {
		found, err = c.remove(f.path(key), opts.Recursive)
		return err
	})
	switch {
	case isNotDir(err), err == nil && !found:
		return absent(op, key)
	case isException(err, "PathIsNotEmptyDirectoryException"):
		return f.notEmpty(ctx, op, key)
	}
	return err
}

// notEmpty says why a directory is not removed: what it holds need not be in a
// listing.
func (f *FS) notEmpty(ctx context.Context, op, key string) error {
	for _, err := range f.List(ctx, key, ufs.ListOptions{}) {
		if err != nil {
			break
		}
		return ufs.Errorf(freshet.KindConflict, op, key, "the directory is not empty")
	}
	return ufs.Errorf(freshet.KindConflict, op, key, "the directory is not empty: it may hold files of uploads that have not ended; try again, or remove it recursively")
}

// Rename implements ufs.FS.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	const op = "rename"
	if err := beginWrite(ctx, op, from); err != nil {
		return ufs.Status{}, err
	}
	if err := beginWrite(ctx, op, to); err != nil {
		return ufs.Status{}, err
	}
	if strings.HasPrefix(to, from+"/") {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, from, "cannot move %q into its own subtree %q", from, to)
	}
	src, id, err := f.stat(ctx, op, from)
	if err != nil || from == to {
		return src, err
	}
	switch kind, why := src.Unusable(); {
	case kind != freshet.KindOK:
		return ufs.Status{}, ufs.Errorf(kind, op, from, "%s", why)
	}
	if err := f.move(ctx, op, from, to, src.IsDir()); err != nil {
		return ufs.Status{}, err
	}
	src.Key = to // a rename keeps the inode and its times
	st, now, err := f.stat(ctx, op, to)
	if err != nil || now != id { // somebody was quicker: what was moved is all that is known
		return src, nil //nolint:nilerr // the move succeeded
	}
	return st, nil
}

// move renames, without replacing anything if a directory moves: HDFS would put it
// in the place of an empty one.
func (f *FS) move(ctx context.Context, op, from, to string, isDir bool) error {
	if err := f.replaceable(ctx, op, to, isDir); err != nil {
		return err
	}
	rename := func() error {
		return f.call(ctx, op, from, once, func(c *client, _ bool) error { return c.rename(f.path(from), f.path(to), !isDir) })
	}
	err := rename()
	if freshet.IsKind(err, freshet.KindNotExist) {
		if _, _, err := f.stat(ctx, op, from); err != nil {
			return err
		}
		if err := f.makeParents(ctx, op, to, "", ""); err != nil {
			return err
		}
		err = rename()
	}
	if err == nil || answeredKind(err) {
		return err
	}
	if blocked := f.replaceable(ctx, op, to, isDir); freshet.IsKind(blocked, freshet.KindConflict) {
		return blocked // came between
	}
	return err
}

// answeredKind reports whether err tells what was wrong.
func answeredKind(err error) bool {
	return !freshet.IsKind(err, freshet.KindUnavailable)
}

// replaceable looks at what a write to key would replace: a regular file, or
// nothing. A directory never replaces anything.
func (f *FS) replaceable(ctx context.Context, op, key string, byDir bool) error {
	st, _, found, err := f.find(ctx, op, key)
	if err != nil || !found {
		return err
	}
	switch kind, why := st.Unusable(); {
	case st.IsDir():
		return ufs.Errorf(freshet.KindConflict, op, key, "is a directory")
	case byDir:
		return ufs.Errorf(freshet.KindConflict, op, key, "a file is there")
	case kind != freshet.KindOK:
		return ufs.Errorf(kind, op, key, "%s", why)
	}
	return nil
}

// SetAttr implements ufs.FS.
func (f *FS) SetAttr(ctx context.Context, key string, attr ufs.Attr) (ufs.Status, error) {
	const op = "setattr"
	if err := begin(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	if ufs.IsTemp(key) {
		return ufs.Status{}, absent(op, key)
	}
	if err := f.setAttr(ctx, op, key, f.path(key), attr); err != nil {
		return ufs.Status{}, err
	}
	st, _, err := f.stat(ctx, op, key)
	return st, err
}

func (f *FS) setAttr(ctx context.Context, op, key, path string, attr ufs.Attr) error {
	err := f.call(ctx, op, key, idempotent, func(c *client, _ bool) error {
		if attr.Owner != nil || attr.Group != nil {
			if err := c.chown(path, attr.Owner, attr.Group); err != nil {
				return err
			}
		}
		if attr.Mode != nil {
			return c.chmod(path, *attr.Mode&permBits)
		}
		return nil
	})
	if isNotDir(err) {
		return absent(op, key)
	}
	return err
}
