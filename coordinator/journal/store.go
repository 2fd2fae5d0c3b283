package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/freshet-io/freshet"
)

// store is a member's log, its vote and its small files.
type store struct {
	logs   *checkedLog
	cached raft.LogStore
	stable *stopStable
	disk   media
	close  func() error
}

// How many entries stay in memory for the members that are nearly up to date.
const cachedEntries = 64

// maxCheckedLog is the size up to which the whole log file is checked at start:
// about half a second. Entries are checked whenever they are read in any case.
const maxCheckedLog = 1 << 30

// openStore opens the log. fail is told of the first write that fails.
func openStore(o *Options, fail func(error)) (*store, error) {
	if o.Memory != nil {
		s, err := newStore(o.Memory.logs, o.Memory.logs, o.Memory, func() error { return nil }, fail)
		if err != nil {
			return nil, err
		}
		s.logs.limit = o.LogBytes
		return s, s.logs.sizes.readSizes(o.Memory.logs)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(o.Dir, 0o700); err != nil { //nolint:gosec // a directory needs its x bit
		return nil, err
	}
	var sizes logSizes
	bolt, err := openBolt(filepath.Join(o.Dir, logFile), o.NoSync, &sizes)
	if err != nil {
		return nil, err
	}
	s, err := newStore(bolt, bolt, folder(o.Dir), bolt.Close, fail)
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	s.logs.sizes, s.logs.limit = &sizes, o.LogBytes
	return s, nil
}

func newStore(logs raft.LogStore, stable raft.StableStore, disk media, closeFn func() error, fail func(error)) (*store, error) {
	checked := &checkedLog{LogStore: logs, fail: fail, sizes: &logSizes{}, grown: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
	cached, err := raft.NewLogCache(cachedEntries, checked)
	if err != nil {
		return nil, err
	}
	return &store{
		logs: checked, cached: cached, stable: &stopStable{StableStore: stable, fail: fail},
		disk: disk, close: sync.OnceValue(closeFn),
	}, nil
}

// openBolt opens the log file. Its library panics on some kinds of damage, which
// must not look like a defect of ours.
func openBolt(path string, noSync bool, sizes *logSizes) (bolt *raftboltdb.BoltStore, err error) {
	defer func() {
		if v := recover(); v != nil {
			bolt, err = nil, corruptLog(path, fmt.Errorf("%v", v))
		}
	}()
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	if err := sizes.readFile(path); err != nil {
		return nil, boltError(path, err)
	}
	bolt, err = raftboltdb.New(raftboltdb.Options{
		Path: path, NoSync: noSync,
		BoltOptions: &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType},
	})
	return bolt, boltError(path, err)
}

// checkBolt looks for torn and overwritten pages before the library opens the file:
// it would notice some of them only later, and others never.
func checkBolt(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || (err == nil && (info.Size() == 0 || info.Size() > maxCheckedLog)) {
		return nil
	}
	if err != nil {
		return err
	}
	// Opened once for its lock: a file that another process writes is not damaged.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return boltError(path, err)
	}
	defer func() { _ = db.Close() }() // nothing was written
	if err := checkBoltFile(path); err != nil {
		return corruptLog(path, err)
	}
	return nil
}

func boltError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case freshet.KindOf(err) == freshet.KindCorrupt, errors.Is(err, os.ErrPermission):
		return err
	case errors.Is(err, bbolterrors.ErrTimeout):
		return freshet.Errorf(freshet.KindConflict, "open journal", "",
			"%s is in use: another process runs on this data directory", path)
	default:
		return corruptLog(path, err)
	}
}

func corruptLog(path string, err error) error {
	return freshet.Errorf(freshet.KindCorrupt, "open journal", "",
		"the log %s is damaged: %w; restore this member's disk, or wipe its data directory and let it join again", path, err)
}

// hasState reports whether the member has taken part in a cluster.
func (s *store) hasState(snaps raft.SnapshotStore) (bool, error) {
	return raft.HasExistingState(s.cached, s.stable, snaps)
}

// trim makes log and snapshot fit after a crash: entries that a received snapshot
// replaced must never be sent to others, they may have lost an election.
func (s *store) trim(m *marker) error {
	last, err := s.logs.LastIndex()
	if err != nil || m == nil || last == 0 {
		return err
	}
	first, err := s.logs.FirstIndex()
	if err != nil {
		return err
	}
	replaced := last < m.Index
	if !replaced && first <= m.Index {
		var at raft.Log
		switch err := s.logs.GetLog(m.Index, &at); {
		case errors.Is(err, raft.ErrLogNotFound):
			replaced = true
		case err != nil:
			return err
		default:
			replaced = at.Term != m.Term
		}
	}
	if !replaced {
		return nil
	}
	return s.cached.DeleteRange(first, last)
}

// checkedLog gives each entry a checksum, which the file format does not have,
// and never writes again after a write has failed: what a failed fsync left on
// the disk is unknown, and a later one that succeeds says nothing of it.
type checkedLog struct {
	raft.LogStore
	fail  func(error)
	holds holds
	sizes *logSizes
	limit int64         // of the bytes, see Options.LogBytes
	grown chan struct{} // of length 1: the log has got too long
	// installed is the snapshot that Raft has just taken over; it deletes all of the
	// log next.
	installed atomic.Pointer[marker]
	emptied   chan struct{} // of length 1: Raft counts on an end of the log that is gone

	mu     sync.Mutex
	broken error
}

// IsMonotonic makes Raft delete the old log when it installs a snapshot instead
// of leaving a gap after entries that may have lost an election.
func (c *checkedLog) IsMonotonic() bool { return true }

func entrySum(l *raft.Log) []byte {
	head := binary.BigEndian.AppendUint64(nil, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = append(head, byte(l.Type))
	return binary.BigEndian.AppendUint32(nil, crc32.Update(checksum(head), castagnoli, l.Data))
}

// GetLog implements raft.LogStore.
func (c *checkedLog) GetLog(index uint64, l *raft.Log) error {
	if err := c.LogStore.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index || string(l.Extensions) != string(entrySum(l)) {
		return corruptEntry(index)
	}
	l.Extensions = nil
	return nil
}

func corruptEntry(index uint64) error {
	return freshet.Errorf(freshet.KindCorrupt, "read log", "",
		"entry %d of the log is damaged; restore this member's disk, or wipe its data directory and let it join again", index)
}

// StoreLog implements raft.LogStore.
func (c *checkedLog) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (c *checkedLog) StoreLogs(logs []*raft.Log) error {
	summed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		if l.Extensions != nil {
			checkTerm(l)
		}
		own := *l // the caller's may be read by others
		own.Extensions = entrySum(l)
		summed[i] = &own
	}
	if err := c.write(func() error { return c.LogStore.StoreLogs(summed) }); err != nil {
		return err
	}
	c.installed.Store(nil) // there was nothing to delete
	c.sizes.stored(logs)
	if c.excess() > 0 {
		select {
		case c.grown <- struct{}{}:
		default:
		}
	}
	return nil
}

// DeleteRange implements raft.LogStore. Raft also asks to delete entry 0 of an empty
// log, after which its store in memory would take the log for an endless one.
func (c *checkedLog) DeleteRange(first, last uint64) error {
	again := false
	first = max(first, 1)
	end, err := c.LastIndex()
	if err != nil {
		return err
	}
	if last < end {
		if from, held := c.held(); held { // the log is truncated at its beginning: it will be again
			last = min(last, from-1)
		}
	} else if m := c.installed.Swap(nil); m != nil && last > m.Index {
		goesOn, err := c.goesOn(m, last)
		if err != nil {
			return err
		}
		if again = !goesOn; goesOn {
			last = m.Index
		}
	}
	if first > last {
		return nil
	}
	if err := c.write(func() error { return c.LogStore.DeleteRange(first, last) }); err != nil {
		return err
	}
	c.sizes.deleted(first, last)
	if again {
		c.emptied <- struct{}{}
		runtime.Goexit() // before Raft counts on what is gone
	}
	return nil
}

// goesOn reports whether the log up to last agrees with a snapshot that was installed
// and goes on after it. Then what follows stays (Ongaro and Ousterhout, In Search of
// an Understandable Consensus Algorithm, figure 13): Raft goes on to count with the
// end that the log had, and panics if it is not there
// (https://github.com/hashicorp/raft/issues/697). Otherwise nothing may stay, and Raft
// has to begin again; so it has after a change of members, which it would forget.
func (c *checkedLog) goesOn(m *marker, last uint64) (bool, error) {
	for i := m.Index; i <= last; i++ {
		var entry raft.Log
		switch err := c.GetLog(i, &entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			return false, nil
		case err != nil:
			return false, err
		case i == m.Index && entry.Term != m.Term, i > m.Index && entry.Type == raft.LogConfiguration:
			return false, nil
		}
	}
	return true, nil
}

func (c *checkedLog) write(do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	if err := do(); err != nil {
		c.broken = freshet.Errorf(freshet.KindUnavailable, "write log", "",
			"this member stops, because its log can't be written: %w", err)
		c.fail(c.broken)
		return c.broken
	}
	return nil
}

// stopStable stores term and vote. A member that can't record them must not take
// part any more; Raft would panic, and the process with it, so the calling
// goroutine of Raft ends instead and the journal stops in order.
type stopStable struct {
	raft.StableStore
	fail func(error)
}

// Set implements raft.StableStore.
func (s *stopStable) Set(key, val []byte) error { return s.check(s.StableStore.Set(key, val)) }

// SetUint64 implements raft.StableStore.
func (s *stopStable) SetUint64(key []byte, val uint64) error {
	return s.check(s.StableStore.SetUint64(key, val))
}

func (s *stopStable) check(err error) error {
	if err == nil {
		return nil
	}
	s.fail(freshet.Errorf(freshet.KindUnavailable, "write vote", "",
		"this member stops, because its vote can't be written: %w", err))
	runtime.Goexit()
	return err
}
