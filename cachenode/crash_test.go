package cachenode_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode"
	"github.com/freshet-io/freshet/cachenode/store"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
)

const (
	envCrashDir   = "FRESHET_TEST_CRASH_DIR"
	envCrashPoint = "FRESHET_TEST_CRASH_POINT"
	crashSize     = 5*blockSize + 17
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envCrashDir); dir != "" {
		fmt.Println("error:", writeUntil(dir, os.Getenv(envCrashPoint)))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// process is a node over a directory, with the parts that a real one has.
type process struct {
	node   *cachenode.Node
	blocks *store.Store
	mounts *ufs.Mounts
	id     *cachenode.Identity
	leader *leader
}

func open(dir string, hook func(string)) (*process, error) {
	p := &process{leader: newLeader(), mounts: ufs.NewMounts(local.Opener{}, ufs.Environment{}, ufs.MountsOptions{})}
	p.leader.reply.MountRevision = 1
	p.leader.reply.Mounts = []freshet.Mount{{
		ID: 1, Path: "/", URI: "file://" + filepath.Join(dir, "storage"), Options: map[string]string{"create": "true"}, Generation: 1,
	}}
	var err error
	if p.id, err = cachenode.OpenIdentity(filepath.Join(dir, "node")); err != nil {
		return nil, err
	}
	if p.blocks, err = store.Open([]store.Tier{store.OnDisk(filepath.Join(dir, "cache"), 32<<20)}, store.Options{}); err != nil {
		return nil, err
	}
	p.node = cachenode.New(cachenode.Deps{Coordinator: p.leader, Mounts: p.mounts, Blocks: p.blocks, Identity: p.id},
		cachenode.Options{Hook: hook, Heartbeat: 10 * time.Millisecond})
	return p, nil
}

func (p *process) ticket() freshet.Ticket {
	return freshet.Ticket{
		Op: freshet.OpID{9}, File: 5, Path: "/f", Node: p.node.Node(), BlockSize: blockSize,
		Target: freshet.Source{Mount: 1, Key: "f"},
	}
}

// awaitReady waits until the node has a lease, which it has only after it has the
// mounts.
func (p *process) awaitReady(ctx context.Context) error {
	for p.node.Ready() != nil {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// writeUntil is the child process: it writes a file and stands still at a point
// until it is killed. It returns only if it does not come so far.
func writeUntil(dir, point string) error {
	p, err := open(dir, func(at string) {
		if at == point {
			fmt.Println("at", at)
			select {}
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() { _ = p.node.Run(ctx) }()
	if err := p.awaitReady(ctx); err != nil {
		return err
	}
	_, err = p.node.Write(ctx, p.ticket(), bytes.NewReader(random(crashSize, 9)), crashSize)
	return fmt.Errorf("the point %q was not reached: %w", point, err)
}

// TestKilledAtAnyPointOfAnUpload kills a real process with kill -9 at each point
// of an upload to a real directory. Before the commit nothing may be visible and
// the rest must be abortable; after it the whole file is there. The cache of the
// process that follows holds whole, right blocks or none.
func TestKilledAtAnyPointOfAnUpload(t *testing.T) {
	t.Parallel()
	data := random(crashSize, 9)
	for point, visible := range map[string]bool{
		"after-create": false, "before-permit": false, "after-permit": false, "after-commit": true, "after-complete": true,
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			killAt(t, dir, point)
			got, err := os.ReadFile(filepath.Join(dir, "storage", "f"))
			if visible != (err == nil) || visible && !bytes.Equal(got, data) {
				t.Fatalf("visible: %d bytes, %v", len(got), err)
			}
			p, err := open(dir, nil)
			check(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.node.Run(ctx) }()
			soon, late := context.WithTimeout(t.Context(), time.Minute)
			defer late()
			check(t, p.awaitReady(soon))
			p.leader.mu.Lock()
			first := p.leader.beats[0]
			p.leader.mu.Unlock()
			if first.Incarnation != 2 || len(first.Active) != 0 || len(first.Finished) != 0 || !first.Full {
				t.Errorf("the first heartbeat after the crash: %+v", first)
			}
			p.wantCleanStorage(t, dir, visible)
			p.wantGoodCache(t, dir, data, point == "after-complete")
			cancel()
			check(t, <-done)
			check(t, p.mounts.Close())
			check(t, p.blocks.Close())
			check(t, p.id.Close())
		})
	}
}

// killAt runs a child process up to the point and kills it there.
func killAt(t *testing.T, dir, point string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), envCrashDir+"="+dir, envCrashPoint+"="+point)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	check(t, cmd.Process.Kill())
	_ = cmd.Wait() //nolint:errcheck // it was killed
	if err != nil || strings.TrimSpace(line) != "at "+point {
		t.Fatalf("the child says %q, %v", line, err)
	}
}

// wantCleanStorage resolves the upload as the leader would, and looks whether
// anything but the file is left.
func (p *process) wantCleanStorage(t *testing.T, dir string, visible bool) {
	t.Helper()
	fs, release, err := p.mounts.Get(1)
	check(t, err)
	defer release()
	if _, err := fs.AbortUpload(t.Context(), "f", p.ticket().Op); err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "storage"))
	check(t, err)
	if visible != (len(entries) == 1) || len(entries) > 1 {
		t.Errorf("the storage holds %v", entries)
	}
}

func (p *process) wantGoodCache(t *testing.T, dir string, data []byte, cached bool) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(dir, "cache", "tmp")); err != nil || len(left) != 0 {
		t.Errorf("temporary files: %v, %v", left, err)
	}
	if n := len(p.blocks.List()); cached != (n == 6) || !cached && n != 0 {
		t.Errorf("%d blocks are cached", n)
	}
	if !cached {
		return
	}
	fs, release, err := p.mounts.Get(1)
	check(t, err)
	defer release()
	st, err := fs.Stat(t.Context(), "f")
	check(t, err)
	for off := 0; off < len(data); off += blockSize {
		n := min(blockSize, len(data)-off)
		s, err := p.node.Read(t.Context(), freshet.BlockRead{
			Block:  freshet.Block{ID: freshet.BlockID{File: 5, Index: uint32(off / blockSize)}, Offset: int64(off), Length: int64(n)},
			Source: freshet.Source{Mount: 1, Key: "f", Fingerprint: st.Fingerprint}, Length: -1,
		})
		check(t, err)
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, data[off:off+n]) || s.Origin() != freshet.OriginHit {
			t.Errorf("block at %d: %d bytes from %v, %v", off, len(got), s.Origin(), err)
		}
		check(t, s.Close())
	}
}
