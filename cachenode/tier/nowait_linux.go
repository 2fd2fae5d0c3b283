package tier

import (
	"os"

	"golang.org/x/sys/unix"
)

// readCached reads what lies in the system's page cache, and never waits for the
// disk. ok is false if not all of p could be read so.
func (d *disk) readCached(f *os.File, p []byte, off int64) (ok bool) {
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{p}, off, unix.RWF_NOWAIT) //nolint:gosec // a file descriptor is small
	return err == nil && n == len(p)
}

// inMemory reports whether the directory is on a file system that has no disk.
func inMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// allocate takes the space of a file of that size.
func allocate(f *os.File, size int64) error {
	return unix.Fallocate(int(f.Fd()), 0, 0, size) //nolint:gosec // a file descriptor is small
}
