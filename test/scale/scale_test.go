package scale_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	defaultInodes = 1_000_000

	// maxLive bounds the live heap, and maxResident the resident memory but for files
	// that are mapped, whatever the number of inodes: the store's part of stateCache
	// lies in the heap, that of entries beside it, and the garbage collector lets the
	// heap grow to twice what is live. What is left is that of the log, encoders, and
	// batches on their way.
	maxLive     = stateCache/4 + 32<<20
	maxResident = stateCache/2 + 2*maxLive + 32<<20

	// maxDisk is what an inode may take on disk, compacted.
	maxDisk = 100
)

func inodes(t *testing.T) int {
	t.Helper()
	s := os.Getenv("FRESHET_SCALE_INODES")
	if s == "" {
		return defaultInodes
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 10*perDir {
		t.Fatalf("FRESHET_SCALE_INODES is %q: at least %d", s, 10*perDir)
	}
	return n
}

// TestManyInodes fills a state, and checks that memory is that of its settings,
// that a start reads no entries, that what is deleted gives its space back, and
// that every answer is right meanwhile.
func TestManyInodes(t *testing.T) {
	dir, tr := t.TempDir(), treeOf(inodes(t))
	rep := newReport(t)

	m := startMember(t, dir, true)
	m.found()
	m.load(tr)
	entries := int64(m.state.Stats().Entries)
	if want := int64(tr.files() + tr.dirs + 2); entries != want {
		t.Fatalf("%d entries are held, want %d", entries, want)
	}
	rep.phase("load %d inodes (%.1f million)", entries, float64(entries)/1e6)
	rep.memory(m)

	each := m.checkRandom(tr, 10_000, 1)
	rep.phase("30,000 random lookups, %v each", each)
	live := m.checkListing(tr)
	rep.phase("list a directory of %d by pages, live heap at most %s", tr.big, mib(live))
	if live > maxLive {
		t.Errorf("the live heap came to %s while listing, at most %s", mib(live), mib(maxLive))
	}
	rep.memory(m)

	if err := m.store.Flush(); err != nil {
		t.Fatal(err)
	}
	loose := m.store.Metrics().DiskBytes
	disk := m.compact()
	rep.phase("compact: %s on disk before, %s after, %.1f bytes for each inode; log %s", mib(loose), mib(disk), float64(disk)/float64(entries), mib(sizeOfTree(t, filepath.Join(dir, "raft"))))
	if disk > maxDisk*entries {
		t.Errorf("%d bytes on disk for %d inodes", disk, entries)
	}
	m.stop()

	m = startMemberFast(t, dir, rep)
	each = m.checkRandom(tr, 10_000, 2)
	rep.phase("30,000 random lookups, %v each", each)

	m.shrink(tr, rep)
	m.stop()
}

// startMemberFast starts a member again and checks what it reads.
func startMemberFast(t *testing.T, dir string, rep *report) *member {
	t.Helper()
	m := startMember(t, dir, false)
	reads := m.reads.take()
	total := int64(0)
	for _, n := range reads {
		total += n
	}
	rep.phase("start again with %d inodes: store and state opened in %v, %d rows read; then an election", m.state.Stats().Entries, m.opened, total)
	// 'i' is the table of entries, 'd' and 'f' are those of their places.
	if entries := reads['i'] + reads['d'] + reads['f']; entries > 0 || total > 1000 {
		t.Errorf("the start read %d rows, %d of them of entries: %v", total, entries, reads)
	}
	return m
}

// shrink deletes all but every tenth directory, and checks that the store shrinks
// by itself, and to what is left when it is told to.
func (m *member) shrink(tr tree, rep *report) {
	t := m.t
	t.Helper()
	before := m.store.Metrics().DiskBytes
	m.remove(bigDir)
	for d := range tr.dirs {
		if d%10 != 0 {
			m.remove(dirPath(d))
		}
	}
	m.purge()
	left := int64(m.state.Stats().Entries)
	rep.phase("delete and purge all but %d inodes", left)
	if kept := (tr.dirs + 9) / 10; left != int64(kept*(perDir+1)+1) {
		t.Fatalf("%d inodes are left of %d directories", left, kept)
	}
	rep.memory(m)
	if err := m.store.Flush(); err != nil {
		t.Fatal(err)
	}
	m.await(func() bool { return m.store.Metrics().DiskBytes < before/5 })
	byItself := m.store.Metrics().DiskBytes
	disk := m.compact()
	rep.phase("space given back: %s before, %s by itself, %s compacted, %.1f bytes for each inode", mib(before), mib(byItself), mib(disk), float64(disk)/float64(left))
	if byItself > before/2 {
		t.Errorf("%s of %s are still taken for a twentieth of the inodes", mib(byItself), mib(before))
	}
	if disk > maxDisk*left+1<<20 {
		t.Errorf("%d bytes on disk for the %d inodes that are left", disk, left)
	}
	for d := 0; d < tr.dirs; d += max(tr.dirs/100, 1) {
		e := dirEntry(d, d%perDir)
		if d%10 == 0 {
			m.check(dirPath(d).Join(e.Name), &e)
		} else {
			m.check(dirPath(d).Join(e.Name), nil)
		}
	}
}

// compact rewrites the store and returns what it takes on disk once the files that
// were replaced are gone.
func (m *member) compact() int64 {
	m.t.Helper()
	if err := m.store.Compact(m.t.Context(), []byte{0}, []byte{255}); err != nil {
		m.t.Fatal(err)
	}
	if !m.await(func() bool { return m.store.Metrics().ObsoleteBytes == 0 }) {
		m.t.Error("files that were replaced are not deleted")
	}
	return m.store.Metrics().DiskBytes
}

// await polls until done, for five minutes at most.
func (m *member) await(done func() bool) bool {
	deadline := time.After(5 * time.Minute)
	for !done() {
		select {
		case <-deadline:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

func sizeOfTree(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
