package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.Xattrs = (*FS)(nil)

// withFile opens the file or directory at key and calls do with it: what is done to
// an open file can't be led out of the root by a link that comes meanwhile.
func (f *FS) withFile(ctx context.Context, op, key string, do func(file *os.File, s stat) error) error {
	if err := begin(ctx, op, key); err != nil {
		return err
	}
	st, err := f.stat(op, key) // before the open: to open a device may do something
	if err != nil {
		return err
	}
	if kind, why := st.Unusable(); kind != freshet.KindOK {
		return ufs.Errorf(kind, op, key, "%s", why)
	}
	file, err := f.root.OpenFile(name(key), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a fifo must not block
	if err != nil {
		return f.fail(op, key, err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	s, err := fstat(file)
	switch {
	case err != nil:
		return f.fail(op, key, err)
	case !s.isFile() && !s.isDir():
		return ufs.Errorf(freshet.KindConflict, op, key, "is a %s", s.special())
	}
	return do(file, s)
}

// getxattr returns an attribute of an open file.
func getxattr(file *os.File, name string) ([]byte, error) {
	return readXattr(func(value []byte) (int, error) {
		return unix.Fgetxattr(int(file.Fd()), name, value) //nolint:gosec // a file descriptor
	})
}

// xattrAt returns an attribute of what is at a path, of a link itself.
func xattrAt(path, name string) ([]byte, error) {
	return readXattr(func(value []byte) (int, error) { return unix.Lgetxattr(path, name, value) })
}

func readXattr(read func(value []byte) (int, error)) ([]byte, error) {
	for size := 256; ; {
		value := make([]byte, size)
		n, err := read(value)
		if err == nil {
			return value[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size >= freshet.MaxXattr {
			return nil, err
		}
		size = freshet.MaxXattr
	}
}

// listxattr returns the names of the attributes of users of an open file.
func listxattr(file *os.File) ([]string, error) {
	for size := 1024; ; {
		list := make([]byte, size)
		n, err := unix.Flistxattr(int(file.Fd()), list) //nolint:gosec // a file descriptor
		if errors.Is(err, unix.ERANGE) && size < freshet.MaxXattr {
			size = freshet.MaxXattr
			continue
		}
		if err != nil {
			return nil, err
		}
		var names []string
		for name := range bytes.SplitSeq(list[:n], []byte{0}) {
			if ufs.IsUserXattr(string(name)) {
				names = append(names, string(name))
			}
		}
		return names, nil
	}
}

// failXattr turns an error about attributes into that of the contract.
func (f *FS) failXattr(op, key, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODATA):
		return ufs.Errorf(freshet.KindNotExist, op, key, "has no attribute %s", name)
	case errors.Is(err, unix.EEXIST):
		return ufs.Errorf(freshet.KindExist, op, key, "has the attribute %s already", name)
	case errors.Is(err, unix.EOPNOTSUPP):
		return ufs.Errorf(freshet.KindUnsupported, op, key, "the file system of the mount keeps no such attributes")
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.E2BIG):
		return ufs.Errorf(freshet.KindInvalid, op, key, "the attributes are larger than the file system takes")
	case errors.Is(err, unix.ENOSPC):
		return ufs.Errorf(freshet.KindExhausted, op, key, "the file system has no room for the attribute: it is full, or the attributes of one file are bounded")
	}
	return f.fail(op, key, err)
}

// Xattrs implements ufs.Xattrs.
func (f *FS) Xattrs(ctx context.Context, key string) (map[string][]byte, error) {
	const op = ufs.OpXattrs
	all := map[string][]byte{}
	err := f.withFile(ctx, op, key, func(file *os.File, _ stat) error {
		names, err := listxattr(file)
		if err != nil {
			return f.failXattr(op, key, "", err)
		}
		for _, name := range names {
			value, err := getxattr(file, name)
			if errors.Is(err, unix.ENODATA) {
				continue // removed meanwhile
			}
			if err != nil {
				return f.failXattr(op, key, name, err)
			}
			all[name] = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// SetXattr implements ufs.Xattrs.
func (f *FS) SetXattr(ctx context.Context, key, name string, value []byte, when freshet.XattrWhen) error {
	const op = ufs.OpSetXattr
	if err := freshet.CheckXattrName(op, freshet.Path(key), name); err != nil {
		return err
	}
	flags := 0
	switch when {
	case freshet.XattrAlways:
	case freshet.XattrCreate:
		flags = unix.XATTR_CREATE
	case freshet.XattrReplace:
		flags = unix.XATTR_REPLACE
	}
	return f.withFile(ctx, op, key, func(file *os.File, _ stat) error {
		return f.failXattr(op, key, name, unix.Fsetxattr(int(file.Fd()), name, value, flags)) //nolint:gosec // a file descriptor
	})
}

// RemoveXattr implements ufs.Xattrs.
func (f *FS) RemoveXattr(ctx context.Context, key, name string) error {
	const op = ufs.OpRemoveXattr
	if err := freshet.CheckXattrName(op, freshet.Path(key), name); err != nil {
		return err
	}
	return f.withFile(ctx, op, key, func(file *os.File, _ stat) error {
		return f.failXattr(op, key, name, unix.Fremovexattr(int(file.Fd()), name)) //nolint:gosec // a file descriptor
	})
}
