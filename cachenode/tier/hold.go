package tier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
)

// Hold keeps the blocks of a version, those that it has and those that come, from
// leaving the tier in any way but by damage, over restarts too if it is a disk, until
// Release. Blocks that are written from then on are synced to the disk.
func (t *Tier) Hold(id freshet.FileID) error {
	t.holding <- struct{}{} // one at a time, and not with the tier locked: the disk may take long
	defer func() { <-t.holding }()
	if held, err := t.mayHold(id); held || err != nil {
		return err
	}
	if err := t.medium.hold(id); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errClosed("hold blocks")
	}
	t.held[id] = struct{}{}
	return nil
}

func (t *Tier) mayHold(id freshet.FileID) (held bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, held = t.held[id]; !held && t.closed {
		return false, errClosed("hold blocks")
	}
	return held, nil
}

func errClosed(op string) error {
	return freshet.Errorf(freshet.KindUnavailable, op, "", "the cache tier is closed")
}

// Settle makes a block durable that came before its version was held. KindNotExist: it
// is not there, or its version is not held.
func (t *Tier) Settle(id freshet.BlockID) error {
	t.mu.Lock()
	e := t.blocks[id]
	there := e != nil && t.holds(e) && !t.closed
	t.mu.Unlock()
	if !there {
		return freshet.Errorf(freshet.KindNotExist, "hold blocks", "", "the tier does not hold the block")
	}
	if err := t.medium.sync(id); err != nil {
		return err
	}
	return t.medium.settle(id)
}

// Release makes the blocks of versions like all others. A version whose disk does not
// take note of that stays held, and is to be released again.
func (t *Tier) Release(files ...freshet.FileID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range files {
		if _, ok := t.held[id]; ok && !t.closed && t.medium.unhold(id) == nil {
			delete(t.held, id)
		}
	}
}

// Held returns the versions that are held, in no particular order.
func (t *Tier) Held() []freshet.FileID {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]freshet.FileID, 0, len(t.held))
	for id := range t.held {
		all = append(all, id)
	}
	return all
}

// HeldBytes returns the bytes that the blocks of versions that are held take.
func (t *Tier) HeldBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n int64
	if len(t.held) == 0 {
		return 0
	}
	for _, e := range t.blocks {
		if t.holds(e) {
			n += e.size
		}
	}
	return n
}

func (t *Tier) isHeld(id freshet.FileID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.held[id]
	return ok
}

// holds reports whether the block's version is held. The caller holds mu.
func (t *Tier) holds(e *entry) bool {
	_, ok := t.held[e.id.File]
	return ok
}

func (d *disk) heldPath(id freshet.FileID) string {
	return filepath.Join(d.dir, dirHeld, fmt.Sprintf("%016x", uint64(id)))
}

// hold makes an empty file: it has to be found before any block may be evicted. Of what
// fails, or comes too late for its caller, nothing stays: nobody would ever ask whether
// the version must be held.
func (d *disk) hold(id freshet.FileID) error {
	path := d.heldPath(id)
	remove := func() { _ = os.Remove(path) } //nolint:errcheck // the next start finds what stays
	err := d.told(d.within(d.patience, "hold", func() error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
		if err != nil {
			return err
		}
		if err = errors.Join(f.Close(), syncDir(filepath.Join(d.dir, dirHeld))); err != nil {
			remove()
		}
		return err
	}, remove))
	if err != nil {
		return diskError("hold blocks", err)
	}
	return nil
}

func (d *disk) unhold(id freshet.FileID) error {
	return d.doLocked("unhold", func() error {
		if err := os.Remove(d.heldPath(id)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func (d *disk) scanHeld() (map[freshet.FileID]struct{}, error) {
	entries, err := os.ReadDir(filepath.Join(d.dir, dirHeld))
	if err != nil {
		return nil, diskError("open cache tier", err)
	}
	held := make(map[freshet.FileID]struct{}, len(entries))
	for _, e := range entries {
		if id, err := strconv.ParseUint(e.Name(), 16, 64); err == nil && id != 0 && d.heldPath(freshet.FileID(id)) == filepath.Join(d.dir, dirHeld, e.Name()) {
			held[freshet.FileID(id)] = struct{}{}
		}
	}
	return held, nil
}

// sync makes the bytes of a published block durable.
func (d *disk) sync(id freshet.BlockID) error {
	err := d.do("sync", func() error {
		f, err := os.Open(d.path(id))
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return diskError("hold blocks", err)
	}
	return nil
}

// settle syncs the directories that have the block's name.
func (d *disk) settle(id freshet.BlockID) error {
	err := d.do("sync", func() error {
		shard := filepath.Dir(d.path(id))
		return errors.Join(syncDir(shard), syncDir(filepath.Dir(shard)))
	})
	if err != nil {
		return diskError("write block", err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
