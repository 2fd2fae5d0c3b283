package tier_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

const victimLength = 2*tier.ChunkSize + 1000

// blockPath returns the file of a block of a disk tier.
func blockPath(dir string, id freshet.BlockID) string {
	return filepath.Join(dir, tier.BlockFile(id))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func flip(t testing.TB, path string, off int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	check(t, err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b, off)
	check(t, err)
	check(t, f.Close())
}

// damages are ways in which a block file can be wrong. The victim is block(1, 0);
// block(2, 0) is another one of the same length.
func damages() map[string]func(t testing.TB, dir, path string) {
	writeAt := func(off int64, b []byte) func(testing.TB, string, string) {
		return func(t testing.TB, _, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			check(t, err)
			_, err = f.WriteAt(b, off)
			check(t, err)
			check(t, f.Close())
		}
	}
	truncate := func(size int64) func(testing.TB, string, string) {
		return func(t testing.TB, _, path string) { check(t, os.Truncate(path, size)) }
	}
	replace := func(put func(path string) error) func(testing.TB, string, string) {
		return func(t testing.TB, _, path string) {
			check(t, os.Remove(path))
			check(t, put(path))
		}
	}
	full := tier.FileSize(victimLength)
	all := map[string]func(t testing.TB, dir, path string){
		"zeroed page of the data":   writeAt(tier.HeaderSize+8192, make([]byte, 4096)),
		"zeroed header":             writeAt(0, make([]byte, tier.HeaderSize)),
		"one byte short":            truncate(full - 1),
		"a chunk short":             truncate(full - tier.ChunkSize - 8),
		"header only":               truncate(tier.HeaderSize),
		"empty":                     truncate(0),
		"one byte long":             truncate(full + 1),
		"sparse, a valid size":      truncate(tier.FileSize(freshet.MaxBlockSize)),
		"sparse, 1 TiB":             truncate(1 << 40),
		"sparse, of the right size": func(t testing.TB, _, path string) { check(t, os.Truncate(path, 0)); check(t, os.Truncate(path, full)) },
		"another block's file":      func(t testing.TB, dir, path string) { check(t, os.Rename(blockPath(dir, block(2, 0)), path)) },
		"a link to another block": func(t testing.TB, dir, path string) {
			check(t, os.Remove(path))
			check(t, os.Symlink(blockPath(dir, block(2, 0)), path))
		},
		"a link to a copy of itself": func(t testing.TB, _, path string) {
			check(t, os.Rename(path, path+".real"))
			check(t, os.Symlink(path+".real", path))
		},
		"a fifo":      replace(func(p string) error { return syscall.Mkfifo(p, 0o600) }),
		"a directory": replace(func(p string) error { return os.MkdirAll(filepath.Join(p, "below"), 0o700) }),
		"gone":        replace(func(string) error { return nil }),
		"a script":    replace(func(p string) error { return os.WriteFile(p, []byte("#!/bin/sh\nexit 0\n"), 0o700) }),
	}
	for name, off := range map[string]int64{
		"magic": 0, "version": 8, "fingerprint length": 10, "chunk size": 12, "cluster": 20, "epoch": 33, "file": 41, "index": 48,
		"length": 57, "table checksum": 65, "fingerprint": 75, "padding": 2000, "header checksum": tier.HeaderSize - 3,
		"first byte": tier.HeaderSize, "second chunk": tier.HeaderSize + tier.ChunkSize, "last byte": tier.HeaderSize + victimLength - 1,
		"table": tier.HeaderSize + victimLength, "end of the table": full - 1,
	} {
		all["flipped bit: "+name] = func(t testing.TB, _, path string) { flip(t, path, off, 3) }
	}
	return all
}

// mustBeRefused reads the damaged block in all ways: no other bytes than the
// right ones may come out, and after a whole read the block must be gone.
func mustBeRefused(t testing.TB, tr *tier.Tier, id freshet.BlockID, n, way int) {
	t.Helper()
	full := content(id, n)
	b, err := get(tr, id, n, way)
	if err == nil {
		t.Fatalf("%d bytes were read, right: %v", len(b), bytes.Equal(b, full))
	}
	if !freshet.IsKind(err, freshet.KindCorrupt, freshet.KindNotExist) {
		t.Fatalf("kind %v of %v", freshet.KindOf(err), err)
	}
	if way%2 == 0 && !bytes.Equal(b, full[:len(b)]) {
		t.Fatal("wrong bytes were handed out before the damage was noticed")
	}
	if _, ok := tr.Stat(id); ok {
		t.Fatal("the damaged block is still advertised")
	}
	put(t, tr, id, n)
	mustGet(t, tr, id, n)
}

func TestDamagedBlockIsNeverServed(t *testing.T) {
	t.Parallel()
	for name, damage := range damages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for way := range 4 {
				dir := t.TempDir()
				tr, err := tier.OpenDisk(dir, tier.Options{Capacity: 8 << 20})
				check(t, err)
				put(t, tr, block(1, 0), victimLength)
				put(t, tr, block(2, 0), victimLength)
				if way < 2 { // damaged while no process runs
					check(t, tr.Close())
					damage(t, dir, blockPath(dir, block(1, 0)))
					tr, err = tier.OpenDisk(dir, tier.Options{Capacity: 8 << 20})
					check(t, err)
				} else { // damaged after it was verified
					mustGet(t, tr, block(1, 0), victimLength)
					damage(t, dir, blockPath(dir, block(1, 0)))
				}
				mustBeRefused(t, tr, block(1, 0), victimLength, way)
				check(t, tr.Close())
			}
		})
	}
}

// TestThousandFlippedBits flips a thousand random bits of a block in a running
// tier, each after the block was read and found good, and reads the byte (or the
// whole) again.
func TestThousandFlippedBits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := newTier(t, tier.Disk, dir, tier.Options{Capacity: 4 << 20})
	id, n := block(1, 0), 300_000
	rnd := rand.New(rand.NewPCG(7, 7))
	put(t, tr, id, n)
	for i := range 1000 {
		off := rnd.Int64N(tier.FileSize(int64(n)))
		r := must2(tr.Open(id, want(1, n)))(t)
		check(t, r.Verify(0, int64(n)))
		flip(t, blockPath(dir, id), off, rnd.IntN(8))
		at := off - tier.HeaderSize
		if inData := at >= 0 && at < int64(n); inData && i%2 == 0 {
			b := make([]byte, 1)
			if _, err := r.ReadAt(b, at); !freshet.IsKind(err, freshet.KindCorrupt) {
				t.Fatalf("flip %d at %d: an open reader did not notice: %v", i, off, err)
			}
		}
		check(t, r.Close())
		if _, err := get(tr, id, n, i); !freshet.IsKind(err, freshet.KindCorrupt, freshet.KindNotExist) {
			t.Fatalf("flip %d at %d was not noticed: %v", i, off, err)
		}
		put(t, tr, id, n)
	}
}

func TestPartialReadReadsAndVerifiesOnlyItsChunk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := newTier(t, tier.Disk, dir, tier.Options{Capacity: 8 << 20})
	id, n := block(1, 0), 4*tier.ChunkSize
	put(t, tr, id, n)
	flip(t, blockPath(dir, id), tier.HeaderSize+3*tier.ChunkSize+5, 0)
	r := must2(tr.Open(id, want(1, n)))(t)
	defer func() { _ = r.Close() }()
	b := make([]byte, 4096)
	must2(r.ReadAt(b, tier.ChunkSize))(t)
	if !bytes.Equal(b, content(id, n)[tier.ChunkSize:tier.ChunkSize+4096]) {
		t.Error("wrong bytes")
	}
	_, err := r.ReadAt(b, 3*tier.ChunkSize+100_000)
	wantKind(t, err, freshet.KindCorrupt)
}

func TestRestartKeepsBlocksAndSweepsTheRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr, err := tier.OpenDisk(dir, tier.Options{Capacity: 16 << 20})
	check(t, err)
	for i := range 5 {
		put(t, tr, block(i+1, i), 100_000+i)
	}
	w := must2(tr.Create(block(9, 0), -1))(t) // in the making when the process dies
	must2(w.Write(make([]byte, 50_000)))(t)
	used := tr.Used()
	check(t, tr.Close())

	stray := []string{"blocks/00/notes.txt", "blocks/7f/0000000000000001-0000000G", "tmp/stray"}
	for _, name := range stray {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, name), make([]byte, 9000), 0o600))
	}
	misplaced := filepath.Join(dir, "blocks/00", filepath.Base(blockPath(dir, block(1, 0))))
	data, err := os.ReadFile(blockPath(dir, block(1, 0)))
	check(t, err)
	if misplaced != blockPath(dir, block(1, 0)) {
		check(t, os.WriteFile(misplaced, data, 0o600))
	}

	tr = newTier(t, tier.Disk, dir, tier.Options{Capacity: 16 << 20})
	if tr.Swept() != 3 {
		t.Errorf("%d files were quarantined, want 3", tr.Swept())
	}
	for _, name := range append(stray, "blocks/00/"+filepath.Base(misplaced)) {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if len(tr.List()) != 5 || tr.Used() >= used {
		t.Errorf("%d blocks with %d bytes; there were 5 and a draft with %d", len(tr.List()), tr.Used(), used)
	}
	for i := range 5 {
		mustGet(t, tr, block(i+1, i), 100_000+i)
	}
	w.Close()
}

// TestRestartReadsNoBlock: what a tier finds on its disk it verifies when somebody reads
// it, so that a start takes no longer for what the blocks hold.
func TestRestartReadsNoBlock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr, err := tier.OpenDisk(dir, tier.Options{Capacity: 32 << 20})
	check(t, err)
	const n, bad = 4*tier.ChunkSize + 1000, 2
	damaged, headless, sound := block(1, 0), block(2, 0), block(3, 0)
	for _, id := range []freshet.BlockID{damaged, headless, sound} {
		put(t, tr, id, n)
	}
	check(t, tr.Close())
	flip(t, blockPath(dir, damaged), tier.HeaderSize+bad*tier.ChunkSize+5, 0)
	flip(t, blockPath(dir, headless), 100, 0)

	var mu sync.Mutex
	accesses := map[string]int{}
	tr = newTier(t, tier.Disk, dir, tier.Options{Capacity: 32 << 20, Fault: func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		accesses[op]++
		return nil
	}})
	mu.Lock()
	if accesses["open"]+accesses["read"] > 0 || accesses["scan"] == 0 {
		t.Errorf("to start took %v", accesses)
	}
	mu.Unlock()
	if len(tr.List()) != 3 || tr.Swept() != 0 || tr.Aside() != 0 {
		t.Errorf("%d of 3 blocks, %d swept, %d set aside", len(tr.List()), tr.Swept(), tr.Aside())
	}

	r := must2(tr.Open(damaged, want(1, n)))(t)
	b := make([]byte, n)
	for i := range int64(5) {
		at, end := i*tier.ChunkSize, min((i+1)*tier.ChunkSize, n)
		if i == bad {
			continue
		}
		got := must2(r.ReadAt(b[at:end], at))(t)
		if int64(got) != end-at || !bytes.Equal(b[at:end], content(damaged, n)[at:end]) {
			t.Errorf("chunk %d: %d bytes, not as they were written", i, got)
		}
	}
	if _, ok := tr.Stat(damaged); !ok || tr.Aside() != 0 {
		t.Error("the block is gone before anybody met the damage")
	}
	got, err := r.ReadAt(b[:4096], bad*tier.ChunkSize+8192)
	wantKind(t, err, freshet.KindCorrupt)
	if _, ok := tr.Stat(damaged); ok || got != 0 || tr.Aside() != 1 {
		t.Errorf("%d bytes of the damaged chunk; the block is still there: %v, set aside: %d", got, ok, tr.Aside())
	}
	check(t, r.Close())
	_, err = tr.Open(headless, want(1, n))
	wantKind(t, err, freshet.KindCorrupt)
	mustGet(t, tr, sound, n)
}

func TestRestartWithLessCapacity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr, err := tier.OpenDisk(dir, tier.Options{Capacity: 16 << 20})
	check(t, err)
	for i := range 10 {
		put(t, tr, block(i+1, 0), 1<<20)
	}
	check(t, tr.Close())
	tr = newTier(t, tier.Disk, dir, tier.Options{Capacity: 3 << 20})
	if tr.Used() > 3<<20 || len(tr.List()) != 2 || diskUsage(t, dir) > 3<<20 {
		t.Errorf("%d blocks with %d bytes, %d on the disk", len(tr.List()), tr.Used(), diskUsage(t, dir))
	}
}

func TestDirectoryIsLockedAndPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o755))
	newTier(t, tier.Disk, dir, tier.Options{Capacity: 1 << 20})
	_, err := tier.OpenDisk(dir, tier.Options{Capacity: 1 << 20})
	wantKind(t, err, freshet.KindConflict)
	check(t, filepath.WalkDir(dir, func(path string, de fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := de.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			err = fmt.Errorf("%s is open to others: %v", path, info.Mode())
		}
		return err
	}))
}

func TestLinkedBlockDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	check(t, os.Symlink(elsewhere, filepath.Join(dir, "blocks")))
	testLinkedAway(t, dir, elsewhere)

	dir = t.TempDir()
	shard := filepath.Dir(blockPath(dir, block(1, 0)))
	check(t, os.MkdirAll(filepath.Dir(shard), 0o700))
	check(t, os.Symlink(elsewhere, shard))
	testLinkedAway(t, dir, elsewhere)
}

func testLinkedAway(t *testing.T, dir, elsewhere string) {
	t.Helper()
	tr := newTier(t, tier.Disk, dir, tier.Options{Capacity: 1 << 20})
	put(t, tr, block(1, 0), 10)
	entries, err := os.ReadDir(elsewhere)
	check(t, err)
	if len(entries) != 0 {
		t.Errorf("the tier wrote outside of its directory: %v", entries)
	}
}

func TestFailingDiskLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := newTier(t, tier.Disk, dir, tier.Options{Capacity: 1 << 20})
	check(t, os.RemoveAll(filepath.Join(dir, "tmp")))
	err := tryPut(tr, block(1, 0), 100)
	wantKind(t, err, freshet.KindUnavailable)
	if tr.Used() != 0 || len(tr.List()) != 0 {
		t.Errorf("a failed write left %d bytes and %v", tr.Used(), tr.List())
	}
	check(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	w := must2(tr.Create(block(1, 0), 100))(t)
	must2(w.Write(content(block(1, 0), 100)))(t)
	check(t, os.RemoveAll(filepath.Join(dir, "blocks")))
	check(t, os.WriteFile(filepath.Join(dir, "blocks"), nil, 0o600))
	wantKind(t, w.Commit(meta(1)), freshet.KindUnavailable)
	w.Close()
	if tr.Used() != 0 || len(tr.List()) != 0 {
		t.Errorf("a failed commit left %d bytes and %v", tr.Used(), tr.List())
	}
}

func diskUsage(t testing.TB, dir string) (total int64) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(_ string, de fs.DirEntry, err error) error {
		if err != nil || !de.Type().IsRegular() {
			return err
		}
		info, err := de.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	}))
	return total
}
