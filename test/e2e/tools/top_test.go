package tools_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestTopShowsWhatTheClusterDoes, once, as JSON, and on a terminal until a key ends it.
func TestTopShowsWhatTheClusterDoes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "f", e2e.Content("f", 1, 300_000))
	w := e2e.NewBareWorld(t, e2e.Dir(dir), nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 2})
	a := w.A
	a.Mount(t, "/lake", "file://"+dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _, _ = a.Read(ctx, "f", client.Whole()) // top says whether it works
		}
	})
	if err := fleet.Poll(t.Context(), e2e.Patience, "reads in the figures", func(context.Context) error {
		var f struct {
			Cluster, Leader string
			Total           struct{ ReadsPerSecond, BytesPerSecond, HitRatio float64 }
			Nodes           []struct{ Name, State, Error string }
			Coordinators    []struct{ Leader bool }
		}
		a.CLI(t, "top", "--once", "--interval", "500ms", "-o", "json").Want(t, 0).JSON(t, &f)
		if f.Cluster != "a" || len(f.Nodes) != 2 || f.Nodes[0].State != "live" || f.Nodes[0].Error != "" || len(f.Coordinators) != 1 || !f.Coordinators[0].Leader {
			t.Fatalf("%+v", f)
		}
		if f.Total.ReadsPerSecond == 0 || f.Total.BytesPerSecond < 1000 || f.Total.HitRatio < 0.99 {
			return fmt.Errorf("%+v", f.Total)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	a.CLI(t, "top", "--once", "--interval", "100ms").Want(t, 0, "cluster a, healthy", "READS/S", "COORDINATOR", "leader")
	a.CLI(t, "top", "--interval", "1ms").Want(t, 2, "--interval")
	a.CLI(t, "top", "--interval", "100ms", "--timeout", "1s").Want(t, 5, "cluster a") // frames one after the other
	for _, key := range []string{"q", "\x03"} {
		out := onTerminal(t, key, "--addr", a.Clients[0], "top", "--interval", "200ms")
		if !strings.Contains(out, "\x1b[?1049h") || !strings.Contains(out, "cluster a, healthy") || !strings.HasSuffix(strings.TrimSpace(out), "\x1b[?25h\x1b[?1049l") {
			t.Errorf("on a terminal, ended by %q: %q", key, out)
		}
	}
	if err := a.Nodes[0].Kill(); err != nil {
		t.Fatal(err)
	}
	a.CLI(t, "top", "--once", "--interval", "100ms").Want(t, 0, "NODE") // it goes on
}

// onTerminal runs the program on a terminal, presses a key when it has drawn something,
// and returns all that it drew.
func onTerminal(t *testing.T, key string, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		child.Lacks(t, "terminals", err)
	}
	defer func() { _ = master.Close() }() // the program has ended
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		child.Lacks(t, "terminals", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), e2e.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, e2e.Binary(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	err = cmd.Start()
	_ = slave.Close() // the program has it
	if err != nil {
		t.Fatal(err)
	}
	var drawn strings.Builder
	pressed := false
	for buf := make([]byte, 64<<10); ; {
		n, err := master.Read(buf)
		drawn.Write(buf[:n])
		if !pressed && strings.Contains(drawn.String(), "q quits") {
			pressed = true
			if _, err := io.WriteString(master, key); err != nil {
				t.Error(err)
			}
		}
		if err != nil { // EIO when the program has ended
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("top ended with %v: %q", err, drawn.String())
	}
	return drawn.String()
}
