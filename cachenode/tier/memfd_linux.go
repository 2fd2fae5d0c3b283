package tier

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
)

// maxFiles bounds the blocks of a memory tier that are in files, for each takes a
// descriptor for as long as it is cached.
const maxFiles = 4096

// lend moves the block into a file in memory, if it is not in one, and opens that
// once more, for reading only. The file is sealed: nobody can change it.
func (h memoryHandle) lend() (*os.File, int64, bool, error) {
	b := h.block
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := b.lendFile(0)
	if err != nil {
		return nil, 0, false, err
	}
	if err := b.sealFile(); err != nil {
		return nil, 0, false, errors.Join(err, f.Close())
	}
	return f, 0, true, nil
}

// lend moves what has come of the block into a file in memory, where the rest will go
// too, and opens that once more.
func (d *memoryDraft) lend(length int64) (*os.File, int64, error) {
	b := d.block
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := b.lendFile(length)
	return f, 0, err
}

// lendFile is called with mu held.
func (b *memoryBlock) lendFile(length int64) (*os.File, error) {
	if b.file == nil {
		if err := b.moveToFile(length); err != nil {
			return nil, freshet.Errorf(freshet.KindExhausted, "lend block", "", "%w", err)
		}
	}
	// A descriptor of its own: whoever has it can't write by it, nor move our place in it.
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", b.file.Fd()))
	if err != nil {
		return nil, freshet.Errorf(freshet.KindUnsupported, "lend block", "", "%w", err)
	}
	return f, nil
}

// moveToFile is called with mu held.
func (b *memoryBlock) moveToFile(length int64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	b.in.moving.Lock()
	defer b.in.moving.Unlock()
	if b.in.files.Add(1) > min(maxFiles, int64(limit.Cur/8)) { //nolint:gosec // infinity makes it negative, which is few
		b.in.files.Add(-1)
		return fmt.Errorf("too many blocks in memory are lent")
	}
	f, err := b.newFile(length)
	if err != nil {
		b.in.files.Add(-1)
		return err
	}
	b.file, b.chunks = f, nil
	return nil
}

// newFile makes a file of so many bytes, of which it has those that have come.
func (b *memoryBlock) newFile(length int64) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate("freshet-block", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err != nil { // a kernel before 6.3 does not know the last flag
		fd, err = unix.MemfdCreate("freshet-block", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "block in memory")
	defer func() {
		if err != nil {
			_ = f.Close() //nolint:errcheck // nothing is in it that matters
		}
	}()
	if err := f.Chmod(0o400); err != nil {
		return nil, err
	}
	if err := f.Truncate(length); err != nil {
		return nil, err
	}
	for i, c := range b.chunks {
		if _, err := f.WriteAt(c, int64(i)*ChunkSize); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// seal makes a file that all bytes are in one that nobody can change.
func (b *memoryBlock) seal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return nil
	}
	return b.sealFile()
}

// sealFile is called with mu held.
func (b *memoryBlock) sealFile() error {
	if b.sealed {
		return nil
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	if _, err := unix.FcntlInt(b.file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	b.sealed = true
	return nil
}
