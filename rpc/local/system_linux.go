package local

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
)

// Supported says whether this system has what a local read needs.
const Supported = true

// peerUser returns who is at the other end, as the kernel knows it.
func peerUser(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// rights makes the control message that passes a descriptor.
func rights(f *os.File) []byte { return unix.UnixRights(int(f.Fd())) }

// rightsRoom is more than one descriptor needs, so that one too many is noticed.
func rightsRoom() []byte { return make([]byte, unix.CmsgSpace(4*4)) }

// readMessage reads a datagram and the descriptors that came with it.
func readMessage(c *net.UnixConn, b, control []byte) (n int, fds []int, err error) {
	n, cn, flags, _, err := c.ReadMsgUnix(b, control)
	if cn > 0 {
		messages, perr := syscall.ParseSocketControlMessage(control[:cn])
		for i := range messages {
			if got, rerr := syscall.ParseUnixRights(&messages[i]); rerr == nil {
				fds = append(fds, got...)
			}
		}
		err = errors.Join(err, perr)
	}
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = freshet.Errorf(freshet.KindCorrupt, "read message", "", "the message is too long")
	}
	if err != nil {
		closeAll(fds)
		return 0, nil, err
	}
	return n, fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was done with it
	}
}

// stampOf returns the stamp of an open file.
func stampOf(fd int) (freshet.FileStamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return freshet.FileStamp{}, err
	}
	return freshet.FileStamp{Inode: st.Ino, Size: st.Size, ModTime: st.Mtim.Nano(), ChangeTime: st.Ctim.Nano()}, nil
}

// readFull fills p from off.
func readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errShort
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
