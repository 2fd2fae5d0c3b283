package journal

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// machine lets Raft apply entries to the state. Raft calls it from one goroutine,
// except for Persist.
type machine struct {
	state   State
	snaps   *snapshots
	logs    *checkedLog
	opts    *Options
	metrics *metrics
	fail    func(error)

	applied atomic.Uint64 // as the state's, without its lock

	mu     sync.Mutex
	broken error // nothing is applied or snapshotted any more
}

var errSkipped = errors.New("the entry was applied before")

func (m *machine) init() { m.applied.Store(m.state.Applied()) }

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. Responses are []namespace.Result, or an
// error if the entry was not applied.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			responses[i] = m.apply(l)
		}
	}
	return responses
}

// apply returns []namespace.Result or an error.
func (m *machine) apply(l *raft.Log) any {
	if err := m.failure(); err != nil {
		return err
	}
	if l.Index <= m.applied.Load() {
		return errSkipped
	}
	results, err := m.applyEntry(l)
	if err != nil {
		m.stop(err)
		return err
	}
	m.applied.Store(l.Index)
	return results
}

func (m *machine) applyEntry(l *raft.Log) (results []namespace.Result, err error) {
	const op = "apply log entry"
	defer func() {
		if v := recover(); v != nil {
			err = freshet.Errorf(freshet.KindInternal, op, "", "entry %d: panic: %v\n%s", l.Index, v, debug.Stack())
		}
	}()
	start := time.Now()
	cmds, err := decodeEntry(l.Data)
	if err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	results, changes := m.state.Apply(l.Index, cmds)
	if err := m.state.Err(); err != nil {
		return nil, freshet.Wrap(op, "", err)
	}
	if len(results) != len(cmds) {
		return nil, freshet.Errorf(freshet.KindInternal, op, "", "entry %d has %d commands and %d results", l.Index, len(cmds), len(results))
	}
	m.metrics.apply.Observe(time.Since(start).Seconds())
	if m.opts.OnApply != nil {
		m.opts.OnApply(Applied{Index: l.Index, Commands: cmds, Results: results, Changes: changes})
	}
	return results, nil
}

// stop ends this member's part: an entry that is skipped would make its state
// differ from the others' for ever.
func (m *machine) stop(err error) {
	m.mu.Lock()
	if m.broken == nil {
		m.broken = err
	}
	m.mu.Unlock()
	m.fail(err)
}

func (m *machine) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

// Snapshot implements raft.FSM. It is cheap: see Persist.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.failure(); err != nil {
		return nil, err
	}
	return &localSnapshot{m: m, applied: m.applied.Load()}, nil
}

// localSnapshot is the promise that the state is durable up to applied.
type localSnapshot struct {
	m       *machine
	applied uint64
}

// Persist implements raft.FSMSnapshot.
func (s *localSnapshot) Persist(to raft.SnapshotSink) error {
	k, ok := to.(*sink)
	if !ok {
		return fmt.Errorf("the snapshot store is of another kind: %T", to)
	}
	if err := s.m.state.Flush(); err != nil {
		return err
	}
	if err := s.m.failure(); err != nil { // what was flushed may be half an entry
		return err
	}
	k.local, k.m.Applied = true, s.applied
	return k.Close()
}

// Release implements raft.FSMSnapshot.
func (s *localSnapshot) Release() {}

// Restore implements raft.FSM: it takes over the dump that was received.
func (m *machine) Restore(from io.ReadCloser) error {
	if err := m.failure(); err != nil {
		return err
	}
	_, err := ReadDump(from, m.opts.Identity(), m.state.Restore)
	if err == nil {
		err = m.snaps.adoptReceived()
	}
	if err != nil {
		m.stop(freshet.Wrap("restore snapshot", "", err))
		return err
	}
	m.logs.installed.Store(m.snaps.latest())
	m.applied.Store(m.state.Applied())
	if m.opts.OnRestore != nil {
		m.opts.OnRestore(m.applied.Load())
	}
	return nil
}
