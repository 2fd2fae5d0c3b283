package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	pace "golang.org/x/time/rate"
)

// linkFlag makes this program a link to the address behind it: what goes through it in
// either direction is at most linkSpeed in all.
const linkFlag = "-link"

const (
	// linkSpeed is that of a link of 2 Gbit/s, in bytes per second: a region's share of what
	// a storage gives that is not on the same machine. Without a link the storage's server
	// and its readers share two CPUs, which are then what bounds both sides.
	linkSpeed = 250_000_000
	linkPiece = 128 << 10
)

// serveLink serves until its input ends.
func serveLink(to string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
		_ = l.Close()
	}()
	up, down := pace.NewLimiter(linkSpeed, 2*linkPiece), pace.NewLimiter(linkSpeed, 2*linkPiece)
	for {
		from, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = from.Close() }() // nothing to be done about it
			at, err := net.Dial("tcp", to)      //nolint:noctx // at once
			if err != nil {
				return
			}
			defer func() { _ = at.Close() }()
			go pass(at, from, up)
			pass(from, at, down)
		}()
	}
}

// pass hands bytes on until their end. The kernel moves them, so that a link costs little.
func pass(to, from net.Conn, limit *pace.Limiter) {
	for {
		n, err := io.CopyN(to, from, linkPiece)
		if n > 0 {
			_ = limit.WaitN(context.Background(), int(n)) // it has room for as many
		}
		if err != nil {
			if half, ok := to.(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			return
		}
	}
}

// startLink starts a link in a process of its own and returns its address.
func startLink(ctx context.Context, to string) (addr string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, linkFlag, to) //nolint:gosec // this very program
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return strings.TrimSpace(line), stop, nil
}
