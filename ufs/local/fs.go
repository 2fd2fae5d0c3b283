package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

// FS is one directory of the machine.
type FS struct {
	root          *os.Root
	dir           *os.File // the root again, to ask whether it still exists
	path          string   // real
	asNamed       string   // the path in the URI
	named         ufs.Canonical
	events        string // the option
	maxOpLifetime time.Duration
	mountPoint    bool // the root must be one
	names         owners
	replace       sync.Mutex // held over check and rename of a conditional commit
	acls          sync.Mutex // held over look and change of an access control list
}

var _ ufs.FS = (*FS)(nil)

// Features of local storage. IfMatch is checked right before the rename, which
// other processes may slip in between: ReplaceIf is false.
func (f *FS) Features() ufs.Features {
	return ufs.Features{
		Kind: "local", AtomicRename: true, RealDirectories: true, OwnerAndMode: true, CreateIfAbsent: true,
		AbortEndsEffects: true, ModTimeResolution: time.Nanosecond, MaxOpLifetime: f.maxOpLifetime, DirectoryListsSelf: true,
	}
}

// Resolve returns c with the real path of the root, unless the options name
// another domain.
func (f *FS) Resolve(c ufs.Canonical) ufs.Canonical {
	if c == f.named && c.Authority == scheme && c.DomainKey == f.asNamed {
		c.DomainKey = f.path
	}
	return c
}

// Close closes the root directory.
func (f *FS) Close() error {
	if err := errors.Join(f.dir.Close(), f.root.Close()); err != nil {
		return f.fail("close", "", err)
	}
	return nil
}

// stat is what is used of a stat_t; it is comparable.
type stat struct {
	dev, ino     uint64
	size         int64
	mode         uint32
	uid, gid     uint32
	mtime, ctime int64 // seconds
	mnsec, cnsec int64
}

func fromUnix(s *unix.Stat_t) stat {
	return stat{
		dev: uint64(s.Dev), ino: s.Ino, size: s.Size, mode: uint32(s.Mode), uid: s.Uid, gid: s.Gid, //nolint:unconvert // widths differ by system
		mtime: int64(s.Mtim.Sec), mnsec: int64(s.Mtim.Nsec), ctime: int64(s.Ctim.Sec), cnsec: int64(s.Ctim.Nsec), //nolint:unconvert // widths differ by system
	}
}

// fstat asks about an open file.
func fstat(file *os.File) (stat, error) {
	info, err := file.Stat()
	if err != nil {
		return stat{}, err
	}
	return fromInfo(info), nil
}

func (s stat) kind() uint32   { return s.mode & syscall.S_IFMT }
func (s stat) isDir() bool    { return s.kind() == syscall.S_IFDIR }
func (s stat) isFile() bool   { return s.kind() == syscall.S_IFREG }
func (s stat) isLink() bool   { return s.kind() == syscall.S_IFLNK }
func (s stat) perm() uint32   { return s.mode & 0o7777 }
func (s stat) mod() time.Time { return time.Unix(s.mtime, s.mnsec) }

func (s stat) special() string {
	switch s.kind() {
	case syscall.S_IFIFO:
		return "fifo"
	case syscall.S_IFSOCK:
		return "socket"
	case syscall.S_IFCHR, syscall.S_IFBLK:
		return "device"
	}
	return "entry of unknown type"
}

// The texts of Special for links.
const (
	specialLeaves   = ufs.SpecialLeaves
	specialDangling = "link to nothing"
	specialLoop     = "link to a directory above it"
)

// status describes what was found at key.
func (f *FS) status(key string, s stat) ufs.Status {
	owner, group := f.names.user(s.uid), f.names.group(s.gid)
	st := ufs.Status{Key: key, ModTime: s.mod(), Owner: owner, Group: group, Mode: s.perm()}
	switch {
	case s.isDir():
		st.Type = freshet.TypeDirectory
	case s.isFile():
		st.Length = s.size
		st.Fingerprint = fingerprint.Local(fingerprint.LocalFile{
			Inode: s.ino, Size: s.size, ModTime: st.ModTime, ChangeTime: time.Unix(s.ctime, s.cnsec), Owner: owner, Group: group, Mode: st.Mode,
		})
	default:
		st.Special = s.special()
	}
	return st
}

// Stat implements ufs.FS.
func (f *FS) Stat(ctx context.Context, key string) (ufs.Status, error) {
	const op = "stat"
	if err := begin(ctx, op, key); err != nil {
		return ufs.Status{}, err
	}
	return f.stat(op, key)
}

func begin(ctx context.Context, op, key string) error {
	if err := ufs.CheckKey(op, key); err != nil {
		return err
	}
	return ufs.ContextError(ctx, op, key)
}

func beginWrite(ctx context.Context, op, key string) error {
	if err := ufs.CheckWrite(op, key); err != nil {
		return err
	}
	return ufs.ContextError(ctx, op, key)
}

// name is key as os.Root wants it.
func name(key string) string {
	if key == "" {
		return "."
	}
	return key
}

func (f *FS) stat(op, key string) (ufs.Status, error) {
	if ufs.IsTemp(key) {
		return ufs.Status{}, ufs.Errorf(freshet.KindNotExist, op, key, "does not exist")
	}
	info, err := f.root.Lstat(name(key))
	if err != nil {
		return ufs.Status{}, f.fail(op, key, err)
	}
	s := fromInfo(info)
	if key == "" && info.Sys().(*syscall.Stat_t).Nlink == 0 {
		return ufs.Status{}, f.removed(op)
	}
	if s.isLink() {
		return f.followed(op, key, s)
	}
	return f.status(key, s), nil
}

// followed describes the target of the link at key, or the link itself if its
// target is out of reach.
func (f *FS) followed(op, key string, link stat) (ufs.Status, error) {
	info, err := f.root.Stat(key)
	if err == nil {
		return f.status(key, fromInfo(info)), nil
	}
	st := f.status(key, link)
	switch k, _ := kindOf(err); {
	case leavesRoot(err):
		st.Special = specialLeaves
	case k == freshet.KindNotExist:
		st.Special = specialDangling
	case errors.Is(err, syscall.ELOOP):
		st.Special = specialLoop
	default:
		return ufs.Status{}, f.fail(op, key, err)
	}
	return st, nil
}

// leavesRoot reports whether err is os.Root's refusal to follow a link: the only
// error about a valid name that does not come from the system.
func leavesRoot(err error) bool {
	var errno syscall.Errno
	return err != nil && !errors.As(err, &errno) && !errors.Is(err, fs.ErrClosed)
}

// kindOf classifies an error of the system.
func kindOf(err error) (freshet.Kind, string) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		if errors.Is(err, fs.ErrClosed) {
			return freshet.KindUnavailable, "the storage is closed"
		}
		return freshet.KindPermission, "symlink leaves the mount root"
	}
	switch errno {
	case syscall.ENOENT:
		return freshet.KindNotExist, "does not exist"
	case syscall.ENOTDIR:
		return freshet.KindNotExist, "a file is where a directory should be"
	case syscall.EEXIST:
		return freshet.KindExist, "exists"
	case syscall.ENOTEMPTY:
		return freshet.KindConflict, "the directory is not empty"
	case syscall.EISDIR:
		return freshet.KindConflict, "is a directory"
	case syscall.EROFS:
		return freshet.KindPermission, "the file system is mounted read-only"
	case syscall.EACCES, syscall.EPERM:
		return freshet.KindPermission, "the system denies it to the user that Freshet runs as"
	case syscall.ELOOP:
		return freshet.KindPermission, "too many links"
	case syscall.ENOSPC:
		return freshet.KindExhausted, "the file system is full"
	case syscall.EDQUOT:
		return freshet.KindExhausted, "the quota of the user that Freshet runs as is used up"
	case syscall.EMFILE, syscall.ENFILE, syscall.EFBIG, syscall.EMLINK:
		return freshet.KindExhausted, "a limit of the system is reached"
	case syscall.ENAMETOOLONG, syscall.EINVAL, syscall.EILSEQ:
		return freshet.KindInvalid, "the file system takes no such name"
	case syscall.EXDEV, syscall.ENOSYS, syscall.EOPNOTSUPP:
		return freshet.KindUnsupported, "the file system can't do it"
	case syscall.ENXIO, syscall.ENODEV:
		return freshet.KindConflict, "not a regular file"
	case syscall.EBUSY, syscall.ETXTBSY:
		return freshet.KindConflict, "in use by the system"
	default: // ESTALE, EIO, ETIMEDOUT, EINTR, ENOMEM, …
		return freshet.KindUnavailable, "the file system fails"
	}
}

// fail turns an error of the system into that of the contract.
func (f *FS) fail(op, key string, err error) error {
	k, text := kindOf(err)
	if k == freshet.KindNotExist && f.gone() {
		return f.removed(op)
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return &freshet.Error{Op: op, Path: freshet.Path(key), Kind: k, Err: &systemError{text, errno}}
	}
	return ufs.Errorf(k, op, key, "%s", text)
}

// systemError is an error of the system without the names that the system adds.
type systemError struct {
	text  string
	errno syscall.Errno
}

// Error adds the system's words to the text where they say more.
func (e *systemError) Error() string {
	switch e.errno { //nolint:exhaustive // those of which the text says all
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EEXIST, syscall.ENOTEMPTY, syscall.EISDIR, syscall.EROFS, syscall.ELOOP:
		return e.text
	}
	return e.text + ": " + e.errno.Error()
}

// Unwrap returns the error of the system.
func (e *systemError) Unwrap() error { return e.errno }

// gone reports whether the root directory that is open is no longer the one at its
// path: it was removed or moved, or a file system was mounted over it or unmounted
// below it. Then nothing can be found, which says nothing about what was there.
func (f *FS) gone() bool {
	info, err := f.dir.Stat()
	if err != nil || info.Sys().(*syscall.Stat_t).Nlink == 0 {
		return true
	}
	now, err := os.Stat(f.path)
	return err != nil || !os.SameFile(info, now) || f.mountPoint && !isMountPoint(f.path)
}

func (f *FS) removed(op string) error {
	return ufs.Errorf(freshet.KindUnavailable, op, "", "the root directory %s was removed, moved or mounted over while in use; restore it, or unmount it from Freshet and mount it again", f.path)
}
