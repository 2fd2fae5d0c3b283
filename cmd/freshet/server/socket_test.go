package server_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/server"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/rpc/local"
)

// shortDir is a directory whose path leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fs-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestASocketIsGuardedByItsMode(t *testing.T) {
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	dir := shortDir(t)
	path := filepath.Join(dir, "run", "s")
	for range 2 { // the second time over what the first one left
		closeSocket, err := server.OpenSocket(t.Context(), config.Listen{Socket: path, SocketMode: "0620", SocketUsers: "0, 12345"})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != os.ModeSocket|0o620 {
			t.Fatalf("%v, %v", info, err)
		}
		c, err := net.DialUnix(local.Network, nil, &net.UnixAddr{Name: path, Net: local.Network})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		closeSocket()
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestASocketTakesNothingFromOthers(t *testing.T) {
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	dir := shortDir(t)
	file, served := filepath.Join(dir, "f"), filepath.Join(dir, "s")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	closeSocket, err := server.OpenSocket(t.Context(), config.Listen{Socket: served, SocketMode: "0600"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSocket()
	for name, tc := range map[string]struct {
		l    config.Listen
		kind freshet.Kind
	}{
		"a file":                  {config.Listen{Socket: file, SocketMode: "0600"}, freshet.KindConflict},
		"another process's":       {config.Listen{Socket: served, SocketMode: "0600"}, freshet.KindConflict},
		"a directory in the way":  {config.Listen{Socket: filepath.Join(file, "s"), SocketMode: "0600"}, freshet.KindUnavailable},
		"a user that is not here": {config.Listen{Socket: served + "2", SocketMode: "0600", SocketUsers: "no such user"}, freshet.KindInvalid},
		"a group that is not":     {config.Listen{Socket: served + "2", SocketMode: "0600", SocketGroup: "no such group"}, freshet.KindInvalid},
	} {
		if _, err := server.OpenSocket(t.Context(), tc.l); freshet.KindOf(err) != tc.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Error("the file was replaced")
	}
}
