package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/rpc/local"
)

// socket is the Unix socket of a cache node.
type socket struct {
	l     *net.UnixListener
	users []uint32
}

// openSocket binds the socket; nil if there is to be none. Whoever may write to its
// file may connect, so it appears under its name only when its mode is set. The file
// stays when the process ends: nobody answers at it then.
func openSocket(ctx context.Context, l config.Listen) (*socket, error) {
	if l.Socket == "" {
		return nil, nil //nolint:nilnil // the doc says so
	}
	fail := func(err error) (*socket, error) {
		return nil, freshet.Errorf(freshet.KindOf(err), "listen on socket", "", "listen.socket %s: %w", l.Socket, err)
	}
	if !local.Supported {
		return fail(freshet.Errorf(freshet.KindUnsupported, "listen", "", "local reads need Linux; remove the key"))
	}
	users, err := userIDs(l.SocketUsers)
	if err != nil {
		return fail(err)
	}
	group, err := groupID(l.SocketGroup)
	if err != nil {
		return fail(err)
	}
	mode, err := strconv.ParseUint(l.SocketMode, 8, 9)
	if err != nil {
		return fail(err)
	}
	if err := clearSocket(ctx, l.Socket); err != nil {
		return fail(err)
	}
	// Bound where nobody else gets at it first.
	if err := os.MkdirAll(filepath.Dir(l.Socket), 0o755); err != nil { //nolint:gosec // the socket's own mode guards it; the umask decides
		return fail(freshet.Errorf(freshet.KindUnavailable, "listen", "", "%w", err))
	}
	dir, err := os.MkdirTemp(filepath.Dir(l.Socket), ".")
	if err != nil {
		return fail(freshet.Errorf(freshet.KindUnavailable, "listen", "", "%w", err))
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is empty if all went well
	temp := filepath.Join(dir, "s")
	ln, err := net.ListenUnix(local.Network, &net.UnixAddr{Name: temp, Net: local.Network})
	if err != nil {
		return fail(freshet.Errorf(freshet.KindUnavailable, "listen", "", "%w", err))
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(temp, fs.FileMode(mode))
	if err == nil && group >= 0 {
		err = os.Chown(temp, -1, group)
	}
	if err == nil {
		err = os.Rename(temp, l.Socket)
	}
	if err != nil {
		_ = ln.Close()
		return fail(freshet.Errorf(freshet.KindUnavailable, "listen", "", "%w", err))
	}
	return &socket{l: ln, users: users}, nil
}

// clearSocket removes what an earlier process left, unless it is no socket or
// somebody answers at it.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return freshet.Errorf(freshet.KindUnavailable, "listen", "", "%w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return freshet.Errorf(freshet.KindConflict, "listen", "", "there is something else than a socket: remove it or give another path")
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, local.Network, path)
	if err == nil {
		_ = c.Close()
		return freshet.Errorf(freshet.KindConflict, "listen", "", "another process serves it: give each node a socket of its own")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return freshet.Errorf(freshet.KindConflict, "listen", "", "it can't be told whether another process serves it: %w", err)
	}
	return nil // the rename replaces it
}

func userIDs(list string) ([]uint32, error) {
	var ids []uint32
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		text := name
		if u, err := user.Lookup(name); err == nil {
			text = u.Uid
		}
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "listen", "", "socket_users: no user %q; give the number", name)
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}

// groupID returns -1 for no group.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	text := name
	if g, err := user.LookupGroup(name); err == nil {
		text = g.Gid
	}
	id, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, freshet.Errorf(freshet.KindInvalid, "listen", "", "socket_group: no group %q; give the number", name)
	}
	return int(id), nil
}

// close unbinds the socket; who still connects is refused.
func (s *socket) close() {
	if s != nil {
		_ = s.l.Close() // closed by its server already, most likely
	}
}

// serveSocket lends blocks of the node until ctx ends.
func (p *Process) serveSocket(ctx context.Context, s *socket, node *cachenode.Node) error {
	if s == nil {
		<-ctx.Done()
		return nil
	}
	self := node.Node()
	srv := local.NewServer(lender{node}, local.ServerOptions{
		Node: self.ID, Incarnation: self.Incarnation, Users: s.users, Log: p.Log, Metrics: p.Metrics,
	})
	return srv.Serve(ctx, s.l)
}

// lender lends blocks of a node.
type lender struct{ *cachenode.Node }

// Lend implements local.Lender.
func (l lender) Lend(ctx context.Context, req freshet.BlockRead) (local.Loan, error) {
	loan, err := l.Node.Lend(ctx, req)
	if err != nil {
		return nil, err // not a loan that is nil
	}
	return loan, nil
}

// Fetch implements local.Fetcher.
func (l lender) Fetch(ctx context.Context, req freshet.BlockRead) (local.Loan, int64, error) {
	loan, draft, have, err := l.Node.Fetch(ctx, req)
	switch {
	case err != nil:
		return nil, 0, err
	case draft != nil:
		return draft, have, nil
	}
	return loan, 0, nil
}
