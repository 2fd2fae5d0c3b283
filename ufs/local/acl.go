package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/ufs"
)

var _ ufs.ACLs = (*FS)(nil)

// The attributes in which Linux shows access control lists.
const (
	accessXattr  = "system.posix_acl_access"
	defaultXattr = "system.posix_acl_default"
)

// The form of an attribute: a version, and entries of tag, permissions and number.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8
	aclNobody    = ^uint32(0) // the number where there is none
)

// The tags, as the kernel numbers them.
const (
	tagUserObj  = 0x01
	tagUser     = 0x02
	tagGroupObj = 0x04
	tagGroup    = 0x08
	tagMask     = 0x10
	tagOther    = 0x20
)

// decodeACL reads the attribute of one scope.
func (f *FS) decodeACL(b []byte, isDefault bool) (acl.List, error) {
	if len(b) < aclHeader || binary.LittleEndian.Uint32(b) != aclVersion || (len(b)-aclHeader)%aclEntrySize != 0 {
		return nil, fmt.Errorf("an access control list of %d bytes in a form that this version of Freshet does not know", len(b))
	}
	var l acl.List
	for b = b[aclHeader:]; len(b) > 0; b = b[aclEntrySize:] {
		e := acl.Entry{Default: isDefault, Perm: acl.Perm(b[2]) & 7}
		id := binary.LittleEndian.Uint32(b[4:])
		switch tag := binary.LittleEndian.Uint16(b); tag {
		case tagUserObj:
			e.Tag = acl.User
		case tagUser:
			e.Tag, e.Name = acl.User, f.names.user(id)
		case tagGroupObj:
			e.Tag = acl.Group
		case tagGroup:
			e.Tag, e.Name = acl.Group, f.names.group(id)
		case tagMask:
			e.Tag = acl.Mask
		case tagOther:
			e.Tag = acl.Other
		default:
			return nil, fmt.Errorf("an entry of the unknown kind %d in an access control list", tag)
		}
		l = append(l, e)
	}
	return l, nil
}

// encodeACL makes the attribute of one scope, whose list is sorted.
func encodeACL(l acl.List) ([]byte, error) {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range l {
		tag, id, err := numbersOf(e)
		if err != nil {
			return nil, err
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, uint16(e.Perm))
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b, nil
}

// numbersOf returns how the kernel names whom an entry is about.
func numbersOf(e acl.Entry) (tag uint16, id uint32, err error) {
	var number int
	switch {
	case e.Tag == acl.User && e.Name != "":
		tag = tagUser
		number, err = userID(e.Name)
	case e.Tag == acl.Group && e.Name != "":
		tag = tagGroup
		number, err = groupID(e.Name)
	case e.Tag == acl.User:
		return tagUserObj, aclNobody, nil
	case e.Tag == acl.Group:
		return tagGroupObj, aclNobody, nil
	case e.Tag == acl.Mask:
		return tagMask, aclNobody, nil
	default:
		return tagOther, aclNobody, nil
	}
	return tag, uint32(number), err //nolint:gosec // below 1<<31
}

// ACL implements ufs.ACLs.
func (f *FS) ACL(ctx context.Context, key string) (l acl.List, err error) {
	err = f.withFile(ctx, ufs.OpACL, key, func(file *os.File, s stat) (err error) {
		l, err = f.aclOf(ufs.OpACL, key, file, s)
		return err
	})
	return l, err
}

func (f *FS) aclOf(op, key string, file *os.File, s stat) (acl.List, error) {
	l, found, err := f.scope(op, key, file, false)
	switch {
	case err != nil:
		return nil, err
	case !found:
		l = acl.FromMode(s.perm())
	}
	if s.isDir() {
		more, _, err := f.scope(op, key, file, true)
		if err != nil {
			return nil, err
		}
		l = append(l, more...)
	}
	return l.Sorted(), nil
}

// scope returns the list of one scope, not found where it is not extended.
func (f *FS) scope(op, key string, file *os.File, isDefault bool) (l acl.List, found bool, err error) {
	b, err := getxattr(file, scopeXattr(isDefault))
	switch {
	case errors.Is(err, unix.ENODATA):
		return nil, false, nil
	case err != nil:
		return nil, false, f.failACL(op, key, err)
	}
	if l, err = f.decodeACL(b, isDefault); err != nil {
		return nil, false, ufs.Errorf(freshet.KindUnsupported, op, key, "%w", err)
	}
	return l, true, nil
}

func scopeXattr(isDefault bool) string {
	if isDefault {
		return defaultXattr
	}
	return accessXattr
}

// ChangeACL implements ufs.ACLs. A change by another program between its look and
// its effect is overwritten, as by setfacl.
func (f *FS) ChangeACL(ctx context.Context, key string, change acl.Change) error {
	const op = ufs.OpChangeACL
	f.acls.Lock()
	defer f.acls.Unlock()
	return f.withFile(ctx, op, key, func(file *os.File, s stat) error {
		old, err := f.aclOf(op, key, file, s)
		if err != nil {
			return err
		}
		next, err := change.Apply(old, s.isDir())
		if err != nil {
			return ufs.Errorf(freshet.KindInvalid, op, key, "%w", err)
		}
		// The default scope first: it grants nobody anything by itself.
		for _, isDefault := range []bool{true, false} {
			l := next.Scope(isDefault)
			if slices.Equal(l, old.Scope(isDefault)) {
				continue
			}
			if err := f.setScope(op, key, file, isDefault, l); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *FS) setScope(op, key string, file *os.File, isDefault bool, l acl.List) error {
	fd := int(file.Fd()) //nolint:gosec // a file descriptor
	if len(l) == 0 {
		if err := unix.Fremovexattr(fd, scopeXattr(isDefault)); err != nil && !errors.Is(err, unix.ENODATA) {
			return f.failACL(op, key, err)
		}
		return nil
	}
	b, err := encodeACL(l)
	if err != nil {
		return freshet.Wrap(op, freshet.Path(key), err)
	}
	if err := unix.Fsetxattr(fd, scopeXattr(isDefault), b, 0); err != nil {
		return f.failACL(op, key, err)
	}
	return nil
}

func (f *FS) failACL(op, key string, err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return ufs.Errorf(freshet.KindUnsupported, op, key, "the file system of the mount keeps no POSIX access control lists; on some it is an option of its mount, such as acl")
	case errors.Is(err, unix.EINVAL):
		return ufs.Errorf(freshet.KindInvalid, op, key, "the file system does not take this access control list")
	}
	return f.failXattr(op, key, "", err)
}

// copyACL gives file the access scope of what is at key, which need not be readable;
// without the group, the owning group gets no right that others do not have. It
// reports whether that says more than a mode. Where it does not, file keeps none of
// what it may have got from its directory.
func (f *FS) copyACL(op, key string, file *os.File, group bool) (listed bool, err error) {
	dir, err := f.root.Open(name(ufs.ParentKey(key)))
	if err != nil {
		return false, f.fail(op, key, err)
	}
	defer dir.Close() //nolint:errcheck // nothing was written
	// The descriptor keeps the way there within the root.
	b, err := xattrAt(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), path.Base(key)), accessXattr)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	case errors.Is(err, unix.ENODATA):
		return false, f.setScope(op, key, file, false, nil)
	case err != nil: // without its list, its mode would say something else
		return false, ufs.Errorf(freshet.KindUnavailable, op, key, "the access control list of the file that is replaced can't be read; is /proc mounted? %w", err)
	}
	if !group {
		b = withoutGroup(b)
	}
	if err := unix.Fsetxattr(int(file.Fd()), accessXattr, b, 0); err != nil { //nolint:gosec // a file descriptor
		return false, f.failACL(op, key, err)
	}
	return true, nil
}

// withoutGroup returns the attribute of a list of which the owning group gets no
// right that others do not have.
func withoutGroup(b []byte) []byte {
	b = slices.Clone(b)
	var group []byte
	for at := aclHeader; at+aclEntrySize <= len(b); at += aclEntrySize { // other comes last
		switch e := b[at : at+aclEntrySize]; binary.LittleEndian.Uint16(e) {
		case tagGroupObj:
			group = e
		case tagOther:
			if group != nil {
				group[2] &= e[2]
			}
		}
	}
	return b
}
