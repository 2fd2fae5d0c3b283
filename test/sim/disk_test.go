package sim_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/store"
)

// diskSize and memorySize are the tiers of a node.
const (
	diskSize   = 32 << 20
	memorySize = 8 << 20
)

// disk is what survives the end of a cache node's process: its identity and its blocks.
type disk struct {
	dir string

	mu     sync.Mutex
	blocks *store.Store // of the last process
	gone   bool         // nobody will ever see it again
}

// newDisk makes an empty one, in memory if there is a file system for that: blocks that
// are promised to be durable are synced, which costs much on others.
func (w *world) newDisk() *disk {
	dir, err := os.MkdirTemp(w.scratch, "disk")
	if err != nil {
		w.t.Error(err)
	}
	return &disk{dir: dir}
}

// scratchDir returns a directory that goes with the test.
func scratchDir(t testing.TB) string {
	if dir, err := os.MkdirTemp("/dev/shm", "freshet-sim"); err == nil { //nolint:usetesting // that one is on a disk
		t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it is in memory, and the test has ended
		return dir
	}
	return t.TempDir()
}

func (d *disk) open() (*store.Store, error) {
	s, err := store.Open([]store.Tier{store.InMemory(memorySize), store.OnDisk(filepath.Join(d.dir, "blocks"), diskSize)}, store.Options{})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocks = s
	return s, nil
}

// has reports whether all blocks of a file are on the disk, or in the memory beside it.
func (d *disk) has(file freshet.FileID, blocks int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range blocks {
		if d.blocks == nil {
			return false
		}
		if _, ok := d.blocks.Stat(freshet.BlockID{File: file, Index: uint32(i)}); !ok { //nolint:gosec // a few
			return false
		}
	}
	return true
}

// holds reports whether a file may not be evicted from the disk.
func (d *disk) holds(file freshet.FileID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blocks != nil && slices.Contains(d.blocks.Kept(), file)
}

// keeps returns the bytes of the blocks that it keeps because no storage has them.
func (d *disk) keeps() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.blocks == nil {
		return 0
	}
	return d.blocks.KeptBytes()
}

func (d *disk) destroyed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gone
}

func (d *disk) destroy() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
}

// holders returns the disks of a site on which all of a file is.
func (s *site) holders(file freshet.FileID, blocks int) []*disk {
	var out []*disk
	for _, n := range s.nodes {
		if d := n.media(); d.has(file, blocks) {
			out = append(out, d)
		}
	}
	return out
}

// survives reports whether one of the disks that had all of a write, when it was
// completed, is still there.
func (a *attempt) survives() bool {
	return slices.ContainsFunc(a.held, func(d *disk) bool { return !d.destroyed() })
}

// ticket notes the file ID of a write.
func (h *history) ticket(t freshet.Ticket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.byOp[t.Op]; a != nil {
		a.file = t.File
	}
}

// completes is called just before the leader is asked to make a write visible: from then on
// it may be replaced again at any time.
func (h *history) completes(s *site, op freshet.OpID, length int64) {
	h.mu.Lock()
	a := h.byOp[op]
	h.mu.Unlock()
	if a == nil || !a.kept() {
		return
	}
	blocks := int((length + freshet.MinBlockSize - 1) / freshet.MinBlockSize)
	held := s.holders(a.file, blocks)
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.blocks == 0 { // the first time it is asked
		a.blocks, a.held = blocks, held
	}
}

// durable looks whether a write that was acknowledged was on as many disks as was promised.
func (w *world) durable(a *attempt) {
	w.hist.mu.Lock()
	held := len(a.held)
	w.hist.mu.Unlock()
	a.site.mu.Lock()
	wiped := !a.site.wiped.Before(a.began)
	a.site.mu.Unlock()
	if held < max(a.replicas, 1) && !wiped {
		w.violation(a.key, "%s acknowledged version %d of %s, which was on %d disks, and %d were promised", a.site.name, a.version, a.key, held, max(a.replicas, 1))
	}
	w.story.addAbout(a.key, "%s: version %d is on %d disks, for %d", a.site.name, a.version, held, a.replicas)
}

// wipe loses the disk of a node: its next process is another node.
func (n *node) wipe() {
	n.mu.Lock()
	n.disk.destroy()
	n.disk = n.site.w.newDisk()
	n.mu.Unlock()
	n.site.mu.Lock()
	defer n.site.mu.Unlock()
	n.site.wiped = time.Now()
}

func (n *node) media() *disk {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.disk
}
