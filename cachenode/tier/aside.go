package tier

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
)

// maxAside is how many files of damaged blocks a directory keeps.
const maxAside = 8

// asideFile is the file of a damaged block.
type asideFile struct {
	name    string
	size    int64 // what it takes of the capacity
	modTime time.Time
	entry   *entry // nil if an earlier process set it aside
}

// setAside keeps the file of a damaged block for a while. The caller holds mu.
func (t *Tier) setAside(e *entry) bool {
	name, ok := t.medium.setAside(e.id, e.size)
	if ok {
		t.keepAside(asideFile{name: name, size: e.size, entry: e})
	}
	return ok
}

// keepAside keeps one more file, and the oldest no more if they are too many. The
// caller holds mu.
func (t *Tier) keepAside(f asideFile) {
	if len(t.aside) == maxAside {
		t.dropAside()
	}
	t.aside = append(t.aside, f)
}

// dropAside removes the oldest file that was set aside; false if there is none. If
// readers have it open its space is free when they have closed it. The caller
// holds mu.
func (t *Tier) dropAside() bool {
	if len(t.aside) == 0 {
		return false
	}
	f := t.aside[0]
	t.aside = slices.Delete(t.aside, 0, 1)
	t.medium.removeAside(f.name)
	if f.entry != nil && f.entry.readers > 0 {
		f.entry.aside = false
		return true
	}
	t.used -= f.size
	return true
}

// Aside returns how many files of damaged blocks are kept.
func (t *Tier) Aside() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.aside)
}

// setAside keeps only regular files that are not longer than the block was: all
// others would take space that nobody counted.
func (d *disk) setAside(id freshet.BlockID, size int64) (string, bool) {
	name := ""
	err := d.doLocked("set aside", func() (err error) {
		name, err = d.moveAside(id, size)
		return err
	})
	if err != nil {
		return "", false
	}
	return name, name != ""
}

func (d *disk) moveAside(id freshet.BlockID, size int64) (string, error) {
	info, err := os.Lstat(d.path(id))
	if err != nil || !info.Mode().IsRegular() || info.Size() > size {
		return "", nil //nolint:nilerr // there is nothing worth keeping
	}
	for i := range maxAside + 1 {
		name := fmt.Sprintf("%s.%d", blockName(id), i)
		to := filepath.Join(d.dir, dirAside, name)
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		return name, os.Rename(d.path(id), to)
	}
	return "", nil
}

func (d *disk) removeAside(name string) {
	// What can't be removed now is found again at the next start.
	_ = d.doLocked("remove", func() error { return os.RemoveAll(filepath.Join(d.dir, dirAside, name)) }) //nolint:errcheck // see above
}

// scanAside finds what earlier processes set aside, the oldest first.
func (d *disk) scanAside() (found []asideFile, err error) {
	const op = "open cache tier"
	entries, err := os.ReadDir(filepath.Join(d.dir, dirAside))
	if err != nil {
		return nil, diskError(op, err)
	}
	for _, de := range entries {
		info, err := de.Info()
		if err != nil || !info.Mode().IsRegular() || len(found) == maxAside {
			d.removeAside(de.Name())
			continue
		}
		found = append(found, asideFile{name: de.Name(), size: info.Size(), modTime: info.ModTime()})
	}
	slices.SortFunc(found, func(a, b asideFile) int { return a.modTime.Compare(b.modTime) })
	return found, nil
}

// probeSize is enough for a full disk to be noticed.
const probeSize = 1 << 20

// probe writes a file to the device and reads it again.
func (d *disk) probe() error {
	const op = "probe cache directory"
	created, err := d.create()
	if err != nil {
		return err
	}
	defer created.close()
	f := created.(*diskDraft).f //nolint:forcetypeassert // create makes nothing else
	want := bytes.Repeat([]byte("freshet\n"), probeSize/8)
	if err := created.append(want); err != nil {
		return err
	}
	if err := d.do("sync", f.Sync); err != nil {
		return diskError(op, err)
	}
	got := make([]byte, probeSize)
	if err := created.readAt(got, 0); err != nil {
		return diskError(op, err)
	}
	if !bytes.Equal(got, want) {
		return freshet.Errorf(freshet.KindUnavailable, op, "", "%s gives back other bytes than were written", d.dir)
	}
	if info, err := os.Stat(filepath.Join(d.dir, dirBlocks)); err != nil || !info.IsDir() {
		return freshet.Errorf(freshet.KindUnavailable, op, "", "%s is gone", filepath.Join(d.dir, dirBlocks))
	}
	return nil
}
