package local

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// List implements ufs.FS. It holds the names of one directory at a time, and of
// those above it.
func (f *FS) List(ctx context.Context, dir string, opts ufs.ListOptions) iter.Seq2[ufs.Status, error] {
	return func(yield func(ufs.Status, error) bool) {
		w := walk{ctx: ctx, fs: f, opts: opts, yield: yield}
		if err := w.list(dir); err != nil && !errors.Is(err, errStopped) {
			yield(ufs.Status{}, err)
		}
	}
}

var errStopped = errors.New("the caller has seen enough")

// walk is one listing.
type walk struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call
	fs    *FS
	opts  ufs.ListOptions
	yield func(ufs.Status, error) bool
	raw   unix.Stat_t // of the entry at hand
	above []place     // directories from the root of the listing to the one at hand
}

// place identifies a directory, to see a link that leads back to it.
type place struct{ dev, ino uint64 }

func (w *walk) list(dir string) error {
	const op = "list"
	if err := begin(w.ctx, op, dir); err != nil {
		return err
	}
	st, err := w.fs.stat(op, dir)
	switch {
	case err != nil:
		return err
	case st.Special == specialLeaves:
		return ufs.Errorf(freshet.KindPermission, op, dir, "symlink leaves the mount root")
	case !st.IsDir():
		return ufs.Errorf(freshet.KindConflict, op, dir, "is not a directory")
	}
	d, err := w.fs.openDir(dir)
	if err != nil {
		return w.fs.fail(op, dir, err)
	}
	defer d.Close() //nolint:errcheck // nothing was written
	return w.directory(dir, d)
}

// openDir opens a directory under the rules of the root, and then once more: of a
// file that os.Root opened, ReadDir asks for the status of every entry.
func (f *FS) openDir(key string) (*os.File, error) {
	d, err := f.root.OpenFile(name(key), os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // nothing was written
	return openAt(int(d.Fd()), ".", key)
}

// openAt opens the directory base, never a link, in the directory open as fd.
func openAt(fd int, base, key string) (*os.File, error) {
	sub, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(sub), key), nil
}

// entry is a name in a directory with what its type says of its place in the
// order. A link is looked at before the directory is sorted.
type entry struct {
	sortName string // with a "/" after it for a directory
	link     *ufs.Status
}

func (e entry) isDir() bool  { return strings.HasSuffix(e.sortName, "/") }
func (e entry) name() string { return strings.TrimSuffix(e.sortName, "/") }

// directory lists the open directory d of key dir.
func (w *walk) directory(dir string, d *os.File) error {
	entries, err := w.entries(dir, d)
	if err != nil {
		return err
	}
	if w.opts.Recursive {
		s, err := fstat(d)
		if err != nil {
			return w.fs.fail("list", dir, err)
		}
		w.above = append(w.above, place{s.dev, s.ino})
		defer func() { w.above = w.above[:len(w.above)-1] }()
	}
	prefix := dir
	if dir != "" {
		prefix += "/"
	}
	fd := int(d.Fd())
	for i, e := range entries {
		if i%128 == 0 {
			if err := ufs.ContextError(w.ctx, "list", dir); err != nil {
				return err
			}
		}
		if err := w.entry(fd, prefix, e); err != nil {
			return err
		}
	}
	return nil
}

// entries returns what is in d, in order.
func (w *walk) entries(dir string, d *os.File) ([]entry, error) {
	found, err := d.ReadDir(-1)
	if err != nil {
		return nil, w.fs.fail("list", dir, err)
	}
	if len(found) == 0 && dir == "" && w.fs.gone() {
		return nil, w.fs.removed("list")
	}
	entries := make([]entry, 0, len(found))
	for _, de := range found {
		e := entry{sortName: de.Name()}
		switch {
		case strings.HasPrefix(e.sortName, ufs.TempPrefix):
			continue
		case de.IsDir():
			e.sortName += "/"
		case de.Type()&fs.ModeSymlink != 0:
			st, err := w.fs.stat("list", ufs.JoinKey(dir, e.sortName))
			if freshet.IsKind(err, freshet.KindNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if e.link = &st; st.IsDir() {
				e.sortName += "/"
			}
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.sortName, b.sortName) })
	return entries, nil
}

// entry yields one entry of the directory open as fd and, if asked for, what is
// below it.
func (w *walk) entry(fd int, prefix string, e entry) error {
	sortKey := prefix + e.sortName
	wanted := sortKey > w.opts.StartAfter
	deeper := w.opts.Recursive && e.isDir() && (wanted || strings.HasPrefix(w.opts.StartAfter, sortKey))
	if !wanted && !deeper {
		return nil
	}
	key := sortKey[:len(prefix)+len(e.name())]
	st, ok, err := w.look(fd, key, e)
	if err != nil || !ok {
		return err
	}
	if deeper && st.IsDir() {
		return w.descend(fd, key, e, st, wanted)
	}
	if wanted && !w.yield(st, nil) {
		return errStopped
	}
	return nil
}

// look returns the status of an entry; not ok if it is gone by now.
func (w *walk) look(fd int, key string, e entry) (st ufs.Status, ok bool, err error) {
	if e.link != nil {
		return *e.link, true, nil
	}
	if err := unix.Fstatat(fd, e.name(), &w.raw, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			return st, false, nil // removed since the directory was read
		}
		return st, false, w.fs.fail("list", key, err)
	}
	s := fromUnix(&w.raw)
	if s.isDir() != e.isDir() || s.isLink() {
		return st, false, ufs.Errorf(freshet.KindUnavailable, "list", key, "replaced by something of another type while it was listed; list again")
	}
	return w.fs.status(key, s), true, nil
}

// descend yields the directory key, if wanted, and lists it.
func (w *walk) descend(fd int, key string, e entry, st ufs.Status, wanted bool) error {
	var d *os.File
	var err error
	if e.link != nil {
		d, err = w.fs.openDir(key)
	} else {
		d, err = openAt(fd, e.name(), key)
	}
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return w.fs.fail("list", key, err)
	}
	defer d.Close() //nolint:errcheck // nothing was written
	s, err := fstat(d)
	if err != nil {
		return w.fs.fail("list", key, err)
	}
	if slices.Contains(w.above, place{s.dev, s.ino}) {
		st.Special, st.Type = specialLoop, freshet.TypeFile
	}
	if wanted && !w.yield(st, nil) {
		return errStopped
	}
	if st.Special != "" {
		return nil
	}
	return w.directory(key, d)
}
