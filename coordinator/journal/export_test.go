package journal

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Checksum is that of the small files, so that tests can write some.
func Checksum(b []byte) uint32 { return checksum(b) }

// DecodeEntry and EncodeEntry are fuzzed from outside.
func DecodeEntry(b []byte) ([]namespace.Command, error) { return decodeEntry(b) }

// EncodeEntry joins encoded proposals.
func EncodeEntry(parts ...[]byte) []byte {
	var batch []*proposal
	for _, p := range parts {
		batch = append(batch, &proposal{data: p})
	}
	return encodeEntry(batch)
}

// AppendRaw appends an entry with one encoded proposal, whatever it holds.
func AppendRaw(j *Journal, data []byte) error {
	return j.await(j.session.Load().raft.Apply(EncodeEntry(data), 0))
}

// LogRange returns the first and the last entry of the log.
func LogRange(j *Journal) (first, last uint64) {
	first, _ = j.store.logs.FirstIndex()
	last, _ = j.store.logs.LastIndex()
	return first, last
}

// CheckBolt checks the bytes of a log file.
func CheckBolt(b []byte) error { return checkBoltPages(bytes.NewReader(b), int64(len(b))) }

// WaitApplied waits until this member's state has applied index, or the member
// stops.
func WaitApplied(ctx context.Context, j *Journal, index uint64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for j.machine.applied.Load() < index {
		if err := j.machine.failure(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-j.stopped:
			return errStopped
		}
	}
	return nil
}

// FailWrites makes the log's and the vote's writes return what the functions
// return, if that is not nil. Call it before Run.
func FailWrites(j *Journal, log, vote func() error) {
	j.store.logs.LogStore = &failingLog{j.store.logs.LogStore, log}
	j.store.stable.StableStore = &failingStable{j.store.stable.StableStore, vote}
}

type failingLog struct {
	raft.LogStore
	fail func() error
}

func (f *failingLog) StoreLogs(logs []*raft.Log) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.LogStore.StoreLogs(logs)
}

type failingStable struct {
	raft.StableStore
	fail func() error
}

func (f *failingStable) SetUint64(key []byte, v uint64) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.StableStore.SetUint64(key, v)
}

// LogBytes returns the bytes of the log.
func LogBytes(j *Journal) int64 { return j.store.logs.sizes.total() }

// LogSizes is what is known of the sizes of entries.
type LogSizes struct{ s logSizes }

// EntryOverhead is what an entry takes beside its data.
const EntryOverhead = entryOverhead

// Stored notes an entry.
func (l *LogSizes) Stored(index uint64, size int) {
	l.s.stored([]*raft.Log{{Index: index, Data: make([]byte, size)}})
}

// Deleted notes that entries were deleted.
func (l *LogSizes) Deleted(first, last uint64) { l.s.deleted(first, last) }

// Total returns the bytes of all entries.
func (l *LogSizes) Total() int64 { return l.s.total() }

// Beyond returns the last entry that does not fit in limit bytes.
func (l *LogSizes) Beyond(limit int64) uint64 { return l.s.beyond(limit) }

// NewRaftLog is tested from outside.
func NewRaftLog(to *slog.Logger) hclog.Logger { return newRaftLog(to) }
