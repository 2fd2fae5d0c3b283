package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// roomSeals keep whoever has the room from making it shorter, so that touching it
// never kills the other, and from sealing it against writes.
const roomSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

var errRoom = errors.New("the memory to share is not what it should be")

// newRoom makes memory to share and maps it for reading. The file is to be passed on
// and closed; unmapRoom gives the memory back.
func newRoom(size int) (_ *os.File, _ []byte, err error) {
	fd, err := unix.MemfdCreate("freshet-write", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err != nil { // a kernel before 6.3 does not know the last flag
		fd, err = unix.MemfdCreate("freshet-write", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "room of a write")
	defer func() {
		if err != nil {
			_ = f.Close() //nolint:errcheck // nothing is in it
		}
	}()
	if err := f.Truncate(int64(size)); err != nil {
		return nil, nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, roomSeals); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	return f, b, nil
}

// mapRoom maps what newRoom of the other process made, for writing.
func mapRoom(fd, size int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if st.Size != int64(size) || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, errRoom
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return b, os.NewSyscallError("mmap", err)
}

func unmapRoom(b []byte) { _ = unix.Munmap(b) } //nolint:errcheck // it is mapped, and nobody uses it
