package tier

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-io/freshet"
)

var errShort = errors.New("the block ends early")

const (
	dirBlocks = "blocks"
	dirTemp   = "tmp"
	dirAside  = "quarantine"
	dirHeld   = "held"
	lockFile  = "LOCK"
	dirMode   = 0o700
	fileMode  = 0o600
)

// disk keeps one file for each block in up to 256 subdirectories.
type disk struct {
	dir    string
	lock   *DirLock
	temp   atomic.Uint64
	failed func(error)
	fault  func(op string) error // nil if there is none

	patience time.Duration
	memory   bool         // there is no disk to wait for
	pending  atomic.Int32 // accesses that were given up and are not answered yet
}

// foundBlock is a file that may be a block, by its name and size.
type foundBlock struct {
	id      freshet.BlockID
	length  int64
	modTime time.Time
}

func openDisk(dir string, opts Options) (*disk, error) {
	d := &disk{dir: dir, failed: opts.Failed, fault: opts.Fault, patience: opts.Patience}
	if d.patience <= 0 {
		d.patience = defaultPatience
	}
	if d.failed == nil {
		d.failed = func(error) {}
	}
	if err := d.take(); err != nil {
		return nil, err
	}
	d.memory = inMemory(dir)
	return d, nil
}

// take takes the lock of the directory and prepares it.
func (d *disk) take() error {
	var lock *DirLock
	giveUp := func() {
		if lock != nil {
			_ = lock.Close() //nolint:errcheck // nobody has it
		}
	}
	var failed error
	err := d.within(d.patience, "lock", func() error {
		var err error
		if lock, err = LockDir(d.dir); err != nil {
			failed = err // it has its Kind
			return err
		}
		return d.prepare()
	}, giveUp)
	switch {
	case err == nil:
		d.lock = lock
		return nil
	case hung(err):
		return diskError("open cache tier", err)
	case failed != nil:
		return failed
	}
	giveUp()
	return diskError("open cache tier", err)
}

// DirLock keeps other processes out of a directory.
type DirLock struct{ f *os.File }

// Close gives the lock back. It unlocks in so many words, because a child process
// that is just being started may hold a copy of the file for a moment.
func (l *DirLock) Close() error {
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}

// LockDir makes dir, open to its owner alone, and takes its lock. KindConflict if
// another process has it.
func LockDir(dir string) (*DirLock, error) {
	const op = "lock directory"
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, diskError(op, err)
	}
	if err := os.Chmod(dir, dirMode); err != nil { // it may have existed with wider permissions
		return nil, diskError(op, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, diskError(op, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errorsJoin(freshet.Errorf(freshet.KindConflict, op, "",
			"%s is in use by another process: give each node a directory of its own (%w)", dir, err), f.Close())
	}
	return &DirLock{f}, nil
}

// prepare makes the directories and removes what an interrupted process was
// writing.
func (d *disk) prepare() error {
	if err := os.RemoveAll(filepath.Join(d.dir, dirTemp)); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(d.dir, dirTemp), dirMode); err != nil {
		return err
	}
	for _, name := range []string{dirBlocks, dirAside, dirHeld} {
		path := filepath.Join(d.dir, name)
		if info, err := os.Lstat(path); err == nil && !info.IsDir() {
			if err := os.Remove(path); err != nil { // a link would let blocks land elsewhere
				return err
			}
		}
		if err := os.MkdirAll(path, dirMode); err != nil {
			return err
		}
	}
	return nil
}

// do accesses the directory and tells of its failures.
func (d *disk) do(op string, access func() error) error {
	return d.told(d.within(d.patience, op, access, nil))
}

// doLocked is do for what happens with the tier locked.
func (d *disk) doLocked(op string, access func() error) error {
	return d.told(d.within(lockedPatience, op, access, nil))
}

// told tells of a failure.
func (d *disk) told(err error) error {
	if err != nil && !errors.Is(err, errShort) && !outOfResources(err) {
		d.failed(err)
	}
	return err
}

func (d *disk) stuck() bool { return d.pending.Load() > 0 }

// outOfResources reports whether it was the process that lacked something.
func outOfResources(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

func shardOf(id freshet.BlockID) string {
	h := uint64(id.File)*0x9e3779b97f4a7c15 + uint64(id.Index)*0xbf58476d1ce4e5b9
	return fmt.Sprintf("%02x", byte(h>>56))
}

func (d *disk) path(id freshet.BlockID) string {
	return filepath.Join(d.dir, dirBlocks, shardOf(id), blockName(id))
}

// scan finds the blocks by their names and sizes, the oldest first. What can't
// be one is removed and counted: another name, no regular file, an impossible
// size.
func (d *disk) scan() (found []foundBlock, quarantined int, err error) {
	const op = "open cache tier"
	blocks := filepath.Join(d.dir, dirBlocks)
	shards, err := os.ReadDir(blocks)
	if err != nil {
		return nil, 0, diskError(op, err)
	}
	for _, shard := range shards {
		if !shard.IsDir() || len(shard.Name()) != 2 { // a link would let blocks land elsewhere
			quarantined++
			if err := os.RemoveAll(filepath.Join(blocks, shard.Name())); err != nil {
				return nil, 0, diskError(op, err)
			}
			continue
		}
		var here []foundBlock
		var swept int
		err := d.within(d.patience, "scan", func() (err error) {
			here, swept, err = scanShard(blocks, shard.Name())
			return err
		}, nil)
		if err != nil {
			return nil, 0, diskError(op, err)
		}
		found = append(found, here...)
		quarantined += swept
	}
	sortFound(found)
	return found, quarantined, nil
}

func scanShard(blocks, shard string) (found []foundBlock, swept int, err error) {
	entries, err := os.ReadDir(filepath.Join(blocks, shard))
	if err != nil {
		return nil, 0, err
	}
	for _, de := range entries {
		info, err := de.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			if f, ok := blockOf(info, shard); ok {
				found = append(found, f)
				continue
			}
		}
		swept++
		if err := os.RemoveAll(filepath.Join(blocks, shard, de.Name())); err != nil {
			return nil, 0, err
		}
	}
	return found, swept, nil
}

func blockOf(info fs.FileInfo, shard string) (foundBlock, bool) {
	id, ok := parseBlockName(info.Name())
	if !ok || !info.Mode().IsRegular() || shardOf(id) != shard {
		return foundBlock{}, false
	}
	length, ok := lengthOf(info.Size())
	return foundBlock{id: id, length: length, modTime: info.ModTime()}, ok
}

func parseBlockName(name string) (freshet.BlockID, bool) {
	if len(name) != 16+1+8 {
		return freshet.BlockID{}, false
	}
	file, err1 := strconv.ParseUint(name[:16], 16, 64)
	index, err2 := strconv.ParseUint(name[17:], 16, 32)
	id := freshet.BlockID{File: freshet.FileID(file), Index: uint32(index)}
	return id, err1 == nil && err2 == nil && blockName(id) == name
}

func (d *disk) create() (draft, error) {
	name := filepath.Join(d.dir, dirTemp, strconv.FormatUint(d.temp.Add(1), 16))
	f, err := d.openFile("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, diskError("write block", err)
	}
	return &diskDraft{in: d, f: f, name: name, end: headerSize}, nil
}

// open never follows a link and never waits for a fifo that somebody put in the
// place of a block.
func (d *disk) open(e *entry) (handle, error) {
	f, err := d.openFile("open", d.path(e.id), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, openError(e.id, err)
	}
	h := diskHandle{in: d, f: f, length: e.length}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != fileSize(e.length) {
		return nil, errorsJoin(corrupt(e.id, errors.New("not a regular file of the right size")), f.Close())
	}
	return h, nil
}

// openError tells a damaged block from a process that has run out of files,
// which says nothing about the block.
func openError(id freshet.BlockID, err error) error {
	if outOfResources(err) || hung(err) {
		return diskError("open block", err)
	}
	return corrupt(id, err)
}

// openFile opens a file. One that is open when nobody waits for it any more is closed.
func (d *disk) openFile(op, path string, flag int, mode os.FileMode) (f *os.File, err error) {
	var opened *os.File
	err = d.told(d.within(d.patience, op, func() (err error) {
		opened, err = os.OpenFile(path, flag, mode) //nolint:gosec // the cache's own directory
		return err
	}, func() {
		if opened != nil {
			_ = opened.Close() //nolint:errcheck // nothing was done with it
		}
	}))
	if err != nil {
		return nil, err
	}
	return opened, nil
}

func (d *disk) remove(id freshet.BlockID) {
	// What can't be removed now is found again at the next start.
	_ = d.doLocked("remove", func() error { return os.RemoveAll(d.path(id)) }) //nolint:errcheck // see above
}

func (d *disk) footprint(length int64) int64 { return fileSize(length) }
func (d *disk) close() error                 { return d.lock.Close() }

type diskDraft struct {
	in        *disk
	f         *os.File
	name      string
	end       int64
	published bool
}

func (d *diskDraft) append(p []byte) error {
	end := d.end
	err := d.in.do("write", func() error {
		_, err := d.f.WriteAt(p, end) // if it is given up, what lands late is in a file that nobody uses
		return err
	})
	if err != nil {
		return diskError("write block", err)
	}
	d.end += int64(len(p))
	return nil
}

// expect has the file system find the space at once: that costs it less than finding
// it piece by piece for sections that are written beside each other, and the file ends
// up in fewer extents. Where there is no disk, it would only touch the memory twice.
func (d *diskDraft) expect(length int64) (base int64, err error) {
	if d.in.memory {
		return headerSize, nil
	}
	err = d.in.do("allocate", func() error {
		err := allocate(d.f, fileSize(length))
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINTR) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, diskError("write block", err)
	}
	return headerSize, nil
}

func (d *diskDraft) chunk(int64, int64, int64) []byte { return nil }
func (d *diskDraft) view(int64, int64) []byte         { return nil }

func (d *diskDraft) fill(p []byte, off int64) error {
	err := d.in.do("write", func() error {
		_, err := d.f.WriteAt(p, off+headerSize)
		return err
	})
	if err != nil {
		return diskError("write block", err)
	}
	return nil
}

func (d *diskDraft) lend(int64) (*os.File, int64, error) {
	// A descriptor of its own: whoever has it can't write by it.
	f, err := d.in.openFile("open", fmt.Sprintf("/proc/self/fd/%d", d.f.Fd()), os.O_RDONLY, 0)
	if err != nil {
		return nil, 0, diskError("lend block", err)
	}
	return f, headerSize, nil
}

func (d *diskDraft) readAt(p []byte, off int64) error { return d.in.readFull(d.f, p, off+headerSize) }

func (d *diskDraft) prepare(h header, table []uint64) error {
	d.end = headerSize + h.length
	if err := d.append(encodeTable(table)); err != nil {
		return err
	}
	err := d.in.do("write", func() error {
		_, err := d.f.WriteAt(encodeHeader(h), 0)
		return err
	})
	if err != nil {
		return diskError("write block", err)
	}
	return nil
}

func (d *diskDraft) sync() error {
	if err := d.in.do("sync", d.f.Sync); err != nil {
		return diskError("write block", err)
	}
	return nil
}

func (d *diskDraft) publish(id freshet.BlockID) (stamp, error) {
	path := d.in.path(id)
	err := d.in.doLocked("publish", func() error {
		err := os.Rename(d.name, path)
		if errors.Is(err, fs.ErrNotExist) { // the first block of its subdirectory
			if err = os.Mkdir(filepath.Dir(path), dirMode); err == nil {
				err = os.Rename(d.name, path)
			}
		}
		return err
	})
	if err != nil {
		return stamp{}, diskError("write block", err)
	}
	d.published = true
	return stampOf(d.f) // after the rename, which changes it
}

func (d *diskDraft) close() {
	if !d.published {
		_ = d.in.do("remove", func() error { return os.Remove(d.name) }) //nolint:errcheck // the next start removes what stayed
	}
	_ = d.f.Close() //nolint:errcheck // nothing depends on it: a torn block is recognised when it is opened
}

type diskHandle struct {
	in     *disk
	f      *os.File
	length int64
}

func (h diskHandle) readAt(p []byte, off int64) error { return h.in.readFull(h.f, p, off+headerSize) }
func (h diskHandle) view(_, _ int64) []byte           { return nil }
func (h diskHandle) stamp() (stamp, error)            { return stampOf(h.f) }
func (h diskHandle) file() (*os.File, int64)          { return h.f, headerSize }

// lend lends the handle's own file: each Reader has one.
func (h diskHandle) lend() (*os.File, int64, bool, error) { return h.f, headerSize, false, nil }

func (h diskHandle) close() error { return h.f.Close() }

func (h diskHandle) load() (header, []uint64, error) {
	b := make([]byte, headerSize)
	if err := h.in.readFull(h.f, b, 0); err != nil {
		return header{}, nil, err
	}
	head, err := decodeHeader(b)
	if err != nil {
		return header{}, nil, err
	}
	if head.length != h.length {
		return header{}, nil, fmt.Errorf("the header says %d bytes, the file has %d", head.length, h.length)
	}
	b = make([]byte, 8*chunks(h.length))
	if err := h.in.readFull(h.f, b, headerSize+h.length); err != nil {
		return header{}, nil, err
	}
	table, err := decodeTable(b, head)
	return head, table, err
}

// readFull reads into p, at once what lies in memory. What has to be waited for is
// read into memory of its own, since p is the caller's again when it is given up.
func (d *disk) readFull(f *os.File, p []byte, off int64) error {
	switch {
	case d.fault == nil && d.memory:
		return d.told(readFile(f, p, off))
	case d.fault == nil && !d.stuck() && d.readCached(f, p, off):
		return nil
	}
	own := make([]byte, len(p))
	err := d.do("read", func() error { return readFile(f, own, off) })
	if err == nil {
		copy(p, own)
	}
	return err
}

func readFile(f *os.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errShort
	}
	return err
}

// stamp is what the file system changes when somebody changes a file: cheap to
// ask, so that a chunk that was verified once needs no second look for each
// small read.
type stamp struct {
	inode        uint64
	size         int64
	mtime, ctime int64 // ns
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, diskError("open block", err)
	}
	return stamp{inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}

// diskError gives an error of the cache's disk its Kind: a full disk is
// KindExhausted, all else KindUnavailable. Neither may fail a read of a file.
func diskError(op string, err error) error {
	kind := freshet.KindUnavailable
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		kind = freshet.KindExhausted
	}
	return &freshet.Error{Op: op, Kind: kind, Err: err}
}

func corrupt(id freshet.BlockID, err error) error {
	return freshet.Errorf(freshet.KindCorrupt, "open block", "", "block %s: %w", blockName(id), err)
}

// errorsJoin keeps err as the one whose Kind counts.
func errorsJoin(err, also error) error {
	if also == nil {
		return err
	}
	return fmt.Errorf("%w (and %w)", err, also)
}

// DiskError is err with its Kind: KindExhausted if the disk has no space.
func DiskError(err error) error { return diskError("use cache directory", err) }
