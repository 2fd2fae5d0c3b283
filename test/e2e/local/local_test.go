package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/rpc/local"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/e2e"
)

func newWorld(t *testing.T, tier string, nodes int) *e2e.World {
	t.Helper()
	if !local.Supported {
		t.Skip("this system has no local reads")
	}
	return e2e.NewDirWorld(t, e2e.Options{Coordinators: 1, Nodes: nodes, Lone: true, Sockets: true, Tier: tier})
}

func random(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// cached writes a file and reads it until its blocks are reported.
func cached(t *testing.T, r *e2e.Region, name string, data []byte) {
	t.Helper()
	if _, err := r.Write(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	if err := r.S.AwaitCached(t.Context(), r.At(name), int64(len(data)), e2e.Patience); err != nil {
		t.Fatal(err)
	}
}

// lent returns how many blocks the node has lent so far.
func lent(t *testing.T, r *e2e.Region, node int) int { return opens(t, r, node, "lent") }

// drafts returns how many it has lent while they were fetched.
func drafts(t *testing.T, r *e2e.Region, node int) int { return opens(t, r, node, "draft") }

func opens(t *testing.T, r *e2e.Region, node int, result string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.NodeHTTP[node]+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^freshet_local_opens_total\{result="` + result + `"\} (\d+)$`).FindSubmatch(b)
	if m == nil {
		t.Fatal("the node does not count what it lends")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEveryFaceReadsTheSame(t *testing.T) {
	for _, tier := range []string{"disk", "memory"} {
		t.Run(tier, func(t *testing.T) {
			w := newWorld(t, tier, 1)
			data := random(3<<20+17, 1)
			cached(t, w.A, "f", data)
			got, _, err := w.A.Read(t.Context(), "f", client.Whole())
			if err != nil || !bytes.Equal(got, data) || w.A.S.Local.Stats().Local == 0 {
				t.Errorf("the library: %d bytes, %v, %+v", len(got), err, w.A.S.Local.Stats())
			}
			f, err := w.A.S.Files.OpenFile(t.Context(), w.A.At("f"), client.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ranges := []client.Range{{Offset: 2 << 20, Into: make([]byte, 5000)}, {Offset: 3, Into: make([]byte, 5000)}}
			if err := f.ReadRanges(t.Context(), ranges); err != nil || !bytes.Equal(ranges[0].Into, data[2<<20:][:5000]) || !bytes.Equal(ranges[1].Into, data[3:5003]) {
				t.Errorf("ranges: %v", err)
			}
			before := lent(t, w.A, 0)
			if out := w.A.CLI(t, "fs", "cat", string(w.A.At("f"))).Want(t, 0); out.Out != string(data) {
				t.Errorf("fs cat: %d bytes", len(out.Out))
			}
			copied := filepath.Join(t.TempDir(), "copy")
			w.A.CLI(t, "fs", "cp", string(w.A.At("f")), "file:"+copied).Want(t, 0)
			if b, err := os.ReadFile(copied); err != nil || !bytes.Equal(b, data) {
				t.Errorf("fs cp: %d bytes, %v", len(b), err)
			}
			if n := lent(t, w.A, 0); n != before+2 {
				t.Errorf("two commands borrowed %d times", n-before)
			}
			if out := w.A.CLI(t, "--socket-dir", "none", "fs", "cat", string(w.A.At("f"))).Want(t, 0); out.Out != string(data) || lent(t, w.A, 0) != before+2 {
				t.Errorf("without the socket: %d bytes", len(out.Out))
			}
		})
	}
}

// other runs the command line in another root, as another user, or both.
func other(t *testing.T, w *e2e.World, binary string, attr *syscall.SysProcAttr, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), e2e.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--addr", w.A.Clients[0], "--user", "nobody"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.Dir = &out, &errs, attr, "/"
	cmd.Env = []string{"NO_COLOR=1"}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	return out.String()
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		child.Lacks(t, "root, who alone can run a program in another root or as another user", os.ErrPermission)
	}
}

// TestAContainerSharesOnlyTheSocket runs a client in a root directory that has the
// program and a directory with the socket, at another path than outside.
func TestAContainerSharesOnlyTheSocket(t *testing.T) {
	asRoot(t)
	w := newWorld(t, "disk", 1)
	data := random(2<<20+9, 2)
	cached(t, w.A, "f", data)
	root := filepath.Join(filepath.Dir(filepath.Dir(w.A.Sockets[0])), "root")
	if err := os.MkdirAll(filepath.Join(root, "sockets"), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(e2e.Binary())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "freshet"), program, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if err := os.Link(w.A.Sockets[0], filepath.Join(root, "sockets", filepath.Base(w.A.Sockets[0]))); err != nil {
		t.Fatal(err)
	}
	inside := &syscall.SysProcAttr{Chroot: root}
	before := lent(t, w.A, 0)
	if out := other(t, w, "/freshet", inside, "fs", "cat", string(w.A.At("f"))); out != string(data) || lent(t, w.A, 0) != before {
		t.Errorf("without the socket: %d bytes, %d lent", len(out), lent(t, w.A, 0)-before)
	}
	if out := other(t, w, "/freshet", inside, "--socket-dir", "/sockets", "fs", "cat", string(w.A.At("f"))); out != string(data) || lent(t, w.A, 0) != before+1 {
		t.Errorf("with the socket: %d bytes, %d lent", len(out), lent(t, w.A, 0)-before)
	}
}

// TestWithoutPermissionItStreams reads as a user whom the socket's mode, 0600, does
// not let in.
func TestWithoutPermissionItStreams(t *testing.T) {
	asRoot(t)
	w := newWorld(t, "disk", 1)
	data := random(1<<20, 3)
	cached(t, w.A, "f", data)
	// The program and the way to the socket are open to all; the socket is not.
	dir := filepath.Dir(filepath.Dir(w.A.Sockets[0]))
	for d := filepath.Dir(w.A.Sockets[0]); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // for all
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(e2e.Binary())
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "freshet")
	if err := os.WriteFile(copied, program, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	before := lent(t, w.A, 0)
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out := other(t, w, copied, nobody, "fs", "cat", string(w.A.At("f"))); out != string(data) || lent(t, w.A, 0) != before {
		t.Errorf("%d bytes, %d lent", len(out), lent(t, w.A, 0)-before)
	}
	if out := other(t, w, copied, nil, "fs", "cat", string(w.A.At("f"))); out != string(data) || lent(t, w.A, 0) != before+1 {
		t.Errorf("as the node's user: %d bytes, %d lent", len(out), lent(t, w.A, 0)-before)
	}
}

// TestANodeIsKilledInTheMiddleOfALocalRead goes on by the descriptor, and then
// without it.
func TestANodeIsKilledInTheMiddleOfALocalRead(t *testing.T) {
	for _, tier := range []string{"disk", "memory"} {
		t.Run(tier, func(t *testing.T) {
			w := newWorld(t, tier, 2)
			data := random(8<<20, 4)
			cached(t, w.A, "f", data)
			r, err := w.A.S.Files.Open(t.Context(), w.A.At("f"), client.Whole())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got := make([]byte, 100_000)
			if _, err := io.ReadFull(r, got); err != nil || w.A.S.Local.Stats().Local == 0 {
				t.Fatalf("%v, %+v", err, w.A.S.Local.Stats())
			}
			holder := -1
			for i := range w.A.Nodes {
				if lent(t, w.A, i) > 0 {
					holder = i
				}
			}
			if err := w.A.Nodes[holder].Kill(); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(slices.Concat(got, rest), data) {
				t.Errorf("wrong bytes, %v", err)
			}
			// A new client knows nothing of the descriptor.
			fresh, err := w.A.Connect()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = fresh.Close() }() // nothing to be done about it
			f, err := fresh.Files.OpenFile(t.Context(), w.A.At("f"), client.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, len(data))
			if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, data) {
				t.Errorf("from another node: %v", err)
			}
		})
	}
}

// TestVersionsAreNotMixed overwrites a file of many small blocks while it is read.
func TestVersionsAreNotMixed(t *testing.T) {
	w := newWorld(t, "disk", 1)
	w.A.CLI(t, "policy", "set", string(w.A.Root), "--block-size", "64KiB").Want(t, 0)
	old, fresh := random(1<<20, 5), random(1<<20, 6)
	cached(t, w.A, "f", old)
	r, err := w.A.S.Files.Open(t.Context(), w.A.At("f"), client.Whole())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := w.A.S.Files.OpenFile(t.Context(), w.A.At("f"), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1000)
	if _, err := f.ReadAt(b, 5000); err != nil || !bytes.Equal(b, old[5000:6000]) {
		t.Fatal(err)
	}
	got := make([]byte, 100_000)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if _, err := w.A.Write(t.Context(), "f", fresh); err != nil {
		t.Fatal(err)
	}
	// What was open may be read to its end, or say that it is stale; it is never both
	// versions.
	rest, err := io.ReadAll(r)
	got = slices.Concat(got, rest)
	if !bytes.Equal(got, old[:len(got)]) || err == nil && len(got) != len(old) || err != nil && !freshet.IsKind(err, freshet.KindStale) {
		t.Errorf("%d bytes and %v", len(got), err)
	}
	err = fleet.Poll(t.Context(), e2e.Patience, "the old blocks to be gone", func(context.Context) error {
		whole := make([]byte, len(old))
		_, err := f.ReadAt(whole, 0)
		switch {
		case freshet.IsKind(err, freshet.KindStale):
			return nil
		case err != nil:
			return fmt.Errorf("%w: of another kind than stale", err)
		case !bytes.Equal(whole, old):
			t.Error("an open file has bytes of another version")
			return nil
		}
		return errors.New("they can be read still")
	})
	if err != nil {
		t.Error(err)
	}
	now, _, err := w.A.Read(t.Context(), "f", client.Whole())
	if err != nil || !bytes.Equal(now, fresh) {
		t.Errorf("the new version: %d bytes, %v", len(now), err)
	}
}
