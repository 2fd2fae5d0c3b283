package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/e2e"
)

// write writes a file in the way that is given, or ends the test.
func write(t *testing.T, r *e2e.Region, name string, data []byte, kind freshet.WriteType) {
	t.Helper()
	if err := tryWrite(t, r, name, data, kind); err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
}

func tryWrite(t *testing.T, r *e2e.Region, name string, data []byte, kind freshet.WriteType) error {
	t.Helper()
	_, err := r.S.Files.Write(t.Context(), r.At(name), bytes.NewReader(data), client.WriteOptions{Length: int64(len(data)), Write: kind})
	return err
}

// tmpfs mounts a small file system of memory.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := shortDir(t)
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		child.Lacks(t, "the right to mount", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// ext4 mounts a file system of size bytes on a device whose blocks are the file image.
func ext4(t *testing.T, image string, size int64) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		child.Lacks(t, "mkfs.ext4", err)
	}
	f, err := os.Create(image)
	must(t, err)
	must(t, errors.Join(f.Truncate(size), f.Close()))
	// Without a journal nothing is written but what the node writes.
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
	dir := shortDir(t)
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop,errors=continue", image, dir).CombinedOutput(); err != nil {
		child.Lacks(t, "devices of files", fmt.Errorf("%w: %s", err, out))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// files are what must be there, whatever fails.
type files map[string][]byte

func (f files) check(t *testing.T, r *e2e.Region, when string) {
	t.Helper()
	for name, want := range f {
		got, _, err := r.Read(t.Context(), name, client.Whole())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %s: %d bytes, %v", when, name, len(got), err)
		}
	}
}

// TestADiskRunsFullUnderWritesThatStayThere: somebody else takes the space of the disk
// that acknowledged files go to. Writers are told, nothing that was acknowledged is
// lost, and other writes and reads go on.
func TestADiskRunsFullUnderWritesThatStayThere(t *testing.T) {
	disk := tmpfs(t, "24m")
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: func(int) []config.Tier {
		return []config.Tier{{Kind: "memory", Size: "4MiB"}, {Kind: "ssd", Path: filepath.Join(disk, "cache"), Size: "64MiB"}}
	}})
	r := l.A
	kept := files{}
	put := func(name string, kind freshet.WriteType) error {
		data := e2e.Content(name, 1, 1<<20)
		err := tryWrite(t, r, name, data, kind)
		if err == nil {
			kept[name] = data
		}
		return err
	}
	for i := range 3 {
		must(t, put(fmt.Sprintf("dir/kept%d", i), freshet.MustCache))
		must(t, put(fmt.Sprintf("dir/cached%d", i), freshet.CacheThrough))
	}
	other := filepath.Join(disk, "other")
	fill := func() { _ = os.WriteFile(other, make([]byte, 32<<20), 0o600) } // it is meant to fail
	fill()
	refused := 0
	for i := range 4 {
		for _, kind := range []freshet.WriteType{freshet.MustCache, freshet.AsyncThrough} {
			name := fmt.Sprintf("dir/more-%s%d", kind, i)
			if err := put(name, kind); err != nil {
				refused++
				if !freshet.IsKind(err, freshet.KindExhausted, freshet.KindUnavailable) || !strings.Contains(err.Error(), "nothing was written") {
					t.Errorf("%s: %v", name, err)
				}
				t.Logf("%s: %v", name, err)
				must(t, e2e.Lacks(r, name)(t.Context()))
			}
			fill()
			if refused > 1 {
				break
			}
		}
		if refused > 1 {
			break // each waits for room for half a minute
		}
	}
	if refused == 0 {
		t.Error("every file found room on a disk without any")
	}
	must(t, put("dir/through", freshet.CacheThrough))
	kept.check(t, r, "without space")
	must(t, os.Remove(other))
	e2e.Seen(t, "files are taken again", func(context.Context) error { return put("dir/again", freshet.MustCache) })
	kept.check(t, r, "with space again")
	l.settle(t)
	for name, want := range kept {
		if got, _, err := l.stored(t.Context(), freshet.Path("/"+name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the storage has %d bytes of %s, %v", len(got), name, err)
		}
	}
}

// TestADiskFailsWhenItIsSynced: what the node writes is taken, and can't be brought to
// the disk. No write is acknowledged that is not safe, and all else goes on.
func TestADiskFailsWhenItIsSynced(t *testing.T) {
	below := tmpfs(t, "40m")
	disk := ext4(t, filepath.Join(below, "image"), 128<<20)
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: func(int) []config.Tier {
		return []config.Tier{{Kind: "memory", Size: "4MiB"}, {Kind: "ssd", Path: filepath.Join(disk, "cache"), Size: "100MiB"}}
	}})
	r, kept := l.A, files{}
	for i := range 4 {
		name := fmt.Sprintf("dir/kept%d", i)
		kept[name] = e2e.Content(name, 1, 1<<20)
		write(t, r, name, kept[name], freshet.MustCache)
	}
	// The device says that it has space, and what it stands on has none.
	_ = os.WriteFile(filepath.Join(below, "other"), make([]byte, 64<<20), 0o600) // it is meant to fail
	refused := 0
	for i := range 40 {
		name := fmt.Sprintf("dir/more%d", i)
		data := e2e.Content(name, 1, 1<<20)
		err := tryWrite(t, r, name, data, freshet.MustCache)
		if err == nil {
			kept[name] = data
			continue
		}
		t.Logf("%s: %v", name, err)
		if !freshet.IsKind(err, freshet.KindExhausted, freshet.KindUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if refused++; refused == 2 {
			break
		}
	}
	if refused == 0 {
		t.Fatal("a disk that can't be written took everything")
	}
	write(t, r, "dir/through", e2e.Content("dir/through", 1, 1<<20), freshet.CacheThrough)
	kept["dir/through"] = e2e.Content("dir/through", 1, 1<<20)
	kept.check(t, r, "while the disk fails")
	must(t, os.Remove(filepath.Join(below, "other")))
	e2e.Seen(t, "the disk takes files again", func(ctx context.Context) error {
		data := e2e.Content("dir/again", 1, 1<<20)
		_, err := r.S.Files.Write(ctx, r.At("dir/again"), bytes.NewReader(data), client.WriteOptions{Length: 1 << 20, Write: freshet.MustCache})
		if err == nil {
			kept["dir/again"] = data
		}
		return err
	})
	kept.check(t, r, "with the disk again")
	l.settle(t)
	kept.check(t, r, "when all is in the storage")
}

// TestADiskFailsReads: what lies on the disk can't be read any more (EIO). What is in
// the storage is read from there; what is not is told; the node lives on.
func TestADiskFailsReads(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	const size = 96 << 20
	disk := ext4(t, image, size)
	l := newLake(t, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1, Tiers: func(int) []config.Tier {
		return []config.Tier{{Kind: "ssd", Path: filepath.Join(disk, "cache"), Size: "64MiB"}}
	}})
	r, stored := l.A, files{}
	for i := range 6 {
		name := fmt.Sprintf("s3/f%d", i)
		stored[name] = e2e.Content(name, 1, 3<<20)
		write(t, r, name, stored[name], freshet.CacheThrough)
		e2e.AwaitCached(t, r, name, 3<<20)
	}
	alone := e2e.Content("dir/alone", 1, 1<<20)
	write(t, r, "dir/alone", alone, freshet.MustCache)
	stored.check(t, r, "with a good disk")
	forget(t, disk)
	must(t, os.Truncate(image, 1<<20)) // what is behind it can't be read
	if !unreadable(t, disk) {
		t.Fatal("every block can be read")
	}
	stored.check(t, r, "from a disk that fails")
	got, _, err := r.Read(t.Context(), "dir/alone", client.Whole())
	switch {
	case err == nil && !bytes.Equal(got, alone):
		t.Errorf("%d wrong bytes", len(got))
	case err != nil && !freshet.IsKind(err, freshet.KindUnavailable):
		t.Errorf("a file that only the disk has: %v", err)
	}
	t.Logf("a file that only the disk has: %d bytes, %v", len(got), err)
	for i := range 6 {
		name := fmt.Sprintf("s3/g%d", i)
		stored[name] = e2e.Content(name, 1, 1<<20)
		write(t, r, name, stored[name], freshet.CacheThrough)
	}
	stored.check(t, r, "from a disk that fails, later")
	if !r.Nodes[0].Running() {
		t.Error("the node died")
	}
}

// forget drops what the system remembers of the files of a disk, so that reads go to it.
func forget(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	}))
}

// unreadable reports whether any file of a disk fails with EIO.
func unreadable(t *testing.T, dir string) (found bool) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if _, err := os.ReadFile(name); errors.Is(err, syscall.EIO) {
			found = true
		}
		return nil
	}))
	return found
}
