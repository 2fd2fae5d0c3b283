package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/freshet-io/freshet"
)

// ErrOutcomeUnknown is in the chain of an error of Propose when the commands may
// have been applied, or may still be.
var ErrOutcomeUnknown = errors.New("the outcome is unknown")

// OutcomeUnknown reports whether commands whose proposal ended with err may have
// been, or may still be, applied. If not, they never will be.
func OutcomeUnknown(err error) bool { return errors.Is(err, ErrOutcomeUnknown) }

// NotLeaderError is the cause of a KindNotLeader error and says who is the leader
// as far as this member knows; both are empty if it does not.
type NotLeaderError struct {
	ID   string // Raft server ID of the leader
	Addr string // its Raft address
}

// Error says whom to ask.
func (e *NotLeaderError) Error() string {
	if e.ID == "" {
		return "this member is not the leader and knows of none at the moment; try again"
	}
	return fmt.Sprintf("this member is not the leader; ask %s at %s", e.ID, e.Addr)
}

// errStopped is the cause of calls on a journal that is not running.
var errStopped = errors.New("the journal of this member is not running")

// notLeader makes the error of a call that only the leader can answer.
func (j *Journal) notLeader(op string) error {
	id, addr := j.Leader()
	if id == j.opts.ID { // stepping down, or not ready yet: it is no use to come back to us
		id, addr = "", ""
	}
	return &freshet.Error{Op: op, Kind: freshet.KindNotLeader, Err: &NotLeaderError{ID: id, Addr: addr}}
}

// unavailable makes the error of a call on a journal that does not run.
func unavailable(op string, cause error) error {
	return &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: cause}
}

// refused translates an error of Raft that says that nothing was done, and
// returns nil if err does not say that.
func (j *Journal) refused(op string, err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return j.notLeader(op)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return freshet.Errorf(freshet.KindUnavailable, op, "", "the leadership is being transferred; try again: %w", err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return freshet.Errorf(freshet.KindUnavailable, op, "", "the log is busy; try again: %w", err)
	}
	return nil
}

// unknown makes the error of a change that Raft had begun.
func unknown(op string, cause error) error {
	kind := freshet.KindUnavailable
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled) {
		kind = freshet.KindDeadline
	}
	return &freshet.Error{Op: op, Kind: kind, Err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, cause)}
}

// ended makes the error of a call whose context ended before anything was done.
func ended(op string, ctx context.Context) error { //nolint:revive // the operation comes first in every error
	return &freshet.Error{Op: op, Kind: freshet.KindDeadline, Err: context.Cause(ctx)}
}
