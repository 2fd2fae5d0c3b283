package local

import "golang.org/x/sys/unix"

// isMountPoint reports whether path is the root of a mounted file system, also of
// a bind mount.
func isMountPoint(path string) bool {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, 0, &s); err != nil {
		return false
	}
	return s.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
