package s3test

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// guardPort binds addr without listening, so that nobody else is given the port
// while the server restarts. The server's own sockets share it (SO_REUSEPORT).
func guardPort(addr string) (int, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, fmt.Errorf("s3test: server address: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, fmt.Errorf("s3test: guard socket: %w", err)
	}
	unix.CloseOnExec(fd)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}),
	)
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("s3test: guard socket: %w", err)
	}
	return fd, nil
}
