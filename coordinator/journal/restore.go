package journal

import (
	"context"
	"errors"
	"io"

	"github.com/hashicorp/raft"
)

// restoreRoom is how far above the end of the log a restored state begins to count:
// room for what is appended while it is being made.
const restoreRoom = 1 << 20

// RestoreIndex returns an index at which a state may begin to count that Restore
// shall replace the members' state by. It holds as long as the log does not grow by a
// million entries.
func (j *Journal) RestoreIndex() (uint64, error) {
	s := j.session.Load()
	if s == nil {
		return 0, unavailable(opRestore, errStopped)
	}
	return max(s.raft.LastIndex(), j.state.Applied()) + restoreRoom, nil
}

const opRestore = "restore snapshot"

// Restore replaces the state of all members by a dump of size bytes, made by
// WriteDump, of a state that has applied index, from RestoreIndex. The dump is closed
// when it is not needed any more. Proposals on their way end with an unknown outcome. It returns when a quorum has the new state. Only
// the leader can do it. If it fails in the middle, and OutcomeUnknown says so, the
// new state may count or not: it has to be restored again.
//
// The leader takes the new state over first: one that dies before any other member
// has it comes back with a state that the others do not have, and must be wiped.
func (j *Journal) Restore(ctx context.Context, index uint64, size int64, dump io.ReadCloser) error {
	s := j.session.Load()
	if s == nil {
		return errors.Join(unavailable(opRestore, errStopped), dump.Close())
	}
	if s.raft.State() != raft.Leader {
		return errors.Join(j.notLeader(opRestore), dump.Close())
	}
	select { // the members must not change meanwhile
	case s.changing <- struct{}{}:
	case <-ctx.Done():
		return errors.Join(ended(opRestore, ctx), dump.Close())
	case <-j.stopping:
		return errors.Join(unavailable(opRestore, errStopped), dump.Close())
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index, Size: size}
	done := make(chan error, 1)
	s.calls.Go(func() { // goes on if ctx ends: it can't be undone
		defer func() {
			_ = dump.Close() // it was only read
			<-s.changing
		}()
		done <- j.awaitAnswer(func() error { return s.raft.Restore(meta, dump, 0) })
	})
	select {
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader):
			return j.notLeader(opRestore)
		}
		return unknown(opRestore, err)
	case <-ctx.Done():
		return unknown(opRestore, context.Cause(ctx))
	}
}
