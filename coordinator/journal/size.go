package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// How the bytes of the log are bounded. It is cut when it has three quarters of
// Options.LogBytes, down to the newest half, so that the file, which never shrinks,
// has room for what is appended meanwhile. A log that is held for a member that is
// brought up by a copy may grow to heldFactor times the limit; then the member needs
// another copy.
const heldFactor = 4

// entryOverhead is about what the file takes for an entry beside its data.
const entryOverhead = 96

// logSizes knows the size of each entry of the log. Safe for concurrent use.
type logSizes struct {
	mu    sync.Mutex
	first uint64   // index of the first entry; undefined if there is none
	sums  []uint64 // sums[i] is what the entries up to first+i take, those before first included
	base  uint64   // the sum before first
}

// stored notes entries that were appended.
func (s *logSizes) stored(logs []*raft.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		s.add(l.Index, uint64(len(l.Data)+entryOverhead))
	}
}

// add notes an entry, which replaces what there is from its index on, and all that
// does not lead up to it. The caller holds mu.
func (s *logSizes) add(index, size uint64) {
	if index < s.first || index > s.first+uint64(len(s.sums)) {
		s.sums = s.sums[:0]
	}
	if len(s.sums) == 0 {
		s.first = index
	}
	s.sums = s.sums[:index-s.first]
	s.sums = append(s.sums, s.before(index)+size)
}

// before returns the sum of what comes before an entry that is there, or the next.
// The caller holds mu.
func (s *logSizes) before(index uint64) uint64 {
	if index == s.first {
		return s.base
	}
	return s.sums[index-s.first-1]
}

// deleted forgets the entries of a range at either end of the log.
func (s *logSizes) deleted(first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.first + uint64(len(s.sums))
	switch {
	case len(s.sums) == 0 || last < s.first || first >= end:
	case first > s.first:
		s.sums = s.sums[:first-s.first]
	case last+1 >= end:
		s.sums = s.sums[:0]
	default:
		s.base = s.sums[last-s.first]
		s.sums = slices.Delete(s.sums, 0, int(last-s.first+1))
		s.first = last + 1
	}
}

// total returns what all entries take.
func (s *logSizes) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.totalLocked())
}

func (s *logSizes) totalLocked() uint64 {
	if len(s.sums) == 0 {
		return 0
	}
	return s.sums[len(s.sums)-1] - s.base
}

// beyond returns the last entry that is not among the newest that take at most
// limit, 0 if all are. The newest of all always is.
func (s *logSizes) beyond(limit int64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	total, n := s.totalLocked(), len(s.sums)
	if n < 2 || total <= uint64(limit) {
		return 0
	}
	i, _ := slices.BinarySearch(s.sums, s.base+total-uint64(limit))
	return s.first + uint64(min(i, n-2))
}

// readSizes asks the log for each entry.
func (s *logSizes) readSizes(logs raft.LogStore) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	for i := max(first, 1); i <= last; i++ {
		var l raft.Log
		if err := logs.GetLog(i, &l); err != nil {
			return err
		}
		s.stored([]*raft.Log{&l})
	}
	return nil
}

// boltLogs is the bucket in which the library keeps the entries.
const boltLogs = "logs"

// readFile looks at the sizes alone, without reading what the entries hold: they may
// be many times the memory that a restart should touch.
func (s *logSizes) readFile(path string) error {
	if info, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || (err == nil && info.Size() == 0) {
		return nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing was written
	return db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(boltLogs))
		if b == nil {
			return nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return b.ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return errors.New("a key of the log has another length than an index")
			}
			s.add(binary.BigEndian.Uint64(k), uint64(len(v)))
			return nil
		})
	})
}

// excess returns the last entry that the log is too long by, 0 if it is not.
func (c *checkedLog) excess() uint64 {
	if c.limit <= 0 || c.sizes.total() <= c.limit/4*3 {
		return 0
	}
	last := c.sizes.beyond(c.limit / 2)
	if from, held := c.held(); held && from <= last {
		return from - 1
	}
	return last
}

// held returns the first entry that must stay for a member that is brought up.
func (c *checkedLog) held() (from uint64, held bool) {
	if from, held = c.holds.first(); held && c.limit > 0 && c.sizes.total() > heldFactor*c.limit {
		return 0, false
	}
	return from, held
}

// boundLog cuts the log whenever it has got too many bytes, until ctx ends. Raft
// itself does so by the number of entries, which may differ in size by three orders
// of magnitude.
func (j *Journal) boundLog(ctx context.Context, r *raft.Raft) error {
	for {
		select {
		case <-j.store.logs.grown:
		case <-ctx.Done():
			return nil
		}
		if err := j.cutLog(r); err != nil && ctx.Err() == nil {
			j.opts.Log.Warn("the log could not be cut; it is tried again", "error", err)
			select {
			case <-time.After(j.opts.Heartbeat):
			case <-ctx.Done():
			}
		}
	}
}

// cutLog makes a snapshot if the present one does not reach far enough, and deletes
// what is too much.
func (j *Journal) cutLog(r *raft.Raft) error {
	last := j.store.logs.excess()
	first, err := j.store.logs.FirstIndex()
	if err != nil || last == 0 || first == 0 || last < first {
		return err
	}
	if m := j.snaps.latest(); m == nil || m.Index < last {
		if err := j.awaitAnswer(r.Snapshot().Error); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return err
		}
	}
	if m := j.snaps.latest(); m != nil {
		if last = min(last, m.Index); last >= first {
			return j.store.cached.DeleteRange(first, last)
		}
	}
	return nil
}
